//! Keys that come in and go out.

use super::*;
use crate::crypto::rsa::{RsaKey, RsaSize};
use crate::crypto::signing::{Curve, EcdsaKey, Ed25519Key};

async fn wrapped(node: &Node, hash: RsaHash, key: &[u8]) -> String {
    node.get("wrapping_key").await;
    let ours = node.engine.ring.wrapping(&node.mount.ctx()).await.unwrap().unwrap();
    BASE64.encode(&key_wrap::wrap(&ours, hash, key))
}

#[tokio::test]
async fn keys_of_every_family_are_brought_in() {
    let scratch = Scratch::new();
    let node = Node::new(&scratch);
    let (one, other) =
        (node.get("wrapping_key").await, Node::new(&scratch).get("wrapping_key").await);
    assert_eq!(one, other, "of the mount, not of the node");
    let rsa = RsaKey::generate(RsaSize::Bits2048).unwrap();
    let ec = EcdsaKey::generate(Curve::P256).unwrap();
    let ed = aws_lc_ed25519();
    for (kind, key) in [
        ("aes128-gcm96", &[7u8; 16][..]),
        ("aes256-gcm96", &[7; 32][..]),
        ("chacha20-poly1305", &[7; 32][..]),
        ("hmac", &[7; 40][..]),
        ("rsa-2048", rsa.expose()),
        ("ecdsa-p256", ec.expose()),
        ("ed25519", &ed[..]),
    ] {
        let ciphertext = wrapped(&node, RsaHash::Sha384, key).await;
        let body = json!({
            "ciphertext": ciphertext, "type": kind, "hash_function": "SHA384", "exportable": true,
        });
        node.put(&format!("keys/{kind}/import"), body.clone()).await;
        let told = node.get(&format!("keys/{kind}")).await;
        assert_eq!((&told["imported_key"], &told["type"]), (&json!(true), &json!(kind)));
        let (status, _) = node.refused(&format!("keys/{kind}/import"), body).await;
        assert_eq!(status, 400, "it is there");
        let (status, error) = node.refused(&format!("keys/{kind}/rotate"), json!({})).await;
        assert!(status == 400 && error.contains("allow_rotation"), "{error}");
        let body = json!({ "auto_rotate_period": "2h" });
        assert_eq!(node.refused(&format!("keys/{kind}/config"), body).await.0, 400);
        let again = wrapped(&node, RsaHash::Sha256, key).await;
        node.put(&format!("keys/{kind}/import_version"), json!({ "ciphertext": again })).await;
        assert_eq!(node.get(&format!("keys/{kind}")).await["latest_version"], 2);
    }
    let exported = node.get("export/encryption-key/aes256-gcm96/1").await;
    assert_eq!(exported["keys"]["1"], BASE64.encode(&[7; 32]));
    assert_eq!(node.get("keys/hmac").await["key_size"], 40);
    sign(&node, "ed25519", json!({})).await;
}

/// A private key of Ed25519 in PKCS #8.
fn aws_lc_ed25519() -> Vec<u8> {
    let kept = Ed25519Key::generate().unwrap();
    // RFC 8410 §7: version 0, the algorithm, and the seed as an octet string in another.
    let mut der = data_encoding::HEXLOWER.decode(b"302e020100300506032b657004220420").unwrap();
    der.extend_from_slice(&kept.expose()[..32]);
    der
}

