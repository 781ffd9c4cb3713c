//! What only a look at the store can tell: how many leases live, and what is overdue.

use std::sync::Arc;
use std::time::Duration;

use crate::core::context::{Core, Unsealed};
use crate::core::error::CoreError;
use crate::core::lease::Selector;

const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Most overdue leases looked at for the age of the oldest; which they are is up to chance.
const OVERDUE_MAX: usize = 1000;

/// Keeps the gauges up to date for as long as it is let.
pub(super) async fn keep(core: Arc<Core>, unsealed: Arc<Unsealed>) {
    loop {
        if let Err(error) = look(&core, &unsealed).await {
            tracing::warn!(%error, reason = error.reason(), "the leases could not be counted");
        }
        core.clock.sleep(LOOK_EVERY).await;
    }
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
async fn look(core: &Core, unsealed: &Unsealed) -> Result<(), CoreError> {
    for mounted in unsealed.mounts.all() {
        let count = unsealed.leases.count(&mounted.entry.accessor, false).await?;
        let mount = mounted.entry.path.clone();
        metrics::gauge!("leasehold_leases_live", "mount" => mount).set(count as f64);
    }
    let overdue = unsealed.leases.count_overdue().await?;
    let (flagged, _) = unsealed.leases.search(&Selector::Overdue, None, OVERDUE_MAX).await?;
    let failing_since = flagged.iter().filter_map(|lease| lease.failing_since).min();
    let now = core.clock.now();
    // What is due and not even tried is late too: while a hold is in force, for instance.
    let due_since = unsealed.leases.next_due().await?.filter(|due| *due < now);
    let oldest = failing_since.into_iter().chain(due_since).min();
    let age_millis = oldest.map_or(0, |since| now.millis_since(since).max(0));
    metrics::gauge!("leasehold_leases_overdue").set(overdue as f64);
    metrics::gauge!("leasehold_lease_overdue_oldest_seconds").set(age_millis as f64 / 1000.0);
    Ok(())
}
