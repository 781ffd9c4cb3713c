//! Names: of people, in distinguished names, and out of them.

use std::fmt::Write as _;

/// Longest name of a person or group, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 256;

/// Whether somebody can be called so. Directories do not tell names apart by the spaces around and
/// between their words, so that only one way to space them is taken.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.contains(char::is_control)
        && !name.starts_with(' ')
        && !name.ends_with(' ')
        && !name.contains("  ")
}

/// A name in the spelling that it is known by: lower case, unless a mount tells cases apart.
pub(super) fn spelled(name: &str, case_sensitive: bool) -> String {
    if case_sensitive { name.to_owned() } else { name.to_lowercase() }
}

/// Whether `text` can stand for an attribute (RFC 4512 §2.5, without options).
pub(super) fn is_attribute(text: &str) -> bool {
    let descriptor = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let oid = text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.len() <= 128 && (descriptor || oid)
}

/// `value` as it stands in a distinguished name (RFC 4514 §2.4).
pub(super) fn dn_value(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (index, c) in value.chars().enumerate() {
        let at_edge = (index == 0 && (c == ' ' || c == '#')) || (index == last && c == ' ');
        if c.is_control() {
            // NUL must be written so, and others may.
            let mut bytes = [0u8; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                // Writing to a String does not fail.
                let _ = write!(out, "\\{byte:02x}");
            }
            continue;
        }
        if at_edge || "\"+,;<=>\\".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// What a group is called whose membership is given by `value`: the common name at the head of a
/// distinguished name, or else the value itself.
pub(super) fn group_name(value: &str) -> String {
    common_name(value).unwrap_or_else(|| value.to_owned())
}

/// The common name at the head of a distinguished name, unescaped (RFC 4514 §3).
pub(super) fn common_name(dn: &str) -> Option<String> {
    let (kind, rest) = dn.split_once('=')?;
    if !kind.trim().eq_ignore_ascii_case("cn") && kind.trim() != "2.5.4.3" {
        return None;
    }
    let mut bytes = Vec::new();
    // How much of it would be lost by trimming, but is escaped and belongs to it.
    let mut kept = 0;
    let mut left = rest.trim_start_matches(' ').bytes();
    while let Some(byte) = left.next() {
        match byte {
            b',' | b'+' | b';' => break,
            b'\\' => {
                let next = left.next()?;
                bytes.push(match hex(next) {
                    Some(high) => high << 4 | hex(left.next()?)?,
                    None => next,
                });
                kept = bytes.len();
            }
            other => {
                bytes.push(other);
                if other != b' ' {
                    kept = bytes.len();
                }
            }
        }
    }
    bytes.truncate(kept);
    String::from_utf8(bytes).ok().filter(|name| !name.is_empty())
}

/// The value of a hexadecimal digit.
pub(super) fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_escaped_as_the_standard_says() {
        // The examples of RFC 4514 §4, and what is worse.
        for (value, escaped) in [
            ("James \"Jim\" Smith, III", "James \\\"Jim\\\" Smith\\, III"),
            ("Before\rAfter", "Before\\0dAfter"),
            (" # ", "\\ #\\ "),
            ("#", "\\#"),
            (" ", "\\ "),
            ("a+b;c<d>e=f\\g", "a\\+b\\;c\\<d\\>e\\=f\\\\g"),
            ("x\0", "x\\00"),
            ("\u{85}", "\\c2\\85"),
            ("ann,ou=admins", "ann\\,ou\\=admins"),
            ("Lučić", "Lučić"),
            ("", ""),
        ] {
            assert_eq!(dn_value(value), escaped);
        }
    }

    #[test]
    fn groups_are_called_by_their_common_name() {
        for (value, name) in [
            ("cn=admins,ou=groups,dc=example,dc=org", "admins"),
            ("CN = Domain Admins , DC=corp", "Domain Admins"),
            ("cn=a\\,b\\2bc,dc=x", "a,b+c"),
            ("cn=trailing\\ ,dc=x", "trailing "),
            ("cn=Lu\\C4\\8Di\\C4\\87", "Lučić"),
            ("cn=first+ou=second,dc=x", "first"),
            ("2.5.4.3=x", "x"),
            ("ou=admins,dc=x", "ou=admins,dc=x"),
            ("cn=", "cn="),
            ("cn=broken\\", "cn=broken\\"),
            ("cn=\\ff\\fe", "cn=\\ff\\fe"),
            ("plain", "plain"),
        ] {
            assert_eq!(group_name(value), name);
        }
    }

    #[test]
    fn only_one_spacing_of_a_name_is_taken() {
        for name in ["ann", "Ann Smith", "a.b@c", "*", "a)(b", "Lučić"] {
            assert!(is_name(name), "{name:?}");
        }
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        for name in ["", " ann", "ann ", "a  b", "a\0", "a\nb", "\u{7f}", long.as_str()] {
            assert!(!is_name(name), "{name:?}");
        }
        assert_eq!(spelled("ÄNN", false), "änn");
        assert_eq!(spelled("ÄNN", true), "ÄNN");
    }

    proptest! {
        #[test]
        fn a_value_stays_in_its_place(value in any::<String>()) {
            let escaped = dn_value(&value);
            // Read back as any reader of such names would, it is the same and nothing follows.
            let dn = format!("cn={escaped},dc=example");
            prop_assert_eq!(common_name(&dn), Some(value).filter(|value| !value.is_empty()));
        }
    }
}
