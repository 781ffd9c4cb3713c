//! What is answered, as responses.

use serde_json::{Map, Value, json};

use super::schema::{self, REFUSALS, Side, or_null, schema_ref, with};
use super::{Place, capital, schema_name, verb};
use crate::core::operation::Operation;
use crate::core::route::{Access, Answer, FieldKind, FieldSpec, RouteSpec, field};

/// The responses to `operation`; their schemas go into `schemas`.
pub(super) fn responses(
    place: &Place,
    route: &RouteSpec,
    operation: Operation,
    schemas: &mut Map<String, Value>,
) -> Map<String, Value> {
    let answer = route.answers.to(operation);
    let mut responses = refusals(place, route, operation, answer);
    if let Answer::Raw(media_type) = answer {
        let content = json!({ media_type: { "schema": raw(media_type) } });
        let response = json!({ "description": "Done.", "content": content });
        responses.insert("200".into(), response);
        return responses;
    }
    let (name, done) = if answer == Answer::Nothing {
        ("NothingResponse".to_owned(), "Done; there are warnings.")
    } else {
        let end = format!("{}Response", capital(verb(operation)));
        (schema_name(place, route, &end), "Done.")
    };
    schemas.entry(name.clone()).or_insert_with(|| whole(place, answer));
    let content = json!({ "application/json": { "schema": schema_ref(&name) } });
    let mut say = |status: &str, about: &str| {
        responses.insert(status.into(), json!({ "description": about, "content": content }));
    };
    say("200", done);
    if matches!(answer, Answer::Health(_)) {
        say("501", "The store is not initialised.");
        say("503", "The server is sealed.");
        say("default", "As the caller chose.");
    }
    if matches!(answer, Answer::Begun(_)) {
        say("202", "Under way.");
    }
    if matches!(answer, Answer::OrGone(_)) {
        // Also the answer when there was never anything.
        responses.insert("404".into(), gone(&name));
    }
    if matches!(answer, Answer::OrPartly(_)) {
        responses.insert("400".into(), partly(&name));
        let about = "Some of it was not done; as the caller chose.";
        let chosen = json!({ "description": about, "content": content });
        responses.insert("default".into(), chosen);
    }
    if matches!(answer, Answer::Nothing | Answer::Maybe(_) | Answer::Begun(_) | Answer::Unwrapped) {
        responses.insert("204".into(), json!({ "description": "Done; there is nothing to say." }));
    }
    responses
}

/// A body that is no envelope: text, a document, or bytes.
fn raw(media_type: &str) -> Value {
    match media_type.split(';').next().unwrap_or_default() {
        "application/json" => json!({ "type": "object" }),
        text if text.starts_with("text/") => json!({ "type": "string" }),
        _ => json!({ "type": "string", "format": "binary" }),
    }
}

fn gone(name: &str) -> Value {
    let schema = json!({ "anyOf": [schema_ref("Errors"), schema_ref(name)] });
    json!({
        "description": "There is nothing at that path, or it is gone and this is known of it.",
        "content": { "application/json": { "schema": schema } },
    })
}

fn partly(name: &str) -> Value {
    let schema = json!({ "anyOf": [schema_ref("Errors"), schema_ref(name)] });
    json!({
        "description": "The request makes no sense, or this came of what was done of it.",
        "content": { "application/json": { "schema": schema } },
    })
}

/// The ways in which the operation can fail.
fn refusals(
    place: &Place,
    route: &RouteSpec,
    operation: Operation,
    answer: Answer,
) -> Map<String, Value> {
    let issues = matches!(answer, Answer::Lease(_));
    let applies = |status: u16| match status {
        409 | 507 => operation.is_write() || issues,
        413 => operation.is_write(),
        415 => operation == Operation::Patch,
        404 | 429 => place.judged,
        // Targets are asked by engines and methods, and when what they issued is taken back.
        502 => place.judged,
        403 => place.judged || route.access != Access::Public || operation.is_write(),
        _ => true,
    };
    let refusals = REFUSALS.iter().filter(|(status, ..)| applies(*status));
    let entry = |(status, name, _): &(u16, &str, &str)| {
        (status.to_string(), json!({ "$ref": format!("#/components/responses/{name}") }))
    };
    refusals.map(entry).collect()
}

