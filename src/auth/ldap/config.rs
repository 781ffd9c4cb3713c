//! The configuration of a mount, as it is given, stored and shown.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::settings::SettingError;
use crate::core::engine::TokenParameters;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::stored::StoredSecret;
use crate::core::token::{parameters_json, read_parameters};
use crate::types::time::Ttl;

const USER_FILTER: &str = "({{.UserAttr}}={{.Username}})";
const GROUP_FILTER: &str =
    "(|(memberUid={{.Username}})(member={{.UserDN}})(uniqueMember={{.UserDN}}))";

/// The configuration of a mount. Field for field what stock clients know.
#[derive(Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ConfigRecord {
    pub url: String,
    pub starttls: bool,
    pub certificate: String,
    pub client_tls_cert: String,
    pub client_tls_key: Option<StoredSecret>,
    pub tls_min_version: String,
    pub tls_max_version: String,
    pub binddn: String,
    pub bindpass: Option<StoredSecret>,
    pub userdn: String,
    pub userattr: String,
    pub userfilter: String,
    pub upndomain: String,
    pub discoverdn: bool,
    pub anonymous_group_search: bool,
    pub groupdn: String,
    pub groupfilter: String,
    pub groupattr: String,
    pub use_token_groups: bool,
    pub case_sensitive_names: bool,
    pub username_as_alias: bool,
    pub dereference_aliases: String,
    pub max_page_size: u64,
    pub connection_timeout: Ttl,
    pub request_timeout: Ttl,
    pub token: TokenParameters,
}

impl Default for ConfigRecord {
    fn default() -> Self {
        Self {
            url: String::new(),
            starttls: false,
            certificate: String::new(),
            client_tls_cert: String::new(),
            client_tls_key: None,
            tls_min_version: "tls12".to_owned(),
            tls_max_version: "tls13".to_owned(),
            binddn: String::new(),
            bindpass: None,
            userdn: String::new(),
            userattr: "cn".to_owned(),
            userfilter: USER_FILTER.to_owned(),
            upndomain: String::new(),
            discoverdn: false,
            anonymous_group_search: false,
            groupdn: String::new(),
            groupfilter: GROUP_FILTER.to_owned(),
            groupattr: "cn".to_owned(),
            use_token_groups: false,
            case_sensitive_names: false,
            username_as_alias: false,
            dereference_aliases: "never".to_owned(),
            max_page_size: 0,
            connection_timeout: Ttl::from_secs(10),
            request_timeout: Ttl::from_secs(30),
            token: TokenParameters::default(),
        }
    }
}

impl ConfigRecord {
    /// This configuration with what the request gives; what it leaves out stays.
    ///
    /// # Errors
    /// A field of the wrong form, or one that asks for what is not done here.
    pub(super) fn updated(mut self, fields: &Fields) -> Result<Self, CoreError> {
        refuse_unsafe(fields)?;
        let place = self.place();
        for (name, setting) in [
            ("url", &mut self.url),
            ("certificate", &mut self.certificate),
            ("client_tls_cert", &mut self.client_tls_cert),
            ("binddn", &mut self.binddn),
            ("userdn", &mut self.userdn),
            ("upndomain", &mut self.upndomain),
            ("groupdn", &mut self.groupdn),
            ("groupfilter", &mut self.groupfilter),
        ] {
            if let Some(given) = fields.text(name)? {
                *setting = given;
            }
        }
        let usual = Self::default();
        // Stock clients send nothing for "as usual" here.
        for (name, setting, usual) in [
            ("tls_min_version", &mut self.tls_min_version, usual.tls_min_version),
            ("tls_max_version", &mut self.tls_max_version, usual.tls_max_version),
            ("userattr", &mut self.userattr, usual.userattr),
            ("userfilter", &mut self.userfilter, usual.userfilter),
            ("groupattr", &mut self.groupattr, usual.groupattr),
            ("dereference_aliases", &mut self.dereference_aliases, usual.dereference_aliases),
        ] {
            if let Some(given) = fields.text(name)? {
                *setting = if given.is_empty() { usual } else { given };
            }
        }
        for (name, setting) in [
            ("starttls", &mut self.starttls),
            ("discoverdn", &mut self.discoverdn),
            ("anonymous_group_search", &mut self.anonymous_group_search),
            ("case_sensitive_names", &mut self.case_sensitive_names),
            ("use_token_groups", &mut self.use_token_groups),
            ("username_as_alias", &mut self.username_as_alias),
        ] {
            if let Some(given) = fields.boolean(name)? {
                *setting = given;
            }
        }
        for (name, setting, usual) in [
            ("connection_timeout", &mut self.connection_timeout, usual.connection_timeout),
            ("request_timeout", &mut self.request_timeout, usual.request_timeout),
        ] {
            if let Some(given) = fields.duration(name)? {
                *setting = given.or(usual);
            }
        }
        if let Some(size) = fields.integer("max_page_size")? {
            self.max_page_size = size;
        }
        let moved = self.place() != place;
        for (name, setting) in
            [("bindpass", &mut self.bindpass), ("client_tls_key", &mut self.client_tls_key)]
        {
            if let Some(given) = fields.secret(name)? {
                *setting = (!given.expose().is_empty()).then(|| StoredSecret::new(given));
            } else if moved && setting.is_some() && name == "bindpass" {
                // Who may change the configuration must not have the password sent to a place of
                // their choice, and so read it after all.
                let problem = "must be given again with another url, starttls or certificate";
                return Err(SettingError::new("bindpass", problem).into());
            }
        }
        self.token = read_parameters(fields, self.token)?;
        Ok(self)
    }

    /// Where passwords go, and who is believed to be there.
    fn place(&self) -> (String, bool, String) {
        (self.url.clone(), self.starttls, self.certificate.clone())
    }

    /// As answers show it: without the password and the key.
    pub(super) fn to_json(&self) -> Value {
        let mut shown = parameters_json(&self.token);
        let own = json!({
            "anonymous_group_search": self.anonymous_group_search,
            "binddn": self.binddn,
            "case_sensitive_names": self.case_sensitive_names,
            "certificate": self.certificate,
            "client_tls_cert": self.client_tls_cert,
            "connection_timeout": self.connection_timeout,
            "deny_null_bind": true,
            "dereference_aliases": self.dereference_aliases,
            "discoverdn": self.discoverdn,
            "groupattr": self.groupattr,
            "groupdn": self.groupdn,
            "groupfilter": self.groupfilter,
            "insecure_tls": false,
            "max_page_size": self.max_page_size,
            "request_timeout": self.request_timeout,
            "starttls": self.starttls,
            "tls_max_version": self.tls_max_version,
            "tls_min_version": self.tls_min_version,
            "upndomain": self.upndomain,
            "url": self.url,
            "use_token_groups": self.use_token_groups,
            "userattr": self.userattr,
            "userdn": self.userdn,
            "userfilter": self.userfilter,
            "username_as_alias": self.username_as_alias,
        });
        let own: Map<String, Value> = serde_json::from_value(own).unwrap_or_default();
        shown.extend(own);
        Value::Object(shown)
    }
}

/// Refuses what would give up what the method promises, instead of leaving it out without a word.
fn refuse_unsafe(fields: &Fields) -> Result<(), CoreError> {
    for (name, refused, problem) in [
        ("insecure_tls", true, "cannot be set: give the directory's authorities as certificate"),
        ("deny_null_bind", false, "is always on: a password that is empty proves nothing"),
    ] {
        if fields.boolean(name)? == Some(refused) {
            return Err(SettingError::new(name, problem).into());
        }
    }
    Ok(())
}
