//! The latest time that the store has seen: no server on it begins earlier, whatever its clock says.

use serde::{Deserialize, Serialize};
use serde_json::json;

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

/// Sees to it that the core's time does not begin before what the store has seen; or, when an operator
/// says that the clock was wrong then, that the store forgets it. At unseal, before anything is answered
/// or revoked.
///
/// # Errors
/// When the store fails, or the audit does not take that the time was set back.
pub(in crate::core) async fn catch_up(core: &Core, unsealed: &Unsealed) -> Result<(), CoreError> {
    let Some(seen) = view(unsealed).get_fresh::<Seen>(NAME).await? else { return Ok(()) };
    let (now, latest) = (core.clock.now(), seen.value.latest);
    let behind = latest.millis_since(now);
    if behind > 0 && core.settings.trust_clock {
        let detail = json!({ "from": latest.to_rfc3339(), "to": now.to_rfc3339() });
        core.audit
            .record_event("time_set_back", &detail)
            .await
            .map_err(|error| CoreError::AuditUnavailable(Box::new(error)))?;
        tracing::warn!(behind_secs = behind / 1000, "time is set back, as the command line says");
        return view(unsealed).write(NAME, &Seen { latest: now }, Precondition::Any).await;
    }
    if behind > core.settings.clock_jump_max.as_millis() {
        tracing::error!(
            behind_secs = behind / 1000,
            "the clock is behind the time that the store has seen, which counts; if the clock was \
             wrong then and is right now, start once with --trust-clock"
        );
    }
    core.clock.raise_to(latest);
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
