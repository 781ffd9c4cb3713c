//! Sealed means gone: the memory of a real server's process, searched for what it knew.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use leasehold::crypto::keyring::{Keyring, Label};
use leasehold::crypto::root::unwrap_root;
use leasehold::crypto::shamir;
use leasehold::types::secret::SecretBytes;

use super::*;
use crate::support::broker::{Broker, Setup};

const PATIENCE: Duration = Duration::from_secs(30);
const PAGE: usize = 4096;
const ZEROS: &[u8] = &[0; PAGE];
const STEP: Duration = Duration::from_millis(500);

/// What to look for, by name; each in the forms in which it could lie around.
struct Secrets(BTreeMap<&'static str, Vec<Vec<u8>>>);

impl Secrets {
    fn add(&mut self, name: &'static str, secret: &[u8]) {
        let reversed = secret.iter().rev().copied().collect();
        let wide = secret.iter().flat_map(|byte| [*byte, 0]).collect();
        // The last characters of base64 depend on what comes behind.
        let base64 = |text: String| text.as_bytes()[..text.len() - 4].to_vec();
        self.0.entry(name).or_default().extend([
            secret.to_vec(),
            reversed,
            wide,
            HEXLOWER.encode(secret).into_bytes(),
            base64(BASE64.encode(secret)),
            base64(BASE64URL_NOPAD.encode(secret)),
        ]);
    }

    /// Which of them are in the memory of the process.
    fn found_in(&self, pid: i32) -> Vec<&'static str> {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let mut memory = File::open(format!("/proc/{pid}/mem"))
            .expect("reading another process's memory takes root");
        let mut by_first: Vec<Vec<(&'static str, &[u8])>> = vec![Vec::new(); 256];
        for (name, forms) in &self.0 {
            for form in forms {
                by_first[usize::from(form[0])].push((name, form));
            }
        }
        let mut found = Vec::new();
        for line in maps.lines().filter(|line| line.split(' ').nth(1).unwrap().starts_with('r')) {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let address = |hex| u64::from_str_radix(hex, 16).unwrap();
            let (from, to) = (address(from), address(to));
            let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
            // Some mappings of the kernel's own cannot be read this way, and hold nothing of ours.
            if memory.seek(SeekFrom::Start(from)).is_err() || memory.read_exact(&mut bytes).is_err()
            {
                continue;
            }
            // Most pages are empty; no secret begins in one.
            for run in bytes.chunks(PAGE).collect::<Vec<_>>().split(|page| *page == ZEROS) {
                search(&run.concat(), &by_first, &mut found);
            }
        }
        found.sort_unstable();
        found
    }
}

fn search<'a>(bytes: &[u8], by_first: &[Vec<(&'a str, &[u8])>], found: &mut Vec<&'a str>) {
    for (at, first) in bytes.iter().enumerate() {
        for (name, form) in &by_first[usize::from(*first)] {
            if bytes[at..].starts_with(form) && !found.contains(name) {
                found.push(name);
            }
        }
    }
}

/// Everything that the shares lead to, put together here as an attacker with the store would.
async fn keys_of(broker: &Broker, secrets: &mut Secrets) {
    let shares: Vec<_> = broker
        .keys()
        .iter()
        .map(|key| SecretBytes::new(HEXLOWER.decode(key.as_bytes()).unwrap()))
        .collect();
    for share in &shares {
        secrets.add("share", &share.expose()[..32]);
    }
    let unseal_key = shamir::combine(&shares[..2], 2).unwrap();
    secrets.add("unseal key", unseal_key.expose());

    let file = broker.data_dir().join("leasehold.db");
    let store = rusqlite::Connection::open(file).unwrap();
    let meta = |name: &str| -> Value {
        let query = "SELECT value FROM meta WHERE name = ?1";
        let bytes: Vec<u8> = store.query_row(query, [name], |row| row.get(0)).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let (seal, keyring) = (meta("seal"), meta("keyring"));
    let slot = &seal["slots"][0];
    let mut context = Vec::new();
    for text in [&slot["kind"], &slot["id"], &seal["cluster_id"]] {
        let text = text.as_str().unwrap();
        context.extend_from_slice(&(text.len() as u64).to_be_bytes());
        context.extend_from_slice(text.as_bytes());
    }
    let number = |value: &Value| u8::try_from(value.as_u64().unwrap()).unwrap();
    context.extend_from_slice(&[number(&slot["shares"]), number(&slot["threshold"])]);
    let decoded = |value: &Value| BASE64.decode(value.as_str().unwrap().as_bytes()).unwrap();
    let unseal_key = unseal_key.expose().try_into().unwrap();
    let root = unwrap_root(unseal_key, &decoded(&slot["wrapped"]), &context).unwrap();
    secrets.add("root key", root.expose());
    let generation = keyring["generation"].as_u64().unwrap();
    let keyring = Keyring::open_under(&root, generation, &decoded(&keyring["sealed"])).unwrap();
    secrets.add("batch token key", keyring.subkey(Label::BatchToken).expose());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_process_knows_nothing_any_more() {
    let broker = Broker::ready(Setup { shares: (3, 2), ..Setup::default() }).await;
    let root = broker.root();
    let mut secrets = Secrets(BTreeMap::new());
    keys_of(&broker, &mut secrets).await;
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

    // The control: the search finds what an unsealed server must know.
    let known = secrets.found_in(broker.pid());
    for name in ["batch token key", "root key", "token", "value"] {
        assert!(known.contains(&name), "{name} is not among {known:?}");
    }
    // What only the ceremony needs is gone even now.
    assert!(!known.contains(&"unseal key") && !known.contains(&"share"), "{known:?}");

    root.write("sys/seal", json!({})).await.ok();
    let mut waited = Duration::ZERO;
    let mut left = secrets.found_in(broker.pid());
    while !left.is_empty() && waited < PATIENCE {
        tokio::time::sleep(STEP).await;
        waited += STEP;
        left = secrets.found_in(broker.pid());
    }
    assert_eq!(left, Vec::<&str>::new(), "still in memory");
    let status = broker.nobody().read("sys/seal-status").await;
    assert_eq!(status.ok()["sealed"], json!(true), "the server is alive");
}
