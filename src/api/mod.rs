//! The HTTP edge: from a request on a connection to a core request, and from the core's answer to the
//! envelope that clients expect. Decides nothing.

mod envelope;
mod extract;
mod json;
mod meters;
pub mod openapi;
mod origin;
pub mod sys;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, Request as HttpRequest, Response, StatusCode};
use axum::{Extension, Router};
use tracing::Instrument;

use crate::core::context::Core;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::peer::ConnectionInfo;
use crate::core::request::{Request, Verb};
use crate::core::seal::endpoints;
use crate::types::id::RequestId;

use extract::Parsed;
use meters::Meters;
use origin::Sender;

/// What the edge works with.
#[derive(Clone)]
struct Edge {
    core: Arc<Core>,
    limits: EdgeLimits,
    meters: Arc<Meters>,
}

/// Limits of the edge, from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct EdgeLimits {
    /// Largest request body, in bytes.
    pub body_bytes_max: usize,
    /// Longest time one request may take.
    pub request_timeout: Duration,
}

/// The service that answers requests. Each request carries its [`ConnectionInfo`] as an extension.
pub fn router(core: Arc<Core>, limits: EdgeLimits) -> Router {
    Router::new().fallback(answer).with_state(Edge { core, limits, meters: Arc::default() })
}

async fn answer(
    State(edge): State<Edge>,
    Extension(connection): Extension<ConnectionInfo>,
    request: HttpRequest<Body>,
) -> Response<Body> {
    let Ok(id) = RequestId::random() else {
        return envelope::render_error(&CoreError::internal("no randomness"), None);
    };
    let core = edge.core.clone();
    let _passing = core.in_flight.pass();
    let started = core.clock.monotonic();
    let span = tracing::info_span!("request", request_id = %id, connection = connection.id);
    let head = request.method() == Method::HEAD;
    let timeout = edge.limits.request_timeout;
    let meters = edge.meters.clone();
    let serve = serve(edge, connection, request, id.clone()).instrument(span);
    let (mut response, route) = match tokio::time::timeout(timeout, serve).await {
        Ok(done) => done,
        Err(_) => {
            (envelope::render_error(&CoreError::TookTooLong, Some(&id)), "timeout".to_owned())
        }
    };
    if head {
        *response.body_mut() = Body::empty();
    }
    let seconds = core.clock.monotonic().saturating_sub(started).as_secs_f64();
    meters.count(&route, response.status().as_u16(), seconds);
    response
}

/// Serves one request; the second part is the route's name for the metrics.
async fn serve(
    edge: Edge,
    connection: ConnectionInfo,
    request: HttpRequest<Body>,
    id: RequestId,
) -> (Response<Body>, String) {
    let browser = origin::is_browser(request.headers()).then(|| edge.core.clone());
    let (mut response, route) = serve_sender(edge, connection, request, id).await;
    if let Some(Ok(unsealed)) = browser.map(|core| core.unsealed()) {
        origin::add_ui_headers(&unsealed.ui_headers.current(), &mut response);
    }
    (response, route)
}

async fn serve_sender(
    edge: Edge,
    connection: ConnectionInfo,
    request: HttpRequest<Body>,
    id: RequestId,
) -> (Response<Body>, String) {
    match origin::judge(&edge.core, &request) {
        Sender::Direct => serve_sent(edge, connection, request, id).await,
        Sender::Preflight(page) => (page.preflight(), "preflight".to_owned()),
        Sender::Page(page) => {
            let (mut response, route) = serve_sent(edge, connection, request, id).await;
            page.add_to(&mut response);
            (response, route)
        }
        Sender::Refused(refusal) => {
            let received_at = edge.core.clock.now();
            let path = request.uri().path();
            let path = path.strip_prefix("/v1/").unwrap_or(path);
            let verb = verb_of(request.method());
            let response = refuse(&edge, connection, refusal, id, received_at, verb, path).await;
            (response, "refused".to_owned())
        }
    }
}

/// Serves a request whose sender may ask.
async fn serve_sent(
    edge: Edge,
    connection: ConnectionInfo,
    request: HttpRequest<Body>,
    id: RequestId,
) -> (Response<Body>, String) {
    let received_at = edge.core.clock.now();
    let head_only = request.method() == Method::HEAD;
    let verb = verb_of(request.method());
    let whole_path = request.uri().path();
    let Some(raw_path) = whole_path.strip_prefix("/v1/").map(str::to_owned) else {
        let nowhere = CoreError::NotFound;
        let path = whole_path.to_owned();
        let response = refuse(&edge, connection, nowhere, id, received_at, verb, &path).await;
        return (response, "none".to_owned());
    };
    match extract::parse(request, edge.limits.body_bytes_max).await {
        Ok(parsed) => dispatch(&edge, connection, parsed, id, received_at, head_only).await,
        Err(refusal) => {
            let response =
                refuse(&edge, connection, refusal, id, received_at, verb, &raw_path).await;
            (response, "refused".to_owned())
        }
    }
}

async fn dispatch(
    edge: &Edge,
    connection: ConnectionInfo,
    parsed: Parsed,
    id: RequestId,
    received_at: crate::types::time::Timestamp,
    head_only: bool,
) -> (Response<Body>, String) {
    let core = &edge.core;
    let Parsed { verb, path, fields, token, wrap_ttl, codes, idempotency_key } = parsed;
    if let Some(endpoint) = endpoints::find(verb, &path) {
        let fields = Fields::new(fields);
        let (serving, request_id) = (core.clone(), id.clone());
        let work = async move {
            endpoints::serve(&serving, endpoint, fields, &connection, &request_id, token).await
        };
        let outcome = core.outliving.see_through(work).await;
        let response = match outcome {
            Ok((status, body)) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
                envelope::json_response(status, &body, &id)
            }
            Err(error) => envelope::render_error(&error, Some(&id)),
        };
        return (response, endpoint.name().to_owned());
    }
    if head_only {
        let (refusal, path) = (CoreError::Unsupported, path.as_str());
        let response = refuse(edge, connection, refusal, id, received_at, verb, path).await;
        return (response, "refused".to_owned());
    }
    let request = Request {
        id: id.clone(),
        received_at,
        verb,
        path,
        fields,
        token,
        connection,
        wrap_ttl,
        codes,
        idempotency_key,
    };
    match core.handle(request).await {
        Ok(answered) => {
            let route = answered.route().to_owned();
            (envelope::render(answered), route)
        }
        Err(error) => (envelope::render_error(&error, Some(&id)), "unaudited".to_owned()),
    }
}

/// Refused requests are audited too, as far as they were understood.
async fn refuse(
    edge: &Edge,
    connection: ConnectionInfo,
    refusal: CoreError,
    id: RequestId,
    received_at: crate::types::time::Timestamp,
    verb: Verb,
    raw_path: &str,
) -> Response<Body> {
    match edge.core.refuse(id.clone(), received_at, verb, raw_path, &connection, refusal).await {
        Ok(answered) => envelope::render(answered),
        Err(error) => envelope::render_error(&error, Some(&id)),
    }
}

/// The verb for the audit of a request that was not understood.
fn verb_of(method: &Method) -> Verb {
    extract::verb(method, &serde_json::Map::new()).unwrap_or(Verb::Read)
}
