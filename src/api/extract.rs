//! From HTTP to a core request: method, path, headers, query and body, each checked once.

use std::error::Error;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, Method, Request as HttpRequest, header};
use http_body_util::{BodyExt, LengthLimitError};
use serde_json::{Map, Value};

use crate::core::error::CoreError;
use crate::core::failpoint::panic_point;
use crate::core::mfa::Shown;
use crate::core::request::Verb;
use crate::types::path::ApiPath;
use crate::types::secret::SecretString;
use crate::types::time::Ttl;

use super::{json, sys};

/// Longest query string.
const QUERY_BYTES_MAX: usize = 8192;
/// Longest token accepted before it is looked at.
const TOKEN_BYTES_MAX: usize = 8192;

/// Most codes of second factors that come with one request.
const CODES_MAX: usize = 16;

/// What a request says, once every part of it was found well-formed.
pub(super) struct Parsed {
    pub verb: Verb,
    pub path: ApiPath,
    pub fields: Map<String, Value>,
    pub token: Option<SecretString>,
    pub wrap_ttl: Option<Ttl>,
    pub codes: Vec<Shown>,
    pub idempotency_key: Option<String>,
}

/// The verb, from the method and the query's `list`.
pub(super) fn verb(method: &Method, query: &Map<String, Value>) -> Result<Verb, CoreError> {
    let lists = match query.get("list") {
        Some(Value::String(text)) => flag("list", text)?,
        _ => false,
    };
    match *method {
        Method::GET if lists => Ok(Verb::List),
        Method::GET | Method::HEAD => Ok(Verb::Read),
        Method::POST | Method::PUT => Ok(Verb::Write),
        Method::PATCH => Ok(Verb::Patch),
        Method::DELETE => Ok(Verb::Delete),
        _ if method.as_str() == "LIST" => Ok(Verb::List),
        _ => Err(CoreError::Unsupported),
    }
}

/// A flag of the query, in all the spellings that stock clients use.
fn flag(name: &str, text: &str) -> Result<bool, CoreError> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" | "" => Ok(false),
        _ => Err(CoreError::field(name, "must be true or false")),
    }
}

/// Reads the whole request.
pub(super) async fn parse(
    request: HttpRequest<Body>,
    body_bytes_max: usize,
) -> Result<Parsed, CoreError> {
    let (head, body) = request.into_parts();
    refuse_namespace(&head.headers)?;
    refuse_certificate(&head.headers)?;
    let mut query = parse_query(head.uri.query().unwrap_or_default())?;
    let verb = verb(&head.method, &query)?;
    query.remove("list");
    let raw = head.uri.path().strip_prefix("/v1/").unwrap_or_default();
    let mut path = ApiPath::from_encoded(raw).map_err(CoreError::from)?;
    // Help is about a path, so it is a path of its own that says who may have it.
    if head.method == Method::GET && verb == Verb::Read && query.contains_key("help") {
        path = ApiPath::parse(&format!("{}{path}", sys::specs::HELP_OF))?;
        query.clear();
    }
    if verb == Verb::Write && path.is_dir() {
        return Err(CoreError::invalid("cannot write to a path ending in '/'"));
    }
    let token = token(&head.headers)?;
    let wrap_ttl = wrap_ttl(&head.headers)?;
    let codes = codes(&head.headers)?;
    let idempotency_key = text_header(&head.headers, "idempotency-key")?.map(str::to_owned);
    let body = read_body(&head.headers, body, body_bytes_max).await?;
    let shown = || format!("{:?} {}", head.headers, String::from_utf8_lossy(&body));
    panic_point("request.read", shown);
    let mut fields = parse_body(verb, &head.headers, &body)?;
    // A write's parameters are its body alone: what stands in a query must not end up in a secret.
    if !matches!(verb, Verb::Write | Verb::Patch) {
        for (name, value) in query {
            fields.entry(name).or_insert(value);
        }
    } else if let Some(name) = query.keys().next() {
        let problem = "belongs into the body of a write, not into its query";
        return Err(CoreError::field(name.clone(), problem));
    }
    Ok(Parsed { verb, path, fields, token, wrap_ttl, codes, idempotency_key })
}

fn refuse_namespace(headers: &HeaderMap) -> Result<(), CoreError> {
    match text_header(headers, "x-vault-namespace")? {
        None | Some("" | "/" | "root" | "root/") => Ok(()),
        Some(_) => Err(CoreError::invalid("this server has no namespace but the root one")),
    }
}

