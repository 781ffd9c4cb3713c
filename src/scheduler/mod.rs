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
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::core::clock_guard::GuardedClock;
use crate::core::context::{Core, Unsealed};
use crate::core::supervise::supervised;

pub use cron::{Clockwork, ClockworkError, CronLibrary};

/// How long the tasks may take to end once they are told to.
const END_MAX: Duration = Duration::from_secs(2);

/// Runs the tasks while the server is unsealed, and only then.
pub struct Scheduler {
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Scheduler {
    /// Starts following the phases of `core`, whose clock `clock` is.
    pub fn start(core: Arc<Core>, clock: Arc<GuardedClock>) -> Self {
        Self::start_with(core, clock, Arc::new(CronLibrary))
    }

    /// The same, with another clockwork than the cron library.
    pub fn start_with(
        core: Arc<Core>,
        clock: Arc<GuardedClock>,
        clockwork: Arc<dyn Clockwork>,
    ) -> Self {
        let stop = CancellationToken::new();
        let (signal, signals) = cron::signals();
        let stopped = stop.clone();
        let follow =
            move || follow_phases(core.clone(), clock.clone(), signals.clone(), stopped.clone());
        let keep_going = move || cron::keep_going(clockwork.clone(), signal.clone());
        let running = tokio::spawn(async move {
            tokio::select! {
                // Beside the watchdog, and not before it: starting may fail, or hang.
                () = supervised("clockwork", keep_going) => {}
                () = supervised("phases", follow) => {}
            }
        });
        Self { stop, running }
    }

    /// Ends every task and waits for it.
    pub async fn shutdown(self) {
        self.stop.cancel();
        // A panic there has been reported by the runtime already.
        let _ = self.running.await;
    }
}

/// The tasks of one unsealed time.
#[derive(Default)]
struct Tasks {
    stop: CancellationToken,
    set: JoinSet<()>,
}

impl Tasks {
    /// Adds one that has nothing to put down.
    fn until_stopped(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.set.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Ends them: those that have something in hand get a moment to put it down.
    async fn end(mut self) {
        self.stop.cancel();
        let ended = async { while self.set.join_next().await.is_some() {} };
        if tokio::time::timeout(END_MAX, ended).await.is_err() {
            self.set.shutdown().await;
        }
    }
}

async fn follow_phases(
    core: Arc<Core>,
    clock: Arc<GuardedClock>,
    signals: cron::Signals,
    stop: CancellationToken,
) {
    let mut phases = core.phase_changes();
    loop {
        let unsealed = core.unsealed().ok();
        metrics::gauge!("leasehold_sealed").set(if unsealed.is_some() { 0.0 } else { 1.0 });
        let mut tasks = Tasks::default();
        if let Some(unsealed) = unsealed {
            start_tasks(&mut tasks, &core, &unsealed, &clock, &signals);
        }
        let over = tokio::select! {
            () = stop.cancelled() => true,
            changed = phases.changed() => changed.is_err(),
        };
        // The tasks hold what sealing has to wipe, so they end before anything else is looked at.
        tasks.end().await;
        if over {
            return;
        }
    }
}

fn start_tasks(
    tasks: &mut Tasks,
    core: &Arc<Core>,
    unsealed: &Arc<Unsealed>,
    clock: &Arc<GuardedClock>,
    signals: &cron::Signals,
) {
    let stop = tasks.stop.clone();
    let leases =
        begin(core, unsealed, move |core, unsealed| sweep::leases(core, unsealed, stop.clone()));
    tasks.set.spawn(supervised("leases", leases));
    let (signals, stop) = (signals.clone(), tasks.stop.clone());
    let cron = begin(core, unsealed, move |core, unsealed| {
        cron::run(core, unsealed, signals.clone(), stop.clone())
    });
    tasks.set.spawn(supervised("cron", cron));
    let clock = clock.clone();
    let watch =
        begin(core, unsealed, move |core, unsealed| clock::watch(core, unsealed, clock.clone()));
    tasks.until_stopped(supervised("clock", watch));
    tasks.until_stopped(supervised("tokens", begin(core, unsealed, sweep::tokens)));
    tasks.until_stopped(supervised("gauges", begin(core, unsealed, gauges::keep)));
    tasks.until_stopped(supervised("changes", begin(core, unsealed, changes::follow)));
}

/// What begins `task`, as often as it has to be begun.
fn begin<F, T: Fn(Arc<Core>, Arc<Unsealed>) -> F>(
    core: &Arc<Core>,
    unsealed: &Arc<Unsealed>,
    task: T,
) -> impl FnMut() -> F + use<F, T> {
    let (core, unsealed) = (core.clone(), unsealed.clone());
    move || task(core.clone(), unsealed.clone())
}
