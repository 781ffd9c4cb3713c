//! Work that nobody asked for just now: taking back what is due, mounts' own schedules, and keeping up
//! with other nodes. Each task is a reconciler: it takes no input but the store and the clock, may run
//! twice, and is woken by a signal and by time through the same code.

mod changes;
mod sweep;
mod ticks;

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::core::context::{Core, Phase, Unsealed};

/// Runs the tasks while the server is unsealed, and only then.
pub struct Scheduler {
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Scheduler {
    /// Starts following the phases of `core`.
    pub fn start(core: Arc<Core>) -> Self {
        let stop = CancellationToken::new();
        let running = tokio::spawn(follow_phases(core, stop.clone()));
        Self { stop, running }
    }

    /// Ends every task and waits for it.
    pub async fn shutdown(self) {
        self.stop.cancel();
        // A panic there has been reported by the runtime already.
        let _ = self.running.await;
    }
}

async fn follow_phases(core: Arc<Core>, stop: CancellationToken) {
    let mut phases = core.phase_changes();
    let mut tasks = JoinSet::new();
    loop {
        // The tasks hold what sealing has to wipe, so they end before anything else is looked at.
        tasks.shutdown().await;
        if let Phase::Unsealed(unsealed) = &*core.phase() {
            start_tasks(&mut tasks, &core, unsealed);
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

fn start_tasks(tasks: &mut JoinSet<()>, core: &Arc<Core>, unsealed: &Arc<Unsealed>) {
    tasks.spawn(sweep::leases(core.clone(), unsealed.clone()));
    tasks.spawn(sweep::tokens(core.clone(), unsealed.clone()));
    tasks.spawn(ticks::mounts(core.clone(), unsealed.clone()));
    tasks.spawn(changes::follow(core.clone(), unsealed.clone()));
}
