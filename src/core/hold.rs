//! The hold: nothing that is on a target is changed or ended until an administrator has looked.
//!
//! Set when the store was put back to an earlier state (its leases and passwords may be long replaced)
//! and when the clock jumped forward (nothing may really be due).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::types::time::Timestamp;

use super::error::CoreError;

/// Why and since when revocations and rotations are held back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// For people.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// Whether it tells of a clock that jumped ahead, so that releasing it accepts the jump.
    #[serde(default)]
    pub of_clock: bool,
}

/// The hold in force in this process, as all who have to heed it see it.
#[derive(Clone, Debug, Default)]
pub struct HoldCell(Arc<watch::Sender<Option<Arc<Hold>>>>);

/// Proof that no hold was in force a moment ago. Whatever changes or ends something that exists on a
/// target, other than at the wish of whoever holds it, takes one.
#[derive(Debug)]
#[must_use = "it permits something"]
pub struct Unheld(());

impl HoldCell {
    /// The hold in force.
    pub fn present(&self) -> Option<Arc<Hold>> {
        self.0.borrow().clone()
    }

    /// Told of each change.
    pub fn changes(&self) -> watch::Receiver<Option<Arc<Hold>>> {
        self.0.subscribe()
    }

    /// The proof.
    ///
    /// # Errors
    /// `Held` while a hold is in force.
    pub fn unheld(&self) -> Result<Unheld, CoreError> {
        match &*self.0.borrow() {
            Some(hold) => Err(CoreError::Held(hold.reason.clone())),
            None => Ok(Unheld(())),
        }
    }

    /// Puts another one, or none, in force. False when it was so already.
    pub(super) fn put(&self, hold: Option<Arc<Hold>>) -> bool {
        metrics::gauge!("leasehold_hold").set(if hold.is_some() { 1.0 } else { 0.0 });
        self.0.send_if_modified(|present| {
            let changed = *present != hold;
            *present = hold;
            changed
        })
    }
}
