//! The token fields that the roles of every auth method share: read from requests, shown in answers.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use crate::core::engine::{TokenParameters, TokenType};
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::policy::PolicyName;

use super::entry::TokenKind;
use super::role::RoleTokenType;

/// Most policies of one token or role.
const POLICIES_MAX: usize = 256;
/// Most addresses that one token or role is bound to.
const CIDRS_MAX: usize = 256;

/// A table of fields that ends with those that every role has.
macro_rules! with_token_fields {
    ($($field:expr),* $(,)?) => {
        &[
            $($field,)*
            $crate::core::route::field("token_bound_cidrs", $crate::core::route::FieldKind::List,
                "Addresses or networks that tokens can be used from."),
            $crate::core::route::field("token_explicit_max_ttl", $crate::core::route::FieldKind::Duration,
                "Maximum lifetime, fixed when a token is made."),
            $crate::core::route::field("token_max_ttl", $crate::core::route::FieldKind::Duration,
                "Maximum lifetime over all renewals."),
            $crate::core::route::field("token_no_default_policy", $crate::core::route::FieldKind::Boolean,
                "Leave out the default policy."),
            $crate::core::route::field("token_num_uses", $crate::core::route::FieldKind::Integer,
                "How often a token can be used; 0 for no limit."),
            $crate::core::route::field("token_period", $crate::core::route::FieldKind::Duration,
                "Lifetime that each renewal gives, without a maximum."),
            $crate::core::route::field("token_policies", $crate::core::route::FieldKind::List,
                "Policies of the tokens."),
            $crate::core::route::field("token_ttl", $crate::core::route::FieldKind::Duration,
                "First lifetime of a token."),
            $crate::core::route::field("token_type", $crate::core::route::FieldKind::Text,
                "default, service or batch."),
            $crate::core::route::field("policies", $crate::core::route::FieldKind::List,
                "Older name of token_policies."),
            $crate::core::route::field("ttl", $crate::core::route::FieldKind::Duration,
                "Older name of token_ttl."),
            $crate::core::route::field("max_ttl", $crate::core::route::FieldKind::Duration,
                "Older name of token_max_ttl."),
            $crate::core::route::field("period", $crate::core::route::FieldKind::Duration,
                "Older name of token_period."),
            $crate::core::route::field("bound_cidrs", $crate::core::route::FieldKind::List,
                "Older name of token_bound_cidrs."),
        ]
    };
}
pub(crate) use with_token_fields;

/// The fields of a role's answer: those given, and what [`parameters_json`] shows.
macro_rules! with_shown_token_fields {
    ($($field:expr),* $(,)?) => {
        &[
            $($field,)*
            $crate::core::route::field("token_bound_cidrs", $crate::core::route::FieldKind::List,
                "Addresses or networks that tokens can be used from."),
            $crate::core::route::field("token_explicit_max_ttl", $crate::core::route::FieldKind::Duration,
                "Maximum lifetime, fixed when a token is made."),
            $crate::core::route::field("token_max_ttl", $crate::core::route::FieldKind::Duration,
                "Maximum lifetime over all renewals."),
            $crate::core::route::field("token_no_default_policy", $crate::core::route::FieldKind::Boolean,
                "Whether the default policy is left out."),
            $crate::core::route::field("token_num_uses", $crate::core::route::FieldKind::Integer,
                "How often a token can be used; 0 for no limit."),
            $crate::core::route::field("token_period", $crate::core::route::FieldKind::Duration,
                "Lifetime that each renewal gives, without a maximum."),
            $crate::core::route::field("token_policies", $crate::core::route::FieldKind::List,
                "Policies of the tokens."),
            $crate::core::route::field("token_ttl", $crate::core::route::FieldKind::Duration,
                "First lifetime of a token."),
            $crate::core::route::field("token_type", $crate::core::route::FieldKind::Text,
                "default, service or batch."),
        ]
    };
}
pub(crate) use with_shown_token_fields;

