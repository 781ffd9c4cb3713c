//! One broker, what it is asked, and what it answered, with all that varies taken out.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use leasehold::core::operation::Operation;
use leasehold::core::route;
use leasehold::core::seal::endpoints;
use serde_json::{Map, Value, json};

use crate::access::{self, MOUNTS};
use crate::support::broker::{Broker, Caller, Setup};
use crate::support::wire::Answer;

/// Set to `write`, it makes the tests write the files instead of comparing with them.
const SWITCH: &str = "LEASEHOLD_GOLDEN";
/// How much of a lifetime may be gone by the time it is told, in seconds.
const GONE_MAX: u64 = 30;
/// Numbers from this on are times.
const TIMES_FROM: u64 = 1_500_000_000;
/// Characters of an id.
const ID: usize = 24;

/// A broker and the answers of one file.
pub(super) struct Stage {
    pub(super) broker: Broker,
    pub(super) root: Arc<Caller>,
    area: &'static str,
    known: Vec<(String, String)>,
    answers: Vec<Value>,
}

impl Stage {
    /// On a broker that is unsealed and has everything mounted.
    pub(super) async fn open(area: &'static str) -> Self {
        Self::open_with(area, Setup::default()).await
    }

    /// The same on a broker that is set up so.
    pub(super) async fn open_with(area: &'static str, setup: Setup) -> Self {
        let mut stage = Self::started(area, setup);
        stage.broker.init().await;
        stage.broker.unseal().await;
        stage.root = Arc::new(stage.broker.root());
        for (path, kind, options) in MOUNTS.iter().filter(|(path, ..)| *path != "cubbyhole/") {
            let at =
                format!("sys/{}{path}", if path.starts_with("auth/") { "" } else { "mounts/" });
            let options: Map<String, Value> =
                options.iter().map(|(name, value)| ((*name).into(), json!(value))).collect();
            let mount = json!({ "type": kind, "options": options });
            stage.root.write(at.trim_end_matches('/'), mount).await.ok();
        }
        stage
    }

    /// On a broker that was never initialised.
    pub(super) fn fresh(area: &'static str, shares: u8, threshold: u8) -> Self {
        Self::started(area, Setup { shares: (shares, threshold), ..Setup::default() })
    }

    fn started(area: &'static str, setup: Setup) -> Self {
        let server = "log_level = \"info\"".into();
        let broker = Broker::start(Setup { server, ..setup });
        let root = Arc::new(broker.admin());
        Self { broker, root, area, known: Vec::new(), answers: Vec::new() }
    }

    /// From now on `text` is shown as `placeholder`.
    pub(super) fn know(&mut self, text: &str, placeholder: &str) {
        assert!(!text.is_empty(), "{placeholder} is empty");
        self.known.push((text.to_owned(), placeholder.to_owned()));
    }

    /// Root asks; the answer as it came.
    pub(super) async fn ask(&mut self, method: &str, path: &str, body: Value) -> Value {
        let root = self.root.clone();
        self.ask_as("", &root, method, path, body).await
    }

    pub(super) async fn get(&mut self, path: &str) -> Value {
        self.ask("GET", path, Value::Null).await
    }

    /// The same where every value is the machine's: only names and kinds of values are recorded, and
    /// of a list the first.
    pub(super) async fn get_shape(&mut self, path: &str) -> Value {
        self.ask_shape("GET", path).await
    }

    /// The same by another method.
    pub(super) async fn ask_shape(&mut self, method: &str, path: &str) -> Value {
        let answer = self.ask(method, path, Value::Null).await;
        if let Some(recorded) = self.answers.last_mut().and_then(|last| last.get_mut("answer")) {
            *recorded = shape("", recorded);
        }
        answer
    }

    pub(super) async fn list(&mut self, path: &str) -> Value {
        self.ask("LIST", path, Value::Null).await
    }

    pub(super) async fn post(&mut self, path: &str, body: Value) -> Value {
        self.ask("POST", path, body).await
    }

    pub(super) async fn delete(&mut self, path: &str) -> Value {
        self.ask("DELETE", path, Value::Null).await
    }

    /// Somebody asks; `who` is what the file calls them.
    pub(super) async fn ask_as(
        &mut self,
        who: &str,
        caller: &Caller,
        method: &str,
        path: &str,
        body: Value,
    ) -> Value {
        self.ask_with(who, caller, method, path, &[], body).await
    }

