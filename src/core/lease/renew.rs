//! Renewing: the target first, then the row. Dying in between leaves a lease that ends earlier.

use std::sync::Arc;

use crate::storage::StorageError;
use crate::types::id::LeaseId;
use crate::types::time::{Timestamp, Ttl};

use super::super::error::CoreError;
use super::super::failpoint::fail_point;
use super::super::lifetime::Lifetime;
use super::super::mount::Mounted;
use super::super::records::{Batch, Precondition};
use super::super::reply::{LeaseReply, Reply};
use super::super::view::Entry;
use super::{Lease, Leases};

/// How often a renewal starts over because another one came between.
const ATTEMPTS: usize = 64;

impl Leases {
    /// Prolongs a lease to `increment` from now (zero: its first lifetime again), within its limits
    /// and the life of the caller. Never shortens it.
    ///
    /// # Errors
    /// `Invalid` when the lease is unknown, over or not renewable; `Upstream` when the target is down.
    pub async fn renew(
        &self,
        id: &LeaseId,
        increment: Ttl,
        caller_expires_at: Option<Timestamp>,
    ) -> Result<Reply, CoreError> {
        // Whether the target was told of an end that the row then did not take.
        let mut told = false;
        for _ in 0..ATTEMPTS {
            let entry = self.get(id).await?.ok_or_else(unknown)?;
            let now = self.clock.now();
            if !entry.value.is_live(now) {
                return Err(unknown());
            }
            if !entry.value.renewable {
                return Err(CoreError::invalid("lease is not renewable"));
            }
            let mounted = self.mounts.by_accessor(&entry.value.mount).ok_or_else(unknown)?;
            let wanted = now.plus(increment.or(entry.value.ttl));
            let end = end(&entry.value, &mounted, increment, caller_expires_at, now);
            if end > entry.value.expires_at {
                told = true;
                if !self.prolong(&mounted, entry, now, end).await? {
                    continue;
                }
            } else if told && !self.tell_again(&mounted, &entry).await? {
                continue;
            }
            let duration = end.remaining(now);
            let mut reply = Reply {
                lease: Some(LeaseReply { id: id.clone(), renewable: true, duration }),
                existing: true,
                ..Reply::default()
            };
            if end < wanted {
                reply.warnings.push(format!(
                    "the lifetime is {} seconds: nothing outlives its role, its mount or its caller",
                    duration.as_secs()
                ));
            }
            return Ok(reply);
        }
        Err(StorageError::Busy.into())
    }

    /// False when the row was changed by somebody else meanwhile.
    async fn prolong(
        &self,
        mounted: &Arc<Mounted>,
        entry: Entry<Lease>,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<bool, CoreError> {
        let (promised, rev) = (entry.value.expires_at, entry.rev);
        let renewed = Lease { expires_at, renewed_at: Some(now), ..entry.value };
        self.tell_target(mounted, &renewed).await?;
        fail_point("lease.renewed");
        if self.clock.now() >= promised {
            return Err(unknown());
        }
        let mut batch = Batch::new();
        self.put(&mut batch, &renewed, Precondition::Rev(rev), expires_at)?;
        match self.view().commit(&batch).await {
            Ok(()) => {}
            // Revoked, or renewed by another request, since it was read.
            Err(CoreError::Storage(StorageError::Conflict)) => return Ok(false),
            Err(error) => return Err(error),
        }
        if self.clock.now() >= promised {
            // The sweep may have taken the row up, as it was before, while this was being stored.
            // What may be dead already is not promised to anybody.
            self.withdraw(&renewed.id);
            return Err(unknown());
        }
        Ok(true)
    }

    /// Tells the target what the row says: of two renewals at once, the one that stored the later end
    /// need not be the one that the target heard last. Then writes the row again, so that whoever has
    /// told the target something meanwhile does the same. False when that was done by somebody else.
    async fn tell_again(
        &self,
        mounted: &Arc<Mounted>,
        entry: &Entry<Lease>,
    ) -> Result<bool, CoreError> {
        self.tell_target(mounted, &entry.value).await?;
        let mut batch = Batch::new();
        let precondition = Precondition::Rev(entry.rev);
        self.put(&mut batch, &entry.value, precondition, entry.value.expires_at)?;
        match self.view().commit(&batch).await {
            Ok(()) => Ok(true),
            Err(CoreError::Storage(StorageError::Conflict)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn tell_target(&self, mounted: &Arc<Mounted>, lease: &Lease) -> Result<(), CoreError> {
        let context = mounted.context();
        self.ask_target(lease, mounted.engine()?.renew(&context, lease.facts())).await
    }
}

/// When a lease ends that is renewed at `now`.
fn end(
    lease: &Lease,
    mounted: &Mounted,
    increment: Ttl,
    caller_expires_at: Option<Timestamp>,
    now: Timestamp,
) -> Timestamp {
    let lifetime = Lifetime {
        issued_at: lease.issued_at,
        mount_max: mounted.facts.max_ttl,
        not_after: caller_expires_at
            .map_or(Some(lease.max_expires_at), |end| Some(lease.max_expires_at.min(end))),
        ..Lifetime::default()
    };
    let span = lifetime.renewed(now, increment, lease.ttl);
    // What was promised already stays promised, also when less could be given by now.
    span.map_or(lease.expires_at, |span| span.expires_at.max(lease.expires_at))
}

fn unknown() -> CoreError {
    CoreError::invalid("invalid lease")
}
