//! What changes while the server runs, and how it ends.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::support::broker::{Broker, Setup};
use crate::support::pki::{Ca, Spec};
use crate::support::wire::{Client, soon};

#[tokio::test]
async fn a_hangup_shows_the_new_certificate_and_drops_nobody() {
    let broker = Broker::ready(Setup::default()).await;
    let open = broker.root();
    open.read("sys/mounts").await.ok();
    let other = Ca::root("the next servers");
    let shown = other.issue(&Spec::server());
    broker.write("server.pem", &shown.pem());
    broker.write("server.key", &shown.key_pem);
    broker.signal(Signal::HUP);
    let (admin, versions) = (&broker.pki.admin, &rustls::version::TLS13);
    let client = Client::new(&other.der, versions, Some((admin, &[])));
    soon(async {
        while client.connect(broker.address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let old = Client::new(&broker.pki.servers.der, versions, Some((admin, &[])));
    assert!(old.connect(broker.address).await.is_err());
    assert_eq!(open.read("sys/mounts").await.status, 200, "on the connection of before");
    // A file that is no good leaves the last good one in force.
    broker.write("server.key", "rubbish");
    broker.signal(Signal::HUP);
    let told = "leasehold_reloads_failing";
    soon(async {
        loop {
            let text = open.read("sys/metrics").await.body;
            let failing = text.lines().find(|line| line.starts_with(told));
            if failing.is_some_and(|line| !line.ends_with(" 0")) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(client.connect(broker.address).await.is_ok());
}

#[tokio::test]
async fn changed_files_are_found_without_a_signal() {
    let server = "reload_interval = \"1s\"".to_owned();
    let broker = Broker::ready(Setup { server, ..Setup::default() }).await;
    let serial = [0x55, 0x01];
    let spec = Spec::svid("spiffe://test.example/watched").serial(&serial);
    let caller = broker.caller(&broker.pki.clients.issue(&spec)).with_token(&broker.root_token());
    assert_eq!(caller.read("sys/mounts").await.status, 200);
    broker.write_crl(&[&serial]);
    soon(async {
        while caller.read("sys/mounts").await.status == 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(caller.read("sys/mounts").await.status, 403);
}

#[tokio::test]
async fn an_orderly_end_answers_what_was_begun() {
    let broker = Broker::ready(Setup::default()).await;
    let root = broker.root();
    root.write("sys/mounts/kv", json!({ "type": "kv" })).await.ok();
    let writers = (0..4).map(|writer| {
        let own = broker.root();
        async move {
            let mut acknowledged = Vec::new();
            for n in 0.. {
                let path = format!("kv/{writer}-{n}");
                match own.try_request("POST", &path, &[], b"{\"a\":1}").await {
                    Ok(answer) if answer.status == 204 => acknowledged.push(path),
                    // Asked to go away, or cut off while idle.
                    Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.body),
                    Err(_) => break,
                }
            }
            acknowledged
        }
    });
    let writing = futures_util::future::join_all(writers);
    let stop = async {
        // After the first few writes.
        let own = broker.root();
        soon(async { while own.read("kv/0-3").await.status != 200 {} }).await;
        broker.signal(Signal::TERM);
    };
    let (acknowledged, ()) = tokio::join!(writing, stop);
    assert!(broker.wait_for_end().success());
    broker.start_again();
    assert_eq!(broker.admin().read("sys/seal-status").await.ok()["sealed"], true);
    broker.unseal().await;
    let root = broker.root();
    for path in acknowledged.into_iter().flatten() {
        assert_eq!(root.read(&path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn unsealing_takes_its_shares_and_starts_over_when_told() {
    let broker = Broker::start(Setup { shares: (5, 3), ..Setup::default() });
    assert_eq!(broker.nobody().read("sys/health").await.status, 501);
    let nothing = broker.admin().read("sys/mounts").await;
    assert_eq!(nothing.status, 503, "{}", nothing.body);
    broker.init().await;
    let admin = broker.admin();
    let again = admin.write("sys/init", json!({ "secret_shares": 1, "secret_threshold": 1 })).await;
    assert_eq!(again.status, 400);
    let keys = broker.keys();
    let give = async |key: &str| admin.write("sys/unseal", json!({ "key": key })).await;
    assert_eq!(give(&keys[0]).await.ok()["progress"], 1);
    assert_eq!(give(&keys[0]).await.ok()["progress"], 1, "the same share counts once");
    assert_eq!(give(&keys[1]).await.ok()["progress"], 2);
    let reset = admin.write("sys/unseal", json!({ "reset": true })).await.ok();
    assert_eq!(reset["progress"], 0);
    for bad in ["", "zz", "00", &"00".repeat(33), "not a share"] {
        let answer = give(bad).await;
        assert!(answer.status == 400 || answer.ok()["sealed"] == json!(true), "{bad}");
    }
    admin.write("sys/unseal", json!({ "reset": true })).await.ok();
    // A wrong share among right ones: refused when the last one is in, and all begin again.
    let last = if keys[2].starts_with('0') { "1" } else { "0" };
    let wrong = format!("{last}{}", &keys[2][1..]);
    give(&keys[0]).await.ok();
    give(&keys[1]).await.ok();
    assert_eq!(give(&wrong).await.status, 400);
    let status = admin.read("sys/seal-status").await.ok();
    assert_eq!((&status["sealed"], &status["progress"]), (&json!(true), &json!(0)));
    let base64 = |hex: &str| {
        let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
        data_encoding::BASE64.encode(&bytes)
    };
    // Any three do, in either spelling.
    give(&keys[4]).await.ok();
    give(&base64(&keys[1])).await.ok();
    assert_eq!(give(&keys[3]).await.ok()["sealed"], false);
    assert_eq!(broker.root().read("sys/mounts").await.status, 200);
}

#[tokio::test]
async fn keys_are_rotated_while_secrets_are_read() {
    let broker = Broker::ready(Setup::default()).await;
    let root = broker.root();
    root.write("sys/mounts/kv", json!({ "type": "kv" })).await.ok();
    for n in 0..50 {
        root.write(&format!("kv/{n}"), json!({ "n": n })).await.ok();
    }
    let first = root.read("sys/key-status").await.data();
    root.write("sys/rotate", json!({ "suite": "chacha20-poly1305" })).await.ok();
    let done = soon(async {
        loop {
            let status = root.read("sys/key-status").await.data();
            for n in [0, 49] {
                assert_eq!(root.read(&format!("kv/{n}")).await.data(), json!({ "n": n }));
            }
            // The old key is destroyed once nothing is wrapped with it.
            if status["terms"].as_array().unwrap().len() == 1 {
                return status;
            }
        }
    })
    .await;
    assert_eq!(done["term"].as_u64(), first["term"].as_u64().map(|term| term + 1));
    broker.kill();
    broker.start_again();
    broker.unseal().await;
    let root = broker.root();
    for n in 0..50 {
        assert_eq!(root.read(&format!("kv/{n}")).await.data(), json!({ "n": n }));
    }
}
