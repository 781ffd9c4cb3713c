//! The disk fails under the store and under the audit: a write, a sync, a read, a truncation, a full disk for
//! a while, and a write that was cut in the middle by the end of the machine.
//!
//! `LEASEHOLD_DISK_POINTS` has every operation fail in turn, up to that number.

use std::io::Write;

use super::World;
use super::clerk::{BRIEF, Clerk, Desk, Lost};
use super::commits::run_errands;
use super::number;
use super::shim::Shim;
use crate::support::broker::Setup;
use crate::support::wire::soon;

/// The operation that fails, counted from the start of the process.
const AT: &[u64] = &[5, 14, 31, 60];
/// The audit reads its last lines when it is opened, and nothing after.
const AT_START: &[u64] = &[1, 2];
/// Most times that the errands are run until the operation comes.
const ROUNDS: usize = 50;

/// What fails, at which operations, and whether it is looked whether the server that has met it goes on.
struct Fault {
    what: &'static str,
    at: &'static [u64],
    goes_on: bool,
}

const fn fault(what: &'static str, at: &'static [u64], goes_on: bool) -> Fault {
    Fault { what, at, goes_on }
}

impl Fault {
    /// Those that have to come, and more of them where that is asked for.
    fn points(&self) -> Vec<u64> {
        match number("LEASEHOLD_DISK_POINTS") {
            Some(most) if self.at.len() > 1 => (1..=most).collect(),
            _ => self.at.to_vec(),
        }
    }
}

struct Scene {
    world: World,
    clerks: [Clerk; 1],
    shim: Shim,
    file: &'static str,
}

impl Scene {
    async fn under(file: &'static str, audit_sync: &'static str) -> Self {
        let setup = Setup { audit_sync: Some(audit_sync), ..Setup::default() };
        let world = World::with_clock(setup).await;
        Self { world, clerks: [Clerk::new("disk")], shim: Shim::new(), file }
    }

    async fn survives(&mut self, faults: &[Fault]) {
        for fault in faults {
            let points = fault.points();
            for (index, nth) in points.iter().enumerate() {
                let node = &self.world.nodes[0];
                self.world.set_environment(0, self.shim.at(fault.what, *nth, self.file));
                let is_up = node.try_start_again() && node.try_unseal(&node.keys()[0]).await;
                let outcome = if is_up { self.errands().await } else { Err(Lost) };
                let fired = self.shim.has_fired();
                // There may be fewer such operations than somebody asked for.
                let needed = fault.at.last().is_some_and(|last| nth <= last);
                assert!(fired || !needed, "{} {nth} did not come, {outcome:?}", fault.what);
                let is_last = index + 1 == points.len() || !fired;
                if is_up && is_last && fault.goes_on {
                    self.goes_on().await;
                }
                self.bring_back().await;
                if !fired {
                    break;
                }
            }
            self.world.pass_time().await;
            self.world.check(0, &mut self.clerks, true).await;
        }
    }

    /// Runs errands until one of them breaks off or it has happened.
    async fn errands(&mut self) -> Result<(), Lost> {
        for _ in 0..ROUNDS {
            run_errands(&mut self.clerks[0], &self.world).await?;
            if self.shim.has_fired() {
                break;
            }
        }
        Ok(())
    }

    /// The server that has met the fault works again by itself, and everything ends in it, too.
    async fn goes_on(&mut self) {
        self.world.pass_time_alive();
        let desk = Desk::at(&self.world.nodes[0]);
        let again = async {
            while self.clerks[0].lease(&self.world, &desk, BRIEF, None, false).await.is_err() {}
        };
        soon(again).await;
        self.world.check(0, &mut self.clerks, true).await;
    }

    /// Kills the server, if it lives, and starts it on a disk that works.
    async fn bring_back(&mut self) {
        self.world.nodes[0].kill();
        self.world.set_environment(0, Vec::new());
        self.world.revive(0).await;
        self.world.check(0, &mut self.clerks, false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_under_the_store_loses_nothing_that_was_promised() {
    let mut scene = Scene::under("leasehold.db", "1s").await;
    let faults = [
        fault("write", AT, false),
        fault("sync", AT, true),
        fault("full", AT, true),
        fault("read", AT, false),
        fault("torn", AT, false),
    ];
    scene.survives(&faults).await;
    // The WAL is cut when the server stops in an orderly way.
    let node = &scene.world.nodes[0];
    scene.world.set_environment(0, scene.shim.at("truncate", 1, scene.file));
    assert!(node.try_start_again() && node.try_unseal(&node.keys()[0]).await);
    run_errands(&mut scene.clerks[0], &scene.world).await.unwrap();
    node.stop();
    assert!(scene.shim.has_fired(), "nothing was cut");
    scene.bring_back().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_under_the_audit_lets_nothing_out_unrecorded() {
    let mut scene = Scene::under("audit.log", "1s").await;
    let faults = [
        fault("write", AT, false),
        fault("sync", &[1, 2], false),
        fault("full", AT, true),
        fault("stuck", &[5, 14], true),
        fault("read", AT_START, false),
        fault("torn", AT, false),
    ];
    scene.survives(&faults).await;
    // A line that was torn cannot be cut off: the server does not begin on it.
    let node = &scene.world.nodes[0];
    node.kill();
    let mut log = std::fs::File::options().append(true).open(node.audit_path()).unwrap();
    log.write_all(b"{\"seq\":").unwrap();
    scene.world.set_environment(0, scene.shim.at("truncate", 1, scene.file));
    let is_up = node.try_start_again() && node.try_unseal(&node.keys()[0]).await;
    assert!(!is_up, "it began on a log that ends within a line");
    assert!(scene.shim.has_fired(), "nothing was cut");
    scene.bring_back().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_does_not_sync_each_line_lets_nothing_out_unrecorded() {
    let mut scene = Scene::under("audit.log", "0s").await;
    scene.survives(&[fault("sync", AT, true), fault("full", &[5], false)]).await;
}
