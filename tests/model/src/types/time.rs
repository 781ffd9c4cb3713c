//! The monotonic clock of a schedule. It stands still, but for those who wait for it.

use std::cell::Cell;
use std::time::Duration;

pub trait Clock: Send + Sync {
    fn monotonic(&self) -> Duration;
}

pub struct ScheduleClock;

impl Clock for ScheduleClock {
    fn monotonic(&self) -> Duration {
        now()
    }
}

// All threads of a schedule are played by one.
thread_local! {
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static PASSES: Cell<bool> = const { Cell::new(false) };
}

/// Begins a schedule. Whether time `passes` for those who wait for a limited time: if not, they wait
/// until they are told, and who is never told is found.
pub fn begin(passes: bool) {
    NOW.set(Duration::ZERO);
    PASSES.set(passes);
}

pub fn now() -> Duration {
    NOW.get()
}

pub fn advance(by: Duration) {
    NOW.set(NOW.get() + by);
}

/// Whether a wait is over because its time is.
pub fn runs_out(limit: Duration) -> bool {
    if PASSES.get() {
        advance(limit);
    }
    PASSES.get()
}
