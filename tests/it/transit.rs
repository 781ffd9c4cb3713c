//! Keys of `transit` on two nodes over one PostgreSQL.

use serde_json::{Value, json};

use crate::support::broker::{Broker, Caller, Setup};
use crate::support::postgres::TestPostgres;
use crate::support::wire::soon;

/// `hello`.
const HELLO: &str = "aGVsbG8=";

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// A message encrypted at a node, with the version that did it.
async fn encrypted(node: &Caller) -> (String, u64) {
    let done = node.write("transit/encrypt/k", json!({ "plaintext": HELLO })).await.data();
    (text(&done["ciphertext"]), done["key_version"].as_u64().unwrap())
}

#[track_caller]
fn opens(answer: &Value) {
    assert_eq!(answer["plaintext"], HELLO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_rotate_a_key_at_once_agree_on_every_version() {
    let server = tokio::task::spawn_blocking(TestPostgres::shared).await.unwrap();
    let setup = Setup { postgres: Some(server.database()), ..Setup::default() };
    let broker = Broker::ready(setup).await;
    let beside = broker.beside().await;
    let (one, other) = (broker.root(), beside.root());
    one.write("sys/mounts/transit", json!({ "type": "transit" })).await.ok();
    // The other node has to hear of the mount first.
    soon(async {
        while other.write("transit/keys/k", json!({})).await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    let (first, version) = encrypted(&one).await;
    assert_eq!(version, 1);

    let rotate = async |node: &Caller| {
        for _ in 0..6 {
            node.write("transit/keys/k/rotate", json!({})).await.ok();
            encrypted(node).await;
        }
    };
    tokio::join!(rotate(&one), rotate(&other));
    let told = one.read("transit/keys/k").await.data();
    assert_eq!(
        (&told["latest_version"], told["keys"].as_object().unwrap().len()),
        (&json!(13), 13)
    );

    // What a node knows of the key is soon the same, and all that was encrypted opens at both.
    let mut sealed = vec![first];
    for node in [&one, &other] {
        soon(async {
            while encrypted(node).await.1 != 13 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
        sealed.push(encrypted(node).await.0);
    }
    for node in [&one, &other] {
        for ciphertext in &sealed {
            let body = json!({ "ciphertext": ciphertext });
            opens(&node.write("transit/decrypt/k", body).await.data());
        }
    }

    // A version that one node no longer allows opens nowhere, and a key out of use does nothing.
    let rules = json!({ "min_decryption_version": 13 });
    one.write("transit/keys/k/config", rules).await.ok();
    let refused = |path: &'static str, body: Value| {
        let other = &other;
        async move {
            soon(async {
                while other.write(path, body.clone()).await.status != 400 {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            })
            .await;
        }
    };
    refused("transit/decrypt/k", json!({ "ciphertext": sealed[0] })).await;
    assert_eq!(one.delete("transit/keys/k/soft-delete").await.status, 200);
    refused("transit/encrypt/k", json!({ "plaintext": HELLO })).await;
    other.write("transit/keys/k/soft-delete-restore", json!({})).await.ok();
    soon(async {
        while one.write("transit/encrypt/k", json!({ "plaintext": HELLO })).await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}
