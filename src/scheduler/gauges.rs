//! What only a look at the store can tell: how many leases live, and what is overdue.

use std::sync::Arc;
use std::time::Duration;

use crate::core::context::{Core, Unsealed};
use crate::core::error::CoreError;
use crate::core::lease::Selector;
use crate::core::trust::CrlOrigin;
use crate::types::id::MountAccessor;

const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Most overdue leases looked at for the age of the oldest; which they are is up to chance.
const OVERDUE_MAX: usize = 1000;

/// Keeps the gauges up to date for as long as it is let.
pub(super) async fn keep(core: Arc<Core>, unsealed: Arc<Unsealed>) {
    loop {
        look_at_lists(&core, &unsealed);
        if let Err(error) = look(&core, &unsealed).await {
            tracing::warn!(%error, reason = error.reason(), "the leases could not be counted");
        }
        core.clock.sleep(LOOK_EVERY).await;
    }
}

/// How current the revocation lists are.
#[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
fn look_at_lists(core: &Core, unsealed: &Unsealed) {
    for age in core.trust.crl_ages(core.clock.now()) {
        let source = match age.origin {
            CrlOrigin::Bundle(name) => name,
            CrlOrigin::Mount(accessor) => {
                let mounted = unsealed.mounts.by_accessor(&MountAccessor::new(accessor));
                mounted.map_or_else(String::new, |mounted| mounted.entry.path.clone())
            }
        };
        metrics::gauge!("leasehold_crl_age_seconds", "source" => source.clone())
            .set(age.oldest_millis as f64 / 1000.0);
        metrics::gauge!("leasehold_crls_expired", "source" => source).set(f64::from(age.expired));
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
