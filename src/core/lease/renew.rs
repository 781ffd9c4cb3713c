//! Renewing: the target first, then the row. Dying in between leaves a lease that ends earlier.

use crate::storage::StorageError;
use crate::types::id::LeaseId;
use crate::types::time::{Timestamp, Ttl};

use super::super::error::CoreError;
use super::super::failpoint::fail_point;
use super::super::records::{Batch, Precondition};
use super::super::reply::{LeaseReply, Reply};
use super::{ISSUE_TIMEOUT, Lease, Leases};

impl Leases {
    /// Prolongs a lease to `increment` from now (zero: its first lifetime again), within its limits
    /// and the life of the caller.
    ///
    /// # Errors
    /// `Invalid` when the lease is unknown, over or not renewable; `Upstream` when the target is down.
    pub async fn renew(
        &self,
        id: &LeaseId,
        increment: Ttl,
        caller_expires_at: Option<Timestamp>,
    ) -> Result<Reply, CoreError> {
        let now = self.clock.now();
        let entry = self.get(id).await?.ok_or_else(unknown)?;
        let lease = entry.value;
        if !lease.is_live(now) {
            return Err(unknown());
        }
        if !lease.renewable {
            return Err(CoreError::invalid("lease is not renewable"));
        }
        let first = lease.expires_at.remaining(lease.renewed_at.unwrap_or(lease.issued_at));
        let limit = match caller_expires_at {
            Some(end) => lease.max_expires_at.min(end),
            None => lease.max_expires_at,
        };
        let wanted = now.plus(increment.or(first));
        // A renewal never takes back what was already promised by an earlier one.
        let expires_at = wanted.min(limit).max(lease.expires_at.min(limit));
        if expires_at <= now {
            return Err(CoreError::denied("the caller's own lifetime is over"));
        }
        let renewed = Lease { expires_at, renewed_at: Some(now), ..lease };
        self.tell_target(&renewed).await?;
        fail_point("lease.renewed");
        let mut batch = Batch::new();
        self.put(&mut batch, &renewed, Precondition::Rev(entry.rev), expires_at)?;
        match self.view().commit(&batch).await {
            Ok(()) => {}
            // Revoked, or renewed by another request, since it was read.
            Err(CoreError::Storage(StorageError::Conflict)) => return Err(unknown()),
            Err(error) => return Err(error),
        }
        let mut reply = Reply {
            lease: Some(LeaseReply {
                id: renewed.id.clone(),
                renewable: true,
                duration: expires_at.remaining(now),
            }),
            ..Reply::default()
        };
        if expires_at < wanted {
            reply.warnings.push("the lifetime asked for was cut to what the lease may have".into());
        }
        Ok(reply)
    }

    async fn tell_target(&self, lease: &Lease) -> Result<(), CoreError> {
        let mounted = self.mounts.by_accessor(&lease.mount).ok_or_else(unknown)?;
        tokio::time::timeout(
            ISSUE_TIMEOUT,
            mounted.engine()?.renew(&mounted.context(), lease.facts()),
        )
        .await
        .unwrap_or_else(|_| {
            Err(CoreError::Upstream {
                target: lease.target.clone(),
                message: "it did not answer in time".into(),
            })
        })
    }
}

fn unknown() -> CoreError {
    CoreError::invalid("invalid lease")
}
