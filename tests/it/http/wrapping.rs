//! Answers kept for one reader.

use futures_util::future::join_all;
use serde_json::json;

use super::world::{shared, unique};
use crate::support::broker::Caller;

async fn wrapped(by: &Caller, method: &str, path: &str, body: &[u8]) -> serde_json::Value {
    let answer = by.request(method, path, &[("x-vault-wrap-ttl", "5m")], body).await;
    let body = answer.ok();
    assert_eq!(body["data"], json!(null), "nothing but the wrapping leaves");
    body["wrap_info"].clone()
}

fn token(info: &serde_json::Value) -> &str {
    info["token"].as_str().unwrap()
}

#[tokio::test]
async fn of_parallel_readers_one_gets_the_answer() {
    let world = shared().await;
    let root = world.broker.root();
    let path = format!("secret/data/{}", unique("wrapped"));
    root.write(&path, json!({ "data": { "k": "v" } })).await.ok();
    for _ in 0..3 {
        let info = wrapped(&root, "GET", &path, b"").await;
        assert_eq!((&info["ttl"], &info["creation_path"]), (&json!(300), &json!(path)));
        let tries = (0..20).map(async |_| {
            let own = world.broker.admin();
            own.write("sys/wrapping/unwrap", json!({ "token": token(&info) })).await
        });
        let answers = join_all(tries).await;
        let got: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].data()["data"], json!({ "k": "v" }));
        let refused = answers.iter().filter(|answer| answer.status != 200);
        assert!(refused.into_iter().all(|answer| answer.status == 400));
    }
}

#[tokio::test]
async fn a_wrapping_token_opens_nothing_else() {
    let world = shared().await;
    let root = world.broker.root();
    let body = br#"{"a":{"b":1}}"#;
    for (method, path) in [
        ("GET", "sys/mounts"),
        ("GET", "secret/data/x"),
        ("GET", "auth/token/lookup-self"),
        ("GET", "cubbyhole/response"),
        ("POST", "auth/token/renew-self"),
        ("POST", "auth/token/create"),
    ] {
        let info = wrapped(&root, "POST", "sys/wrapping/wrap", body).await;
        let own = world.broker.admin().with_token(token(&info));
        let answer = own.request(method, path, &[], b"").await;
        assert_eq!(answer.status, 403, "{path}: {}", answer.body);
        // It works once, and that was it: whoever is meant to read the answer finds it tampered with.
        assert_eq!(own.write("sys/wrapping/unwrap", json!({})).await.status, 400, "{path}");
    }
    let info = wrapped(&root, "POST", "sys/wrapping/wrap", body).await;
    let own = world.broker.admin().with_token(token(&info));
    let looked = own.write("sys/wrapping/lookup", json!({})).await.data();
    assert_eq!(looked["creation_path"], "sys/wrapping/wrap");
    // By header too; and what was wrapped comes out as it went in.
    let second = {
        let rewrapped = own.write("sys/wrapping/rewrap", json!({})).await.ok();
        rewrapped["wrap_info"].clone()
    };
    assert_eq!(own.write("sys/wrapping/unwrap", json!({})).await.status, 400);
    let own = world.broker.admin().with_token(token(&second));
    assert_eq!(
        own.write("sys/wrapping/unwrap", json!({})).await.data(),
        json!({ "a": { "b": 1 } })
    );
    assert_eq!(own.write("sys/wrapping/unwrap", json!({})).await.status, 400);
    // An ordinary token is no wrapping token.
    let root_token = world.broker.root_token();
    let body = json!({ "token": root_token });
    assert_eq!(root.write("sys/wrapping/unwrap", body).await.status, 400);
    assert_eq!(root.read("sys/mounts").await.status, 200, "and is none the worse for it");
}

