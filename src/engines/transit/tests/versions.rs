//! Versions over time and over nodes.

use std::time::Duration;

use super::*;
use crate::core::records::Precondition;
use crate::types::time::Ttl;

#[tokio::test]
async fn nodes_that_rotate_at_once_make_versions_of_their_own() {
    let scratch = Scratch::new();
    let nodes = [Node::new(&scratch), Node::new(&scratch)];
    nodes[0].make("k", json!({})).await;
    let rotations = (0..12usize).map(|n| nodes[n % 2].call(Update, "keys/k/rotate", json!({})));
    for done in join_all(rotations).await {
        done.unwrap();
    }
    let described = Node::new(&scratch).get("keys/k").await;
    assert_eq!(described["latest_version"], 13);
    assert_eq!(described["keys"].as_object().unwrap().len(), 13);
    for node in &nodes {
        node.hears();
        assert!(node.encrypt("k").await.starts_with("vault:v13:"));
    }
}

#[tokio::test]
async fn what_one_node_encrypts_another_decrypts_by_any_version() {
    let scratch = Scratch::new();
    let nodes = [Node::new(&scratch), Node::new(&scratch)];
    nodes[0].make("k", json!({})).await;
    let first = nodes[0].encrypt("k").await;
    assert_eq!(nodes[1].decrypt("k", &first).await.unwrap(), HELLO);
    nodes[1].put("keys/k/rotate", json!({})).await;
    nodes[0].hears();
    let second = nodes[0].encrypt("k").await;
    assert!(second.starts_with("vault:v2:"));
    let again = nodes[1].put("rewrap/k", json!({ "ciphertext": first })).await;
    assert_eq!(again["key_version"], 2);
    assert_eq!(nodes[0].decrypt("k", &text(&again, "ciphertext")).await.unwrap(), HELLO);
    let body = json!({ "plaintext": HELLO, "key_version": 1 });
    assert!(text(&nodes[0].put("encrypt/k", body).await, "ciphertext").starts_with("vault:v1:"));
}

#[tokio::test]
async fn a_key_that_is_replaced_by_another_node_is_not_used_again() {
    let scratch = Scratch::new();
    let nodes = [Node::new(&scratch), Node::new(&scratch)];
    nodes[0].make("k", json!({})).await;
    let sealed = nodes[0].encrypt("k").await;
    nodes[1].put("keys/k/config", json!({ "deletion_allowed": true })).await;
    nodes[1].call(Delete, "keys/k", json!({})).await.unwrap();
    nodes[0].hears();
    assert_eq!(nodes[0].refused("decrypt/k", json!({ "ciphertext": sealed })).await.0, 400);
    // Of the same name, and at the same revision.
    nodes[1].make("k", json!({})).await;
    nodes[1].put("keys/k/config", json!({ "deletion_allowed": true })).await;
    nodes[0].hears();
    let error = nodes[0].decrypt("k", &sealed).await.unwrap_err().public_text();
    assert!(error.contains("does not open"), "{error}");
}