/// Nobody's identity is taken from a header, and whoever sends one is told so instead of being served
/// as somebody else than they think.
fn refuse_certificate(headers: &HeaderMap) -> Result<(), CoreError> {
    match headers.keys().find(|name| is_client_certificate(name)) {
        None => Ok(()),
        Some(name) => Err(CoreError::invalid(format!(
            "the header {name} is refused: a client certificate is taken from the TLS handshake alone"
        ))),
    }
}

/// Whether proxies use this header to say which certificate their client presented. A request
/// that carries one passed something that thinks it is believed.
fn is_client_certificate(name: &HeaderName) -> bool {
    const MARKS: [&str; 5] = ["client-cert", "clientcert", "ssl-client", "ssl-cert", "mtls-client"];
    // Some servers and CGI-like gateways write underscores for dashes.
    let name = name.as_str().replace('_', "-");
    MARKS.iter().any(|mark| name.contains(mark))
}

fn text_header<'h>(
    headers: &'h HeaderMap,
    name: &'static str,
) -> Result<Option<&'h str>, CoreError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(CoreError::invalid(format!("the header {name} is there more than once")));
    }
    let text = value
        .to_str()
        .map_err(|_| CoreError::invalid(format!("the header {name} is not ASCII text")))?;
    Ok(Some(text))
}

fn token(headers: &HeaderMap) -> Result<Option<SecretString>, CoreError> {
    let own = text_header(headers, "x-vault-token")?.filter(|text| !text.is_empty());
    let bearer = text_header(headers, header::AUTHORIZATION.as_str())?
        .and_then(|text| text.strip_prefix("Bearer "))
        .map(str::trim)
        .filter(|text| !text.is_empty());
    match (own, bearer) {
        (Some(own), Some(bearer)) if own != bearer => {
            Err(CoreError::invalid("two different tokens were presented"))
        }
        (Some(text), _) | (None, Some(text)) => {
            if text.len() > TOKEN_BYTES_MAX {
                return Err(CoreError::denied("the token is too long"));
            }
            Ok(Some(SecretString::new(text.to_owned())))
        }
        (None, None) => Ok(None),
    }
}

fn wrap_ttl(headers: &HeaderMap) -> Result<Option<Ttl>, CoreError> {
    let Some(text) = text_header(headers, "x-vault-wrap-ttl")?.filter(|t| !t.is_empty()) else {
        return Ok(None);
    };
    let ttl = Ttl::parse(text)
        .map_err(|error| CoreError::field("X-Vault-Wrap-TTL", error.to_string()))?;
    Ok((!ttl.is_zero()).then_some(ttl))
}

/// The codes of a second factor: one header for each method, `method:code`.
fn codes(headers: &HeaderMap) -> Result<Vec<Shown>, CoreError> {
    let mut codes: Vec<Shown> = Vec::new();
    for value in headers.get_all("x-vault-mfa") {
        let bad = || CoreError::invalid("the header X-Vault-MFA is not of the form method:code");
        let text = value.to_str().ok().filter(|text| !text.is_empty()).ok_or_else(bad)?;
        let (method, code) = text.split_once(':').unwrap_or((text, ""));
        if codes.len() >= CODES_MAX || codes.iter().any(|known| known.method == method) {
            return Err(CoreError::invalid("the header X-Vault-MFA is there too often"));
        }
        let code = code.strip_prefix("passcode=").unwrap_or(code);
        let code = SecretString::new(code.to_owned());
        codes.push(Shown { method: method.to_owned(), code });
    }
    Ok(codes)
}

/// Pairs of a query or form; a name that comes twice is refused.
fn parse_query(text: &str) -> Result<Map<String, Value>, CoreError> {
    if text.len() > QUERY_BYTES_MAX {
        return Err(CoreError::invalid("the query is longer than 8192 bytes"));
    }
    parse_pairs(text)
}

fn parse_pairs(text: &str) -> Result<Map<String, Value>, CoreError> {
    let mut map = Map::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode_form(name)?, decode_form(value)?);
        if map.contains_key(&name) {
            return Err(CoreError::field(name, "is there more than once"));
        }
        map.insert(name, Value::String(value));
    }
    Ok(map)
}

fn decode_form(text: &str) -> Result<String, CoreError> {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced)
        .decode_utf8()
        .map(|text| text.into_owned())
        .map_err(|_| CoreError::invalid("the query or form is not UTF-8"))
}

