//! Taking back what was never handed out: an issue that failed or was given up half-way, an answer
//! that could not leave.

use futures_util::stream::{self, StreamExt};

use crate::storage::StorageError;
use crate::types::id::LeaseId;

use super::super::error::CoreError;
use super::super::records::{Batch, Precondition};
use super::{Lease, LeaseState, Leases, locked};

/// Rows rewritten at the same time.
const CONCURRENCY: usize = 32;

/// What is known of a lease that has to be taken back.
#[derive(Clone)]
pub(super) enum BrokenOff {
    /// Its row says all; without one there is nothing to take back.
    Stored,
    /// The target was asked to create it. Should the row be gone, somebody has revoked it before it
    /// existed, and it needs a row again.
    Touched(Box<Lease>),
}

/// One attempt at issuing. Unless it succeeds, its end in whatever way, a dropped request included,
/// hands the intent to the sweep.
pub(super) struct Attempt<'a> {
    leases: &'a Leases,
    id: LeaseId,
    broken_off: Option<BrokenOff>,
}

impl<'a> Attempt<'a> {
    pub(super) fn begin(leases: &'a Leases, lease: &Lease) -> Self {
        locked(&leases.in_flight).insert(lease.id.clone());
        Self { leases, id: lease.id.clone(), broken_off: Some(BrokenOff::Stored) }
    }

    /// The target is asked from now on.
    pub(super) fn touches(&mut self, lease: &Lease) {
        self.broken_off = Some(BrokenOff::Touched(Box::new(lease.clone())));
    }

    /// There is nothing to take back.
    pub(super) fn done(mut self) {
        self.broken_off = None;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(broken_off) = self.broken_off.take() {
            locked(&self.leases.broken_off).insert(self.id.clone(), broken_off);
            self.leases.wake_sweep();
        }
        // Last, so that the sweep never takes it for settled while it is in neither set.
        locked(&self.leases.in_flight).remove(&self.id);
    }
}

impl Leases {
    /// Takes back a credential whose answer never left the server.
    pub fn withdraw(&self, id: &LeaseId) {
        locked(&self.broken_off).insert(id.clone(), BrokenOff::Stored);
        self.wake_sweep();
    }

    /// Whether a lease is about to be taken back.
    pub(super) fn is_broken_off(&self, id: &LeaseId) -> bool {
        locked(&self.broken_off).contains_key(id)
    }

    pub(super) fn is_in_flight(&self, id: &LeaseId) -> bool {
        locked(&self.in_flight).contains(id)
    }

    /// Makes what was broken off due.
    ///
    /// # Errors
    /// When the store fails; what is not done yet is kept.
    pub(super) async fn undo_broken_off(&self) -> Result<(), CoreError> {
        let all = locked(&self.broken_off).clone();
        let failed = stream::iter(all)
            .map(|(id, broken_off)| async move {
                self.make_due(&id, broken_off).await?;
                locked(&self.broken_off).remove(&id);
                Ok(())
            })
            .buffer_unordered(CONCURRENCY)
            .filter_map(|outcome: Result<(), CoreError>| std::future::ready(outcome.err()))
            .collect::<Vec<_>>()
            .await;
        failed.into_iter().next().map_or(Ok(()), Err)
    }

    async fn make_due(&self, id: &LeaseId, broken_off: BrokenOff) -> Result<(), CoreError> {
        let now = self.clock.now();
        loop {
            let stored = self.view().get_fresh::<Lease>(id.as_str()).await?;
            let (lease, precondition) = match (stored, &broken_off) {
                (Some(entry), _) => (entry.value, Precondition::Rev(entry.rev)),
                (None, BrokenOff::Touched(lease)) => ((**lease).clone(), Precondition::Absent),
                (None, BrokenOff::Stored) => return Ok(()),
            };
            // The target has answered, or will never be asked: what is revoked now stays revoked.
            let doomed = Lease { state: LeaseState::Revoking, settles_at: None, ..lease };
            let mut batch = Batch::new();
            self.put(&mut batch, &doomed, precondition, now)?;
            match self.view().commit(&batch).await {
                Err(CoreError::Storage(StorageError::Conflict)) => {}
                other => return other,
            }
        }
    }
}