#[tokio::test]
async fn what_is_not_wrapped_or_no_such_key_is_refused_alike() {
    let scratch = Scratch::new();
    let node = Node::new(&scratch);
    let early = BASE64.encode(&[0; 552]);
    let good = wrapped(&node, RsaHash::Sha256, &[7; 32]).await;
    let mut damaged = BASE64.decode(good.as_bytes()).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    let mut errors = std::collections::BTreeSet::new();
    for (ciphertext, kind) in [
        (early.clone(), "aes256-gcm96"),
        (BASE64.encode(&damaged), "aes256-gcm96"),
        (BASE64.encode(&damaged[..512]), "aes256-gcm96"),
        ("AAAA".to_owned(), "aes256-gcm96"),
        (good.clone(), "aes128-gcm96"),
        (good.clone(), "ed25519"),
        (good.clone(), "rsa-2048"),
        (wrapped(&node, RsaHash::Sha256, &[7; 31]).await, "hmac"),
        (wrapped(&node, RsaHash::Sha512, &[7; 32]).await, "aes256-gcm96"),
    ] {
        let body = json!({ "ciphertext": ciphertext, "type": kind });
        errors.insert(node.refused("keys/k/import", body).await);
    }
    assert_eq!(errors.len(), 1, "{errors:?}");
    for (body, field) in [
        (json!({}), "ciphertext"),
        (json!({ "ciphertext": "%" }), "ciphertext"),
        (json!({ "ciphertext": good, "hash_function": "SHA1" }), "hash_function"),
    ] {
        let (status, error) = node.refused("keys/k/import", body).await;
        assert!(status == 400 && error.starts_with(&format!("field \"{field}\"")), "{error}");
    }
    node.make("own", json!({})).await;
    let (status, _) = node.refused("keys/own/import_version", json!({ "ciphertext": good })).await;
    assert_eq!(status, 400);
    let body = json!({ "ciphertext": good, "allow_rotation": true, "auto_rotate_period": "1h" });
    node.put("keys/k/import", body).await;
    node.put("keys/k/rotate", json!({})).await;
    assert_eq!(node.get("keys/k").await["latest_version"], 2);
}

#[tokio::test]
async fn keys_leave_only_when_that_is_allowed() {
    let scratch = Scratch::new();
    let node = Node::new(&scratch);
    let status = |path: &'static str| {
        let node = &node;
        async move { node.call(Read, path, json!({})).await.map_or_else(|e| e.status(), |_| 200) }
    };
    for kind in ["aes256-gcm96", "ed25519", "ecdsa-p256", "rsa-2048", "hmac"] {
        node.make(kind, json!({ "type": kind })).await;
    }
    for (path, expected) in [
        ("export/encryption-key/aes256-gcm96", 400),
        ("export/hmac-key/hmac", 400),
        ("export/signing-key/ed25519", 400),
        ("backup/ed25519", 400),
        ("export/public-key/ed25519", 200),
        ("export/public-key/aes256-gcm96", 400),
        ("export/encryption-key/none", 404),
        ("export/other-key/ed25519", 400),
    ] {
        assert_eq!(status(path).await, expected, "{path}");
    }
    for kind in ["aes256-gcm96", "ed25519", "ecdsa-p256", "rsa-2048", "hmac"] {
        node.put(&format!("keys/{kind}/config"), json!({ "exportable": true })).await;
    }
    for (path, expected) in [
        ("export/encryption-key/aes256-gcm96", 200),
        ("export/encryption-key/aes256-gcm96/latest", 200),
        ("export/encryption-key/aes256-gcm96/2", 400),
        ("export/encryption-key/aes256-gcm96/x", 400),
        ("export/signing-key/aes256-gcm96", 400),
        ("export/encryption-key/ed25519", 400),
        ("export/encryption-key/hmac", 400),
        ("export/hmac-key/hmac", 200),
        ("backup/ed25519", 400),
    ] {
        assert_eq!(status(path).await, expected, "{path}");
    }
    for (path, begin) in [
        ("export/signing-key/ecdsa-p256", "-----BEGIN EC PRIVATE KEY-----"),
        ("export/signing-key/rsa-2048", "-----BEGIN RSA PRIVATE KEY-----"),
        ("export/encryption-key/rsa-2048", "-----BEGIN RSA PRIVATE KEY-----"),
        ("export/public-key/rsa-2048", "-----BEGIN PUBLIC KEY-----"),
    ] {
        assert!(text(&node.get(path).await["keys"], "1").starts_with(begin), "{path}");
    }
    node.put("keys/aes256-gcm96/rotate", json!({})).await;
    node.put("keys/aes256-gcm96/config", json!({ "min_decryption_version": 2 })).await;
    let exported = node.get("export/encryption-key/aes256-gcm96").await;
    assert_eq!(exported["keys"].as_object().unwrap().len(), 1);
    assert_eq!(status("export/encryption-key/aes256-gcm96/1").await, 400);
}

