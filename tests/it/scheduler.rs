//! What goes on by itself: while unsealed, whatever the clocks do, and once in a cluster.

mod crls;
pub(crate) mod jobs;
mod tidying;

use std::sync::Arc;
use std::time::Duration;

use leasehold::core::context::Core;
use leasehold::core::lease::{Issuing, Leases, Owner, Selector};
use leasehold::core::mount::Mounted;
use leasehold::scheduler::{Clockwork, CronLibrary, Scheduler};
use leasehold::storage::Storage;
use leasehold::storage::open::{StorageSpec, open};
use leasehold::types::id::EntityId;
use leasehold::types::secret::SecretString;
use leasehold::types::time::{ManualClock, Timestamp, Ttl};

use crate::support::core::{START, TestCore, TestSetup, here, sqlite};
use crate::support::postgres::TestPostgres;
use crate::support::target::{KIND, Targets, plan};

const DAY: Ttl = Ttl::from_secs(86_400);

/// A node whose scheduler runs.
struct Node {
    core: Arc<Core>,
    leases: Arc<Leases>,
    mounted: Arc<Mounted>,
    clock: Arc<ManualClock>,
    targets: Arc<Targets>,
    scheduler: Scheduler,
    share: String,
}

impl Node {
    async fn first(storage: Arc<dyn Storage>, targets: &Arc<Targets>) -> Self {
        Self::first_with(storage, targets, Arc::new(CronLibrary)).await
    }

    async fn first_with(
        storage: Arc<dyn Storage>,
        targets: &Arc<Targets>,
        clockwork: Arc<dyn Clockwork>,
    ) -> Self {
        let setup = TestSetup { registry: targets.registry(), ..TestSetup::new() };
        let test = TestCore::start_on(storage, setup).await;
        test.mount(KIND, "db/").await;
        Self::run(test, targets, clockwork)
    }

    async fn join(
        storage: Arc<dyn Storage>,
        targets: &Arc<Targets>,
        clock: Arc<ManualClock>,
        share: &str,
    ) -> Self {
        Self::join_with(storage, targets, clock, share, Arc::new(CronLibrary)).await
    }

    async fn join_with(
        storage: Arc<dyn Storage>,
        targets: &Arc<Targets>,
        clock: Arc<ManualClock>,
        share: &str,
        clockwork: Arc<dyn Clockwork>,
    ) -> Self {
        let setup = TestSetup { registry: targets.registry(), node: 2, clock, ..TestSetup::new() };
        Self::run(TestCore::join(storage, setup, share).await, targets, clockwork)
    }

    fn run(test: TestCore, targets: &Arc<Targets>, clockwork: Arc<dyn Clockwork>) -> Self {
        let TestCore { core, unsealed, guard, clock, share, .. } = test;
        Self {
            scheduler: Scheduler::start_with(core.clone(), guard, clockwork),
            leases: unsealed.leases.clone(),
            mounted: unsealed.mounts.at("db/").unwrap(),
            targets: targets.clone(),
            core,
            clock,
            share,
        }
    }

    async fn issue(&self, name: &str, secs: u64) {
        self.issue_to(name, Owner::Entity(EntityId::new("alice")), None, secs).await;
    }

    async fn issue_to(&self, name: &str, owner: Owner, key: Option<&str>, secs: u64) {
        let issuing = Issuing {
            mounted: &self.mounted,
            path: "db/creds/role",
            owner,
            entity: None,
            former: &[],
            entity_row: None,
            asked_with: "",
            caller_expires_at: None,
            caller_row: None,
            idempotency_key: key,
        };
        self.leases.issue(issuing, plan("pg", name, Ttl::from_secs(secs))).await.unwrap();
    }

    fn lives(&self, name: &str) -> bool {
        self.targets.credential(name).is_some()
    }

    /// Lets `secs` pass in small steps, so that everything that waits sees them.
    async fn pass(&self, secs: u64) {
        self.pass_in_steps(secs, 1).await;
    }

