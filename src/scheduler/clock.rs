//! Watches over the clock: keeps the latest time in the store, and holds revocations back when the wall
//! clock jumps.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::clock_guard::GuardedClock;
use crate::core::context::{Core, Unsealed};
use crate::core::error::CoreError;
use crate::core::records::{Precondition, kinds};
use crate::core::view::View;
use crate::types::id::NamespaceId;
use crate::types::time::Timestamp;

const NAME: &str = "clock";
/// How often the clock is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the latest time is stored, in looks. A restart with a clock set back loses at most this.
const STORED_EVERY: u32 = 60;

#[derive(Serialize, Deserialize)]
struct Seen {
    latest: Timestamp,
}

/// Sees to it that time does not start before what the store has seen. Before anything is swept.
pub(super) async fn raise_to_stored(
    unsealed: &Unsealed,
    clock: &GuardedClock,
) -> Result<(), CoreError> {
    if let Some(seen) = view(unsealed).get_fresh::<Seen>(NAME).await? {
        clock.raise_to(seen.value.latest);
    }
    Ok(())
}

/// Watches for as long as it is let.
pub(super) async fn watch(core: Arc<Core>, unsealed: Arc<Unsealed>, clock: Arc<GuardedClock>) {
    let mut held_for_jump = false;
    let mut looks = 0;
    loop {
        if let Some(ahead) = clock.jump() {
            if !held_for_jump {
                held_for_jump = true;
                let reason = format!(
                    "the wall clock jumped ahead by {} seconds: check it, then release the hold",
                    ahead.as_secs()
                );
                tracing::error!(ahead_secs = ahead.as_secs(), "the clock jumped: revocations held");
                if let Err(error) = unsealed.leases.set_hold(reason).await {
                    tracing::error!(%error, "the hold could not be stored");
                }
            } else if unsealed.leases.hold().is_none() {
                // An administrator has looked and says that the clock is right.
                clock.accept();
                held_for_jump = false;
            }
        } else {
            held_for_jump = false;
        }
        if looks % STORED_EVERY == 0
            && let Err(error) = store(&unsealed, core.clock.now()).await
        {
            tracing::warn!(%error, reason = error.reason(), "the time was not stored");
        }
        looks = looks.wrapping_add(1);
        core.clock.sleep(LOOK_EVERY).await;
    }
}

async fn store(unsealed: &Unsealed, latest: Timestamp) -> Result<(), CoreError> {
    view(unsealed).write(NAME, &Seen { latest }, Precondition::Any).await
}

fn view(unsealed: &Unsealed) -> View {
    View::new(unsealed.records.clone(), NamespaceId::ROOT, kinds::CORE, String::new())
}
