//! The answers as clients expect them: every key of the envelope, always.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::core::error::CoreError;
use crate::core::reply::{AuthReply, Reply, Shape, WrapReply};
use crate::core::request::Answered;
use crate::types::id::RequestId;

/// Renders an answer that the audit has accepted.
pub(super) fn render(answered: Answered) -> Response<Body> {
    let request_id = answered.request_id().clone();
    let mount_type = answered.mount_type().to_owned();
    let allowance = answered.allowance();
    let mut response = match answered.result {
        Ok(reply) => render_reply(reply, &request_id, &mount_type),
        Err(error) => render_error(&error, Some(&request_id)),
    };
    if let Some(left) = allowance {
        let headers = response.headers_mut();
        headers.insert("x-ratelimit-limit", HeaderValue::from(left.limit));
        headers.insert("x-ratelimit-remaining", HeaderValue::from(left.remaining));
        headers.insert("x-ratelimit-reset", HeaderValue::from(left.reset.as_secs()));
    }
    response
}

fn render_reply(reply: Reply, request_id: &RequestId, mount_type: &str) -> Response<Body> {
    let status = StatusCode::from_u16(reply.http_status()).unwrap_or(StatusCode::OK);
    if status == StatusCode::NO_CONTENT {
        return response(status, None, Body::empty(), Some(request_id));
    }
    match reply.shape {
        Shape::Raw { content_type, body } => {
            response(status, Some(content_type), Body::from(body), Some(request_id))
        }
        Shape::Bare => {
            json_response(status, &Value::Object(reply.data.unwrap_or_default()), request_id)
        }
        Shape::Envelope => {
            let body = json_body(&Envelope::of(&reply, request_id, mount_type));
            response(status, Some("application/json"), body, Some(request_id))
        }
        Shape::EnvelopeAndTop => {
            let whole = json!(Envelope::of(&reply, request_id, mount_type));
            let mut whole = into_map(whole);
            for (name, value) in reply.data.unwrap_or_default() {
                whole.entry(name).or_insert(value);
            }
            json_response(status, &Value::Object(whole), request_id)
        }
    }
}

/// The keys in the order of the alphabet, as in every other object of an answer.
#[derive(Serialize)]
struct Envelope<'a> {
    auth: Value,
    data: Option<&'a Map<String, Value>>,
    lease_duration: u64,
    lease_id: &'a str,
    mount_type: &'a str,
    renewable: bool,
    request_id: &'a RequestId,
    warnings: Option<&'a [String]>,
    wrap_info: Value,
}

impl<'a> Envelope<'a> {
    fn of(reply: &'a Reply, request_id: &'a RequestId, mount_type: &'a str) -> Self {
        let lease = reply.lease.as_ref();
        let demand = reply.mfa.as_ref().map_or(Value::Null, demand);
        Self {
            auth: reply.auth.as_ref().map_or(demand, auth),
            data: reply.data.as_ref(),
            lease_duration: lease.map_or(reply.refresh_after, |l| l.duration).as_secs(),
            lease_id: lease.map(|l| l.id.as_str()).unwrap_or_default(),
            mount_type,
            renewable: lease.is_some_and(|l| l.renewable),
            request_id,
            warnings: Some(reply.warnings.as_slice()).filter(|warnings| !warnings.is_empty()),
            wrap_info: reply.wrap.as_ref().map_or(Value::Null, wrap_info),
        }
    }
}

fn auth(auth: &AuthReply) -> Value {
    let mut map = into_map(json!({
        "client_token": auth.client_token.expose(),
        "accessor": auth.accessor,
        "policies": auth.policies,
        "token_policies": auth.token_policies,
        "metadata": auth.metadata,
        "lease_duration": auth.lease_duration.as_secs(),
        "renewable": auth.renewable,
        "entity_id": auth.entity_id.as_ref().map(|id| id.as_str()).unwrap_or_default(),
        "token_type": auth.token_type,
        "orphan": auth.orphan,
        "mfa_requirement": null,
        "num_uses": auth.num_uses,
    }));
    if !auth.identity_policies.is_empty() {
        map.insert("identity_policies".into(), json!(auth.identity_policies));
    }
    Value::Object(map)
}

/// What a log-in has to show for its token, in the place of the token.
fn demand(requirement: &Value) -> Value {
    json!({
        "client_token": "",
        "accessor": "",
        "policies": null,
        "token_policies": null,
        "metadata": null,
        "lease_duration": 0,
        "renewable": false,
        "entity_id": "",
        "token_type": "",
        "orphan": false,
        "mfa_requirement": requirement,
        "num_uses": 0,
    })
}

fn into_map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    }
}

fn wrap_info(wrap: &WrapReply) -> Value {
    json!({
        "token": wrap.token.expose(),
        "accessor": wrap.accessor,
        "ttl": wrap.ttl.as_secs(),
        "creation_time": wrap.created_at.to_rfc3339(),
        "creation_path": wrap.creation_path,
        "wrapped_accessor": wrap.wrapped_accessor.as_ref().map(|a| a.as_str()).unwrap_or_default(),
    })
}

/// Renders a failure; the text is the public one, whatever the cause.
pub(super) fn render_error(error: &CoreError, request_id: Option<&RequestId>) -> Response<Body> {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let errors = match status {
        // Stock clients take an empty list for a plain "nothing there".
        StatusCode::NOT_FOUND => Vec::new(),
        StatusCode::INTERNAL_SERVER_ERROR => vec![match request_id {
            Some(id) => format!("internal error, request id {id}"),
            None => "internal error".to_owned(),
        }],
        _ => vec![error.public_text()],
    };
    let mut answer = error_response(status, &errors, request_id);
    if let Some(after) = error.retry_after() {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
    answer
}

fn error_response(
    status: StatusCode,
    errors: &[String],
    request_id: Option<&RequestId>,
) -> Response<Body> {
    let body = Body::from(json!({ "errors": errors }).to_string());
    response(status, Some("application/json"), body, request_id)
}

/// A JSON answer outside the envelope: the seal's own paths. `null` is no body.
pub(super) fn json_response(
    status: StatusCode,
    value: &Value,
    request_id: &RequestId,
) -> Response<Body> {
    if value.is_null() {
        return response(status, None, Body::empty(), Some(request_id));
    }
    response(status, Some("application/json"), json_body(value), Some(request_id))
}

fn json_body(value: &impl Serialize) -> Body {
    let mut out = Vec::with_capacity(512);
    // JSON values, text and numbers always serialize.
    let _ = serde_json::to_writer(&mut out, value);
    Body::from(out)
}

fn response(
    status: StatusCode,
    content_type: Option<&'static str>,
    body: Body,
    request_id: Option<&RequestId>,
) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(content_type) = content_type {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    if let Some(id) = request_id.and_then(|id| HeaderValue::from_str(id.as_str()).ok()) {
        headers.insert("x-request-id", id);
    }
    response
}
