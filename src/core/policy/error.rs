//! What can be wrong with a policy, said so that its author finds the place.

use std::fmt;

use super::PolicyName;
use super::pattern::PatternError;
use super::template::TemplateError;
use crate::types::time::TtlError;

/// Longest quotation from a policy in an error, in characters.
const QUOTE_CHARS_MAX: usize = 80;

/// A policy that was refused: which, where and why.
#[derive(Debug, thiserror::Error)]
#[error("policy {:?}{place}: {problem}", policy.as_str())]
pub struct PolicyError {
    policy: PolicyName,
    place: Place,
    problem: PolicyProblem,
}

impl PolicyError {
    pub(super) fn new(policy: &PolicyName, place: Place, problem: PolicyProblem) -> Self {
        Self { policy: policy.clone(), place, problem }
    }

    /// What is wrong.
    pub fn problem(&self) -> &PolicyProblem {
        &self.problem
    }
}

/// Where in a policy: a line of HCL, and the path whose block it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    line: Option<u32>,
    path: Option<String>,
}

impl Place {
    pub(super) fn line(line: u32) -> Self {
        Self { line: Some(line), path: None }
    }

    pub(super) fn at(line: Option<u32>, path: &str) -> Self {
        Self { line, path: Some(quote(path)) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if let Some(path) = &self.path {
            write!(f, ", path {path:?}")?;
        }
        Ok(())
    }
}

/// A piece of the policy, short enough for an error.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Why a policy was refused.
#[derive(Debug, thiserror::Error)]
pub enum PolicyProblem {
    /// The name `root` is taken.
    #[error("the root policy grants everything and cannot be written")]
    Root,
    /// More than [`super::POLICY_BYTES_MAX`] bytes.
    #[error("the text is longer than 256 KiB")]
    TooLarge,
    /// More than [`super::POLICY_PATHS_MAX`] paths.
    #[error("there are more than 10000 paths")]
    TooManyPaths,
    /// Not HCL.
    #[error("{0}")]
    Syntax(SyntaxProblem),
    /// Not JSON.
    #[error("not valid JSON: {0}")]
    Json(serde_json::Error),
    /// A key that policies do not have, or that is not supported here.
    #[error("unknown or unsupported key {key:?}")]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// A key twice in one block.
    #[error("the key {key:?} is given twice")]
    DuplicateKey {
        /// The key, as compared (lower case where case does not matter).
        key: String,
    },
    /// A value of the wrong kind.
    #[error("{key:?} must be {expected}")]
    WrongType {
        /// The key.
        key: String,
        /// What it takes.
        expected: &'static str,
    },
    /// A capability that does not exist.
    #[error(
        "unknown capability {name:?}: use create, read, update, patch, delete, list, scan, sudo \
         or deny"
    )]
    UnknownCapability {
        /// As written.
        name: String,
    },
    /// A value of the old `policy` key that does not exist.
    #[error("unknown policy {name:?}: use read, write, sudo or deny")]
    UnknownLegacyPolicy {
        /// As written.
        name: String,
    },
    /// A path that cannot be.
    #[error("{0}")]
    Pattern(PatternError),
    /// A template that cannot be.
    #[error("{0}")]
    Template(TemplateError),
    /// A duration that cannot be.
    #[error("{key:?}: {problem}")]
    Duration {
        /// The key.
        key: String,
        /// Why.
        problem: TtlError,
    },
    /// `min_wrapping_ttl` above `max_wrapping_ttl`.
    #[error("min_wrapping_ttl is greater than max_wrapping_ttl")]
    WrappingBounds,
    /// Values for the parameter `*`.
    #[error("{key:?}: the parameter \"*\" takes no values but []")]
    StarValues {
        /// The key that holds the parameter.
        key: String,
    },
}

