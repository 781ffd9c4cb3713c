//! The sweep: takes back what is due. It takes no input but the store and the clock, so one code path
//! serves expiry, crashes, failed revocations and bulk revocations alike.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::types::time::{Timestamp, Ttl};

use super::super::error::CoreError;
use super::super::failpoint::fail_point;
use super::super::records::kinds;
use super::super::view::Entry;
use super::{Lease, LeaseState, Leases, REVOKE_TIMEOUT};

/// Leases in hand at once: the window that memory holds.
const WINDOW: usize = 512;
/// Failures in a row after which a target counts as down.
const BREAKER_FAILURES: u32 = 3;
/// How long a target that is down is left alone before it is probed again.
const BREAKER_PAUSE: Ttl = Ttl::from_secs(15);

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Leases claimed.
    pub claimed: usize,
    /// Credentials made dead and forgotten.
    pub revoked: usize,
    /// Revocations that failed.
    pub failed: usize,
    /// Leases left for later because their target is down.
    pub postponed: usize,
}

/// Which targets are down.
#[derive(Default)]
pub(super) struct Breakers(Mutex<HashMap<String, Breaker>>);

#[derive(Clone, Copy, Default)]
struct Breaker {
    failures: u32,
    open_until: Option<Timestamp>,
}

impl Breakers {
    fn with<T>(&self, target: &str, act: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut breakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(breakers.entry(target.to_owned()).or_default())
    }

    /// Whether `target` may be tried. One that is down lets a single try through after its pause.
    fn admits(&self, target: &str, now: Timestamp) -> bool {
        self.with(target, |breaker| match breaker.open_until {
            Some(until) if now < until => false,
            Some(_) => {
                breaker.open_until = Some(now.plus(BREAKER_PAUSE));
                true
            }
            None => true,
        })
    }

    fn note(&self, target: &str, ok: bool, now: Timestamp) {
        self.with(target, |breaker| {
            if ok {
                *breaker = Breaker::default();
                return;
            }
            breaker.failures = breaker.failures.saturating_add(1);
            if breaker.failures >= BREAKER_FAILURES {
                breaker.open_until = Some(now.plus(BREAKER_PAUSE));
            }
        });
        if ok {
            let mut breakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            breakers.remove(target);
        }
    }
}

impl Leases {
    /// One round: claims what is due, revokes it, and forgets what is dead. Call again at once while
    /// the report says that something was claimed.
    ///
    /// # Errors
    /// When the store fails; nothing is lost, the next round finds the same rows.
    pub async fn sweep(self: &Arc<Self>) -> Result<SweepReport, CoreError> {
        if self.hold().is_some() {
            return Ok(SweepReport::default());
        }
        let now = self.clock.now();
        self.sweep_broken_off().await;
        // Longer than any revocation takes, so that a row is never worked on twice.
        let claim_until = now.plus(Ttl::from_secs(2 * REVOKE_TIMEOUT.as_secs()));
        let rows =
            self.records.storage().claim(kinds::LEASE, now, self.node, claim_until, WINDOW).await?;
        let mut report = SweepReport { claimed: rows.len(), ..SweepReport::default() };
        let mut by_target: HashMap<String, Vec<Entry<Lease>>> = HashMap::new();
        for row in &rows {
            // A row that does not open or parse is left for its administrator; the rest goes on.
            match self.records.open(row).and_then(|record| {
                Ok(Entry { value: record.decode::<Lease>()?, rev: row.rev, due_at: row.due_at })
            }) {
                Ok(entry) => {
                    by_target.entry(entry.value.target.clone()).or_default().push(entry);
                }
                Err(error) => {
                    metrics::counter!("leasehold_unreadable_leases_total").increment(1);
                    tracing::error!(error = %error, "a lease cannot be read");
                }
            }
        }
        let mut work = JoinSet::new();
        for (target, entries) in by_target {
            work.spawn(self.clone().sweep_target(target, entries, now));
        }
        while let Some(done) = work.join_next().await {
            let part = done.map_err(|_| CoreError::internal("a revocation task was aborted"))??;
            report.revoked += part.revoked;
            report.failed += part.failed;
            report.postponed += part.postponed;
        }
        self.pace(report.revoked).await;
        Ok(report)
    }

    async fn sweep_target(
        self: Arc<Self>,
        target: String,
        entries: Vec<Entry<Lease>>,
        now: Timestamp,
    ) -> Result<SweepReport, CoreError> {
        let mut report = SweepReport::default();
        let permits = Arc::new(Semaphore::new(self.settings.per_target.max(1)));
        let mut work = JoinSet::new();
        for entry in entries {
            let Ok(permit) = permits.clone().acquire_owned().await else { break };
            if !self.breakers.admits(&target, now) {
                report.postponed += 1;
                continue;
            }
            let leases = self.clone();
            work.spawn(async move {
                let result = leases.kill_due(&entry.value, now).await;
                drop(permit);
                (entry, result)
            });
        }
        let mut dead = Vec::new();
        while let Some(done) = work.join_next().await {
            let (entry, result) =
                done.map_err(|_| CoreError::internal("a revocation task was aborted"))?;
            match result {
                Ok(true) => dead.push(entry),
                Ok(false) => {}
                Err(error) => {
                    report.failed += 1;
                    tracing::warn!(
                        lease_id = %entry.value.id, target, error = %error,
                        "revocation failed and will be tried again"
                    );
                    self.note_failure(entry, &error).await?;
                }
            }
        }
        if !dead.is_empty() {
            fail_point("sweep.killed");
            self.forget(&dead).await?;
            fail_point("sweep.forgotten");
        }
        report.revoked = dead.len();
        Ok(report)
    }

    /// Kills what a claimed row names. `false` when the row turns out not to be due any more.
    async fn kill_due(&self, claimed: &Lease, now: Timestamp) -> Result<bool, CoreError> {
        if claimed.state == LeaseState::Active && now < claimed.expires_at {
            return Ok(false);
        }
        let result = self.kill(claimed).await;
        // Only a target that cannot be reached is down; one that refuses is up.
        let up = !matches!(result, Err(CoreError::Upstream { .. }));
        self.breakers.note(&claimed.target, up, self.clock.now());
        result.map(|()| true)
    }

    /// Revokes the intents whose issuing was broken off in this process.
    async fn sweep_broken_off(&self) {
        let ids =
            std::mem::take(&mut *self.broken_off.lock().unwrap_or_else(PoisonError::into_inner));
        for id in ids {
            // What fails here is noted in the row, or found by its due time.
            if let Err(error) = self.revoke(&id).await {
                tracing::warn!(lease_id = %id, error = %error, "a broken-off issue is not undone yet");
            }
        }
    }

    /// Keeps the configured rate by pausing for as long as this round's share takes.
    async fn pace(&self, revoked: usize) {
        let rate = f64::from(self.settings.rate_per_sec.max(1));
        let revoked = u32::try_from(revoked).unwrap_or(u32::MAX);
        let share = std::time::Duration::from_secs_f64(f64::from(revoked) / rate);
        if share > std::time::Duration::from_millis(1) {
            tokio::time::sleep(share).await;
        }
    }

    /// When the sweep has to look again: the earliest due time, or `None` when nothing is leased.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn next_due(&self) -> Result<Option<Timestamp>, CoreError> {
        Ok(self.records.storage().next_due(kinds::LEASE).await?)
    }

    /// Waits until something may have become due earlier than planned.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }
}
