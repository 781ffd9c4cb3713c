//! Roles, as they are written and stored.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::core::engine::TokenParameters;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::token::{parameters_json, read_parameters};

use super::object;

/// Most patterns in one list.
const PATTERNS_MAX: usize = 256;
/// Longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 2048;

/// A role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct CertRole {
    /// PEM, as it was given; empty to trust what is configured.
    pub(super) certificate: String,
    /// Which configured bundle or trust domain; empty for any.
    pub(super) trust_domain: String,
    pub(super) allowed_common_names: Vec<String>,
    pub(super) allowed_dns_sans: Vec<String>,
    pub(super) allowed_email_sans: Vec<String>,
    pub(super) allowed_uri_sans: Vec<String>,
    pub(super) allowed_organizational_units: Vec<String>,
    pub(super) required_extensions: Vec<String>,
    pub(super) allowed_metadata_extensions: Vec<String>,
    pub(super) display_name: String,
    pub(super) token: TokenParameters,
}

impl CertRole {
    /// This role with the fields that are given.
    pub(super) fn updated(mut self, fields: &Fields) -> Result<Self, CoreError> {
        if fields.boolean("ocsp_enabled")? == Some(true) {
            let problem = "is not supported; give revocation lists at crls/:name";
            return Err(CoreError::field("ocsp_enabled", problem));
        }
        let texts = [
            ("certificate", &mut self.certificate),
            ("trust_domain", &mut self.trust_domain),
            ("display_name", &mut self.display_name),
        ];
        for (name, text) in texts {
            if let Some(given) = fields.text(name)? {
                *text = given;
            }
        }
        let lists = [
            ("allowed_common_names", &mut self.allowed_common_names),
            ("allowed_dns_sans", &mut self.allowed_dns_sans),
            ("allowed_email_sans", &mut self.allowed_email_sans),
            ("allowed_uri_sans", &mut self.allowed_uri_sans),
            ("allowed_organizational_units", &mut self.allowed_organizational_units),
            ("required_extensions", &mut self.required_extensions),
            ("allowed_metadata_extensions", &mut self.allowed_metadata_extensions),
        ];
        for (name, list) in lists {
            if let Some(given) = fields.list(name)? {
                bounded(name, &given)?;
                *list = given;
            }
        }
        self.token = read_parameters(fields, self.token)?;
        Ok(self)
    }

    pub(super) fn to_json(&self) -> Map<String, Value> {
        let mut shown = object(json!({
            "allowed_common_names": self.allowed_common_names,
            "allowed_dns_sans": self.allowed_dns_sans,
            "allowed_email_sans": self.allowed_email_sans,
            "allowed_metadata_extensions": self.allowed_metadata_extensions,
            "allowed_organizational_units": self.allowed_organizational_units,
            "allowed_uri_sans": self.allowed_uri_sans,
            "certificate": self.certificate,
            "display_name": self.display_name,
            "ocsp_enabled": false,
            "required_extensions": self.required_extensions,
            "trust_domain": self.trust_domain,
        }));
        shown.extend(parameters_json(&self.token));
        shown
    }
}

fn bounded(name: &str, list: &[String]) -> Result<(), CoreError> {
    if list.len() > PATTERNS_MAX {
        return Err(CoreError::field(name, "has more than 256 elements"));
    }
    if list.iter().any(|text| text.is_empty() || text.len() > PATTERN_BYTES_MAX) {
        return Err(CoreError::field(
            name,
            "has an element that is empty or longer than 2048 bytes",
        ));
    }
    Ok(())
}
