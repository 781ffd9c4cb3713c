//! What the modules promise together: stored layouts that never change, and secrets that cannot be
//! printed or copied by accident.

use data_encoding::HEXLOWER;
use serde_json::Value;

use super::aead::{AeadKey, Suite};
use super::blind::{AuditKey, BlindKey, Purpose, Tag, TokenHashKey};
use super::envelope::{self, RecordContext, SealedRecord};
use super::keyring::{Keyring, Label};
use super::root::{RootKey, unwrap_root};
use crate::types::id::NamespaceId;
use crate::types::secret::SecretArray;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../tests/vectors/crypto.json")).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

fn number<T: TryFrom<u64, Error: std::fmt::Debug>>(value: &Value) -> T {
    value.as_u64().unwrap().try_into().unwrap()
}

fn root_of(vectors: &Value) -> RootKey {
    RootKey::new(SecretArray::from_slice(&bytes(&vectors["root"])).unwrap())
}

fn keyring_of(vectors: &Value) -> Keyring {
    let generation = number(&vectors["generation"]);
    Keyring::open_under(&root_of(vectors), generation, &bytes(&vectors["keyring"])).unwrap()
}

fn context_of(vectors: &Value) -> RecordContext {
    let context = &vectors["context"];
    RecordContext {
        namespace: NamespaceId(number(&context["namespace"])),
        kind: number(&context["kind"]),
        parent: Tag::from_bytes(array(&context["parent"])),
        name: Tag::from_bytes(array(&context["name"])),
        rev: number(&context["rev"]),
    }
}

#[test]
fn a_keyring_in_the_documented_layout_is_read() {
    let terms = keyring_of(&vectors()).terms();
    let facts: Vec<_> = terms
        .iter()
        .map(|t| (t.term, t.suite, t.created_at.as_millis(), t.encryptions, t.active))
        .collect();
    assert_eq!(
        facts,
        [
            (1, Suite::Aes256Gcm, 1_700_000_000_000, 7, false),
            (2, Suite::ChaCha20Poly1305, 1_800_000_000_000, 9, true),
        ]
    );
}

#[test]
fn wrapped_root_keys_in_the_documented_layout_are_read() {
    let vectors = vectors();
    let wrapped = vectors["wrapped_roots"].as_array().unwrap();
    assert_eq!(wrapped.len(), Suite::ALL.len());
    for one in wrapped {
        let unseal_key = array(&one["unseal_key"]);
        let root = unwrap_root(&unseal_key, &bytes(&one["wrapped"]), &bytes(&one["context"]));
        assert!(root.unwrap().same_as(&root_of(&vectors)));
    }
}

#[test]
fn records_in_the_documented_layout_are_read() {
    let vectors = vectors();
    let (keyring, context) = (keyring_of(&vectors), context_of(&vectors));
    let records = vectors["records"].as_array().unwrap();
    assert_eq!(records.len(), 8);
    for record in records {
        let sealed = SealedRecord::from_stored(bytes(&record["sealed"])).unwrap();
        assert_eq!(sealed.term(), number::<u32>(&record["term"]));
        let opened = envelope::open(&keyring, &context, &sealed).unwrap();
        assert!(opened.ct_eq(&bytes(&record["plaintext"])));
        let moved = envelope::rewrap(&keyring, &context, &sealed).unwrap();
        assert_eq!(moved.term(), 2);
        assert!(envelope::open(&keyring, &context, &moved).unwrap().ct_eq(opened.expose()));
    }
}

#[test]
fn keyed_hashes_are_the_documented_ones() {
    let vectors = vectors();
    let keyring = keyring_of(&vectors);
    for (name, label) in [
        ("blind-index", Label::BlindIndex),
        ("token-hash", Label::TokenHash),
        ("audit-hmac", Label::AuditHmac),
        ("audit-chain", Label::AuditChain),
        ("batch-token", Label::BatchToken),
        ("checksum", Label::Checksum),
        ("login-state", Label::LoginState),
    ] {
        assert!(keyring.subkey(label).ct_eq(&array(&vectors["subkeys"][name])), "{name}");
    }
    let text = vectors["text"].as_str().unwrap();
    let purposes = [Purpose::Name, Purpose::Parent, Purpose::Label];
    for (purpose, tag) in purposes.into_iter().zip(vectors["tags"].as_array().unwrap()) {
        let made = keyring.blind_key().tag(NamespaceId(3), 258, purpose, text.as_bytes());
        assert_eq!(made, Tag::from_bytes(array(tag)));
    }
    assert_eq!(keyring.token_hash_key().hash(text).as_bytes(), &array(&vectors["token_hash"]));
    assert_eq!(keyring.audit_key().hmac(text), vectors["audit"].as_str().unwrap());
}

/// Fails to compile when one of the types implements one of the traits: both of the blanket
/// implementations below then apply, and the compiler cannot choose.
macro_rules! assert_not_implemented {
    ($bound:path: $($secret:ty),+) => {
        $(const _: fn() = || {
            trait Choose<Which> {
                fn choose() {}
            }
            struct Implemented;
            impl<T: ?Sized> Choose<()> for T {}
            impl<T: ?Sized + $bound> Choose<Implemented> for T {}
            let _ = <$secret as Choose<_>>::choose;
        };)+
    };
}

assert_not_implemented!(std::fmt::Debug:
    AeadKey, RootKey, Keyring, BlindKey, TokenHashKey, AuditKey);
assert_not_implemented!(std::fmt::Display:
    AeadKey, RootKey, Keyring, BlindKey, TokenHashKey, AuditKey);
assert_not_implemented!(Clone: AeadKey, RootKey, Keyring, BlindKey, TokenHashKey, AuditKey);
assert_not_implemented!(PartialEq: AeadKey, RootKey, Keyring, BlindKey, TokenHashKey, AuditKey);
assert_not_implemented!(serde::Serialize:
    AeadKey, RootKey, Keyring, BlindKey, TokenHashKey, AuditKey);
