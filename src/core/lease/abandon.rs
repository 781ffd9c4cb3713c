//! Giving up: forgetting a lease although its credential may live on. Always somebody's decision, and
//! always on record before the lease is forgotten.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::storage::StorageError;
use crate::types::id::{LeaseId, RequestId};

use super::super::error::CoreError;
use super::super::records::{Batch, Precondition};
use super::super::view::{Entry, PutOptions};
use super::bulk::Operation;
use super::{Lease, Leases};

/// Most abandoned leases named with an operation; the audit has all of them.
const ABANDONED_LISTED_MAX: usize = 1000;

/// The decision to give a lease up should its target not revoke it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// The name of whoever decided it.
    pub by: String,
    /// The request that it was decided with.
    pub request_id: RequestId,
}

/// A lease that was forgotten.
#[derive(Debug)]
pub struct Abandoned {
    /// As it was.
    pub lease: Lease,
    /// Why its credential may still live; `None` when it was revoked after all.
    pub last_error: Option<String>,
}

impl Leases {
    /// Forgets a lease although its credential may live on: the target is gone for good. Tries to
    /// revoke first and says whether that worked; when it did not, that is in the audit.
    ///
    /// # Errors
    /// `Invalid` when there is no such lease; `Upstream` while its credential is still being created,
    /// because what comes to be must be named by a row; `Held` while a hold is in force;
    /// `AuditUnavailable` when no sink takes the record, and then it is not forgotten; otherwise when
    /// the store fails.
    pub async fn abandon(&self, id: &LeaseId, decision: &GivenUp) -> Result<Abandoned, CoreError> {
        let _unheld = self.unheld()?;
        let found = self.take_in_hand(id).await?;
        let entry = found.ok_or_else(|| CoreError::invalid("invalid lease"))?;
        let last_error = match self.kill(&entry.value).await {
            Ok(()) => {
                self.forget(std::slice::from_ref(&entry)).await?;
                None
            }
            // Not the target's refusal: it was not asked, and another try may well revoke.
            Err(error) if error.is_ours() => return Err(error),
            Err(error) => {
                let lease = &entry.value;
                self.record_abandoned(lease, decision, &error).await?;
                self.forget_abandoned(&lease.id).await?;
                Some(error.to_string())
            }
        };
        Ok(Abandoned { lease: entry.value, last_error })
    }

    /// Puts on record that a lease is about to be forgotten, and why its credential may live.
    pub(super) async fn record_abandoned(
        &self,
        lease: &Lease,
        decision: &GivenUp,
        error: &CoreError,
    ) -> Result<(), CoreError> {
        let detail = json!({
            "lease_id": lease.id,
            "target": lease.target,
            "role": lease.role,
            "request_id": decision.request_id,
            "by": decision.by,
            "last_error": error.to_string(),
        });
        self.audit
            .record_event("lease_abandoned", &detail)
            .await
            .map_err(|error| CoreError::AuditUnavailable(Box::new(error)))?;
        metrics::counter!("leasehold_leases_abandoned_total").increment(1);
        Ok(())
    }

    /// Removes the row of one lease, however it was changed meanwhile, and counts it as abandoned.
    pub(super) async fn forget_abandoned(&self, id: &LeaseId) -> Result<(), CoreError> {
        loop {
            let found: Option<Entry<Lease>> = self.view().get_fresh(id.as_str()).await?;
            let Some(entry) = found else { return Ok(()) };
            let mut batch = Batch::new();
            self.view().delete(&mut batch, id.as_str(), Precondition::Rev(entry.rev));
            self.delete_idempotency(&mut batch, &entry.value).await?;
            self.count_abandoned(&mut batch, &[&entry.value]).await?;
            match self.view().commit(&batch).await {
                Err(CoreError::Storage(StorageError::Conflict)) => {}
                other => return other,
            }
        }
    }

    /// Lets the bulk operations that the leases are part of say that they were abandoned.
    pub(super) async fn count_abandoned(
        &self,
        batch: &mut Batch,
        abandoned: &[&Lease],
    ) -> Result<(), CoreError> {
        let mut by_operation: BTreeMap<&str, Vec<&LeaseId>> = BTreeMap::new();
        for lease in abandoned {
            for operation in &lease.operations {
                by_operation.entry(operation).or_default().push(&lease.id);
            }
        }
        for (id, leases) in by_operation {
            let found = self.operations().get_fresh::<Operation>(id).await?;
            // Kept for as long as it has leases, unless somebody removed it.
            let Some(Entry { value: mut operation, rev, .. }) = found else { continue };
            operation.abandoned = operation.abandoned.saturating_add(leases.len() as u64);
            let room = ABANDONED_LISTED_MAX.saturating_sub(operation.may_live.len());
            operation.may_live.extend(leases.into_iter().take(room).cloned());
            let expected = Precondition::Rev(rev);
            self.operations().put(batch, id, &operation, expected, PutOptions::default())?;
        }
        Ok(())
    }
}
