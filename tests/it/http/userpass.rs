//! Names and passwords, tried by those who guess.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::world::{World, shared, unique};
use crate::support::broker::{Broker, Caller, Setup};
use crate::support::needles::Needles;
use crate::support::wire::Answer;

const REFUSAL: &str = "invalid username or password";

/// A mount with a user "ann", whose password is "correct horse"; its path and accessor.
async fn mounted(broker: &Broker, lockout: Value) -> (String, String) {
    let root = broker.root();
    let mount = unique("people");
    let config = json!({ "user_lockout_config": lockout });
    let body = json!({ "type": "userpass", "config": config });
    root.write(&format!("sys/auth/{mount}"), body).await.ok();
    let user = json!({ "password": "correct horse", "token_policies": ["reader"] });
    root.write(&format!("auth/{mount}/users/ann"), user).await.ok();
    let accessor = root.read(&format!("sys/auth/{mount}")).await.data()["accessor"].clone();
    (mount, accessor.as_str().unwrap().to_owned())
}

async fn login(caller: &Caller, mount: &str, name: &str, password: &str) -> Answer {
    let path = format!("auth/{mount}/login/{name}");
    caller.write(&path, json!({ "password": password })).await
}

fn reason(world: &World, answer: &Answer) -> String {
    assert_eq!(answer.error(400), REFUSAL);
    world.broker.audited(answer)["outcome"]["reason"].as_str().unwrap().to_owned()
}

/// The answer without what differs from one request to the next.
fn seen(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["errors"].to_string())
}

#[tokio::test]
async fn brute_force_locks_the_name_and_tells_nothing() {
    let world = shared().await;
    let (mount, accessor) = mounted(&world.broker, json!({})).await;
    let nobody = world.broker.nobody();
    for name in ["ann", "bob"] {
        let expected = if name == "ann" { "wrong password" } else { "there is no such user" };
        for guess in 0..5 {
            let answer = login(&nobody, &mount, name, &format!("guess {guess}")).await;
            assert_eq!(reason(world, &answer), expected);
        }
    }
    // Locked, under any spelling, whether anybody is called so or not; and the right one is refused.
    let right = login(&nobody, &mount, "ann", "correct horse").await;
    let spelled = login(&nobody, &mount, "Ann", "correct horse").await;
    let wrong = login(&nobody, &mount, "ann", "wrong").await;
    let unknown = login(&nobody, &mount, "bob", "wrong").await;
    for answer in [&right, &spelled, &wrong, &unknown] {
        assert_eq!(reason(world, answer), "locked");
        assert_eq!(seen(answer), seen(&right));
    }
    assert!(!right.body.contains("locked"));
    let first = login(&nobody, &mount, "carl", "wrong").await;
    assert_eq!(seen(&first), seen(&right), "as one that is not locked");
    // An administrator sees who is locked, and unlocks one.
    let root = world.broker.root();
    let path = format!("sys/locked-users?mount_accessor={accessor}");
    let listed = root.read(&path).await.data();
    assert_eq!(listed["total"], json!(2));
    let mounts = &listed["by_namespace"][0]["mount_accessors"];
    assert_eq!(mounts[0]["mount_accessor"], json!(accessor));
    assert_eq!(mounts[0]["alias_identifiers"], json!(["ann", "bob"]));
    let unlock = format!("sys/locked-users/{accessor}/unlock/ann");
    assert_eq!(root.write(&unlock, json!({})).await.status, 204);
    let made = login(&nobody, &mount, "ann", "correct horse").await.ok();
    assert_eq!(made["auth"]["metadata"], json!({ "username": "ann" }));
    assert_eq!(root.read(&path).await.data()["total"], json!(1));
    let metrics = root.read("sys/metrics").await.body;
    let line = format!("leasehold_login_lockouts_total{{mount=\"auth/{mount}/\"}} 2");
    assert!(metrics.contains(&line), "{metrics}");
}

#[tokio::test]
async fn guesses_made_at_once_are_no_more_than_one_after_the_other() {
    let world = shared().await;
    let (mount, _) = mounted(&world.broker, json!({ "lockout_threshold": "2" })).await;
    let guesses = (0..12)
        .map(async |n| login(&world.broker.nobody(), &mount, "ann", &format!("guess {n}")).await);
    for answer in join_all(guesses).await {
        assert!(["wrong password", "locked"].contains(&reason(world, &answer).as_str()));
    }
    let answer = login(&world.broker.nobody(), &mount, "ann", "correct horse").await;
    assert_eq!(reason(world, &answer), "locked");
    // Tuning counts at once.
    let root = world.broker.root();
    let path = format!("sys/auth/{mount}/tune");
    let tuned = root.read(&path).await.data();
    assert_eq!(tuned["user_lockout_config"]["lockout_threshold"], json!(2));
    assert_eq!(tuned["user_lockout_config"]["lockout_duration"], json!(900));
    let body = json!({ "user_lockout_config": { "lockout_threshold": 0 } });
    assert!(root.write(&path, body).await.error(400).contains("lockout_threshold"));
    let body = json!({ "user_lockout_config": { "lockout_disable": "true" } });
    root.write(&path, body).await.ok();
    login(&world.broker.nobody(), &mount, "ann", "correct horse").await.ok();
}

