//! Sealed means gone: the memory of a real server's process, searched for what it knew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::process::ExitStatusExt;

use leasehold::core::records::kinds;
use leasehold::crypto::keyring::Label;
use rustix::process::Signal;

use super::day::{self, furnish, round};
use super::*;
use crate::support::broker::{Broker, Caller, Setup};
use crate::support::needles::Needles;
use crate::support::opened::Opened;

/// Requests of a busy server, where the environment says nothing else.
const REQUESTS: usize = 1_000;
/// Rounds whose secrets are looked for, of the first and of the last ones.
const WATCHED: usize = 20;
const PATIENCE: Duration = Duration::from_secs(30);
const PAGE: usize = 4096;
const ZEROS: &[u8] = &[0; PAGE];
const STEP: Duration = Duration::from_millis(500);
const CREATE: &str = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' \
     VALID UNTIL '{{expiration}}'";

/// Which of them are in the memory of the process, and where.
fn places_in(secrets: &Needles, pid: i32) -> BTreeMap<String, BTreeSet<String>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = File::open(format!("/proc/{pid}/mem"))
        .expect("reading another process's memory takes root");
    let mut found = BTreeMap::<_, BTreeSet<_>>::new();
    for line in maps.lines().filter(|line| line.split(' ').nth(1).unwrap().starts_with('r')) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let address = |hex| u64::from_str_radix(hex, 16).unwrap();
        let (from, to) = (address(from), address(to));
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        // Some mappings of the kernel's own cannot be read this way, and hold nothing of ours.
        if memory.seek(SeekFrom::Start(from)).is_err() || memory.read_exact(&mut bytes).is_err() {
            continue;
        }
        // Most pages are empty; no secret begins in one.
        for run in bytes.chunks(PAGE).collect::<Vec<_>>().split(|page| *page == ZEROS) {
            for hit in secrets.found_in(&run.concat()) {
                found.entry(hit.what).or_default().insert(kind_of(line, from..to, pid));
            }
        }
    }
    found
}

/// Whose memory a line of the maps tells of: a thread's stack, or what the line itself says.
fn kind_of(line: &str, range: Range<u64>, pid: i32) -> String {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    for thread in threads.flatten().map(|entry| entry.path()) {
        let told = |of: &str| std::fs::read_to_string(thread.join(of)).unwrap_or_default();
        // proc_pid_syscall(5): the last but one is the stack pointer.
        let state = told("syscall");
        let stack = state.split_whitespace().rev().nth(1).and_then(|hex| hex.strip_prefix("0x"));
        if stack.is_some_and(|hex| range.contains(&u64::from_str_radix(hex, 16).unwrap())) {
            return format!("stack of thread {}", told("comm").trim());
        }
    }
    line.to_owned()
}

/// Which of them are in the memory of the process.
fn found_in(secrets: &Needles, pid: i32) -> BTreeSet<String> {
    places_in(secrets, pid).into_keys().collect()
}

/// Everything that the shares lead to, put together here as an attacker with the store would.
fn keys_of(opened: &Opened, secrets: &mut Needles) {
    for share in &opened.shares {
        secrets.add("share", &share.expose()[..32]);
    }
    secrets.add("unseal key", opened.unseal_key.expose());
    secrets.add("root key", opened.root.expose());
    secrets.add("batch token key", opened.keyring.subkey(Label::BatchToken).expose());
}

/// Leases, rotates and keeps credentials of a real database; all passwords become secrets to look
/// for, the one that nobody was shown included.
async fn lease_credentials(broker: &Broker, secrets: &mut Needles) {
    let root = broker.root();
    let server = TestPostgres::shared();
    let database = server.database().rsplit('/').next().unwrap().to_owned();
    for (role, password) in [("memory_root SUPERUSER", "given-93b1f07c55"), ("memory_app", "x")] {
        server.sql(&database, &format!("CREATE ROLE {role} LOGIN PASSWORD '{password}'"));
    }
    let address = format!("127.0.0.1:{}/{database}?sslmode=disable", server.port());
    let config = json!({
        "plugin_name": "postgresql-database-plugin",
        "connection_url": format!("postgresql://{{{{username}}}}:{{{{password}}}}@{address}"),
        "username": "memory_root", "password": "given-93b1f07c55", "allowed_roles": "*",
    });
    let dynamic = json!({ "db_name": "pg", "creation_statements": CREATE });
    let kept = json!({ "db_name": "pg", "username": "memory_app", "rotation_period": "24h" });
    for (path, body) in [
        ("sys/mounts/database", json!({ "type": "database" })),
        ("database/config/pg", config),
        ("database/rotate-root/pg", json!({})),
        ("database/roles/reader", dynamic),
        ("database/static-roles/app", kept),
    ] {
        root.write(path, body).await.ok();
    }
    let mut look_for = |name: &str, user: &str, password: &str| {
        assert!(server.can_log_in(user, password, &database), "{name}");
        secrets.add(name, password.as_bytes());
    };
    // The answer to a request that may be repeated is kept with the lease.
    let repeated = [("idempotency-key", "once")];
    let leased = root.request("GET", "database/creds/reader", &repeated, b"").await.data();
    let text = |data: &Value, field: &str| data[field].as_str().unwrap().to_owned();
    look_for("leased password", &text(&leased, "username"), &text(&leased, "password"));
    let kept = root.read("database/static-creds/app").await.data();
    look_for("static password", "memory_app", &text(&kept, "password"));
    let mounts = root.read("sys/mounts").await.data();
    let base = format!("{}/", text(&mounts["database/"], "uuid"));
    let opened = Opened::of(broker).await;
    let config = opened.record(kinds::MOUNT_DATA, &base, "config/pg").await;
    look_for("database root password", "memory_root", &text(&config, "password"));
    secrets.add("first database root password", b"given-93b1f07c55");
}

