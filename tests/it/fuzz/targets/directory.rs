//! What a directory sends, and what is asked of it.

use leasehold::auth::ldap::fuzzed;

use super::{text, two};

/// Answers are read to their end or refused.
pub fn answer(input: &[u8]) {
    let count = fuzzed::answers(input);
    assert!(count <= input.len(), "an answer takes more than nothing");
}

pub const FILTER_WORDS: &[&str] = &[
    "(uid={{.Username}})",
    "{{.UserDN}}",
    "{{.UserAttr}}",
    "(&",
    "(|",
    "(!",
    "(",
    ")",
    "*",
    ":=",
    ":dn:",
    ">=",
    "~=",
    "\\2a",
];

/// Whatever somebody is called, the filter has the same parts.
pub fn filter(input: &[u8]) {
    let Some((filter, name)) = two(input) else { return };
    let Some(usual) = fuzzed::filter(filter, "somebody", "cn=somebody") else { return };
    let shape = |written: &[u8]| {
        let mut tags = Vec::new();
        shape_of(written, &mut tags);
        tags
    };
    let expected = shape(&usual);
    for name in [name, "*)(uid=*", "\\2a", "", "*", ")(|(a=*"] {
        let written = fuzzed::filter(filter, name, name).unwrap();
        assert_eq!(shape(&written), expected, "{filter:?} with {name:?}");
    }
}

/// The tags of all elements, in their order; those of constructed ones are followed by what is inside.
fn shape_of(mut written: &[u8], tags: &mut Vec<u8>) {
    while let [tag, first, rest @ ..] = written {
        let (length, rest) = match *first {
            short @ 0..0x80 => (usize::from(short), rest),
            long => {
                let (bytes, rest) = rest.split_at(usize::from(long & 0x7f));
                let add = |sum: usize, byte: &u8| sum << 8 | usize::from(*byte);
                (bytes.iter().fold(0, add), rest)
            }
        };
        let (content, rest) = rest.split_at(length);
        tags.push(*tag);
        if tag & 0x20 != 0 {
            shape_of(content, tags);
            tags.push(0);
        }
        written = rest;
    }
    assert!(written.is_empty(), "half an element");
}

/// A name in a distinguished name comes out of it again.
pub fn name(input: &[u8]) {
    let Some(text) = text(input) else { return };
    fuzzed::common_name(text);
    if text.is_empty() {
        return;
    }
    for tail in ["", ",dc=example", "+ou=x", " , dc=example"] {
        let dn = format!("cn={}{tail}", fuzzed::dn_value(text));
        assert_eq!(fuzzed::common_name(&dn).as_deref(), Some(text), "{dn:?}");
    }
}
