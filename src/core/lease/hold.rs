//! The hold: nothing is revoked by itself until an administrator has looked.
//!
//! Set when the store was put back to an earlier state (its leases may be long replaced) and when the
//! clock jumped forward (nothing may really be due). Stored, so that a restart does not lift it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::types::id::NamespaceId;
use crate::types::time::Timestamp;

use super::super::error::CoreError;
use super::super::records::{Precondition, kinds};
use super::super::view::View;
use super::Leases;

const NAME: &str = "hold";

/// Why and since when revocations are held back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// For people.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

pub(super) struct HoldCell(watch::Sender<Option<Arc<Hold>>>);

impl Default for HoldCell {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Leases {
    fn core_view(&self) -> View {
        View::new(self.records.clone(), NamespaceId::ROOT, kinds::CORE, String::new())
    }

    /// Takes over the stored hold, if there is one. After unseal, and when another node changed it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn load_hold(&self) -> Result<(), CoreError> {
        let stored = self.core_view().get_fresh::<Hold>(NAME).await?;
        self.put_hold(stored.map(|entry| Arc::new(entry.value)));
        Ok(())
    }

    /// The hold in force.
    pub fn hold(&self) -> Option<Arc<Hold>> {
        self.hold.0.borrow().clone()
    }

    /// Told of each change of the hold.
    pub fn hold_changes(&self) -> watch::Receiver<Option<Arc<Hold>>> {
        self.hold.0.subscribe()
    }

    /// Holds all revocations back. One that is in force already keeps its reason.
    ///
    /// # Errors
    /// When the hold could not be stored; it is in force in this process all the same.
    pub async fn set_hold(&self, reason: String) -> Result<(), CoreError> {
        if self.hold().is_some() {
            return Ok(());
        }
        let hold = Hold { reason, since: self.clock.now() };
        self.put_hold(Some(Arc::new(hold.clone())));
        self.core_view().write(NAME, &hold, Precondition::Any).await
    }

    /// Lets revocations go on.
    ///
    /// # Errors
    /// When the store fails; the hold then stays.
    pub async fn release_hold(&self) -> Result<(), CoreError> {
        self.core_view().remove(NAME).await?;
        self.put_hold(None);
        Ok(())
    }

    /// Refuses while a hold is in force.
    pub(super) fn refuse_held(&self) -> Result<(), CoreError> {
        match self.hold() {
            Some(hold) => Err(CoreError::Held(hold.reason.clone())),
            None => Ok(()),
        }
    }

    fn put_hold(&self, hold: Option<Arc<Hold>>) {
        metrics::gauge!("leasehold_hold").set(if hold.is_some() { 1.0 } else { 0.0 });
        let released = hold.is_none();
        let changed = self.hold.0.send_if_modified(|present| {
            let changed = *present != hold;
            *present = hold;
            changed
        });
        if changed && released {
            self.wake_sweep();
        }
    }
}
