use std::collections::HashSet;

use super::*;

const ROOT: NamespaceId = NamespaceId::ROOT;

fn blind() -> BlindKey {
    BlindKey::new(&SecretArray::init_with(|out| out.fill(1)))
}

#[test]
fn tags_are_stable_and_depend_on_the_key() {
    let tag = blind().tag(ROOT, 1, Purpose::Name, b"secret/app");
    assert_eq!(tag, blind().tag(ROOT, 1, Purpose::Name, b"secret/app"));
    let other = BlindKey::new(&SecretArray::init_with(|out| out.fill(2)));
    assert_ne!(tag, other.tag(ROOT, 1, Purpose::Name, b"secret/app"));
    assert_eq!(Tag::from_bytes(*tag.as_bytes()), tag);
}

/// Every way to move bytes from one input to the next: if the encoding were a plain concatenation,
/// some of these would meet.
#[test]
fn no_two_questions_have_the_same_tag() {
    let key = blind();
    let mut tags = HashSet::new();
    let mut asked = 0;
    for namespace in [0, 1, 0x0100, 0x0100_0000] {
        for kind in [0, 1, 0x0100, 0x0101] {
            for purpose in [Purpose::Name, Purpose::Parent, Purpose::Label] {
                for text in [&b""[..], b"\0", b"\0\0", b"\x01", b"a", b"ab", b"a\0", b"\x01\0\0"] {
                    asked += 1;
                    tags.insert(key.tag(NamespaceId(namespace), kind, purpose, text));
                }
            }
        }
    }
    assert_eq!(tags.len(), asked);
}

#[test]
fn token_hashes_compare_by_content_and_read_back() {
    let key = TokenHashKey::new(&SecretArray::init_with(|out| out.fill(3)));
    let hash = key.hash("hvs.abc");
    assert_eq!(hash, key.hash("hvs.abc"));
    assert_ne!(hash, key.hash("hvs.abd"));
    assert_ne!(hash, key.hash("hvs.ab"));
    assert_eq!(TokenHash::from_bytes(*hash.as_bytes()), hash);
    assert_eq!(TokenHash::from_hex(&hash.to_hex()), Some(hash));
    let digits = hash.to_hex();
    for bad in ["", &digits[1..], &digits[2..], &format!("{digits}00"), &"g".repeat(64)] {
        assert_eq!(TokenHash::from_hex(bad), None, "{bad}");
    }
}

#[test]
fn equal_token_hashes_land_in_the_same_bucket() {
    let key = TokenHashKey::new(&SecretArray::init_with(|out| out.fill(3)));
    let set = HashSet::from([key.hash("a"), key.hash("b")]);
    assert!(set.contains(&key.hash("a")));
    assert!(!set.contains(&key.hash("c")));
}

#[test]
fn a_token_hash_is_not_printed() {
    let hash = TokenHash::from_bytes([0xab; 32]);
    assert_eq!(format!("{hash:?}"), "TokenHash");
}

#[test]
fn audited_values_are_recognised_but_not_readable() {
    let key = AuditKey::new(&SecretArray::init_with(|out| out.fill(4)));
    let shown = key.hmac("hunter2");
    assert_eq!(shown, key.hmac("hunter2"));
    assert_ne!(shown, key.hmac("hunter3"));
    let digits = shown.strip_prefix("hmac-sha256:").unwrap();
    assert_eq!(HEXLOWER.decode(digits.as_bytes()).unwrap().len(), 32);
}
