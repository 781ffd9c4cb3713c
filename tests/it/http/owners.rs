//! Whose a lease is: found by it, counted for it, and ended with it.

use std::time::Duration;

use serde_json::{Value, json};

use super::leases::{LEASER, Leased, lease, revoke, role_exists};
use super::world::{World, shared, unique};
use crate::support::broker::{Caller, Setup};
use crate::support::wire::soon;

async fn made(world: &World, by: &Caller, body: Value) -> (Caller, String) {
    let made = by.write("auth/token/create", body).await.ok();
    let accessor = made["auth"]["accessor"].as_str().unwrap().to_owned();
    let token = made["auth"]["client_token"].as_str().unwrap();
    (world.broker.admin().with_token(token), accessor)
}

async fn gone(leased: &Leased) {
    soon(async {
        while role_exists(&leased.user) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_batch_token_is_given_ends_with_its_parent() {
    let world = shared().await;
    let (parent, token) = world.token(LEASER).await;
    let (batch, _) = made(world, &parent, json!({ "type": "batch", "ttl": "1h" })).await;
    let (other, _) = made(world, &parent, json!({ "type": "batch", "ttl": "1h" })).await;
    let leased = lease(&batch).await;
    // It looks after its own, and not after what another token of the family was given.
    let body = json!({ "lease_id": leased.lease, "increment": "10m" });
    assert_eq!(batch.write("sys/leases/renew", body.clone()).await.status, 200);
    assert_eq!(other.write("sys/leases/renew", body).await.error(400), "invalid lease");
    let brothers = lease(&other).await;
    assert_eq!(revoke(&batch, &brothers.lease).await.error(400), "invalid lease");
    assert!(leased.can_log_in(world));
    let root = world.broker.root();
    root.write("auth/token/revoke", json!({ "token": token })).await.ok();
    gone(&leased).await;
    gone(&brothers).await;
    assert!(!leased.can_log_in(world));
    assert_eq!(batch.read("database/creds/reader").await.status, 403);
}

#[tokio::test]
async fn all_that_an_identity_holds_is_found_whatever_token_asked() {
    let world = shared().await;
    let (caller, _) = world.workload(LEASER).await;
    let by_certificate = lease(&caller).await;
    let (job, accessor) =
        made(world, &caller, json!({ "scopes": ["read:database/creds/reader"], "ttl": "10m" }))
            .await;
    let by_token = lease(&job).await;
    let root = world.broker.root();
    let known = root.write("sys/leases/lookup", json!({ "lease_id": by_token.lease })).await.data();
    let entity = known["entity_id"].as_str().unwrap();
    let ids = |answer: Value| -> Vec<String> {
        let leases = answer["leases"].as_array().unwrap().iter();
        let mut ids: Vec<String> =
            leases.map(|one| one["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    let search = async |body: Value| ids(root.write("sys/leases/search", body).await.data());
    let mut both = vec![by_certificate.lease.clone(), by_token.lease.clone()];
    both.sort();
    assert_eq!(search(json!({ "entity_id": entity })).await, both);
    assert_eq!(
        search(json!({ "accessor": accessor })).await,
        std::slice::from_ref(&by_token.lease)
    );
    let unknown = root.write("sys/leases/search", json!({ "accessor": "nobody" })).await;
    assert!(unknown.error(400).contains("accessor"), "{}", unknown.body);
    let all = json!({ "entity_id": entity, "sync": true });
    let done = root.write("sys/leases/revoke-where", all).await.data();
    assert_eq!(done["total"], 2, "{done}");
    assert!(!role_exists(&by_certificate.user) && !role_exists(&by_token.user));
}

#[tokio::test]
async fn the_cap_of_an_identity_is_not_multiplied_by_its_tokens() {
    let tables = "[leases]\nmax_per_identity = 3\n";
    let world = World::new(Setup { tables: tables.into(), ..Setup::default() }).await;
    let (caller, _) = world.workload(LEASER).await;
    for _ in 0..3 {
        let (token, _) = made(&world, &caller, json!({ "ttl": "10m" })).await;
        lease(&token).await;
    }
    let (token, _) = made(&world, &caller, json!({ "ttl": "10m" })).await;
    for who in [&token, &caller] {
        let refused = who.read("database/creds/reader").await;
        assert!(refused.error(429).contains("identity"), "{}", refused.body);
    }
    let prefix = "sys/leases/revoke-prefix/database/creds/reader";
    world.broker.root().write(prefix, json!({ "sync": true })).await.ok();
}

#[tokio::test]
async fn the_last_use_of_a_token_hands_out_nothing_that_is_dead() {
    let world = shared().await;
    let root = world.broker.root();
    let name = unique("once");
    root.write(&format!("sys/policies/acl/{name}"), json!({ "policy": LEASER })).await.ok();
    let body = json!({ "policies": [name], "num_uses": 2, "ttl": "10m" });
    let (token, _) = made(world, &root, body.clone()).await;
    let leased = lease(&token).await;
    assert!(leased.can_log_in(world), "one use is left");
    let last = token.read("database/creds/reader").await;
    assert!(last.error(400).contains("last use"), "{}", last.body);
    assert_eq!(world.broker.audited(&last)["outcome"]["status"], 400);
    gone(&leased).await;
    // What does not end with the token is handed out.
    root.write("secret/data/once", json!({ "data": { "k": "v" } })).await.ok();
    let policy = json!({ "policy": r#"path "secret/data/once" { capabilities = ["read"] }"# });
    root.write(&format!("sys/policies/acl/{name}"), policy).await.ok();
    let (token, _) = made(world, &root, json!({ "policies": [name], "num_uses": 1 })).await;
    assert_eq!(token.read("secret/data/once").await.status, 200);
    assert_eq!(token.read("secret/data/once").await.status, 403);
}

#[tokio::test]
async fn a_lease_is_renewed_as_far_as_the_renewed_token_reaches() {
    let world = shared().await;
    let root = world.broker.root();
    let name = unique("renewing");
    root.write(&format!("sys/policies/acl/{name}"), json!({ "policy": LEASER })).await.ok();
    let (token, accessor) = made(world, &root, json!({ "policies": [name], "ttl": "60s" })).await;
    let leased = lease(&token).await;
    let left = async |by: &Caller| {
        let body = json!({ "lease_id": leased.lease, "increment": "40m" });
        let renewed = by.write("sys/leases/renew", body).await.ok();
        renewed["lease_duration"].as_u64().unwrap()
    };
    assert!(left(&token).await <= 60);
    // Whoever else renews it does not carry it past the token that it belongs to.
    assert!(left(&root).await <= 60);
    let renewal = json!({ "accessor": accessor, "increment": "30m" });
    root.write("auth/token/renew-accessor", renewal).await.ok();
    let renewed = left(&token).await;
    assert!((1700..=1800).contains(&renewed), "{renewed}");
    revoke(&token, &leased.lease).await.ok();
}
