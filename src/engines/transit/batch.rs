//! One item, or a list of them: reading, and answering in kind.

use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use super::TransitEngine;
use crate::core::error::CoreError;
use crate::core::fields::{FieldError, Fields};
use crate::core::reply::{Reply, Status};
use crate::types::secret::SecretBytes;

/// Most items of one request.
pub(super) const ITEMS_MAX: usize = 10_000;
/// Most items of one request that takes long for each.
pub(super) const SLOW_ITEMS_MAX: usize = 1_000;
/// Statuses that say that there is nothing in the answer.
const BODYLESS: [u16; 3] = [204, 205, 304];

/// Why one item was not done. Told to the caller; never with a value in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct ItemError(String);

impl ItemError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn field(name: &str, problem: &str) -> Self {
        FieldError::new(name, problem).into()
    }
}

impl From<FieldError> for ItemError {
    fn from(error: FieldError) -> Self {
        Self(error.to_string())
    }
}

impl From<String> for ItemError {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// What became of one item.
pub(super) type Done = Result<Map<String, Value>, ItemError>;

/// What an answer has to keep of the items.
pub(super) struct Shape {
    /// What each item is called by the caller; `None` when there is one that is no list.
    references: Option<Vec<String>>,
    /// The status when some were done and others were not.
    partial: Option<u16>,
}

/// Takes the items out of a request: those of `batch_input`, or the request itself.
///
/// # Errors
/// When `batch_input` is no list of objects, is empty or too long.
pub(super) fn items(fields: Fields, slow: bool) -> Result<(Vec<Fields>, Shape), CoreError> {
    let partial = fields
        .integer("partial_failure_response_code")?
        .map(|code| {
            u16::try_from(code)
                .ok()
                .filter(|code| (200..600).contains(code) && !BODYLESS.contains(code))
                .ok_or_else(|| {
                    let problem = "must be an HTTP status, 200 to 599, that has a body";
                    CoreError::field("partial_failure_response_code", problem)
                })
        })
        .transpose()?;
    if fields.get("batch_input").is_none() {
        return Ok((vec![fields], Shape { references: None, partial }));
    }
    let problem = |text: &str| CoreError::field("batch_input", text);
    let Some(Value::Array(list)) = fields.into_map().remove("batch_input") else {
        return Err(problem("must be a list of objects"));
    };
    let most = if slow { SLOW_ITEMS_MAX } else { ITEMS_MAX };
    if list.is_empty() || list.len() > most {
        return Err(problem(&format!("must have 1 to {most} items")));
    }
    let mut items = Vec::with_capacity(list.len());
    let mut references = Vec::with_capacity(list.len());
    for item in list {
        let Value::Object(item) = item else { return Err(problem("must be a list of objects")) };
        let item = Fields::new(item);
        references.push(item.text("reference")?.unwrap_or_default());
        items.push(item);
    }
    Ok((items, Shape { references: Some(references), partial }))
}

impl TransitEngine {
    /// Does `work` to each of the items that could be read: here, or elsewhere when it takes long.
    pub(super) async fn each<T: Send + 'static, R: Send + 'static>(
        &self,
        long: bool,
        items: Vec<Result<T, ItemError>>,
        work: impl Fn(T) -> Result<R, ItemError> + Send + 'static,
    ) -> Result<Vec<Result<R, ItemError>>, CoreError> {
        let all = move || items.into_iter().map(|item| work(item?)).collect();
        self.work.run_if(long, all).await
    }
}

/// Answers what became of the items. `strict` says so by the status, too, when some were not done.
///
/// # Errors
/// Why the one item that is no list was not done.
pub(super) fn answer(shape: Shape, done: Vec<Done>, strict: bool) -> Result<Reply, CoreError> {
    let Some(references) = shape.references else {
        let one = done.into_iter().next();
        let one = one.ok_or_else(|| CoreError::internal("an item has no result"))?;
        let data = one.map_err(|error| CoreError::invalid(error.to_string()))?;
        return Ok(Reply { data: Some(data), ..Reply::default() });
    };
    let good = done.iter().filter(|one| one.is_ok()).count();
    let bad = done.len() - good;
    let results = done.into_iter().zip(references).map(|(one, reference)| {
        let mut result = match one {
            Ok(result) => result,
            Err(error) => Map::from_iter([("error".to_owned(), json!(error.to_string()))]),
        };
        result.insert("reference".into(), json!(reference));
        Value::Object(result)
    });
    let mut data = Map::new();
    data.insert("batch_results".into(), Value::Array(results.collect()));
    let status = match (strict && bad > 0, good > 0, shape.partial) {
        (false, _, _) => Status::Ok,
        (true, true, Some(code)) => Status::Partly(code),
        (true, _, _) => Status::Partly(400),
    };
    Ok(Reply { data: Some(data), status, ..Reply::default() })
}

/// Bytes in base64 (RFC 4648 §4, with its padding and nothing else). Empty when the field is missing.
pub(super) fn bytes(item: &Fields, name: &str) -> Result<Vec<u8>, ItemError> {
    let text = item.secret(name)?;
    let text = text.as_ref().map_or("", |text| text.expose());
    BASE64.decode(text.as_bytes()).map_err(|_| ItemError::field(name, "is not base64"))
}

/// The same, when the field has to be there, be it empty.
pub(super) fn required(item: &Fields, name: &str) -> Result<SecretBytes, ItemError> {
    if item.get(name).is_none() {
        return Err(ItemError::field(name, "is required"));
    }
    bytes(item, name).map(SecretBytes::new)
}

/// A version and what is told with it: `vault:v1:` and text. The prefix is the one that stock clients
/// know.
pub(super) fn versioned<'t>(name: &str, text: &'t str) -> Result<(u64, &'t str), ItemError> {
    let parts = text.strip_prefix("vault:v").and_then(|rest| rest.split_once(':'));
    parts
        .filter(|(number, _)| {
            !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit())
        })
        .and_then(|(number, rest)| Some((number.parse().ok()?, rest)))
        .ok_or_else(|| ItemError::field(name, "does not begin with vault:v, a version and a colon"))
}

