//! The configuration of a mount: which cluster, and how to ask it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::auth::jose::provider::Source;
use crate::auth::jose::{PEM_BYTES_MAX, given, pems, text};
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::stored::StoredSecret;
use crate::crypto::jose::{KeySet, TOKEN_BYTES_MAX};
use crate::types::secret::SecretString;

/// Longest text of one field, in bytes.
const TEXT_BYTES_MAX: usize = 2048;

/// What is configured. Written whole: a field that a write leaves out is empty afterwards.
#[derive(Serialize, Deserialize)]
pub(super) struct Config {
    /// Where the cluster's API is; empty when nobody is asked.
    pub(super) kubernetes_host: String,
    pub(super) kubernetes_ca_cert: String,
    /// What the API is asked with; the log-in's own token without.
    token_reviewer_jwt: Option<StoredSecret>,
    pem_keys: Vec<String>,
    jwks_url: String,
    pub(super) issuer: String,
    disable_iss_validation: bool,
}

/// Where the keys are that service accounts' tokens are signed with.
pub(super) enum Keys {
    /// Only the cluster knows.
    None,
    /// In the configuration.
    Given(KeySet),
    /// With the cluster, or whoever publishes for it.
    Published(Source),
}

impl Config {
    /// As a request gives it. What it names elsewhere is not asked yet.
    pub(super) fn read(fields: &Fields) -> Result<Self, CoreError> {
        let reviewer = given(fields, "token_reviewer_jwt")?;
        if reviewer.as_ref().is_some_and(|token| token.expose().len() > TOKEN_BYTES_MAX) {
            return Err(CoreError::field("token_reviewer_jwt", "is longer than 32 KiB"));
        }
        let host = text(fields, "kubernetes_host", TEXT_BYTES_MAX)?;
        let config = Self {
            kubernetes_host: host.trim_end_matches('/').to_owned(),
            kubernetes_ca_cert: text(fields, "kubernetes_ca_cert", PEM_BYTES_MAX)?,
            token_reviewer_jwt: reviewer.map(StoredSecret::new),
            pem_keys: pems(fields, "pem_keys")?,
            jwks_url: text(fields, "jwks_url", TEXT_BYTES_MAX)?,
            issuer: text(fields, "issuer", TEXT_BYTES_MAX)?,
            disable_iss_validation: fields.boolean("disable_iss_validation")?.unwrap_or(true),
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), CoreError> {
        let keys = usize::from(!self.pem_keys.is_empty()) + usize::from(!self.jwks_url.is_empty());
        if keys > 1 {
            return Err(CoreError::field("jwks_url", "and pem_keys exclude each other"));
        }
        if keys == 0 && self.kubernetes_host.is_empty() {
            return Err(CoreError::field(
                "kubernetes_host",
                "is required, or pem_keys, or jwks_url, to judge tokens without the cluster",
            ));
        }
        if !self.disable_iss_validation && (self.issuer.is_empty() || keys == 0) {
            let problem = "must be true without an issuer, or without keys to check tokens with";
            return Err(CoreError::field("disable_iss_validation", problem));
        }
        self.keys().map(|_| ())
    }

    /// Where the keys are.
    pub(super) fn keys(&self) -> Result<Keys, CoreError> {
        if !self.pem_keys.is_empty() {
            let keys = KeySet::from_pems(&self.pem_keys);
            let keys = keys.map_err(|error| CoreError::field("pem_keys", error.to_string()))?;
            return Ok(Keys::Given(keys));
        }
        if self.jwks_url.is_empty() {
            return Ok(Keys::None);
        }
        let (url, authorities) = (self.jwks_url.clone(), self.kubernetes_ca_cert.clone());
        Ok(Keys::Published(Source::Keys { url, authorities }))
    }

    /// Whether tokens have to name the issuer.
    pub(super) fn checks_issuer(&self) -> bool {
        !self.disable_iss_validation
    }

    /// What the cluster is asked with, unless it is the token in question.
    pub(super) fn reviewer(&self) -> Option<&SecretString> {
        self.token_reviewer_jwt.as_ref().map(StoredSecret::secret)
    }

    /// All but the reviewer's token.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "disable_iss_validation": self.disable_iss_validation,
            "disable_local_ca_jwt": true,
            "issuer": self.issuer,
            "jwks_url": self.jwks_url,
            "kubernetes_ca_cert": self.kubernetes_ca_cert,
            "kubernetes_host": self.kubernetes_host,
            "pem_keys": self.pem_keys,
            "token_reviewer_jwt_set": self.token_reviewer_jwt.is_some(),
        })
    }
}
