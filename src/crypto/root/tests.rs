use super::*;

const UNSEAL: [u8; 32] = [5; 32];

#[test]
fn a_root_key_unwraps_with_its_unseal_key_and_context() {
    let root = RootKey::random().unwrap();
    for suite in Suite::ALL {
        let wrapped = wrap_root(suite, &UNSEAL, &root, b"slot 1").unwrap();
        assert!(unwrap_root(&UNSEAL, &wrapped, b"slot 1").unwrap().same_as(&root));
        assert!(unwrap_root(&[6; 32], &wrapped, b"slot 1").is_err());
        assert!(unwrap_root(&UNSEAL, &wrapped, b"slot 2").is_err());
        assert!(unwrap_root(&UNSEAL, &wrapped, b"slot").is_err());
    }
}

#[test]
fn every_flipped_byte_and_every_truncation_is_refused() {
    let root = RootKey::random().unwrap();
    for suite in Suite::ALL {
        let wrapped = wrap_root(suite, &UNSEAL, &root, b"").unwrap();
        for position in 0..wrapped.len() {
            for flip in [1, 3, 0x80] {
                let mut bad = wrapped.clone();
                bad[position] ^= flip;
                assert!(unwrap_root(&UNSEAL, &bad, b"").is_err(), "byte {position}");
            }
            assert!(unwrap_root(&UNSEAL, &wrapped[..position], b"").is_err());
        }
    }
}

#[test]
fn what_was_sealed_as_something_else_is_no_root_key() {
    // Right key, right associated data, wrong length: a slot must not yield a short key.
    let suite = Suite::Aes256Gcm;
    let header = [VERSION, suite.id()];
    for len in [0, 16, 31, 33, 64] {
        let sealed = wrapping_key(suite, &UNSEAL)
            .seal_random(suite, &associated_data(header, b""), &vec![1; len])
            .unwrap();
        assert!(unwrap_root(&UNSEAL, &[&header, sealed.as_slice()].concat(), b"").is_err());
    }
}

#[test]
fn the_unseal_key_and_the_root_key_are_not_used_directly() {
    let root = RootKey::random().unwrap();
    let [gcm, chacha] = Suite::ALL.map(|suite| root.keyring_key(suite));
    assert_ne!(gcm.expose(), chacha.expose());
    assert_ne!(gcm.expose(), root.expose());
    assert_ne!(wrapping_key(Suite::Aes256Gcm, root.expose()).expose(), gcm.expose());
}
