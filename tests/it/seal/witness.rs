//! The store and the audit witness each other: restored stores and cut logs are held, not acted on.

use std::path::PathBuf;

use leasehold::audit::file::{FileSink, FileSinkConfig, SyncPolicy};
use leasehold::core::audit::broker::BrokerConfig;

use super::*;

pub(super) struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    pub(super) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("audit.log")
    }

    pub(super) async fn start(&self) -> Node {
        let clock = Arc::new(ManualClock::new(NOW));
        let audit = self.audit(&clock);
        Node::with(sqlite(self.directory.path()).await, clock, audit, Vec::new()).await
    }

    fn audit(&self, clock: &Arc<ManualClock>) -> AuditBroker {
        let config = FileSinkConfig {
            name: "file".into(),
            path: self.log(),
            sync: SyncPolicy::Interval(Duration::from_secs(1)),
            lend: true,
        };
        let sink = Arc::new(FileSink::open(config, clock.clone()).unwrap());
        AuditBroker::new(vec![sink], BrokerConfig::default(), clock.clone()).unwrap()
    }

    pub(super) async fn stop(&self, node: Node) {
        assert!(node.core.seal().await);
        node.core.audit.close().await;
        node.core.storage.close().await;
    }

    /// The store's files, as a backup made while the server was down holds them.
    pub(super) fn back_up(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = std::fs::read_dir(self.directory.path().join("store")).unwrap();
        files
            .map(|file| file.unwrap().path())
            .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
            .collect()
    }

    pub(super) fn restore(&self, backup: &[(PathBuf, Vec<u8>)]) {
        let store = self.directory.path().join("store");
        std::fs::remove_dir_all(&store).unwrap();
        std::fs::create_dir(&store).unwrap();
        for (path, bytes) in backup {
            std::fs::write(path, bytes).unwrap();
        }
    }

    fn remove_log(&self) {
        for entry in std::fs::read_dir(self.directory.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::remove_file(path).unwrap();
            }
        }
    }

    fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap()
    }
}

/// Audited requests between writes: what carries the store's sequence into the log.
pub(super) async fn work(node: &Node, rows: std::ops::Range<u32>) {
    node.write(rows).await;
    node.ok(Verb::Write, "sys/unseal", json!({"reset": true})).await;
}

