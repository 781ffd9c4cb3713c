//! Roles, as they are written and stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::auth::jose::claims::LEEWAY_MAX;
use crate::core::engine::TokenParameters;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::token::{parameters_json, read_parameters};
use crate::types::time::Ttl;

use super::config::object;
use super::redirect;

/// Longest name of a claim and longest bound text, in bytes.
const TEXT_BYTES_MAX: usize = 2048;
/// Most elements of one list.
const ELEMENTS_MAX: usize = 256;
/// How much clocks may differ when nothing is said.
const CLOCK_SKEW: Ttl = Ttl::from_secs(60);

/// How a role's people and programs log in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RoleType {
    /// With a token that they have.
    Jwt,
    /// In a browser.
    #[default]
    Oidc,
}

/// How bound claims are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum BoundType {
    /// As patterns with `*`.
    Glob,
    /// To the letter.
    #[default]
    String,
}

/// A leeway as it is written: zero for what is usual, or none at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Leeway {
    /// Written as a negative number.
    None,
    /// Written as zero.
    #[default]
    Usual,
    /// So long.
    Of(Ttl),
}

/// A role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Role {
    pub(super) role_type: RoleType,
    pub(super) bound_audiences: Vec<String>,
    pub(super) user_claim: String,
    pub(super) user_claim_json_pointer: bool,
    pub(super) bound_subject: String,
    /// Each claim with the values of which it must have one.
    pub(super) bound_claims: BTreeMap<String, Vec<Value>>,
    pub(super) bound_claims_type: BoundType,
    /// Each claim with the name under which the token is noted with it.
    pub(super) claim_mappings: BTreeMap<String, String>,
    pub(super) groups_claim: String,
    pub(super) clock_skew_leeway: Leeway,
    pub(super) expiration_leeway: Leeway,
    pub(super) not_before_leeway: Leeway,
    pub(super) allowed_redirect_uris: Vec<String>,
    pub(super) oidc_scopes: Vec<String>,
    pub(super) max_age: Ttl,
    pub(super) token: TokenParameters,
}

impl crate::auth::role::Role for Role {
    fn updated(mut self, fields: &Fields) -> Result<Self, CoreError> {
        if fields.boolean("verbose_oidc_logging")? == Some(true) {
            let problem = "is not supported: what a token says of somebody is never logged";
            return Err(CoreError::field("verbose_oidc_logging", problem));
        }
        if let Some(given) = fields.text("role_type")? {
            self.role_type = match given.as_str() {
                "" | "oidc" => RoleType::Oidc,
                "jwt" => RoleType::Jwt,
                _ => return Err(CoreError::field("role_type", "must be jwt or oidc")),
            };
        }
        if let Some(given) = fields.text("bound_claims_type")? {
            self.bound_claims_type = match given.as_str() {
                "" | "string" => BoundType::String,
                "glob" => BoundType::Glob,
                _ => return Err(CoreError::field("bound_claims_type", "must be string or glob")),
            };
        }
        for (name, text) in [
            ("user_claim", &mut self.user_claim),
            ("bound_subject", &mut self.bound_subject),
            ("groups_claim", &mut self.groups_claim),
        ] {
            if fields.get(name).is_some() {
                *text = crate::auth::jose::text(fields, name, TEXT_BYTES_MAX)?;
            }
        }
        for (name, list) in [
            ("bound_audiences", &mut self.bound_audiences),
            ("allowed_redirect_uris", &mut self.allowed_redirect_uris),
            ("oidc_scopes", &mut self.oidc_scopes),
        ] {
            if let Some(given) = fields.list(name)? {
                bounded(name, given.iter().map(String::as_str), given.len())?;
                *list = given;
            }
        }
        for (name, leeway) in [
            ("clock_skew_leeway", &mut self.clock_skew_leeway),
            ("expiration_leeway", &mut self.expiration_leeway),
            ("not_before_leeway", &mut self.not_before_leeway),
        ] {
            if let Some(given) = read_leeway(fields, name)? {
                *leeway = given;
            }
        }
        if let Some(flag) = fields.boolean("user_claim_json_pointer")? {
            self.user_claim_json_pointer = flag;
        }
        if let Some(given) = fields.object("bound_claims")? {
            self.bound_claims = bound_claims(given)?;
        }
        if let Some(given) = fields.string_map("claim_mappings")? {
            let texts = given.iter().flat_map(|(claim, name)| [claim.as_str(), name.as_str()]);
            bounded("claim_mappings", texts, given.len())?;
            self.claim_mappings = given;
        }
        if let Some(age) = fields.duration("max_age")? {
            self.max_age = age;
        }
        self.token = read_parameters(fields, self.token)?;
        self.check()?;
        Ok(self)
    }

    fn to_json(&self) -> Map<String, Value> {
        let mut shown = object(json!({
            "allowed_redirect_uris": self.allowed_redirect_uris,
            "bound_audiences": self.bound_audiences,
            "bound_claims": self.bound_claims,
            "bound_claims_type": self.bound_claims_type,
            "bound_subject": self.bound_subject,
            "claim_mappings": self.claim_mappings,
            "clock_skew_leeway": self.clock_skew_leeway.to_json(),
            "expiration_leeway": self.expiration_leeway.to_json(),
            "groups_claim": self.groups_claim,
            "max_age": self.max_age,
            "not_before_leeway": self.not_before_leeway.to_json(),
            "oidc_scopes": self.oidc_scopes,
            "role_type": self.role_type,
            "user_claim": self.user_claim,
            "user_claim_json_pointer": self.user_claim_json_pointer,
            "verbose_oidc_logging": false,
        }));
        shown.extend(parameters_json(&self.token));
        shown
    }
}

