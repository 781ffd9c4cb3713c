//! Whether two values of a field mean the same, however each is written: what a server answers is
//! seldom spelled as it was sent.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value};

use crate::types::time::Ttl;

/// Fields under another name in an answer than in a write.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("policies", "token_policies"),
    ("ttl", "token_ttl"),
    ("max_ttl", "token_max_ttl"),
    ("period", "token_period"),
    ("num_uses", "token_num_uses"),
    ("bound_cidrs", "token_bound_cidrs"),
    ("no_default_policy", "token_no_default_policy"),
    ("root_rotation_statements", "root_credentials_rotate_statements"),
];
/// Objects of an answer whose members are written as fields of their own.
const INNER_OBJECTS: &[&str] = &["connection_details"];
/// Endings of the names of durations.
const DURATIONS: &[&str] =
    &["ttl", "period", "interval", "duration", "_after", "lifetime", "window", "reset", "leeway"];

/// What the answer `data` says about the field `name`; `None` when it does not speak of it.
pub fn answered<'d>(data: &'d Value, name: &str) -> Option<&'d Value> {
    let other = OTHER_NAMES.iter().find(|(written, _)| *written == name).map(|(_, read)| *read);
    let inner = || INNER_OBJECTS.iter().find_map(|object| data.get(*object)?.get(name));
    data.get(name).or_else(|| data.get(other?)).or_else(inner)
}

/// Whether `wanted`, as somebody would write it, and `found`, as a server answers it, come to the
/// same for the field `name`.
pub fn same(name: &str, wanted: &Value, found: &Value) -> bool {
    if is_unset(name, wanted) || is_unset(name, found) {
        return is_unset(name, wanted) && is_unset(name, found);
    }
    match (wanted, found) {
        (Value::Array(wanted), Value::Array(found)) => same_list(name, wanted, found),
        (Value::String(text), Value::Array(found)) => same_list(name, &list_of(name, text), found),
        (Value::Array(wanted), Value::String(text)) => {
            same_list(name, wanted, &list_of(name, text))
        }
        (Value::Object(wanted), Value::Object(found)) => {
            (!is_free(name) || wanted.keys().eq(found.keys())) && same_object(wanted, found)
        }
        (Value::Object(_) | Value::Array(_), _) | (_, Value::Object(_) | Value::Array(_)) => false,
        (
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_),
        ) => same_scalar(name, wanted, found),
    }
}

/// Whether a value says no more than a field that is not there: servers spell that as nothing, an
/// empty text, zero, false or an empty list.
pub fn is_unset(name: &str, value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => {
            text.is_empty()
                || is_duration(name) && Ttl::parse(text).is_ok_and(|ttl| ttl.is_zero())
                || matches!(text.as_str(), "0" | "false")
        }
        Value::Array(items) => items.is_empty(),
        Value::Object(members) if is_free(name) => members.is_empty(),
        Value::Object(members) => members.iter().all(|(name, value)| is_unset(name, value)),
    }
}

/// Whether a field of this name is a duration, in seconds where it is a number.
pub fn is_duration(name: &str) -> bool {
    DURATIONS.iter().any(|ending| name.ends_with(ending))
}

/// Objects whose members people name: one that is there says something, whatever it is.
fn is_free(name: &str) -> bool {
    matches!(
        name,
        "bound_claims"
            | "claim_mappings"
            | "custom_metadata"
            | "default_critical_options"
            | "default_extensions"
            | "metadata"
    )
}

/// The order of statements is their meaning; every other list of the API is a set.
fn is_ordered(name: &str) -> bool {
    name.ends_with("statements")
}

/// A text where a list is expected: names separated by commas, or one statement.
fn list_of(name: &str, text: &str) -> Vec<Value> {
    if is_ordered(name) {
        return vec![Value::String(text.to_owned())];
    }
    text.split(',').map(|item| Value::String(item.trim().to_owned())).collect()
}

fn same_list(name: &str, wanted: &[Value], found: &[Value]) -> bool {
    if is_ordered(name) {
        return wanted.len() == found.len()
            && wanted.iter().zip(found).all(|(wanted, found)| same(name, wanted, found));
    }
    let within = |some: &[Value], all: &[Value]| {
        some.iter().all(|one| all.iter().any(|other| same(name, one, other)))
    };
    within(wanted, found) && within(found, wanted)
}

fn same_object(wanted: &Map<String, Value>, found: &Map<String, Value>) -> bool {
    wanted.iter().all(|(name, value)| same(name, value, found.get(name).unwrap_or(&Value::Null)))
        && found.iter().all(|(name, value)| wanted.contains_key(name) || is_unset(name, value))
}

