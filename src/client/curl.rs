//! A request as a command line of curl, to be looked at and passed on. No token is in it.

use std::path::PathBuf;

use serde_json::Value;

use super::request::Request;
use crate::types::secret::SecretString;

/// What stands for a token wherever one would be.
const HIDDEN: &str = "<token>";

/// What curl has to know beside the request.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) ca_cert: Option<PathBuf>,
    pub(super) client_cert: Option<PathBuf>,
    pub(super) client_key: Option<PathBuf>,
}

/// `request`, as it would be sent to `address`.
pub(super) fn command(
    request: &Request,
    address: &str,
    files: &Files,
    token: Option<&SecretString>,
    namespace: Option<&str>,
) -> String {
    // Wherever it was typed: in a path, a query or a value.
    let hide = |text: String| match token.map(|token| token.expose()).filter(|t| !t.is_empty()) {
        Some(token) => text.replace(token, HIDDEN),
        None => text,
    };
    let mut words = vec!["curl".to_owned()];
    for (flag, file) in
        [("--cacert", &files.ca_cert), ("--cert", &files.client_cert), ("--key", &files.client_key)]
    {
        if let Some(file) = file {
            words.extend([flag.to_owned(), quoted(&file.display().to_string())]);
        }
    }
    if request.method() != hyper::Method::GET {
        words.extend(["-X".to_owned(), request.method().to_string()]);
    }
    let mut header = |text: String| words.extend(["-H".to_owned(), text]);
    header(quoted("X-Vault-Request: true"));
    if token.is_some() {
        header("\"X-Vault-Token: $(leasehold print token)\"".to_owned());
    }
    if let Some(namespace) = namespace {
        header(quoted(&format!("X-Vault-Namespace: {namespace}")));
    }
    for (name, value) in &request.headers {
        header(quoted(&hide(format!("{name}: {value}"))));
    }
    if let Some(body) = &request.body {
        header(quoted(&format!("Content-Type: {}", request.content_type())));
        words.extend(["-d".to_owned(), quoted(&hide(without_tokens(body).to_string()))]);
    }
    words.push(quoted(&hide(format!("{address}{}", request.target()))));
    words.join(" ")
}

/// The body, without what commands send a token in that is not the one they present.
fn without_tokens(body: &Value) -> Value {
    let mut body = body.clone();
    if let Some(Value::String(token)) = body.get_mut("token") {
        *token = HIDDEN.to_owned();
    }
    body
}

/// One word of a POSIX shell (IEEE 1003.1 §2.2.2): nothing in it means anything.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::request::Verb;
    use super::*;

    fn shown(request: &Request) -> String {
        let files = Files { ca_cert: Some("/tmp/c a.pem".into()), ..Files::default() };
        let token = SecretString::new("hvs.SECRET".to_owned());
        command(request, "https://h:1", &files, Some(&token), None)
    }

    #[test]
    fn a_read_is_one_line_that_a_shell_takes_as_it_is() {
        assert_eq!(
            shown(
                &Request::new(Verb::List, "secret/metadata/a b").header("x-vault-wrap-ttl", "5m")
            ),
            "curl --cacert '/tmp/c a.pem' -H 'X-Vault-Request: true' \
             -H \"X-Vault-Token: $(leasehold print token)\" -H 'x-vault-wrap-ttl: 5m' \
             'https://h:1/v1/secret/metadata/a%20b?list=true'"
        );
    }

    #[test]
    fn a_value_cannot_leave_its_quotes() {
        let body = json!({ "x": "it's $(id) `id` \\ \"" });
        let text = shown(&Request::new(Verb::Write, "kv/a").body(body));
        assert!(text.contains(r#"-d '{"x":"it'\''s $(id) `id` \\ \""}' 'https://"#), "{text}");
        assert!(text.contains("-X POST"), "{text}");
    }

    #[test]
    fn no_token_is_shown_wherever_it_stands() {
        for request in [
            Request::new(Verb::Read, "kv/hvs.SECRET").query("x", "hvs.SECRET"),
            Request::new(Verb::Write, "kv/a").body(json!({ "a": ["hvs.SECRET"] })),
            Request::new(Verb::Write, "kv/a").header("x-one", "hvs.SECRET"),
            Request::new(Verb::Write, "auth/token/lookup").body(json!({ "token": "hvs.OTHER" })),
        ] {
            let text = shown(&request);
            assert!(!text.contains("SECRET") && !text.contains("OTHER"), "{text}");
            assert!(text.contains("<token>"), "{text}");
        }
    }
}
