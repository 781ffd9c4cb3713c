//! Entities that are merged, disabled and deleted, on two nodes over one PostgreSQL.

use std::time::Duration;

use serde_json::{Value, json};

use super::world::World;
use crate::support::broker::{Broker, Caller, Setup};
use crate::support::postgres::TestPostgres;
use crate::support::wire::soon;

const CREDS: &str = r#"
path "database/creds/reader" { capabilities = ["read"] }
path "auth/token/create" { capabilities = ["update"] }
"#;
const KV: &str =
    r#"path "kv/{{identity.groups.names.team.metadata.dir}}" { capabilities = ["read"] }"#;

async fn cluster() -> (World, Broker) {
    let server = tokio::task::spawn_blocking(TestPostgres::shared).await.unwrap();
    let tables = "[leases]\nmax_per_identity = 3\n".to_owned();
    let setup = Setup { postgres: Some(server.database()), tables, ..Setup::default() };
    let world = World::new(setup).await;
    let other = world.broker.beside().await;
    (world, other)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// Waits until a node has heard of what another did.
async fn heard(caller: &Caller, path: &str, status: u16) {
    soon(async {
        while caller.read(path).await.status != status {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn entity_of(root: &Caller, lease: &Value) -> String {
    let body = json!({ "lease_id": lease });
    text(&root.write("sys/leases/lookup", body).await.data()["entity_id"])
}

async fn held_by(root: &Caller, id: &str) -> u64 {
    let body = json!({ "entity_id": id, "dry_run": true });
    root.write("sys/leases/revoke-where", body).await.data()["total"].as_u64().unwrap()
}

#[tokio::test]
async fn what_was_issued_before_a_merge_is_reached_after_it_on_every_node() {
    let (world, other) = cluster().await;
    let (here, there) = (world.broker.root(), other.root());
    let (first, first_name) = world.workload(CREDS).await;
    let (second, second_name) = world.workload(CREDS).await;
    let creds = "database/creds/reader";
    let note = json!({ "k": "v" });
    second.write("cubbyhole/note", note.clone()).await.ok();
    let old = first.read(creds).await.ok();
    let own = second.read(creds).await.ok();
    let (gone, stays) =
        (entity_of(&here, &old["lease_id"]).await, entity_of(&here, &own["lease_id"]).await);
    let batch = json!({ "type": "batch", "ttl": "10m" });
    let batch = text(&first.write("auth/token/create", batch).await.ok()["auth"]["client_token"]);

    // Both are names of one mount: whoever merges says which stays.
    let merge = json!({ "from_entity_ids": [gone], "to_entity_id": stays });
    here.write("identity/entity/merge", merge.clone()).await.error(400);
    let kept = here.read(&format!("identity/entity/id/{stays}")).await.data();
    let mut merge = merge;
    merge["conflicting_alias_ids_to_keep"] = json!([kept["aliases"][0]["id"]]);
    here.write("identity/entity/merge", merge).await.ok();

    assert_eq!(second.read("cubbyhole/note").await.data(), note, "a merge takes nothing away");

    // Found, counted and owned by the one that took them, also where it was asked under the old id.
    for id in [&gone, &stays] {
        assert_eq!(held_by(&here, id).await, 2);
    }
    second.write("sys/leases/renew", json!({ "lease_id": old["lease_id"] })).await.ok();
    let elsewhere = other.caller(&other.svid(&second_name));
    soon(async {
        while held_by(&there, &gone).await != 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    elsewhere.read(creds).await.ok();
    assert_eq!(second.read(creds).await.status, 429);
    // The name that did not stay is a stranger, with a cap of its own.
    let stranger = first.read(creds).await.ok();
    assert_ne!(entity_of(&here, &stranger["lease_id"]).await, gone);

    // Disabled there, its tokens of old and its certificate are refused here.
    let by_batch = world.broker.caller(&world.broker.svid(&first_name)).with_token(&batch);
    assert_eq!(by_batch.read("auth/token/lookup-self").await.status, 200);
    let at = format!("identity/entity/id/{gone}");
    there.write(&at, json!({ "disabled": true })).await.ok();
    heard(&by_batch, "auth/token/lookup-self", 403).await;
    heard(&second, "auth/token/lookup-self", 403).await;
    there.write(&at, json!({ "disabled": false })).await.ok();
    heard(&by_batch, "auth/token/lookup-self", 200).await;

    // Deleted there, they are dead for good, and what they held is taken back.
    there.delete(&at).await;
    heard(&by_batch, "auth/token/lookup-self", 403).await;
    soon(async {
        while held_by(&here, &gone).await + held_by(&here, &stays).await > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // The certificate is somebody new, whom nothing of old belongs to.
    heard(&second, "auth/token/lookup-self", 200).await;
    let now = text(&second.read("auth/token/lookup-self").await.data()["entity_id"]);
    assert!(now != gone && now != stays);
    assert_eq!(second.read("cubbyhole/note").await.status, 404);
    assert_eq!(by_batch.read("auth/token/lookup-self").await.status, 403);
    here.read(&format!("identity/entity/id/{stays}")).await.error(404);
}

#[tokio::test]
async fn what_a_group_grants_counts_at_once_on_every_node() {
    let (world, other) = cluster().await;
    let (here, there) = (world.broker.root(), other.root());
    here.write("kv/papers", json!({ "a": 1 })).await.ok();
    here.write("sys/policies/acl/team", json!({ "policy": KV })).await.ok();
    let (caller, name) = world.workload(CREDS).await;
    let own = caller.read("auth/token/lookup-self").await.data();
    let methods = here.read("sys/auth").await.data();
    let self_alias = json!({
        "name": format!("spiffe://test.example/{name}"),
        "mount_accessor": methods["cert/"]["accessor"],
    });
    let stored = here.write("identity/entity-alias", self_alias).await.data();
    assert_eq!(stored["canonical_id"], own["entity_id"]);
    let elsewhere = other.caller(&other.svid(&name));
    for reader in [&caller, &elsewhere] {
        assert_eq!(reader.read("kv/papers").await.status, 403);
    }
    let team = json!({
        "policies": ["team"], "metadata": { "dir": "papers" },
        "member_entity_ids": [own["entity_id"]],
    });
    here.write("identity/group/name/team", team).await.ok();
    assert_eq!(caller.read("kv/papers").await.status, 200);
    heard(&elsewhere, "kv/papers", 200).await;
    there.write("identity/group/name/team", json!({ "member_entity_ids": [] })).await.ok();
    assert_eq!(elsewhere.read("kv/papers").await.status, 403);
    heard(&caller, "kv/papers", 403).await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn who_is_deleted_holds_nothing_also_when_the_server_dies_over_it() {
    let world = World::new(Setup::default()).await;
    let broker = &world.broker;
    let (caller, _) = world.workload(CREDS).await;
    let issued = caller.read("database/creds/reader").await.ok();
    let token = caller.write("auth/token/create", json!({ "ttl": "1h" })).await.ok();
    let token = text(&token["auth"]["client_token"]);
    let id = entity_of(&broker.root(), &issued["lease_id"]).await;
    let user = text(&issued["data"]["username"]);
    let password = text(&issued["data"]["password"]);
    let at = format!("identity/entity/id/{id}");
    broker.kill();
    // Dies when the deletion is durable and nothing is revoked yet.
    broker.start_again_at(Some("bulk.begun"));
    broker.unseal().await;
    assert!(broker.root().try_request("DELETE", &at, &[], b"").await.is_err());
    broker.wait_for_end();
    broker.start_again();
    broker.unseal().await;
    let root = broker.root();
    root.read(&at).await.error(404);
    assert_eq!(broker.admin().with_token(&token).read("auth/token/lookup-self").await.status, 403);
    soon(async {
        while held_by(&root, &id).await > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let database = world.database.clone();
    let server = TestPostgres::shared();
    assert!(!server.can_log_in(&user, &password, &database));
}
