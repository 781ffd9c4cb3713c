//! One request and one reply, between JSON and HTTP.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::connection::Answer;
use super::error::{ClientError, Refusal};
use crate::types::secret::SecretString;

/// What RFC 3986 §2.3 leaves alone, and of what §3.3 allows in a segment all that is common.
const KEPT: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'@')
    .remove(b':')
    .remove(b'=')
    .remove(b',');
const QUERY_KEPT: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What to do with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// GET.
    Read,
    /// GET with `list=true`.
    List,
    /// POST.
    Write,
    /// PATCH with a JSON merge patch (RFC 7396).
    Patch,
    /// DELETE.
    Delete,
}

impl Verb {
    /// Whether sending it twice is as good as once.
    pub const fn is_read(self) -> bool {
        match self {
            Self::Read | Self::List => true,
            Self::Write | Self::Patch | Self::Delete => false,
        }
    }

    const fn method(self) -> hyper::Method {
        match self {
            Self::Read | Self::List => hyper::Method::GET,
            Self::Write => hyper::Method::POST,
            Self::Patch => hyper::Method::PATCH,
            Self::Delete => hyper::Method::DELETE,
        }
    }
}

/// A request to a path below `/v1/`.
pub struct Request {
    pub(super) verb: Verb,
    path: String,
    query: Vec<(String, String)>,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Option<Value>,
    pub(super) retry: bool,
}

impl Request {
    /// A request without a body. `path` is not percent-encoded; one slash at its start is ignored.
    pub fn new(verb: Verb, path: &str) -> Self {
        Self {
            verb,
            path: path.strip_prefix('/').unwrap_or(path).to_owned(),
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            retry: false,
        }
    }

    /// With a JSON body.
    #[must_use]
    pub fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// With one more query parameter.
    #[must_use]
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With one more header; `name` is in lower case.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Tries again, with growing pauses, while the server refuses connections or answers 503 with
    /// `Retry-After`. Only reads are ever sent twice.
    #[must_use]
    pub fn retried(mut self) -> Self {
        self.retry = true;
        self
    }

    /// What it does.
    pub fn verb(&self) -> Verb {
        self.verb
    }

    /// Where, below `/v1/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn method(&self) -> hyper::Method {
        self.verb.method()
    }

    /// The media type of a body.
    pub(super) fn content_type(&self) -> &'static str {
        match self.verb {
            Verb::Patch => "application/merge-patch+json",
            Verb::Read | Verb::List | Verb::Write | Verb::Delete => "application/json",
        }
    }

    pub(super) fn target(&self) -> String {
        let mut out = String::from("/v1");
        for segment in self.path.split('/') {
            out.push('/');
            out.extend(utf8_percent_encode(segment, &KEPT));
        }
        let list = (self.verb == Verb::List).then_some(("list", "true"));
        let given = self.query.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (index, (name, value)) in list.into_iter().chain(given).enumerate() {
            out.push(if index == 0 { '?' } else { '&' });
            out.extend(utf8_percent_encode(name, &QUERY_KEPT));
            out.push('=');
            out.extend(utf8_percent_encode(value, &QUERY_KEPT));
        }
        out
    }

    pub(super) fn to_http(
        &self,
        authority: &str,
        token: Option<&SecretString>,
        namespace: Option<&str>,
    ) -> Result<hyper::Request<Full<Bytes>>, ClientError> {
        let body = match &self.body {
            // Serialising a `Value` with string keys cannot fail; an empty body would be refused.
            Some(value) => Bytes::from(value.to_string().into_bytes()),
            None => Bytes::new(),
        };
        let mut request = hyper::Request::new(Full::new(body));
        *request.method_mut() = self.verb.method();
        *request.uri_mut() =
            self.target().parse().map_err(|_| ClientError::Path(self.path.clone()))?;
        let headers = request.headers_mut();
        headers.insert(HOST, value_of("address", authority)?);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        // Proves to the server that no browser or forged link made this request.
        headers.insert("x-vault-request", HeaderValue::from_static("true"));
        if self.body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type()));
        }
        if let Some(token) = token {
            let mut value = value_of("token", token.expose())?;
            value.set_sensitive(true);
            headers.insert("x-vault-token", value);
        }
        if let Some(namespace) = namespace {
            headers.insert("x-vault-namespace", value_of("namespace", namespace)?);
        }
        for (name, value) in &self.headers {
            headers.insert(HeaderName::from_static(name), value_of(name, value)?);
        }
        Ok(request)
    }
}

fn value_of(what: &'static str, text: &str) -> Result<HeaderValue, ClientError> {
    HeaderValue::from_str(text).map_err(|_| ClientError::HeaderValue(what))
}

