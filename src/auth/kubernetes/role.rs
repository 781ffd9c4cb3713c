//! Roles, as they are written and stored.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::auth::jose::text;
use crate::core::engine::TokenParameters;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::token::{parameters_json, read_parameters};
use crate::types::glob::Glob;

/// Most names in one list.
const NAMES_MAX: usize = 256;
/// Longest pattern, in bytes: as long as names are in Kubernetes.
const NAME_BYTES_MAX: usize = 253;
/// Longest audience, in bytes.
const AUDIENCE_BYTES_MAX: usize = 2048;

/// What an identity is named by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum AliasSource {
    /// Namespace and name: an account that is made anew is the same identity.
    #[serde(rename = "serviceaccount_name")]
    Name,
    /// What the cluster numbers it by.
    #[default]
    #[serde(rename = "serviceaccount_uid")]
    Uid,
}

/// A role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Role {
    bound_service_account_names: Vec<String>,
    bound_service_account_namespaces: Vec<String>,
    pub(super) audience: String,
    pub(super) alias_name_source: AliasSource,
    pub(super) token: TokenParameters,
}

impl crate::auth::role::Role for Role {
    fn updated(mut self, fields: &Fields) -> Result<Self, CoreError> {
        for (name, list) in [
            ("bound_service_account_names", &mut self.bound_service_account_names),
            ("bound_service_account_namespaces", &mut self.bound_service_account_namespaces),
        ] {
            if let Some(given) = fields.list(name)? {
                *list = given;
            }
            if list.is_empty() || list.len() > NAMES_MAX {
                return Err(CoreError::field(name, "must have between 1 and 256 elements"));
            }
            let usable =
                |text: &String| !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.is_ascii();
            if !list.iter().all(usable) {
                let problem = "must be of names, in which * stands for any text";
                return Err(CoreError::field(name, problem));
            }
        }
        let any = |list: &[String]| list.iter().any(|name| name == "*");
        if any(&self.bound_service_account_names) && any(&self.bound_service_account_namespaces) {
            let problem = "must not be * for names and namespaces at once";
            return Err(CoreError::field("bound_service_account_names", problem));
        }
        if fields.get("audience").is_some() {
            self.audience = text(fields, "audience", AUDIENCE_BYTES_MAX)?;
        }
        if let Some(source) = fields.text("alias_name_source")? {
            self.alias_name_source = match source.as_str() {
                "" | "serviceaccount_uid" => AliasSource::Uid,
                "serviceaccount_name" => AliasSource::Name,
                _ => {
                    let problem = "must be serviceaccount_uid or serviceaccount_name";
                    return Err(CoreError::field("alias_name_source", problem));
                }
            };
        }
        self.token = read_parameters(fields, self.token)?;
        Ok(self)
    }

    fn to_json(&self) -> Map<String, Value> {
        let mut shown = parameters_json(&self.token);
        for (name, value) in [
            ("alias_name_source", json!(self.alias_name_source)),
            ("audience", json!(self.audience)),
            ("bound_service_account_names", json!(self.bound_service_account_names)),
            ("bound_service_account_namespaces", json!(self.bound_service_account_namespaces)),
        ] {
            shown.insert(name.to_owned(), value);
        }
        shown
    }
}

impl Role {
    /// Whether it is for the service account of that name in that namespace.
    pub(super) fn lets_in(&self, name: &str, namespace: &str) -> bool {
        let matches = |patterns: &[String], text: &str| {
            patterns.iter().any(|pattern| Glob::new(pattern.as_str()).matches(text))
        };
        matches(&self.bound_service_account_names, name)
            && matches(&self.bound_service_account_namespaces, namespace)
    }
}
