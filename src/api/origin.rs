//! Requests that a web page made a browser send (Fetch standard §3.2): told apart from those of
//! programs, refused unless the page's origin is allowed, and answered with the headers that let the
//! page see the answer.
//!
//! `Access-Control-Allow-Credentials` is never sent. A browser adds its user's certificate all the
//! same, so what matters is the refusal: it happens before anything is done.

use axum::body::Body;
use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header,
};

use crate::core::context::Core;
use crate::core::cors::{CorsSettings, OriginAccess};
use crate::core::error::CoreError;
use crate::core::ui_headers::HeaderTable;

/// What every client sends.
const HEADERS: &str = "authorization, content-type, idempotency-key, x-vault-mfa, \
                       x-vault-namespace, x-vault-request, x-vault-token, x-vault-wrap-ttl";
const METHODS: &str = "DELETE, GET, LIST, PATCH, POST, PUT";
/// What a page may read beside the body.
const EXPOSED: &str = "retry-after, x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset, \
                       x-request-id";
/// How long a browser may remember a preflight, in seconds.
const REMEMBERED: &str = "300";

/// Who sent a request.
#[derive(Debug)]
pub(super) enum Sender {
    /// A program, or a page of this server.
    Direct,
    /// A page of another origin that is allowed: what it is to be told.
    Page(PageHeaders),
    /// A browser that asks first whether a page may.
    Preflight(PageHeaders),
    /// A page that may not.
    Refused(CoreError),
}

/// The headers for a page that is allowed.
#[derive(Clone, Debug)]
pub(super) struct PageHeaders {
    origin: HeaderValue,
    headers: HeaderValue,
}

/// Tells who sent a request.
pub(super) fn judge(core: &Core, request: &Request<Body>) -> Sender {
    let settings = match core.unsealed() {
        Ok(unsealed) => unsealed.cors.current(),
        // Who may is in the store.
        Err(_) => std::sync::Arc::default(),
    };
    sender(&settings, request)
}

fn sender(settings: &CorsSettings, request: &Request<Body>) -> Sender {
    let headers = request.headers();
    let Some(origin) = headers.get(header::ORIGIN) else {
        return if is_from_elsewhere(headers) { refused() } else { Sender::Direct };
    };
    let Ok(text) = origin.to_str() else { return refused() };
    if is_own(text, request) {
        return Sender::Direct;
    }
    let access = settings.access(text);
    let asks_first = *request.method() == Method::OPTIONS
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let told = match access {
        OriginAccess::Named => origin.clone(),
        OriginAccess::Any => HeaderValue::from_static("*"),
        OriginAccess::None => return refused(),
    };
    let more = settings.allowed_headers.iter().map(|name| format!(", {name}"));
    let allowed = format!("{HEADERS}{}", more.collect::<String>());
    let Ok(headers_value) = HeaderValue::from_str(&allowed) else { return refused() };
    let page = PageHeaders { origin: told, headers: headers_value };
    match access {
        _ if asks_first => Sender::Preflight(page),
        // Nobody named this page, so its user's certificate does not speak for it.
        OriginAccess::Any if !has_token(headers) => refused(),
        OriginAccess::Any | OriginAccess::Named | OriginAccess::None => Sender::Page(page),
    }
}

fn refused() -> Sender {
    Sender::Refused(CoreError::denied(
        "a web page of another origin asked; sys/config/cors says which may",
    ))
}

/// Whether the origin is the one that the request went to.
fn is_own(origin: &str, request: &Request<Body>) -> bool {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = request.uri().authority().map(|authority| authority.as_str()).or(host);
    let without_port = |text: &str| text.strip_suffix(":443").unwrap_or(text).to_ascii_lowercase();
    match (origin.strip_prefix("https://"), host) {
        (Some(origin), Some(host)) => without_port(origin) == without_port(host),
        _ => false,
    }
}

/// Requests without an origin that browsers send for pages of others, such as images and links
/// (Fetch Metadata §2.3).
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let site = headers.get(HeaderName::from_static("sec-fetch-site"));
    site.is_some_and(|site| site == "cross-site" || site == "same-site")
}

/// Whether a browser sent it, for whichever page: programs send neither header.
pub(super) fn is_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN)
        || headers.contains_key(HeaderName::from_static("sec-fetch-site"))
}

