//! Metrics: there, named as documented, moving, and not told to strangers.

use std::time::Duration;

use serde_json::json;

use super::world::{World, shared};
use crate::support::broker::{Broker, Setup};
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