/// Has passwords hashed and keys made and used, on the threads that do such work.
async fn work_with_keys(broker: &Broker, secrets: &mut Needles) {
    let root = broker.root();
    let password = "CANARY-password-6d1e9b20c4";
    let ca = json!({ "generate_signing_key": true, "key_type": "ed25519" });
    let role = json!({
        "key_type": "ca", "allow_user_certificates": true, "allowed_users": "*",
        "default_user": "somebody", "ttl": "1h",
    });
    for (path, body) in [
        ("sys/auth/userpass", json!({ "type": "userpass" })),
        ("auth/userpass/users/canary", json!({ "password": password })),
        ("sys/mounts/ssh", json!({ "type": "ssh" })),
        ("ssh/config/ca", ca),
        ("ssh/roles/signer", role),
    ] {
        root.write(path, body).await.ok();
    }
    for _ in 0..8 {
        let login = broker.nobody();
        login.write("auth/userpass/login/canary", json!({ "password": password })).await.ok();
        root.write("ssh/issue/signer", json!({ "key_type": "ed25519" })).await.ok();
    }
    secrets.add("password of a user", password.as_bytes());
    let mounts = root.read("sys/mounts").await.data();
    let base = format!("{}/", mounts["ssh/"]["uuid"].as_str().unwrap());
    let opened = Opened::of(broker).await;
    let stored = opened.record(kinds::MOUNT_DATA, &base, "ca").await;
    let stored = stored["private_key"].as_str().unwrap();
    let der = data_encoding::BASE64.decode(stored.as_bytes()).unwrap();
    // RFC 8410 §7: what precedes the seed is the same in all of them.
    let seed = der.windows(4).position(|bytes| bytes == [4, 34, 4, 32]).unwrap() + 4;
    secrets.add("ssh signing key", &der[seed..seed + 32]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_process_knows_nothing_any_more() {
    let broker = Broker::ready(Setup { shares: (3, 2), ..Setup::default() }).await;
    let root = broker.root();
    let mut secrets = Needles::new();
    keys_of(&Opened::of(&broker).await, &mut secrets);
    secrets.add("token", broker.root_token().as_bytes());
    secrets.add("value", b"CANARY-value-93b1f07c55");
    secrets.add("path", b"canary-path-a77e01d2");
    secrets.add("policy", b"canary-policy-5c0ffee5");

    root.write("sys/mounts/kept", json!({"type": "kv", "options": {"version": "2"}})).await.ok();
    let value = json!({"data": {"k": "CANARY-value-93b1f07c55"}});
    root.write("kept/data/canary-path-a77e01d2", value).await.ok();
    let rule = "path \"kept/canary-policy-5c0ffee5\" { capabilities = [\"read\"] }";
    root.write("sys/policies/acl/canary-policy-5c0ffee5", json!({"policy": rule})).await.ok();
    for _ in 0..50 {
        root.read("kept/data/canary-path-a77e01d2").await.ok();
    }
    let refused = broker.root().read("kept/data/canary-path-a77e01d2/none").await;
    assert_eq!(refused.status, 404);
    lease_credentials(&broker, &mut secrets).await;
    work_with_keys(&broker, &mut secrets).await;

    // The control: the search finds what an unsealed server must know.
    let known = found_in(&secrets, broker.pid());
    for name in [
        "batch token key",
        "root key",
        "token",
        "value",
        "static password",
        "database root password",
    ] {
        assert!(known.contains(name), "{name} is not among {known:?}");
    }
    // What only the ceremony needs is gone even now.
    assert!(!known.contains("unseal key") && !known.contains("share"), "{known:?}");

    root.write("sys/seal", json!({})).await.ok();
    assert_gone(&broker, &secrets, "still in memory").await;
    let status = broker.nobody().read("sys/seal-status").await;
    assert_eq!(status.ok()["sealed"], json!(true), "the server is alive");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_ceremony_gave_out_is_gone_when_it_is_over() {
    let broker = Broker::ready(Setup { shares: (3, 2), ..Setup::default() }).await;
    let opened = Opened::of(&broker).await;
    let mut secrets = Needles::new();
    for share in &opened.shares {
        secrets.add("share", &share.expose()[..32]);
    }
    secrets.add("unseal key", opened.unseal_key.expose());
    secrets.add("first root token", broker.root_token().as_bytes());
    assert_gone(&broker, &secrets, "given out, and still in memory").await;
}

/// Waits until none of `secrets` is in the memory of the process.
async fn assert_gone(broker: &Broker, secrets: &Needles, what: &str) {
    let mut waited = Duration::ZERO;
    let mut left = places_in(secrets, broker.pid());
    while !left.is_empty() && waited < PATIENCE {
        tokio::time::sleep(STEP).await;
        waited += STEP;
        left = places_in(secrets, broker.pid());
    }
    assert_eq!(left, BTreeMap::new(), "{what}");
}

/// A new term, and everything wrapped under it.
async fn rotate(root: &Caller) {
    root.write("sys/rotate", json!({})).await.ok();
    let terms = async || root.read("sys/key-status").await.data()["terms"].clone();
    while terms().await.as_array().unwrap().len() > 1 {
        tokio::time::sleep(STEP).await;
    }
}

/// New shares, which are proven at once.
async fn rekey(broker: &Broker) {
    let root = broker.root();
    let plan = json!({ "secret_shares": 3, "secret_threshold": 2, "require_verification": true });
    let nonce = root.write("sys/rekey/init", plan).await.ok()["nonce"].clone();
    let mut done = json!({});
    for key in &broker.keys()[..2] {
        let update = json!({ "key": key, "nonce": nonce });
        done = root.write("sys/rekey/update", update).await.ok();
    }
    let new = done["keys"].as_array().unwrap().iter();
    let new: Vec<String> = new.map(|key| key.as_str().unwrap().to_owned()).collect();
    for key in &new[..2] {
        let update = json!({ "key": key, "nonce": done["verification_nonce"] });
        root.write("sys/rekey/verify", update).await.ok();
    }
    broker.set_keys(new);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passed_through_a_busy_process_is_gone_at_once_and_the_rest_with_the_seal() {
    let broker = Broker::ready(Setup { shares: (3, 2), ..Setup::default() }).await;
    let root = broker.root();
    let (mut keys, mut passed, mut kept) = (Needles::new(), Needles::new(), Needles::new());
    keys_of(&Opened::of(&broker).await, &mut keys);
    keys.add("root token", broker.root_token().as_bytes());
    furnish(&root).await;
    let requests = std::env::var("LEASEHOLD_MEMORY_REQUESTS")
        .map_or(REQUESTS, |text| text.parse::<usize>().unwrap());
    let rounds = requests / day::REQUESTS;
    for number in 0..rounds {
        let used_up = round(&root, number).await;
        // The oldest and the newest; there is no end of searching for them all.
        if number < WATCHED || number + WATCHED >= rounds {
            for (name, text) in used_up {
                passed.add(name, text.as_bytes());
            }
            keys.add("values", day::kept(number).as_bytes());
        }
    }
    rotate(&root).await;
    rekey(&broker).await;
    keys_of(&Opened::of(&broker).await, &mut kept);

    // The control: what it has to know it knows, also under the new keys.
    let known = found_in(&kept, broker.pid());
    assert!(known.contains("batch token key") && known.contains("root key"), "{known:?}");
    assert!(!known.contains("share"), "{known:?}");
    // A connection that is open has buffers for its last request.
    root.hang_up().await;
    assert_gone(&broker, &passed, "used up, and still in memory").await;
    for file in ["environ", "cmdline"] {
        let shown = std::fs::read(format!("/proc/{}/{file}", broker.pid())).unwrap();
        for secrets in [&keys, &passed, &kept] {
            assert!(secrets.found_in(&shown).is_empty(), "{file}");
        }
    }

    let limits = std::fs::read_to_string(format!("/proc/{}/limits", broker.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);

    broker.root().write("sys/seal", json!({})).await.ok();
    for secrets in [&keys, &passed, &kept] {
        assert_gone(&broker, secrets, "sealed, and still in memory").await;
    }
    // And when it falls, nothing is written down.
    broker.signal(Signal::ABORT);
    let end = broker.wait_for_end();
    assert!(end.signal().is_some() && !end.core_dumped(), "{end:?}");
}
