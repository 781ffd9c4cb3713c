//! Revoking one lease, and telling the truth about it.

use crate::storage::StorageError;
use crate::types::id::LeaseId;
use crate::types::secret::fill_random;
use crate::types::time::{Timestamp, Ttl};

use super::super::error::CoreError;
use super::super::failpoint::fail_point;
use super::super::records::{Batch, Precondition};
use super::super::view::Entry;
use super::{Lease, LeaseState, Leases, REVOKE_TIMEOUT};

/// First pause after a failed revocation.
const BACKOFF_FIRST_SECS: u64 = 5;

impl Leases {
    /// Revokes a lease and answers once the credential is dead. A lease that is not there is dead.
    ///
    /// # Errors
    /// `Upstream` when the target did not do it: the lease stays, is listed as overdue, and is tried
    /// again until it succeeds. `Held` while a hold is in force.
    pub async fn revoke(&self, id: &LeaseId) -> Result<(), CoreError> {
        self.refuse_held()?;
        loop {
            let Some(entry) = self.get(id).await? else { return Ok(()) };
            match self.begin_revoking(entry).await {
                Ok(entry) => {
                    fail_point("lease.revoking");
                    return self.finish_revoking(entry).await;
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
        // The sweep would take it up too if it were due at once; this call has it in hand.
        let due_at = self.clock.now().plus(Ttl::from_secs(REVOKE_TIMEOUT.as_secs()));
        self.put(&mut batch, &lease, Precondition::Rev(entry.rev), due_at)?;
        self.view().commit(&batch).await?;
        Ok(Entry { value: lease, rev: entry.rev + 1, due_at: Some(due_at) })
    }

    async fn finish_revoking(&self, entry: Entry<Lease>) -> Result<(), CoreError> {
        match self.kill(&entry.value).await {
            Ok(()) => {
                fail_point("lease.killed");
                self.forget(std::slice::from_ref(&entry)).await
            }
            Err(error) => {
                self.note_failure(entry, &error).await?;
                Err(error)
            }
        }
    }

    /// Makes the credential dead on its target. A mount that is gone has nothing to kill it with.
    pub(super) async fn kill(&self, lease: &Lease) -> Result<(), CoreError> {
        let mounted = self.mounts.by_accessor(&lease.mount).ok_or_else(|| CoreError::Upstream {
            target: lease.target.clone(),
            message: "its mount is gone".into(),
        })?;
        let result = tokio::time::timeout(
            REVOKE_TIMEOUT,
            mounted.engine()?.revoke(&mounted.context(), lease.facts()),
        )
        .await
        .unwrap_or_else(|_| {
            Err(CoreError::Upstream {
                target: lease.target.clone(),
                message: "it did not answer in time".into(),
            })
        });
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
        let mut batch = Batch::new();
        for entry in dead {
            // Whatever was changed about the row meanwhile, its credential is dead.
            self.view().delete(&mut batch, entry.value.id.as_str(), Precondition::Any);
            if let Some(name) = &entry.value.idempotency {
                self.idempotency().delete(&mut batch, name, Precondition::Any);
            }
        }
        self.view().commit(&batch).await
    }

    /// Writes down that a revocation failed, and when it is tried again.
    pub(super) async fn note_failure(
        &self,
        entry: Entry<Lease>,
        error: &CoreError,
    ) -> Result<(), CoreError> {
        let now = self.clock.now();
        let attempts = entry.value.attempts.saturating_add(1);
        let lease = Lease {
            state: LeaseState::Revoking,
            attempts,
            last_error: Some(error.to_string()),
            failing_since: Some(entry.value.failing_since.unwrap_or(now)),
            ..entry.value
        };
        let due_at = self.next_try(now, attempts)?;
        let mut batch = Batch::new();
        self.put(&mut batch, &lease, Precondition::Rev(entry.rev), due_at)?;
        match self.view().commit(&batch).await {
            // Somebody else has taken it further; theirs is the newer knowledge.
            Err(CoreError::Storage(StorageError::Conflict)) => Ok(()),
            other => other,
        }
    }

    /// Doubling pauses up to the configured one, each shortened at random by up to a quarter, so that
    /// leases that failed together do not come back together.
    fn next_try(&self, now: Timestamp, attempts: u32) -> Result<Timestamp, CoreError> {
        let doubled = BACKOFF_FIRST_SECS.saturating_mul(1 << attempts.saturating_sub(1).min(20));
        let pause = Ttl::from_secs(doubled.min(self.settings.backoff_max.as_secs()).max(1));
        let mut random = [0u8; 2];
        fill_random(&mut random)?;
        let cut = pause.as_millis() * i64::from(u16::from_be_bytes(random)) / (4 * 65_536);
        Ok(now.plus_millis(pause.as_millis() - cut))
    }

    /// Forgets a lease although its credential may live on: the target is gone for good. Tries to
    /// revoke first and says whether that worked. The caller audits it.
    ///
    /// # Errors
    /// `Invalid` when there is no such lease; otherwise when the store fails.
    pub async fn abandon(&self, id: &LeaseId) -> Result<Abandoned, CoreError> {
        let entry = self.get(id).await?.ok_or_else(|| CoreError::invalid("invalid lease"))?;
        let last_error = match self.kill(&entry.value).await {
            Ok(()) => None,
            Err(error) => Some(error.to_string()),
        };
        self.forget(std::slice::from_ref(&entry)).await?;
        metrics::counter!("leasehold_leases_abandoned_total").increment(1);
        Ok(Abandoned { lease: entry.value, last_error })
    }
}

/// A lease that was forgotten.
#[derive(Debug)]
pub struct Abandoned {
    /// As it was.
    pub lease: Lease,
    /// Why its credential may still live; `None` when it was revoked after all.
    pub last_error: Option<String>,
}
