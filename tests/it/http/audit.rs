//! The audit as its reader finds it: complete, silent about secrets, chained, and in the way when it
//! cannot be written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use leasehold::server::audit_verify::verify;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::world::{World, shared, unique};
use crate::support::broker::{Broker, Setup};
use crate::support::wire::soon;

#[tokio::test]
async fn every_request_has_one_entry() {
    let world = shared().await;
    let root = world.broker.root();
    let nobody = world.broker.nobody();
    let (caller, name) =
        world.workload(r#"path "secret/data/*" { capabilities = ["read"] }"#).await;
    let path = format!("secret/data/{}", unique("audited"));
    let answers = vec![
        (root.write(&path, json!({ "data": { "k": "planted-value-1" } })).await, "create", 200),
        (root.write(&path, json!({ "data": { "k": "planted-value-2" } })).await, "update", 200),
        (caller.read(&path).await, "read", 200),
        (caller.read("secret/data/none").await, "read", 404),
        (caller.write(&path, json!({ "data": {} })).await, "update", 403),
        (nobody.read(&path).await, "read", 403),
        (root.list("secret/metadata").await, "list", 200),
        (root.delete(&path).await, "delete", 204),
        (root.request("POST", &path, &[], b"{").await, "update", 400),
        (root.read("secret/data/%00").await, "read", 400),
        (root.request("FOO", &path, &[], b"").await, "read", 405),
    ];
    for (answer, operation, status) in &answers {
        assert_eq!(answer.status, *status, "{}", answer.body);
        let entry = world.broker.audited(answer);
        assert_eq!(entry["operation"], *operation, "{entry}");
        assert_eq!(entry["outcome"]["status"], *status, "{entry}");
        assert_eq!(entry["type"], "operation");
        assert_eq!(entry["remote"].as_str().unwrap().split(':').next(), Some("127.0.0.1"));
    }
    let read = world.broker.audited(&answers[2].0);
    assert_eq!(read["path"], json!(path));
    assert_eq!(read["mount"]["path"], "secret/");
    assert_eq!(read["caller"]["policies"], json!(["default", name]));
    assert!(read["caller"]["entity_id"].is_string());
    let denied = world.broker.audited(&answers[5].0);
    assert_eq!(denied["caller"].get("entity_id"), None);
    assert!(denied["outcome"]["reason"].is_string());
    // The same value has the same keyed hash, and only the same.
    let hash = |n: usize| world.broker.audited(&answers[n].0)["request"]["data"]["k"].clone();
    assert!(hash(0).as_str().unwrap().starts_with("hmac-"), "{}", hash(0));
    assert_ne!(hash(0), hash(1));
    let response = world.broker.audited(&answers[2].0)["response"]["data"]["k"].clone();
    assert_eq!(response, hash(1));
}

#[tokio::test]
async fn fields_that_were_declared_harmless_are_shown_and_no_others() {
    let world = shared().await;
    let root = world.broker.root();
    let mount = unique("shown");
    let config = json!({
        "audit_non_hmac_request_keys": ["asked"],
        "audit_non_hmac_response_keys": ["asked"],
    });
    let body = json!({ "type": "kv", "options": { "version": "1" }, "config": config });
    root.write(&format!("sys/mounts/{mount}"), body).await.ok();
    let path = format!("{mount}/x");
    let write = root.write(&path, json!({ "asked": "plain", "password": "hidden" })).await;
    let read = root.read(&path).await;
    for (answer, side) in [(&write, "request"), (&read, "response")] {
        let data = world.broker.audited(answer)[side].clone();
        assert_eq!(data["asked"], "plain", "{side}: {data}");
        assert!(data["password"].as_str().unwrap().starts_with("hmac-"), "{side}: {data}");
    }
}

#[tokio::test]
async fn no_entry_and_no_log_line_holds_a_secret() {
    let world = shared().await;
    let root = world.broker.root();
    let mut planted: BTreeMap<&str, String> = BTreeMap::new();
    let n = unique("planted");
    let value = format!("VALUE-{n}-{}", "q".repeat(20));
    let path = format!("secret/data/{n}");
    root.write(&path, json!({ "data": { "key": value, "list": [value, { "x": value }] } }))
        .await
        .ok();
    root.read(&path).await.ok();
    planted.insert("a value", value);
    let made = root.write("auth/token/create", json!({ "policies": ["default"] })).await.ok();
    let token = made["auth"]["client_token"].as_str().unwrap().to_owned();
    let accessor = made["auth"]["accessor"].as_str().unwrap().to_owned();
    let own = world.broker.admin().with_token(&token);
    own.read("auth/token/lookup-self").await.ok();
    own.read("sys/mounts").await.error(403);
    root.write("auth/token/lookup", json!({ "token": token })).await.ok();
    root.write("auth/token/lookup-accessor", json!({ "accessor": accessor })).await.ok();
    root.write("sys/capabilities", json!({ "token": token, "path": "x" })).await.ok();
    planted.insert("a token", token);
    planted.insert("an accessor", accessor);
    let config = world.database_config(&world.database);
    root.write(&format!("database/config/{n}"), config.clone()).await.ok();
    planted.insert("the database's password", config["password"].as_str().unwrap().to_owned());
    let leased = root.read("database/creds/reader").await.ok();
    planted.insert("a password", leased["data"]["password"].as_str().unwrap().to_owned());
    let revoke = json!({ "lease_id": leased["lease_id"] });
    root.write("sys/leases/revoke", revoke).await.ok();
    let headers = [("x-vault-wrap-ttl", "1m")];
    let wrapped = root.request("GET", &path, &headers, b"").await.ok();
    let wrapping = wrapped["wrap_info"]["token"].as_str().unwrap().to_owned();
    world.broker.admin().write("sys/wrapping/unwrap", json!({ "token": wrapping })).await.ok();
    planted.insert("a wrapping token", wrapping);
    // A secret where none belongs: in a body that is refused, in a wrong field, in a wrong token.
    let stray = format!("STRAY-{n}-{}", "z".repeat(20));
    let broken = format!("{{\"data\": {{\"key\": \"{stray}\" }} x");
    assert_eq!(root.request("POST", &path, &[], broken.as_bytes()).await.status, 400);
    let typed = json!({ "data": stray, "options": stray });
    assert_eq!(root.write(&path, typed).await.status, 400);
    let typed = json!({ "ttl": stray, "num_uses": stray, "type": stray });
    assert_eq!(root.write("auth/token/create", typed).await.status, 400);
    let wrong = world.broker.admin().with_token(&stray);
    assert_eq!(wrong.read(&path).await.status, 403);
    root.write("sys/unseal", json!({ "key": stray })).await;
    assert_eq!(root.write("sys/wrapping/unwrap", json!({ "token": stray })).await.status, 400);
    planted.insert("a stray secret", stray);
    planted.insert("the root token", world.broker.root_token());
    planted.insert("a share", world.broker.keys()[0].clone());

    let audit = fs::read_to_string(world.broker.audit_path()).unwrap();
    let log = world.broker.log();
    // The control: the names that may be there are there, so that the right files were read.
    assert!(audit.contains(&n));
    assert!(log.contains("\"level\":\"") || log.contains("level"), "{log}");
    for (what, secret) in &planted {
        // The tests' PostgreSQL shares one password with the words of nobody else.
        assert!(!audit.contains(secret.as_str()), "{what} is in the audit");
        assert!(!log.contains(secret.as_str()), "{what} is in the log");
    }
}

#[tokio::test]
async fn the_chain_verifies_and_shows_what_was_done_to_it() {
    let broker = Broker::ready(Setup::default()).await;
    let root = broker.root();
    for _ in 0..20 {
        root.read("sys/mounts").await.ok();
    }
    let check = |path: &Path| verify(&[path.to_owned()]).unwrap();
    let intact = check(&broker.audit_path());
    assert!(intact.is_intact() && intact.from_genesis, "{:?}", intact.problems);
    let text = fs::read_to_string(broker.audit_path()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let middle = lines.len() / 2;
    let copy = broker.dir().join("copy.log");
    let mut removed = lines.clone();
    removed.remove(middle);
    let mut swapped = lines.clone();
    swapped.swap(middle, middle + 1);
    let edited = lines[middle].replace("127.0.0.1", "127.0.0.2");
    let mut changed = lines.clone();
    changed[middle] = &edited;
    for bad in [removed, swapped, changed] {
        fs::write(&copy, bad.join("\n") + "\n").unwrap();
        let report = check(&copy);
        assert!(!report.is_intact());
        let at = report.problems[0].line;
        assert!(at.abs_diff(middle as u64 + 1) <= 1, "line {at}, where {} was changed", middle + 1);
    }
    let output = Command::new(env!("CARGO_BIN_EXE_leasehold"))
        .args(["audit", "verify"])
        .arg(&copy)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let output = Command::new(env!("CARGO_BIN_EXE_leasehold"))
        .args(["audit", "verify"])
        .arg(broker.audit_path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // A kill and a new start continue the same chain.
    broker.kill();
    broker.start_again();
    broker.unseal().await;
    broker.root().read("sys/mounts").await.ok();
    let report = check(&broker.audit_path());
    assert!(report.is_intact(), "{:?}", report.problems);
    assert!(report.lines > intact.lines);
}

#[tokio::test]
async fn rotation_reopens_the_file() {
    let broker = Broker::ready(Setup::default()).await;
    let root = broker.root();
    root.read("sys/mounts").await.ok();
    let old = broker.dir().join("audit.log.1");
    fs::rename(broker.audit_path(), &old).unwrap();
    broker.signal(Signal::HUP);
    soon(async {
        while !broker.audit_path().exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let answer = root.read("sys/mounts").await;
    broker.audited(&answer);
    let report = verify(&[old, broker.audit_path()]).unwrap();
    assert!(report.is_intact(), "{:?}", report.problems);
}

/// A small filesystem of its own; gone with this value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(size: &str) -> Self {
        let place = std::env::temp_dir().join(format!("{}-{}", unique("disk"), std::process::id()));
        fs::create_dir(&place).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "tmpfs"]).arg(&place);
        let output = mount.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "the tests mount small disks, for which they need root: {said}"
        );
        Self(place)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    /// Takes all the space that is left.
    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        let block = [0u8; 4096];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        let mut file = fs::File::create(self.0.join("crumbs")).unwrap();
        while std::io::Write::write_all(&mut file, b"x").is_ok() {}
    }

    fn free(&self) {
        for name in ["filler", "crumbs"] {
            fs::remove_file(self.0.join(name)).unwrap();
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
        let _ = fs::remove_dir(&self.0);
    }
}

#[tokio::test]
async fn no_secret_leaves_while_the_audit_cannot_be_written() {
    let disk = SmallDisk::new("1m");
    let setup = Setup { audit: Some(disk.path().join("audit.log")), ..Setup::default() };
    let world = World::new(setup).await;
    let root = world.broker.root();
    let secret = "the-secret-that-stays";
    root.write("secret/data/x", json!({ "data": { "k": secret } })).await.ok();
    disk.fill();
    // The last page of the log may have room for a few more entries.
    soon(async { while root.read("secret/data/x").await.status != 503 {} }).await;
    let silent = [
        root.read("secret/data/x").await,
        root.write("secret/data/y", json!({ "data": {} })).await,
        root.write("auth/token/create", json!({ "policies": ["root"] })).await,
        root.read("database/creds/reader").await,
        root.request("GET", "database/creds/reader", &[("x-vault-wrap-ttl", "5m")], b"").await,
    ];
    for answer in &silent {
        assert!(answer.error(503).contains("audit"), "{}", answer.body);
        assert!(!answer.body.contains(secret) && !answer.body.contains("client_token"));
        assert!(answer.header("retry-after").is_some());
    }
    // Load balancers still learn that it is there.
    assert_eq!(world.broker.nobody().read("sys/health").await.status, 200);
    disk.free();
    soon(async {
        while root.read("secret/data/x").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let kept = root.read("secret/data/x").await.data();
    assert_eq!(kept["data"]["k"], json!(secret));
    assert_eq!(root.write("secret/data/y", json!({ "data": {} })).await.status, 200);
    // What the silent requests made was taken back.
    soon(async {
        loop {
            let counts = root.read("sys/leases/count").await.data();
            if counts["lease_count"] == json!(0) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let report = verify(&[world.broker.audit_path()]).unwrap();
    assert!(report.is_intact(), "{:?}", report.problems);
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_nothing_else() {
    let disk = SmallDisk::new("8m");
    let setup = Setup { data_dir: Some(disk.path().to_owned()), ..Setup::default() };
    let world = World::new(setup).await;
    let root = world.broker.root();
    root.write("secret/data/x", json!({ "data": { "k": "kept" } })).await.ok();
    disk.fill();
    let big = "x".repeat(100_000);
    let mut acknowledged = Vec::new();
    let refused = soon(async {
        for n in 0.. {
            let path = format!("secret/data/fill-{n}");
            let answer = root.write(&path, json!({ "data": { "big": big } })).await;
            match answer.status {
                200 => acknowledged.push(path),
                _ => return answer,
            }
        }
        unreachable!()
    })
    .await;
    assert!([507, 503].contains(&refused.status), "{} {}", refused.status, refused.body);
    assert_eq!(root.read("secret/data/x").await.data()["data"]["k"], "kept");
    let leased = root.read("database/creds/reader").await;
    assert!([507, 503].contains(&leased.status), "{} {}", leased.status, leased.body);
    disk.free();
    soon(async {
        while root.write("secret/data/y", json!({ "data": {} })).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for path in &acknowledged {
        assert_eq!(root.read(path).await.status, 200, "{path}");
    }
    world.broker.kill();
    world.broker.start_again();
    world.broker.unseal().await;
    let root = world.broker.root();
    let kept: Value = root.read("secret/data/x").await.data();
    assert_eq!(kept["data"]["k"], "kept");
    for path in &acknowledged {
        assert_eq!(root.read(path).await.status, 200, "{path}");
    }
}
