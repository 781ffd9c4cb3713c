//! Requests that are made to cost much, or to pass for others: refused early, cheaply, and by name.

use std::fs;
use std::time::Instant;

use serde_json::json;

use super::world::{shared, unique};
use crate::support::broker::{Broker, Caller, Setup};

/// Most memory that may come on top while one abusive request after the other is refused, in KiB.
const GROWTH_KIB_MAX: u64 = 48 << 10;
/// Most processor time for one of them, in milliseconds.
const MILLIS_MAX: u64 = if cfg!(debug_assertions) { 250 } else { 25 };
/// How often each is sent: the processor's time is counted in hundredths of a second.
const ROUNDS: u64 = if cfg!(debug_assertions) { 8 } else { 50 };

/// A field of `/proc/PID/status` in KiB.
fn memory(broker: &Broker, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", broker.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_matches([':', ' ', '\t']).split(' ').next().unwrap().parse().unwrap()
}

/// Processor time used so far, in hundredths of a second.
fn ticks(broker: &Broker) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", broker.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

async fn refused(caller: &Caller, path: &str, body: &str, status: u16, what: &str) {
    match caller.try_request("POST", path, &[], body.as_bytes()).await {
        Ok(answer) => {
            assert_eq!(answer.status, status, "{what}: {}", answer.body);
            assert!(answer.body.len() < 1000, "{what}: {}", answer.body);
        }
        // Of what is far too large the server stops reading, and hangs up on who goes on sending.
        Err(error) => assert_eq!(status, 413, "{what}: {error}"),
    }
    caller.hang_up().await;
}

#[tokio::test]
async fn what_is_made_to_cost_much_costs_little() {
    // Alone, so that its memory and time are those of the requests.
    let broker = Broker::ready(Setup { server: "log_level = \"info\"".into(), ..Setup::default() });
    let broker = broker.await;
    let root = broker.root();
    root.write("sys/mounts/kv", json!({ "type": "kv" })).await.ok();
    let keys: Vec<String> = (0..100_000).map(|n| format!("\"{n:x}\":0")).collect();
    let nested = |open: &str, close: &str| {
        format!("{{\"a\":{}0{}}}", open.repeat(100_000), close.repeat(100_000))
    };
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(10 << 20));
    let escaped = format!("{{\"a\":\"{}\"}}", "\\u0041".repeat(170_000));
    let keys_large: Vec<String> =
        (0..16).map(|n| format!("\"{}{n}\":0", "k".repeat(64_000))).collect();
    for (what, body, status) in [
        ("100,000 keys in one object", format!("{{{}}}", keys.join(",")), 400),
        ("lists 100,000 deep", nested("[", "]"), 400),
        ("objects 100,000 deep", nested("{\"a\":", "}"), 400),
        ("100,000 objects", format!("{{\"a\":[{}{{}}]}}", "{},".repeat(100_000)), 400),
        ("a string of 10 MiB", large, 413),
        ("a string in escapes", escaped + "x", 400),
        ("keys of 64 kB", format!("{{{}", keys_large.join(",")), 400),
    ] {
        let path = format!("kv/{}", unique("abuse"));
        // The first finds what is allocated once and kept.
        refused(&root, &path, &body, status, what).await;
        fs::write(format!("/proc/{}/clear_refs", broker.pid()), "5").unwrap();
        let (before, began) = (memory(&broker, "VmRSS"), ticks(&broker));
        let mut waits = Vec::new();
        for _ in 0..ROUNDS {
            let asked = Instant::now();
            refused(&root, &path, &body, status, what).await;
            waits.push(asked.elapsed());
        }
        waits.sort_unstable();
        let grown = memory(&broker, "VmHWM").saturating_sub(before);
        assert!(grown < GROWTH_KIB_MAX, "{what}: {grown} KiB more");
        let each = (ticks(&broker) - began) as f64 * 10.0 / ROUNDS as f64;
        let wait = waits[waits.len() / 2].as_secs_f64() * 1e3;
        println!(
            "| {what} | {} kB | {each:.1} ms | {wait:.1} ms | {grown} KiB |",
            body.len() / 1000
        );
        assert!(each < MILLIS_MAX as f64, "{what}: {each} ms each");
    }
    assert_eq!(root.read("sys/health").await.ok()["sealed"], json!(false));
}

