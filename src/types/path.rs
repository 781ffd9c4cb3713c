//! Request paths, parsed once into one canonical form.
//!
//! Everything later in the request judges and uses the same bytes: nothing is decoded, folded,
//! trimmed or resolved a second time, so a policy and a store can never disagree about a name.

use std::fmt;

/// Longest path accepted, in bytes after decoding.
pub const PATH_BYTES_MAX: usize = 1024;
/// Most segments accepted in one path.
pub const PATH_SEGMENTS_MAX: usize = 64;

/// A canonical path below `/v1/`: non-empty segments joined by single slashes, at most one slash at the end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiPath(String);

impl ApiPath {
    /// Parses the still percent-encoded path of a request, without the leading `/v1/`.
    ///
    /// # Errors
    /// Whatever is not already canonical, by name.
    pub fn from_encoded(raw: &str) -> Result<Self, PathError> {
        let mut decoded = Vec::with_capacity(raw.len());
        let mut bytes = raw.bytes();
        while let Some(byte) = bytes.next() {
            if byte != b'%' {
                decoded.push(byte);
                continue;
            }
            let high = bytes.next().and_then(hex_digit).ok_or(PathError::Encoding)?;
            let low = bytes.next().and_then(hex_digit).ok_or(PathError::Encoding)?;
            let value = high * 16 + low;
            // An encoded slash would change the segmentation that proxies in front of us saw.
            if value == b'/' {
                return Err(PathError::EncodedSlash);
            }
            decoded.push(value);
        }
        let text = String::from_utf8(decoded).map_err(|_| PathError::Utf8)?;
        Self::parse(&text)
    }

    /// Parses a path that is not percent-encoded: from a body, a policy or the command line.
    ///
    /// # Errors
    /// Whatever is not already canonical, by name.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(PathError::Control);
        }
        let body = text.strip_suffix('/').unwrap_or(text);
        let mut count = 0;
        for segment in body.split('/') {
            match segment {
                "" => return Err(PathError::EmptySegment),
                "." | ".." => return Err(PathError::DotSegment),
                _ => count += 1,
            }
        }
        if count > PATH_SEGMENTS_MAX {
            return Err(PathError::TooManySegments);
        }
        Ok(Self(text.to_owned()))
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it ends in a slash: a directory, as LIST asks for.
    pub fn is_dir(&self) -> bool {
        self.0.ends_with('/')
    }

    /// The same path with exactly one slash at the end.
    pub fn to_dir(&self) -> Self {
        if self.is_dir() { self.clone() } else { Self(format!("{}/", self.0)) }
    }

    /// The text without a slash at the end.
    pub fn trimmed(&self) -> &str {
        self.0.strip_suffix('/').unwrap_or(&self.0)
    }

    /// Segments from left to right.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.trimmed().split('/')
    }

    /// What follows `prefix` (which ends in a slash), or `None` when the path is elsewhere.
    pub fn strip_mount(&self, prefix: &str) -> Option<&str> {
        debug_assert!(prefix.ends_with('/'));
        if self.0.len() + 1 == prefix.len() && prefix.starts_with(&self.0) {
            return Some("");
        }
        self.0.strip_prefix(prefix)
    }
}

impl fmt::Display for ApiPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ApiPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Why a path was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No path at all.
    #[error("the path is empty")]
    Empty,
    /// More than [`PATH_BYTES_MAX`] bytes.
    #[error("the path is longer than 1024 bytes")]
    TooLong,
    /// More than [`PATH_SEGMENTS_MAX`] segments.
    #[error("the path has more than 64 segments")]
    TooManySegments,
    /// Two slashes in a row, or one at the start.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// A `.` or `..` segment.
    #[error("the path has a '.' or '..' segment")]
    DotSegment,
    /// Control characters.
    #[error("the path has a control character")]
    Control,
    /// `%` without two hexadecimal digits.
    #[error("the path has a malformed percent-encoding")]
    Encoding,
    /// `%2F`.
    #[error("the path has an encoded slash")]
    EncodedSlash,
    /// Not UTF-8 after decoding.
    #[error("the path is not UTF-8")]
    Utf8,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_canonical_is_refused() {
        for (raw, error) in [
            ("", PathError::Empty),
            ("/a", PathError::EmptySegment),
            ("a//b", PathError::EmptySegment),
            ("a//", PathError::EmptySegment),
            ("/", PathError::EmptySegment),
            ("a/../b", PathError::DotSegment),
            ("a/%2e%2E/b", PathError::DotSegment),
            ("./a", PathError::DotSegment),
            ("a%2Fb", PathError::EncodedSlash),
            ("a%2fb", PathError::EncodedSlash),
            ("a%", PathError::Encoding),
            ("a%4", PathError::Encoding),
            ("a%zz", PathError::Encoding),
            ("a%00b", PathError::Control),
            ("a%0a", PathError::Control),
            ("a%ff", PathError::Utf8),
        ] {
            assert_eq!(ApiPath::from_encoded(raw), Err(error), "{raw}");
        }
        assert_eq!(ApiPath::parse(&"a".repeat(1025)), Err(PathError::TooLong));
        assert_eq!(ApiPath::parse(&"a/".repeat(65)), Err(PathError::TooManySegments));
    }

    #[test]
    fn decoding_happens_once() {
        let path = ApiPath::from_encoded("secret/data/a%252e").unwrap();
        assert_eq!(path.as_str(), "secret/data/a%2e");
    }

    #[test]
    fn mounts_are_stripped_on_segment_boundaries() {
        let path = ApiPath::parse("secret/data/x").unwrap();
        assert_eq!(path.strip_mount("secret/"), Some("data/x"));
        assert_eq!(path.strip_mount("sec/"), None);
        assert_eq!(ApiPath::parse("secret").unwrap().strip_mount("secret/"), Some(""));
        assert_eq!(ApiPath::parse("secrets/x").unwrap().strip_mount("secret/"), None);
    }

    proptest! {
        #[test]
        fn parsing_is_idempotent_and_never_panics(raw in "\\PC{0,64}|[a-z%2eEfF/.]{0,32}") {
            if let Ok(path) = ApiPath::from_encoded(&raw) {
                prop_assert_eq!(ApiPath::parse(path.as_str()).unwrap(), path.clone());
                prop_assert!(path.segments().all(|s| !s.is_empty() && s != "." && s != ".."));
            }
        }
    }
}