/// Why a text is not HCL as policies use it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxProblem {
    /// Something else was due.
    #[error("expected {expected}, found {found:?}")]
    Unexpected {
        /// What was due.
        expected: &'static str,
        /// The character found instead.
        found: char,
    },
    /// The text ended early.
    #[error("expected {expected}, found the end of the text")]
    End {
        /// What was due.
        expected: &'static str,
    },
    /// Blocks and lists within each other, too many.
    #[error("nested more than 16 deep")]
    TooDeep,
    /// A string that runs into the end of its line.
    #[error("a string is not closed on its line")]
    OpenString,
    /// A `/*` without `*/`.
    #[error("a comment is not closed")]
    OpenComment,
    /// A backslash before something that is not an escape.
    #[error("unknown escape in a string")]
    Escape,
    /// `${…}`.
    #[error("interpolation (\"${{\") is not supported")]
    Interpolation,
    /// `<<EOF`.
    #[error("here-documents are not supported")]
    HereDocument,
    /// A number that is none.
    #[error("malformed number")]
    Number,
    /// More labels than a block can have.
    #[error("a block has one label at most")]
    Labels,
}

/// Why a policy name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyNameError {
    /// No name.
    #[error("the policy name is empty")]
    Empty,
    /// Longer than [`super::POLICY_NAME_BYTES_MAX`].
    #[error("the policy name is longer than 256 bytes")]
    TooLong,
    /// A character that names do not have.
    #[error("a policy name has only letters, digits and -_.:@+~/")]
    Character,
    /// Empty, `.` or `..` between slashes.
    #[error("the policy name has an empty or dot segment")]
    Segment,
}

/// A password policy that was refused: where and why.
#[derive(Debug, thiserror::Error)]
#[error("the password policy{place}: {problem}")]
pub struct PasswordPolicyError {
    pub(super) place: Place,
    pub(super) problem: PasswordProblem,
}

/// Why a password policy was refused.
#[derive(Debug, thiserror::Error)]
pub enum PasswordProblem {
    /// More than [`super::password::PASSWORD_POLICY_BYTES_MAX`] bytes.
    #[error("the text is longer than 16 KiB")]
    TooLarge,
    /// Not HCL.
    #[error("{0}")]
    Syntax(SyntaxProblem),
    /// Not JSON.
    #[error("not valid JSON: {0}")]
    Json(serde_json::Error),
    /// A key that password policies do not have.
    #[error("unknown key {key:?}")]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// A key twice in one block.
    #[error("the key {key:?} is given twice")]
    DuplicateKey {
        /// The key.
        key: &'static str,
    },
    /// A value of the wrong kind.
    #[error("{key:?} must be {expected}")]
    WrongType {
        /// The key.
        key: String,
        /// What it takes.
        expected: &'static str,
    },
    /// No `length`.
    #[error("there is no length")]
    NoLength,
    /// A length, or a number of characters, that no policy may ask for.
    #[error("passwords have 4 to 100 characters")]
    Length,
    /// No `rule "charset"`.
    #[error("there is no rule \"charset\" to draw characters from")]
    NoRule,
    /// More than [`super::password::PASSWORD_RULES_MAX`] rules.
    #[error("there are more than 32 rules")]
    TooManyRules,
    /// A rule of a kind that does not exist.
    #[error("there is no rule {kind:?}: use \"charset\"")]
    RuleKind {
        /// As written.
        kind: String,
    },
    /// A rule without characters.
    #[error("a rule has no charset")]
    NoCharset,
    /// A character that passwords do not have.
    #[error("a charset has a character that is not printable ASCII")]
    Character,
    /// Rules that no password of that length can satisfy.
    #[error("the rules ask for {needed} characters, and there are {length}")]
    Unsatisfiable {
        /// The sum of `min-chars`.
        needed: usize,
        /// The length.
        length: usize,
    },
}

impl PasswordProblem {
    pub(super) fn wrong_type(key: &str, expected: &'static str) -> Self {
        Self::WrongType { key: key.to_owned(), expected }
    }

    pub(super) fn twice(key: &'static str) -> Self {
        Self::DuplicateKey { key }
    }
}
