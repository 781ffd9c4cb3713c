//! Fields as JSON Schema, and what all answers share.

use serde_json::{Map, Value, json};

use crate::core::route::{FieldKind, FieldSpec};

/// Whose fields they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// A request's: any of them may be left out, and durations can be text.
    Asked,
    /// An answer's: exactly those.
    Answered,
}

/// An object with these fields.
pub(super) fn object(fields: &[FieldSpec], side: Side) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    let mut further = (side == Side::Answered).then_some(Value::Bool(false));
    for spec in fields {
        let schema = field(spec, side);
        if spec.name == "*" {
            further = Some(schema);
            continue;
        }
        if side == Side::Answered && !spec.optional {
            required.push(spec.name);
        }
        properties.insert(spec.name.to_owned(), schema);
    }
    let mut whole = Map::new();
    whole.insert("type".into(), json!("object"));
    if !properties.is_empty() {
        whole.insert("properties".into(), Value::Object(properties));
    }
    if !required.is_empty() {
        whole.insert("required".into(), json!(required));
    }
    if let Some(further) = further {
        whole.insert("additionalProperties".into(), further);
    }
    Value::Object(whole)
}

/// One field.
pub(super) fn field(spec: &FieldSpec, side: Side) -> Value {
    let mut schema = kind(spec.kind, side);
    if let Value::Object(schema) = &mut schema {
        if spec.nullable
            && let Some(of) = schema.remove("type")
        {
            schema.insert("type".into(), json!([of, "null"]));
        }
        schema.insert("description".into(), json!(spec.about));
        if spec.about.starts_with("Older name of") {
            schema.insert("deprecated".into(), json!(true));
        }
    }
    schema
}

fn kind(kind: FieldKind, side: Side) -> Value {
    match (kind, side) {
        (FieldKind::Any, _) => json!({}),
        (FieldKind::Boolean, _) => json!({ "type": "boolean" }),
        (FieldKind::Duration, Side::Asked) => json!({ "type": ["integer", "string"] }),
        (FieldKind::Duration, Side::Answered) => json!({ "type": "integer", "minimum": 0 }),
        (FieldKind::Integer, _) => json!({ "type": "integer" }),
        (FieldKind::Integers, _) => json!({ "type": "array", "items": { "type": "integer" } }),
        (FieldKind::List, _) => json!({ "type": "array", "items": { "type": "string" } }),
        (FieldKind::Map, _) => json!({ "type": "object" }),
        (FieldKind::Number, _) => json!({ "type": "number" }),
        (FieldKind::Object(fields), _) => object(fields, side),
        (FieldKind::Objects(fields), _) => {
            json!({ "type": "array", "items": object(fields, side) })
        }
        (FieldKind::Secret, _) => json!({ "type": "string", "format": "password" }),
        (FieldKind::Text, _) => json!({ "type": "string" }),
        (FieldKind::Time, _) => json!({ "type": "string", "format": "date-time" }),
    }
}

/// `object` with a further member.
pub(super) fn with(mut object: Value, name: &str, member: Value) -> Value {
    if let Value::Object(object) = &mut object {
        object.insert(name.to_owned(), member);
    }
    object
}