#[tokio::test]
async fn every_refusal_costs_the_same_work() {
    // A broker of its own, so that nobody else's log-ins are counted.
    let broker = Broker::ready(Setup::default()).await;
    let (mount, _) = mounted(&broker, json!({ "lockout_threshold": 2 })).await;
    let (root, nobody) = (broker.root(), broker.nobody());
    let hashes = async || -> u64 {
        let text = root.read("sys/metrics").await.body;
        let line = text.lines().find(|line| line.starts_with("leasehold_password_hashes_total"));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    };
    let mut before = hashes().await;
    for (name, password, status) in [
        ("ann", "correct horse", 200),
        ("ann", "wrong", 400),
        ("bob", "wrong", 400),
        ("not:a:name", "wrong", 400),
        ("ann", "wrong", 400),
        ("ann", "wrong", 400),
        ("ann", "correct horse", 400),
        ("bob", "wrong", 400),
        ("bob", "wrong", 400),
    ] {
        let answer = login(&nobody, &mount, name, password).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.body);
        let after = hashes().await;
        assert_eq!(after - before, 1, "{name} {password}");
        before = after;
    }
    // And none of it is anywhere that it should not be.
    let mut needles = Needles::new();
    needles.add("password", b"correct horse");
    assert!(needles.found_in(broker.log().as_bytes()).is_empty());
    assert!(needles.found_in(&std::fs::read(broker.audit_path()).unwrap()).is_empty());
    for file in std::fs::read_dir(broker.data_dir()).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            assert!(needles.found_in(&std::fs::read(&path).unwrap()).is_empty(), "{path:?}");
        }
    }
}

#[tokio::test]
async fn a_password_makes_an_identity_that_owns_what_it_leases() {
    let world = shared().await;
    let root = world.broker.root();
    let (mount, accessor) = mounted(&world.broker, json!({})).await;
    let policy = r#"path "database/creds/reader" { capabilities = ["read"] }"#;
    root.write("sys/policies/acl/reader", json!({ "policy": policy })).await.ok();
    let made = login(&world.broker.nobody(), &mount, "ann", "correct horse").await.ok();
    let auth = &made["auth"];
    assert_eq!(auth["policies"], json!(["default", "reader"]));
    let ann = world.broker.nobody().with_token(auth["client_token"].as_str().unwrap());
    let lease = ann.read("database/creds/reader").await.ok();
    let body = json!({ "alias_name": "ann", "alias_mount_accessor": accessor });
    let entity = root.write("identity/lookup/entity", body).await.data();
    assert_eq!(entity["id"], auth["entity_id"]);
    let owned = json!({ "entity_id": entity["id"] });
    let found = root.write("sys/leases/search", owned).await.data();
    assert!(found.to_string().contains(lease["lease_id"].as_str().unwrap()), "{found}");
    // Again is the same identity; the password of another mount's namesake is not.
    let again = login(&world.broker.nobody(), &mount, "ann", "correct horse").await.ok();
    assert_eq!(again["auth"]["entity_id"], entity["id"]);
    let (other, _) = mounted(&world.broker, json!({})).await;
    let namesake = login(&world.broker.nobody(), &other, "ann", "correct horse").await.ok();
    assert_ne!(namesake["auth"]["entity_id"], entity["id"]);
    // A disabled identity is refused as if the password were wrong.
    let path = format!("identity/entity/id/{}", entity["id"].as_str().unwrap());
    root.write(&path, json!({ "disabled": true })).await.ok();
    let refused = login(&world.broker.nobody(), &mount, "ann", "correct horse").await;
    assert!(reason(world, &refused).contains("is disabled"));
    // Deleted: the tokens live on until they end, but are not renewed.
    let gone = again["auth"]["client_token"].as_str().unwrap();
    root.write(&path, json!({ "disabled": false })).await.ok();
    let ann = world.broker.nobody().with_token(gone);
    assert_eq!(ann.write("auth/token/renew-self", json!({})).await.status, 200);
    root.delete(&format!("auth/{mount}/users/ann")).await;
    assert_eq!(ann.read("auth/token/lookup-self").await.status, 200);
    assert_eq!(ann.write("auth/token/renew-self", json!({})).await.status, 403);
}

#[tokio::test]
async fn an_address_that_a_user_is_not_bound_to_is_refused_like_a_wrong_password() {
    let world = shared().await;
    let (mount, _) = mounted(&world.broker, json!({})).await;
    let bound = json!({ "token_bound_cidrs": ["10.0.0.0/8"] });
    world.broker.root().write(&format!("auth/{mount}/users/ann"), bound).await.ok();
    let refused = login(&world.broker.nobody(), &mount, "ann", "correct horse").await;
    assert_eq!(reason(world, &refused), "the role is bound to other addresses");
    let wrong = login(&world.broker.nobody(), &mount, "ann", "wrong").await;
    assert_eq!(seen(&wrong), seen(&refused));
}
