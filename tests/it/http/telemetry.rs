//! Metrics: there, named as documented, moving, and not told to strangers.

use std::time::Duration;

use serde_json::json;

use super::world::{World, shared, unique};
use crate::support::broker::{Broker, DOMAIN, Setup};
use crate::support::wire::soon;

/// The samples of a metric, by their labels.
fn samples(text: &str, name: &str) -> Vec<(String, f64)> {
    text.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            (labels.is_empty() || labels.starts_with('{'))
                .then(|| (labels.to_owned(), value.parse().unwrap()))
        })
        .collect()
}

fn sum(text: &str, name: &str, label: &str) -> f64 {
    let found = samples(text, name);
    found.iter().filter(|(labels, _)| labels.contains(label)).map(|(_, value)| value).sum()
}

async fn metrics(world: &World) -> String {
    let answer = world.broker.root().read("sys/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").unwrap().starts_with("text/plain"), "{}", answer.head);
    answer.body
}

#[tokio::test]
async fn what_operators_watch_is_measured() {
    let world = World::new(Setup::default()).await;
    let root = world.broker.root();
    let before = metrics(&world).await;
    root.write("secret/data/m", json!({ "data": {} })).await.ok();
    for _ in 0..3 {
        root.read("secret/data/m").await.ok();
    }
    root.read("secret/data/none").await.error(404);
    let leased = root.read("database/creds/reader").await.ok();
    let after = metrics(&world).await;
    let grew = |name: &str, label: &str| sum(&after, name, label) - sum(&before, name, label);
    let reads = "route=\"kv/data/*path\"";
    assert_eq!(grew("leasehold_requests_total", reads), 5.0);
    let by_status = "route=\"kv/data/*path\",status=\"404\"";
    assert_eq!(grew("leasehold_requests_total", by_status), 1.0);
    assert_eq!(grew("leasehold_request_seconds_count", reads), 5.0);
    assert!(grew("leasehold_cache_hits_total", "") >= 1.0);
    assert!(grew("leasehold_storage_seconds_count", "") >= 1.0);
    assert!(grew("leasehold_audit_entries_total", "") >= 5.0);
    assert_eq!(grew("leasehold_leases_issued_total", "mount=\"database/\""), 1.0);
    assert!(samples(&after, "leasehold_request_seconds_bucket").len() > 3, "a histogram");
    // Live and overdue leases, the age of the oldest overdue, and the seal.
    assert_eq!(sum(&after, "leasehold_leases_live", "mount=\"database/\""), 0.0, "{after}");
    assert_eq!(sum(&after, "leasehold_leases_overdue", ""), 0.0);
    assert_eq!(samples(&after, "leasehold_lease_overdue_oldest_seconds").len(), 1, "{after}");
    assert_eq!(sum(&after, "leasehold_sealed", ""), 0.0);
    assert_eq!(samples(&after, "leasehold_sealed").len(), 1);
    root.write("sys/leases/revoke", json!({ "lease_id": leased["lease_id"] })).await.ok();
    let last = metrics(&world).await;
    let revoked = sum(&last, "leasehold_revocations_total", "")
        - sum(&after, "leasehold_revocations_total", "");
    assert_eq!(revoked, 1.0, "{last}");
    // Leases are counted at unsealing, and every few seconds from then on.
    root.read("database/creds/reader").await.ok();
    world.broker.start_again();
    world.broker.unseal().await;
    soon(async {
        let live = "leasehold_leases_live";
        while sum(&metrics(&world).await, live, "mount=\"database/\"") != 1.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // No label is a caller's to choose.
    for text in ["secret/data/m", "none"] {
        assert!(!last.contains(&format!("\"{text}/")) && !last.contains(&format!("/{text}\"")));
    }
}

/// Of so many rounds the best one counts: every few seconds there is work in the background, which asks
/// the store as well.
const ROUNDS: usize = 4;

/// On SQLite. A start-up storm is made of them.
#[tokio::test]
async fn workloads_that_come_for_the_first_time_ask_the_store_nothing() {
    const FIRST_TIMES: u32 = 5;
    let world = World::new(Setup::default()).await;
    let root = world.broker.root();
    root.write("secret/data/m", json!({ "data": { "a": "b" } })).await.ok();
    let policy = "path \"secret/data/m\" { capabilities = [\"read\"] }";
    root.write("sys/policies/acl/first", json!({ "policy": policy })).await.ok();
    let role = json!({
        "allowed_uri_sans": [format!("spiffe://{DOMAIN}/first/*")],
        "token_policies": ["first"],
    });
    root.write("auth/cert/certs/first", role).await.ok();
    let comes = async |name: &str| {
        let workload = world.broker.caller(&world.broker.svid(&format!("first/{name}")));
        workload.read("secret/data/m").await.ok();
    };
    comes("of-all").await;
    let asked = |text: &str| sum(text, "leasehold_storage_seconds_count", "op=\"get\"");
    let told = |text: &str| sum(text, "leasehold_storage_known_absent_total", "");
    // What the file has is learned behind the first requests.
    soon(async {
        while told(&metrics(&world).await) == 0.0 {
            comes(&unique("early")).await;
        }
    })
    .await;
    let mut least = f64::MAX;
    for _ in 0..ROUNDS {
        let before = metrics(&world).await;
        for _ in 0..FIRST_TIMES {
            comes(&unique("later")).await;
        }
        let after = metrics(&world).await;
        least = least.min(asked(&after) - asked(&before));
        assert!(told(&after) >= told(&before) + f64::from(FIRST_TIMES), "{after}");
    }
    assert_eq!(least, 0.0, "questions to the store");

    // Somebody says something about the next one, which then is looked for, and found.
    let accessor = root.read("sys/auth").await.ok()["data"]["cert/"]["accessor"].clone();
    let alias = unique("first/known");
    let entity = root.write("identity/entity", json!({ "disabled": true })).await.ok();
    let named = json!({
        "name": format!("spiffe://{DOMAIN}/{alias}"),
        "canonical_id": entity["data"]["id"],
        "mount_accessor": accessor,
    });
    root.write("identity/entity-alias", named).await.ok();
    let workload = world.broker.caller(&world.broker.svid(&alias));
    workload.read("secret/data/m").await.error(403);
    let entity = format!("identity/entity/id/{}", entity["data"]["id"].as_str().unwrap());
    root.write(&entity, json!({ "disabled": false })).await.ok();
    workload.read("secret/data/m").await.ok();
}

/// Requests that come again and again find what they need in memory, and ask the store only to change it.
#[tokio::test]
async fn what_comes_again_asks_the_store_nothing_but_to_change() {
    const TIMES: u32 = 4;
    let world = World::new(Setup::default()).await;
    let policy = r#"path "*" { capabilities = ["create", "read", "update", "sudo"] }"#;
    let (caller, _) = world.workload(policy).await;
    for (what, commits) in [("write", 1), ("read", 0), ("login", 1), ("token", 1), ("lease", 2)] {
        let request = async || {
            let data = json!({ "data": { "a": "b" } });
            let answer = match what {
                "write" => caller.write("secret/data/again", data).await,
                "read" => caller.read("secret/data/again").await,
                "login" => caller.write("auth/cert/login", json!({})).await,
                "token" => caller.write("auth/token/create", json!({})).await,
                _ => caller.read("database/creds/reader").await,
            };
            answer.ok();
        };
        // The first one makes directories and finds what is to be known; the second one finds both.
        request().await;
        request().await;
        let mut least = [f64::MAX; 4];
        for _ in 0..ROUNDS {
            let before = metrics(&world).await;
            for _ in 0..TIMES {
                request().await;
            }
            let after = metrics(&world).await;
            for (least, op) in least.iter_mut().zip(["get", "list", "labelled", "commit"]) {
                let label = format!("op=\"{op}\"");
                let count = |text: &str| sum(text, "leasehold_storage_seconds_count", &label);
                *least = least.min(count(&after) - count(&before));
            }
        }
        assert_eq!(least, [0.0, 0.0, 0.0, f64::from(commits * TIMES)], "{what}");
    }
}

#[tokio::test]
async fn metrics_are_open_only_where_the_configuration_says_so() {
    let world = shared().await;
    assert_eq!(world.broker.nobody().read("sys/metrics").await.status, 403);
    let tables = "[telemetry]\nunauthenticated_metrics = true\n".to_owned();
    let broker = Broker::ready(Setup { tables, ..Setup::default() }).await;
    let open = broker.nobody().read("sys/metrics").await;
    assert!(open.status == 200 && open.body.contains("leasehold_requests_total"), "{}", open.body);
    let format = broker.nobody().read("sys/metrics?format=xml").await;
    assert!(format.error(400).contains("format"), "{}", format.body);
}