#[tokio::test]
async fn tokens_and_credentials_can_be_wrapped() {
    let world = shared().await;
    let root = world.broker.root();
    let info = wrapped(&root, "POST", "auth/token/create", br#"{"policies":["default"]}"#).await;
    assert!(!info["wrapped_accessor"].as_str().unwrap().is_empty());
    let body = json!({ "token": token(&info) });
    let opened = world.broker.admin().write("sys/wrapping/unwrap", body).await.ok();
    let made = opened["auth"]["client_token"].as_str().unwrap();
    let own = world.broker.admin().with_token(made);
    assert_eq!(own.read("auth/token/lookup-self").await.status, 200);
    let info = wrapped(&root, "GET", "database/creds/reader", b"").await;
    let body = json!({ "token": token(&info) });
    let opened = world.broker.admin().write("sys/wrapping/unwrap", body).await.ok();
    let lease = opened["lease_id"].as_str().unwrap();
    assert!(opened["data"]["password"].is_string());
    root.write("sys/leases/revoke", json!({ "lease_id": lease })).await.ok();
}

#[tokio::test]
async fn nothing_is_made_for_an_answer_that_cannot_be_wrapped() {
    let world = shared().await;
    let root = world.broker.root();
    let role = unique("unwrappable");
    let body = json!({ "db_name": "pg", "creation_statements": super::world::CREATE });
    root.write(&format!("database/roles/{role}"), body).await.ok();
    let path = format!("database/creds/{role}");
    let answer = root.request("GET", &path, &[("x-vault-wrap-ttl", "800h")], b"").await;
    assert!(answer.error(400).contains("X-Vault-Wrap-TTL"), "{}", answer.body);
    assert_eq!(root.list(&format!("sys/leases/lookup/{path}")).await.status, 404);
    // The audit names the lease behind a wrapped answer.
    let answer = root.request("GET", &path, &[("x-vault-wrap-ttl", "5m")], b"").await;
    let wrapping = answer.ok()["wrap_info"]["token"].clone();
    let named = world.broker.audited(&answer)["lease_id"].clone();
    assert!(named.as_str().unwrap().starts_with(&path), "{named}");
    // Wrapped once more, and with a header that asks for it once more still, it is the same answer.
    let token = json!({ "token": wrapping }).to_string();
    let headers = [("x-vault-wrap-ttl", "5m")];
    let again = root.request("POST", "sys/wrapping/rewrap", &headers, token.as_bytes()).await.ok();
    let token = json!({ "token": again["wrap_info"]["token"] });
    let given = root.write("sys/wrapping/unwrap", token).await.ok();
    assert_eq!(given["lease_id"], named, "{given}");
    root.write("sys/leases/revoke", json!({ "lease_id": named })).await.ok();
}

#[tokio::test]
async fn a_certificate_that_guesses_is_refused_and_no_other_is() {
    let world = shared().await;
    let info = wrapped(&world.broker.root(), "POST", "sys/wrapping/wrap", br#"{"a":1}"#).await;
    let (guesser, _) = world.workload("path \"x\" {\n  capabilities = [\"read\"]\n}\n").await;
    let stranger = world.broker.caller(&world.broker.svid(&unique("stranger")));
    for caller in [&guesser, &stranger] {
        // The last of these locks, however slow the machine is.
        let mut refused = None;
        for number in 0..11 {
            let body = json!({ "token": format!("s.{number:024}") });
            let answer = caller.write("sys/wrapping/lookup", body).await;
            if answer.status == 429 {
                refused = Some(answer);
                break;
            }
            assert_eq!(answer.status, 400, "{}", answer.body);
        }
        let refused = refused.expect("eleven guesses are let through");
        assert!(refused.header("retry-after").is_some());
        assert_eq!(world.broker.audited(&refused)["outcome"]["status"], 429);
    }
    let (other, _) = world.workload("path \"x\" {\n  capabilities = [\"read\"]\n}\n").await;
    let body = json!({ "token": token(&info) });
    assert_eq!(other.write("sys/wrapping/unwrap", body).await.data(), json!({ "a": 1 }));
}
