//! Role IDs and secret IDs, through HTTPS and on several nodes.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::world::{World, shared, unique};
use crate::support::broker::{Broker, Caller, Setup};
use crate::support::needles::Needles;
use crate::support::postgres::TestPostgres;
use crate::support::wire::{Answer, soon};

const REFUSAL: &str = "invalid role or secret ID";

/// A mount with a role "web"; its path and the role's ID.
async fn mounted(broker: &Broker, role: Value) -> (String, String) {
    let root = broker.root();
    let mount = unique("approle");
    root.write(&format!("sys/auth/{mount}"), json!({ "type": "approle" })).await.ok();
    root.write(&format!("auth/{mount}/role/web"), role).await.ok();
    let id = root.read(&format!("auth/{mount}/role/web/role-id")).await.data()["role_id"].clone();
    (mount, id.as_str().unwrap().to_owned())
}

async fn secret(broker: &Broker, mount: &str, body: Value) -> Value {
    broker.root().write(&format!("auth/{mount}/role/web/secret-id"), body).await.data()
}

async fn login(caller: &Caller, mount: &str, role: &str, secret: &Value) -> Answer {
    let body = json!({ "role_id": role, "secret_id": secret });
    caller.write(&format!("auth/{mount}/login"), body).await
}

fn reason(world: &World, answer: &Answer) -> String {
    assert_eq!(answer.error(400), REFUSAL);
    world.broker.audited(answer)["outcome"]["reason"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn guessers_learn_nothing_and_lock_the_role_id() {
    let world = shared().await;
    let (mount, role) = mounted(&world.broker, json!({})).await;
    let right = secret(&world.broker, &mount, json!({ "num_uses": 1 })).await["secret_id"].clone();
    let nobody = world.broker.nobody();
    let unknown = login(&nobody, &mount, "no-such-role", &right).await;
    assert_eq!(reason(world, &unknown), "there is no such role ID");
    for guess in 0..5 {
        let wrong = login(&nobody, &mount, &role, &json!(format!("guess {guess}"))).await;
        assert_eq!(reason(world, &wrong), "the role has no such secret ID");
        assert_eq!(wrong.json()["errors"], unknown.json()["errors"]);
    }
    let locked = login(&nobody, &mount, &role, &right).await;
    assert_eq!(reason(world, &locked), "locked");
    assert_eq!(locked.json()["errors"], unknown.json()["errors"]);
    let root = world.broker.root();
    let accessor = root.read(&format!("sys/auth/{mount}")).await.data()["accessor"].clone();
    let accessor = accessor.as_str().unwrap();
    root.write(&format!("sys/locked-users/{accessor}/unlock/{role}"), json!({})).await.ok();
    // The refusal while it was locked has not used it up; the second log-in does not get in.
    let made = login(&nobody, &mount, &role, &right).await.ok();
    assert_eq!(made["auth"]["metadata"], json!({ "role_name": "web" }));
    let again = login(&nobody, &mount, &role, &right).await;
    assert_eq!(reason(world, &again), "the role has no such secret ID");
    // The role ID is the name of the identity.
    let body = json!({ "alias_name": role, "alias_mount_accessor": accessor });
    let entity = root.write("identity/lookup/entity", body).await.data();
    assert_eq!(entity["id"], made["auth"]["entity_id"]);
}

#[tokio::test]
async fn a_wrapped_secret_id_is_seen_by_whoever_unwraps_it_and_by_nobody_else() {
    let broker = Broker::ready(Setup::default()).await;
    let (mount, role) = mounted(&broker, json!({})).await;
    let path = format!("auth/{mount}/role/web/secret-id");
    let wrap = [("x-vault-wrap-ttl", "5m")];
    let wrapped = broker.root().request("POST", &path, &wrap, b"{}").await.ok();
    assert_eq!(wrapped["data"], json!(null));
    let token = json!({ "token": wrapped["wrap_info"]["token"] });
    let unwrapped = broker.nobody().write("sys/wrapping/unwrap", token.clone()).await.data();
    let secret = unwrapped["secret_id"].as_str().unwrap().to_owned();
    assert_eq!(broker.nobody().write("sys/wrapping/unwrap", token).await.status, 400);
    login(&broker.nobody(), &mount, &role, &json!(secret)).await.ok();
    let mut needles = Needles::new();
    needles.add("secret id", secret.as_bytes());
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
async fn of_parallel_log_ins_at_two_nodes_as_many_succeed_as_there_are_uses() {
    let server = tokio::task::spawn_blocking(TestPostgres::shared).await.unwrap();
    let setup = Setup { postgres: Some(server.database()), ..Setup::default() };
    let here = Broker::ready(setup).await;
    let there = here.beside().await;
    let (mount, role) = mounted(&here, json!({})).await;
    soon(async {
        let path = format!("sys/auth/{mount}");
        while there.root().read(&path).await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    // Failures are not what this is about.
    let off = json!({ "user_lockout_config": { "lockout_disable": true } });
    here.root().write(&format!("sys/auth/{mount}/tune"), off).await.ok();
    for uses in [1, 7] {
        let secret = secret(&here, &mount, json!({ "num_uses": uses })).await["secret_id"].clone();
        let tries = (0..50).map(async |n| {
            let node = if n % 2 == 0 { &here } else { &there };
            login(&node.nobody(), &mount, &role, &secret).await
        });
        let answers = join_all(tries).await;
        let got = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(got, uses);
        let refused = answers.iter().filter(|answer| answer.status != 200);
        for answer in refused {
            assert_eq!(answer.error(400), REFUSAL);
        }
    }
}
