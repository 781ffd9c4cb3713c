//! JSON in which no name is there twice: two readers could disagree about which value counts
//! (RFC 8725 §2.4, RFC 7519 §4).

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Why a text is not what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It is no JSON object, or nested too deep.
    #[error("is not a JSON object")]
    Malformed,
    /// A name is there twice, at any depth.
    #[error("has a name twice in one JSON object")]
    Repeated,
}

/// Parses a JSON object. Bounded by the length of the text, and in depth by the parser's own limit.
///
/// # Errors
/// Anything else, and names that are there twice.
pub fn parse_object(text: &[u8]) -> Result<Map<String, Value>, JsonError> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let mut repeated = false;
    let looked_at = Once { repeated: &mut repeated }
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end());
    match looked_at {
        Err(_) if repeated => return Err(JsonError::Repeated),
        Err(_) => return Err(JsonError::Malformed),
        Ok(()) => {}
    }
    serde_json::from_slice(text).map_err(|_| JsonError::Malformed)
}

/// Looks at every name once.
struct Once<'r> {
    repeated: &'r mut bool,
}

impl Once<'_> {
    fn again(&mut self) -> Once<'_> {
        Once { repeated: self.repeated }
    }
}

impl<'de> DeserializeSeed<'de> for Once<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Once<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self.again())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = fields.next_key::<String>()? {
            if !names.insert(name) {
                *self.repeated = true;
                return Err(A::Error::custom("repeated"));
            }
            fields.next_value_seed(self.again())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_there_twice_is_refused_at_any_depth() {
        for text in
            [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, r#"{"x":{"y":[{"a":1,"b":2,"a":3}]}}"#]
        {
            assert_eq!(parse_object(text.as_bytes()), Err(JsonError::Repeated), "{text}");
        }
        let text = r#"{"a":1,"b":{"a":-1.5e3},"c":[{"a":null},{"a":true}],"d":"x"}"#;
        let parsed = parse_object(text.as_bytes()).unwrap();
        assert_eq!(serde_json::to_value(parsed).unwrap()["b"]["a"].as_f64(), Some(-1500.0));
    }

    #[test]
    fn what_is_no_object_or_has_no_end_is_refused() {
        let deep = format!("{}{}", "{\"a\":".repeat(200), "}".repeat(200));
        for text in ["", "[]", "\"a\"", "1", "{", "{}x", "{} {}", "\u{feff}{}", &deep] {
            assert_eq!(parse_object(text.as_bytes()), Err(JsonError::Malformed), "{text}");
        }
        assert_eq!(parse_object(b"{\"a\":\"\xff\"}"), Err(JsonError::Malformed));
    }
}