    /// The same with further headers.
    pub(super) async fn ask_with(
        &mut self,
        who: &str,
        caller: &Caller,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> Value {
        let media_type = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let all = [headers, &[("content-type", media_type)]].concat();
        let sent = if body.is_null() { String::new() } else { body.to_string() };
        let answer = caller.request(method, path, &all, sent.as_bytes()).await;
        let mut entry = self.shown(&answer);
        let request = format!("{method} {path}");
        entry.insert("request".into(), self.normal("", &json!(request)));
        let bare = path.split('?').next().unwrap();
        entry.insert("route".into(), json!(route_of(method, bare).unwrap_or("none")));
        if !body.is_null() {
            entry.insert("sent".into(), self.normal("", &body));
        }
        if !who.is_empty() {
            entry.insert("by".into(), json!(who));
        }
        if !headers.is_empty() {
            let headers: Map<String, Value> =
                headers.iter().map(|(name, value)| ((*name).into(), json!(value))).collect();
            entry.insert("headers".into(), Value::Object(headers));
        }
        self.answers.push(Value::Object(entry));
        serde_json::from_str(&answer.body).unwrap_or_default()
    }

    /// Status, media type and body of an answer, without what varies.
    pub(super) fn shown(&self, answer: &Answer) -> Map<String, Value> {
        assert_ne!(answer.status, 500, "{}", answer.body);
        let media_type = answer.header("content-type");
        let body = match media_type {
            None => {
                assert_eq!(answer.body, "", "a body has a type");
                Value::Null
            }
            Some("application/json") => self.normal("", &answer.json()),
            Some(_) => json!("<text>"),
        };
        let mut shown = Map::new();
        shown.insert("status".into(), json!(answer.status));
        shown.insert("type".into(), json!(media_type));
        shown.insert("answer".into(), body);
        shown
    }

    /// Adds an answer that is not that to one request.
    pub(super) fn add(&mut self, entry: Value) {
        self.answers.push(entry);
    }

    fn normal(&self, key: &str, value: &Value) -> Value {
        match value {
            // Thousands of lines that are held against the tables elsewhere.
            Value::Object(map) if map.contains_key("openapi") && map.contains_key("paths") => {
                json!({ "openapi": map["openapi"] })
            }
            Value::Object(map) => {
                let scheduled = map.contains_key("rotation_schedule");
                let field = |(name, value): (&String, &Value)| match name.as_str() {
                    // Depends on the day.
                    "ttl" if scheduled && value.is_u64() => (name.clone(), json!(1)),
                    _ => (self.text("", name), self.normal(name, value)),
                };
                Value::Object(map.iter().map(field).collect())
            }
            Value::Array(list) => list.iter().map(|one| self.normal(key, one)).collect(),
            Value::String(text) => json!(self.text(key, text)),
            Value::Number(number) => number.as_u64().map_or(value.clone(), |n| number_of(key, n)),
            Value::Bool(_) | Value::Null => value.clone(),
        }
    }

    fn text(&self, key: &str, text: &str) -> String {
        let mut text = text.to_owned();
        for (known, placeholder) in &self.known {
            text = text.replace(known, placeholder);
        }
        let by_name = match key {
            "public_key" if text.contains(' ') => "<public key>",
            "serial_number" if text.len() == 16 => "<serial number>",
            "signed_key" => "<certificate>",
            "barcode" => "<image>",
            "code" => "<code>",
            "url" if text.starts_with("otpauth://") => "<otpauth address>",
            "encoded_token" | "encoded_root_token" => "<encoded token>",
            "auth_url" => "<where to log in>",
            "otp" => "<one-time pad>",
            "password" => "<password>",
            "random_bytes" => "<random bytes>",
            "keys_base64" => "<share>",
            "next" => "<cursor>",
            "version" if text == env!("CARGO_PKG_VERSION") => "<version>",
            "backup" => "<backup>",
            "public_key" => "<public key>",
            // Of a key that is told by its versions.
            "1" | "2" => "<key>",
            "subject_key_id" | "authority_key_id" => "<key id>",
            "x5t#S256" => "<fingerprint>",
            _ => "",
        };
        if !by_name.is_empty() && !text.is_empty() && !text.starts_with('<') {
            return by_name.to_owned();
        }
        if is_time(&text) {
            return "<time>".into();
        }
        if text.starts_with("-----BEGIN ") {
            return "<PEM>".into();
        }
        if let Some((version, _)) =
            text.strip_prefix("vault:v").and_then(|rest| rest.split_once(':'))
        {
            return format!("vault:v{version}:<base64>");
        }
        if let Some(("hmac-sha256", _)) = text.split_once(':') {
            return "hmac-sha256:<hash>".into();
        }
        let part_of_word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let mut shown = String::new();
        let mut rest = text.as_str();
        while let Some(first) = rest.chars().next() {
            let inside = part_of_word(first);
            let end = rest.find(|c| part_of_word(c) != inside).unwrap_or(rest.len());
            let (run, further) = rest.split_at(end);
            shown += &if inside { word(run) } else { run.to_owned() };
            rest = further;
        }
        shown
    }

    /// Compares with the file, or writes it.
    pub(super) fn finish(self) {
        let path = directory().join(format!("{}.json", self.area));
        if std::env::var(SWITCH).is_ok_and(|word| word == "write") {
            let text = serde_json::to_string_pretty(&self.answers).unwrap();
            fs::write(path, text + "\n").unwrap();
            return;
        }
        let golden = answers_in(&path);
        for (number, (golden, answer)) in golden.iter().zip(&self.answers).enumerate() {
            assert!(
                golden == answer,
                "{}, answer {number}: expected {golden:#}\ngot {answer:#}\n\
                 When it is right as it is now: {SWITCH}=write, and read the difference",
                path.display()
            );
        }
        assert_eq!(golden.len(), self.answers.len(), "answers in {}", path.display());
    }
}

/// A value with names and kinds alone.
fn shape(key: &str, value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(map.iter().map(|(name, one)| (name.clone(), shape(name, one))).collect())
        }
        Value::Array(list) => list.iter().take(1).map(|one| shape(key, one)).collect(),
        Value::String(text) if text.is_empty() || text.starts_with('<') => value.clone(),
        Value::String(_) if key != "mount_type" => json!("<text>"),
        Value::Number(_) if key != "lease_duration" => json!(1),
        Value::Bool(_) | Value::Null | Value::String(_) | Value::Number(_) => value.clone(),
    }
}

