//! A panic while a request is served says nothing of what is in the request or in its answer, wherever
//! the process writes to.

use std::collections::BTreeSet;
use std::io;

use super::*;
use crate::support::broker::{Broker, Setup};
use crate::support::needles::Needles;
use crate::support::wire::Answer;

const VALUE: &str = "CANARY-value-4f7e1b60ad";

/// Where it panics, over which of the secrets, and the request that leads there.
struct Panic {
    point: &'static str,
    over: String,
    method: &'static str,
    body: String,
}

/// With the messages of each panic in full, down to the functions that led there.
fn environment(panic: &Panic) -> Vec<(String, String)> {
    let over = panic.over.as_str();
    [
        ("LEASEHOLD_PANIC_POINT", panic.point),
        ("LEASEHOLD_PANIC_ON", over),
        ("RUST_BACKTRACE", "full"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

async fn ask(broker: &Broker, panic: &Panic) -> io::Result<Answer> {
    let root = broker.root();
    root.try_request(panic.method, "kept/data/canary", &[], panic.body.as_bytes()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_tells_nothing_of_what_it_was_about() {
    let broker = Broker::ready(Setup::default()).await;
    let root = broker.root();
    root.write("sys/mounts/kept", json!({"type": "kv", "options": {"version": "2"}})).await.ok();
    let body = json!({ "data": { "k": VALUE } }).to_string();
    root.request("POST", "kept/data/canary", &[], body.as_bytes()).await.ok();
    let mut secrets = Needles::new();
    secrets.add("value", VALUE.as_bytes());
    secrets.add("token", broker.root_token().as_bytes());

    let panic = |point, over: &str, method, body: &str| Panic {
        point,
        over: over.to_owned(),
        method,
        body: body.to_owned(),
    };
    let panics = [
        // It only panics where the text is in what it panics over.
        panic("request.read", &broker.root_token(), "GET", ""),
        panic("request.read", VALUE, "POST", &body),
        panic("request.serve", VALUE, "POST", &body),
        panic("request.answer", VALUE, "GET", ""),
    ];
    for panic in &panics {
        broker.set_environment(environment(panic));
        broker.start_again();
        broker.unseal().await;
        let known = broker.log().len();
        let outcome = ask(&broker, panic).await;
        assert!(outcome.is_err(), "{} was answered with {}", panic.point, outcome.unwrap().status);

        let log = &broker.log()[known..];
        let said = log.lines().find(|line| line.contains(" panicked at ")).expect("it is said");
        assert!(said.starts_with("leasehold: thread ") && said.contains("src/core/"), "{said}");
        assert!(said.ends_with(": a message with values, not shown"), "{said}");
        assert!(log.contains("panic_point"), "what led there is told:\n{log}");
        // It goes on.
        assert_eq!(broker.nobody().read("sys/health").await.status, 200);
        let audit = std::fs::read(broker.audit_path()).unwrap();
        for (place, written) in [("log", broker.log().as_bytes()), ("audit", &audit)] {
            assert_eq!(secrets.found_in(written), BTreeSet::new(), "in the {place}");
        }
    }
    // What was begun and not answered is in the audit all the same.
    let broken =
        broker.audit().into_iter().filter(|entry| entry["outcome"]["aborted"] == json!(true));
    assert_eq!(broken.count(), 2, "two panicked behind the door");
}