#[tokio::test]
async fn oldest_versions_are_enforced_for_everything_on_every_node() {
    let scratch = Scratch::new();
    let nodes = [Node::new(&scratch), Node::new(&scratch)];
    for (name, kind) in [("k", "aes256-gcm96"), ("s", "ed25519")] {
        nodes[0].make(name, json!({ "type": kind })).await;
    }
    let sealed = nodes[0].encrypt("k").await;
    let mac = nodes[0].put("hmac/s", json!({ "input": HELLO })).await["hmac"].clone();
    let signed = nodes[0].put("sign/s", json!({ "input": HELLO })).await["signature"].clone();
    for name in ["k", "s"] {
        nodes[0].put(&format!("keys/{name}/rotate"), json!({})).await;
        nodes[1].hears();
        nodes[1].put(&format!("keys/{name}/config"), json!({ "min_decryption_version": 2 })).await;
    }
    for node in &nodes {
        node.hears();
        let old = "the key does not allow that version";
        for (path, body) in [
            ("decrypt/k", json!({ "ciphertext": sealed })),
            ("rewrap/k", json!({ "ciphertext": sealed })),
            ("verify/s", json!({ "input": HELLO, "hmac": mac })),
            ("verify/s", json!({ "input": HELLO, "signature": signed })),
        ] {
            let (status, error) = node.refused(path, body).await;
            assert!(status == 400 && error.starts_with(old), "{path}: {error}");
        }
        for path in ["encrypt/k", "hmac/s", "sign/s"] {
            let body = match path {
                "encrypt/k" => json!({ "plaintext": HELLO, "key_version": 1 }),
                _ => json!({ "input": HELLO, "key_version": 1 }),
            };
            let (status, error) = node.refused(path, body).await;
            assert!(status == 400 && error.contains("\"key_version\" is below"), "{error}");
        }
    }
    assert_eq!(nodes[0].get("keys/k").await["keys"].as_object().unwrap().len(), 1);
    nodes[0].put("keys/k/config", json!({ "min_decryption_version": 1 })).await;
    assert_eq!(nodes[0].decrypt("k", &sealed).await.unwrap(), HELLO, "nothing was lost");
}

#[tokio::test]
async fn rules_that_contradict_each_other_are_refused() {
    let scratch = Scratch::new();
    let node = Node::new(&scratch);
    node.make("k", json!({})).await;
    node.put("keys/k/rotate", json!({})).await;
    for (body, field) in [
        (json!({ "min_decryption_version": 3 }), "min_decryption_version"),
        (json!({ "min_encryption_version": 3 }), "min_encryption_version"),
        (json!({ "min_decryption_version": -1 }), "min_decryption_version"),
        (
            json!({ "min_decryption_version": 2, "min_encryption_version": 1 }),
            "min_encryption_version",
        ),
        (json!({ "auto_rotate_period": "59m" }), "auto_rotate_period"),
        (json!({ "deletion_allowed": "perhaps" }), "deletion_allowed"),
    ] {
        let (status, error) = node.refused("keys/k/config", body.clone()).await;
        assert!(
            status == 400 && error.starts_with(&format!("field \"{field}\"")),
            "{body}: {error}"
        );
    }
    node.put("keys/k/config", json!({ "exportable": true, "allow_plaintext_backup": true })).await;
    let body = json!({ "exportable": false, "allow_plaintext_backup": false });
    let after = node.put("keys/k/config", body).await;
    assert_eq!(
        (&after["exportable"], &after["allow_plaintext_backup"]),
        (&json!(true), &json!(true)),
        "what may have left cannot be called back"
    );
}

#[tokio::test]
async fn trimmed_versions_are_gone_and_many_are_trimmed_in_parts() {
    let scratch = Scratch::new();
    let node = Node::new(&scratch);
    node.make("k", json!({ "exportable": true, "allow_plaintext_backup": true })).await;
    let first = node.encrypt("k").await;
    let rows = node.rows().await;
    for _ in 0..450 {
        node.engine.add_version(&node.mount.ctx(), "k", None).await.unwrap();
    }
    for (version, problem) in [
        (json!(452), "is above the newest"),
        (json!(440), "needs min_encryption_version"),
        (json!(0), "is required"),
        (Value::Null, "is required"),
    ] {
        let body = json!({ "min_available_version": version });
        let (status, error) = node.refused("keys/k/trim", body).await;
        assert!(status == 400 && error.contains(problem), "{error}");
    }
    let body = json!({ "min_decryption_version": 440, "min_encryption_version": 441 });
    node.put("keys/k/config", body).await;
    assert_eq!(node.refused("keys/k/trim", json!({ "min_available_version": 441 })).await.0, 400);
    let after = node.put("keys/k/trim", json!({ "min_available_version": 440 })).await;
    assert_eq!(after["keys"].as_object().unwrap().len(), 12);
    // Twelve versions instead of one. The count of the first is gone, and what it was kept in.
    assert_eq!(node.rows().await, rows + 11 - 3);
    assert_eq!(node.refused("keys/k/trim", json!({ "min_available_version": 439 })).await.0, 400);
    let (_, error) = node.refused("keys/k/config", json!({ "min_decryption_version": 439 })).await;
    assert!(error.contains("trimmed away"), "{error}");
    assert_eq!(node.refused("decrypt/k", json!({ "ciphertext": first })).await.0, 400);
}