/// An answer with a status of 200-299. Not `Debug`: it may hold secrets.
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The whole JSON body; `Null` when there was none.
    pub body: Value,
}

impl Reply {
    /// The `data` member, or the whole body where the answer has no envelope.
    pub fn data(&self) -> &Value {
        match self.body.get("data") {
            Some(data) if !data.is_null() => data,
            Some(_) | None => &self.body,
        }
    }

    /// A member of [`Reply::data`] as text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.data().get(name).and_then(Value::as_str)
    }

    /// Sentences that the server wants a person to read.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        sentences(self.body.get("warnings"))
    }

    pub(super) fn from_answer(answer: Answer) -> Result<Self, ClientError> {
        let status = answer.status.as_u16();
        let body = if answer.body.is_empty() {
            Value::Null
        } else {
            match serde_json::from_slice(&answer.body) {
                Ok(body) => body,
                Err(_) => {
                    return Err(ClientError::NotJson {
                        status,
                        content_type: header(&answer.headers, CONTENT_TYPE).unwrap_or_default(),
                    });
                }
            }
        };
        if answer.status.is_success() {
            return Ok(Self { status, body });
        }
        let retry_after = header(&answer.headers, RETRY_AFTER)
            .and_then(|secs| secs.parse().ok())
            .map(Duration::from_secs);
        let request_id = body
            .get("request_id")
            .and_then(Value::as_str)
            .map(str::to_owned)
            .or_else(|| header(&answer.headers, HeaderName::from_static("x-request-id")));
        let errors = sentences(body.get("errors")).map(str::to_owned).collect();
        Err(ClientError::Refused(Box::new(Refusal {
            status,
            errors,
            request_id: request_id.filter(|id| !id.is_empty()),
            retry_after,
            body,
        })))
    }
}

fn sentences(list: Option<&Value>) -> impl Iterator<Item = &str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn header(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;
    use serde_json::json;

    use super::*;

    fn http(request: &Request) -> hyper::Request<Full<Bytes>> {
        request.to_http("h:1", Some(&SecretString::new("tok".into())), Some("ns")).unwrap()
    }

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_static(value));
        }
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: map,
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    #[test]
    fn segments_are_encoded_one_by_one_so_that_no_name_can_add_a_query_or_a_segment() {
        for (path, target) in [
            ("secret/data/a b", "/v1/secret/data/a%20b"),
            ("/secret/x?list=true", "/v1/secret/x%3Flist=true"),
            ("a/100%/é#", "/v1/a/100%25/%C3%A9%23"),
            ("dir/", "/v1/dir/"),
        ] {
            assert_eq!(Request::new(Verb::Read, path).target(), target);
        }
        let listed = Request::new(Verb::List, "secret/").query("after", "a&b").target();
        assert_eq!(listed, "/v1/secret/?list=true&after=a%26b");
    }

    #[test]
    fn headers_say_who_asks_and_that_no_browser_does() {
        let request = http(&Request::new(Verb::Patch, "p").body(json!({"a": 1})));
        assert_eq!(request.method(), "PATCH");
        assert_eq!(request.headers()["x-vault-request"], "true");
        assert_eq!(request.headers()["x-vault-namespace"], "ns");
        assert_eq!(request.headers()["content-type"], "application/merge-patch+json");
        assert!(request.headers()["x-vault-token"].is_sensitive());
    }

    #[test]
    fn a_token_with_a_line_break_is_refused_before_it_can_forge_a_header() {
        let token = SecretString::new("a\r\nx: y".into());
        let error = Request::new(Verb::Read, "p").to_http("h:1", Some(&token), None);
        assert!(matches!(error, Err(ClientError::HeaderValue("token"))));
    }

    #[test]
    fn a_refusal_keeps_the_servers_sentences_the_request_id_and_the_pause() {
        let body = r#"{"errors":["permission denied"],"data":{"data":null}}"#;
        let headers = [("x-request-id", "r-1"), ("retry-after", "7")];
        let Err(ClientError::Refused(refusal)) = Reply::from_answer(answer(403, &headers, body))
        else {
            panic!("not refused");
        };
        assert_eq!(refusal.to_string(), "permission denied (status 403)");
        assert_eq!(refusal.request_id.as_deref(), Some("r-1"));
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(7)));
        assert!(!format!("{refusal:?}").contains("data"), "{refusal:?}");
    }

    #[test]
    fn what_is_not_json_is_told_apart_and_an_empty_body_is_fine() {
        let page = answer(502, &[("content-type", "text/html")], "<html>");
        let error = Reply::from_answer(page).map(|_| ()).unwrap_err();
        assert!(matches!(error, ClientError::NotJson { status: 502, .. }), "{error}");
        assert!(Reply::from_answer(answer(204, &[], "")).unwrap().body.is_null());
    }
}