/// Where the files are.
pub(super) fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden")
}

/// The answers in one file.
pub(super) fn answers_in(path: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("{}: {error}; {SWITCH}=write makes it", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// A word as it is shown: what is drawn at random is replaced.
fn word(word: &str) -> String {
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let random = |text: &str, length| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    let pieces: Vec<&str> = word.split('-').collect();
    let lengths: Vec<usize> = pieces.iter().map(|piece| piece.len()).collect();
    match pieces[..] {
        _ if lengths == [8, 4, 4, 4, 12] && pieces.iter().all(|piece| hex(piece)) => {
            return "<uuid>".into();
        }
        ["v", .., drawn, made_at] if random(drawn, 20) && number(made_at) => {
            return "<leased user>".into();
        }
        _ => {}
    }
    if ["lhs.", "lhb."].iter().any(|prefix| word.starts_with(prefix)) {
        return "<token>".into();
    }
    if random(word, ID) {
        return "<id>".into();
    }
    if word.len() >= 64 && hex(word) {
        return "<hex>".into();
    }
    match word.rsplit_once('_') {
        Some((kind, id)) if [8, 32].contains(&id.len()) && hex(id) => format!("{kind}_<id>"),
        _ => word.to_owned(),
    }
}

/// Whether it is a time of RFC 3339, in UTC.
fn is_time(text: &str) -> bool {
    let form = "2000-00-00T00:00:00";
    let digits = form.bytes().zip(text.bytes()).all(|(expected, found)| {
        if expected.is_ascii_digit() { found.is_ascii_digit() } else { found == expected }
    });
    digits && text.len() > form.len() && text.ends_with('Z')
}

/// A number as it is shown: times are all the same, and what is left of a lifetime is a whole number
/// of minutes again.
fn number_of(key: &str, number: u64) -> Value {
    if number >= TIMES_FROM {
        return json!(TIMES_FROM);
    }
    // How often something was done so far.
    if matches!(key, "attempts" | "encryptions" | "last_entry") && number > 0 {
        return json!(1);
    }
    let counts_down = key.ends_with("ttl") || key == "lease_duration";
    if counts_down && 60 - number % 60 <= GONE_MAX {
        return json!(number.next_multiple_of(60));
    }
    json!(number)
}

/// The pattern of the route that a request reaches.
pub(super) fn route_of(method: &str, path: &str) -> Option<&'static str> {
    if let Some(spec) = endpoints::specs().find(|spec| spec.pattern == path) {
        return Some(spec.pattern);
    }
    let operation = match method {
        "DELETE" => Operation::Delete,
        "LIST" => Operation::List,
        "PATCH" => Operation::Patch,
        "POST" => Operation::Update,
        _ => Operation::Read,
    };
    let found = access::tables().into_iter().find_map(|(prefix, table)| {
        let (route, _) = route::select(table, path.strip_prefix(prefix)?, operation)?;
        Some(format!("{prefix}{}", route.pattern))
    })?;
    let listed = access::routes::EXPECTED.iter().find(|one| one.pattern == found);
    Some(listed.unwrap_or_else(|| panic!("{found} is not in the list of routes")).pattern)
}
