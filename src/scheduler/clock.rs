//! Watches over the clock: notes the time in the store, and holds revocations back when the wall clock
//! jumps.

use std::sync::Arc;
use std::time::Duration;

use crate::core::clock_guard::GuardedClock;
use crate::core::context::{Core, Unsealed};
use crate::core::time_seen;
use crate::types::time::Ttl;

/// How often the clock is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the time is noted, in looks. A crash followed by a clock that is set back loses at most
/// this, and sealing or stopping loses nothing.
const NOTED_EVERY: u32 = 10;
/// Another node's note that is no older saves this node's.
const NOTE_SPARED: Ttl = Ttl::from_secs(5);

/// Watches for as long as it is let.
pub(super) async fn watch(core: Arc<Core>, unsealed: Arc<Unsealed>, clock: Arc<GuardedClock>) {
    let mut told = false;
    let mut looks = 0;
    loop {
        let mut jumped = false;
        let held = unsealed.leases.set_hold_for_clock(|| {
            let secs = clock.jump()?.as_secs();
            jumped = true;
            if !told {
                tracing::error!(ahead_secs = secs, "the clock jumped: revocations held");
            }
            Some(format!(
                "the wall clock jumped ahead by {secs} seconds: check it, then release the hold"
            ))
        });
        if let Err(error) = held.await {
            tracing::error!(%error, "the hold could not be stored");
        }
        told = jumped;
        if looks % NOTED_EVERY == 0
            && let Err(error) = time_seen::note(&unsealed, core.clock.now(), NOTE_SPARED).await
        {
            tracing::warn!(%error, reason = error.reason(), "the time was not noted");
        }
        looks = looks.wrapping_add(1);
        core.clock.sleep(LOOK_EVERY).await;
    }
}