impl Role {
    fn check(&self) -> Result<(), CoreError> {
        if self.user_claim.is_empty() {
            return Err(CoreError::field("user_claim", "is required"));
        }
        let mut names: Vec<&str> = self.claim_mappings.values().map(String::as_str).collect();
        names.push("role");
        names.sort_unstable();
        if names.windows(2).any(|pair| pair.first() == pair.get(1)) {
            let problem = "must not name one note twice, nor call one role";
            return Err(CoreError::field("claim_mappings", problem));
        }
        if self.bound_claims_type == BoundType::Glob
            && self.bound_claims.values().flatten().any(|value| !value.is_string())
        {
            return Err(CoreError::field("bound_claims", "must be text where they are patterns"));
        }
        for uri in &self.allowed_redirect_uris {
            redirect::check(uri)
                .map_err(|problem| CoreError::field("allowed_redirect_uris", problem))?;
        }
        if self.oidc_scopes.iter().any(|scope| scope.contains(char::is_whitespace)) {
            return Err(CoreError::field("oidc_scopes", "must be a list, each without spaces"));
        }
        match self.role_type {
            RoleType::Oidc if self.allowed_redirect_uris.is_empty() => {
                Err(CoreError::field("allowed_redirect_uris", "is required of a role of type oidc"))
            }
            RoleType::Jwt if self.binds_nothing() => Err(CoreError::invalid(
                "a role of type jwt needs bound_audiences, bound_subject, bound_claims or \
                 token_bound_cidrs: without one it would let in whomever the issuer knows",
            )),
            RoleType::Oidc | RoleType::Jwt => Ok(()),
        }
    }

    fn binds_nothing(&self) -> bool {
        self.bound_audiences.is_empty()
            && self.bound_subject.is_empty()
            && self.bound_claims.is_empty()
            && self.token.bound_cidrs.is_empty()
    }

    /// The claims that a log-in is judged by or noted with.
    pub(super) fn claims(&self) -> impl Iterator<Item = &str> {
        let groups = Some(self.groups_claim.as_str()).filter(|name| !name.is_empty());
        std::iter::once(self.user_claim.as_str())
            .chain(groups)
            .chain(self.bound_claims.keys().map(String::as_str))
            .chain(self.claim_mappings.keys().map(String::as_str))
    }
}

impl Leeway {
    /// How long it is, when `usual` is usual.
    pub(super) fn or(self, usual: Ttl) -> Ttl {
        match self {
            Self::None => Ttl::ZERO,
            Self::Usual => usual,
            Self::Of(leeway) => leeway,
        }
    }

    /// How long it is as a difference between two clocks.
    pub(super) fn or_clock_skew(self) -> Ttl {
        self.or(CLOCK_SKEW)
    }

    fn to_json(self) -> Value {
        match self {
            Self::None => json!(-1),
            Self::Usual => json!(0),
            Self::Of(leeway) => json!(leeway),
        }
    }
}

fn read_leeway(fields: &Fields, name: &str) -> Result<Option<Leeway>, CoreError> {
    if fields.text(name)?.is_some_and(|text| text.trim().starts_with('-')) {
        return Ok(Some(Leeway::None));
    }
    let Some(given) = fields.duration(name)? else { return Ok(None) };
    if given > LEEWAY_MAX {
        return Err(CoreError::field(name, "is longer than 10 minutes"));
    }
    Ok(Some(if given.is_zero() { Leeway::Usual } else { Leeway::Of(given) }))
}

fn bound_claims(given: &Map<String, Value>) -> Result<BTreeMap<String, Vec<Value>>, CoreError> {
    let wrong = |problem: &str| CoreError::field("bound_claims", problem);
    let mut bound = BTreeMap::new();
    for (name, value) in given {
        let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
        if values.is_empty() {
            return Err(wrong("must name at least one value for each claim"));
        }
        let scalar = |value: &Value| value.is_string() || value.is_boolean() || value.is_number();
        if !values.iter().all(scalar) {
            return Err(wrong("must be text, numbers, booleans, or lists of those"));
        }
        let texts = values.iter().filter_map(Value::as_str).chain([name.as_str()]);
        bounded("bound_claims", texts, values.len())?;
        bound.insert(name.clone(), values);
    }
    bounded("bound_claims", std::iter::empty(), bound.len())?;
    Ok(bound)
}

fn bounded<'t>(
    name: &str,
    mut texts: impl Iterator<Item = &'t str>,
    count: usize,
) -> Result<(), CoreError> {
    if count > ELEMENTS_MAX {
        return Err(CoreError::field(name, "has more than 256 elements"));
    }
    if texts.any(|text| text.is_empty() || text.len() > TEXT_BYTES_MAX) {
        let problem = "has an element that is empty or longer than 2048 bytes";
        return Err(CoreError::field(name, problem));
    }
    Ok(())
}
