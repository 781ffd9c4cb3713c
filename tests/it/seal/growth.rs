//! A server that works all day needs no more memory in the evening than at noon.

use data_encoding::BASE64;

use super::*;
use crate::support::broker::{Broker, Caller, Setup};

/// Requests before and between the two looks at the size of the process.
const REQUESTS: usize = 4_000;
/// How much larger the process may be after the second half of them, in KiB: what the allocator keeps
/// in places that the first half happened not to reach.
const GROWTH_KIB: u64 = 3 * 1024;
const CALLERS: usize = 4;

/// How many requests, where the environment says nothing else.
fn requests() -> usize {
    std::env::var("LEASEHOLD_GROWTH_REQUESTS").map_or(REQUESTS, |text| text.parse().unwrap())
}

async fn furnish(root: &Caller) {
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

/// One round: what applications do all day, in nine requests.
async fn round(root: &Caller, number: usize) {
    let value = json!({ "data": { "k": format!("value {number}") } });
    root.write(&format!("kept/data/v{}", number % 50), value).await.ok();
    let plaintext = BASE64.encode(format!("plaintext {number}").as_bytes());
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
    root.write("auth/token/revoke", given).await.ok();
    root.delete(&format!("kept/metadata/v{}", (number + 25) % 50)).await.ok();
}

fn resident_kib(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn work(broker: &Broker, requests: usize) {
    let callers: Vec<_> = (0..CALLERS).map(|_| broker.root()).collect();
    let each = requests / 9 / CALLERS;
    let rounds = callers.iter().enumerate().map(|(caller, root)| async move {
        for number in 0..each {
            round(root, number * CALLERS + caller).await;
            if number % 50 == 0 {
                // Connections come and go as well.
                root.hang_up().await;
            }
        }
    });
    futures_util::future::join_all(rounds).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_does_not_grow_with_the_requests_it_answered() {
    let quiet = "log_level = \"error\"\n".to_owned();
    let broker = Broker::ready(Setup { server: quiet, ..Setup::default() }).await;
    furnish(&broker.root()).await;
    let requests = requests();
    work(&broker, requests).await;
    let before = resident_kib(&broker);
    work(&broker, requests).await;
    let after = resident_kib(&broker);
    println!("{requests} requests: {before} KiB; as many again: {after} KiB");
    assert!(after <= before + GROWTH_KIB, "{before} KiB, then {after} KiB");
}
