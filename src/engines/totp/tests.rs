use std::time::Duration;

use serde_json::{Value, json};

use super::TotpEngine;
use crate::core::engine::CallerFacts;
use crate::core::error::CoreError;
use crate::core::operation::Operation::{self, Delete, List, Read, Update};
use crate::core::scratch::{Scratch, ScratchMount};
use crate::crypto::otp::OtpAuth;
use crate::engines::scratch::{answered, ask};

/// "12345678901234567890", the key of the examples in RFC 6238.
const KEY: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

async fn tried(
    mount: &ScratchMount,
    operation: Operation,
    path: &str,
    body: Value,
) -> Result<Value, CoreError> {
    let nobody = CallerFacts::default();
    ask(&TotpEngine, mount, &nobody, operation, path, body).await.map(answered)
}

async fn done(mount: &ScratchMount, operation: Operation, path: &str, body: Value) -> Value {
    tried(mount, operation, path, body).await.unwrap()
}

async fn code(mount: &ScratchMount) -> String {
    done(mount, Read, "code/ann", json!({})).await["code"].as_str().unwrap().to_owned()
}

async fn check(mount: &ScratchMount, code: &str) -> Result<Value, CoreError> {
    tried(mount, Update, "code/ann", json!({ "code": code })).await
}

/// A code that no step in sight has.
async fn wrong(mount: &ScratchMount) -> String {
    let right: u32 = code(mount).await.parse().unwrap();
    format!("{:06}", (right + 500_000) % 1_000_000)
}

async fn with_key() -> (Scratch, ScratchMount) {
    let scratch = Scratch::new();
    let mount = ScratchMount::new(&scratch, "totp/");
    done(&mount, Update, "keys/ann", json!({ "key": KEY, "skew": 0 })).await;
    (scratch, mount)
}

#[tokio::test]
async fn a_code_counts_once_and_so_do_none_before_it() {
    let (scratch, mount) = with_key().await;
    let other_node = ScratchMount::new(&scratch, "totp/");
    done(&mount, Update, "keys/ann", json!({ "key": KEY, "skew": 1 })).await;
    let first = code(&mount).await;
    mount.manual.advance(Duration::from_secs(30));
    other_node.manual.advance(Duration::from_secs(30));
    let second = code(&mount).await;
    assert_eq!(check(&mount, &second).await.unwrap(), json!({ "valid": true }));
    for node in [&mount, &other_node] {
        for used in [&second, &first] {
            let error = check(node, used).await.unwrap_err();
            assert_eq!(error.status(), 400);
            assert!(error.to_string().starts_with("code already used"), "{error}");
        }
    }
    mount.manual.advance(Duration::from_secs(30));
    let third = code(&mount).await;
    assert_eq!(check(&mount, &third).await.unwrap(), json!({ "valid": true }));
}

#[tokio::test]
async fn of_many_who_bring_one_code_at_once_one_is_let_in() {
    let (scratch, mount) = with_key().await;
    let other_node = ScratchMount::new(&scratch, "totp/");
    let code = code(&mount).await;
    let (mount, other_node, code) = (&mount, &other_node, code.as_str());
    let tries = (0..4).flat_map(|_| [check(mount, code), check(other_node, code)]);
    let results = futures_util::future::join_all(tries).await;
    let valid = results.iter().filter(|result| matches!(result, Ok(v) if v["valid"] == true));
    assert_eq!(valid.count(), 1);
}

#[tokio::test]
async fn guesses_are_slowed_down_on_all_nodes_and_an_admin_can_unlock() {
    let (scratch, mount) = with_key().await;
    let bad = wrong(&mount).await;
    for _ in 0..5 {
        assert_eq!(check(&mount, &bad).await.unwrap(), json!({ "valid": false }));
    }
    // Neither the right code nor another node, nor a restart, helps now.
    let right = code(&mount).await;
    let other_node = ScratchMount::new(&scratch, "totp/");
    for node in [&mount, &other_node] {
        let error = check(node, &right).await.unwrap_err();
        assert_eq!((error.status(), error.retry_after().unwrap().as_secs()), (429, 31));
    }
    done(&mount, Update, "keys/ann/unlock", json!({})).await;
    assert_eq!(check(&other_node, &right).await.unwrap(), json!({ "valid": true }));
}

