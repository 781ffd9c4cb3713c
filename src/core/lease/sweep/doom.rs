//! Intents that nobody makes good any more.

use crate::storage::StorageError;
use crate::types::time::Timestamp;

use super::super::super::error::CoreError;
use super::super::super::records::{Batch, Precondition};
use super::super::super::view::Entry;
use super::super::{Lease, LeaseState, Leases};

impl Leases {
    /// Marks intents as doomed before anything is done to their credentials. An issue that ended
    /// between the claim and now has made its lease active, which is then none of the sweep's; one that
    /// is still on its way finds that it came too late. What is no intent passes unchanged.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn doom_intents(
        &self,
        claimed: Vec<Entry<Lease>>,
        until: Timestamp,
    ) -> Result<Vec<Entry<Lease>>, CoreError> {
        let now = self.clock.now();
        let (intents, mut others): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|entry| {
            entry.value.state == LeaseState::Intent && !self.is_unsettled(&entry.value, now)
        });
        if intents.is_empty() {
            return Ok(others);
        }
        match self.doom(&intents, until).await {
            Ok(doomed) => others.extend(doomed),
            Err(CoreError::Storage(StorageError::Conflict)) => {
                // One of them is no intent any more: each for itself.
                for intent in &intents {
                    match self.doom(std::slice::from_ref(intent), until).await {
                        Ok(doomed) => others.extend(doomed),
                        Err(CoreError::Storage(StorageError::Conflict)) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            Err(error) => return Err(error),
        }
        Ok(others)
    }

    async fn doom(
        &self,
        intents: &[Entry<Lease>],
        until: Timestamp,
    ) -> Result<Vec<Entry<Lease>>, CoreError> {
        let mut batch = Batch::new();
        let mut doomed = Vec::with_capacity(intents.len());
        for intent in intents {
            let value = Lease { state: LeaseState::Revoking, ..intent.value.clone() };
            // In hand for as long as the claim was to hold.
            self.put(&mut batch, &value, Precondition::Rev(intent.rev), until)?;
            doomed.push(Entry { value, rev: intent.rev + 1, due_at: Some(until) });
        }
        self.view().commit(&batch).await?;
        Ok(doomed)
    }
}
