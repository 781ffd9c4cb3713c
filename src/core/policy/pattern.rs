//! Paths with `*` at the end and `+` as a segment: what they match, and which is more specific.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use crate::types::path::{PATH_BYTES_MAX, PATH_SEGMENTS_MAX};

/// A parsed path pattern. Cheap to clone.
///
/// `*` stands at the end only and matches any rest, also none and also across slashes. `+` is a
/// whole segment and matches any one segment; the segment after the final slash of a path is
/// empty, and `+` matches that too, as stock does. A `+` within a longer segment is itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern {
    text: Arc<str>,
    kind: Kind,
}

/// How a pattern matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::core) enum Kind {
    /// One path.
    Exact,
    /// What starts with the text before `*`.
    Prefix,
    /// With `+`.
    Segments {
        /// Where the first `+` is, in bytes.
        first: usize,
        /// How many `+` there are.
        pluses: usize,
        /// Whether `*` follows.
        open: bool,
    },
}

/// The documented order of patterns that match the same path, greatest first: a later first
/// wildcard, not ending in `*`, fewer `+`, longer, lexicographically greater.
pub(in crate::core) type Priority<'a> = (usize, bool, Reverse<usize>, usize, &'a str);

impl Pattern {
    /// Parses a pattern; one leading slash is dropped.
    ///
    /// # Errors
    /// Patterns that are ambiguous, or that no canonical path can match.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let text = text.strip_prefix('/').unwrap_or(text);
        let (literal, open) = match text.strip_suffix('*') {
            Some(literal) => (literal, true),
            None => (text, false),
        };
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if literal.len() > PATH_BYTES_MAX {
            return Err(PatternError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(PatternError::Control);
        }
        if literal.contains('*') {
            return Err(PatternError::StarInside);
        }
        if text.contains("{{") || text.contains("}}") {
            return Err(PatternError::Braces);
        }
        let mut first = None;
        let mut pluses = 0;
        let mut offset = 0;
        let last = literal.matches('/').count();
        for (position, segment) in literal.split('/').enumerate() {
            match segment {
                "" if position != last => return Err(PatternError::EmptySegment),
                "." | ".." if position != last || !open => return Err(PatternError::DotSegment),
                "+" if position == last && open => return Err(PatternError::PlusStar),
                "+" => {
                    first = first.or(Some(offset));
                    pluses += 1;
                }
                _ => {}
            }
            offset += segment.len() + 1;
        }
        if last > PATH_SEGMENTS_MAX {
            return Err(PatternError::TooManySegments);
        }
        let kind = match (first, open) {
            (Some(first), open) => Kind::Segments { first, pluses, open },
            (None, true) => Kind::Prefix,
            (None, false) => Kind::Exact,
        };
        Ok(Self { text: text.into(), kind })
    }

    /// As written, without a leading slash.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(in crate::core) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.text)
    }

    pub(in crate::core) const fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether `*` ends it.
    pub(in crate::core) const fn is_open(&self) -> bool {
        match self.kind {
            Kind::Exact => false,
            Kind::Prefix => true,
            Kind::Segments { open, .. } => open,
        }
    }

    /// The text without the final `*`.
    pub(in crate::core) fn literal(&self) -> &str {
        if self.is_open() { self.text.strip_suffix('*').unwrap_or(&self.text) } else { &self.text }
    }

    /// Where it stands among patterns that match the same path. An exact one stands above all.
    pub(in crate::core) fn priority(&self) -> Priority<'_> {
        let (first, pluses) = match self.kind {
            Kind::Exact => (usize::MAX, 0),
            Kind::Prefix => (self.literal().len(), 0),
            Kind::Segments { first, pluses, .. } => (first, pluses),
        };
        (first, !self.is_open(), Reverse(pluses), self.text.len(), &self.text)
    }

    /// Whether it matches a canonical path.
    pub fn matches(&self, path: &str) -> bool {
        match self.kind {
            Kind::Exact => *self.text == *path,
            Kind::Prefix => path.starts_with(self.literal()),
            Kind::Segments { open, .. } => {
                let mut ours = self.literal().split('/').peekable();
                let mut theirs = path.split('/');
                loop {
                    match (ours.next(), theirs.next()) {
                        (Some(own), Some(segment)) if open && ours.peek().is_none() => {
                            return segment.starts_with(own);
                        }
                        (Some(own), Some(segment)) if own == "+" || own == segment => {}
                        (None, None) => return true,
                        (_, _) => return false,
                    }
                }
            }
        }
    }

    /// Whether it matches every path that `other` matches. May say no where the answer is a
    /// matter of several patterns together, never yes where one path escapes.
    pub fn contains(&self, other: &Self) -> bool {
        match (self.kind, other.kind) {
            (_, Kind::Exact) => self.matches(&other.text),
            (Kind::Exact, _) => false,
            (Kind::Prefix, Kind::Prefix) => other.literal().starts_with(self.literal()),
            (Kind::Prefix, Kind::Segments { first, .. }) => {
                other.text.get(..first).is_some_and(|fixed| fixed.starts_with(self.literal()))
            }
            // An open pattern that matches the fixed part of a prefix matches what follows too:
            // its own last segment is a prefix, and all before it are complete in that part.
            (Kind::Segments { open, .. }, Kind::Prefix) => open && self.matches(other.literal()),
            (Kind::Segments { open, .. }, Kind::Segments { open: other_open, .. }) => {
                let mut ours = self.literal().split('/').peekable();
                let mut theirs = other.literal().split('/');
                loop {
                    match (ours.next(), theirs.next()) {
                        (Some(own), Some(segment)) if open && ours.peek().is_none() => {
                            return own.is_empty() || (segment != "+" && segment.starts_with(own));
                        }
                        (Some(own), Some(segment)) if own == "+" || own == segment => {}
                        (None, None) => return !other_open,
                        (_, _) => return false,
                    }
                }
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a path pattern was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing there.
    #[error("the path is empty")]
    Empty,
    /// More than [`PATH_BYTES_MAX`] bytes.
    #[error("the path is longer than 1024 bytes")]
    TooLong,
    /// More than [`PATH_SEGMENTS_MAX`] segments.
    #[error("the path has more than 64 segments")]
    TooManySegments,
    /// Two slashes in a row.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// A `.` or `..` segment.
    #[error("the path has a '.' or '..' segment, which no request path has")]
    DotSegment,
    /// Control characters.
    #[error("the path has a control character")]
    Control,
    /// `*` before the end.
    #[error("'*' matches only at the end of a path; use '+' for one segment")]
    StarInside,
    /// `+*`.
    #[error("'+*' is ambiguous; use '+/*' or '*'")]
    PlusStar,
    /// `{{` or `}}` where no template can be.
    #[error("'{{{{' and '}}}}' are not allowed in this path")]
    Braces,
}