async fn read_body(headers: &HeaderMap, mut body: Body, max: usize) -> Result<Vec<u8>, CoreError> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<usize>().ok());
    let mut whole = Vec::with_capacity(announced.unwrap_or_default().min(max));
    let mut too_large = announced.is_some_and(|length| length > max);
    while let Some(frame) = body.frame().await {
        let data = match frame {
            Ok(frame) => frame.into_data().unwrap_or_default(),
            Err(error) if too_large || is_limit(&error) => {
                return Err(CoreError::TooLarge(max));
            }
            Err(_) => return Err(CoreError::invalid("the request body could not be read")),
        };
        // The rest is read as far as the connection lets it, so that the client gets to see why.
        too_large |= whole.len() + data.len() > max;
        if !too_large {
            whole.extend_from_slice(&data);
        }
    }
    if too_large { Err(CoreError::TooLarge(max)) } else { Ok(whole) }
}

/// Whether the connection's limit ended the body.
fn is_limit(error: &(dyn Error + 'static)) -> bool {
    error.is::<LengthLimitError>() || error.source().is_some_and(is_limit)
}

fn parse_body(
    verb: Verb,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Map<String, Value>, CoreError> {
    let media_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.split(';').next())
        .map(|text| text.trim().to_ascii_lowercase())
        .unwrap_or_default();
    if verb == Verb::Patch && media_type != "application/merge-patch+json" {
        return Err(CoreError::MediaType);
    }
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    // curl announces a form when it is given JSON with -d, so the first byte decides.
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if media_type == "application/x-www-form-urlencoded" && first != Some(&b'{') {
        let text = std::str::from_utf8(body)
            .map_err(|_| CoreError::invalid("the request body is not UTF-8"))?;
        return parse_pairs(text);
    }
    // `null` is what some clients send for nothing.
    if body.trim_ascii() == b"null" {
        return Ok(Map::new());
    }
    json::parse_object(body).map_err(|error| CoreError::invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, uri: &str) -> axum::http::request::Builder {
        HttpRequest::builder().method(method).uri(uri)
    }

    async fn refusal(request: HttpRequest<Body>) -> CoreError {
        match parse(request, 1024).await {
            Ok(_) => panic!("accepted"),
            Err(refusal) => refusal,
        }
    }

    #[tokio::test]
    async fn bodies_over_the_limit_are_refused_announced_or_not() {
        let announced = request("POST", "/v1/a").header("content-length", "2000");
        assert!(matches!(
            refusal(announced.body(Body::empty()).unwrap()).await,
            CoreError::TooLarge(1024)
        ));
        let sent = request("POST", "/v1/a").body(Body::from(vec![b' '; 2000])).unwrap();
        assert!(matches!(refusal(sent).await, CoreError::TooLarge(1024)));
    }

    #[tokio::test]
    async fn ambiguous_requests_are_refused() {
        for request in [
            request("GET", "/v1/a?x=1&x=2"),
            request("GET", "/v1/a").header("x-vault-token", "a").header("x-vault-token", "b"),
            request("GET", "/v1/a")
                .header("x-vault-token", "a")
                .header("authorization", "Bearer b"),
            request("GET", "/v1/a/../b"),
            request("GET", "/v1/a%2fb"),
            request("GET", "/v1//a"),
            request("GET", "/v1/a").header("x-vault-namespace", "team"),
            request("GET", "/v1/a").header("x-vault-wrap-ttl", "-5"),
            request("POST", "/v1/a/"),
            request("POST", "/v1/a?x=1"),
        ] {
            let request = request.body(Body::empty()).unwrap();
            assert!(matches!(
                refusal(request).await,
                CoreError::Invalid(_) | CoreError::Field(_) | CoreError::Path(_)
            ));
        }
    }

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
    async fn the_forms_of_stock_clients_are_understood() {
        let listed = request("GET", "/v1/a?list=true").body(Body::empty()).unwrap();
        assert_eq!(parse(listed, 10).await.unwrap().verb, Verb::List);
        let own = request("LIST", "/v1/a").body(Body::empty()).unwrap();
        assert_eq!(parse(own, 10).await.unwrap().verb, Verb::List);
        let form = request("POST", "/v1/a")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from("a=1+2&b=%26"))
            .unwrap();
        let fields = parse(form, 100).await.unwrap().fields;
        assert_eq!((fields["a"].as_str(), fields["b"].as_str()), (Some("1 2"), Some("&")));
        let curl = request("PUT", "/v1/a")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(r#"{"a":2}"#))
            .unwrap();
        assert_eq!(parse(curl, 100).await.unwrap().fields["a"].as_u64(), Some(2));
        let queried = request("DELETE", "/v1/a?versions=1").body(Body::empty()).unwrap();
        assert_eq!(parse(queried, 10).await.unwrap().fields["versions"].as_str(), Some("1"));
        let patch = request("PATCH", "/v1/a").body(Body::from("{}")).unwrap();
        assert!(matches!(refusal(patch).await, CoreError::MediaType));
    }
}
