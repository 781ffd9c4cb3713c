//! The jobs' clockwork, and the watchdog over it.
//!
//! The cron library only says "now"; whether a job is due is decided by comparing the schedule with
//! when the job was last done, and running it is the same code whoever asks. The library is known to
//! stop firing when it falls behind. The watchdog asks too, so nothing stays undone: it runs what was
//! missed, once however often it was missed, and counts it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;

use crate::core::context::{Core, Unsealed};
use crate::core::error::CoreError;
use crate::core::job::Jobs;
use crate::core::supervise::contained;
use crate::types::time::{Timestamp, Ttl};

use super::jobs::{JOBS, JobSpec};

/// Signals that wait to be looked at; more than there are jobs tell nothing new.
const SIGNALS_MAX: usize = 64;
/// How often the watchdog looks.
const WATCH_EVERY: Duration = Duration::from_secs(5);
/// How late a job may be before the watchdog runs it.
const LATE: Ttl = Ttl::from_secs(4);
/// Pause after a run that failed.
const FAILED_PAUSE: Ttl = Ttl::from_secs(60);
/// How soon a node asks again for a job that another one has.
const STAND_BY: Ttl = Ttl::from_secs(15);
/// How long letting go of the jobs may take when the node stops or is sealed. Well within the time
/// that all tasks have for their end.
const LET_GO_MAX: Duration = Duration::from_secs(1);
/// How often a node that is at a job says so. Well within the time for which a claim holds.
const CLAIM_RENEWED_EVERY: Duration = Duration::from_secs(15);

/// What says to the jobs that it is time. Nothing rests on it: what is not due does not run, and what
/// it forgets the watchdog runs.
#[async_trait]
pub trait Clockwork: Send + Sync + 'static {
    /// Sends the name of each job when its schedule (in UTC, seconds first) says so, until what is
    /// returned is dropped.
    ///
    /// # Errors
    /// When it cannot be started.
    async fn start(
        &self,
        jobs: Vec<(&'static str, &'static str)>,
        signal: mpsc::Sender<&'static str>,
    ) -> Result<Box<dyn Send>, ClockworkError>;
}

/// Why a clockwork did not start.
#[derive(Debug, thiserror::Error)]
pub enum ClockworkError {
    /// The cron library refused.
    #[error("the cron library did not start")]
    Library(#[from] JobSchedulerError),
}

/// The cron library.
pub struct CronLibrary;

#[async_trait]
impl Clockwork for CronLibrary {
    async fn start(
        &self,
        jobs: Vec<(&'static str, &'static str)>,
        signal: mpsc::Sender<&'static str>,
    ) -> Result<Box<dyn Send>, ClockworkError> {
        let library = JobScheduler::new().await?;
        for (name, schedule) in jobs {
            let signal = signal.clone();
            let job = Job::new_async(schedule, move |_, _| {
                let signal = signal.clone();
                Box::pin(async move {
                    // A full queue holds this name already.
                    let _ = signal.try_send(name);
                })
            })?;
            library.add(job).await?;
        }
        let running = StopOnDrop(Some(library.clone()));
        library.start().await?;
        Ok(Box::new(running))
    }
}

/// Stops the library's own tasks when the run is ended from outside.
struct StopOnDrop(Option<JobScheduler>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if let Some(mut library) = self.0.take() {
            tokio::spawn(async move { library.shutdown().await });
        }
    }
}

/// What the clockwork says, kept over the times in which the server is sealed.
pub(super) type Signals = Arc<Mutex<mpsc::Receiver<&'static str>>>;

/// Where a clockwork says what it has to, and where the jobs hear it.
pub(super) fn signals() -> (mpsc::Sender<&'static str>, Signals) {
    let (signal, signals) = mpsc::channel(SIGNALS_MAX);
    (signal, Arc::new(Mutex::new(signals)))
}

