//! Answers of the transit engine.

use serde_json::{Value, json};

use super::stage::Stage;
use crate::support::wrapped::wrapped;

/// `hello`.
const HELLO: &str = "aGVsbG8=";

fn text(answer: &Value, field: &str) -> String {
    let value = &answer["data"][field];
    value.as_str().unwrap_or_else(|| panic!("no {field} in {answer}")).to_owned()
}

#[tokio::test]
async fn keys_and_what_is_done_with_them_answer_as_recorded() {
    let mut stage = Stage::open("transit").await;
    keys(&mut stage).await;
    messages(&mut stage).await;
    signatures(&mut stage).await;
    leaving(&mut stage).await;
    stage.post("transit/random", json!({})).await;
    stage.post("transit/random/8", json!({ "format": "hex" })).await;
    stage.post("transit/random/platform/8", json!({})).await;
    stage.post("transit/hash", json!({ "input": HELLO })).await;
    stage.post("transit/hash/sha2-512", json!({ "input": HELLO })).await;
    stage.post("transit/hash/sha3-256", json!({ "input": HELLO })).await;
    stage.post("transit/hash/sha1", json!({ "input": HELLO })).await;
    stage.finish();
}

async fn keys(stage: &mut Stage) {
    stage.list("transit/keys").await;
    stage.get("transit/keys/k").await;
    let body = json!({ "exportable": true, "allow_plaintext_backup": true });
    stage.post("transit/keys/k", body).await;
    stage.post("transit/keys/k", json!({ "type": "rsa-2048" })).await;
    stage.post("transit/keys/s", json!({ "type": "ed25519", "auto_rotate_period": "24h" })).await;
    stage.post("transit/keys/h", json!({ "type": "hmac", "key_size": 64 })).await;
    let convergent = json!({ "derived": true, "convergent_encryption": true });
    stage.post("transit/keys/d", convergent).await;
    stage.post("transit/keys/r", json!({ "type": "rsa-2048" })).await;
    stage.post("transit/keys/bad", json!({ "type": "des" })).await;
    stage.post("transit/keys/bad", json!({ "unknown": 1, "key_size": 7 })).await;
    stage.list("transit/keys").await;
    stage.get("transit/keys/r").await;
    stage.post("transit/keys/k/rotate", json!({})).await;
    stage.post("transit/keys/none/rotate", json!({})).await;
    stage.post("transit/keys/k/config", json!({ "min_decryption_version": 3 })).await;
    let rules = json!({ "min_decryption_version": 2, "min_encryption_version": 2 });
    stage.post("transit/keys/k/config", rules).await;
    stage.post("transit/keys/k/trim", json!({})).await;
    stage.post("transit/keys/k/trim", json!({ "min_available_version": 2 })).await;
    stage.delete("transit/keys/k").await;
    stage.delete("transit/keys/none").await;
    stage.get("transit/config/keys").await;
    stage.post("transit/config/keys", json!({})).await;
    stage.post("transit/config/keys", json!({ "disable_upsert": true })).await;
    stage.post("transit/encrypt/new", json!({ "plaintext": HELLO })).await;
    stage.post("transit/config/keys", json!({ "disable_upsert": false })).await;
    stage.delete("transit/keys/h/soft-delete").await;
    stage.delete("transit/keys/h/soft-delete").await;
    stage.post("transit/hmac/h", json!({ "input": HELLO })).await;
    stage.post("transit/keys/h/soft-delete-restore", json!({})).await;
    stage.post("transit/keys/none/soft-delete-restore", json!({})).await;
}