/// Writes what [`versioned`] reads.
pub(super) fn with_version(version: u64, text: &str) -> String {
    format!("vault:v{version}:{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::new(value.as_object().unwrap().clone())
    }

    #[test]
    fn batches_are_bounded_and_name_their_field() {
        let long = vec![json!({}); ITEMS_MAX + 1];
        for bad in [json!([]), json!("x"), json!({}), json!([1]), json!([{}, null]), json!(long)] {
            let error = items(fields(json!({ "batch_input": bad })), false).err().unwrap();
            assert!(error.to_string().starts_with("field \"batch_input\" must"), "{error}");
        }
        let many = json!({ "batch_input": vec![json!({}); SLOW_ITEMS_MAX + 1] });
        assert!(items(fields(many.clone()), false).is_ok());
        assert!(items(fields(many), true).is_err());
        for code in [0, 100, 199, 204, 205, 304, 600, 70_000] {
            let body = json!({ "partial_failure_response_code": code });
            assert!(items(fields(body), false).is_err(), "{code}");
        }
    }

    #[test]
    fn the_status_says_that_some_failed() {
        let status = |results: [bool; 2], strict, code: Value| {
            let body = json!({ "batch_input": [{}, {}], "partial_failure_response_code": code });
            let (_, shape) = items(fields(body), false).unwrap();
            let done = results.map(|good| match good {
                true => Ok(Map::new()),
                false => Err(ItemError::new("bad")),
            });
            answer(shape, done.into(), strict).unwrap().http_status()
        };
        assert_eq!(status([true, true], true, Value::Null), 200);
        assert_eq!(status([true, false], true, Value::Null), 400);
        assert_eq!(status([true, false], true, json!(207)), 207);
        assert_eq!(status([false, false], true, json!(207)), 400, "none was done");
        assert_eq!(status([true, false], false, Value::Null), 200);
    }

    #[test]
    fn versions_have_one_spelling() {
        assert_eq!(versioned("f", "vault:v12:QUJD"), Ok((12, "QUJD")));
        assert_eq!(versioned("f", "vault:v1:"), Ok((1, "")));
        for bad in [
            "",
            "x",
            "vault:v:x",
            "vault:v0:x",
            "vault:v01:x",
            "vault:v+1:x",
            "vault:v-1:x",
            "vault:v1",
            "VAULT:v1:x",
            "vault:v 1:x",
            "vault:v99999999999999999999:x",
            " vault:v1:x",
            "bao:v1:x",
            "vault:v1\u{663}:x",
        ] {
            assert!(versioned("f", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn base64_is_strict() {
        for bad in ["aGVsbG8", "aGVsbG8=\n", " aGVsbG8=", "aGVsbG9=", "aGVs*G8=", "aGVsbG8=="] {
            assert!(bytes(&fields(json!({ "f": bad })), "f").is_err(), "{bad}");
        }
        assert_eq!(bytes(&fields(json!({ "f": "aGVsbG8=" })), "f").unwrap(), b"hello");
        assert!(required(&fields(json!({ "f": "" })), "f").unwrap().is_empty());
        assert!(required(&fields(json!({ "f": null })), "f").is_err());
    }
}
