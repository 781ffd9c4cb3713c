//! Overwrites, in quiet moments, what requests have left on the stacks of the runtime's threads.
//!
//! A frame that was returned from stays readable until another request happens to write over it, and a
//! thread that sleeps afterwards keeps it for as long as it sleeps: a token that was used up long ago.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::core::context::Core;
use crate::core::seal::scrub_runtime_stacks;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);
/// With more requests than this in between, the threads write over their stacks all the time, and
/// would be held up.
const QUIET: u64 = 100;

/// Goes on for as long as the server.
pub async fn tend_stacks(core: Arc<Core>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut seen, mut clean) = (0, 0);
    loop {
        ticks.tick().await;
        let left = core.in_flight.left();
        let since = left.wrapping_sub(seen);
        seen = left;
        if clean == left || since > QUIET {
            continue;
        }
        let reached = scrub_runtime_stacks().await;
        // Of what has just ended, the answer may still have been on its way out: once more.
        if reached && since == 0 {
            clean = left;
        }
    }
}
