//! A connection on which whoever asks gets the answer by themselves.
//!
//! A row that is found by its key, in pages that are in memory, costs less than waking a thread and being
//! woken by it. But a disk may hang, and threads of the runtime must not wait for it: one at a time asks
//! here, and for a while nobody does after an answer that took long. Everybody else asks the readers.

use std::fmt;
use std::sync::{Arc, TryLockError};
use std::time::Duration;

use super::{Connection, StorageError};
use crate::types::sync::Mutex;
use crate::types::time::Clock;

/// More than this, and the disk was in it.
const LONG: Duration = Duration::from_millis(2);
/// How long the threads of the runtime stay away from a slow disk.
const REST: Duration = Duration::from_secs(1);

/// The connection, for one at a time.
pub(super) struct Nearby {
    lane: Mutex<Lane>,
    clock: Arc<dyn Clock>,
}

struct Lane {
    connection: Connection,
    /// By the monotonic clock.
    rests_until: Option<Duration>,
}

impl fmt::Debug for Nearby {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nearby").finish_non_exhaustive()
    }
}

impl Nearby {
    /// The connection should wait for nobody's lock.
    pub fn new(connection: Connection, clock: Arc<dyn Clock>) -> Self {
        Self { lane: Mutex::new(Lane { connection, rests_until: None }), clock }
    }

    /// The answer to `question`, or nothing: somebody else is asking, the disk was slow a moment ago,
    /// or the file is locked. Then it is one for the readers.
    pub fn ask<T>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, StorageError>,
    ) -> Option<Result<T, StorageError>> {
        let mut lane = match self.lane.try_lock() {
            Ok(lane) => lane,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let begun = self.clock.monotonic();
        if lane.rests_until.is_some_and(|until| begun < until) {
            return None;
        }
        let answer = question(&lane.connection);
        let ended = self.clock.monotonic();
        lane.rests_until = (ended.saturating_sub(begun) > LONG).then(|| ended + REST);
        (!matches!(answer, Err(StorageError::Busy))).then_some(answer)
    }
}
