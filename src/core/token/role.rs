//! Token roles: what tokens made at `auth/token/create/:role` may be.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::core::error::CoreError;
use crate::core::records::{Precondition, Records, kinds};
use crate::core::view::View;
use crate::types::glob::Glob;
use crate::types::id::NamespaceId;
use crate::types::time::Ttl;

use super::entry::TokenKind;

/// What kind of token a role or an auth mount makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoleTokenType {
    /// Batch, whatever is asked for.
    Batch,
    /// Batch, unless a service token is asked for.
    DefaultBatch,
    /// Service, unless a batch token is asked for.
    #[default]
    #[serde(alias = "default")]
    DefaultService,
    /// Service, whatever is asked for.
    Service,
}

impl RoleTokenType {
    /// Reads the name that stock clients use.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "batch" => Some(Self::Batch),
            "default-batch" => Some(Self::DefaultBatch),
            "" | "default" | "default-service" => Some(Self::DefaultService),
            "service" => Some(Self::Service),
            _ => None,
        }
    }

    /// The name that stock clients use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::DefaultBatch => "default-batch",
            Self::DefaultService => "default-service",
            Self::Service => "service",
        }
    }

    /// The kind of a token that asks for `wanted`.
    pub fn kind(self, wanted: Option<TokenKind>) -> TokenKind {
        match self {
            Self::Batch => TokenKind::Batch,
            Self::DefaultBatch => wanted.unwrap_or(TokenKind::Batch),
            Self::DefaultService => wanted.unwrap_or(TokenKind::Service),
            Self::Service => TokenKind::Service,
        }
    }
}

/// A token role, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRole {
    /// Policies that may be asked for; with any of these or the globs set, no others.
    #[serde(default)]
    pub allowed_policies: Vec<String>,
    /// Patterns of policies that may be asked for.
    #[serde(default)]
    pub allowed_policies_glob: Vec<Glob>,
    /// Policies that may not be asked for.
    #[serde(default)]
    pub disallowed_policies: Vec<String>,
    /// Patterns of policies that may not be asked for.
    #[serde(default)]
    pub disallowed_policies_glob: Vec<Glob>,
    /// Make tokens without a parent.
    #[serde(default)]
    pub orphan: bool,
    /// Make renewable tokens.
    pub renewable: bool,
    /// Shown at the end of the creation path.
    #[serde(default)]
    pub path_suffix: String,
    /// What each renewal gives; zero for tokens that are not periodic.
    #[serde(default)]
    pub period: Ttl,
    /// A maximum fixed when a token is made; zero for none.
    #[serde(default)]
    pub explicit_max_ttl: Ttl,
    /// Addresses the tokens can be used from.
    #[serde(default)]
    pub bound_cidrs: Vec<String>,
    /// Leave out the default policy.
    #[serde(default)]
    pub no_default_policy: bool,
    /// Uses of each token; zero for no limit.
    #[serde(default)]
    pub num_uses: u64,
    /// Kind of token.
    #[serde(default)]
    pub token_type: RoleTokenType,
}

impl Default for TokenRole {
    fn default() -> Self {
        Self {
            allowed_policies: Vec::new(),
            allowed_policies_glob: Vec::new(),
            disallowed_policies: Vec::new(),
            disallowed_policies_glob: Vec::new(),
            orphan: false,
            renewable: true,
            path_suffix: String::new(),
            period: Ttl::ZERO,
            explicit_max_ttl: Ttl::ZERO,
            bound_cidrs: Vec::new(),
            no_default_policy: false,
            num_uses: 0,
            token_type: RoleTokenType::DefaultService,
        }
    }
}

impl TokenRole {
    /// Whether the role says itself which policies may be asked for. Those need not be the caller's.
    pub fn names_allowed(&self) -> bool {
        !self.allowed_policies.is_empty() || !self.allowed_policies_glob.is_empty()
    }

    /// Whether the role lets that policy be asked for. Never `root`.
    pub fn allows(&self, policy: &str) -> bool {
        let listed = |names: &[String], globs: &[Glob]| {
            names.iter().any(|name| name == policy) || globs.iter().any(|glob| glob.matches(policy))
        };
        policy != "root"
            && !listed(&self.disallowed_policies, &self.disallowed_policies_glob)
            && (!self.names_allowed()
                || policy == "default"
                || listed(&self.allowed_policies, &self.allowed_policies_glob))
    }
}

/// The token roles of an unsealed server.
pub struct TokenRoles {
    view: View,
}

impl TokenRoles {
    pub(super) fn new(records: Arc<Records>) -> Self {
        Self { view: View::new(records, NamespaceId::ROOT, kinds::TOKEN_ROLE, String::new()) }
    }

    /// One role.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get(&self, name: &str) -> Result<Option<TokenRole>, CoreError> {
        Ok(self.view.get(name).await?.map(|entry| entry.value))
    }

    /// All names, sorted.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn names(&self) -> Result<Vec<String>, CoreError> {
        self.view.list("").await
    }

    /// Writes a role as `edit` makes it from what is there, or from a new one.
    ///
    /// # Errors
    /// What `edit` refuses; `Storage(Conflict)` when it was changed meanwhile.
    pub async fn update(
        &self,
        name: &str,
        edit: impl FnOnce(&mut TokenRole) -> Result<(), CoreError>,
    ) -> Result<(), CoreError> {
        let (mut role, precondition) = match self.view.get_fresh::<TokenRole>(name).await? {
            Some(entry) => (entry.value, Precondition::Rev(entry.rev)),
            None => (TokenRole::default(), Precondition::Absent),
        };
        edit(&mut role)?;
        self.view.write(name, &role, precondition).await
    }

    /// Removes a role. Tokens made by it live on.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn remove(&self, name: &str) -> Result<(), CoreError> {
        self.view.remove(name).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_allows_what_it_names_and_nothing_that_it_forbids() {
        let role = TokenRole {
            allowed_policies: vec!["a".into(), "root".into()],
            allowed_policies_glob: vec![Glob::new("app-*")],
            disallowed_policies_glob: vec![Glob::new("*-admin")],
            ..TokenRole::default()
        };
        for (policy, allowed) in [
            ("a", true),
            ("app-web", true),
            ("default", true),
            ("b", false),
            ("app-admin", false),
            ("root", false),
        ] {
            assert_eq!(role.allows(policy), allowed, "{policy}");
        }
        assert!(!TokenRole::default().allows("root"));
        assert!(TokenRole::default().allows("anything"));
    }
}
