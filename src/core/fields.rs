//! The parameters of a request: a JSON object read field by field, each error naming its field.
//!
//! Accepts what stock clients send: numbers as strings, lists as comma-separated text, booleans as
//! text, durations as seconds or as `1h30m`.

use serde_json::{Map, Value};

use crate::types::secret::SecretString;
use crate::types::time::Ttl;

/// A field that was missing or had the wrong form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field \"{field}\" {problem}")]
pub struct FieldError {
    /// Which field.
    pub field: String,
    /// What is wrong with it, without its value.
    pub problem: String,
}

impl FieldError {
    /// A problem with `field`; never put the field's value into `problem`.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

/// The parameters of one request, body and query merged (the body wins).
#[derive(Default)]
pub struct Fields {
    values: Map<String, Value>,
}

impl Fields {
    /// From a parsed JSON object.
    pub fn new(values: Map<String, Value>) -> Self {
        Self { values }
    }

    /// The raw value, when present and not `null`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name).filter(|value| !value.is_null())
    }

    /// Whether the field is there at all, even as `null`.
    pub fn contains(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// All fields.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.values
    }

    /// The fields with these names, and no others.
    pub fn only(&self, names: &[&str]) -> Self {
        let given = names.iter().filter_map(|name| self.values.get_key_value(*name));
        Self::new(given.map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    /// All fields, given away.
    pub fn into_map(self) -> Map<String, Value> {
        self.values
    }

    /// Text; numbers and booleans are taken as their text.
    ///
    /// # Errors
    /// When the value is a list or an object.
    pub fn text(&self, name: &str) -> Result<Option<String>, FieldError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(Value::Bool(flag)) => Ok(Some(flag.to_string())),
            Some(Value::Null | Value::Array(_) | Value::Object(_)) => {
                Err(FieldError::new(name, "must be a string"))
            }
        }
    }

    /// Text that must be present and not empty.
    ///
    /// # Errors
    /// When it is missing, empty, or not text.
    pub fn required_text(&self, name: &str) -> Result<String, FieldError> {
        self.text(name)?
            .filter(|text| !text.is_empty())
            .ok_or_else(|| FieldError::new(name, "is required"))
    }

    /// Secret text.
    ///
    /// # Errors
    /// When the value is not a string.
    pub fn secret(&self, name: &str) -> Result<Option<SecretString>, FieldError> {
        Ok(self.text(name)?.map(SecretString::new))
    }

    /// A whole number that is not negative.
    ///
    /// # Errors
    /// When it is negative, fractional, too large, or no number.
    pub fn integer(&self, name: &str) -> Result<Option<u64>, FieldError> {
        let value = match self.get(name) {
            None => return Ok(None),
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => None,
        };
        value
            .map(Some)
            .ok_or_else(|| FieldError::new(name, "must be a whole number, zero or above"))
    }

