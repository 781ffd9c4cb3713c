//! The refusals that every route has: no identity, sealed, a method it does not serve, a body that is
//! none. Answers that are the same are recorded once, with all requests that get them.

use std::collections::{BTreeMap, BTreeSet};

use leasehold::core::route::RouteSpec;
use leasehold::core::seal::endpoints;
use serde_json::{Value, json};

use super::stage::Stage;
use crate::access::method;
use crate::access::routes::{EXPECTED, Expected};
use crate::support::broker::Caller;
use crate::support::wire::{Answer, soon};

const METHODS: &[&str] = &["DELETE", "GET", "LIST", "PATCH", "POST"];
/// What is sent when it should be refused: not an object, broken off, twice the same key.
const BAD_BODIES: &[&str] = &["[1]", "{\"a\":", "{\"a\":1,\"a\":2}"];

/// Answers of one kind, and the requests that got them.
struct Refusals<'s> {
    stage: &'s mut Stage,
    when: &'static str,
    found: BTreeMap<String, (Value, BTreeSet<String>)>,
}

impl<'s> Refusals<'s> {
    fn new(stage: &'s mut Stage, when: &'static str) -> Self {
        Self { stage, when, found: BTreeMap::new() }
    }

    fn add(&mut self, request: String, answer: &Answer) {
        let shown = Value::Object(self.stage.shown(answer));
        let (_, requests) =
            self.found.entry(shown.to_string()).or_insert_with(|| (shown, BTreeSet::new()));
        requests.insert(request);
    }

    fn finish(self) {
        for (_, (mut shown, requests)) in self.found {
            shown["when"] = json!(self.when);
            shown["requests"] = json!(requests);
            self.stage.add(shown);
        }
    }
}

fn methods(one: &Expected) -> BTreeSet<&'static str> {
    one.operations.split(' ').map(method).collect()
}

fn operations(spec: &RouteSpec) -> BTreeSet<&'static str> {
    spec.operations.iter().map(|operation| method(operation.as_str())).collect()
}

async fn send(by: &Caller, method: &str, path: &str, body: &str) -> Answer {
    let media_type = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    by.request(method, path, &[("content-type", media_type)], body.as_bytes()).await
}

#[tokio::test]
async fn refusals_answer_as_recorded() {
    let mut stage = Stage::open("refusals").await;
    let (root, nobody) = (stage.root.clone(), stage.broker.nobody());

    let mut refusals = Refusals::new(&mut stage, "nobody asks");
    for one in EXPECTED.iter().filter(|one| !["anybody", "public"].contains(&one.access)) {
        for method in methods(one) {
            let answer = send(&nobody, method, one.path, "").await;
            assert_eq!(answer.status, 403, "{method} {}", one.pattern);
            refusals.add(format!("{method} {}", one.pattern), &answer);
        }
    }
    refusals.finish();

    let mut refusals = Refusals::new(&mut stage, "the method is not served");
    for one in EXPECTED {
        for method in METHODS.iter().filter(|method| !methods(one).contains(**method)) {
            // Where another route has the same path, it is that one's answer.
            if super::stage::route_of(method, one.path) != Some(one.pattern) {
                continue;
            }
            let answer = send(&root, method, one.path, "").await;
            assert_eq!(answer.status, 405, "{method} {}", one.pattern);
            refusals.add(format!("{method} {}", one.pattern), &answer);
        }
    }
    for spec in endpoints::specs() {
        let served = operations(spec);
        for method in METHODS.iter().filter(|method| !served.contains(**method)) {
            let answer = send(&root, method, spec.pattern, "").await;
            assert_eq!(answer.status, 405, "{method} {}", spec.pattern);
            refusals.add(format!("{method} {}", spec.pattern), &answer);
        }
    }
    refusals.finish();

    for bad in BAD_BODIES {
        let mut refusals = Refusals::new(&mut stage, bad);
        for spec in endpoints::specs().filter(|spec| operations(spec).contains("POST")) {
            let answer = send(&root, "POST", spec.pattern, bad).await;
            assert_eq!(answer.status, 400, "{}", spec.pattern);
            refusals.add(format!("POST {}", spec.pattern), &answer);
        }
        for one in EXPECTED {
            for method in methods(one).intersection(&BTreeSet::from(["PATCH", "POST"])) {
                let answer = send(&root, method, one.path, bad).await;
                assert_eq!(answer.status, 400, "{method} {}", one.pattern);
                refusals.add(format!("{method} {}", one.pattern), &answer);
            }
        }
        refusals.finish();
    }

    root.write("sys/seal", json!({})).await.ok();
    soon(async {
        while stage.broker.admin().read("sys/seal-status").await.ok()["sealed"] != json!(true) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    let root = stage.broker.root();
    let mut refusals = Refusals::new(&mut stage, "the server is sealed");
    for one in EXPECTED {
        for method in methods(one) {
            let answer = send(&root, method, one.path, "").await;
            assert_eq!(answer.status, 503, "{method} {}", one.pattern);
            refusals.add(format!("{method} {}", one.pattern), &answer);
        }
    }
    refusals.finish();
    stage.finish();
}
