//! One operation on one path: what it takes, and who may ask.

use serde_json::{Map, Value, json};

use super::schema::{self, Side};
use super::{Place, answers, schema_name};
use crate::core::operation::Operation;
use crate::core::route::{Access, Answer, FieldKind, FieldSpec, RouteSpec};

/// The method of an operation, as OpenAPI has it.
pub(super) fn method(operation: Operation) -> &'static str {
    match operation {
        Operation::Create | Operation::Update => "post",
        Operation::Delete => "delete",
        Operation::List | Operation::Read => "get",
        Operation::Patch => "patch",
    }
}

/// The operation, but for its id.
pub(super) fn operation(
    place: &Place,
    route: &RouteSpec,
    operation: Operation,
    schemas: &mut Map<String, Value>,
) -> Map<String, Value> {
    let mut made = Map::new();
    made.insert("summary".into(), json!(route.summary));
    made.insert("tags".into(), json!([place.tag]));
    made.insert("security".into(), security(route.access));
    let parameters = parameters(place, route, operation);
    if !parameters.is_empty() {
        made.insert("parameters".into(), json!(parameters));
    }
    if let Some(body) = body(place, route, operation, schemas) {
        made.insert("requestBody".into(), body);
    }
    let responses = answers::responses(place, route, operation, schemas);
    made.insert("responses".into(), Value::Object(responses));
    if operation == Operation::List {
        made.insert("x-leasehold-list".into(), json!(true));
    }
    made
}

fn security(access: Access) -> Value {
    match access {
        Access::Public => json!([{}, { "certificate": [] }]),
        Access::Anybody => json!([{}, { "certificate": [] }, { "token": [] }]),
        Access::Caller | Access::Identified | Access::Sudo => {
            json!([{ "token": [], "certificate": [] }, { "certificate": [] }])
        }
    }
}

/// The parameters of a path; `without` is one of the pattern that it does not have.
pub(super) fn path_parameters(
    place: &Place,
    route: &RouteSpec,
    without: Option<&str>,
) -> Vec<Value> {
    let mut parameters = Vec::new();
    if place.generic {
        parameters.push(json!({
            "name": place.mount_parameter(),
            "in": "path",
            "required": true,
            "description": "Where it is mounted.",
            "schema": { "type": "string", "default": place.kind },
        }));
    }
    for part in route.pattern.split('/') {
        let Some(name) = part.strip_prefix([':', '*']).filter(|name| Some(*name) != without) else {
            continue;
        };
        let about = route.fields.iter().find(|field| field.name == name).map(|field| field.about);
        let mut parameter = json!({
            "name": name,
            "in": "path",
            "required": true,
            "schema": { "type": "string", "minLength": 1 },
        });
        if let Some(about) = about {
            parameter = schema::with(parameter, "description", json!(about));
        }
        if part.starts_with('*') {
            parameter = schema::with(parameter, "x-leasehold-slashes", json!(true));
        }
        parameters.push(parameter);
    }
    parameters
}

/// What else an operation takes outside of its body.
fn parameters(place: &Place, route: &RouteSpec, operation: Operation) -> Vec<Value> {
    let mut parameters = Vec::new();
    if operation == Operation::List {
        parameters.push(json!({
            "name": "list",
            "in": "query",
            "required": true,
            "description": "Makes it a list.",
            "schema": { "type": "string", "enum": ["true"] },
        }));
    }
    if !operation.is_write() || operation == Operation::Delete {
        for spec in route.fields.iter().filter(|spec| belongs_in_query(route, spec)) {
            let mut parameter = json!({
                "name": spec.name,
                "in": "query",
                "description": spec.about,
                "schema": schema::field(spec, Side::Asked),
            });
            if spec.kind == FieldKind::List {
                // One value with commas.
                parameter = schema::with(parameter, "explode", json!(false));
            }
            parameters.push(parameter);
        }
    }
    if place.judged {
        if matches!(route.answers.to(operation), Answer::Lease(_)) {
            parameters.push(json!({ "$ref": "#/components/parameters/IdempotencyKey" }));
        }
        parameters.push(json!({ "$ref": "#/components/parameters/WrapTtl" }));
    }
    parameters
}

fn is_written(route: &RouteSpec) -> bool {
    route.serves(Operation::Update) || route.serves(Operation::Patch)
}

fn is_in_path(route: &RouteSpec, spec: &FieldSpec) -> bool {
    route.pattern.split('/').any(|part| part.strip_prefix([':', '*']) == Some(spec.name))
}

fn belongs_in_query(route: &RouteSpec, spec: &FieldSpec) -> bool {
    let fits = match spec.kind {
        // Not where logs and histories are.
        FieldKind::Secret => false,
        FieldKind::Any | FieldKind::Map | FieldKind::Object(_) | FieldKind::Objects(_) => false,
        FieldKind::Boolean
        | FieldKind::Duration
        | FieldKind::Integer
        | FieldKind::Integers
        | FieldKind::List
        | FieldKind::Number
        | FieldKind::Text
        | FieldKind::Time => true,
    };
    fits && !is_in_path(route, spec) && (spec.in_query || !is_written(route))
}

fn body(
    place: &Place,
    route: &RouteSpec,
    operation: Operation,
    schemas: &mut Map<String, Value>,
) -> Option<Value> {
    let media_type = match operation {
        Operation::Create | Operation::Update => "application/json",
        Operation::Patch => "application/merge-patch+json",
        Operation::Delete | Operation::List | Operation::Read => return None,
    };
    let fields: Vec<FieldSpec> = route
        .fields
        .iter()
        .filter(|spec| !spec.in_query && !is_in_path(route, spec))
        .copied()
        .collect();
    if fields.is_empty() {
        return None;
    }
    let name = schema_name(place, route, "Request");
    let schema =
        schemas.entry(name.clone()).or_insert_with(|| schema::object(&fields, Side::Asked));
    if let Value::Object(schema) = schema {
        schema.insert("title".into(), json!(route.summary));
    }
    let content = json!({ media_type: { "schema": schema::schema_ref(&name) } });
    Some(json!({ "content": content }))
}
