//! Keyed hashes in place of values: an auditor can compare, nobody can read.

use std::cell::Cell;
use std::fmt;

use serde::ser::{Error as _, SerializeMap};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::entry::write_json;
use crate::crypto::blind::AuditKey;

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
    key: &'a AuditKey,
    clear: &'a [String],
}

impl<'a> Redaction<'a> {
    /// Hides everything.
    pub const fn new(key: &'a AuditKey) -> Self {
        Self { key, clear: &[] }
    }

    /// Hides everything but what stands under these top-level keys, which an administrator declared
    /// harmless (a mount's `audit_non_hmac_request_keys`).
    pub const fn with_clear_keys(key: &'a AuditKey, clear: &'a [String]) -> Self {
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
        self.data(Item::Value(value), value)
    }

    /// As [`Redaction::value`], for the fields of an object.
    pub fn fields(&self, fields: &Map<String, Value>) -> RedactedData {
        self.data(Item::Fields(fields), fields)
    }

    fn data(&self, item: Item<'_>, whole: &impl Serialize) -> RedactedData {
        let values = Cell::new(0);
        let place = Place {
            redaction: self,
            depth: 0,
            values: &values,
            protocol_number: false,
            clear: false,
        };
        let mut out = Vec::with_capacity(256);
        if write_json(&Node { place, item }, &mut out).is_err() || out.len() > DATA_BYTES_MAX {
            out.clear();
            // A JSON value always serializes.
            let whole = Zeroizing::new(serde_json::to_string(whole).unwrap_or_default());
            let digest = serde_json::json!({"hmac": self.text(&whole).0, "bytes": whole.len()});
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

/// Where in the data we are.
#[derive(Clone, Copy)]
struct Place<'a> {
    redaction: &'a Redaction<'a>,
    depth: usize,
    values: &'a Cell<usize>,
    protocol_number: bool,
    clear: bool,
}

impl Place<'_> {
    fn item(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }

    fn field(self, key: &str) -> Self {
        let declared = || self.redaction.clear.iter().any(|name| name == key);
        Self {
            depth: self.depth + 1,
            protocol_number: PROTOCOL_NUMBERS.contains(&key),
            clear: self.clear || (self.depth == 0 && declared()),
            ..self
        }
    }

    fn hmac(self, text: &str) -> String {
        self.redaction.key.hmac(text)
    }
}

#[derive(Clone, Copy)]
enum Item<'a> {
    Value(&'a Value),
    Fields(&'a Map<String, Value>),
}

struct Node<'a> {
    place: Place<'a>,
    item: Item<'a>,
}

impl Serialize for Node<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let place = self.place;
        place.values.set(place.values.get() + 1);
        if place.depth > DATA_DEPTH_MAX || place.values.get() > DATA_VALUES_MAX {
            return Err(S::Error::custom("too much to write out"));
        }
        let value = match self.item {
            Item::Value(Value::Object(fields)) | Item::Fields(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (key, value) in fields {
                    let child = Self { place: place.field(key), item: Item::Value(value) };
                    if key.len() > KEY_BYTES_MAX {
                        map.serialize_entry(&place.hmac(key), &child)?;
                    } else {
                        map.serialize_entry(key, &child)?;
                    }
                }
                return map.end();
            }
            Item::Value(value) => value,
        };
        match value {
            Value::Number(number) if place.clear || place.protocol_number => {
                number.serialize(serializer)
            }
            Value::Number(number) => serializer.serialize_str(&place.hmac(&number.to_string())),
            Value::String(text) if place.clear => serializer.serialize_str(text),
            Value::String(text) => serializer.serialize_str(&place.hmac(text)),
            Value::Array(items) => serializer.collect_seq(
                items.iter().map(|value| Self { place: place.item(), item: Item::Value(value) }),
            ),
            Value::Null | Value::Bool(_) | Value::Object(_) => value.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::secret::SecretArray;
    use serde_json::json;

    fn key() -> AuditKey {
        AuditKey::new(&SecretArray::init_with(|bytes| bytes.fill(7)))
    }

    fn hmac(text: &str) -> String {
        key().hmac(text)
    }

    fn redact(value: &Value, clear: &[&str]) -> Value {
        let clear: Vec<String> = clear.iter().map(|key| (*key).to_owned()).collect();
        let key = key();
        let redaction = Redaction::with_clear_keys(&key, &clear);
        let data = redaction.value(value);
        if let Some(fields) = value.as_object() {
            assert_eq!(redaction.fields(fields).0, data.0);
        }
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
                "password": hmac("hunter2"), "pin": hmac("4938"), "ttl": 60,
                "versions": [1, 2], "on": true, "none": null,
                "list": [hmac("a"), hmac("1"), {"deep": hmac("bb")}],
            })
        );
    }

    #[test]
    fn clear_keys_count_at_the_top_only() {
        let value = json!({"name": {"first": "x"}, "data": {"name": "secret"}});
        assert_eq!(
            redact(&value, &["name"]),
            json!({"name": {"first": "x"}, "data": {"name": hmac("secret")}})
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
                json!({"hmac": hmac(&whole), "bytes": whole.len()})
            );
        }
    }

    #[test]
    fn an_overlong_key_is_data_that_strayed() {
        let key = "k".repeat(KEY_BYTES_MAX + 1);
        assert_eq!(redact(&json!({key.clone(): true}), &[]), json!({hmac(&key): true}));
    }
}