/// Two rounds, far enough apart that what the first saw counts as settled.
async fn let_heads_settle(node: &Node) {
    for _ in 0..2 {
        node.core.maintain_keys(&node.unsealed()).await.unwrap();
        node.clock.advance(Duration::from_secs(60));
    }
    node.core.maintain_keys(&node.unsealed()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_merely_restarted_is_not_held() {
    let place = Place::new();
    let node = place.start().await;
    let keys = node.init(3, 2).await;
    node.unseal(&keys).await.unwrap();
    work(&node, 0..20).await;
    let_heads_settle(&node).await;
    place.stop(node).await;
    for round in 0..3 {
        let node = place.start().await;
        node.unseal(&keys).await.unwrap();
        assert_eq!(node.unsealed().leases.hold(), None, "round {round}");
        work(&node, 0..5).await;
        let_heads_settle(&node).await;
        place.stop(node).await;
    }
}

#[tokio::test]
async fn a_restored_store_is_held_until_an_administrator_releases_it() {
    let place = Place::new();
    let node = place.start().await;
    let keys = node.init(3, 2).await;
    node.unseal(&keys).await.unwrap();
    work(&node, 0..20).await;
    place.stop(node).await;
    let backup = place.back_up();

    let node = place.start().await;
    node.unseal(&keys).await.unwrap();
    work(&node, 20..40).await;
    place.stop(node).await;
    place.restore(&backup);

    let node = place.start().await;
    node.unseal(&keys).await.unwrap();
    let hold = node.unsealed().leases.hold().expect("a restored store is held");
    assert!(hold.reason.contains("earlier state"), "{}", hold.reason);
    assert!(place.log_text().contains("\"event\":\"store_behind\""));
    node.assert_readable(0..20).await;
    let report = node.unsealed().leases.sweep().await.unwrap();
    assert_eq!(report.claimed, 0, "nothing is even looked at");
    // Not by a restart, and not by the store growing past what was witnessed.
    work(&node, 40..90).await;
    place.stop(node).await;
    let node = place.start().await;
    node.unseal(&keys).await.unwrap();
    assert!(node.unsealed().leases.hold().is_some());

    node.core.release_hold(&node.unsealed(), "admin").await.unwrap();
    assert_eq!(node.unsealed().leases.hold(), None);
    assert!(place.log_text().contains("\"event\":\"store_rebased\""));
    let_heads_settle(&node).await;
    place.stop(node).await;
    let node = place.start().await;
    node.unseal(&keys).await.unwrap();
    assert_eq!(node.unsealed().leases.hold(), None);
    place.stop(node).await;
}

#[tokio::test]
async fn a_restored_store_with_the_log_removed_is_held_too() {
    let place = Place::new();
    let node = place.start().await;
    let keys = node.init(3, 2).await;
    node.unseal(&keys).await.unwrap();
    work(&node, 0..20).await;
    let_heads_settle(&node).await;
    place.stop(node).await;
    let backup = place.back_up();
    let node = place.start().await;
    node.unseal(&keys).await.unwrap();
    work(&node, 20..40).await;
    place.stop(node).await;
    place.restore(&backup);
    place.remove_log();

    let node = place.start().await;
    node.unseal(&keys).await.unwrap();
    let hold = node.unsealed().leases.hold().expect("nothing vouches for this store");
    assert!(hold.reason.contains("does not go on"), "{}", hold.reason);
    assert!(place.log_text().contains("\"event\":\"audit_behind\""));
    node.core.release_hold(&node.unsealed(), "admin").await.unwrap();
    let_heads_settle(&node).await;
    place.stop(node).await;
    let node = place.start().await;
    node.unseal(&keys).await.unwrap();
    assert_eq!(node.unsealed().leases.hold(), None, "the new log is the witness now");
    place.stop(node).await;
}

#[tokio::test]
async fn every_attempt_is_in_the_log_and_no_share_is() {
    let place = Place::new();
    let node = place.start().await;
    let keys = node.init(3, 2).await;
    let wrong = format!("{}01", "ab".repeat(32));
    node.call(Verb::Write, "sys/unseal", json!({"key": wrong})).await.unwrap();
    assert_eq!(
        status(node.call(Verb::Write, "sys/unseal", json!({"key": keys.hex[0]})).await),
        400
    );
    node.unseal(&keys).await.unwrap();
    let started = node.ok(Verb::Write, "sys/generate-root/attempt", json!({})).await;
    assert_eq!(
        status(node.call_as(9, None, Verb::Delete, "sys/generate-root/attempt", json!({})).await),
        403
    );
    place.stop(node).await;
    let log = place.log_text();
    for (path, times) in [("sys/init", 1), ("sys/unseal", 4), ("sys/generate-root/attempt", 2)] {
        assert_eq!(log.matches(&format!("\"path\":\"{path}\"")).count(), times, "{path}\n{log}");
    }
    assert!(log.contains("cancelling takes the nonce"), "the reason of the refusal");
    let secrets = keys.hex.iter().chain(&keys.base64).chain(&keys.root_token);
    for secret in secrets.map(String::as_str).chain([started["otp"].as_str().unwrap(), &wrong]) {
        assert!(!log.contains(secret));
    }
}

#[tokio::test]
async fn without_an_audit_that_takes_entries_no_share_is_taken() {
    let place = Place::new();
    let node = place.start().await;
    let keys = node.init(1, 1).await;
    node.core.audit.close().await;
    let refused = node.call(Verb::Write, "sys/unseal", json!({"key": keys.hex[0]})).await;
    assert_eq!(refused.unwrap_err().status(), 503);
    assert_eq!(
        status(node.call(Verb::Read, "sys/health", json!({})).await),
        503,
        "sealed, not down"
    );
}

/// Nodes that share a store and have an audit log each.
async fn shares(url: &str, place: &Place, name: &str) -> Node {
    let clock = Arc::new(ManualClock::new(NOW));
    let audit = place.audit(&clock);
    Node::named(name, postgres(url).await, clock, audit, Vec::new()).await
}

#[tokio::test]
async fn each_node_goes_on_from_its_own_audit() {
    let url = crate::support::postgres::TestPostgres::shared().database();
    let places = [Place::new(), Place::new()];
    let names = ["host 127.0.0.1:1", "host 127.0.0.1:2"];
    let first = shares(&url, &places[0], names[0]).await;
    let keys = first.init(3, 2).await;
    first.unseal(&keys).await.unwrap();
    let second = shares(&url, &places[1], names[1]).await;
    second.unseal(&keys).await.unwrap();
    // One of them has seen much more than the other.
    for _ in 0..20 {
        work(&first, 0..3).await;
    }
    let_heads_settle(&second).await;
    let_heads_settle(&first).await;
    places[0].stop(first).await;
    places[1].stop(second).await;
    for n in [1, 0] {
        let node = shares(&url, &places[n], names[n]).await;
        node.unseal(&keys).await.unwrap();
        assert_eq!(node.unsealed().leases.hold(), None, "node {n}");
        assert!(!places[n].log_text().contains("node_name_shared"));
        places[n].stop(node).await;
    }
}

#[tokio::test]
async fn nodes_of_one_name_are_told_apart_before_it_does_harm() {
    let url = crate::support::postgres::TestPostgres::shared().database();
    let places = [Place::new(), Place::new()];
    let first = shares(&url, &places[0], "twin").await;
    let keys = first.init(3, 2).await;
    first.unseal(&keys).await.unwrap();
    let second = shares(&url, &places[1], "twin").await;
    second.unseal(&keys).await.unwrap();
    let told = || {
        let logs = places.iter().map(Place::log_text);
        logs.filter(|log| log.contains("\"event\":\"node_name_shared\"")).count()
    };
    for _ in 0..2 {
        work(&first, 0..2).await;
        let_heads_settle(&first).await;
    }
    assert_eq!(told(), 0, "one node alone");
    work(&second, 0..2).await;
    let_heads_settle(&second).await;
    work(&first, 0..2).await;
    let_heads_settle(&first).await;
    assert_eq!(told(), 1);
    work(&second, 0..2).await;
    let_heads_settle(&second).await;
    assert_eq!(told(), 2);
    // One that comes later finds a note that it cannot have written.
    let place = Place::new();
    let late = shares(&url, &place, "twin").await;
    late.unseal(&keys).await.unwrap();
    let hold = late.unsealed().leases.hold().expect("its log is not the one that was noted");
    assert!(hold.reason.contains("another node has this node's name"), "{}", hold.reason);
    place.stop(late).await;
    for (place, node) in places.iter().zip([first, second]) {
        place.stop(node).await;
    }
}