    /// Lets `secs` pass in steps of `step` seconds.
    async fn pass_in_steps(&self, secs: u64, step: u64) {
        for _ in 0..secs / step {
            self.clock.advance(Duration::from_secs(step));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Waits for what has to happen without the clock.
async fn soon(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..5000 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("never happened: {what}");
}

/// Lets time pass until something happens.
async fn later(node: &Node, what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..2000 {
        if done().await {
            return;
        }
        node.pass(1).await;
    }
    panic!("never happened: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_works_while_unsealed_and_lets_go_of_everything_when_sealed() {
    let (_directory, storage) = sqlite();
    let targets = Targets::new();
    let Node { core, leases, mounted, clock, scheduler, share, .. } = {
        let node = Node::first(storage, &targets).await;
        node.issue("u1", 10).await;
        node.issue("u2", 60).await;
        node.pass(11).await;
        soon("the first lease ends", async || !node.lives("u1")).await;
        assert!(node.lives("u2"));
        node
    };
    drop((leases, mounted));
    // True only when nobody holds the keys any more.
    assert!(core.seal().await);
    clock.advance(Duration::from_secs(60));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(targets.credential("u2").is_some(), "nothing is revoked while sealed");
    core.unseal(&share, &here()).await.unwrap();
    soon("it takes up again", async || targets.credential("u2").is_none()).await;
    assert!(core.seal().await);
    scheduler.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutting_down_ends_every_task() {
    let (_directory, storage) = sqlite();
    let targets = Targets::new();
    let Node { core, leases, mounted, scheduler, .. } = Node::first(storage, &targets).await;
    tokio::time::timeout(Duration::from_secs(10), scheduler.shutdown()).await.unwrap();
    drop((leases, mounted));
    assert!(core.seal().await);
}

/// The clock goes faster than the cron library's own, which therefore never fires in time: all that
/// is done here is the watchdog's doing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_run_although_the_cron_library_stands_still() {
    let (_directory, storage) = sqlite();
    let node = Node::first(storage, &Targets::new()).await;
    let operation = node.leases.revoke_all(Selector::Prefix(String::new())).await.unwrap();
    let before = node.targets.ticks().len();
    later(&node, "mounts are asked for their own work", async || {
        node.targets.ticks().len() >= before + 5
    })
    .await;
    node.clock.advance(Duration::from_secs(8 * 86_400));
    later(&node, "what is old is tidied away", async || {
        node.leases.progress(&operation).await.unwrap().is_none()
    })
    .await;
    node.scheduler.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_ahead_holds_revocations_until_somebody_has_looked() {
    let (_directory, storage) = sqlite();
    let node = Node::first(storage, &Targets::new()).await;
    node.issue("u1", 3600).await;
    node.clock.set_wall(START.plus(DAY));
    later(&node, "a hold", async || node.leases.hold().is_some()).await;
    assert!(node.leases.hold().unwrap().reason.contains("jumped ahead"));
    node.pass(60).await;
    assert!(node.lives("u1") && node.core.clock.now() < START.plus(Ttl::from_secs(3600)));
    // What is asked for expressly waits too.
    assert!(node.leases.revoke_all(Selector::Overdue).await.is_err());
    let unsealed = node.core.unsealed().unwrap();
    node.core.release_hold(&unsealed, "admin").await.unwrap();
    later(&node, "the clock is believed and the lease ends", async || !node.lives("u1")).await;
    assert!(node.core.clock.now() >= START.plus(DAY));
    assert!(node.leases.hold().is_none(), "one look is enough");
    node.pass(5).await;
    assert!(node.leases.hold().is_none());
    drop(unsealed);
    node.scheduler.shutdown().await;
}

/// Whoever releases a hold says nothing of a jump that it did not tell of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_for_another_reason_does_not_stand_for_a_jump() {
    let (_directory, storage) = sqlite();
    let node = Node::first(storage, &Targets::new()).await;
    node.issue("u1", 3600).await;
    node.leases.set_hold("moving house".into()).await.unwrap();
    node.clock.set_wall(START.plus(DAY));
    node.pass(10).await;
    assert_eq!(node.leases.hold().unwrap().reason, "moving house");
    node.leases.release_hold().await.unwrap();
    later(&node, "a hold for the jump", async || node.leases.hold().is_some()).await;
    assert!(node.leases.hold().unwrap().reason.contains("jumped ahead"));
    assert!(node.lives("u1") && node.core.clock.now() < START.plus(Ttl::from_secs(3600)));
    node.leases.release_hold().await.unwrap();
    later(&node, "the lease ends", async || !node.lives("u1")).await;
    node.scheduler.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_back_prolongs_nothing() {
    let (_directory, storage) = sqlite();
    let node = Node::first(storage, &Targets::new()).await;
    node.issue("u1", 100).await;
    node.clock.set_wall(Timestamp::from_secs(1_000_000));
    node.pass(90).await;
    assert!(node.lives("u1"));
    node.pass(11).await;
    later(&node, "it ends after as long as was promised", async || !node.lives("u1")).await;
    assert!(node.leases.hold().is_none());
    node.scheduler.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_does_a_restart_with_a_clock_that_was_set_back() {
    let (_directory, storage) = sqlite();
    let targets = Targets::new();
    let node = Node::first(storage.clone(), &targets).await;
    node.issue("u1", 200).await;
    node.pass(190).await;
    // As when the process is killed: nothing is noted at the end.
    node.scheduler.shutdown().await;
    drop(node.leases);

    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000_000)));
    let node = Node::join(storage, &targets, clock, &node.share).await;
    // Time goes on where it was before anything can be asked. At most what passes between two notes,
    // and while one is written, is lost.
    let lost = START.plus(Ttl::from_secs(190)).millis_since(node.core.clock.now());
    assert!((0..20_000).contains(&lost), "{lost} ms were lost");
    node.pass(31).await;
    later(&node, "it ends", async || !node.lives("u1")).await;
    assert!(node.core.clock.now() < START.plus(Ttl::from_secs(600)));
    node.scheduler.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_server_comes_back_at_the_very_time_that_it_went() {
    let (_directory, storage) = sqlite();
    let targets = Targets::new();
    let node = Node::first(storage.clone(), &targets).await;
    node.pass(27).await;
    let went = node.core.clock.now();
    node.scheduler.shutdown().await;
    drop((node.leases, node.mounted));
    assert!(node.core.seal().await);
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000_000)));
    let node = Node::join(storage, &targets, clock, &node.share).await;
    assert_eq!(node.core.clock.now(), went);
    node.scheduler.shutdown().await;
}

/// A machine that came up with a clock a year ahead must not leave the store there for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_that_was_wrong_is_forgotten_only_when_an_operator_says_so() {
    let (_directory, storage) = sqlite();
    let targets = Targets::new();
    let first = Node::first(storage.clone(), &targets).await;
    first.scheduler.shutdown().await;
    let year = Ttl::from_secs(365 * 86_400);
    let come_up = async |wall: Timestamp, trust_clock: bool| {
        let clock = Arc::new(ManualClock::new(wall));
        let setup = TestSetup { registry: targets.registry(), clock, ..TestSetup::new() };
        let setup = TestSetup { trust_clock, ..setup };
        let test = TestCore::join(storage.clone(), setup, &first.share).await;
        let began = test.core.clock.now();
        let TestCore { core, unsealed, .. } = test;
        drop(unsealed);
        assert!(core.seal().await);
        began
    };
    let ahead = START.plus(year);
    assert_eq!(come_up(ahead, false).await, ahead);
    assert_eq!(come_up(START, false).await, ahead, "the clock is right again, and does not count");
    assert_eq!(come_up(START, true).await, START);
    assert_eq!(come_up(START, false).await, START, "said once is enough");
    assert_eq!(come_up(Timestamp::from_secs(1000), false).await, START, "the guard is back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_downtime_is_no_jump() {
    let (_directory, storage) = sqlite();
    let targets = Targets::new();
    let node = Node::first(storage.clone(), &targets).await;
    node.issue("u1", 200).await;
    node.scheduler.shutdown().await;
    drop(node.leases);
    let clock = Arc::new(ManualClock::new(START.plus(DAY)));
    let node = Node::join(storage, &targets, clock, &node.share).await;
    soon("what became due meanwhile ends", async || !node.lives("u1")).await;
    assert!(node.leases.hold().is_none());
    node.scheduler.shutdown().await;
}

async fn connect(url: &str) -> Arc<dyn Storage> {
    let url = SecretString::new(url.to_owned());
    open(&StorageSpec::Postgres { url, ca_file: None, max_connections: 8 }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_hear_of_each_others_holds_mounts_and_leases() {
    let url = TestPostgres::shared().database();
    let targets = Targets::new();
    let one = Node::first(connect(&url).await, &targets).await;
    let other = Node::join(connect(&url).await, &targets, one.clock.clone(), &one.share).await;

    one.leases.set_hold("looked at by one".into()).await.unwrap();
    soon("the other holds too", async || other.leases.hold().is_some()).await;
    one.leases.release_hold().await.unwrap();
    soon("the other goes on", async || other.leases.hold().is_none()).await;

    let mounts = one.core.unsealed().unwrap().mounts.clone();
    let new = leasehold::core::mount::NewMount {
        path: "second/".into(),
        class: leasehold::core::mount::MountClass::Secret,
        kind: KIND.into(),
        description: String::new(),
        options: Default::default(),
        config: Default::default(),
    };
    mounts.enable(new).await.unwrap();
    let theirs = other.core.unsealed().unwrap().mounts.clone();
    soon("the other serves the mount", async || theirs.at("second/").is_some()).await;
    drop((mounts, theirs));

    // One is gone; what it issued ends all the same.
    one.issue("u1", 30).await;
    let Node { scheduler, .. } = one;
    scheduler.shutdown().await;
    other.pass(31).await;
    later(&other, "the other revokes it", async || !other.lives("u1")).await;
    other.scheduler.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_asks_mounts_for_their_own_work_once() {
    let url = TestPostgres::shared().database();
    let targets = Targets::new();
    let one = Node::first(connect(&url).await, &targets).await;
    let other = Node::join(connect(&url).await, &targets, one.clock.clone(), &one.share).await;
    later(&one, "some rounds", async || targets.ticks().len() >= 12).await;
    let ticks = targets.ticks();
    for pair in ticks.windows(2) {
        assert!(pair[1].millis_since(pair[0]) >= 2000, "twice for one due time: {ticks:?}");
    }
    one.scheduler.shutdown().await;
    other.scheduler.shutdown().await;
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_taken_over_from_another_node_is_tried_again() {
    use crate::support::wire::until;
    use leasehold::storage::fault::{FaultyStorage, Reach};

    let (_directory, storage) = sqlite();
    let targets = Targets::new();
    let setup = |node| TestSetup { registry: targets.registry(), node, ..TestSetup::new() };
    let here = TestCore::start_on(storage.clone(), setup(1)).await;
    let faulty = FaultyStorage::new(storage);
    let there = TestCore::join(faulty.clone(), setup(2), &here.share).await;
    here.mount(KIND, "late/").await;
    assert!(there.unsealed.mounts.at("late/").is_none(), "nothing was heard of it");
    faulty.fail_reads(Reach::From(1));
    let scheduler = Scheduler::start(there.core.clone(), there.guard.clone());
    // More than all tasks ask at once.
    until(|| faulty.reads() > 24).await;
    assert!(there.unsealed.mounts.at("late/").is_none());
    faulty.fail_reads(Reach::Nothing);
    until(|| there.unsealed.mounts.at("late/").is_some()).await;
    scheduler.shutdown().await;
}

/// A request that outlives its unsealed time writes as another node would.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_after_a_seal_is_heard_of_after_the_next_unseal() {
    use crate::support::core::here;
    use crate::support::wire::soon;
    use leasehold::core::policy::PolicyName;

    let (_directory, storage) = sqlite();
    let setup = TestSetup { registry: Targets::new().registry(), ..TestSetup::new() };
    let TestCore { core, unsealed: before, guard, share, .. } =
        TestCore::start_on(storage, setup).await;
    let scheduler = Scheduler::start(core.clone(), guard);
    // Its end waits for the one who holds on to it.
    let sealing = tokio::spawn(core.begin_seal().await.unwrap().finished());
    core.unseal(&share, &here()).await.unwrap();
    let after = core.unsealed().unwrap();
    let name = PolicyName::parse("late").unwrap();
    let known = async || after.policies.exists(&name).await.unwrap();
    // Until the tasks of the new time have begun, everything may be forgotten once more.
    for _ in 0..20 {
        assert!(!known().await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let text = r#"path "kv/x" { capabilities = ["read"] }"#.to_owned();
    before.policies.set(&name, text, core.clock.now(), None).await.unwrap();
    soon(async {
        while !known().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    drop(before);
    assert!(sealing.await.unwrap());
    assert!(known().await);
    drop(after);
    scheduler.shutdown().await;
}
