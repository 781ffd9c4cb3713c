//! Records in PostgreSQL: the same broker, and several of them side by side.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use super::world::{World, unique};
use crate::support::broker::Setup;
use crate::support::postgres::TestPostgres;
use crate::support::wire::soon;

/// A broker whose records are in a database of their own.
async fn on_postgres() -> World {
    let server = tokio::task::spawn_blocking(TestPostgres::shared).await.unwrap();
    World::new(Setup { postgres: Some(server.database()), ..Setup::default() }).await
}

#[tokio::test]
async fn nodes_see_what_the_others_do() {
    let world = on_postgres().await;
    let other = world.broker.beside().await;
    let (here, there) = (world.broker.root(), other.root());
    let path = "secret/data/shared";
    for n in 1..=5 {
        let (writer, reader) = if n % 2 == 0 { (&here, &there) } else { (&there, &here) };
        writer.write(path, json!({ "data": { "n": n } })).await.ok();
        // What the other had in its cache is forgotten as soon as it hears of the change.
        soon(async {
            while reader.read(path).await.data()["data"]["n"] != json!(n) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }
    // A mount and a policy made here serve there.
    let mount = unique("late");
    here.write(&format!("sys/mounts/{mount}"), json!({ "type": "kv" })).await.ok();
    soon(async {
        while there.write(&format!("{mount}/x"), json!({ "a": 1 })).await.status != 204 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(here.read(&format!("{mount}/x")).await.data(), json!({ "a": 1 }));
    let (caller, name) =
        world.workload(r#"path "secret/data/*" { capabilities = ["read"] }"#).await;
    assert_eq!(caller.read(path).await.status, 200);
    let leaf = world.broker.svid(&name);
    let elsewhere = other.caller(&leaf);
    soon(async {
        while elsewhere.read(path).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let nothing = json!({ "policy": "path \"x\" { capabilities = [\"read\"] }" });
    here.write(&format!("sys/policies/acl/{name}"), nothing).await.ok();
    assert_eq!(caller.read(path).await.status, 403);
    soon(async {
        while elsewhere.read(path).await.status != 403 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_policy_that_was_asked_for_in_vain_counts_once_it_is_written() {
    let world = on_postgres().await;
    let other = world.broker.beside().await;
    let root = world.broker.root();
    root.write("kv/x", json!({ "a": 1 })).await.ok();
    let name = unique("missing");
    let made = root.write("auth/token/create", json!({ "policies": [name] })).await.ok();
    let token = made["auth"]["client_token"].as_str().unwrap();
    let (here, there) = (world.broker.root().with_token(token), other.root().with_token(token));
    let (policy, text) = (
        format!("sys/policies/acl/{name}"),
        json!({ "policy": r#"path "kv/x" { capabilities = ["read"] }"# }),
    );
    let seen_there = async |status| {
        soon(async {
            while there.read("kv/x").await.status != status {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    };
    for _ in 0..3 {
        assert_eq!(here.read("kv/x").await.status, 403);
        seen_there(403).await;
        root.write(&policy, text.clone()).await.ok();
        assert_eq!(here.read("kv/x").await.status, 200);
        seen_there(200).await;
        root.delete(&policy).await.ok();
    }
}

#[tokio::test]
async fn a_policy_is_removed_by_a_node_that_has_not_heard_of_it_yet() {
    let world = on_postgres().await;
    let other = world.broker.beside().await;
    let (here, there) = (world.broker.root(), other.root());
    let name = unique("new");
    let made = here.write("auth/token/create", json!({ "policies": [name] })).await.ok();
    let token = made["auth"]["client_token"].as_str().unwrap();
    let caller = other.root().with_token(token);
    let policy = format!("sys/policies/acl/{name}");
    for _ in 0..10 {
        // Now the other node knows that there is none.
        assert_eq!(caller.read("kv/x").await.status, 403);
        here.write(&policy, json!({ "policy": r#"path "kv/x" { capabilities = ["read"] }"# }))
            .await
            .ok();
        there.delete(&policy).await.ok();
        soon(async {
            while here.read(&policy).await.status != 404 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_quota_made_here_counts_there() {
    let world = on_postgres().await;
    let other = world.broker.beside().await;
    let (here, there) = (world.broker.root(), other.root());
    let policy = "length = 20\nrule \"charset\" { charset = \"0123456789\" }";
    here.write("sys/policies/password/digits", json!({ "policy": policy })).await.ok();
    assert_eq!(there.read("sys/policies/password/digits").await.data()["policy"], policy);
    let least = json!({ "path": "kv/x", "rate": 1, "interval": "1d", "group_by": "none" });
    here.write("sys/quotas/rate-limit/least", least).await.ok();
    soon(async {
        while there.read("kv/x").await.status != 429 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    here.delete("sys/quotas/rate-limit/least").await.ok();
    soon(async {
        while there.read("kv/x").await.status != 404 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_token_revoked_here_is_refused_there() {
    let world = on_postgres().await;
    let other = world.broker.beside().await;
    let root = world.broker.root();
    let made = root.write("auth/token/create", json!({ "policies": ["root"] })).await.ok();
    let token = made["auth"]["client_token"].as_str().unwrap();
    let there = other.admin().with_token(token);
    for _ in 0..3 {
        assert_eq!(there.read("sys/mounts").await.status, 200);
    }
    root.write("auth/token/revoke", json!({ "token": token })).await.ok();
    soon(async {
        while there.read("sys/mounts").await.status != 403 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    // Uses are counted over all nodes.
    let body = json!({ "policies": ["root"], "num_uses": 6 });
    let made = root.write("auth/token/create", body).await.ok();
    let token = made["auth"]["client_token"].as_str().unwrap();
    let tries = (0..16).map(async |n| {
        let node = if n % 2 == 0 { &world.broker } else { &other };
        node.admin().with_token(token).read("sys/mounts").await.status
    });
    let statuses = join_all(tries).await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 6, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 403].contains(status)), "{statuses:?}");
}

#[tokio::test]
async fn a_lease_of_a_node_that_died_is_ended_by_another() {
    let world = on_postgres().await;
    let other = world.broker.beside().await;
    let root = world.broker.root();
    let role = json!({
        "db_name": "pg",
        "creation_statements": super::world::CREATE,
        "default_ttl": "2s",
        "max_ttl": "2s",
    });
    root.write("database/roles/brief", role).await.ok();
    let leased = root.read("database/creds/brief").await.ok();
    let user = leased["data"]["username"].as_str().unwrap().to_owned();
    world.broker.kill();
    let server = TestPostgres::shared();
    let sql = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{user}'");
    assert_eq!(server.sql("postgres", &sql), "1");
    soon(async {
        while server.sql("postgres", &sql) != "0" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let body = json!({ "lease_id": leased["lease_id"] });
    let known = other.root().write("sys/leases/lookup", body).await;
    assert_eq!(known.error(400), "invalid lease");
}

#[tokio::test]
async fn check_and_set_holds_over_nodes() {
    let world = on_postgres().await;
    let other = world.broker.beside().await;
    let path = "secret/data/contended";
    world.broker.root().write(path, json!({ "data": { "n": 0 } })).await.ok();
    for round in 1..=5 {
        let tries = (0..8).map(async |n| {
            let node = if n % 2 == 0 { &world.broker } else { &other };
            let body = json!({ "data": { "n": n }, "options": { "cas": round } });
            node.root().write(path, body).await.status
        });
        let statuses = join_all(tries).await;
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
        assert!(statuses.iter().all(|status| [200, 400, 409].contains(status)), "{statuses:?}");
    }
    let last = world.broker.root().read("secret/metadata/contended").await.data();
    assert_eq!(last["current_version"], 6);
}

#[tokio::test]
async fn a_store_that_goes_away_comes_back() {
    let own = tokio::task::spawn_blocking(TestPostgres::start).await.unwrap();
    let setup = Setup { postgres: Some(own.database()), ..Setup::default() };
    let world = World::new(setup).await;
    let root = world.broker.root();
    root.write("secret/data/x", json!({ "data": { "k": "v" } })).await.ok();
    own.stop();
    let refused = root.write("secret/data/y", json!({ "data": {} })).await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.header("retry-after").is_some());
    assert!(!refused.body.contains(own.password()));
    assert_eq!(world.broker.nobody().read("sys/health").await.status, 200);
    own.start_again();
    soon(async {
        while root.write("secret/data/y", json!({ "data": {} })).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(root.read("secret/data/x").await.data()["data"], json!({ "k": "v" }));
}