async fn messages(stage: &mut Stage) {
    let body = json!({ "plaintext": HELLO });
    let sealed = text(&stage.post("transit/encrypt/k", body.clone()).await, "ciphertext");
    stage.post("transit/encrypt/new", body.clone()).await;
    stage.post("transit/encrypt/d", body.clone()).await;
    stage.post("transit/encrypt/d", json!({ "plaintext": HELLO, "context": HELLO })).await;
    stage.post("transit/encrypt/s", body).await;
    stage.post("transit/encrypt/k", json!({})).await;
    stage.post("transit/encrypt/k", json!({ "plaintext": "?" })).await;
    let items = json!([
        { "plaintext": HELLO, "reference": "one" }, { "plaintext": "?", "reference": "two" },
    ]);
    stage.post("transit/encrypt/k", json!({ "batch_input": items })).await;
    let partly = json!({ "batch_input": items, "partial_failure_response_code": 207 });
    stage.post("transit/encrypt/k", partly).await;
    stage.post("transit/encrypt/k", json!({ "batch_input": [] })).await;
    stage.post("transit/decrypt/k", json!({ "ciphertext": sealed })).await;
    for bad in ["vault:v2:AAAA", "vault:v1:AAAA", "vault:v9:AAAA", "AAAA"] {
        stage.post("transit/decrypt/k", json!({ "ciphertext": bad })).await;
    }
    stage.post("transit/decrypt/none", json!({ "ciphertext": sealed })).await;
    let items = json!([{ "ciphertext": sealed }, { "ciphertext": "vault:v2:AAAA" }]);
    stage.post("transit/decrypt/k", json!({ "batch_input": items })).await;
    stage.post("transit/rewrap/k", json!({ "ciphertext": sealed })).await;
    stage.post("transit/rewrap/k", json!({ "batch_input": items })).await;
    stage.post("transit/datakey/wrapped/k", json!({ "bits": 128 })).await;
    stage.post("transit/datakey/wrapped/k", json!({ "bits": 100 })).await;
    stage.post("transit/datakey/other/k", json!({})).await;
}

async fn signatures(stage: &mut Stage) {
    let body = json!({ "input": HELLO });
    let signature = text(&stage.post("transit/sign/s", body.clone()).await, "signature");
    let claim = json!({ "input": HELLO, "signature": signature });
    stage.post("transit/verify/s", claim.clone()).await;
    stage.post("transit/verify/s", json!({ "input": "", "signature": signature })).await;
    stage.post("transit/verify/s", body.clone()).await;
    stage.post("transit/sign/r/sha2-512", body.clone()).await;
    stage.post("transit/sign/r/sha1", body.clone()).await;
    stage.post("transit/sign/k", body.clone()).await;
    stage.post("transit/sign/s", json!({ "batch_input": [body, {}] })).await;
    stage.post("transit/verify/s", json!({ "batch_input": [claim, {}] })).await;
    let mac = text(&stage.post("transit/hmac/h", body.clone()).await, "hmac");
    stage.post("transit/hmac/k/sha2-384", body.clone()).await;
    stage.post("transit/hmac/k/sha1", json!({ "input": HELLO })).await;
    stage.post("transit/hmac/k/sha3-224", json!({ "input": HELLO })).await;
    stage.post("transit/verify/h/sha2-256", json!({ "input": HELLO, "hmac": mac })).await;
    stage.post("transit/verify/h/sha2-512", json!({ "input": HELLO, "hmac": mac })).await;
}

async fn leaving(stage: &mut Stage) {
    let public = text(&stage.get("transit/wrapping_key").await, "public_key");
    let body = json!({ "ciphertext": wrapped(&public, &[7; 32]), "type": "aes256-gcm96" });
    stage.know(body["ciphertext"].as_str().unwrap(), "<wrapped>");
    stage.post("transit/keys/i/import", body.clone()).await;
    stage.post("transit/keys/i/import", body.clone()).await;
    stage.post("transit/keys/i/import_version", json!({ "ciphertext": body["ciphertext"] })).await;
    stage.post("transit/keys/i/import_version", json!({ "ciphertext": "AAAA" })).await;
    stage.post("transit/keys/i/rotate", json!({})).await;
    stage.get("transit/keys/i").await;
    stage.get("transit/export/encryption-key/k").await;
    stage.get("transit/export/hmac-key/k/2").await;
    stage.get("transit/export/public-key/s").await;
    stage.get("transit/export/signing-key/s").await;
    stage.get("transit/export/encryption-key/none").await;
    let backup = text(&stage.get("transit/backup/k").await, "backup");
    stage.get("transit/backup/s").await;
    stage.post("transit/restore", json!({ "backup": backup })).await;
    let by_force = json!({ "backup": backup, "force": true });
    stage.post("transit/restore", by_force.clone()).await;
    stage.post("transit/keys/k/config", json!({ "deletion_allowed": true })).await;
    stage.post("transit/restore", by_force).await;
    stage.post("transit/restore/copy", json!({ "backup": backup })).await;
    stage.post("transit/restore", json!({ "backup": "AAAA" })).await;
    stage.post("transit/keys/copy/config", json!({ "deletion_allowed": true })).await;
    stage.delete("transit/keys/copy").await;
    stage.get("transit/keys/copy").await;
}
