//! The power is cut while clerks are at work: what the server did not force to the disk is gone, or what is
//! left of it is any part. Only names of files are as they were: whether a new one is forgotten with its
//! directory is not tried.
//!
//! `LEASEHOLD_POWER_CUTS` sets how often.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::task::JoinSet;

use super::clerk::{Clerk, Desk};
use super::shim::Shim;
use super::{Dice, World, number, was_killed};
use crate::support::broker::Setup;

const CUTS: usize = 6;
const CLERKS: usize = 4;
/// The cut comes at one of so many operations after somebody has asked for it.
const OPERATIONS: usize = 160;
/// How long an audit that is not forced to the disk line by line may wait, and how much longer that takes
/// on a machine that has much to do.
const AUDIT_SYNC: &str = "1s";
const AUDIT_SYNC_MAX: Duration = Duration::from_millis(2500);

fn cuts() -> usize {
    number("LEASEHOLD_POWER_CUTS").map_or(CUTS, |cuts| usize::try_from(cuts).unwrap())
}

struct Scene {
    world: Arc<World>,
    clerks: Vec<Clerk>,
    shim: Shim,
    dice: Dice,
}

impl Scene {
    async fn with_audit_sync(sync: &'static str) -> Self {
        let setup = Setup { audit_sync: Some(sync), ..Setup::default() };
        let world = Arc::new(World::start(setup, 1).await);
        let clerks = (0..CLERKS).map(|n| Clerk::new(&format!("p{n}"))).collect();
        Self { world, clerks, shim: Shim::new(), dice: Dice::new(4711) }
    }

    /// Starts a server whose power goes at some operation once the shim is armed.
    async fn rise(&mut self, what: &str, file: &str) {
        let nth = 1 + self.dice.below(OPERATIONS) as u64;
        self.world.set_environment(0, self.shim.when_armed(what, nth, file));
        self.world.revive(0).await;
    }

    /// Lets the clerks work, for `before` at least, and then until the power is gone. Says when that was.
    async fn work_until_dark(&mut self, before: Duration) -> Instant {
        let mut at_work = JoinSet::new();
        let armed = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        for (n, mut clerk) in self.clerks.drain(..).enumerate() {
            let mut dice = Dice::new(self.dice.roll());
            let (world, armed) = (self.world.clone(), armed.clone());
            at_work.spawn(async move {
                let desk = Desk::at(&world.nodes[0]);
                loop {
                    let failed = clerk.act(&world, &desk, &mut dice).await.is_err();
                    if failed && armed.load(Ordering::SeqCst) {
                        return (n, clerk);
                    }
                }
            });
        }
        while began.elapsed() < before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        armed.store(true, Ordering::SeqCst);
        self.shim.arm();
        let mut back = at_work.join_all().await;
        let dark = Instant::now();
        back.sort_by_key(|(n, _)| *n);
        self.clerks.extend(back.into_iter().map(|(_, clerk)| clerk));
        let ended = self.world.nodes[0].wait_for_end();
        assert!(was_killed(ended) && self.shim.has_fired(), "{ended}");
        dark
    }
}

/// With a disk that keeps what it was told to keep, and an audit that waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_nothing_that_was_promised() {
    let mut scene = Scene::with_audit_sync("0s").await;
    let mut undone = 0;
    for cut in 0..cuts() {
        scene.rise(["power", "scatter"][cut % 2], "any").await;
        scene.world.check(0, &mut scene.clerks, false).await;
        let moment = Duration::from_millis(scene.dice.below(300) as u64);
        scene.work_until_dark(moment).await;
        undone += scene.shim.unsynced("leasehold.db-wal") + scene.shim.unsynced("audit.log");
    }
    assert!(undone > 0, "there was nothing that a power cut could take");
    scene.world.set_environment(0, Vec::new());
    scene.world.revive(0).await;
    scene.world.check(0, &mut scene.clerks, false).await;
    scene.world.pass_time().await;
    scene.world.check(0, &mut scene.clerks, true).await;
}

/// The store keeps everything all the same; of the audit, the last lines may be gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_costs_an_audit_that_is_synced_now_and_then_its_last_lines_at_most() {
    let mut scene = Scene::with_audit_sync(AUDIT_SYNC).await;
    let mut undone = 0;
    for cut in 0..cuts().div_ceil(3) {
        scene.rise(["power", "scatter"][cut % 2], "any").await;
        let dark = scene.work_until_dark(AUDIT_SYNC_MAX + AUDIT_SYNC_MAX / 4).await;
        undone += scene.shim.unsynced("audit.log");
        scene.world.audit_is_certain_until(dark - AUDIT_SYNC_MAX);
        scene.world.set_environment(0, Vec::new());
        scene.world.revive(0).await;
        scene.world.check(0, &mut scene.clerks, false).await;
    }
    assert!(undone > 0, "there was nothing that a power cut could take");
    scene.world.pass_time().await;
    scene.world.check(0, &mut scene.clerks, true).await;
}

/// The test itself: a disk that says that it has synced and has not is found, under the store as under
/// the audit. A store that does not wait for the disk would look just like that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_lies_is_found() {
    for (file, found) in [("leasehold.db", "an old backup"), ("audit.log", "in the audit")] {
        let mut scene = Scene::with_audit_sync("0s").await;
        scene.rise("lie", file).await;
        scene.work_until_dark(Duration::from_millis(200)).await;
        scene.world.set_environment(0, Vec::new());
        scene.world.revive(0).await;
        let check = scene.world.check(0, &mut scene.clerks, false);
        let outcome = std::panic::AssertUnwindSafe(check).catch_unwind().await;
        let said = outcome.expect_err("it was not found");
        let said = said.downcast_ref::<String>().expect("it says what it found");
        assert!(said.contains(found), "{said}");
    }
}
