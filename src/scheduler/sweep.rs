//! Takes back what is due: leases and tokens.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::core::context::{Core, Unsealed};
use crate::core::error::CoreError;
use crate::core::supervise::supervised;
use crate::types::time::{Timestamp, Ttl};

/// Longest time between two looks at what is due.
const LOOK_EVERY: Ttl = Ttl::from_secs(5);
/// Pause after the store failed.
const FAILED_PAUSE: Ttl = Ttl::from_secs(2);
/// Tokens ended in one round.
const TOKENS_AT_ONCE: usize = 256;

/// Sweeps leases until it is told to stop.
pub(super) async fn leases(core: Arc<Core>, unsealed: Arc<Unsealed>, stop: CancellationToken) {
    let leases = unsealed.leases.clone();
    tokio::select! {
        () = leases.run_sweep(stop) => {}
        () = supervised("operations", || resume_operations(&core, &unsealed)) => {}
    }
}

/// Takes up the bulk revocations that a crash, or a hold, broke off. Never completes.
async fn resume_operations(core: &Core, unsealed: &Unsealed) {
    let mut holds = unsealed.leases.hold_changes();
    loop {
        holds.mark_unchanged();
        if let Err(error) = unsealed.leases.resume_operations().await {
            failed(core, &error, "bulk revocations were not taken up again");
            core.clock.sleep(Duration::from(FAILED_PAUSE)).await;
            continue;
        }
        if holds.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Ends tokens for as long as it is let.
pub(super) async fn tokens(core: Arc<Core>, unsealed: Arc<Unsealed>) {
    loop {
        let next = match unsealed.tokens.sweep_due(core.node, TOKENS_AT_ONCE).await {
            Ok(swept) if swept.more && swept.ended > 0 => continue,
            Ok(_) => core.clock.now().plus(LOOK_EVERY),
            Err(error) => failed(&core, &error, "tokens could not be swept"),
        };
        core.clock.sleep_until(next).await;
    }
}

fn failed(core: &Core, error: &CoreError, what: &'static str) -> Timestamp {
    tracing::warn!(%error, reason = error.reason(), "{what}");
    core.clock.now().plus(FAILED_PAUSE)
}