/// A reference to a schema.
pub(super) fn schema_ref(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// `schema`, or null.
pub(super) fn or_null(schema: &Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

/// The statuses that say what went wrong, with their names among the components.
pub(super) const REFUSALS: &[(u16, &str, &str)] = &[
    (400, "BadRequest", "The request makes no sense, for the reason given."),
    (403, "Denied", "The caller may not, or nobody knows who it is."),
    (404, "NotFound", "There is nothing at that path."),
    (405, "Unsupported", "The path does not serve that operation."),
    (409, "Conflict", "Something changed meanwhile, or a hold is in force."),
    (413, "TooLarge", "The request body is over the limit."),
    (415, "MediaType", "PATCH takes a merge patch."),
    (429, "TooMany", "A quota or cap is reached; try again later."),
    (431, "HeadTooLarge", "The path or the headers are over the limit."),
    (502, "Upstream", "A system behind the server does not do its part."),
    (503, "Unavailable", "The server is sealed, not initialized, or overloaded."),
    (507, "Full", "The store has no space left."),
];

/// What all paths share.
pub(super) fn components() -> Value {
    let mut responses = Map::new();
    for (status, name, about) in REFUSALS {
        let mut response = json!({
            "description": about,
            "content": { "application/json": { "schema": schema_ref("Errors") } },
        });
        if matches!(status, 429 | 503) {
            let after = json!({
                "Retry-After": {
                    "description": "When to try again, in seconds.",
                    "schema": { "type": "integer" },
                },
            });
            response = with(response, "headers", after);
        }
        responses.insert((*name).to_owned(), response);
    }
    json!({
        "responses": responses,
        "schemas": { "Auth": auth(), "Errors": errors(), "WrapInfo": wrap_info() },
        "parameters": {
            "IdempotencyKey": {
                "name": "Idempotency-Key",
                "in": "header",
                "description": "Asked again with the same key, the first answer comes again.",
                "schema": { "type": "string" },
            },
            "WrapTtl": {
                "name": "X-Vault-Wrap-TTL",
                "in": "header",
                "description": "Answer with a single-use token for the answer, which lives so long.",
                "schema": { "type": "string" },
            },
        },
        "securitySchemes": {
            "certificate": {
                "type": "mutualTLS",
                "description": "A client certificate that a role knows.",
            },
            "token": {
                "type": "apiKey",
                "in": "header",
                "name": "X-Vault-Token",
                "description": "A token; `Authorization: Bearer` does as well.",
            },
        },
    })
}

fn errors() -> Value {
    json!({
        "type": "object",
        "description": "What went wrong; nothing when there is just nothing there.",
        "properties": { "errors": { "type": "array", "items": { "type": "string" } } },
        "required": ["errors"],
        "additionalProperties": false,
    })
}

const AUTH: &[FieldSpec] = &[
    of("accessor", FieldKind::Text, "Its handle."),
    of(
        "client_token",
        FieldKind::Secret,
        "The token; empty while something is to be shown for it.",
    ),
    of("entity_id", FieldKind::Text, "Its entity; empty for none."),
    of("identity_policies", FieldKind::List, "Policies by its entity.").if_any(),
    of("lease_duration", FieldKind::Duration, "Its lifetime from now; 0 for no end."),
    of("metadata", FieldKind::Object(&[of("*", FieldKind::Text, "A note.")]), "Notes.").or_null(),
    of("mfa_requirement", FieldKind::Object(DEMAND), "What is to be shown for the token.")
        .or_null(),
    of("num_uses", FieldKind::Integer, "How often it can be used; 0 for no limit."),
    of("orphan", FieldKind::Boolean, "Whether it has no parent."),
    of("policies", FieldKind::List, "All its policies.").or_null(),
    of("renewable", FieldKind::Boolean, "Whether it can be renewed."),
    of("token_policies", FieldKind::List, "Its own policies.").or_null(),
    of("token_type", FieldKind::Text, "service or batch; empty for none."),
];

const DEMAND: &[FieldSpec] = &[
    of(
        "mfa_constraints",
        FieldKind::Object(&[of(
            "*",
            FieldKind::Object(&[of("any", FieldKind::Objects(CHOICE), "One of these.")]),
            "What one enforcement demands.",
        )]),
        "By the name of the enforcement.",
    ),
    of("mfa_request_id", FieldKind::Text, "What to validate."),
];

const CHOICE: &[FieldSpec] = &[
    of("id", FieldKind::Text, "The id of a method."),
    of("name", FieldKind::Text, "Its name; empty for none."),
    of("type", FieldKind::Text, "Always totp."),
    of("uses_passcode", FieldKind::Boolean, "Always true."),
];

const WRAP_INFO: &[FieldSpec] = &[
    of("accessor", FieldKind::Text, "Its handle."),
    of("creation_path", FieldKind::Text, "The path of the request that it answers."),
    of("creation_time", FieldKind::Time, "When it was made."),
    of("token", FieldKind::Secret, "The wrapping token."),
    of("ttl", FieldKind::Duration, "How long it can be unwrapped."),
    of("wrapped_accessor", FieldKind::Text, "The handle of a token that is inside; or empty."),
];

const fn of(name: &'static str, kind: FieldKind, about: &'static str) -> FieldSpec {
    crate::core::route::field(name, kind, about)
}

fn auth() -> Value {
    let about = json!("A token that was issued or renewed.");
    with(object(AUTH, Side::Answered), "description", about)
}

fn wrap_info() -> Value {
    let about = json!("A token that stands for the answer.");
    with(object(WRAP_INFO, Side::Answered), "description", about)
}