/// The body of an answer.
fn whole(place: &Place, answer: Answer) -> Value {
    let data = |fields| schema::object(fields, Side::Answered);
    let envelope = Envelope::default();
    match answer {
        Answer::Nothing | Answer::Raw(_) => envelope.schema(),
        Answer::Data(fields) | Answer::OrGone(fields) | Answer::OrPartly(fields) => {
            Envelope { data: Some(data(fields)), ..envelope }.schema()
        }
        Answer::Maybe(fields) | Answer::Begun(fields) => {
            let data = if fields.is_empty() { None } else { Some(data(fields)) };
            Envelope { data, sure: false, ..envelope }.schema()
        }
        Answer::Top(fields) => {
            Envelope { data: Some(data(fields)), top: fields, ..envelope }.schema()
        }
        Answer::Keys(fields) => {
            let keys = field("keys", FieldKind::List, "The names.");
            let all: Vec<FieldSpec> = [keys].into_iter().chain(fields.iter().copied()).collect();
            let data = schema::object(&all, Side::Answered);
            Envelope { data: Some(data), ..envelope }.schema()
        }
        Answer::Lease(fields) => {
            Envelope { data: Some(data(fields)), lease: true, ..envelope }.schema()
        }
        Answer::Renewed => Envelope { lease: true, ..envelope }.schema(),
        Answer::Token => Envelope { auth: true, ..envelope }.schema(),
        Answer::Wrapped => Envelope { wrapped: true, ..envelope }.schema(),
        Answer::Unwrapped => {
            let anything = json!({ "type": "object" });
            let any =
                Envelope { data: Some(anything), auth: true, lease: true, sure: false, ..envelope };
            // What was laid out at the top level as well comes out so.
            with(any.schema(), "additionalProperties", json!(true))
        }
        Answer::Bare(fields) if place.judged => {
            let wrapped = Envelope { wrapped: true, ..envelope }.schema();
            json!({ "anyOf": [data(fields), wrapped] })
        }
        Answer::Bare(fields) | Answer::Health(fields) => data(fields),
    }
}

/// The envelope: every key, always.
struct Envelope {
    /// What is below `data`, if anything can be.
    data: Option<Value>,
    /// Fields that are beside `data` as well.
    top: &'static [FieldSpec],
    /// Whether there is a token below `auth`.
    auth: bool,
    /// Whether there is a lease.
    lease: bool,
    /// Whether it is wrapped, whatever the request said.
    wrapped: bool,
    /// Whether what can be there is there, unless it is wrapped.
    sure: bool,
}

impl Default for Envelope {
    fn default() -> Self {
        Self { data: None, top: &[], auth: false, lease: false, wrapped: false, sure: true }
    }
}

const KEYS: [&str; 9] = [
    "auth",
    "data",
    "lease_duration",
    "lease_id",
    "mount_type",
    "renewable",
    "request_id",
    "warnings",
    "wrap_info",
];

impl Envelope {
    fn schema(&self) -> Value {
        let null = json!({ "type": "null" });
        let wrap_info = schema_ref("WrapInfo");
        let auth = if self.auth { or_null(&schema_ref("Auth")) } else { null.clone() };
        let lease_id =
            if self.lease { json!({ "type": "string" }) } else { json!({ "const": "" }) };
        let renewable =
            if self.lease { json!({ "type": "boolean" }) } else { json!({ "const": false }) };
        let mut whole = json!({
            "type": "object",
            "properties": {
                "auth": auth,
                "data": self.data.as_ref().map_or(null, or_null),
                "lease_duration": {
                    "type": "integer",
                    "minimum": 0,
                    "description": "Seconds that the lease lives, or that the data holds.",
                },
                "lease_id": lease_id,
                "mount_type": { "type": "string", "description": "The kind of the mount." },
                "renewable": renewable,
                "request_id": { "type": "string" },
                "warnings": {
                    "type": ["array", "null"],
                    "items": { "type": "string" },
                    "description": "What the caller should know although it worked.",
                },
                "wrap_info": if self.wrapped { wrap_info } else { or_null(&wrap_info) },
            },
            "required": KEYS,
            "additionalProperties": false,
        });
        let top = schema::object(self.top, Side::Answered);
        if !self.top.is_empty() {
            if let (Some(Value::Object(own)), Some(Value::Object(further))) =
                (whole.get_mut("properties"), top.get("properties"))
            {
                own.extend(further.clone());
            }
            if let Some(further) = top.get("additionalProperties") {
                whole = with(whole, "additionalProperties", further.clone());
            }
        }
        if self.sure && !self.wrapped { self.with_certainty(whole) } else { whole }
    }

    /// What has to be there when the answer is not wrapped.
    fn with_certainty(&self, whole: Value) -> Value {
        let mut certain = Map::new();
        if self.data.is_some() {
            certain.insert("data".into(), json!({ "type": "object" }));
        }
        if self.auth {
            certain.insert("auth".into(), json!({ "type": "object" }));
        }
        if self.lease {
            certain.insert("lease_id".into(), json!({ "minLength": 1 }));
        }
        if certain.is_empty() {
            return whole;
        }
        let mut then = json!({ "properties": certain });
        let of_top = schema::object(self.top, Side::Answered);
        if let Some(required) = of_top.get("required") {
            then = with(then, "required", required.clone());
        }
        let unwrapped = json!({ "properties": { "wrap_info": { "type": "null" } } });
        with(with(whole, "if", unwrapped), "then", then)
    }
}
