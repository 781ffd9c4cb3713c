//! The header settings of a mount: `passthrough_request_headers` and `allowed_response_headers`.
//!
//! No engine sees HTTP, so there is nothing that they could let through. They are kept, since clients
//! read back what they wrote, and whoever sets them is told.

use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::mount::MountConfig;

const PASSED: &str = "passthrough_request_headers";
const ALLOWED: &str = "allowed_response_headers";
/// Most names in one of the two.
const NAMES_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 64;

/// What proves who somebody is. No setting names these, whatever may read it one day.
const NEVER: &[&str] = &["authorization", "cookie", "cookie2", "set-cookie", "set-cookie2"];
const NEVER_PREFIXES: &[&str] = &["proxy-auth", "x-vault-", "x-forwarded-client-cert"];

/// Takes over the lists that `fields` has.
///
/// # Errors
/// `Invalid` when one holds what is no header's name, or what may never pass.
pub(super) fn tune(config: &mut MountConfig, fields: &Fields) -> Result<(), CoreError> {
    if let Some(names) = checked(fields, PASSED)? {
        config.passthrough_request_headers = names;
    }
    if let Some(names) = checked(fields, ALLOWED)? {
        config.allowed_response_headers = names;
    }
    Ok(())
}

/// What somebody has to know who writes these lists.
pub(super) fn warnings(fields: &Fields) -> Vec<String> {
    let is_set = |name: &&str| {
        let given = fields.list(name).ok().flatten();
        given.is_some_and(|names| !names.is_empty())
    };
    let told = |name| {
        format!("{name} is kept and has no effect: no engine or method of this server sees headers")
    };
    [PASSED, ALLOWED].into_iter().filter(is_set).map(told).collect()
}

fn checked(fields: &Fields, field: &str) -> Result<Option<Vec<String>>, CoreError> {
    let Some(names) = fields.list(field)? else { return Ok(None) };
    if names.len() > NAMES_MAX {
        return Err(CoreError::field(field, format!("holds more than {NAMES_MAX} names")));
    }
    // RFC 9110 §5.6.2: what a name is made of.
    let is_name = |name: &String| {
        let is_part = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_part)
    };
    if !names.iter().all(is_name) {
        return Err(CoreError::field(field, "must hold names of headers"));
    }
    let never = |name: &&String| {
        let name = name.to_ascii_lowercase().replace('_', "-");
        NEVER.contains(&name.as_str()) || NEVER_PREFIXES.iter().any(|one| name.starts_with(one))
    };
    match names.iter().find(never) {
        Some(name) => {
            Err(CoreError::field(field, format!("must not hold {name}, which carries secrets")))
        }
        None => Ok(Some(names)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(names: serde_json::Value) -> Fields {
        Fields::new(json!({ PASSED: names }).as_object().unwrap().clone())
    }

    #[test]
    fn what_proves_an_identity_is_never_named() {
        let mut config = MountConfig::default();
        for bad in [
            "Authorization",
            "authorization",
            "COOKIE",
            "Set-Cookie",
            "X-Vault-Token",
            "x_vault_token",
            "Proxy-Authorization",
            "X-Forwarded-Client-Cert",
            "",
            "a b",
            "a:b",
            "x\r\ny",
        ] {
            let given = fields(json!(["X-Fine", bad]));
            assert!(tune(&mut config, &given).is_err(), "{bad:?}");
        }
        assert!(tune(&mut config, &fields(json!(vec!["x"; NAMES_MAX + 1]))).is_err());
        assert!(config.passthrough_request_headers.is_empty());
    }

    #[test]
    fn what_is_set_is_kept_and_told_to_have_no_effect() {
        let mut config = MountConfig::default();
        let given = fields(json!(["X-Correlation-Id"]));
        tune(&mut config, &given).unwrap();
        assert_eq!(config.passthrough_request_headers, ["X-Correlation-Id"]);
        assert_eq!(warnings(&given).len(), 1);
        let none = fields(json!([]));
        tune(&mut config, &none).unwrap();
        assert!(config.passthrough_request_headers.is_empty() && warnings(&none).is_empty());
    }
}
