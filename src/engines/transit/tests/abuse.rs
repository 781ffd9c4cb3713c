//! What somebody might try.

use super::*;

#[tokio::test]
async fn whatever_does_not_open_is_answered_alike() {
    let scratch = Scratch::new();
    let node = Node::new(&scratch);
    for kind in CIPHERS.into_iter().chain(["rsa-2048"]) {
        node.make(kind, json!({ "type": kind })).await;
        let sealed = node.encrypt(kind).await;
        let mut bytes =
            BASE64.decode(sealed.strip_prefix("vault:v1:").unwrap().as_bytes()).unwrap();
        let with = |bytes: &[u8]| format!("vault:v1:{}", BASE64.encode(bytes));
        let mut tried = vec![
            "vault:v1:".to_owned(),
            "vault:v1:AAAA".to_owned(),
            "vault:v1:%%%%".to_owned(),
            format!("{sealed}AAAA"),
            with(&bytes[1..]),
            with(&bytes[..bytes.len() - 1]),
            with(&vec![0; 256]),
            with(&vec![255; 256]),
        ];
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            bytes[at] ^= 1;
            tried.push(with(&bytes));
            bytes[at] ^= 1;
        }
        let errors: std::collections::BTreeSet<_> =
            join_all(tried.iter().map(|one| node.decrypt(kind, one)))
                .await
                .into_iter()
                .map(|opened| {
                    (opened.as_ref().unwrap_err().status(), opened.unwrap_err().public_text())
                })
                .collect();
        assert_eq!(errors.len(), 1, "{kind}: {errors:?}");
        assert_eq!(node.decrypt(kind, &sealed).await.unwrap(), HELLO);
    }
}

#[tokio::test]
async fn versions_and_prefixes_are_not_guessed() {
    let scratch = Scratch::new();
    let node = Node::new(&scratch);
    node.make("k", json!({})).await;
    let sealed = node.encrypt("k").await;
    let rest = sealed.strip_prefix("vault:v1:").unwrap();
    for bad in [
        format!("vault:v0:{rest}"),
        format!("vault:v01:{rest}"),
        format!("vault:v2:{rest}"),
        format!("vault:v18446744073709551615:{rest}"),
        format!("vault:v18446744073709551616:{rest}"),
        format!("vault:v1{rest}"),
        format!("vault:{rest}"),
        rest.to_owned(),
        String::new(),
    ] {
        assert_eq!(node.decrypt("k", &bad).await.unwrap_err().status(), 400, "{bad}");
    }
}

#[tokio::test]
async fn keys_do_only_what_their_type_is_for() {
    let scratch = Scratch::new();
    let node = Node::new(&scratch);
    for kind in ["aes256-gcm96", "ed25519", "ecdsa-p256", "hmac", "rsa-2048"] {
        node.make(kind, json!({ "type": kind })).await;
    }
    for kind in ["ed25519", "ecdsa-p256", "hmac"] {
        for (path, body) in [
            ("encrypt", json!({ "plaintext": HELLO })),
            ("decrypt", json!({ "ciphertext": "vault:v1:AAAA" })),
            ("rewrap", json!({ "ciphertext": "vault:v1:AAAA" })),
            ("datakey/plaintext", json!({})),
        ] {
            let (status, _) = node.refused(&format!("{path}/{kind}"), body).await;
            assert_eq!(status, 400, "{path} {kind}");
        }
    }
    for kind in ["aes256-gcm96", "hmac"] {
        assert_eq!(node.refused(&format!("sign/{kind}"), json!({ "input": HELLO })).await.0, 400);
        let body = json!({ "input": HELLO, "signature": "vault:v1:AAAA" });
        assert_eq!(node.refused(&format!("verify/{kind}"), body).await.0, 400);
    }
    let body = json!({ "plaintext": HELLO, "associated_data": HELLO });
    assert_eq!(node.refused("encrypt/rsa-2048", body).await.0, 400);
    let long = json!({ "plaintext": BASE64.encode(&[0; 191]) });
    assert_eq!(node.refused("encrypt/rsa-2048", long).await.0, 400);
    for (manner, field) in [
        (json!({ "hash_algorithm": "sha1" }), "hash_algorithm"),
        (json!({ "hash_algorithm": "none" }), "hash_algorithm"),
        (json!({ "hash_algorithm": "sha2-224" }), "hash_algorithm"),
        (json!({ "signature_algorithm": "pkcs1" }), "signature_algorithm"),
        (json!({ "marshaling_algorithm": "der" }), "marshaling_algorithm"),
        (json!({ "salt_length": "0" }), "salt_length"),
        (json!({ "salt_length": "33" }), "salt_length"),
        (json!({ "salt_length": "-1" }), "salt_length"),
        (json!({ "key_version": 2 }), "key_version"),
    ] {
        let mut body = manner.as_object().unwrap().clone();
        body.insert("input".into(), json!(HELLO));
        let (status, error) = node.refused("sign/rsa-2048", Value::Object(body)).await;
        assert!(
            status == 400 && error.starts_with(&format!("field \"{field}\"")),
            "{manner}: {error}"
        );
    }
}

