use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::core::hold::HoldCell;
use crate::core::mount::Registry;
use crate::core::scratch::{NOW, Scratch};
use crate::types::time::ManualClock;

struct Node {
    quotas: Quotas,
    tokens: TokenStore,
    clock: Arc<ManualClock>,
}

impl Node {
    async fn on(records: Arc<Records>) -> Self {
        let clock = Arc::new(ManualClock::new(NOW));
        let (default, max) = (Ttl::from_secs(60), Ttl::from_secs(600));
        let registry = Arc::new(Registry::default());
        let hold = HoldCell::default();
        let mounts = MountTable::load(records.clone(), registry, clock.clone(), hold, default, max)
            .await
            .unwrap();
        let tokens = TokenStore::new(records.clone(), clock.clone());
        let quotas = Quotas::new(records, Arc::new(mounts), clock.clone());
        quotas.load().await.unwrap();
        Self { quotas, tokens, clock }
    }

    async fn set(&self, name: &str, quota: Value) -> Result<(), CoreError> {
        self.quotas.set_rate_limit(name, &fields(quota)).await
    }

    /// What is left after a request, or the refusal.
    async fn ask(&self, path: &str, address: &str) -> Result<Option<u64>, CoreError> {
        let path = ApiPath::parse(path).unwrap();
        let remote: SocketAddr = format!("{address}:7").parse().unwrap();
        let connection = ConnectionInfo { peer: None, remote, listener: "test".into(), id: 1 };
        let mut left = None;
        self.quotas.admit(&self.tokens, &path, None, &connection, &mut left).await?;
        Ok(left.map(|left| left.remaining))
    }

    async fn left(&self, path: &str) -> Option<u64> {
        self.ask(path, "192.0.2.1").await.unwrap()
    }
}

fn fields(value: Value) -> Fields {
    Fields::new(value.as_object().unwrap().clone())
}

#[tokio::test]
async fn the_most_specific_quota_counts_and_the_others_rest() {
    let scratch = Scratch::new();
    let node = Node::on(scratch.records.clone()).await;
    for (name, path, rate) in [
        ("all", "", 100),
        ("mount", "kv/", 90),
        ("prefix", "kv/team/*", 80),
        ("exact", "kv/team/x", 70),
    ] {
        node.set(name, json!({ "path": path, "rate": rate, "interval": "1h" })).await.unwrap();
    }
    let only_others = json!({ "path": "kv/team/x", "role": "web", "rate": 1, "interval": "1h" });
    node.set("role", only_others).await.unwrap();
    assert_eq!(node.left("kv/team/x").await, Some(69));
    assert_eq!(node.left("kv/team/x/").await, Some(68));
    assert_eq!(node.left("kv/team/y").await, Some(79));
    assert_eq!(node.left("kv/other").await, Some(89));
    assert_eq!(node.left("elsewhere").await, Some(99));
    assert_eq!(node.left("kv/team/x").await, Some(67));
    assert_eq!(node.left("kv2/team").await, Some(98));
}

#[tokio::test]
async fn what_ends_or_prolongs_something_is_never_limited() {
    let scratch = Scratch::new();
    let node = Node::on(scratch.records.clone()).await;
    let least = json!({ "rate": 1, "interval": "1d", "block_interval": "1d", "group_by": "none" });
    node.set("least", least).await.unwrap();
    node.set("aimed", json!({ "path": "sys/leases/revoke", "rate": 1, "interval": "1d" }))
        .await
        .unwrap();
    assert_eq!(node.left("kv/a").await, Some(0));
    for _ in 0..3 {
        for path in [
            "sys/leases/revoke",
            "sys/leases/revoke/db/creds/x/y",
            "sys/leases/revoke-prefix/db",
            "sys/leases/revoke-where",
            "sys/leases/renew",
            "sys/revoke/x",
            "sys/renew/x",
            "auth/token/renew-self",
            "auth/token/revoke-accessor",
            "sys/seal",
            "sys/hold",
            "sys/quotas/rate-limit/least",
        ] {
            assert_eq!(node.left(path).await, None, "{path}");
        }
        for path in ["kv/a", "sys/leases/lookup", "auth/token/create", "kv/sys/seal"] {
            let refused = node.ask(path, "192.0.2.9").await.unwrap_err();
            assert_eq!(refused.status(), 429, "{path}");
            assert_eq!(refused.retry_after(), Some(Ttl::from_secs(86_400)));
        }
    }
    let exempt = json!({ "rate_limit_exempt_paths": ["kv/open/*", "kv/one"] });
    node.quotas.set_config(&fields(exempt)).await.unwrap();
    assert_eq!(node.left("kv/open/x").await, None);
    assert_eq!(node.left("kv/one/").await, None);
    assert!(node.ask("kv/one/two", "192.0.2.1").await.is_err());
}

