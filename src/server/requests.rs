//! What every request passes before the router sees it: bounds on its head and body. Whatever the
//! router itself can refuse is left to it, because it audits its refusals; so is the time it takes.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Limited;
use hyper::body::Incoming;
use tower::ServiceExt;

use crate::core::peer::ConnectionInfo;

/// Bounds on one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestLimits {
    pub(super) body_bytes: usize,
    pub(super) headers: usize,
}

/// How busy a connection is: told by its requests, asked by its idle timer.
#[derive(Debug, Default)]
pub(super) struct Activity {
    started: AtomicU64,
    in_progress: AtomicUsize,
}

impl Activity {
    /// Completes when no request came within `first`, or later none was in progress for `later`
    /// (at most twice that).
    pub(super) async fn idle(&self, first: Duration, later: Duration) {
        tokio::time::sleep(first).await;
        if self.started.load(Ordering::Relaxed) == 0 {
            return;
        }
        loop {
            let before = self.started.load(Ordering::Relaxed);
            tokio::time::sleep(later).await;
            let quiet = self.in_progress.load(Ordering::Relaxed) == 0;
            if quiet && self.started.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }

    /// Whether no request ever came.
    pub(super) fn is_unused(&self) -> bool {
        self.started.load(Ordering::Relaxed) == 0
    }

    fn begin(self: &Arc<Self>) -> InProgress {
        self.started.fetch_add(1, Ordering::Relaxed);
        self.in_progress.fetch_add(1, Ordering::Relaxed);
        InProgress(self.clone())
    }
}

struct InProgress(Arc<Activity>);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.in_progress.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers the requests of one connection.
#[derive(Clone)]
pub(super) struct Requests {
    pub(super) app: Router,
    pub(super) connection: ConnectionInfo,
    pub(super) limits: RequestLimits,
    pub(super) activity: Arc<Activity>,
}

impl Requests {
    /// Answers a request, which counts as begun at once.
    pub(super) fn begin(
        self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> {
        let in_progress = self.activity.begin();
        async move {
            let answered = self.answer(request).await;
            drop(in_progress);
            answered
        }
    }

    async fn answer(self, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        if let Err(refusal) = self.admit(request.headers()) {
            return Ok(refusal.into_response());
        }
        request.extensions_mut().insert(self.connection);
        let request = request.map(|body| Body::new(Limited::new(body, self.limits.body_bytes)));
        self.app.oneshot(request).await
    }

    fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if headers.len() > self.limits.headers {
            return Err(Refusal::TooManyHeaders);
        }
        Ok(())
    }
}

/// A request that is answered before it reaches the router.
#[derive(Debug)]
enum Refusal {
    TooManyHeaders,
}

impl Refusal {
    fn into_response(self) -> Response<Body> {
        let (status, reason, text) = match self {
            Self::TooManyHeaders => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "too_many_headers",
                "the request has too many headers",
            ),
        };
        metrics::counter!("leasehold_requests_refused_total", "reason" => reason).increment(1);
        let body = serde_json::json!({ "errors": [text] }).to_string();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_idle_only_without_requests() {
        let tick = Duration::from_millis(1);
        let later = Duration::from_secs(3600);
        // Without a first request, the second wait never begins.
        Activity::default().idle(tick, later).await;
        let activity = Arc::new(Activity::default());
        let request = activity.begin();
        let idle = activity.idle(tick, tick);
        tokio::pin!(idle);
        assert!(tokio::time::timeout(tick * 20, &mut idle).await.is_err());
        drop(request);
        idle.await;
    }
}
