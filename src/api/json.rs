//! Strict reading of JSON bodies: bounded in depth and width, and no key twice.
//!
//! A repeated key is refused because two parsers in a row would disagree about which value counts.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Deepest nesting accepted.
const DEPTH_MAX: usize = 64;
/// Most values in one body, at all depths together.
const VALUES_MAX: usize = 65_536;
/// Most keys of one object. Each has to be looked for among those before it.
const KEYS_MAX: usize = 10_000;
/// Longest number, in digits: more than the modulus of any RSA key has.
const NUMBER_BYTES_MAX: usize = 8192;

/// Parses a body that has to be a JSON object.
///
/// # Errors
/// What is wrong and where, without quoting the body.
pub(super) fn parse_object(body: &[u8]) -> Result<Map<String, Value>, JsonError> {
    let mut left = VALUES_MAX;
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = Strict { depth: 0, left: &mut left }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| JsonError::of(&error))?;
    match value {
        Value::Object(map) => Ok(map),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(JsonError { problem: "must be a JSON object".into() })
        }
    }
}

/// Why a body was refused.
#[derive(Debug, thiserror::Error)]
#[error("the request body {problem}")]
pub(super) struct JsonError {
    problem: String,
}

impl JsonError {
    fn of(error: &serde_json::Error) -> Self {
        // The parser's own message may quote what it found, so only ours are passed on.
        let text = error.to_string();
        let ours = text.strip_prefix(MARK).and_then(|rest| rest.split(" at line ").next());
        let place = format!("at line {} column {}", error.line(), error.column());
        let problem = match ours {
            Some(ours) => format!("{ours} {place}"),
            None if error.is_eof() => "ends before its JSON does".to_owned(),
            None => format!("is not valid JSON {place}"),
        };
        Self { problem }
    }
}

/// Begins the messages that are ours.
const MARK: &str = "\u{1}";

fn refused<E: Error>(problem: impl fmt::Display) -> E {
    E::custom(format!("{MARK}{problem}"))
}

/// What the parser calls the one key of a number that fits no integer, which it hands over as text,
/// digit for digit: a secret has to come back as it was sent.
const NUMBER_KEY: &str = "$serde_json::private::Number";

fn number<E: Error>(text: &str) -> Result<Value, E> {
    if text.len() > NUMBER_BYTES_MAX {
        return Err(refused(format_args!("has a number of more than {NUMBER_BYTES_MAX} digits")));
    }
    text.parse::<Number>().map(Value::Number).map_err(|_| refused("has a malformed number"))
}

struct Strict<'a> {
    depth: usize,
    left: &'a mut usize,
}

impl Strict<'_> {
    fn deeper(&mut self) -> Strict<'_> {
        Strict { depth: self.depth + 1, left: self.left }
    }

    fn count<E: Error>(&mut self) -> Result<(), E> {
        *self.left = self
            .left
            .checked_sub(1)
            .ok_or_else(|| refused::<E>(format_args!("has more than {VALUES_MAX} values")))?;
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<Value, D::Error> {
        self.count()?;
        if self.depth > DEPTH_MAX {
            return Err(refused(format_args!("is nested deeper than {DEPTH_MAX} levels")));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(self.deeper())? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.is_empty() && key == NUMBER_KEY {
                return number(&entries.next_value::<String>()?);
            }
            if map.len() >= KEYS_MAX {
                return Err(refused(format_args!("has an object of more than {KEYS_MAX} keys")));
            }
            let value = entries.next_value_seed(self.deeper())?;
            if map.contains_key(&key) {
                // A key can hold a secret by mistake only as a top-level name could; it is what the
                // caller needs to see.
                return Err(refused(format_args!("has the key {key:?} twice")));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn problem(body: &[u8]) -> String {
        parse_object(body).unwrap_err().to_string()
    }

    #[test]
    fn repeated_keys_are_named_at_any_depth() {
        assert!(problem(br#"{"a":1,"a":2}"#).contains("key \"a\" twice"));
        assert!(problem(br#"{"x":[{"b":1,"b":2}]}"#).contains("key \"b\" twice"));
    }

    #[test]
    fn depth_and_width_are_bounded() {
        let deep = [b"{\"a\":".as_slice(), &b"[".repeat(100), &b"]".repeat(100), b"}"].concat();
        assert!(problem(&deep).contains("nested deeper"));
        let wide = format!("{{\"a\":[{}0]}}", "0,".repeat(70_000));
        assert!(problem(wide.as_bytes()).contains("more than 65536 values"));
        let keys = |count: usize| {
            let keys: Vec<_> = (0..count).map(|n| format!("\"{n}\":0")).collect();
            format!("{{{}}}", keys.join(","))
        };
        assert_eq!(parse_object(keys(10_000).as_bytes()).unwrap().len(), 10_000);
        assert!(problem(keys(10_001).as_bytes()).contains("more than 10000 keys"));
        let bomb = b"[".repeat(1_000_000);
        assert!(problem(&bomb).contains("nested deeper"));
    }

    #[test]
    fn errors_never_quote_the_body() {
        for body in [
            &b"{\"password\": hunter2}"[..],
            b"\"hunter2\"",
            b"{\"a\": \"hunter2",
            b"{} hunter2",
            b"\xff",
        ] {
            assert!(!problem(body).contains("hunter2"), "{}", problem(body));
        }
    }

    #[test]
    fn numbers_keep_their_form() {
        let map = parse_object(br#"{"i":-1,"u":18446744073709551615,"f":1.5,"n":null}"#).unwrap();
        assert_eq!(map["i"], -1);
        assert_eq!(map["u"], u64::MAX);
        assert_eq!(map["f"], 1.5);
        // Nothing is rounded, however large or precise.
        for text in ["340282366920938463463374607431768211456", "1e+999", "0.1000000000000000055"] {
            let map = parse_object(format!("{{\"n\":{text}}}").as_bytes()).unwrap();
            assert_eq!(map["n"].to_string(), text);
            assert_eq!(map["n"].as_u64(), None);
        }
        let long = format!("{{\"n\":{}}}", "9".repeat(NUMBER_BYTES_MAX + 1));
        assert!(problem(long.as_bytes()).contains("digits"));
        for forged in ["\"x\"", "\"\"", "\"1 \"", "1", "{}"] {
            let forged = format!("{{\"n\":{{\"{NUMBER_KEY}\":{forged}}}}}");
            assert!(parse_object(forged.as_bytes()).is_err(), "{forged}");
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_parser_and_never_panics(text in "\\PC{0,200}|[\\[\\]{}\":,a0 ]{0,60}") {
            if let Ok(map) = parse_object(text.as_bytes()) {
                let plain: Value = serde_json::from_str(&text).unwrap();
                prop_assert_eq!(Value::Object(map), plain);
            }
        }
    }
}