#[tokio::test]
async fn each_wrong_code_beyond_five_doubles_the_wait_and_a_right_one_ends_it() {
    let (_scratch, mount) = with_key().await;
    for _ in 0..5 {
        let bad = wrong(&mount).await;
        check(&mount, &bad).await.unwrap();
    }
    for wait in [30, 60, 120, 240, 480, 900, 900, 900] {
        mount.manual.advance(Duration::from_secs(wait - 1));
        let bad = wrong(&mount).await;
        assert_eq!(check(&mount, &bad).await.unwrap_err().status(), 429, "{wait}");
        mount.manual.advance(Duration::from_secs(1));
        let bad = wrong(&mount).await;
        assert_eq!(check(&mount, &bad).await.unwrap(), json!({ "valid": false }), "{wait}");
    }
    mount.manual.advance(Duration::from_secs(900));
    let right = code(&mount).await;
    assert_eq!(check(&mount, &right).await.unwrap(), json!({ "valid": true }));
    mount.manual.advance(Duration::from_secs(30));
    for _ in 0..4 {
        let bad = wrong(&mount).await;
        assert_eq!(check(&mount, &bad).await.unwrap(), json!({ "valid": false }));
    }
    // So does a day without any.
    mount.manual.advance(Duration::from_secs(24 * 3600));
    for _ in 0..2 {
        let bad = wrong(&mount).await;
        assert_eq!(check(&mount, &bad).await.unwrap(), json!({ "valid": false }));
    }
    // What does not look like a code is a wrong one.
    assert_eq!(check(&mount, "").await.unwrap(), json!({ "valid": false }));
    let error = tried(&mount, Update, "code/ann", json!({})).await.unwrap_err();
    assert_eq!(error.to_string(), "field \"code\" is required");
}

#[tokio::test]
async fn a_secret_is_shown_when_it_is_made_and_never_again() {
    let scratch = Scratch::new();
    let mount = ScratchMount::new(&scratch, "totp/");
    let body = json!({
        "generate": true, "issuer": "Corp", "account_name": "ann@corp.example", "key_size": 32,
        "algorithm": "SHA256", "digits": 8, "period": "1m",
    });
    let made = done(&mount, Update, "keys/ann", body.clone()).await;
    let key = OtpAuth::parse(made["url"].as_str().unwrap()).unwrap();
    assert_eq!((key.issuer(), key.account()), (Some("Corp"), "ann@corp.example"));
    assert_eq!(key.key().len(), 32);
    let image = data_encoding::BASE64.decode(made["barcode"].as_str().unwrap().as_bytes()).unwrap();
    assert!(image.starts_with(b"\x89PNG"));
    // The app that was given the address shows the code that counts here.
    let step = key.parameters().step_at(crate::core::scratch::NOW);
    let code = key.parameters().code(key.key(), step);
    assert_eq!(code.expose().len(), 8);
    assert_eq!(check(&mount, code.expose()).await.unwrap(), json!({ "valid": true }));

    let read = done(&mount, Read, "keys/ann", json!({})).await;
    let expected = json!({
        "account_name": "ann@corp.example", "algorithm": "SHA256", "digits": 8, "issuer": "Corp",
        "period": 60, "skew": 1,
    });
    assert_eq!(read, expected);
    assert_eq!(done(&mount, List, "keys/", json!({})).await, json!({ "keys": ["ann"] }));

    let mut quiet = body.clone();
    quiet["exported"] = json!(false);
    assert_eq!(done(&mount, Update, "keys/ann", quiet).await, Value::Null);
    let mut plain = body;
    plain["qr_size"] = json!(0);
    let made = done(&mount, Update, "keys/ann", plain).await;
    assert!(made["url"].is_string() && made.get("barcode").is_none());

    done(&mount, Delete, "keys/ann", json!({})).await;
    for path in ["keys/ann", "code/ann"] {
        assert_eq!(tried(&mount, Read, path, json!({})).await.unwrap_err().status(), 404);
    }
    assert_eq!(check(&mount, "123456").await.unwrap_err().status(), 404);
    let unlock = tried(&mount, Update, "keys/ann/unlock", json!({})).await;
    assert_eq!(unlock.unwrap_err().status(), 404);
}

