//! Answers that many requests get alike: recorded once, with all requests that get them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::stage::Stage;
use crate::support::broker::Caller;
use crate::support::wire::Answer;

/// Answers of one kind, and the requests that got them.
pub(super) struct Alike<'s> {
    stage: &'s mut Stage,
    when: &'s str,
    found: BTreeMap<String, BTreeSet<String>>,
}

impl<'s> Alike<'s> {
    pub(super) fn new(stage: &'s mut Stage, when: &'s str) -> Self {
        Self { stage, when, found: BTreeMap::new() }
    }

    /// One more; `request` begins with the method and the pattern of the route.
    pub(super) fn add(&mut self, request: String, answer: &Answer) {
        self.add_about(request, None, answer);
    }

    /// The same about a field, which the answer may name.
    pub(super) fn add_about(&mut self, request: String, field: Option<&str>, answer: &Answer) {
        let mut shown = Value::Object(self.stage.shown(answer)).to_string();
        if let Some(field) = field {
            // What is quoted inside a text is escaped; the keys of the answer are not.
            shown = shown.replace(&format!("\\\"{field}\\\""), "<field>");
        }
        let requests = self.found.entry(shown).or_default();
        requests.insert(request);
    }

    pub(super) fn finish(self) {
        for (shown, requests) in self.found {
            let mut shown: Value = serde_json::from_str(&shown).unwrap();
            shown["when"] = json!(self.when);
            shown["requests"] = json!(requests);
            self.stage.add(shown);
        }
    }
}

/// Sends that body to that path, as the type that the method needs.
pub(super) async fn send(by: &Caller, method: &str, path: &str, body: &str) -> Answer {
    let media_type = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    by.request(method, path, &[("content-type", media_type)], body.as_bytes()).await
}
