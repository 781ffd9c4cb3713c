//! The sweep: what is due goes, and nobody waits for somebody else's target.

use leasehold::core::hold::HoldCell;
use tokio_util::sync::CancellationToken;

use super::*;

pub(super) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap_or_else(|_| {
        panic!("never happened: {what}");
    });
}

/// The sweep as the server runs it.
pub(super) struct Running {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    pub(super) fn start(world: &World) -> Self {
        let stop = CancellationToken::new();
        Self { task: tokio::spawn(world.leases().clone().run_sweep(stop.clone())), stop }
    }

    pub(super) async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

#[tokio::test]
async fn what_expires_is_revoked_and_what_does_not_is_left() {
    let world = World::new().await;
    world.issue("pg", "u1").await;
    let long = world.leases().issue(world.issuing(), plan("pg", "u2", Ttl::from_secs(7200))).await;
    world.advance(3599);
    assert_eq!(world.sweep().await, SweepReport::default());
    world.advance(1);
    let report = world.sweep().await;
    assert_eq!((report.claimed, report.revoked), (1, 1));
    assert_eq!(world.targets.live(), BTreeSet::from(["u2".to_owned()]));
    assert_eq!(world.rows().await[0].id, id(&long.unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_running_sweep_wakes_by_itself_when_something_is_due() {
    let world = World::new().await;
    let running = Running::start(&world);
    for (name, ttl) in [("slow", 600), ("fast", 10)] {
        let plan = plan("pg", name, Ttl::from_secs(ttl));
        world.leases().issue(world.issuing(), plan).await.unwrap();
    }
    // The sweep may look at the clock before or after it is moved; it notices either way.
    world.advance(10);
    until("the fast one ends", async || world.targets.live().len() == 1).await;
    world.advance(590);
    until("the slow one ends", async || world.targets.live().is_empty()).await;
    until("both are forgotten", async || world.rows().await.is_empty()).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_off_issue_is_undone_without_the_clock_moving() {
    let world = World::new().await;
    let running = Running::start(&world);
    world.targets.set("pg", Mood::FailingAfter);
    world.try_issue("pg", "u1").await.unwrap_err();
    until("it is undone", async || world.targets.live().is_empty()).await;
    until("it is forgotten", async || world.rows().await.is_empty()).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_target_delays_no_other() {
    let world = World::with(|setup| setup.leases.per_target = 2).await;
    for n in 0..20 {
        world.issue("stuck", &format!("s{n}")).await;
    }
    for n in 0..20 {
        world.issue("good", &format!("g{n}")).await;
    }
    world.targets.set("stuck", Mood::Hanging);
    let running = Running::start(&world);
    world.advance(3601);
    until("the good ones end", async || world.targets.live().len() == 20).await;
    // Also what becomes due while the others hang.
    world.targets.set("good", Mood::Up);
    let late = plan("good", "late", Ttl::from_secs(5));
    world.leases().issue(world.issuing(), late).await.unwrap();
    world.advance(6);
    until("the late one ends", async || world.targets.credential("late").is_none()).await;
    assert_eq!(world.targets.live().len(), 20);
    world.targets.set("stuck", Mood::Up);
    until("the stuck ones end", async || world.targets.live().is_empty()).await;
    until("all are forgotten", async || world.rows().await.is_empty()).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_before_a_hanging_target_does_not_bar_the_way() {
    let world = World::new().await;
    // More than is ever in hand, all due before the good one.
    let crowd = (0..2600).map(|n| {
        let world = &world;
        async move {
            let plan = plan("stuck", &format!("s{n}"), Ttl::from_secs(60));
            world.leases().issue(world.issuing(), plan).await.unwrap();
        }
    });
    futures_util::stream::StreamExt::for_each_concurrent(
        futures_util::stream::iter(crowd),
        64,
        |issue| issue,
    )
    .await;
    world.issue("good", "g").await;
    world.targets.set("stuck", Mood::Hanging);
    let running = Running::start(&world);
    world.advance(3601);
    world.targets.until_hanging(1).await;
    until("the good one ends", async || {
        // Time has to pass for the sweep to see that a lane stands still.
        world.advance(1);
        world.targets.credential("g").is_none()
    })
    .await;
    assert_eq!(world.targets.live().len(), 2600);
    running.end().await;
    assert_eq!(world.leaked().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_low_rate_is_shared_by_all_targets() {
    const TARGETS: [&str; 4] = ["a", "b", "c", "d"];
    const EACH: usize = 10;
    // One in each slice of time, fewer than there are targets.
    let world = World::with(|setup| setup.leases.rate_per_sec = 20).await;
    for (target, n) in TARGETS.iter().flat_map(|target| (0..EACH).map(move |n| (target, n))) {
        world.issue(target, &format!("{target}{n}")).await;
    }
    let running = Running::start(&world);
    world.advance(3601);
    let slice = || world.test.clock.advance(Duration::from_millis(50));
    until("some end", async || {
        slice();
        world.targets.revoked().len() >= 3 * TARGETS.len()
    })
    .await;
    let ended: Vec<_> = world.targets.revoked().into_keys().collect();
    for target in TARGETS {
        let of_it = ended.iter().filter(|name| name.starts_with(target)).count();
        assert!(of_it >= 2, "{target} goes short: {ended:?}");
    }
    until("all end", async || {
        slice();
        world.targets.live().is_empty()
    })
    .await;
    running.end().await;
}

#[tokio::test]
async fn concurrency_on_one_target_is_limited() {
    let world = World::with(|setup| setup.leases.per_target = 3).await;
    for n in 0..30 {
        world.issue("pg", &format!("u{n}")).await;
    }
    world.advance(3601);
    assert_eq!(world.sweep().await.revoked, 30);
    assert!(world.targets.most_underway() <= 3);
}

#[tokio::test]
async fn a_target_that_is_down_is_left_alone_but_for_probes() {
    let world = World::with(|setup| setup.leases.per_target = 1).await;
    for n in 0..50 {
        world.issue("pg", &format!("u{n}")).await;
    }
    world.targets.set("pg", Mood::Down);
    world.advance(3601);
    let report = world.sweep().await;
    assert_eq!((report.failed, report.postponed), (3, 47));
    assert_eq!(world.overdue().await.len(), 50, "those that were not tried are late all the same");
    let mut tried = 0;
    for _ in 0..60 {
        world.advance(5);
        tried += world.sweep().await.failed;
    }
    assert!((3..=12).contains(&tried), "{tried} tries in five minutes");
    world.targets.set("pg", Mood::Up);
    world.advance(300 + 15);
    while !world.rows().await.is_empty() {
        world.sweep().await;
        world.advance(5);
    }
    assert_eq!(world.targets.live().len(), 0);
}

#[tokio::test]
async fn a_target_that_refuses_one_lease_is_not_down() {
    let world = World::new().await;
    for n in 0..20 {
        world.issue("pg", &format!("u{n}")).await;
    }
    world.targets.set("pg", Mood::Refusing);
    world.advance(3601);
    let report = world.sweep().await;
    assert_eq!((report.failed, report.postponed), (20, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_stops_the_sweep_and_its_release_starts_it() {
    let world = World::new().await;
    world.issue("pg", "u1").await;
    let running = Running::start(&world);
    world.leases().set_hold("the clock jumped".into()).await.unwrap();
    world.advance(3601);
    world.leases().wake_sweep();
    assert_eq!(world.sweep().await, SweepReport::default());
    world.advance(3600);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(world.targets.live().len(), 1);
    // A restart does not lift it.
    let surroundings = Surroundings {
        records: world.test.unsealed.records.clone(),
        mounts: world.test.unsealed.mounts.clone(),
        hold: HoldCell::default(),
        quotas: world.test.unsealed.quotas.clone(),
        clock: world.test.core.clock.clone(),
        audit: world.test.core.audit.clone(),
    };
    let again = Leases::new(surroundings, world.test.core.settings.leases.clone(), 7);
    again.load_hold().await.unwrap();
    assert_eq!(again.hold().unwrap().reason, "the clock jumped");
    world.leases().set_hold("another reason".into()).await.unwrap();
    assert_eq!(world.leases().hold().unwrap().reason, "the clock jumped");
    world.leases().release_hold().await.unwrap();
    until("it goes on", async || world.targets.live().is_empty()).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_sweep_leaves_the_store_alone() {
    use leasehold::storage::Storage;
    let (_directory, storage) = crate::support::core::sqlite();
    let counting = Arc::new(counting::Counting::new(storage));
    let targets = Targets::new();
    let setup = TestSetup { registry: targets.registry(), ..TestSetup::new() };
    let test = TestCore::start_on(counting.clone() as Arc<dyn Storage>, setup).await;
    let mounted = test.mount(KIND, "db/").await;
    let world = World { test, targets, mounted };
    // One that is due and claimed by somebody, one far away.
    let (far, near) = (plan("pg", "far", HOUR), plan("pg", "near", Ttl::from_secs(60)));
    world.leases().issue(world.issuing(), far).await.unwrap();
    world.leases().issue(world.issuing(), near).await.unwrap();
    world.advance(61);
    let now = world.now();
    let claimed = counting
        .claim(leasehold::core::records::kinds::LEASE, now, 9, now.plus(HOUR), 10)
        .await
        .unwrap();
    assert_eq!(claimed.len(), 1);
    let running = Running::start(&world);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = counting.calls();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(counting.calls(), before, "a busy loop");
    assert!(before < 100, "{before}");
    world.advance(30);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(counting.calls() > before, "it looks again after a while");
    assert!(counting.calls() < before + 10);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_that_is_stopped_gives_back_what_it_has_not_begun() {
    let world = World::with(|setup| setup.leases.per_target = 1).await;
    for n in 0..10 {
        world.issue("pg", &format!("u{n}")).await;
    }
    world.targets.set("pg", Mood::Hanging);
    let running = Running::start(&world);
    world.advance(3601);
    world.targets.until_hanging(1).await;
    running.end().await;
    world.targets.set("pg", Mood::Up);
    // All but the one that was cut off are free at once; that one when its claim ends.
    assert_eq!(world.sweep().await.revoked, 9);
    world.advance(181);
    assert_eq!(world.sweep().await.revoked, 1);
    assert_eq!(world.targets.live().len(), 0);
}

#[tokio::test]
async fn a_due_time_that_was_tampered_with_revokes_nothing_early() {
    let (directory, storage) = crate::support::core::sqlite();
    let targets = Targets::new();
    let setup = TestSetup { registry: targets.registry(), ..TestSetup::new() };
    let test = TestCore::start_on(storage, setup).await;
    let mounted = test.mount(KIND, "db/").await;
    let world = World { test, targets, mounted };
    let lease = world.issue("pg", "u1").await;
    let file = directory.path().join("leasehold.db");
    let tamper = "UPDATE record SET due_at = 1 WHERE due_at IS NOT NULL";
    rusqlite::Connection::open(file).unwrap().execute_batch(tamper).unwrap();
    let report = world.sweep().await;
    assert_eq!((report.claimed, report.revoked, report.postponed), (1, 0, 1));
    assert_eq!(world.targets.live().len(), 1);
    assert_eq!(world.sweep().await.claimed, 0, "put right");
    world.advance(3600);
    assert_eq!(world.sweep().await.revoked, 1);
    assert_eq!(world.lease(&lease).await.map(|lease| lease.id), None);
}

/// A store that counts what it is asked.
mod counting {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use leasehold::crypto::blind::Tag;
    use leasehold::crypto::envelope::SealedRecord;
    use leasehold::storage::{
        Change, Committed, Invalidation, Kind, KindCount, Page, Row, RowKey, Storage, StorageError,
    };
    use leasehold::types::id::NamespaceId;
    use leasehold::types::time::Timestamp;

    pub struct Counting {
        inner: Arc<dyn Storage>,
        calls: AtomicUsize,
    }

    impl Counting {
        pub fn new(inner: Arc<dyn Storage>) -> Self {
            Self { inner, calls: AtomicUsize::new(0) }
        }

        pub fn calls(&self) -> usize {
            self.calls.load(Ordering::SeqCst)
        }

        fn counted(&self) -> &Arc<dyn Storage> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            &self.inner
        }
    }

    #[async_trait]
    impl Storage for Counting {
        async fn get(&self, key: RowKey) -> Result<Option<Row>, StorageError> {
            self.counted().get(key).await
        }

        async fn list(
            &self,
            namespace: NamespaceId,
            kind: Kind,
            parent: Tag,
            after: Option<Tag>,
            limit: usize,
        ) -> Result<Page, StorageError> {
            self.counted().list(namespace, kind, parent, after, limit).await
        }

        async fn labelled(
            &self,
            namespace: NamespaceId,
            kind: Kind,
            label: Tag,
            after: Option<Tag>,
            limit: usize,
        ) -> Result<Page, StorageError> {
            self.counted().labelled(namespace, kind, label, after, limit).await
        }

        async fn count_labelled(
            &self,
            namespace: NamespaceId,
            kind: Kind,
            label: Tag,
            max: u64,
        ) -> Result<u64, StorageError> {
            self.counted().count_labelled(namespace, kind, label, max).await
        }

        async fn due(
            &self,
            kind: Kind,
            until: Timestamp,
            limit: usize,
        ) -> Result<Vec<Row>, StorageError> {
            self.counted().due(kind, until, limit).await
        }

        async fn next_due(&self, kind: Kind) -> Result<Option<Timestamp>, StorageError> {
            self.counted().next_due(kind).await
        }

        async fn claim(
            &self,
            kind: Kind,
            now: Timestamp,
            node: u64,
            claim_until: Timestamp,
            limit: usize,
        ) -> Result<Vec<Row>, StorageError> {
            self.counted().claim(kind, now, node, claim_until, limit).await
        }

        async fn count(&self, kind: Kind, until: Timestamp) -> Result<KindCount, StorageError> {
            self.counted().count(kind, until).await
        }

        async fn wrapped_below(
            &self,
            term: u32,
            after: Option<RowKey>,
            limit: usize,
        ) -> Result<Vec<Row>, StorageError> {
            self.counted().wrapped_below(term, after, limit).await
        }

        async fn count_wrapped_below(&self, term: u32) -> Result<u64, StorageError> {
            self.counted().count_wrapped_below(term).await
        }

        async fn reseal(&self, rows: Vec<(RowKey, u64, SealedRecord)>) -> Result<(), StorageError> {
            self.counted().reseal(rows).await
        }

        async fn commit(&self, batch: Vec<Change>) -> Result<Committed, StorageError> {
            self.counted().commit(batch).await
        }

        async fn meta(&self, name: &'static str) -> Result<Option<Vec<u8>>, StorageError> {
            self.counted().meta(name).await
        }

        async fn sequence(&self) -> Result<u64, StorageError> {
            self.counted().sequence().await
        }

        fn name(&self) -> &'static str {
            self.inner.name()
        }

        fn invalidations(&self) -> tokio::sync::broadcast::Receiver<Invalidation> {
            self.inner.invalidations()
        }

        async fn close(&self) {
            self.inner.close().await;
        }
    }
}
