//! Several nodes on one PostgreSQL.

use leasehold::storage::open::{StorageSpec, open};
use leasehold::types::secret::SecretString;

use super::*;
use crate::support::postgres::TestPostgres;

async fn node(url: &str) -> Arc<dyn leasehold::storage::Storage> {
    let url = SecretString::new(url.to_owned());
    open(&StorageSpec::Postgres { url, ca_file: None, max_connections: 8 }).await.unwrap()
}

/// Two nodes, their clocks and targets shared.
async fn two() -> (World, World) {
    let url = TestPostgres::shared().database();
    let targets = Targets::new();
    let setup = TestSetup { registry: targets.registry(), ..TestSetup::new() };
    let clock = setup.clock.clone();
    let test = TestCore::start_on(node(&url).await, setup).await;
    let mounted = test.mount(KIND, "db/").await;
    let setup = TestSetup { registry: targets.registry(), node: 2, clock, ..TestSetup::new() };
    let other = TestCore::join(node(&url).await, setup, &test.share).await;
    let their_mount = other.unsealed.mounts.at("db/").unwrap();
    let second = World { test: other, targets: targets.clone(), mounted: their_mount };
    (World { test, targets, mounted }, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_sweep_a_thousand_leases_and_each_is_revoked_once() {
    let (first, second) = two().await;
    let issues = (0..1000).map(|n| {
        let world = if n % 2 == 0 { &first } else { &second };
        async move { world.issue("pg", &format!("u{n}")).await }
    });
    let ids: Vec<LeaseId> = futures_util::stream::StreamExt::collect(
        futures_util::stream::StreamExt::buffer_unordered(futures_util::stream::iter(issues), 16),
    )
    .await;
    assert_eq!((ids.len(), first.targets.live().len()), (1000, 1000));
    first.advance(3601);
    let (one, other) = tokio::join!(first.sweep(), second.sweep());
    assert_eq!(one.revoked + other.revoked, 1000);
    assert!(one.revoked > 0 && other.revoked > 0, "{one:?} {other:?}");
    let revoked = first.targets.revoked();
    assert_eq!(revoked.len(), 1000);
    assert!(revoked.values().all(|times| *times == 1), "a credential was revoked twice");
    assert_eq!((first.targets.live().len(), first.rows().await.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_node_had_in_hand_is_taken_over() {
    let (first, second) = two().await;
    for n in 0..10 {
        first.issue("pg", &format!("u{n}")).await;
    }
    first.advance(3601);
    first.targets.set("pg", Mood::Hanging);
    let leases = first.leases().clone();
    let sweeping = tokio::spawn(async move { leases.sweep().await });
    first.targets.until_hanging(1).await;
    // As if its machine had gone: nothing is given back.
    sweeping.abort();
    let _ = sweeping.await;
    first.targets.set("pg", Mood::Up);
    assert_eq!(second.sweep().await.claimed, 0, "still claimed");
    first.advance(181);
    assert_eq!(second.sweep().await.revoked, 10);
    assert_eq!(first.targets.live().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caps_are_exact_over_all_nodes() {
    let url = TestPostgres::shared().database();
    let targets = Targets::new();
    let capped = |node: u64| {
        let mut setup = TestSetup { registry: targets.registry(), node, ..TestSetup::new() };
        setup.leases.per_owner_max = 7;
        setup
    };
    let test = TestCore::start_on(node(&url).await, capped(1)).await;
    let mounted = test.mount(KIND, "db/").await;
    let other = TestCore::join(node(&url).await, capped(2), &test.share).await;
    let their_mount = other.unsealed.mounts.at("db/").unwrap();
    let first = World { test, targets: targets.clone(), mounted };
    let second = World { test: other, targets, mounted: their_mount };
    let names: Vec<String> = (0..30).map(|n| format!("u{n}")).collect();
    let issues = names.iter().enumerate().map(|(n, name)| {
        let world = if n % 2 == 0 { &first } else { &second };
        world.try_issue("pg", name)
    });
    let outcomes = futures_util::future::join_all(issues).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 7);
    assert_eq!(first.targets.live().len(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_issued_on_one_node_is_renewed_and_revoked_on_the_other() {
    let (first, second) = two().await;
    let lease = first.issue("pg", "u1").await;
    first.advance(60);
    second.leases().renew(&lease, HOUR, None).await.unwrap();
    let end = first.targets.credential("u1").unwrap().expires_at;
    assert_eq!(end, first.now().plus(HOUR));
    second.leases().revoke(&lease).await.unwrap();
    // What the first node still has in its cache does not come back to life.
    assert_eq!(first.leases().renew(&lease, HOUR, None).await.unwrap_err().status(), 400);
    first.leases().revoke(&lease).await.unwrap();
    assert_eq!((first.targets.live().len(), first.rows().await.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_that_one_node_removes_issues_nothing_on_another() {
    let (first, second) = two().await;
    let lease = first.issue("pg", "u1").await;
    let mounts = &first.test.unsealed.mounts;
    // While one node takes it down, the other goes on issuing with the table that it has.
    let taking_down = async {
        mounts
            .tune("db/", |entry| {
                entry.disabling = true;
                Ok(())
            })
            .await
            .unwrap();
        let accessor = first.mounted.facts.accessor.clone();
        first.leases().revoke_all(Selector::Mount(accessor)).await.unwrap();
        while !first.rows().await.is_empty() {
            first.sweep().await;
            // What it was about to issue is its own to take back.
            second.sweep().await;
        }
        mounts.remove("db/").await.unwrap();
    };
    let issuing = async {
        for n in 0.. {
            if let Err(error) = second.try_issue("pg", &format!("v{n}")).await {
                return error;
            }
        }
        unreachable!()
    };
    let ((), error) = tokio::join!(taking_down, issuing);
    assert!(matches!(error, CoreError::Invalid(_) | CoreError::Denied { .. }), "{error:?}");
    let error = second.try_issue("pg", "last").await.unwrap_err();
    assert!(error.public_text().contains("is being disabled"), "{error}");
    second.sweep().await;
    assert_eq!((first.targets.live().len(), first.rows().await.len()), (0, 0));
    assert!(first.lease(&lease).await.is_none());
}