#[tokio::test]
async fn time_gives_back_what_was_used() {
    let scratch = Scratch::new();
    let node = Node::on(scratch.records.clone()).await;
    node.set("q", json!({ "rate": "2", "interval": 10 })).await.unwrap();
    assert_eq!((node.left("a").await, node.left("b").await), (Some(1), Some(0)));
    let refused = node.ask("a", "192.0.2.1").await.unwrap_err();
    assert_eq!(refused.retry_after(), Some(Ttl::from_secs(5)));
    assert_eq!(node.ask("a", "192.0.2.2").await.unwrap(), Some(1), "somebody else");
    // The wall clock does not matter.
    node.clock.set_wall(NOW.plus(Ttl::from_secs(3600)));
    assert!(node.ask("a", "192.0.2.1").await.is_err());
    node.clock.advance(Duration::from_secs(5));
    assert_eq!(node.left("a").await, Some(0));
}

#[tokio::test]
async fn what_is_stored_comes_into_force_elsewhere_and_after_a_restart() {
    let scratch = Scratch::new();
    let here = Node::on(scratch.records.clone()).await;
    let there = Node::on(scratch.reopened(scratch.storage.clone())).await;
    here.set("q", json!({ "rate": 5, "path": "kv/" })).await.unwrap();
    assert_eq!(there.left("kv/a").await, None);
    there.quotas.load().await.unwrap();
    assert_eq!(there.left("kv/a").await, Some(4));
    let again = Node::on(scratch.reopened(scratch.storage.clone())).await;
    assert_eq!(again.left("kv/a").await, Some(4));
    // A change begins anew, and what it leaves out stays.
    here.set("q", json!({ "rate": 9 })).await.unwrap();
    assert_eq!(here.left("kv/a").await, Some(8));
    here.quotas.remove_rate_limit("q").await.unwrap();
    assert_eq!(here.left("kv/a").await, None);
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_field() {
    let scratch = Scratch::new();
    let node = Node::on(scratch.records.clone()).await;
    for (quota, field) in [
        (json!({}), "rate"),
        (json!({ "rate": 0 }), "rate"),
        (json!({ "rate": -1 }), "rate"),
        (json!({ "rate": "NaN" }), "rate"),
        (json!({ "rate": "inf" }), "rate"),
        (json!({ "rate": 1e300 }), "rate"),
        (json!({ "rate": 1e-300 }), "rate"),
        (json!({ "rate": true }), "rate"),
        (json!({ "rate": 1, "interval": 0 }), "interval"),
        (json!({ "rate": 1, "interval": "25h" }), "interval"),
        (json!({ "rate": 1, "block_interval": "25h" }), "block_interval"),
        (json!({ "rate": 1, "group_by": "entity" }), "group_by"),
        (json!({ "rate": 1, "path": "a//b" }), "path"),
        (json!({ "rate": 1, "path": "a*b" }), "path"),
        (json!({ "rate": 1, "path": "*" }), "path"),
    ] {
        let error = node.set("q", quota.clone()).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("field \"{field}\"")), "{quota}: {error}");
    }
    for name in ["", "a/b", "..", "a b"] {
        assert_eq!(node.set(name, json!({ "rate": 1 })).await.unwrap_err().status(), 400);
    }
    for count in [
        json!({ "path": "kv/" }),
        json!({ "path": "kv/", "max_leases": 0 }),
        json!({ "max_leases": 1 }),
        json!({ "path": "", "max_leases": 1 }),
        json!({ "path": "nowhere/", "max_leases": 1 }),
        json!({ "path": "kv/", "max_leases": 1, "group_by": "client" }),
    ] {
        let error = node.quotas.set_lease_count("q", &fields(count)).await.unwrap_err();
        assert_eq!(error.status(), 400);
    }
    for paths in [json!([""]), json!(["*"]), json!(["a//b"]), json!(vec!["a"; 257])] {
        let config = fields(json!({ "rate_limit_exempt_paths": paths }));
        assert_eq!(node.quotas.set_config(&config).await.unwrap_err().status(), 400);
    }
    assert!(node.quotas.rate_limits().await.unwrap().is_empty());
    for n in 0..QUOTAS_MAX {
        scratch_write(&scratch, n).await;
    }
    let one_more = node.set("one-more", json!({ "rate": 1 })).await.unwrap_err();
    assert!(one_more.to_string().contains("256"), "{one_more}");
    node.set("q0", json!({ "rate": 2 })).await.unwrap();
}

/// Writes a quota without putting it in force, which would take a while for each of many.
async fn scratch_write(scratch: &Scratch, n: usize) {
    let view = View::new(scratch.records.clone(), NamespaceId::ROOT, kinds::QUOTA, String::new());
    let limit = RateLimit {
        path: format!("p{n}"),
        role: String::new(),
        rate: 1.0,
        interval: Ttl::from_secs(1),
        block_interval: Ttl::ZERO,
        group_by: GroupBy::Client,
    };
    view.write(&format!("{RATE_LIMITS}q{n}"), &limit, Precondition::Absent).await.unwrap();
}
