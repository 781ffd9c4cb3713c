//! Narrowing a token to less than its policies: `read:secret/data/reports/*`.
//!
//! A scope is `capability[,capability]:path`, with the capabilities `create`, `read`, `update`,
//! `patch`, `delete` and `list`, and a path as in policies (`*` at the end, `+` as a segment, no
//! templates). Scopes only take away: what they name must still be granted by a policy at each use,
//! and a narrowed token never has sudo.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::core::operation::Operation;
use crate::core::policy::pattern::{Pattern, PatternError};
use crate::types::path::ApiPath;

/// Most scopes on one token.
pub const SCOPES_MAX: usize = 64;
/// Longest quotation of a scope in an error, in characters.
const QUOTE_CHARS_MAX: usize = 80;

/// What no scope takes away.
const OWN: [(&str, Operation); 3] = [
    ("auth/token/lookup-self", Operation::Read),
    ("auth/token/lookup-self", Operation::Update),
    ("auth/token/revoke-self", Operation::Update),
];

/// What a token is narrowed to. Kept with the token as the list of texts that it was asked with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct ScopeSet {
    scopes: Vec<Scope>,
}

/// One scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    operations: Vec<Operation>,
    pattern: Pattern,
}

impl ScopeSet {
    /// Parses a list of scopes. An empty list is refused: it would be taken for "not narrowed" by
    /// one reader and for "nothing at all" by the next.
    ///
    /// # Errors
    /// The scope that is malformed, and why.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, ScopeError> {
        if texts.is_empty() {
            return Err(ScopeError::Empty);
        }
        if texts.len() > SCOPES_MAX {
            return Err(ScopeError::TooMany);
        }
        let scopes = texts.iter().map(|text| Scope::parse(text.as_ref())).collect::<Result<_, _>>();
        Ok(Self { scopes: scopes? })
    }

    /// Whether the scopes include an operation on a path. The policies must grant it too. A token may
    /// look at itself and end itself, however narrow it is.
    pub fn permits(&self, path: &ApiPath, operation: Operation) -> bool {
        let path = path.as_str();
        OWN.contains(&(path, operation))
            || self.scopes.iter().any(|scope| scope.permits(path, operation))
    }

    /// Whether `other` includes nothing that these scopes do not. Each of its patterns must lie
    /// whole within one of ours.
    ///
    /// # Errors
    /// The scope of `other` that names more.
    pub fn covers(&self, other: &Self) -> Result<(), ScopeError> {
        for scope in &other.scopes {
            for operation in &scope.operations {
                let inside = self
                    .scopes
                    .iter()
                    .any(|own| own.names(*operation) && own.pattern.contains(&scope.pattern));
                if !inside {
                    return Err(scope.not_covered(*operation));
                }
            }
        }
        Ok(())
    }

    /// The scopes, in the order they were given.
    pub fn iter(&self) -> impl Iterator<Item = &Scope> {
        self.scopes.iter()
    }

    /// The scopes as text, as they are parsed.
    pub fn to_texts(&self) -> Vec<String> {
        self.scopes.iter().map(Scope::to_string).collect()
    }
}

impl TryFrom<Vec<String>> for ScopeSet {
    type Error = ScopeError;

    fn try_from(texts: Vec<String>) -> Result<Self, ScopeError> {
        Self::parse(&texts)
    }
}

impl From<ScopeSet> for Vec<String> {
    fn from(scopes: ScopeSet) -> Self {
        scopes.to_texts()
    }
}

impl Scope {
    fn parse(text: &str) -> Result<Self, ScopeError> {
        let (names, path) =
            text.split_once(':').ok_or_else(|| ScopeError::Shape { scope: quote(text) })?;
        let mut operations = Vec::new();
        for name in names.split(',') {
            let operation = match name {
                "create" => Operation::Create,
                "read" => Operation::Read,
                "update" => Operation::Update,
                "patch" => Operation::Patch,
                "delete" => Operation::Delete,
                "list" => Operation::List,
                _ => return Err(ScopeError::Capability { name: quote(name) }),
            };
            if !operations.contains(&operation) {
                operations.push(operation);
            }
        }
        let pattern = Pattern::parse(path)
            .map_err(|problem| ScopeError::Path { scope: quote(text), problem })?;
        Ok(Self { operations, pattern })
    }

    /// Whether the operation is among its capabilities.
    pub fn names(&self, operation: Operation) -> bool {
        self.operations.contains(&operation)
    }

    /// Its path.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    fn permits(&self, path: &str, operation: Operation) -> bool {
        // As in policies, a LIST of a directory may be named without its slash.
        let bare = if operation == Operation::List { path.strip_suffix('/') } else { None };
        self.names(operation)
            && (self.pattern.matches(path) || bare.is_some_and(|bare| self.pattern.matches(bare)))
    }

    pub(in crate::core) fn not_covered(&self, operation: Operation) -> ScopeError {
        ScopeError::NotCovered { scope: quote(&self.to_string()), operation }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, operation) in self.operations.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{operation}")?;
        }
        write!(f, ":{}", self.pattern)
    }
}

fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Why scopes were refused. Safe to show: it quotes only what the caller sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// An empty list.
    #[error("scopes: the list is empty; leave it out for a token that is not narrowed")]
    Empty,
    /// More than [`SCOPES_MAX`].
    #[error("scopes: there are more than 64")]
    TooMany,
    /// No colon.
    #[error("scopes: {scope:?} must be capability[,capability]:path")]
    Shape {
        /// As written.
        scope: String,
    },
    /// A capability that scopes do not have.
    #[error("scopes: {name:?} is not one of create, read, update, patch, delete, list")]
    Capability {
        /// As written.
        name: String,
    },
    /// A path that cannot be.
    #[error("scopes: {scope:?}: {problem}")]
    Path {
        /// The whole scope as written.
        scope: String,
        /// Why.
        problem: PatternError,
    },
    /// A scope that names more than the caller has.
    #[error("scopes: {scope:?} names more than the caller may do ({operation})")]
    NotCovered {
        /// The whole scope.
        scope: String,
        /// The first operation that is not the caller's on all of the path.
        operation: Operation,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(texts: &[&str]) -> ScopeSet {
        ScopeSet::parse(texts).unwrap()
    }

    fn path(text: &str) -> ApiPath {
        ApiPath::parse(text).unwrap()
    }

    #[test]
    fn malformed_scopes_are_refused() {
        let refused = |text: &str| ScopeSet::parse(&[text]).unwrap_err();
        assert_eq!(ScopeSet::parse::<&str>(&[]), Err(ScopeError::Empty));
        assert_eq!(ScopeSet::parse(&vec!["read:a"; 65]), Err(ScopeError::TooMany));
        assert!(matches!(refused("secret/data/x"), ScopeError::Shape { .. }));
        for text in
            ["sudo:a", "deny:a", "root:a", "scan:a", ":a", "read,:a", "Read:a", "read, list:a"]
        {
            assert!(matches!(refused(text), ScopeError::Capability { .. }), "{text}");
        }
        for text in
            ["read:", "read:a//b", "read:a/*/b", "read:../a", "read:a/{{identity.entity.id}}"]
        {
            assert!(matches!(refused(text), ScopeError::Path { .. }), "{text}");
        }
        assert!(refused(&"é".repeat(9000)).to_string().len() < 300);
    }

    #[test]
    fn only_named_operations_on_named_paths_are_included() {
        let scopes = set(&["read:secret/data/reports/*", "list:secret/metadata/reports/"]);
        assert!(scopes.permits(&path("secret/data/reports/july"), Operation::Read));
        assert!(!scopes.permits(&path("secret/data/reports/july"), Operation::Update));
        assert!(!scopes.permits(&path("secret/data/reportsx"), Operation::Read));
        assert!(scopes.permits(&path("secret/metadata/reports/"), Operation::List));
        assert!(!scopes.permits(&path("secret/metadata/reports/july/"), Operation::List));
        let bare = set(&["list,read:secret/metadata/reports"]);
        assert!(bare.permits(&path("secret/metadata/reports/"), Operation::List));
        assert!(!bare.permits(&path("secret/metadata/reports/"), Operation::Read));
    }

    #[test]
    fn scopes_survive_being_stored() {
        let scopes = set(&["read,list:/secret/data/*", "delete:a/+/b"]);
        let stored = serde_json::to_string(&scopes).unwrap();
        assert_eq!(stored, r#"["read,list:secret/data/*","delete:a/+/b"]"#);
        assert_eq!(serde_json::from_str::<ScopeSet>(&stored).unwrap(), scopes);
        assert!(serde_json::from_str::<ScopeSet>("[]").is_err());
    }

    #[test]
    fn narrowing_twice_only_narrows() {
        let own = set(&["read,list:secret/data/*", "update:auth/+/login"]);
        for inside in ["read:secret/data/x", "list:secret/data/x/*", "read:secret/data/+/x"] {
            assert_eq!(own.covers(&set(&[inside])), Ok(()), "{inside}");
        }
        for outside in
            ["read:secret/*", "update:secret/data/x", "read:secret/+/x", "update:auth/*", "read:*"]
        {
            assert!(own.covers(&set(&[outside])).is_err(), "{outside}");
        }
    }

    fn any_scopes() -> impl Strategy<Value = ScopeSet> {
        let text = ("read|list|read,list", "([ab+]/){0,2}[ab+]?/?\\*?")
            .prop_filter_map("refused", |(names, pattern)| {
                Scope::parse(&format!("{names}:{pattern}")).ok()
            });
        proptest::collection::vec(text, 1..4).prop_map(|scopes| ScopeSet { scopes })
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,40}|(read|list|sudo)?[:,*+/a-z{}]{0,20}") {
            if let Ok(scopes) = ScopeSet::parse(&[&text]) {
                prop_assert_eq!(ScopeSet::parse(&scopes.to_texts()).unwrap(), scopes);
            }
        }

        #[test]
        fn what_is_covered_permits_no_more(
            own in any_scopes(),
            other in any_scopes(),
            text in "([ab]{1,2}/){0,3}[ab]{1,2}/?",
            list in any::<bool>(),
        ) {
            let operation = if list { Operation::List } else { Operation::Read };
            let path = path(&text);
            if own.covers(&other).is_ok() && other.permits(&path, operation) {
                prop_assert!(own.permits(&path, operation));
            }
        }
    }
}