fn same_scalar(name: &str, wanted: &Value, found: &Value) -> bool {
    let (left, right) = (text_of(wanted), text_of(found));
    let (left, right) = (left.trim_end(), right.trim_end());
    if left == right {
        return true;
    }
    if let (Some(left), Some(right)) = (wanted.as_f64(), found.as_f64()) {
        return (left - right).abs() < f64::EPSILON;
    }
    // Between two texts only the name tells that they are durations.
    if (wanted.is_number() || found.is_number() || is_duration(name))
        && let (Ok(left), Ok(right)) = (Ttl::from_json(wanted), Ttl::from_json(found))
    {
        return left == right;
    }
    if name.contains("cidr")
        && let (Some(left), Some(right)) = (network(left), network(right))
    {
        return left == right;
    }
    if name.ends_with("policies") {
        return left.eq_ignore_ascii_case(right);
    }
    name == "path" && left.trim_matches('/') == right.trim_matches('/')
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn network(text: &str) -> Option<IpNet> {
    let parsed = text.parse::<IpNet>().ok();
    let parsed = parsed.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    Some(parsed.trunc())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_meaning_in_two_spellings_is_no_difference() {
        for (name, wanted, found) in [
            ("token_ttl", json!("1h"), json!(3600)),
            ("token_ttl", json!(3600), json!("3600s")),
            ("delete_version_after", json!("90m"), json!("1h30m0s")),
            ("delete_version_after", json!(0), json!("0s")),
            ("token_policies", json!(["b", "A"]), json!(["a", "b"])),
            ("token_policies", json!("a, b"), json!(["b", "a"])),
            ("allowed_roles", json!(["x"]), json!("x")),
            (
                "token_bound_cidrs",
                json!(["10.1.2.3/8", "192.0.2.1"]),
                json!(["192.0.2.1/32", "10.0.0.0/8"]),
            ),
            ("creation_statements", json!("a, b"), json!(["a, b"])),
            ("version", json!(2), json!("2")),
            ("rate", json!(50), json!(50.0)),
            ("bind_secret_id", json!("true"), json!(true)),
            ("path", json!("kv"), json!("kv/")),
            ("policy", json!("path \"x\" {}\n"), json!("path \"x\" {}")),
            ("description", json!(""), Value::Null),
            (
                "lockout",
                json!({"lockout_duration": "15m"}),
                json!({"lockout_duration": 900, "x": 0}),
            ),
        ] {
            assert!(same(name, &wanted, &found), "{name}: {wanted} {found}");
            assert!(same(name, &found, &wanted), "{name}: {found} {wanted}");
        }
    }

    #[test]
    fn what_differs_in_meaning_is_a_difference() {
        for (name, wanted, found) in [
            ("token_ttl", json!("1h"), json!(3601)),
            ("description", json!("1h"), json!("60m")),
            ("token_policies", json!(["a"]), json!(["a", "root"])),
            ("token_policies", json!(["a", "b"]), json!(["a"])),
            ("token_policies", json!([]), json!(["a"])),
            ("creation_statements", json!(["a", "b"]), json!(["b", "a"])),
            ("metadata", json!({"team": "a"}), json!({"team": "a", "more": "b"})),
            ("metadata", json!({"team": "a"}), json!({})),
            ("metadata", json!({"off": "false"}), json!({})),
            ("bound_claims", json!({"verified": false, "a": "b"}), json!({"a": "b"})),
            ("bound_claims", json!({"verified": false}), json!({})),
            ("default_extensions", json!({"permit-pty": ""}), json!({})),
            ("token_bound_cidrs", json!(["10.0.0.0/8"]), json!(["10.0.0.0/9"])),
            ("name", json!("Web"), json!("web")),
            ("bind_secret_id", json!(false), json!(true)),
            ("db_name", json!("pg"), json!(["pg", "other"])),
        ] {
            assert!(!same(name, &wanted, &found), "{name}: {wanted} {found}");
            assert!(!same(name, &found, &wanted), "{name}: {found} {wanted}");
        }
    }

    #[test]
    fn a_field_is_found_under_the_name_that_the_answer_has_for_it() {
        let data = json!({"token_ttl": 5, "connection_details": {"username": "u"}, "a": null});
        assert_eq!(answered(&data, "ttl"), Some(&json!(5)));
        assert_eq!(answered(&data, "username"), Some(&json!("u")));
        assert_eq!(answered(&data, "a"), Some(&Value::Null));
        assert_eq!(answered(&data, "password"), None);
    }
}
