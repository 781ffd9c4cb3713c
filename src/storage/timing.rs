//! How long the store takes, as a metric.

use std::time::Duration;

use crate::types::time::{Clock, SystemClock};

/// Records the time from its making to its end under `leasehold_storage_seconds{op}`.
#[derive(Debug)]
pub(super) struct Timer {
    op: &'static str,
    started: Duration,
}

impl Timer {
    /// Starts measuring `op`.
    pub fn start(op: &'static str) -> Self {
        Self { op, started: SystemClock.monotonic() }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let elapsed = SystemClock.monotonic().saturating_sub(self.started);
        metrics::histogram!("leasehold_storage_seconds", "op" => self.op).record(elapsed);
    }
}
