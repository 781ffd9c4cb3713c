//! Takes back what is due: leases and tokens.

use std::sync::Arc;

use crate::core::context::{Core, Unsealed};
use crate::core::error::CoreError;
use crate::types::time::{Timestamp, Ttl};

/// Longest time between two looks at what is due. Covers what no signal tells of: rows that another
/// node had claimed and let go.
const LOOK_EVERY: Ttl = Ttl::from_secs(5);
/// Pause after the store failed.
const FAILED_PAUSE: Ttl = Ttl::from_secs(2);
/// Tokens ended in one round.
const TOKENS_AT_ONCE: usize = 256;

/// Sweeps leases for as long as it is let.
pub(super) async fn leases(core: Arc<Core>, unsealed: Arc<Unsealed>) {
    let leases = &unsealed.leases;
    if let Err(error) = leases.resume_operations().await {
        tracing::warn!(%error, reason = error.reason(), "bulk revocations were not taken up again");
    }
    loop {
        let next = match leases.sweep().await {
            Ok(report) if report.claimed > 0 => continue,
            Ok(_) => within(&core, leases.next_due().await),
            Err(error) => failed(&core, &error, "leases could not be swept"),
        };
        tokio::select! {
            () = core.clock.sleep_until(next) => {}
            () = leases.woken() => {}
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

/// When to look again: at the next due time, but not before a moment has passed (what is due already
/// is claimed or put off) and not after [`LOOK_EVERY`].
fn within(core: &Core, next_due: Result<Option<Timestamp>, CoreError>) -> Timestamp {
    let now = core.clock.now();
    let latest = now.plus(LOOK_EVERY);
    match next_due {
        Ok(Some(due)) if due > now => due.min(latest),
        Ok(_) => latest,
        Err(error) => failed(core, &error, "the next due lease is not known"),
    }
}

fn failed(core: &Core, error: &CoreError, what: &'static str) -> Timestamp {
    tracing::warn!(%error, reason = error.reason(), "{what}");
    core.clock.now().plus(FAILED_PAUSE)
}
