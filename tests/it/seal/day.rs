//! What applications do with a server all day.

use data_encoding::BASE64;

use super::*;
use crate::support::broker::Caller;

/// Requests of one round.
pub(super) const REQUESTS: usize = 10;

/// The value that a round stores.
pub(super) fn kept(number: usize) -> String {
    format!("kept-41c0e7-{number}.")
}

/// What they need.
pub(super) async fn furnish(root: &Caller) {
    for (path, body) in [
        ("sys/mounts/kept", json!({ "type": "kv", "options": { "version": "2" } })),
        ("sys/mounts/transit", json!({ "type": "transit" })),
        ("transit/keys/k", json!({})),
        ("transit/keys/s", json!({ "type": "ed25519" })),
        ("sys/auth/approle", json!({ "type": "approle" })),
        ("auth/approle/role/r", json!({ "token_policies": "default", "secret_id_num_uses": 1 })),
        ("kept/config", json!({ "max_versions": 2 })),
    ] {
        root.write(path, body).await.ok();
    }
}

/// One round, with values of its own. Answers with what nobody may know any more: it is all used up.
pub(super) async fn round(root: &Caller, number: usize) -> Vec<(&'static str, String)> {
    let value = json!({ "data": { "k": kept(number) } });
    root.write(&format!("kept/data/v{}", number % 50), value).await.ok();
    let plaintext = BASE64.encode(format!("passing-93ab0c-{number}.").as_bytes());
    let sealed = root.write("transit/encrypt/k", json!({ "plaintext": plaintext })).await.data();
    root.write("transit/decrypt/k", json!({ "ciphertext": sealed["ciphertext"] })).await.ok();
    root.write("transit/sign/s", json!({ "input": plaintext })).await.ok();
    let wrap = [("x-vault-wrap-ttl", "60s")];
    let wrapped = root.request("GET", "auth/approle/role/r/role-id", &wrap, b"").await.ok();
    let token = json!({ "token": wrapped["wrap_info"]["token"] });
    let role_id = root.write("sys/wrapping/unwrap", token).await.data()["role_id"].clone();
    let secret_id = root.write("auth/approle/role/r/secret-id", json!({})).await.data();
    let login = json!({ "role_id": role_id, "secret_id": secret_id["secret_id"] });
    let auth = root.write("auth/approle/login", login).await.ok();
    let given = json!({ "token": auth["auth"]["client_token"] });
    root.write("auth/token/revoke", given.clone()).await.ok();
    root.delete(&format!("kept/metadata/v{}", (number + 25) % 50)).await.ok();
    [
        ("plaintext", &json!(plaintext)),
        ("wrapping token", &wrapped["wrap_info"]["token"]),
        ("secret id", &secret_id["secret_id"]),
        ("token", &given["token"]),
    ]
    .map(|(name, text)| (name, text.as_str().unwrap().to_owned()))
    .to_vec()
}
