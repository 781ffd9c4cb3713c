//! Path policies in the language of Vault: text in, rules out.
//!
//! A policy is a list of paths with capabilities, in HCL or JSON. [`Policy::parse`] reads either
//! into [`Rule`]s; `core::acl` compiles and judges them. Nothing here does I/O.
//!
//! Paths are exact, or end in `*` (anything that starts so), or hold `+` as a whole segment (any
//! one segment). Where the meaning of a stock policy would surprise, we refuse it at upload rather
//! than let a rule sit there without effect:
//!
//! - `*` anywhere but at the end, which stock servers take literally, is refused.
//! - Paths that no canonical request can have (`..`, `//`, control characters) are refused.
//! - Unknown keys are refused, as are `expiration`, `mfa_methods`, `control_group` and
//!   `list_scan_response_keys_filter_path`: ignoring a restriction would grant more than was asked.
//! - A key written twice in one block is refused. A *path* written twice is merged as stock does:
//!   capabilities are united and `deny` wins.
//! - A bare `"*"` among the values of `denied_parameters` denies every value. Stock compares it
//!   literally, and so do we among `allowed_parameters`: neither reading grants more than stock.
//! - In `denied_parameters` a list is refused when one of its elements is, and a string when one of
//!   its comma-separated parts is; stock compares wholes, so `policies=admin,x` slips by.
//!
//! HCL is the dialect that policies are written in (HCL 1: quoted keys, optional commas, no
//! expressions); interpolation (`${`) and here-documents are refused.

pub mod capability;
pub mod constraint;
pub mod error;
pub mod format;
mod json;
pub mod password;
pub mod pattern;
mod rule;
mod syntax;
pub mod template;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use rule::{Rule, Target};

use error::{Place, PolicyError, PolicyNameError, PolicyProblem};

use crate::types::path::ApiPath;

/// Largest policy text accepted, in bytes.
pub const POLICY_BYTES_MAX: usize = 256 * 1024;
/// Most paths accepted in one policy.
pub const POLICY_PATHS_MAX: usize = 10_000;
/// Longest policy name accepted, in bytes.
pub const POLICY_NAME_BYTES_MAX: usize = 256;

/// The text of the `default` policy of a new store. Every token has it unless it asks not to.
pub const DEFAULT_POLICY: &str = r#"# What every token may do: look after itself, and no more.

# Look itself up, renew itself, give itself back.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}

# Ask what it may do.
path "sys/capabilities-self" {
  capabilities = ["update"]
}

# Its own cubbyhole, which no other token can see.
path "cubbyhole/*" {
  capabilities = ["create", "read", "update", "delete", "list"]
}

# Wrap a value; look at and open a wrapping token it was handed.
path "sys/wrapping/wrap" {
  capabilities = ["update"]
}
path "sys/wrapping/lookup" {
  capabilities = ["update"]
}
path "sys/wrapping/unwrap" {
  capabilities = ["update"]
}

# Look up and renew a lease by its id.
path "sys/leases/lookup" {
  capabilities = ["update"]
}
path "sys/leases/renew" {
  capabilities = ["update"]
}
path "sys/renew" {
  capabilities = ["update"]
}
"#;

/// The name of a policy: lower case, parsed once. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PolicyName(Arc<str>);

impl PolicyName {
    /// Parses a name, folding ASCII capitals to lower case as stock servers do; nothing is trimmed.
    ///
    /// # Errors
    /// Empty, too long, or with characters other than letters, digits and `-_.:@+~/`.
    pub fn parse(text: &str) -> Result<Self, PolicyNameError> {
        if text.is_empty() {
            return Err(PolicyNameError::Empty);
        }
        if text.len() > POLICY_NAME_BYTES_MAX {
            return Err(PolicyNameError::TooLong);
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.:@+~/".contains(&b);
        if !text.bytes().all(allowed) {
            return Err(PolicyNameError::Character);
        }
        // Names are the last part of a path, so they must survive as one.
        if text.ends_with('/') || ApiPath::parse(text).is_err() {
            return Err(PolicyNameError::Segment);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// The name of the policy that grants everything.
    pub fn root() -> Self {
        Self("root".into())
    }

    /// The name of the policy that every token has unless it asks not to.
    pub fn default_policy() -> Self {
        Self("default".into())
    }

    /// Whether it names the policy that grants everything.
    pub fn is_root(&self) -> bool {
        &*self.0 == "root"
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for PolicyName {
    type Error = PolicyNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<PolicyName> for String {
    fn from(name: PolicyName) -> Self {
        name.as_str().to_owned()
    }
}

/// A policy as parsed: its rules in the order they were written.
#[derive(Debug)]
pub struct Policy {
    name: PolicyName,
    rules: Vec<Rule>,
}

impl Policy {
    /// Parses policy text: JSON when it starts with `{`, HCL otherwise.
    ///
    /// # Errors
    /// What is wrong and where: the policy, and the line or the path.
    pub fn parse(name: &PolicyName, text: &str) -> Result<Self, PolicyError> {
        let fail = |place, problem| PolicyError::new(name, place, problem);
        if name.is_root() {
            return Err(fail(Place::default(), PolicyProblem::Root));
        }
        if text.len() > POLICY_BYTES_MAX {
            return Err(fail(Place::default(), PolicyProblem::TooLarge));
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let fields = if text.trim_start().starts_with('{') {
            json::parse(text).map_err(|e| fail(Place::default(), PolicyProblem::Json(e)))?
        } else {
            syntax::parse(text)
                .map_err(|e| fail(Place::line(e.line), PolicyProblem::Syntax(e.problem)))?
        };
        let rules = rule::read(fields).map_err(|(place, problem)| fail(place, problem))?;
        Ok(Self { name: name.clone(), rules })
    }

    /// Its name.
    pub fn name(&self) -> &PolicyName {
        &self.name
    }

    /// Its rules, in the order they were written.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Its rules, to keep.
    pub fn into_rules(self) -> Vec<Rule> {
        self.rules
    }
}

#[cfg(test)]
mod tests;
