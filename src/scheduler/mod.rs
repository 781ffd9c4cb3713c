//! Work that nobody asked for just now: taking back what is due, mounts' own schedules, and keeping up
//! with other nodes. Each task is a reconciler: it takes no input but the store and the clock, may run
//! twice, and is woken by a signal and by time through the same code.

mod changes;
mod clock;
mod cron;
mod gauges;
mod jobs;
mod sweep;

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::core::clock_guard::GuardedClock;
use crate::core::context::{Core, Unsealed};

/// Runs the tasks while the server is unsealed, and only then.
pub struct Scheduler {
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Scheduler {
    /// Starts following the phases of `core`, whose clock `clock` is.
    pub fn start(core: Arc<Core>, clock: Arc<GuardedClock>) -> Self {
        let stop = CancellationToken::new();
        let running = tokio::spawn(follow_phases(core, clock, stop.clone()));
        Self { stop, running }
    }

    /// Ends every task and waits for it.
    pub async fn shutdown(self) {
        self.stop.cancel();
        // A panic there has been reported by the runtime already.
        let _ = self.running.await;
    }
}

async fn follow_phases(core: Arc<Core>, clock: Arc<GuardedClock>, stop: CancellationToken) {
    let mut phases = core.phase_changes();
    let mut tasks = JoinSet::new();
    loop {
        // The tasks hold what sealing has to wipe, so they end before anything else is looked at.
        tasks.shutdown().await;
        let unsealed = core.unsealed().ok();
        metrics::gauge!("leasehold_sealed").set(if unsealed.is_some() { 0.0 } else { 1.0 });
        if let Some(unsealed) = unsealed {
            start_tasks(&mut tasks, &core, &unsealed, &clock).await;
        }
        tokio::select! {
            () = stop.cancelled() => break,
            changed = phases.changed() => {
                if changed.is_err() {
                    break;
                }
            }
        }
    }
    tasks.shutdown().await;
}

async fn start_tasks(
    tasks: &mut JoinSet<()>,
    core: &Arc<Core>,
    unsealed: &Arc<Unsealed>,
    clock: &Arc<GuardedClock>,
) {
    if let Err(error) = clock::raise_to_stored(unsealed, clock).await {
        tracing::warn!(%error, reason = error.reason(), "the time last seen is not known");
    }
    tasks.spawn(clock::watch(core.clone(), unsealed.clone(), clock.clone()));
    tasks.spawn(sweep::leases(core.clone(), unsealed.clone()));
    tasks.spawn(sweep::tokens(core.clone(), unsealed.clone()));
    tasks.spawn(cron::run(core.clone(), unsealed.clone()));
    tasks.spawn(gauges::keep(core.clone(), unsealed.clone()));
    tasks.spawn(changes::follow(core.clone(), unsealed.clone()));
}
