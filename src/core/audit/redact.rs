//! Keyed hashes in place of values: an auditor can compare, nobody can read.

use std::cell::Cell;
use std::fmt;

use serde::ser::{Error as _, SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::Value;
use zeroize::Zeroizing;

use super::entry::write_json;

/// Deepest nesting that is written out.
const DATA_DEPTH_MAX: usize = 16;
/// Most values in one request or response that are written out one by one.
const DATA_VALUES_MAX: usize = 512;
/// Longest redacted form that is written out, in bytes.
const DATA_BYTES_MAX: usize = 32 * 1024;
/// Longest object key that stays readable, in bytes: longer ones are data that strayed.
const KEY_BYTES_MAX: usize = 128;

/// Keys whose numbers are the protocol's and not the caller's. Any other number may be a PIN.
const PROTOCOL_NUMBERS: [&str; 18] = [
    "cas",
    "count",
    "current_version",
    "default_lease_ttl",
    "explicit_max_ttl",
    "increment",
    "lease_duration",
    "max_lease_ttl",
    "max_ttl",
    "max_versions",
    "num_uses",
    "oldest_version",
    "period",
    "progress",
    "rotation_period",
    "ttl",
    "version",
    "versions",
];

/// A keyed hash under the audit key.
pub trait Redactor: Send + Sync {
    /// `hmac-sha256:` and the hex of the HMAC-SHA-256 of `text`.
    fn hmac(&self, text: &str) -> String;
}

/// A keyed hash that stands for a text in the audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Hmac(String);

impl fmt::Display for Hmac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How the values of one request or response are hidden.
#[derive(Clone, Copy)]
pub struct Redaction<'a> {
    key: &'a dyn Redactor,
    clear: &'a [String],
}

impl<'a> Redaction<'a> {
    /// Hides everything.
    pub const fn new(key: &'a dyn Redactor) -> Self {
        Self { key, clear: &[] }
    }

    /// Hides everything but what stands under these top-level keys, which an administrator declared
    /// harmless (a mount's `audit_non_hmac_request_keys`).
    pub const fn with_clear_keys(key: &'a dyn Redactor, clear: &'a [String]) -> Self {
        Self { key, clear }
    }

    /// The keyed hash of one text.
    pub fn text(&self, text: &str) -> Hmac {
        Hmac(self.key.hmac(text))
    }

    /// `value` with every text and every number that is not the protocol's own replaced by its keyed
    /// hash. Names of fields, booleans and nulls stay. What is too deep, too wide or too long becomes one
    /// keyed hash of the whole.
    pub fn value(&self, value: &Value) -> RedactedData {
        let values = Cell::new(0);
        let node = Node {
            redaction: self,
            value,
            depth: 0,
            values: &values,
            protocol_number: false,
            clear: false,
        };
        let mut out = Vec::with_capacity(256);
        if write_json(&node, &mut out).is_err() || out.len() > DATA_BYTES_MAX {
            out.clear();
            let whole = Zeroizing::new(value.to_string());
            let digest = serde_json::json!({"hmac": self.text(&whole).0, "bytes": whole.len()});
            // A map of two scalars always serializes.
            let _ = write_json(&digest, &mut out);
        }
        RedactedData(out)
    }
}

/// A request's or response's data with nothing readable in it, as JSON.
#[derive(Clone, Debug)]
pub struct RedactedData(Vec<u8>);

impl RedactedData {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

struct Node<'a> {
    redaction: &'a Redaction<'a>,
    value: &'a Value,
    depth: usize,
    values: &'a Cell<usize>,
    protocol_number: bool,
    clear: bool,
}

impl<'a> Node<'a> {
    fn child(&self, value: &'a Value, key: Option<&str>) -> Self {
        Self {
            redaction: self.redaction,
            value,
            depth: self.depth + 1,
            values: self.values,
            protocol_number: match key {
                Some(key) => PROTOCOL_NUMBERS.contains(&key),
                None => self.protocol_number,
            },
            clear: self.clear
                || (self.depth == 0
                    && key.is_some_and(|key| self.redaction.clear.iter().any(|name| name == key))),
        }
    }
}

impl Serialize for Node<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.values.set(self.values.get() + 1);
        if self.depth > DATA_DEPTH_MAX || self.values.get() > DATA_VALUES_MAX {
            return Err(S::Error::custom("too much to write out"));
        }
        match self.value {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Number(number) if self.clear || self.protocol_number => {
                number.serialize(serializer)
            }
            Value::Number(number) => {
                serializer.serialize_str(&self.redaction.key.hmac(&number.to_string()))
            }
            Value::String(text) if self.clear => serializer.serialize_str(text),
            Value::String(text) => serializer.serialize_str(&self.redaction.key.hmac(text)),
            Value::Array(items) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    seq.serialize_element(&self.child(item, None))?;
                }
                seq.end()
            }
            Value::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (key, value) in fields {
                    let child = self.child(value, Some(key));
                    if key.len() > KEY_BYTES_MAX {
                        map.serialize_entry(&self.redaction.key.hmac(key), &child)?;
                    } else {
                        map.serialize_entry(key, &child)?;
                    }
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Reversible on purpose, so that a test sees what was hashed.
    struct Spy;

    impl Redactor for Spy {
        fn hmac(&self, text: &str) -> String {
            format!("hmac-sha256:<{}>", text.len())
        }
    }

    fn redact(value: &Value, clear: &[&str]) -> Value {
        let clear: Vec<String> = clear.iter().map(|key| (*key).to_owned()).collect();
        let data = Redaction::with_clear_keys(&Spy, &clear).value(value);
        serde_json::from_slice(data.as_bytes()).unwrap()
    }

    #[test]
    fn texts_and_the_callers_numbers_are_hidden_and_the_protocols_stay() {
        let value = json!({
            "password": "hunter2", "pin": 4938, "ttl": 60, "versions": [1, 2], "on": true,
            "none": null, "list": ["a", 1, {"deep": "bb"}],
        });
        assert_eq!(
            redact(&value, &[]),
            json!({
                "password": "hmac-sha256:<7>", "pin": "hmac-sha256:<4>", "ttl": 60,
                "versions": [1, 2], "on": true, "none": null,
                "list": ["hmac-sha256:<1>", "hmac-sha256:<1>", {"deep": "hmac-sha256:<2>"}],
            })
        );
    }

    #[test]
    fn clear_keys_count_at_the_top_only() {
        let value = json!({"name": {"first": "x"}, "data": {"name": "secret"}});
        assert_eq!(
            redact(&value, &["name"]),
            json!({"name": {"first": "x"}, "data": {"name": "hmac-sha256:<6>"}})
        );
    }

    #[test]
    fn too_deep_too_wide_and_too_long_become_one_hash() {
        let mut deep = json!("secret");
        for _ in 0..=DATA_DEPTH_MAX {
            deep = json!({"d": deep});
        }
        let wide = json!((0..=DATA_VALUES_MAX).collect::<Vec<_>>());
        let long = json!({"name": "x".repeat(DATA_BYTES_MAX)});
        for value in [deep, wide, long] {
            let whole = value.to_string();
            assert_eq!(
                redact(&value, &["name"]),
                json!({"hmac": format!("hmac-sha256:<{}>", whole.len()), "bytes": whole.len()})
            );
        }
    }

    #[test]
    fn an_overlong_key_is_data_that_strayed() {
        let key = "k".repeat(KEY_BYTES_MAX + 1);
        assert_eq!(redact(&json!({key: true}), &[]), json!({"hmac-sha256:<129>": true}));
    }
}
