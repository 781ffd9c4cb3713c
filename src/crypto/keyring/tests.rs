use std::collections::HashSet;

use super::*;
use crate::crypto::blind::Tag;
use crate::crypto::envelope::{self, EnvelopeError, RecordContext};
use crate::types::id::NamespaceId;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const LATER: Timestamp = Timestamp::from_secs(1_800_000_000);

fn context() -> RecordContext {
    RecordContext {
        namespace: NamespaceId::ROOT,
        kind: 1,
        parent: Tag::from_bytes([1; 16]),
        name: Tag::from_bytes([2; 16]),
        rev: 1,
    }
}

fn rotated() -> Keyring {
    let keyring = Keyring::generate(Suite::Aes256Gcm, NOW).unwrap();
    keyring.rotate(Suite::ChaCha20Poly1305, LATER).unwrap()
}

#[test]
fn rotation_adds_a_term_and_keeps_the_others_and_the_subkeys() {
    let first = Keyring::generate(Suite::Aes256Gcm, NOW).unwrap();
    let old = envelope::seal(&first, &context(), b"old").unwrap();
    let second = first.rotate(Suite::ChaCha20Poly1305, LATER).unwrap();
    assert_eq!((first.active_term(), second.active_term()), (1, 2));
    assert_eq!(second.active_suite(), Suite::ChaCha20Poly1305);
    let new = envelope::seal(&second, &context(), b"new").unwrap();
    assert_eq!((old.term(), new.term()), (1, 2));
    assert!(envelope::open(&second, &context(), &old).unwrap().ct_eq(b"old"));
    assert!(matches!(envelope::open(&first, &context(), &new), Err(EnvelopeError::UnknownTerm(2))));
    let label = Label::BlindIndex;
    assert!(first.subkey(label).ct_eq(second.subkey(label).expose()));
}

#[test]
fn a_term_is_described_without_its_key() {
    let keyring = rotated();
    envelope::seal(&keyring, &context(), b"").unwrap();
    let old = TermInfo {
        term: 1,
        suite: Suite::Aes256Gcm,
        created_at: NOW,
        encryptions: 0,
        active: false,
    };
    let new = TermInfo {
        term: 2,
        suite: Suite::ChaCha20Poly1305,
        created_at: LATER,
        encryptions: 1,
        active: true,
    };
    assert_eq!(keyring.terms(), [old, new]);
}

#[test]
fn rewrapping_then_destroying_the_old_term_loses_nothing_and_opens_nothing_old() {
    let first = Keyring::generate(Suite::Aes256Gcm, NOW).unwrap();
    let old = envelope::seal(&first, &context(), b"kept").unwrap();
    let second = first.rotate(Suite::ChaCha20Poly1305, LATER).unwrap();
    let moved = envelope::rewrap(&second, &context(), &old).unwrap();
    let third = second.destroy_below(2).unwrap();
    assert_eq!(third.terms().len(), 1);
    assert!(envelope::open(&third, &context(), &moved).unwrap().ct_eq(b"kept"));
    assert!(matches!(envelope::open(&third, &context(), &old), Err(EnvelopeError::UnknownTerm(1))));
}

#[test]
fn the_active_term_is_never_destroyed() {
    let keyring = rotated();
    assert_eq!(keyring.destroy_below(0).unwrap().terms().len(), 2);
    assert_eq!(keyring.destroy_below(1).unwrap().terms().len(), 2);
    assert_eq!(keyring.destroy_below(2).unwrap().terms().len(), 1);
    for term in [3, u32::MAX] {
        assert!(matches!(keyring.destroy_below(term), Err(KeyringError::StillNeeded(2))));
    }
}

#[test]
fn a_term_number_is_not_used_again_after_destruction() {
    let keyring = rotated().destroy_below(2).unwrap();
    assert_eq!(keyring.rotate(Suite::Aes256Gcm, LATER).unwrap().active_term(), 3);
}

#[test]
fn a_keyring_has_bounds() {
    let mut keyring = Keyring::generate(Suite::Aes256Gcm, NOW).unwrap();
    for _ in 1..TERMS_MAX {
        keyring = keyring.rotate(Suite::Aes256Gcm, NOW).unwrap();
    }
    assert!(matches!(keyring.rotate(Suite::Aes256Gcm, NOW), Err(KeyringError::Full)));
    let root = RootKey::random().unwrap();
    let stored = keyring.seal_under(&root, 1).unwrap();
    assert_eq!(Keyring::open_under(&root, 1, &stored).unwrap().terms().len(), TERMS_MAX);
    keyring.active.number = u32::MAX;
    keyring.older.clear();
    assert!(matches!(keyring.rotate(Suite::Aes256Gcm, NOW), Err(KeyringError::Full)));
}