/// Keeps the clockwork going for as long as it is let. Once for the whole process: the library leaves
/// tasks of its own behind when it is stopped.
pub(super) async fn keep_going(clockwork: Arc<dyn Clockwork>, signal: mpsc::Sender<&'static str>) {
    let jobs = JOBS.iter().map(|spec| (spec.name, spec.schedule)).collect();
    let started = clockwork.start(jobs, signal).await;
    if let Err(error) = &started {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        // The watchdog alone does the work then, a little late.
        tracing::error!(%error, cause, "the cron clockwork did not start");
    }
    std::future::pending::<()>().await;
    drop(started);
}

/// Runs the jobs until it is told to stop, and lets go of them then.
pub(super) async fn run(
    core: Arc<Core>,
    unsealed: Arc<Unsealed>,
    signals: Signals,
    stop: CancellationToken,
) {
    let mut runner = Runner::new(core, unsealed);
    tokio::select! {
        () = stop.cancelled() => {}
        () = async { runner.run(&mut *signals.lock().await).await } => {}
    }
    runner.let_go().await;
}

struct Runner {
    core: Arc<Core>,
    unsealed: Arc<Unsealed>,
    jobs: Jobs,
    progress: BTreeMap<&'static str, Progress>,
    /// Runs under way: a slow job holds up no other.
    running: JoinSet<(&'static str, Timestamp, Result<Ran, CoreError>)>,
}

/// What this node knows of a job.
#[derive(Clone, Copy)]
struct Progress {
    /// When it was last done, by whatever node.
    done: Timestamp,
    /// Not to be tried before, after a failure.
    not_before: Timestamp,
    /// The due time whose miss was counted.
    missed: Option<Timestamp>,
    running: bool,
}

/// How a run ended that did not fail.
enum Ran {
    /// Done, by this node.
    Here,
    /// Another node has it; when any node has last done it.
    Elsewhere(Timestamp),
}

impl Runner {
    fn new(core: Arc<Core>, unsealed: Arc<Unsealed>) -> Self {
        let jobs = Jobs::new(unsealed.records.clone(), core.node);
        Self { core, unsealed, jobs, progress: BTreeMap::new(), running: JoinSet::new() }
    }

    async fn run(&mut self, signals: &mut mpsc::Receiver<&'static str>) {
        self.recall().await;
        loop {
            let core = self.core.clone();
            tokio::select! {
                Some(name) = signals.recv() => {
                    if let Some(spec) = JOBS.iter().find(|spec| spec.name == name) {
                        self.run_if_due(spec);
                    }
                }
                Some(Ok((name, due, ran))) = self.running.join_next() => {
                    self.ended(name, due, ran);
                }
                () = core.clock.sleep(WATCH_EVERY) => self.watch(),
            }
        }
    }