#[tokio::test]
async fn a_deleted_key_leaves_nothing_behind_even_when_it_was_cut_short() {
    let scratch = Scratch::new();
    let node = Node::new(&scratch);
    node.make("stays", json!({})).await;
    node.make("removed", json!({})).await;
    node.encrypt("stays").await;
    let rows = node.rows().await;
    node.make("k", json!({ "auto_rotate_period": "1h" })).await;
    node.encrypt("k").await;
    node.put("keys/k/rotate", json!({})).await;
    let (status, error) = match node.call(Delete, "keys/k", json!({})).await {
        Err(error) => (error.status(), error.public_text()),
        Ok(_) => panic!("it may not be deleted"),
    };
    assert!(status == 400 && error.contains("deletion_allowed"), "{error}");
    node.put("keys/k/config", json!({ "deletion_allowed": true })).await;
    node.call(Delete, "keys/k", json!({})).await.unwrap();
    assert_eq!(node.rows().await, rows);
    assert_eq!(node.call(Delete, "keys/k", json!({})).await.unwrap_err().status(), 400);

    // As if the process had died after the key's own record was removed.
    let ctx = node.mount.ctx();
    let key = node.engine.existing(&ctx, "removed").await.unwrap();
    let mut batch = crate::core::records::Batch::new();
    ctx.view.delete(&mut batch, &record::key_name("removed").unwrap(), Precondition::Any);
    keys::mark_gone(&ctx, &mut batch, &key.id, ctx.clock.now()).unwrap();
    ctx.view.commit(&batch).await.unwrap();
    let later = Node::new(&scratch);
    later.engine.tick(&later.mount.ctx()).await.unwrap();
    let left = later.rows().await;
    assert!(left < rows, "{left} of {rows}");
    assert!(ctx.view.list(record::GONE).await.unwrap().is_empty());
    assert!(ctx.view.list(&record::versions_dir(&key.id)).await.unwrap().is_empty());
}

#[tokio::test]
async fn keys_rotate_when_their_time_has_come_and_once_over_all_nodes() {
    let scratch = Scratch::new();
    let nodes = [Node::new(&scratch), Node::new(&scratch)];
    nodes[0].make("often", json!({ "auto_rotate_period": "1h" })).await;
    nodes[0].make("never", json!({})).await;
    nodes[0].make("rarely", json!({ "type": "ed25519" })).await;
    nodes[0].put("keys/rarely/config", json!({ "auto_rotate_period": "48h" })).await;
    let latest = |name: &'static str| {
        let node = Node::new(&scratch);
        async move { node.get(&format!("keys/{name}")).await["latest_version"].as_u64().unwrap() }
    };
    let tick = |at: u64| {
        for node in &nodes {
            let start = crate::core::scratch::NOW;
            let passed = node.mount.ctx().clock.now().millis_since(start);
            let ahead = Ttl::from_secs(at).as_millis() - passed;
            node.mount.manual.advance(Duration::from_millis(ahead.try_into().unwrap()));
            node.hears();
        }
        let nodes = &nodes;
        async move {
            for node in nodes {
                node.engine.tick(&node.mount.ctx()).await.unwrap();
            }
        }
    };
    for (at, often, rarely) in [
        (3599, 1, 1),
        (3601, 2, 1),
        (3660, 2, 1),
        (3720, 2, 1),
        (7320, 3, 1),
        (48 * 3600 + 120, 4, 2),
        (48 * 3600 + 240, 4, 2),
    ] {
        tick(at).await;
        assert_eq!((latest("often").await, latest("rarely").await), (often, rarely), "at {at}");
    }
    assert_eq!(latest("never").await, 1);
    nodes[0].hears();
    nodes[0].put("keys/often/config", json!({ "auto_rotate_period": 0 })).await;
    tick(60 * 3600).await;
    assert_eq!(latest("often").await, 4);
}