/// Reads the token fields of a role over what it had; fields that are not given stay as they are.
///
/// # Errors
/// The field that is malformed, or that contradicts another. Roles cannot give the root policy.
pub fn read_parameters(
    fields: &Fields,
    present: TokenParameters,
) -> Result<TokenParameters, CoreError> {
    let mut token = present;
    let pick = |name: &'static str, older: &'static str| {
        if fields.get(name).is_some() { name } else { older }
    };
    let name = pick("token_policies", "policies");
    if let Some(list) = fields.list(name)? {
        token.policies = policy_names(name, &list)?;
        if token.policies.iter().any(|policy| policy == "root") {
            return Err(CoreError::field(name, "must not contain the root policy"));
        }
    }
    if let Some(ttl) = fields.duration(pick("token_ttl", "ttl"))? {
        token.ttl = ttl;
    }
    if let Some(ttl) = fields.duration(pick("token_max_ttl", "max_ttl"))? {
        token.max_ttl = ttl;
    }
    if let Some(ttl) = fields.duration("token_explicit_max_ttl")? {
        token.explicit_max_ttl = ttl;
    }
    if let Some(ttl) = fields.duration(pick("token_period", "period"))? {
        token.period = ttl;
    }
    if let Some(flag) = fields.boolean("token_no_default_policy")? {
        token.no_default_policy = flag;
    }
    if let Some(uses) = fields.integer("token_num_uses")? {
        token.num_uses = uses;
    }
    let name = pick("token_bound_cidrs", "bound_cidrs");
    if let Some(list) = fields.list(name)? {
        token.bound_cidrs = cidrs(name, &list)?;
    }
    if let Some(text) = fields.text("token_type")? {
        token.token_type = match text.as_str() {
            "" | "default" => TokenType::Default,
            "service" => TokenType::Service,
            "batch" => TokenType::Batch,
            _ => return Err(CoreError::field("token_type", "must be default, service or batch")),
        };
    }
    check(&token)?;
    Ok(token)
}

fn check(token: &TokenParameters) -> Result<(), CoreError> {
    if !token.max_ttl.is_zero() && token.ttl > token.max_ttl {
        return Err(CoreError::field("token_ttl", "is longer than token_max_ttl"));
    }
    if !token.explicit_max_ttl.is_zero() && token.period > token.explicit_max_ttl {
        return Err(CoreError::field("token_period", "is longer than token_explicit_max_ttl"));
    }
    let batch = token.token_type == TokenType::Batch;
    if batch && (!token.period.is_zero() || token.num_uses > 0) {
        let problem = "cannot be batch together with token_period or token_num_uses";
        return Err(CoreError::field("token_type", problem));
    }
    Ok(())
}

/// The token fields of a role, as answers show them.
pub fn parameters_json(token: &TokenParameters) -> Map<String, Value> {
    let shown = json!({
        "token_bound_cidrs": token.bound_cidrs,
        "token_explicit_max_ttl": token.explicit_max_ttl,
        "token_max_ttl": token.max_ttl,
        "token_no_default_policy": token.no_default_policy,
        "token_num_uses": token.num_uses,
        "token_period": token.period,
        "token_policies": token.policies,
        "token_ttl": token.ttl,
        "token_type": token.token_type.as_str(),
    });
    match shown {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    }
}

