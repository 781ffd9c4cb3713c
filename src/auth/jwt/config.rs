//! The configuration of a mount: whose tokens count.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::auth::jose::provider::Source;
use crate::auth::jose::{PEM_BYTES_MAX, given, pems, text};
use crate::auth::role::checked_name;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::stored::StoredSecret;
use crate::crypto::jose::{JwsAlgorithm, KeySet};
use crate::types::secret::SecretString;

/// Longest text of one field, in bytes.
const TEXT_BYTES_MAX: usize = 2048;

/// What is configured. Written whole: a field that a write leaves out is empty afterwards.
#[derive(Serialize, Deserialize)]
pub(super) struct Config {
    oidc_discovery_url: String,
    oidc_discovery_ca_pem: String,
    jwks_url: String,
    jwks_ca_pem: String,
    jwt_validation_pubkeys: Vec<String>,
    pub(super) bound_issuer: String,
    jwt_supported_algs: Vec<JwsAlgorithm>,
    pub(super) default_role: String,
    pub(super) oidc_client_id: String,
    pub(super) oidc_client_secret: Option<StoredSecret>,
}

/// Where the keys of a mount are.
pub(super) enum Keys {
    /// In the configuration.
    Given(KeySet),
    /// With a provider.
    Published(Source),
}

impl Config {
    /// As a request gives it. What it names elsewhere is not asked yet.
    pub(super) fn read(fields: &Fields) -> Result<Self, CoreError> {
        for (name, only) in [("oidc_response_mode", "query"), ("oidc_response_types", "code")] {
            let given = fields.list(name)?.unwrap_or_default();
            if given.iter().any(|one| one != only) {
                return Err(CoreError::field(name, format!("must be {only}, or left out")));
            }
        }
        let algorithms = fields.list("jwt_supported_algs")?.unwrap_or_default();
        let algorithms = algorithms.iter().map(|name| JwsAlgorithm::parse(name));
        let algorithms: Option<Vec<_>> = algorithms.collect();
        let default_role = text(fields, "default_role", TEXT_BYTES_MAX)?;
        if !default_role.is_empty() {
            checked_name("default_role", &default_role)?;
        }
        let secret = given(fields, "oidc_client_secret")?;
        if secret.as_ref().is_some_and(|secret| secret.expose().len() > TEXT_BYTES_MAX) {
            return Err(CoreError::field("oidc_client_secret", "is longer than 2048 bytes"));
        }
        let config = Self {
            oidc_discovery_url: text(fields, "oidc_discovery_url", TEXT_BYTES_MAX)?,
            oidc_discovery_ca_pem: text(fields, "oidc_discovery_ca_pem", PEM_BYTES_MAX)?,
            jwks_url: text(fields, "jwks_url", TEXT_BYTES_MAX)?,
            jwks_ca_pem: text(fields, "jwks_ca_pem", PEM_BYTES_MAX)?,
            jwt_validation_pubkeys: pems(fields, "jwt_validation_pubkeys")?,
            bound_issuer: text(fields, "bound_issuer", TEXT_BYTES_MAX)?,
            jwt_supported_algs: algorithms.ok_or_else(|| {
                let known = JwsAlgorithm::ALL.iter().map(|one| one.as_str()).collect::<Vec<_>>();
                let problem = format!("must be a list of {}", known.join(", "));
                CoreError::field("jwt_supported_algs", problem)
            })?,
            default_role,
            oidc_client_id: text(fields, "oidc_client_id", TEXT_BYTES_MAX)?,
            oidc_client_secret: secret.map(StoredSecret::new),
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), CoreError> {
        let sources = [
            !self.oidc_discovery_url.is_empty(),
            !self.jwks_url.is_empty(),
            !self.jwt_validation_pubkeys.is_empty(),
        ];
        if sources.iter().filter(|given| **given).count() != 1 {
            return Err(CoreError::invalid(
                "exactly one of oidc_discovery_url, jwks_url and jwt_validation_pubkeys is required",
            ));
        }
        for (pem, name, url) in [
            (&self.oidc_discovery_ca_pem, "oidc_discovery_ca_pem", &self.oidc_discovery_url),
            (&self.jwks_ca_pem, "jwks_ca_pem", &self.jwks_url),
        ] {
            if !pem.is_empty() && url.is_empty() {
                return Err(CoreError::field(name, "belongs to a URL that is not given"));
            }
        }
        let client = !self.oidc_client_id.is_empty();
        if client && self.oidc_discovery_url.is_empty() {
            let problem = "needs oidc_discovery_url";
            return Err(CoreError::field("oidc_client_id", problem));
        }
        if self.oidc_client_secret.is_some() && !client {
            return Err(CoreError::field("oidc_client_secret", "needs oidc_client_id"));
        }
        self.keys().map(|_| ())
    }

    /// Where the keys are.
    pub(super) fn keys(&self) -> Result<Keys, CoreError> {
        if !self.jwt_validation_pubkeys.is_empty() {
            let keys = KeySet::from_pems(&self.jwt_validation_pubkeys);
            return keys
                .map(Keys::Given)
                .map_err(|error| CoreError::field("jwt_validation_pubkeys", error.to_string()));
        }
        if !self.jwks_url.is_empty() {
            let (url, authorities) = (self.jwks_url.clone(), self.jwks_ca_pem.clone());
            return Ok(Keys::Published(Source::Keys { url, authorities }));
        }
        let url = self.oidc_discovery_url.clone();
        let authorities = self.oidc_discovery_ca_pem.clone();
        Ok(Keys::Published(Source::Issuer { url, authorities }))
    }

    /// Which field names where the keys are.
    pub(super) fn source_field(&self) -> &'static str {
        if self.jwks_url.is_empty() { "oidc_discovery_url" } else { "jwks_url" }
    }

    /// The authorities of the identity provider's servers.
    pub(super) fn authorities(&self) -> &str {
        &self.oidc_discovery_ca_pem
    }

    /// The algorithms that tokens may be signed with. Without a choice: all that are asymmetric, and for
    /// the tokens of a log-in in a browser what every provider has to offer (OpenID Connect Core §15.1).
    pub(super) fn algorithms(&self, browser: bool) -> &[JwsAlgorithm] {
        match (self.jwt_supported_algs.as_slice(), browser) {
            ([], true) => &[JwsAlgorithm::RS256],
            ([], false) => JwsAlgorithm::ALL,
            (chosen, _) => chosen,
        }
    }

    /// The secret of the client, if it has one.
    pub(super) fn client_secret(&self) -> Option<&SecretString> {
        self.oidc_client_secret.as_ref().map(StoredSecret::secret)
    }

    /// All but the secret.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "bound_issuer": self.bound_issuer,
            "default_role": self.default_role,
            "jwks_ca_pem": self.jwks_ca_pem,
            "jwks_url": self.jwks_url,
            "jwt_supported_algs": self.jwt_supported_algs,
            "jwt_validation_pubkeys": self.jwt_validation_pubkeys,
            "oidc_client_id": self.oidc_client_id,
            "oidc_discovery_ca_pem": self.oidc_discovery_ca_pem,
            "oidc_discovery_url": self.oidc_discovery_url,
            "oidc_response_mode": "query",
            "oidc_response_types": ["code"],
        })
    }
}

/// The fields of an object literal.
pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    }
}
