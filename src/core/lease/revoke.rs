//! Revoking one lease, and telling the truth about it.

use crate::storage::StorageError;
use crate::types::id::LeaseId;
use crate::types::secret::fill_random;
use crate::types::time::{Timestamp, Ttl};

use super::super::error::CoreError;
use super::super::failpoint::fail_point;
use super::super::records::{Batch, Precondition};
use super::super::supervise::contained;
use super::super::view::Entry;
use super::{Lease, LeaseState, Leases};

/// First pause after a failed revocation.
const BACKOFF_FIRST_SECS: u64 = 5;

impl Leases {
    /// Revokes a lease and answers once the credential is dead. A lease that is not there is dead.
    ///
    /// # Errors
    /// `Upstream` when the target did not do it: the lease stays, is listed as overdue, and is tried
    /// again until it succeeds. Also while the credential is still being created: it is then revoked
    /// as soon as that has ended. `Held` while a hold is in force.
    pub async fn revoke(&self, id: &LeaseId) -> Result<(), CoreError> {
        let _unheld = self.unheld()?;
        match self.take_in_hand(id).await? {
            Some(entry) => self.finish_revoking(entry).await,
            None => Ok(()),
        }
    }

    /// Marks a lease that is going to be revoked now; `None` when there is none. One whose credential
    /// may still come to be is marked and refused: it is neither to be had nor to be forgotten yet.
    pub(super) async fn take_in_hand(
        &self,
        id: &LeaseId,
    ) -> Result<Option<Entry<Lease>>, CoreError> {
        loop {
            let Some(entry) = self.get(id).await? else { return Ok(None) };
            match self.begin_revoking(entry).await {
                Ok(entry) => {
                    fail_point("lease.revoking");
                    if self.is_unsettled(&entry.value, self.clock.now()) {
                        return Err(CoreError::Upstream {
                            target: entry.value.target,
                            message: "the credential is still being created, and will be revoked \
                                      then"
                                .into(),
                        });
                    }
                    return Ok(Some(entry));
                }
                // Renewed or revoked since it was read.
                Err(CoreError::Storage(StorageError::Conflict)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Marks a lease, so that it is dead to renewals and a crash does not forget it.
    async fn begin_revoking(&self, entry: Entry<Lease>) -> Result<Entry<Lease>, CoreError> {
        let lease = Lease { state: LeaseState::Revoking, ..entry.value };
        let mut batch = Batch::new();
        // The sweep leaves it alone for longer than this call can take.
        let in_hand = self.clock.now().plus(self.target_timeouts(2));
        let due_at = lease.settles_at.unwrap_or(in_hand);
        self.put(&mut batch, &lease, Precondition::Rev(entry.rev), due_at)?;
        self.view().commit(&batch).await?;
        self.wake_sweep_at(due_at);
        Ok(Entry { value: lease, rev: entry.rev + 1, due_at: Some(due_at) })
    }

    async fn finish_revoking(&self, entry: Entry<Lease>) -> Result<(), CoreError> {
        match self.kill(&entry.value).await {
            Ok(()) => {
                fail_point("lease.killed");
                self.forget(&[entry]).await
            }
            Err(error) => {
                let id = entry.value.id.clone();
                self.note_failure(entry, &error).await?;
                // Of two that revoke the same at once, the slower may find nothing to revoke.
                match self.view().get_fresh::<Lease>(id.as_str()).await? {
                    None => Ok(()),
                    Some(_) => Err(error),
                }
            }
        }
    }

    /// Whether the target may still be creating the credential.
    pub(super) fn is_unsettled(&self, lease: &Lease, now: Timestamp) -> bool {
        lease.settles_at.is_some_and(|settled| now < settled || self.is_in_flight(&lease.id))
    }

    /// Makes the credential dead on its target. A mount that is gone has nothing to kill it with.
    pub(super) async fn kill(&self, lease: &Lease) -> Result<(), CoreError> {
        let mounted = self.mounts.by_accessor(&lease.mount).ok_or_else(|| CoreError::Upstream {
            target: lease.target.clone(),
            message: "its mount is gone".into(),
        })?;
        let context = mounted.context();
        // One lease that an engine cannot bear must not stop the revocation of all others.
        let revocation = contained("engine", mounted.engine()?.revoke(&context, lease.facts()));
        let result = self.ask_target(lease, revocation).await;
        if !result.as_ref().is_err_and(CoreError::is_ours) {
            // Only a target that cannot be reached is down; one that refuses is up.
            let up = !matches!(result, Err(CoreError::Upstream { .. }));
            self.breakers.note(&lease.target, up, self.clock.now(), self.settings.backoff_max);
        }
        let outcome = if result.is_ok() { "ok" } else { "failed" };
        metrics::counter!(
            "leasehold_revocations_total",
            "target" => lease.target.clone(), "outcome" => outcome
        )
        .increment(1);
        result
    }

    /// Removes the rows of dead credentials in one commit.
    pub(super) async fn forget(&self, dead: &[Entry<Lease>]) -> Result<(), CoreError> {
        // As they were read, which needs no further look at them.
        match self.remove_rows(dead, |entry| Precondition::Rev(entry.rev)).await {
            Err(CoreError::Storage(StorageError::Conflict)) => {}
            other => return other,
        }
        // Whatever was changed about a row meanwhile, its credential is dead.
        for entry in dead {
            self.remove_rows(std::slice::from_ref(entry), |_| Precondition::Any).await?;
        }
        Ok(())
    }

    async fn remove_rows(
        &self,
        dead: &[Entry<Lease>],
        precondition: impl Fn(&Entry<Lease>) -> Precondition,
    ) -> Result<(), CoreError> {
        let mut batch = Batch::new();
        for entry in dead {
            self.view().delete(&mut batch, entry.value.id.as_str(), precondition(entry));
            self.delete_idempotency(&mut batch, &entry.value).await?;
        }
        self.view().commit(&batch).await
    }

    /// Writes down that a revocation failed, and when it is tried again.
    async fn note_failure(&self, entry: Entry<Lease>, error: &CoreError) -> Result<(), CoreError> {
        let rev = entry.rev;
        let (lease, due_at) = self.failed(entry.value, error)?;
        let mut batch = Batch::new();
        self.put(&mut batch, &lease, Precondition::Rev(rev), due_at)?;
        match self.view().commit(&batch).await {
            Ok(()) => {
                self.wake_sweep_at(due_at);
                Ok(())
            }
            // Somebody else has taken it further; theirs is the newer knowledge.
            Err(CoreError::Storage(StorageError::Conflict)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A lease after one more try that failed, and when the next one is due.
    pub(super) fn failed(
        &self,
        lease: Lease,
        error: &CoreError,
    ) -> Result<(Lease, Timestamp), CoreError> {
        let now = self.clock.now();
        let attempts = lease.attempts.saturating_add(1);
        let doubled = BACKOFF_FIRST_SECS.saturating_mul(1 << attempts.saturating_sub(1).min(20));
        let pause = Ttl::from_secs(doubled.min(self.settings.backoff_max.as_secs()).max(1));
        let lease = Lease {
            state: LeaseState::Revoking,
            attempts,
            last_error: Some(error.to_string()),
            failing_since: Some(lease.failing_since.unwrap_or(now)),
            ..lease
        };
        Ok((lease, now.plus_millis(pause.as_millis() - random_below(pause.as_millis() / 4)?)))
    }
}

/// At random, so that what failed together does not come back together. Zero when `limit` is.
pub(super) fn random_below(limit: i64) -> Result<i64, CoreError> {
    let mut random = [0u8; 4];
    fill_random(&mut random)?;
    Ok(i64::from(u32::from_be_bytes(random)).checked_rem(limit).unwrap_or(0))
}
