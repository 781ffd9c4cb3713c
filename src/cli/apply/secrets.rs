//! Values that are kept outside the document.

use std::fmt;
use std::path::PathBuf;

use serde_json::Value;

use super::document::read_file;
use crate::cli::error::CliError;
use crate::cli::session::Environment;
use crate::types::secret::SecretString;

/// Names of fields that hold a secret, whatever engine or method they belong to.
const SECRET_NAMES: &[&str] = &[
    "password",
    "bindpass",
    "secret",
    "secret_id",
    "client_secret",
    "oidc_client_secret",
    "private_key",
    "token",
    "token_reviewer_jwt",
    "secret_key",
    "access_key",
    "api_key",
    "key_base64",
    "key",
];
/// Endings of such names.
const SECRET_ENDINGS: &[&str] = &["_password", "_secret", "_private_key"];

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// An environment variable.
    Env(String),
    /// A file; one line break at its end does not count.
    File(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

impl Source {
    /// The value. `path` and `field` say what it is for, should it not be there.
    pub(super) fn read(
        &self,
        env: &Environment,
        path: &str,
        field: &str,
    ) -> Result<SecretString, CliError> {
        let text = match self {
            Self::Env(name) => env(name).filter(|value| !value.is_empty()).ok_or_else(|| {
                CliError::local(
                    format!("{path} needs {field}, but {name} is not set"),
                    format!("set {name} to the value"),
                )
            })?,
            Self::File(file) => read_file(file).map_err(CliError::system(format!(
                "{path} needs {field}, but {} cannot be read",
                file.display()
            )))?,
        };
        let text = SecretString::new(text);
        let trimmed = text.expose().strip_suffix('\n').unwrap_or(text.expose());
        let trimmed = trimmed.strip_suffix('\r').unwrap_or(trimmed);
        Ok(SecretString::new(trimmed.to_owned()))
    }
}

/// Whether a field of this name holds a secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    SECRET_NAMES.contains(&name) || SECRET_ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Whether a value is an address with a secret in it, or has one anywhere inside.
pub(super) fn holds_a_secret(value: &Value) -> bool {
    match value {
        Value::String(text) => holds_a_password(text) || holds_a_key(text),
        Value::Array(items) => items.iter().any(holds_a_secret),
        Value::Object(members) => members.iter().any(|(name, value)| {
            let is_text = value.as_str().is_some_and(|text| !text.is_empty());
            is_secret_name(name) && is_text || holds_a_secret(value)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether a text is what an authenticator app scans.
fn holds_a_key(text: &str) -> bool {
    text.starts_with("otpauth://") && text.contains("secret=")
}

/// Whether a text is an address with a password in it that is not a placeholder.
fn holds_a_password(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let Some((user, _)) = authority.rsplit_once('@') else { return false };
    let Some((_, password)) = user.split_once(':') else { return false };
    let is_placeholder = password.starts_with("{{") && password.ends_with("}}");
    !password.is_empty() && !is_placeholder
}

/// Whether what a server answers stands for a secret that it does not show.
pub(super) fn is_masked(answered: &str) -> bool {
    answered.is_empty()
        || answered.chars().all(|c| matches!(c, '*' | '•'))
        || ["hmac-", "sha256:", "<redacted", "[redacted", "(sensitive"]
            .iter()
            .any(|mark| answered.to_ascii_lowercase().starts_with(mark))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_password_in_an_address_is_seen_and_a_placeholder_is_none() {
        for (text, expected) in [
            ("postgresql://app:hunter2@db/app", true),
            ("postgresql://{{username}}:{{password}}@db:5432/app", false),
            ("postgresql://app@db/app", false),
            ("https://example.org/a:b@c", false),
            ("no address: x@y", false),
        ] {
            assert_eq!(holds_a_password(text), expected, "{text}");
        }
    }

    #[test]
    fn a_secret_is_seen_wherever_it_stands() {
        for value in [
            json!("otpauth://totp/x?secret=ABC"),
            json!(["mongodb://a:b@c/"]),
            json!({ "a": { "oidc_client_secret": "x" } }),
            json!([{ "root_password": "x" }]),
        ] {
            assert!(holds_a_secret(&value), "{value}");
        }
        for value in [json!({ "password": "" }), json!(["otpauth://totp/x"]), json!({ "a": 1 })] {
            assert!(!holds_a_secret(&value), "{value}");
        }
        assert!(is_secret_name("self_managed_password") && !is_secret_name("password_policy"));
    }

    #[test]
    fn one_line_break_at_the_end_of_a_file_is_not_part_of_the_secret() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let env: Environment = Box::new(|name| (name == "PW").then(|| "from env".to_owned()));
        for (written, read) in [("a b\n", "a b"), ("a\n\n", "a\n"), ("a\r\n", "a"), ("a", "a")] {
            std::fs::write(file.path(), written).unwrap();
            let source = Source::File(file.path().to_owned());
            assert_eq!(source.read(&env, "p", "f").unwrap().expose(), read);
        }
        assert_eq!(Source::Env("PW".into()).read(&env, "p", "f").unwrap().expose(), "from env");
        let missing = Source::Env("NONE".into()).read(&env, "database/config/x", "password");
        let error = missing.unwrap_err();
        assert!(error.what().contains("NONE") && error.what().contains("database/config/x"));
    }
}