#[test]
fn a_used_up_term_refuses_to_wrap_but_still_opens() {
    let keyring = Keyring::generate(Suite::Aes256Gcm, NOW).unwrap();
    assert!(!keyring.rotation_due());
    keyring.active.encryptions.store(ENCRYPTIONS_MAX - 1, Ordering::Relaxed);
    assert!(keyring.rotation_due());
    let last = envelope::seal(&keyring, &context(), b"last").unwrap();
    let full = envelope::seal(&keyring, &context(), b"one more");
    assert!(matches!(full, Err(EnvelopeError::UsedUp(1))));
    assert!(matches!(envelope::rewrap(&keyring, &context(), &last), Err(EnvelopeError::UsedUp(1))));
    assert!(envelope::open(&keyring, &context(), &last).unwrap().ct_eq(b"last"));
    let rotated = keyring.rotate(Suite::Aes256Gcm, LATER).unwrap();
    assert!(!rotated.rotation_due());
    assert!(envelope::rewrap(&rotated, &context(), &last).is_ok());
}

#[test]
fn wraps_are_counted_across_copies_of_the_keyring() {
    let first = Keyring::generate(Suite::Aes256Gcm, NOW).unwrap();
    let copy = first.destroy_below(1).unwrap();
    envelope::seal(&first, &context(), b"").unwrap();
    envelope::seal(&copy, &context(), b"").unwrap();
    assert_eq!(copy.terms().first().unwrap().encryptions, 2);
}

#[test]
fn a_stored_keyring_comes_back_whole() {
    let (keyring, root) = (rotated(), RootKey::random().unwrap());
    let record = envelope::seal(&keyring, &context(), b"body").unwrap();
    let back = Keyring::open_under(&root, 7, &keyring.seal_under(&root, 7).unwrap()).unwrap();
    assert_eq!(back.terms(), keyring.terms());
    assert!(back.seed.ct_eq(keyring.seed.expose()));
    assert!(envelope::open(&back, &context(), &record).unwrap().ct_eq(b"body"));
}

#[test]
fn another_root_key_or_generation_does_not_open_it() {
    let (keyring, root) = (rotated(), RootKey::random().unwrap());
    let stored = keyring.seal_under(&root, 7).unwrap();
    let other = RootKey::random().unwrap();
    for refused in [
        Keyring::open_under(&other, 7, &stored),
        Keyring::open_under(&root, 6, &stored),
        Keyring::open_under(&root, 8, &stored),
    ] {
        assert!(matches!(refused, Err(KeyringError::DoesNotOpen)));
    }
}

#[test]
fn a_damaged_or_cut_keyring_is_refused() {
    let (keyring, root) = (rotated(), RootKey::random().unwrap());
    let stored = keyring.seal_under(&root, 7).unwrap();
    for position in 0..stored.len() {
        let mut bad = stored.clone();
        bad[position] ^= 3;
        assert!(Keyring::open_under(&root, 7, &bad).is_err(), "byte {position}");
        assert!(Keyring::open_under(&root, 7, &stored[..position]).is_err(), "cut {position}");
    }
}

#[test]
fn nonsense_under_the_right_key_is_unreadable() {
    let keyring = rotated();
    let good = keyring.encode();
    assert!(Keyring::decode(&good).is_some());
    let (seed, terms) = good.split_at(KEY_BYTES);
    let (first, second) = terms.split_at(TERM_BYTES);
    let mut unknown_suite = first.to_vec();
    unknown_suite[4] = 9;
    for bad in [
        vec![],
        seed.to_vec(),
        [seed, first, second, &[0]].concat(),
        [seed, second, first].concat(),
        [seed, first, first].concat(),
        [seed, &unknown_suite].concat(),
        [seed, &first.repeat(TERMS_MAX + 1)].concat(),
        good[..good.len() - 1].to_vec(),
    ] {
        assert!(Keyring::decode(&bad).is_none(), "{} bytes", bad.len());
    }
}

#[test]
fn labels_give_independent_subkeys() {
    let keyring = rotated();
    let labels = [
        Label::BlindIndex,
        Label::TokenHash,
        Label::AuditHmac,
        Label::AuditChain,
        Label::BatchToken,
        Label::Checksum,
    ];
    let infos: HashSet<&[u8]> = labels.iter().map(|label| label.info()).collect();
    assert_eq!(infos.len(), labels.len());
    let keys: HashSet<[u8; 32]> = labels.iter().map(|l| *keyring.subkey(*l).expose()).collect();
    assert_eq!(keys.len(), labels.len());
    assert!(!keys.contains(keyring.seed.expose()));
    let other = rotated();
    assert!(!keys.contains(other.subkey(Label::BlindIndex).expose()));
}
