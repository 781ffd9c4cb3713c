//! The hold: nothing is revoked by itself until an administrator has looked.
//!
//! Set when the store was put back to an earlier state (its leases may be long replaced) and when the
//! clock jumped forward (nothing may really be due). Stored, so that a restart does not lift it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};

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

#[derive(Default)]
pub(super) struct HoldCell(ArcSwapOption<Hold>);

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
        self.hold.0.store(stored.map(|entry| Arc::new(entry.value)));
        self.report_hold();
        Ok(())
    }

    /// The hold in force.
    pub fn hold(&self) -> Option<Arc<Hold>> {
        self.hold.0.load_full()
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
        self.hold.0.store(Some(Arc::new(hold.clone())));
        self.report_hold();
        self.core_view().write(NAME, &hold, Precondition::Any).await
    }

    /// Lets revocations go on.
    ///
    /// # Errors
    /// When the store fails; the hold then stays.
    pub async fn release_hold(&self) -> Result<(), CoreError> {
        self.core_view().remove(NAME).await?;
        self.hold.0.store(None);
        self.report_hold();
        self.wake_sweep();
        Ok(())
    }

    /// Refuses while a hold is in force.
    pub(super) fn refuse_held(&self) -> Result<(), CoreError> {
        match self.hold() {
            Some(hold) => Err(CoreError::Held(hold.reason.clone())),
            None => Ok(()),
        }
    }

    fn report_hold(&self) {
        metrics::gauge!("leasehold_hold").set(if self.hold().is_some() { 1.0 } else { 0.0 });
    }
}
