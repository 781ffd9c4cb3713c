//! The seal's own answers, from an empty store to a new set of shares.

use std::sync::Arc;

use serde_json::{Value, json};

use super::stage::Stage;
use crate::support::wire::soon;

fn texts(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_seal_answers_as_recorded() {
    let mut stage = Stage::fresh("seal", 3, 2);
    // Until there is a token, this is somebody with a certificate that no role knows.
    for path in
        ["sys/init", "sys/seal-status", "sys/seal-backend-status", "sys/health", "sys/leader"]
    {
        stage.get(path).await;
    }
    stage.post("sys/unseal", json!({ "key": "00" })).await;
    stage.get("sys/mounts").await;
    stage.post("sys/init", json!({ "secret_shares": 3, "secret_threshold": 4 })).await;
    let made = stage.post("sys/init", json!({ "secret_shares": 3, "secret_threshold": 2 })).await;
    let keys = texts(&made["keys"]);
    stage.post("sys/init", json!({ "secret_shares": 3, "secret_threshold": 2 })).await;
    stage.get("sys/init").await;
    stage.get("sys/health").await;
    stage.get("sys/health?sealedcode=299").await;
    stage.get("sys/mounts").await;
    stage.post("sys/unseal", json!({})).await;
    stage.post("sys/unseal", json!({ "key": "not a share" })).await;
    stage.post("sys/unseal", json!({ "key": keys[0] })).await;
    stage.get("sys/seal-status").await;
    stage.get("sys/seal-backend-status").await;
    stage.post("sys/unseal", json!({ "reset": true })).await;
    for key in &keys[..2] {
        stage.post("sys/unseal", json!({ "key": key })).await;
    }
    for path in ["sys/seal-status", "sys/health", "sys/health?activecode=298", "sys/leader"] {
        stage.get(path).await;
    }
    generate_root(&mut stage, "sys/generate-root", &keys).await;
    generate_root(&mut stage, "sys/generate-root-token", &keys).await;
    let keys = rekey(&mut stage, "sys/rekey", keys).await;

    let token = made["root_token"].as_str().unwrap();
    stage.root = Arc::new(stage.broker.admin().with_token(token));
    rekey(&mut stage, "sys/rotate/root", keys).await;
    for (rotate, config) in
        [("sys/rotate", "sys/rotate/config"), ("sys/rotate/keyring", "sys/rotate/keyring/config")]
    {
        soon(async {
            let status = async || stage.root.read("sys/key-status").await.data();
            while status().await["terms"].as_array().unwrap().len() > 1 {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
        stage.get("sys/key-status").await;
        stage.post(rotate, json!({})).await;
        stage.post(rotate, json!({ "suite": "rot13" })).await;
        stage.get(config).await;
        stage.post(config, json!({ "interval": "1s" })).await;
        stage.post(config, json!({ "interval": "2400h", "max_operations": 2_000_000 })).await;
        stage.get(config).await;
    }
    stage.post("sys/seal", json!({})).await;
    stage.finish();
}

async fn generate_root(stage: &mut Stage, under: &str, keys: &[String]) {
    let (attempt, update) = (format!("{under}/attempt"), format!("{under}/update"));
    stage.get(&attempt).await;
    stage.post(&update, json!({ "key": keys[0], "nonce": "none" })).await;
    stage.post(&attempt, json!({ "otp": "short" })).await;
    stage.post(&attempt, json!({})).await;
    stage.delete(&attempt).await;
    let started = stage.post(&attempt, json!({})).await;
    stage.post(&attempt, json!({})).await;
    stage.get(&attempt).await;
    let nonce = &started["nonce"];
    stage.post(&update, json!({ "key": keys[0], "nonce": "another" })).await;
    stage.post(&update, json!({ "key": keys[0], "nonce": nonce })).await;
    let done = stage.post(&update, json!({ "key": keys[1], "nonce": nonce })).await;
    let (encoded, otp) = (&done["encoded_token"], &started["otp"]);
    stage.post("sys/decode-token", json!({ "encoded_token": encoded, "otp": otp })).await;
    stage.post("sys/decode-token", json!({ "encoded_token": encoded, "otp": "another" })).await;
}

/// Replaces the shares, with all that can be asked on the way; answers the new ones.
async fn rekey(stage: &mut Stage, under: &str, old: Vec<String>) -> Vec<String> {
    let (init, update, verify) =
        (format!("{under}/init"), format!("{under}/update"), format!("{under}/verify"));
    stage.get(&init).await;
    stage.get(&verify).await;
    stage.post(&init, json!({ "secret_shares": 2, "secret_threshold": 3 })).await;
    stage.post(&init, json!({ "secret_shares": 2, "secret_threshold": 2 })).await;
    stage.delete(&init).await;
    let plan = json!({ "secret_shares": 3, "secret_threshold": 2, "require_verification": true });
    let started = stage.post(&init, plan).await;
    // The one way has an envelope, the other has none.
    let data = |answer: Value| answer.get("data").unwrap_or(&answer).clone();
    let nonce = data(started)["nonce"].clone();
    stage.get(&init).await;
    stage.post(&update, json!({ "key": old[0], "nonce": "another" })).await;
    stage.post(&update, json!({ "key": old[0], "nonce": nonce })).await;
    let done = data(stage.post(&update, json!({ "key": old[1], "nonce": nonce })).await);
    let (new, nonce) = (texts(&done["keys"]), &done["verification_nonce"]);
    stage.get(&init).await;
    stage.get(&verify).await;
    stage.post(&verify, json!({ "key": new[0], "nonce": nonce })).await;
    let restarted = data(stage.delete(&verify).await);
    let nonce = &restarted["nonce"];
    for key in &new[..2] {
        stage.post(&verify, json!({ "key": key, "nonce": nonce })).await;
    }
    new
}
