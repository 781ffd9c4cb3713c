//! Writing down, many at a time, what became of leases that the sweep had in hand.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};

use crate::storage::StorageError;
use crate::types::time::Timestamp;

use super::super::super::error::CoreError;
use super::super::super::failpoint::fail_point;
use super::super::super::records::{Batch, Precondition};
use super::super::super::view::Entry;
use super::super::abandon::GivenUp;
use super::super::issue::Idempotency;
use super::super::revoke::random_below;
use super::super::{Lease, LeaseState, Leases};
use super::SweepReport;

/// Postponed leases come back within this time after their target may be tried again.
const SPREAD_MILLIS: i64 = 10_000;

/// Abandoned leases put on record at the same time.
const RECORDED_AT_ONCE: usize = 32;

/// A lease and what became of it.
pub(super) struct Settled {
    pub(super) entry: Entry<Lease>,
    pub(super) fate: Fate,
}

/// What became of a lease.
pub(super) enum Fate {
    /// Its credential is dead.
    Dead,
    /// Its target did not revoke it.
    Failed(CoreError),
    /// Neither did it, and somebody had decided that it is given up then.
    GivenUp { decision: GivenUp, error: CoreError },
    /// It was given up, and that is on record.
    Abandoned,
    /// It could not be tried: its target is down or too slow. Not before this moment again.
    Postponed(Timestamp),
    /// It was not tried, and is due then.
    Back(Timestamp),
}

/// What was settled; or what was not, and why.
pub(super) type Outcome = Result<SweepReport, (Vec<Settled>, CoreError)>;

/// Writes down what became of `batch`.
pub(super) async fn settle(leases: Arc<Leases>, batch: Vec<Settled>) -> Outcome {
    let on_record = stream::iter(batch).map(|settled| leases.put_on_record(settled));
    let batch: Vec<Settled> = on_record.buffered(RECORDED_AT_ONCE).collect().await;
    match leases.settle(&batch).await {
        Ok(()) => {}
        Err(CoreError::Storage(StorageError::Conflict)) => {
            // One of them was changed meanwhile: each for itself.
            for (done, one) in batch.iter().enumerate() {
                if let Err(error) = leases.settle_one(one).await {
                    return Err((batch.into_iter().skip(done).collect(), error));
                }
            }
        }
        Err(error) => return Err((batch, error)),
    }
    fail_point("sweep.forgotten");
    let mut report = SweepReport::default();
    for settled in &batch {
        match settled.fate {
            Fate::Dead => report.revoked += 1,
            Fate::Failed(_) => report.failed += 1,
            Fate::Abandoned => report.abandoned += 1,
            Fate::Postponed(_) | Fate::Back(_) | Fate::GivenUp { .. } => report.postponed += 1,
        }
    }
    metrics::counter!("leasehold_sweep_revoked_total").increment(report.revoked as u64);
    metrics::counter!("leasehold_sweep_failed_total").increment(report.failed as u64);
    metrics::counter!("leasehold_sweep_postponed_total").increment(report.postponed as u64);
    Ok(report)
}

impl Leases {
    /// What is given up is put on record before it is forgotten. What no sink takes is kept.
    async fn put_on_record(&self, settled: Settled) -> Settled {
        let Settled { entry, fate } = settled;
        let Fate::GivenUp { decision, error } = fate else { return Settled { entry, fate } };
        let fate = match self.record_abandoned(&entry.value, &decision, &error).await {
            Ok(()) => Fate::Abandoned,
            Err(refused) => Fate::Failed(refused),
        };
        Settled { entry, fate }
    }

    async fn settle(&self, settled: &[Settled]) -> Result<(), CoreError> {
        let mut batch = Batch::new();
        let mut abandoned = Vec::new();
        for Settled { entry, fate } in settled {
            let rev = Precondition::Rev(entry.rev);
            let (lease, due_at) = match fate {
                Fate::Dead | Fate::Abandoned => {
                    if let Fate::Abandoned = fate {
                        abandoned.push(&entry.value);
                    }
                    self.view().delete(&mut batch, entry.value.id.as_str(), rev);
                    self.delete_idempotency(&mut batch, &entry.value).await?;
                    continue;
                }
                Fate::Failed(error) => self.failed(entry.value.clone(), error)?,
                Fate::Postponed(until) => self.postponed(entry.value.clone(), *until)?,
                Fate::Back(at) => (entry.value.clone(), *at),
                // Was put on record, or failed to be, by now.
                Fate::GivenUp { error, .. } => self.failed(entry.value.clone(), error)?,
            };
            self.put(&mut batch, &lease, rev, due_at)?;
        }
        self.count_abandoned(&mut batch, &abandoned).await?;
        self.view().commit(&batch).await
    }

    async fn settle_one(&self, settled: &Settled) -> Result<(), CoreError> {
        if let Fate::Dead = settled.fate {
            return self.forget(std::slice::from_ref(&settled.entry)).await;
        }
        if let Fate::Abandoned = settled.fate {
            return self.forget_abandoned(&settled.entry.value.id).await;
        }
        match self.settle(std::slice::from_ref(settled)).await {
            // Somebody else has taken it further; theirs is the newer knowledge.
            Err(CoreError::Storage(StorageError::Conflict)) => Ok(()),
            other => other,
        }
    }

    /// Removes the record that leads from an idempotency key to a dead lease, unless the key has made
    /// another one since.
    pub(in super::super) async fn delete_idempotency(
        &self,
        batch: &mut Batch,
        dead: &Lease,
    ) -> Result<(), CoreError> {
        if let Some(name) = &dead.idempotency
            && let Some(found) = self.idempotency().get_fresh::<Idempotency>(name).await?
            && found.value.lease == dead.id
        {
            self.idempotency().delete(batch, name, Precondition::Rev(found.rev));
        }
        Ok(())
    }

    /// A lease that is late through no try of its own.
    fn postponed(&self, lease: Lease, until: Timestamp) -> Result<(Lease, Timestamp), CoreError> {
        let now = self.clock.now();
        let last_error = lease.last_error.or_else(|| {
            Some(format!("{} is down or too slow; it was not tried yet", lease.target))
        });
        let lease = Lease {
            state: LeaseState::Revoking,
            last_error,
            failing_since: Some(lease.failing_since.unwrap_or(now)),
            ..lease
        };
        Ok((lease, until.plus_millis(random_below(SPREAD_MILLIS)?)))
    }
}