#[tokio::test]
async fn a_new_secret_begins_anew() {
    let (_scratch, mount) = with_key().await;
    let right = code(&mount).await;
    check(&mount, &right).await.unwrap();
    assert!(check(&mount, &right).await.is_err());
    done(&mount, Update, "keys/ann", json!({ "key": KEY, "skew": 0 })).await;
    assert_eq!(check(&mount, &right).await.unwrap(), json!({ "valid": true }));
}

#[tokio::test]
async fn addresses_and_settings_are_taken_over() {
    let scratch = Scratch::new();
    let mount = ScratchMount::new(&scratch, "totp/");
    let url = format!("otpauth://totp/Corp:bob?secret={KEY}&digits=8&period=60&issuer=Corp");
    done(&mount, Update, "keys/bob", json!({ "url": url, "skew": 0 })).await;
    let expected = json!({
        "account_name": "bob", "algorithm": "SHA1", "digits": 8, "issuer": "Corp", "period": 60,
        "skew": 0,
    });
    assert_eq!(done(&mount, Read, "keys/bob", json!({})).await, expected);
    done(&mount, Update, "keys/carl", json!({ "key": KEY.to_lowercase() })).await;
    assert_eq!(done(&mount, Read, "keys/carl", json!({})).await["account_name"], "carl");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_name_and_without_the_secret() {
    let scratch = Scratch::new();
    let mount = ScratchMount::new(&scratch, "totp/");
    let url = format!("otpauth://totp/a?secret={KEY}");
    let new = |extra: Value| {
        let mut body = json!({ "generate": true, "issuer": "i", "account_name": "a" });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    for (field, body) in [
        ("key", json!({})),
        ("key", json!({ "url": url, "key": KEY })),
        ("key", json!({ "key": "not base32!" })),
        ("key", json!({ "key": "GEZDGNBV" })),
        ("url", json!({ "url": "otpauth://hotp/a?secret=GEZDGNBVGY3TQOJQ&counter=1" })),
        ("digits", json!({ "url": url, "digits": 8 })),
        ("generate", new(json!({ "key": KEY }))),
        ("generate", new(json!({ "url": url }))),
        ("account_name", new(json!({ "account_name": "" }))),
        ("account_name", new(json!({ "account_name": "a:b" }))),
        ("issuer", new(json!({ "issuer": "" }))),
        ("key_size", new(json!({ "key_size": 15 }))),
        ("key_size", new(json!({ "key_size": 129 }))),
        ("qr_size", new(json!({ "qr_size": 1025 }))),
        ("qr_size", new(json!({ "qr_size": 20 }))),
        ("digits", new(json!({ "digits": 7 }))),
        ("digits", new(json!({ "digits": 262 }))),
        ("skew", new(json!({ "skew": 2 }))),
        ("skew", new(json!({ "skew": 257 }))),
        ("period", new(json!({ "period": 0 }))),
        ("period", new(json!({ "period": "2h" }))),
        ("algorithm", new(json!({ "algorithm": "MD5" }))),
    ] {
        let error = tried(&mount, Update, "keys/ann", body.clone()).await.unwrap_err();
        assert_eq!(error.status(), 400, "{body}");
        let text = error.to_string();
        assert!(text.starts_with(&format!("field \"{field}\"")), "{body}: {text}");
        assert!(!text.contains("GEZDGNBV") && !text.contains("not base32!"), "{text}");
    }
    assert_eq!(tried(&mount, List, "keys/", json!({})).await.unwrap_err().status(), 404);
}