#[tokio::test]
async fn a_backup_brings_back_the_key_and_all_it_encrypted() {
    let scratch = Scratch::new();
    let node = Node::metered(&scratch, 4, 100);
    let body = json!({
        "exportable": true, "allow_plaintext_backup": true, "auto_rotate_period": "24h",
    });
    node.make("k", body).await;
    let first = node.encrypt("k").await;
    node.put("keys/k/rotate", json!({})).await;
    let second = node.encrypt("k").await;
    node.put("keys/k/config", json!({ "min_decryption_version": 2 })).await;
    let backup = text(&node.get("backup/k").await, "backup");

    let other = Scratch::new();
    let there = Node::metered(&other, 4, 100);
    there.put("restore", json!({ "backup": backup })).await;
    assert_eq!(there.decrypt("k", &second).await.unwrap(), HELLO);
    let mut before = node.get("keys/k").await;
    assert_eq!(there.get("keys/k").await, before);
    there.put("keys/k/config", json!({ "min_decryption_version": 1 })).await;
    assert_eq!(there.decrypt("k", &first).await.unwrap(), HELLO, "also what may not decrypt now");
    // What was counted still counts.
    let body = json!({ "batch_input": vec![json!({ "plaintext": HELLO }); 97] });
    assert_eq!(there.put("encrypt/k", body).await["batch_results"][0]["key_version"], 3);

    let rows = there.rows().await;
    let (status, error) = there.refused("restore", json!({ "backup": backup })).await;
    assert!(status == 400 && error.contains("force"), "{error}");
    let by_force = json!({ "backup": backup, "force": true });
    let (status, error) = there.refused("restore", by_force.clone()).await;
    assert!(status == 400 && error.contains("deletion_allowed"), "{error}");
    there.put("keys/k/config", json!({ "deletion_allowed": true })).await;
    there.put("restore", by_force).await;
    there.put("restore/copy", json!({ "backup": backup })).await;
    assert_eq!(there.decrypt("copy", &second).await.unwrap(), HELLO);
    before["name"] = json!("copy");
    assert_eq!(there.get("keys/copy").await, before);
    there.put("keys/copy/config", json!({ "deletion_allowed": true })).await;
    there.call(Delete, "keys/copy", json!({})).await.unwrap();
    assert!(there.rows().await < rows, "what was replaced is gone");
}

#[tokio::test]
async fn damaged_backups_are_refused() {
    let scratch = Scratch::new();
    let node = Node::new(&scratch);
    let body = json!({ "type": "ed25519", "exportable": true, "allow_plaintext_backup": true });
    node.make("k", body).await;
    let backup = text(&node.get("backup/k").await, "backup");
    let parsed: Value = serde_json::from_slice(&BASE64.decode(backup.as_bytes()).unwrap()).unwrap();
    let rows = node.rows().await;
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut value = parsed.clone();
        change(&mut value);
        BASE64.encode(value.to_string().as_bytes())
    };
    for bad in [
        "%".to_owned(),
        "AAAA".to_owned(),
        BASE64.encode(b"{}"),
        changed(&|v| v["format"] = json!("other")),
        changed(&|v| v["key"]["latest_version"] = json!(2)),
        changed(&|v| v["key"]["latest_version"] = json!(u64::MAX)),
        changed(&|v| v["key"]["min_decryption_version"] = json!(0)),
        changed(&|v| v["key"]["type"] = json!("rsa-2048")),
        changed(&|v| v["key"]["type"] = json!("none")),
        changed(&|v| v["key"]["convergent"] = json!(true)),
        changed(&|v| v["versions"]["1"]["key"] = json!(HELLO)),
        changed(&|v| v["versions"]["1"]["key"] = json!(BASE64.encode(&[1; 64]))),
        changed(&|v| v["versions"] = json!({})),
        changed(&|v| v["versions"]["1"]["public_key"] = json!(BASE64.encode(&[1; 32]))),
        changed(&|v| v["versions"]["1"]["public_key"] = Value::Null),
        changed(&|v| v["key"]["hmac_key_bytes"] = json!(1_u64 << 40)),
        changed(&|v| v["key"]["auto_rotate_period"] = json!(1)),
    ] {
        let (status, error) = node.refused("restore/new", json!({ "backup": bad })).await;
        assert_eq!(status, 400, "{error}");
    }
    let elsewhere = changed(&|v| v["name"] = json!("../x"));
    assert_eq!(node.refused("restore", json!({ "backup": elsewhere })).await.0, 400);
    assert_eq!(node.rows().await, rows);
}