#[tokio::test]
async fn a_version_that_has_encrypted_all_it_may_is_replaced() {
    let scratch = Scratch::new();
    let node = Node::metered(&scratch, 4, 10);
    node.make("k", json!({})).await;
    let sealed = [node.encrypt("k").await, node.encrypt("k").await];
    assert!(sealed.iter().all(|one| one.starts_with("vault:v1:")));
    let items = vec![json!({ "plaintext": HELLO }); 8];
    let reply = node.put("encrypt/k", json!({ "batch_input": items })).await;
    assert!(reply["batch_results"].as_array().unwrap().iter().all(|one| one["key_version"] == 1));
    assert!(node.encrypt("k").await.starts_with("vault:v2:"), "the eleventh");
    let body = json!({ "plaintext": HELLO, "key_version": 1 });
    let (status, error) = node.refused("encrypt/k", body).await;
    assert!(status == 400 && error.contains("rotate the key"), "{error}");
    assert_eq!(node.decrypt("k", &sealed[0]).await.unwrap(), HELLO);
    // A node that starts now knows nothing of what was left.
    let other = Node::metered(&scratch, 4, 10);
    let reply =
        other.put("encrypt/k", json!({ "batch_input": vec![json!({ "plaintext": HELLO }); 7] }));
    assert_eq!(reply.await["batch_results"][0]["key_version"], 3);

    // Nonces of 192 bits, and those that follow from the message, do not run out.
    for body in [
        json!({ "type": "xchacha20-poly1305" }),
        json!({ "derived": true, "convergent_encryption": true }),
    ] {
        let name = format!("free{}", body.as_object().unwrap().len());
        node.make(&name, body).await;
        let items = vec![json!({ "plaintext": HELLO, "context": HELLO }); 30];
        let reply = node.put(&format!("encrypt/{name}"), json!({ "batch_input": items })).await;
        assert_eq!(reply["batch_results"][29]["key_version"], 1);
    }
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_key_in_use_needs_no_store_and_a_sealed_engine_holds_none() {
    use crate::storage::fault::{FaultyStorage, Moment, Reach};
    let scratch = Scratch::new();
    let faulty = FaultyStorage::new(scratch.storage.clone());
    let mut node = Node::new(&scratch);
    let records = scratch.reopened(faulty.clone());
    node.mount.view = crate::core::view::View::new(
        records,
        crate::types::id::NamespaceId::ROOT,
        crate::core::records::kinds::MOUNT_DATA,
        "m/".into(),
    );
    node.make("k", json!({})).await;
    node.make("s", json!({ "type": "rsa-2048" })).await;
    let sealed = node.encrypt("k").await;
    sign(&node, "s", json!({})).await;
    faulty.fail_reads(Reach::From(1));
    faulty.fail_writes(Reach::From(1), Moment::Before);
    for _ in 0..7 {
        node.encrypt("k").await;
    }
    assert_eq!(node.decrypt("k", &sealed).await.unwrap(), HELLO);
    sign(&node, "s", json!({})).await;
    let error = node.call(Update, "encrypt/k", json!({ "plaintext": HELLO })).await.unwrap_err();
    assert_eq!(error.status(), 503, "the allowance is used up, and none is to be had");
    node.engine.invalidate();
    node.hears();
    assert_eq!(node.decrypt("k", &sealed).await.unwrap_err().status(), 503);
}
