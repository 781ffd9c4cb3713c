//! The hold: nothing is revoked by itself until an administrator has looked.
//!
//! Set when the store was put back to an earlier state (its leases may be long replaced) and when the
//! clock jumped forward (nothing may really be due). Stored, so that a restart does not lift it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};

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

pub(super) struct HoldCell {
    present: watch::Sender<Option<Arc<Hold>>>,
    /// Held while the hold changes here and in the store, so that what is read there is never older than
    /// what is in force here. Says whether the hold in force still has to be stored.
    unstored: Mutex<bool>,
}

impl Default for HoldCell {
    fn default() -> Self {
        Self { present: watch::Sender::new(None), unstored: Mutex::new(false) }
    }
}

impl Leases {
    fn core_view(&self) -> View {
        View::new(self.records.clone(), NamespaceId::ROOT, kinds::CORE, String::new())
    }

    /// Takes over the stored hold, if there is one. After unseal, and when another node changed it. A
    /// hold that could not be stored stays in force, and is stored now.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn load_hold(&self) -> Result<(), CoreError> {
        let mut unstored = self.hold.unstored.lock().await;
        if self.store_hold(&mut unstored).await? {
            return Ok(());
        }
        let stored = self.core_view().get_fresh::<Hold>(NAME).await?;
        self.put_hold(stored.map(|entry| Arc::new(entry.value)));
        Ok(())
    }

    /// Stores the hold in force if that failed before. Whether it did.
    async fn store_hold(&self, unstored: &mut bool) -> Result<bool, CoreError> {
        let Some(hold) = self.hold().filter(|_| *unstored) else { return Ok(false) };
        self.core_view().write(NAME, &*hold, Precondition::Any).await?;
        *unstored = false;
        Ok(true)
    }

    /// The hold in force.
    pub fn hold(&self) -> Option<Arc<Hold>> {
        self.hold.present.borrow().clone()
    }

    /// Told of each change of the hold.
    pub fn hold_changes(&self) -> watch::Receiver<Option<Arc<Hold>>> {
        self.hold.present.subscribe()
    }

    /// Holds all revocations back. One that is in force already keeps its reason.
    ///
    /// # Errors
    /// When the hold could not be stored; it is in force in this process all the same. Call again.
    pub async fn set_hold(&self, reason: String) -> Result<(), CoreError> {
        let mut unstored = self.hold.unstored.lock().await;
        if self.hold().is_none() {
            self.put_hold(Some(Arc::new(Hold { reason, since: self.clock.now() })));
            *unstored = true;
        }
        self.store_hold(&mut unstored).await.map(|_| ())
    }

    /// Lets revocations go on.
    ///
    /// # Errors
    /// When the store fails; the hold then stays.
    pub async fn release_hold(&self) -> Result<(), CoreError> {
        let mut unstored = self.hold.unstored.lock().await;
        self.core_view().remove(NAME).await?;
        *unstored = false;
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
        let changed = self.hold.present.send_if_modified(|present| {
            let changed = *present != hold;
            *present = hold;
            changed
        });
        if changed && released {
            self.wake_sweep();
        }
    }
}