/// Paths that a person, a proxy or a file system would take for another.
fn look_alikes(mount: &str) -> Vec<String> {
    let upper = mount.to_uppercase();
    vec![
        format!("{upper}/data/closed/x"),
        format!("{mount}/Data/closed/x"),
        format!("{mount}/data/Closed/x"),
        format!("{mount}/data/closed./x"),
        format!("{mount}/data/closed%20/x"),
        format!("{mount}/data/%20closed/x"),
        format!("{mount}/data/closed;/x"),
        format!("{mount}/data/closed%00/x"),
        format!("{mount}/data//closed/x"),
        format!("{mount}//data/closed/x"),
        format!("/{mount}/data/closed/x"),
        format!("{mount}/data/./closed/x"),
        format!("{mount}/data/open/../closed/x"),
        format!("{mount}/data/open/%2e%2e/closed/x"),
        format!("{mount}/data/open/..%2fclosed/x"),
        format!("{mount}/data/open%2f..%2fclosed/x"),
        format!("{mount}/data/closed%2fx"),
        format!("{mount}%2fdata%2fclosed%2fx"),
        format!("{mount}/data/closed%5cx"),
        format!("{mount}/data/open%5c..%5cclosed/x"),
        format!("{mount}/data/%63losed%2Fx"),
        format!("{mount}/data/closed%252fx"),
        // Cyrillic, full-width, combined and invisible letters, and another slash.
        format!("{mount}/data/%D1%81losed/x"),
        format!("{mount}/data/%EF%BD%83losed/x"),
        format!("{mount}/data/closed%CC%81/x"),
        format!("{mount}/data/clo%E2%80%8Bsed/x"),
        format!("{mount}/data/closed%E2%88%95x"),
        format!("{mount}/data/closed%EF%BC%8Fx"),
        // Overlong and broken encodings.
        format!("{mount}/data/closed%c0%afx"),
        format!("{mount}/data/closed%2/x"),
        format!("{mount}/data/closed/x/"),
        format!("{mount}/data/closed/x."),
        format!("{mount}/data/closed/x%0a"),
    ]
}

/// No spelling of a path reaches what another path names: neither past a denial, nor by a grant.
#[tokio::test]
async fn no_other_spelling_reaches_a_secret() {
    let world = shared().await;
    let root = world.broker.root();
    let mount = unique("spelled");
    let kv = json!({ "type": "kv", "options": { "version": "2" } });
    root.write(&format!("sys/mounts/{mount}"), kv).await.ok();
    let closed = format!("{mount}/data/closed/x");
    root.write(&closed, json!({ "data": { "is": "the treasure" } })).await.ok();
    let (denied, narrow) = (unique("denied"), unique("narrow"));
    let everything = "capabilities = [\"create\", \"read\", \"update\", \"delete\", \"list\"]";
    let but_for = format!(
        "path \"{mount}/*\" {{ {everything} }}\n\
         path \"{mount}/data/closed/*\" {{ capabilities = [\"deny\"] }}"
    );
    let alone = format!("path \"{mount}/data/open/*\" {{ {everything} }}");
    for (name, policy) in [(&denied, but_for), (&narrow, alone)] {
        root.write(&format!("sys/policies/acl/{name}"), json!({ "policy": policy })).await.ok();
    }
    for policy in [&denied, &narrow] {
        let body = json!({ "policies": [policy], "ttl": "1h" });
        let made = root.write("auth/token/create", body).await.ok();
        let token = made["auth"]["client_token"].as_str().unwrap();
        let caller = world.broker.admin().with_token(token);
        caller.read(&closed).await.error(403);
        for path in look_alikes(&mount) {
            for (method, body) in [("GET", ""), ("LIST", ""), ("POST", r#"{"data":{"is":"lost"}}"#)]
            {
                let answer = caller.request(method, &path, &[], body.as_bytes()).await;
                assert!(!answer.body.contains("treasure"), "{method} {path}: {}", answer.body);
                assert!(answer.status < 500, "{method} {path}: {} {}", answer.status, answer.body);
                if policy == &narrow {
                    assert!(
                        (400..500).contains(&answer.status),
                        "{method} {path}: {}",
                        answer.body
                    );
                }
            }
        }
        // The plain name with a letter encoded is the same name, and judged as it.
        caller.read(&closed.replace("closed", "%63losed")).await.error(403);
    }
    assert_eq!(root.read(&closed).await.data()["data"], json!({ "is": "the treasure" }));
}
