//! The mounts' own schedules: static roles to rotate, lists to fetch.

use std::sync::Arc;

use crate::core::context::{Core, Unsealed};
use crate::core::error::CoreError;
use crate::core::mount::{Backend, Mounted};
use crate::types::time::{Timestamp, Ttl};

/// Longest time between two looks: also how soon a changed schedule is noticed.
const LOOK_EVERY: Ttl = Ttl::from_secs(5);
/// Shortest, so that a mount that always wants to be called at once does not spin.
const LOOK_LEAST_MILLIS: i64 = 250;

/// Ticks every mount when it is due, for as long as it is let.
pub(super) async fn mounts(core: Arc<Core>, unsealed: Arc<Unsealed>) {
    loop {
        let now = core.clock.now();
        let mut next = now.plus(LOOK_EVERY);
        for mounted in unsealed.mounts.all() {
            match tick(&mounted).await {
                Ok(Some(wanted)) => next = next.min(wanted),
                Ok(None) => {}
                Err(error) => {
                    let mount = &mounted.entry.path;
                    tracing::warn!(mount, %error, reason = error.reason(), "scheduled work failed");
                    metrics::counter!("leasehold_tick_failures_total", "mount" => mount.clone())
                        .increment(1);
                }
            }
        }
        core.clock.sleep_until(next.max(earliest(now))).await;
    }
}

fn earliest(now: Timestamp) -> Timestamp {
    now.plus_millis(LOOK_LEAST_MILLIS)
}

async fn tick(mounted: &Mounted) -> Result<Option<Timestamp>, CoreError> {
    match &mounted.backend {
        Backend::Auth(method) => method.tick(&mounted.context()).await,
        Backend::Secret(engine) => engine.tick(&mounted.context()).await,
    }
}
