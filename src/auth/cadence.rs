//! When a mount looks for what is over.

use std::sync::{Mutex, PoisonError};

use crate::types::time::{Timestamp, Ttl};

/// How often a mount is tidied.
pub(super) const EVERY: Ttl = Ttl::from_secs(3600);

/// When a mount was tidied last, on this node.
#[derive(Default)]
pub(super) struct Cadence {
    tidied_at: Mutex<Option<Timestamp>>,
}

impl Cadence {
    /// Whether it is time to tidy. Says so once each time.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let mut tidied = self.tidied_at.lock().unwrap_or_else(PoisonError::into_inner);
        let due = tidied.is_some_and(|at| now >= at.plus(EVERY));
        // Not at once after unsealing, when there is enough to do.
        if due || tidied.is_none() {
            *tidied = Some(now);
        }
        due
    }
}
