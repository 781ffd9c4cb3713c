//! What every request passes before the router sees it: bounds on its head, body and time, and the
//! refusal of identities in headers.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Limited;
use hyper::body::Incoming;
use tower::ServiceExt;

use crate::core::peer::ConnectionInfo;

/// Bounds on one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestLimits {
    pub(super) body_bytes: usize,
    pub(super) headers: usize,
    pub(super) time: Duration,
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
    pub(super) async fn answer(
        self,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let _in_progress = self.activity.begin();
        if let Err(refusal) = self.admit(request.headers()) {
            return Ok(refusal.into_response());
        }
        request.extensions_mut().insert(self.connection);
        let request = request.map(|body| Body::new(Limited::new(body, self.limits.body_bytes)));
        match tokio::time::timeout(self.limits.time, self.app.oneshot(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(never)) => match never {},
            Err(_) => Ok(Refusal::TookTooLong.into_response()),
        }
    }

    fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if headers.len() > self.limits.headers {
            return Err(Refusal::TooManyHeaders);
        }
        if let Some(name) = headers.keys().find(|name| is_client_certificate(name)) {
            return Err(Refusal::ForwardedCertificate(name.clone()));
        }
        let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let declared = declared.and_then(|text| text.parse::<u64>().ok());
        if declared.is_some_and(|bytes| bytes > self.limits.body_bytes as u64) {
            return Err(Refusal::BodyTooLarge(self.limits.body_bytes));
        }
        Ok(())
    }
}

/// Whether proxies use this header to say which certificate their client presented. No listener
/// takes an identity from a header; a request that carries one passed something that thinks so.
fn is_client_certificate(name: &HeaderName) -> bool {
    const MARKS: [&str; 5] = ["client-cert", "clientcert", "ssl-client", "ssl-cert", "mtls-client"];
    // Some servers and CGI-like gateways write underscores for dashes.
    let name = name.as_str().replace('_', "-");
    MARKS.iter().any(|mark| name.contains(mark))
}

/// A request that is answered before it reaches the router.
#[derive(Debug)]
enum Refusal {
    BodyTooLarge(usize),
    ForwardedCertificate(HeaderName),
    TookTooLong,
    TooManyHeaders,
}

impl Refusal {
    fn into_response(self) -> Response<Body> {
        let (status, reason, text) = match self {
            Self::BodyTooLarge(most) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                format!("the request body is larger than {most} bytes"),
            ),
            Self::ForwardedCertificate(name) => (
                StatusCode::BAD_REQUEST,
                "forwarded_certificate",
                format!(
                    "the header {name} is refused: a client certificate is taken from the TLS \
                     handshake alone"
                ),
            ),
            Self::TookTooLong => {
                (StatusCode::SERVICE_UNAVAILABLE, "timeout", "the request took too long".to_owned())
            }
            Self::TooManyHeaders => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "too_many_headers",
                "the request has too many headers".to_owned(),
            ),
        };
        metrics::counter!("leasehold_requests_refused_total", "reason" => reason).increment(1);
        let body = serde_json::json!({ "errors": [text] }).to_string();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_claim_a_certificate_are_known_in_every_spelling() {
        for name in [
            "X-Forwarded-Client-Cert",
            "x-ssl-client-cert",
            "SSL_CLIENT_CERT",
            "X-SSL-Client-S-DN",
            "X-Client-Cert",
            "Client-Cert",
            "client-cert-chain",
            "X-Forwarded-Tls-Client-Cert-Info",
            "X-ARR-ClientCert",
            "X-Amzn-Mtls-Clientcert-Leaf",
            "x_forwarded_client_cert",
            "X-SSL-Cert",
        ] {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            assert!(is_client_certificate(&name), "{name}");
        }
        for name in ["x-vault-token", "x-vault-namespace", "authorization", "x-forwarded-for"] {
            assert!(!is_client_certificate(&HeaderName::from_static(name)), "{name}");
        }
    }

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