#[tokio::test]
async fn keys_that_make_no_sense_are_refused_by_field() {
    let scratch = Scratch::new();
    let node = Node::new(&scratch);
    for (body, field) in [
        (json!({ "type": "aes256-cbc" }), "type"),
        (json!({ "type": "rsa-1024" }), "type"),
        (json!({ "type": "rsa-2048", "derived": true }), "derived"),
        (json!({ "type": "hmac", "derived": true }), "derived"),
        (json!({ "convergent_encryption": true }), "convergent_encryption"),
        (
            json!({ "type": "ed25519", "derived": true, "convergent_encryption": true }),
            "convergent_encryption",
        ),
        (json!({ "key_size": 32 }), "key_size"),
        (json!({ "type": "hmac", "key_size": 31 }), "key_size"),
        (json!({ "type": "hmac", "key_size": 513 }), "key_size"),
        (json!({ "auto_rotate_period": 60 }), "auto_rotate_period"),
    ] {
        let (status, error) = node.refused("keys/k", body.clone()).await;
        assert!(
            status == 400 && error.starts_with(&format!("field \"{field}\"")),
            "{body}: {error}"
        );
    }
    assert_eq!(node.refused("keys/-x", json!({})).await.0, 400);
    for path in ["keys/none/rotate", "keys/none/config", "keys/none/trim", "encrypt/none"] {
        let body = match path {
            "keys/none/trim" => json!({ "min_available_version": 1 }),
            _ => json!({}),
        };
        assert_eq!(node.refused(path, body).await.0, 400, "{path}");
    }
    assert_eq!(node.rows().await, 0);
}

#[tokio::test]
async fn encryption_makes_a_key_only_for_those_who_may_create_one() {
    let scratch = Scratch::new();
    let node = Node::new(&scratch);
    let exists = |path: &'static str| {
        let node = &node;
        async move {
            let (route, params) = route::select(node.engine.routes(), path, Update).unwrap();
            node.engine.exists(&node.mount.ctx(), route, &params).await.unwrap()
        }
    };
    assert_eq!(exists("encrypt/new").await, Some(false));
    assert_eq!(exists("encrypt/-bad").await, Some(false));
    assert_eq!(exists("keys/new").await, None);
    assert_eq!(exists("decrypt/new").await, None);
    let body = json!({ "plaintext": HELLO });
    assert_eq!(node.refused("encrypt/new", body.clone()).await.0, 400, "as an update");
    node.call(Create, "encrypt/new", body.clone()).await.unwrap();
    assert_eq!(exists("encrypt/new").await, Some(true));
    assert_eq!(node.get("keys/new").await["derived"], false);
    assert_eq!(node.call(Create, "encrypt/-bad", body).await.unwrap_err().status(), 400);
    let body = json!({ "batch_input": [{ "plaintext": HELLO, "context": HELLO }] });
    node.call(Create, "encrypt/derived", body).await.unwrap();
    assert_eq!(node.get("keys/derived").await["derived"], true);
    for kind in ["rsa-2048", "ed25519", "none"] {
        let body = json!({ "plaintext": HELLO, "type": kind });
        assert_eq!(node.call(Create, "encrypt/other", body).await.unwrap_err().status(), 400);
    }
    // Two that come at once get one key.
    let nodes = [Node::new(&scratch), Node::new(&scratch)];
    let at_once =
        nodes.iter().map(|node| node.call(Create, "encrypt/both", json!({ "plaintext": HELLO })));
    for sealed in join_all(at_once).await {
        let sealed = Value::Object(sealed.unwrap().data.unwrap());
        node.hears();
        assert_eq!(node.decrypt("both", &text(&sealed, "ciphertext")).await.unwrap(), HELLO);
    }
}
