//! The jobs' clockwork, and the watchdog over it.
//!
//! The cron library only says "now"; whether a job is due is decided by comparing the schedule with
//! when the job was last done, and running it is the same code whoever asks. The library is known to
//! stop firing when it falls behind. The watchdog asks too, so nothing stays undone: it runs what was
//! missed and counts it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use crate::core::context::{Core, Unsealed};
use crate::core::error::CoreError;
use crate::core::job::Jobs;
use crate::types::time::{Timestamp, Ttl};

use super::jobs::{JOBS, JobSpec};

/// Signals that wait to be looked at; more than there are jobs tell nothing new.
const SIGNALS_MAX: usize = 64;
/// How often the watchdog looks.
const WATCH_EVERY: Duration = Duration::from_secs(5);
/// How late a job may be before the watchdog runs it.
const LATE: Ttl = Ttl::from_secs(4);

/// Runs the jobs for as long as it is let.
pub(super) async fn run(core: Arc<Core>, unsealed: Arc<Unsealed>) {
    let (signal, signals) = mpsc::channel(SIGNALS_MAX);
    let mut clockwork = match start(signal).await {
        Ok(clockwork) => Some(clockwork),
        Err(error) => {
            // The watchdog alone does the work then, a little late.
            tracing::error!(%error, "the cron clockwork did not start");
            None
        }
    };
    let _stop = StopOnDrop(clockwork.take());
    Runner::new(core, unsealed).run(signals).await;
}

/// Stops the clockwork's own tasks when the run is ended from outside.
struct StopOnDrop(Option<JobScheduler>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if let Some(mut clockwork) = self.0.take() {
            tokio::spawn(async move { clockwork.shutdown().await });
        }
    }
}

async fn start(signal: mpsc::Sender<&'static str>) -> Result<JobScheduler, JobSchedulerError> {
    let clockwork = JobScheduler::new().await?;
    for spec in JOBS {
        let signal = signal.clone();
        let job = Job::new_async(spec.schedule, move |_, _| {
            let signal = signal.clone();
            Box::pin(async move {
                // A full queue holds this name already.
                let _ = signal.try_send(spec.name);
            })
        })?;
        clockwork.add(job).await?;
    }
    clockwork.start().await?;
    Ok(clockwork)
}

struct Runner {
    core: Arc<Core>,
    unsealed: Arc<Unsealed>,
    jobs: Jobs,
    /// When each job was last done, as far as this node knows.
    done: BTreeMap<&'static str, Timestamp>,
}

impl Runner {
    fn new(core: Arc<Core>, unsealed: Arc<Unsealed>) -> Self {
        let jobs = Jobs::new(unsealed.records.clone(), core.node);
        Self { core, unsealed, jobs, done: BTreeMap::new() }
    }

    async fn run(mut self, mut signals: mpsc::Receiver<&'static str>) {
        self.recall().await;
        loop {
            let core = self.core.clone();
            tokio::select! {
                Some(name) = signals.recv() => {
                    if let Some(spec) = JOBS.iter().find(|spec| spec.name == name) {
                        self.run_if_due(spec).await;
                    }
                }
                () = core.clock.sleep(WATCH_EVERY) => self.watch().await,
            }
        }
    }

    /// Takes up where the last run of the server, or another node, left off.
    async fn recall(&mut self) {
        let now = self.core.clock.now();
        for spec in JOBS {
            let stored =
                if spec.remembered { self.jobs.done_at(spec.name).await } else { Ok(None) };
            let done = stored.unwrap_or_else(|error| {
                tracing::warn!(%error, job = spec.name, "when a job was last done is not known");
                None
            });
            self.done.insert(spec.name, done.unwrap_or(now));
        }
    }

    fn due_at(&self, spec: &JobSpec) -> Option<Timestamp> {
        spec.next_after(self.done.get(spec.name).copied()?)
    }

    /// Runs what the clockwork should have run and has not.
    async fn watch(&mut self) {
        for spec in JOBS {
            let now = self.core.clock.now();
            if self.due_at(spec).is_some_and(|due| due.plus(LATE) <= now) {
                metrics::counter!("leasehold_scheduler_missed_runs_total", "job" => spec.name)
                    .increment(1);
                self.run_if_due(spec).await;
            }
        }
    }

    async fn run_if_due(&mut self, spec: &JobSpec) {
        let now = self.core.clock.now();
        if self.due_at(spec).is_none_or(|due| now < due) {
            return;
        }
        match self.claim_and_run(spec, now).await {
            Ok(true) => {
                metrics::counter!("leasehold_scheduler_runs_total", "job" => spec.name)
                    .increment(1);
            }
            // Another node has it; this one stands by.
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, job = spec.name, reason = error.reason(), "a job failed");
                metrics::counter!("leasehold_scheduler_failures_total", "job" => spec.name)
                    .increment(1);
            }
        }
        self.done.insert(spec.name, now);
    }

    async fn claim_and_run(&self, spec: &JobSpec, now: Timestamp) -> Result<bool, CoreError> {
        if !self.jobs.claim(spec.name, now).await? {
            return Ok(false);
        }
        (spec.run)(&self.core, &self.unsealed).await?;
        if spec.remembered {
            self.jobs.done(spec.name, now).await?;
        }
        Ok(true)
    }
}
