//! What has a cron schedule. Every job may run twice without harm.

use std::sync::Arc;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};

use crate::core::context::{Core, Unsealed};
use crate::core::error::CoreError;
use crate::core::mount::{Backend, Mounted};
use crate::core::supervise::contained;
use crate::types::time::{Timestamp, Ttl};

/// How long finished bulk revocations can be asked about.
const OPERATIONS_KEPT_SECS: i64 = 7 * 24 * 3600;

/// Mounts that do their scheduled work at the same time.
const TICKS_AT_ONCE: usize = 8;

type Run = for<'a> fn(&'a Arc<Core>, &'a Arc<Unsealed>) -> BoxFuture<'a, Result<(), CoreError>>;

/// A job and its schedule.
pub(super) struct JobSpec {
    /// Its name in the store and in metrics.
    pub(super) name: &'static str,
    /// Seconds, minutes, hours, day of month, month, day of week; in UTC.
    pub(super) schedule: &'static str,
    /// Whether the time of the last run is worth a write, so that a run missed while the server was
    /// down is made up for.
    pub(super) remembered: bool,
    /// What it does.
    pub(super) run: Run,
}

/// All of them.
pub(super) static JOBS: &[JobSpec] = &[
    // Static roles can be rotated every five seconds; what is not due costs a look.
    JobSpec { name: "mounts", schedule: "*/5 * * * * *", remembered: false, run: tick_mounts },
    JobSpec { name: "crls", schedule: "30 */5 * * * *", remembered: false, run: refresh_mounts },
    JobSpec { name: "keys", schedule: "0 */5 * * * *", remembered: true, run: look_after_keys },
    JobSpec { name: "tidy", schedule: "0 17 * * * *", remembered: true, run: tidy },
];

impl JobSpec {
    /// The schedule, parsed. `None` only if the table is wrong, which a test rules out.
    pub(super) fn cron(&self) -> Option<Cron> {
        let parser =
            CronParser::builder().seconds(Seconds::Required).year(Year::Disallowed).build();
        parser.parse(self.schedule).ok()
    }

    /// The first moment of the schedule after `last`.
    pub(super) fn next_after(&self, last: Timestamp) -> Option<Timestamp> {
        let last = chrono::DateTime::from_timestamp_millis(last.as_millis())?;
        let next = self.cron()?.find_next_occurrence(&last, false).ok()?;
        Some(Timestamp::from_millis(next.timestamp_millis()))
    }
}

fn tick_mounts<'a>(
    _core: &'a Arc<Core>,
    unsealed: &'a Arc<Unsealed>,
) -> BoxFuture<'a, Result<(), CoreError>> {
    Box::pin(async move {
        if unsealed.leases.hold().is_some() {
            // It would be due by a store, or at a time, that nobody has looked at yet.
            return Ok(());
        }
        at_each_mount(unsealed, async |mounted| match &mounted.backend {
            Backend::Auth(method) => method.tick(&mounted.context()).await.map(|_| ()),
            Backend::Secret(engine) => engine.tick(&mounted.context()).await.map(|_| ()),
        })
        .await;
        Ok(())
    })
}

fn refresh_mounts<'a>(
    _core: &'a Arc<Core>,
    unsealed: &'a Arc<Unsealed>,
) -> BoxFuture<'a, Result<(), CoreError>> {
    Box::pin(async move {
        at_each_mount(unsealed, async |mounted| match &mounted.backend {
            Backend::Auth(method) => method.refresh(&mounted.context()).await,
            Backend::Secret(_) => Ok(()),
        })
        .await;
        Ok(())
    })
}

/// Does some of the mounts' own work: together, so that one whose target does not answer holds up no
/// other. What fails is noted, and tried again the next time.
async fn at_each_mount(unsealed: &Unsealed, work: impl AsyncFn(&Mounted) -> Result<(), CoreError>) {
    stream::iter(unsealed.mounts.all())
        .for_each_concurrent(TICKS_AT_ONCE, async |mounted| {
            // One mount that cannot bear it must not keep the others from theirs.
            if let Err(error) = contained("mount", work(&mounted)).await {
                let mount = &mounted.entry.path;
                tracing::warn!(mount, %error, reason = error.reason(), "scheduled work failed");
                metrics::counter!("leasehold_tick_failures_total", "mount" => mount.clone())
                    .increment(1);
            }
        })
        .await;
}

fn look_after_keys<'a>(
    core: &'a Arc<Core>,
    unsealed: &'a Arc<Unsealed>,
) -> BoxFuture<'a, Result<(), CoreError>> {
    Box::pin(core.maintain_keys(unsealed))
}

fn tidy<'a>(
    core: &'a Arc<Core>,
    unsealed: &'a Arc<Unsealed>,
) -> BoxFuture<'a, Result<(), CoreError>> {
    Box::pin(async move {
        let before = core.clock.now().plus_millis(-OPERATIONS_KEPT_SECS * 1000);
        let removed = unsealed.leases.tidy_operations(before).await?;
        let kept = Ttl::from_secs(OPERATIONS_KEPT_SECS.unsigned_abs()).as_secs();
        tracing::debug!(removed, kept_secs = kept, "tidied the records of bulk revocations");
        let removed = unsealed.mfa.tidy().await?;
        tracing::debug!(removed, "removed log-ins that waited for their second factor");
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schedule_comes_true_and_every_name_is_its_own() {
        for job in JOBS {
            let next = job.next_after(Timestamp::from_secs(1_000_000)).unwrap();
            assert!(next > Timestamp::from_secs(1_000_000), "{}", job.name);
            assert_eq!(JOBS.iter().filter(|other| other.name == job.name).count(), 1);
        }
    }
}