/// Adds what administrators have set for browsers. What the server says itself stays as it is.
pub(super) fn add_ui_headers(table: &HeaderTable, response: &mut Response<Body>) {
    let headers = response.headers_mut();
    for (name, values) in table.iter() {
        let Ok(name) = HeaderName::try_from(name) else { continue };
        if headers.contains_key(&name) {
            continue;
        }
        for value in values.iter().filter_map(|value| HeaderValue::from_str(value).ok()) {
            headers.append(name.clone(), value);
        }
    }
}

fn has_token(headers: &HeaderMap) -> bool {
    headers.contains_key("x-vault-token") || headers.contains_key(header::AUTHORIZATION)
}

impl PageHeaders {
    /// Lets the page see an answer.
    pub(super) fn add_to(self, response: &mut Response<Body>) {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, self.origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }

    /// The answer to a browser that asks first.
    pub(super) fn preflight(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let allowed = self.headers.clone();
        self.add_to(&mut response);
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(REMEMBERED));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(origins: &[&str]) -> CorsSettings {
        let allowed_origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
        let allowed_headers = vec!["X-Custom".to_owned()];
        CorsSettings { enabled: true, allowed_origins, allowed_headers }.checked().unwrap()
    }

    fn ask(settings: &CorsSettings, method: &str, headers: &[(&str, &str)]) -> &'static str {
        let mut request = Request::builder().method(method).uri("/v1/kv/a");
        for (name, value) in [("host", "broker.example:8200")].iter().chain(headers) {
            request = request.header(*name, *value);
        }
        match sender(settings, &request.body(Body::empty()).unwrap()) {
            Sender::Direct => "direct",
            Sender::Page(_) => "page",
            Sender::Preflight(_) => "preflight",
            Sender::Refused(_) => "refused",
        }
    }

    #[test]
    fn a_page_of_another_origin_is_refused_unless_it_is_named() {
        let (off, named) = (CorsSettings::default(), settings(&["https://console.example"]));
        let open = settings(&["*"]);
        let page = ("origin", "https://console.example");
        let token = ("x-vault-token", "s.x");
        let first = ("access-control-request-method", "PUT");
        assert_eq!(ask(&off, "POST", &[]), "direct");
        assert_eq!(ask(&off, "POST", &[page]), "refused");
        assert_eq!(ask(&off, "POST", &[page, token]), "refused");
        assert_eq!(ask(&off, "OPTIONS", &[page, first]), "refused");
        assert_eq!(ask(&named, "POST", &[page]), "page");
        assert_eq!(ask(&named, "OPTIONS", &[page, first]), "preflight");
        assert_eq!(ask(&named, "GET", &[("origin", "https://evil.example"), token]), "refused");
        assert_eq!(ask(&named, "GET", &[("origin", "null"), token]), "refused");
        assert_eq!(ask(&open, "GET", &[page, token]), "page");
        assert_eq!(ask(&open, "GET", &[page, ("authorization", "Bearer x")]), "page");
        assert_eq!(ask(&open, "GET", &[page]), "refused");
        assert_eq!(ask(&open, "OPTIONS", &[page, first]), "preflight");
    }

    #[test]
    fn the_servers_own_pages_and_programs_are_not_pages_of_others() {
        let off = CorsSettings::default();
        assert_eq!(ask(&off, "POST", &[("origin", "https://broker.example:8200")]), "direct");
        assert_eq!(ask(&off, "POST", &[("origin", "https://broker.example")]), "refused");
        assert_eq!(ask(&off, "POST", &[("origin", "http://broker.example:8200")]), "refused");
        for (site, verdict) in [
            ("cross-site", "refused"),
            ("same-site", "refused"),
            ("same-origin", "direct"),
            ("none", "direct"),
        ] {
            assert_eq!(ask(&off, "GET", &[("sec-fetch-site", site)]), verdict, "{site}");
        }
    }

    #[test]
    fn a_preflight_names_what_may_be_sent_and_never_credentials() {
        let request = Request::builder()
            .method("OPTIONS")
            .uri("/v1/kv/a")
            .header("origin", "https://console.example")
            .header("access-control-request-method", "PUT")
            .body(Body::empty())
            .unwrap();
        let Sender::Preflight(page) = sender(&settings(&["https://console.example"]), &request)
        else {
            panic!("no preflight");
        };
        let answer = page.preflight();
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        assert_eq!(header("access-control-allow-origin"), Some("https://console.example"));
        assert_eq!(header("vary"), Some("Origin"));
        assert!(header("access-control-allow-headers").unwrap().ends_with(", x-custom"));
        assert!(header("access-control-allow-methods").unwrap().contains("LIST"));
        assert_eq!(header("access-control-allow-credentials"), None);
    }
}
