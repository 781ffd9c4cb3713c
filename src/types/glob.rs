//! Patterns in which `*` stands for any text and everything else for itself. Always anchored at both
//! ends: whoever wants "contains" writes the stars.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A pattern. Case counts; `*` matches nothing as well.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Glob(String);

impl Glob {
    /// Every text is a pattern.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether all of `text` matches, in time proportional to the product of both lengths at worst.
    pub fn matches(&self, text: &str) -> bool {
        let Some((head, rest)) = self.0.split_once('*') else { return self.0 == text };
        let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
        let Some(mut left) = text.strip_prefix(head).and_then(|left| left.strip_suffix(tail))
        else {
            return false;
        };
        // Between the fixed ends, the leftmost place for each part leaves the most room for the next.
        for part in middle.split('*') {
            match left.find(part) {
                Some(at) => left = left.get(at + part.len()..).unwrap_or_default(),
                None => return false,
            }
        }
        true
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|skip| naive(rest, &text[skip..])),
            Some((byte, rest)) => text.first() == Some(byte) && naive(rest, &text[1..]),
        }
    }

    #[test]
    fn patterns_are_anchored_and_case_counts() {
        for (pattern, text, expected) in [
            ("a.example.org", "a.example.org", true),
            ("a.example.org", "a.example.org.evil.com", false),
            ("a.example.org", "xa.example.org", false),
            ("a.example.org", "A.example.org", false),
            ("*.example.org", "a.example.org", true),
            ("*.example.org", "a.example.org.evil.com", false),
            ("web-*", "web-", true),
            ("a*a", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            (".", "x", false),
            ("[a-z]+", "a", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(text), expected, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn matches_as_a_naive_matcher_does(pattern in "[ab*]{0,8}", text in "[ab*]{0,8}") {
            let expected = naive(pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(Glob::new(pattern).matches(&text), expected);
        }
    }
}