/// Policy names in their one spelling, sorted, each once.
///
/// # Errors
/// A name that no policy can have, or too many.
pub fn policy_names(field: &str, list: &[String]) -> Result<Vec<String>, CoreError> {
    if list.len() > POLICIES_MAX {
        return Err(CoreError::field(field, format!("has more than {POLICIES_MAX} elements")));
    }
    let mut names = list
        .iter()
        .map(|text| PolicyName::parse(text).map(|name| name.as_str().to_owned()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| CoreError::field(field, format!("has a bad policy name: {error}")))?;
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Networks in their one spelling; a single address is a network of one.
///
/// # Errors
/// An element that is neither, or too many.
pub fn cidrs(field: &str, list: &[String]) -> Result<Vec<String>, CoreError> {
    if list.len() > CIDRS_MAX {
        return Err(CoreError::field(field, format!("has more than {CIDRS_MAX} elements")));
    }
    list.iter()
        .map(|text| {
            let net = match text.parse::<IpAddr>() {
                Ok(address) => Some(IpNet::from(address)),
                Err(_) => text.parse::<IpNet>().ok(),
            };
            net.map(|net| net.trunc().to_string())
                .ok_or_else(|| CoreError::field(field, "must be a list of addresses or networks"))
        })
        .collect()
}

/// Whether `remote` lies in one of the networks, or there are none. A network that cannot be read
/// lets nobody in.
pub fn address_allowed(networks: &[String], remote: IpAddr) -> bool {
    let remote = remote.to_canonical();
    networks.is_empty()
        || networks
            .iter()
            .filter_map(|text| text.parse::<IpNet>().ok())
            .any(|network| network.contains(&remote))
}

/// The policies with `default` among them, unless it is not wanted. Sorted, each once.
pub fn with_default(policies: &[String], no_default: bool) -> Vec<String> {
    let mut names = policies.to_vec();
    if !no_default {
        names.push("default".into());
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// What kind of token a log-in makes: what the role asks for, as far as the mount leaves the choice.
pub fn login_kind(role: TokenType, mount: RoleTokenType) -> TokenKind {
    mount.kind(match role {
        TokenType::Batch => Some(TokenKind::Batch),
        TokenType::Default => None,
        TokenType::Service => Some(TokenKind::Service),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<TokenParameters, CoreError> {
        let fields = Fields::new(value.as_object().unwrap().clone());
        read_parameters(&fields, TokenParameters::default())
    }

    #[test]
    fn a_mount_decides_the_kind_or_leaves_it_to_the_role() {
        let kinds = |mount: &str| {
            // As it is stored, and as older stores have it.
            let mount: RoleTokenType = serde_json::from_value(json!(mount)).unwrap();
            [TokenType::Default, TokenType::Batch, TokenType::Service]
                .map(|role| login_kind(role, mount) == TokenKind::Batch)
        };
        assert_eq!(kinds("default-service"), [false, true, false]);
        assert_eq!(kinds("default"), [false, true, false]);
        assert_eq!(kinds("default-batch"), [true, true, false]);
        assert_eq!(kinds("batch"), [true, true, true]);
        assert_eq!(kinds("service"), [false, false, false]);
    }

    #[test]
    fn fields_are_read_in_both_spellings() {
        let token = read(json!({
            "token_policies": "b,A,b", "ttl": "1h", "token_max_ttl": 7200,
            "token_bound_cidrs": ["10.1.2.3/8", "::1"], "token_num_uses": "3",
        }))
        .unwrap();
        assert_eq!(token.policies, ["a", "b"]);
        assert_eq!((token.ttl.as_secs(), token.max_ttl.as_secs(), token.num_uses), (3600, 7200, 3));
        assert_eq!(token.bound_cidrs, ["10.0.0.0/8", "::1/128"]);
        let token = read(json!({"token_ttl": 1, "ttl": 2})).unwrap();
        assert_eq!(token.ttl.as_secs(), 1);
    }

    #[test]
    fn what_no_role_may_say_is_refused_by_field() {
        for (value, field) in [
            (json!({"token_policies": ["Root"]}), "token_policies"),
            (json!({"policies": ["a b"]}), "policies"),
            (json!({"token_ttl": 2, "token_max_ttl": 1}), "token_ttl"),
            (json!({"token_period": 2, "token_explicit_max_ttl": 1}), "token_period"),
            (json!({"token_type": "batch", "token_num_uses": 1}), "token_type"),
            (json!({"token_type": "root"}), "token_type"),
            (json!({"token_bound_cidrs": ["10.0.0.0/33"]}), "token_bound_cidrs"),
            (json!({"token_ttl": -1}), "token_ttl"),
        ] {
            let error = read(value).unwrap_err();
            assert!(matches!(&error, CoreError::Field(e) if e.field == field), "{error}");
        }
    }

    #[test]
    fn addresses_are_compared_in_one_form() {
        let networks = ["10.0.0.0/8".to_owned(), "::1/128".to_owned()];
        for (remote, allowed) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("::1", true),
            ("11.0.0.1", false),
            ("::ffff:11.0.0.1", false),
        ] {
            assert_eq!(address_allowed(&networks, remote.parse().unwrap()), allowed, "{remote}");
        }
        assert!(address_allowed(&[], "11.0.0.1".parse().unwrap()));
        assert!(!address_allowed(&["nonsense".to_owned()], "11.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_not_given_stays() {
        let present = TokenParameters { num_uses: 5, ..TokenParameters::default() };
        let token = read_parameters(&Fields::default(), present.clone()).unwrap();
        assert_eq!(token, present);
    }
}
