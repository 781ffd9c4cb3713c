//! Which paths a quota covers.

use crate::types::path::{ApiPath, PathError};

/// The paths of a quota. Compared with the one canonical form of a request's path, so no spelling of a
/// path gets around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// Written empty: everything.
    All,
    /// Written without a slash at the end: that path, listed or not.
    Exact(String),
    /// Written with a slash or `*` at the end: everything that begins so.
    Prefix(String),
}

/// Why a path is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum PatternProblem {
    /// `*` elsewhere than at the end, or alone.
    #[error("has a * that is not at the end of a path; leave the path empty to cover everything")]
    Star,
    /// Not canonical.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl From<PatternProblem> for crate::core::error::CoreError {
    fn from(_: PatternProblem) -> Self {
        Self::internal("the path of a stored quota does not parse")
    }
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, PatternProblem> {
        if text.is_empty() {
            return Ok(Self::All);
        }
        let (body, star) = match text.strip_suffix('*') {
            Some(body) => (body, true),
            None => (text, false),
        };
        if body.is_empty() || body.contains('*') {
            return Err(PatternProblem::Star);
        }
        let path = ApiPath::parse(body)?;
        Ok(if star || path.is_dir() {
            Self::Prefix(path.as_str().to_owned())
        } else {
            Self::Exact(path.as_str().to_owned())
        })
    }

    pub(super) fn covers(&self, path: &ApiPath) -> bool {
        let text = path.as_str();
        match self {
            Self::All => true,
            Self::Exact(exact) => path.trimmed() == exact,
            // The root of a mount is below it, with its slash and without.
            Self::Prefix(prefix) => {
                text.starts_with(prefix.as_str()) || prefix.strip_suffix('/') == Some(text)
            }
        }
    }

    /// Larger for what says more.
    pub(super) fn specificity(&self) -> (u8, usize) {
        match self {
            Self::All => (0, 0),
            Self::Prefix(prefix) => (1, prefix.len()),
            Self::Exact(exact) => (2, exact.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(pattern: &str, path: &str) -> bool {
        Pattern::parse(pattern).unwrap().covers(&ApiPath::parse(path).unwrap())
    }

    #[test]
    fn a_pattern_covers_what_it_says_and_nothing_beside() {
        for (pattern, inside, outside) in [
            ("", &["a", "a/b/", "sys/x"][..], &[][..]),
            ("kv/", &["kv", "kv/", "kv/a", "kv/a/b/"], &["kv2/a", "k", "a/kv/b"]),
            ("kv/a", &["kv/a", "kv/a/"], &["kv", "kv/ab", "kv/a/b"]),
            ("kv/a*", &["kv/a", "kv/a/", "kv/ab", "kv/a/b"], &["kv/b", "kv"]),
            ("kv/a/*", &["kv/a", "kv/a/", "kv/a/b"], &["kv/ab", "kv/b"]),
        ] {
            for path in inside {
                assert!(covers(pattern, path), "{pattern:?} {path}");
            }
            for path in outside {
                assert!(!covers(pattern, path), "{pattern:?} {path}");
            }
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in ["*", "a*b", "a/**", "/a", "a//b", "a/../b", "\n", &"a".repeat(2000)] {
            assert!(Pattern::parse(text).is_err(), "{text:?}");
        }
    }
}