    /// True or false, also as text.
    ///
    /// # Errors
    /// When it is neither.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, FieldError> {
        let value = match self.get(name) {
            None => return Ok(None),
            Some(Value::Bool(flag)) => Some(*flag),
            Some(Value::String(text)) => match text.as_str() {
                "true" | "1" | "TRUE" | "True" => Some(true),
                "false" | "0" | "FALSE" | "False" | "" => Some(false),
                _ => None,
            },
            Some(Value::Number(number)) => match number.as_u64() {
                Some(0) => Some(false),
                Some(1) => Some(true),
                Some(_) | None => None,
            },
            Some(Value::Null | Value::Array(_) | Value::Object(_)) => None,
        };
        value.map(Some).ok_or_else(|| FieldError::new(name, "must be true or false"))
    }

    /// A duration.
    ///
    /// # Errors
    /// When it is negative, malformed or too long.
    pub fn duration(&self, name: &str) -> Result<Option<Ttl>, FieldError> {
        self.get(name)
            .map(|value| Ttl::from_json(value).map_err(|e| FieldError::new(name, e.to_string())))
            .transpose()
    }

    /// A list of strings: a JSON list, or comma-separated text.
    ///
    /// # Errors
    /// When an element is not text.
    pub fn list(&self, name: &str) -> Result<Option<Vec<String>>, FieldError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(
                text.split(',')
                    .map(str::trim)
                    .filter(|p| !p.is_empty())
                    .map(str::to_owned)
                    .collect(),
            )),
            other => self.sequence(name, other).map(Some),
        }
    }

    /// A list of whole statements: a JSON list, or one string that is taken as it is.
    ///
    /// # Errors
    /// When an element is not text.
    pub fn statements(&self, name: &str) -> Result<Option<Vec<String>>, FieldError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(Some(Vec::new())),
            Some(Value::String(text)) => Ok(Some(vec![text.clone()])),
            other => self.sequence(name, other).map(Some),
        }
    }

    /// A list of whole numbers, as a JSON list or comma-separated text.
    ///
    /// # Errors
    /// When an element is not a whole number.
    pub fn integers(&self, name: &str) -> Result<Option<Vec<u64>>, FieldError> {
        self.list(name)?
            .map(|items| {
                items
                    .iter()
                    .map(|item| item.parse())
                    .collect::<Result<_, _>>()
                    .map_err(|_| FieldError::new(name, "must be a list of whole numbers"))
            })
            .transpose()
    }

    /// An object.
    ///
    /// # Errors
    /// When it is something else.
    pub fn object(&self, name: &str) -> Result<Option<&Map<String, Value>>, FieldError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Array(_),
            ) => Err(FieldError::new(name, "must be an object")),
        }
    }

    /// An object of strings, also as `k=v` text or a list of `k=v` texts.
    ///
    /// # Errors
    /// When a value is not text.
    pub fn string_map(
        &self,
        name: &str,
    ) -> Result<Option<std::collections::BTreeMap<String, String>>, FieldError> {
        let bad = || FieldError::new(name, "must be an object of strings");
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => map
                .iter()
                .map(|(key, value)| match value {
                    Value::String(text) => Ok((key.clone(), text.clone())),
                    Value::Number(number) => Ok((key.clone(), number.to_string())),
                    Value::Bool(flag) => Ok((key.clone(), flag.to_string())),
                    Value::Null | Value::Array(_) | Value::Object(_) => Err(bad()),
                })
                .collect::<Result<_, _>>()
                .map(Some),
            Some(_) => self
                .list(name)
                .map_err(|_| bad())?
                .unwrap_or_default()
                .into_iter()
                .map(|pair| {
                    pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).ok_or_else(bad)
                })
                .collect::<Result<_, _>>()
                .map(Some),
        }
    }

    fn sequence(&self, name: &str, value: Option<&Value>) -> Result<Vec<String>, FieldError> {
        let bad = || FieldError::new(name, "must be a list of strings");
        value
            .and_then(Value::as_array)
            .ok_or_else(bad)?
            .iter()
            .map(|item| match item {
                Value::String(text) => Ok(text.clone()),
                Value::Number(number) => Ok(number.to_string()),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => Err(bad()),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: Value) -> Fields {
        Fields::new(value.as_object().unwrap().clone())
    }

    #[test]
    fn every_wrong_type_names_its_field_and_not_its_value() {
        let f = fields(json!({"a": {"hunter2": []}, "b": ["hunter2", {}]}));
        for error in [
            f.text("a").unwrap_err(),
            f.integer("a").unwrap_err(),
            f.boolean("a").unwrap_err(),
            f.duration("a").unwrap_err(),
            f.list("b").unwrap_err(),
            f.string_map("a").unwrap_err(),
            f.object("b").unwrap_err(),
            f.required_text("c").unwrap_err(),
        ] {
            assert!(error.to_string().starts_with("field \""), "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn spellings_of_stock_clients_are_accepted() {
        let f =
            fields(json!({"n": "5", "t": "true", "l": "a, b", "m": ["k=v=w"], "d": 60, "z": null}));
        assert_eq!(f.integer("n"), Ok(Some(5)));
        assert_eq!(f.boolean("t"), Ok(Some(true)));
        assert_eq!(f.list("l"), Ok(Some(vec!["a".into(), "b".into()])));
        assert_eq!(f.string_map("m").unwrap().unwrap()["k"], "v=w");
        assert_eq!(f.duration("d"), Ok(Some(Ttl::from_secs(60))));
        assert_eq!(f.text("z"), Ok(None));
        assert!(f.contains("z"));
    }
}
