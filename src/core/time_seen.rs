//! The latest time that the store has seen: no server on it begins earlier, whatever its clock says.

use serde::{Deserialize, Serialize};

use crate::storage::StorageError;
use crate::types::id::NamespaceId;
use crate::types::time::{Timestamp, Ttl};

use super::context::{Core, Unsealed};
use super::error::CoreError;
use super::records::{Precondition, kinds};
use super::view::View;

const NAME: &str = "clock";

#[derive(Serialize, Deserialize)]
struct Seen {
    latest: Timestamp,
}

/// Sees to it that the core's time does not begin before what the store has seen. At unseal, before
/// anything is answered or revoked.
///
/// # Errors
/// When the store fails.
pub(in crate::core) async fn catch_up(core: &Core, unsealed: &Unsealed) -> Result<(), CoreError> {
    if let Some(seen) = view(unsealed).get_fresh::<Seen>(NAME).await? {
        let behind = seen.value.latest.millis_since(core.clock.now());
        if behind > core.settings.clock_jump_max.as_millis() {
            tracing::error!(
                behind_secs = behind / 1000,
                "the wall clock is behind the time that the store has seen, which counts"
            );
        }
        core.clock.raise_to(seen.value.latest);
    }
    Ok(())
}

/// Notes that it is `now`, unless the store has seen that by less than `spared`. Never goes back.
///
/// # Errors
/// When the store fails.
pub async fn note(unsealed: &Unsealed, now: Timestamp, spared: Ttl) -> Result<(), CoreError> {
    let view = view(unsealed);
    let found = view.get_fresh::<Seen>(NAME).await?;
    let precondition = match found {
        None => Precondition::Absent,
        Some(seen) if now.millis_since(seen.value.latest) <= spared.as_millis() => return Ok(()),
        Some(seen) => Precondition::Rev(seen.rev),
    };
    match view.write(NAME, &Seen { latest: now }, precondition).await {
        // Another node has just noted its own.
        Err(CoreError::Storage(StorageError::Conflict)) => Ok(()),
        other => other,
    }
}

fn view(unsealed: &Unsealed) -> View {
    View::new(unsealed.records.clone(), NamespaceId::ROOT, kinds::CORE, String::new())
}
