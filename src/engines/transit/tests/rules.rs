//! What keys may do: soft deletion, keys that encrypting makes, hashes.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn a_soft_deleted_key_does_nothing_until_it_is_restored() {
    let scratch = Scratch::new();
    let (node, other) = (Node::new(&scratch), Node::new(&scratch));
    let body = json!({
        "exportable": true, "allow_plaintext_backup": true, "auto_rotate_period": "1h",
    });
    node.make("k", body).await;
    let sealed = node.encrypt("k").await;
    assert_eq!(other.decrypt("k", &sealed).await.unwrap(), HELLO);
    let told = node.call(Delete, "keys/k/soft-delete", json!({})).await.unwrap();
    assert_eq!(told.data.unwrap()["soft_deleted"], true);
    let again = node.call(Delete, "keys/k/soft-delete", json!({})).await.unwrap();
    assert_eq!(again.warnings.len(), 1);
    other.hears();
    for node in [&node, &other] {
        for (path, body) in [
            ("encrypt/k", json!({ "plaintext": HELLO })),
            ("decrypt/k", json!({ "ciphertext": sealed })),
            ("rewrap/k", json!({ "ciphertext": sealed })),
            ("datakey/wrapped/k", json!({})),
            ("hmac/k", json!({ "input": HELLO })),
            ("verify/k", json!({ "input": HELLO, "hmac": "vault:v1:AAAA" })),
            ("sign/k", json!({ "input": HELLO })),
            ("keys/k/rotate", json!({})),
            ("keys/k/trim", json!({ "min_available_version": 1 })),
            ("keys/k/import_version", json!({ "ciphertext": "AAAA" })),
        ] {
            let (status, error) = node.refused(path, body).await;
            assert!(status == 400 && error.contains("soft-deleted"), "{path}: {error}");
        }
        for path in ["backup/k", "export/encryption-key/k"] {
            let error = node.call(Read, path, json!({})).await.unwrap_err();
            assert!(error.to_string().contains("soft-deleted"), "{path}: {error}");
        }
        assert_eq!(node.get("keys/k").await["soft_deleted"], true);
    }
    // Its rotation waits, and is made up for.
    node.mount.manual.advance(Duration::from_secs(7200));
    node.engine.tick(&node.mount.ctx()).await.unwrap();
    assert_eq!(node.get("keys/k").await["latest_version"], 1);
    node.put("keys/k/soft-delete-restore", json!({})).await;
    assert_eq!(node.decrypt("k", &sealed).await.unwrap(), HELLO);
    node.engine.tick(&node.mount.ctx()).await.unwrap();
    assert_eq!(node.get("keys/k").await["latest_version"], 2);
    let idle = node.call(Update, "keys/k/soft-delete-restore", json!({})).await.unwrap();
    assert_eq!(idle.warnings.len(), 1);
    assert_eq!(node.refused("keys/none/soft-delete-restore", json!({})).await.0, 400);
}

#[tokio::test]
async fn encrypting_makes_no_key_where_that_is_switched_off() {
    let scratch = Scratch::new();
    let node = Node::new(&scratch);
    let create = |name: &'static str| {
        let node = &node;
        async move {
            let body = json!({ "plaintext": HELLO });
            node.call(Create, &format!("encrypt/{name}"), body).await.map(drop)
        }
    };
    assert_eq!(node.get("config/keys").await, json!({ "disable_upsert": false }));
    create("one").await.unwrap();
    let off = json!({ "disable_upsert": true });
    assert_eq!(node.put("config/keys", off.clone()).await, off);
    let error = create("two").await.unwrap_err();
    assert!(error.status() == 400 && error.to_string().contains("config/keys"), "{error}");
    create("one").await.unwrap();
    assert_eq!(node.call(Read, "keys/two", json!({})).await.unwrap_err().status(), 404);
    assert_eq!(Node::new(&scratch).get("config/keys").await, off);
    assert_eq!(node.refused("config/keys", json!({})).await.0, 400);
    node.put("config/keys", json!({ "disable_upsert": false })).await;
    create("two").await.unwrap();
}

#[tokio::test]
async fn hashes_serve_where_they_are_safe() {
    let scratch = Scratch::new();
    let node = Node::new(&scratch);
    for kind in ["ecdsa-p256", "rsa-2048", "hmac"] {
        node.make(kind, json!({ "type": kind })).await;
    }
    for hash in Hash::ALL {
        let name = hash.name();
        let mac = node.put(&format!("hmac/hmac/{name}"), json!({ "input": HELLO })).await;
        let claim = json!({ "input": HELLO, "hmac": mac["hmac"], "hash_algorithm": name });
        assert_eq!(node.put("verify/hmac", claim.clone()).await["valid"], true, "{name}");
        assert_eq!(node.put("verify/rsa-2048", claim).await["valid"], false, "{name}");
        let bytes = BASE64.decode(text(&mac, "hmac").strip_prefix("vault:v1:").unwrap().as_bytes());
        assert_eq!(bytes.unwrap().len(), hash.bytes(), "{name}");

        let body = json!({ "input": HELLO, "hash_algorithm": name });
        if hash == Hash::Sha1 {
            for kind in ["ecdsa-p256", "rsa-2048"] {
                let (status, error) = node.refused(&format!("sign/{kind}"), body.clone()).await;
                assert!(status == 400 && error.contains("only for HMACs"), "{error}");
                let mut claim = body.clone();
                claim["signature"] = json!("vault:v1:AAAA");
                let (status, error) = node.refused(&format!("verify/{kind}"), claim).await;
                assert!(status == 400 && error.contains("only for HMACs"), "{error}");
            }
            continue;
        }
        let signed = node.put("sign/ecdsa-p256", body.clone()).await;
        let mut claim = body.clone();
        claim["signature"] = signed["signature"].clone();
        assert_eq!(node.put("verify/ecdsa-p256", claim.clone()).await["valid"], true, "{name}");
        claim["input"] = json!(OTHER);
        assert_eq!(node.put("verify/ecdsa-p256", claim).await["valid"], false, "{name}");
        let by_rsa = node.call(Update, "sign/rsa-2048", body).await;
        assert_eq!(by_rsa.is_ok(), ["sha2-256", "sha2-384", "sha2-512"].contains(&name), "{name}");
    }
}