    /// Breaks off what is under way, which may be repeated without harm, and gives the claims back:
    /// what comes after, be it this node's next process, need not wait until they end.
    async fn let_go(mut self) {
        let released = async {
            // Nothing of what is let go of may still be going on here.
            self.running.shutdown().await;
            for spec in JOBS {
                self.jobs.release(spec.name, self.core.clock.now()).await?;
            }
            Ok::<(), CoreError>(())
        };
        match tokio::time::timeout(LET_GO_MAX, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, reason = error.reason(), "the jobs stay claimed for a while");
            }
            Err(_) => {
                tracing::warn!("the jobs stay claimed for a while: the store does not answer")
            }
        }
    }

    /// Takes up where the last run of the server, or another node, left off.
    async fn recall(&mut self) {
        let now = self.core.clock.now();
        for spec in JOBS {
            let stored =
                if spec.remembered { self.jobs.done_at(spec.name).await } else { Ok(None) };
            let stored = stored.unwrap_or_else(|error| {
                tracing::warn!(%error, job = spec.name, "when a job was last done is not known");
                None
            });
            let done = stored.unwrap_or(now);
            let progress = Progress { done, not_before: now, missed: None, running: false };
            self.progress.insert(spec.name, progress);
        }
    }

    /// Runs what the clockwork should have run and has not.
    fn watch(&mut self) {
        for spec in JOBS {
            let now = self.core.clock.now();
            let Some(progress) = self.progress.get_mut(spec.name) else { continue };
            let Some(due) = spec.next_after(progress.done) else { continue };
            if progress.running || now < due.plus(LATE) {
                continue;
            }
            // A run that failed was not missed.
            if progress.missed != Some(due) && progress.not_before <= due {
                progress.missed = Some(due);
                metrics::counter!("leasehold_scheduler_missed_runs_total", "job" => spec.name)
                    .increment(1);
            }
            self.run_if_due(spec);
        }
    }

    fn run_if_due(&mut self, spec: &'static JobSpec) {
        let now = self.core.clock.now();
        let Some(progress) = self.progress.get_mut(spec.name) else { return };
        let due = spec.next_after(progress.done);
        if progress.running || now < progress.not_before || due.is_none_or(|due| now < due) {
            return;
        }
        progress.running = true;
        let (core, unsealed, jobs) = (self.core.clone(), self.unsealed.clone(), self.jobs.clone());
        self.running.spawn(async move {
            let run = claim_and_run(spec, &core, &unsealed, &jobs, now);
            (spec.name, now, contained("job", run).await)
        });
    }

    fn ended(&mut self, name: &'static str, begun: Timestamp, ran: Result<Ran, CoreError>) {
        let Some(progress) = self.progress.get_mut(name) else { return };
        progress.running = false;
        match ran {
            Ok(Ran::Here) => {
                progress.done = begun;
                metrics::counter!("leasehold_scheduler_runs_total", "job" => name).increment(1);
            }
            // This node stands by, in case the other one dies over it.
            Ok(Ran::Elsewhere(done)) => {
                progress.done = progress.done.max(done);
                progress.not_before = begun.plus(STAND_BY);
            }
            Err(error) => {
                progress.not_before = begun.plus(FAILED_PAUSE);
                tracing::warn!(%error, job = name, reason = error.reason(), "a job failed");
                metrics::counter!("leasehold_scheduler_failures_total", "job" => name).increment(1);
            }
        }
    }
}

async fn claim_and_run(
    spec: &JobSpec,
    core: &Arc<Core>,
    unsealed: &Arc<Unsealed>,
    jobs: &Jobs,
    now: Timestamp,
) -> Result<Ran, CoreError> {
    if !jobs.claim(spec.name, now).await? {
        // What leaves no note is as good as done: the next time is near.
        let done = if spec.remembered { jobs.done_at(spec.name).await? } else { None };
        let unknown = if spec.remembered { Timestamp::default() } else { now };
        return Ok(Ran::Elsewhere(done.unwrap_or(unknown)));
    }
    // Another node may have done it after this one looked, and have let go of it.
    if spec.remembered
        && let Some(done) = jobs.done_at(spec.name).await?
        && spec.next_after(done).is_some_and(|due| now < due)
    {
        return Ok(Ran::Elsewhere(done));
    }
    let mut run = (spec.run)(core, unsealed);
    loop {
        tokio::select! {
            ended = &mut run => {
                ended?;
                break;
            }
            () = core.clock.sleep(CLAIM_RENEWED_EVERY) => {
                // Too late to say that this node is at it still: another one is at it by now.
                if !jobs.claim(spec.name, core.clock.now()).await? {
                    return Ok(Ran::Elsewhere(Timestamp::default()));
                }
            }
        }
    }
    if spec.remembered {
        jobs.done(spec.name, now).await?;
    }
    Ok(Ran::Here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_library_says_when_it_is_time_and_stops_when_it_is_dropped() {
        let (signal, mut signals) = mpsc::channel(SIGNALS_MAX);
        let running = CronLibrary.start(vec![("often", "* * * * * *")], signal).await.unwrap();
        assert_eq!(signals.recv().await, Some("often"));
        drop(running);
        // What it was about to say may still come; then it falls silent.
        let mut late = 0;
        while tokio::time::timeout(Duration::from_millis(2500), signals.recv()).await.is_ok() {
            late += 1;
            assert!(late < 5, "it goes on");
        }
    }

    #[tokio::test]
    async fn the_library_refuses_what_is_no_schedule() {
        let (signal, _signals) = mpsc::channel(SIGNALS_MAX);
        assert!(CronLibrary.start(vec![("never", "whenever")], signal).await.is_err());
    }
}
