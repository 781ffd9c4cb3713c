//! Keeping up with the other nodes that share the store, and with what requests from before the last
//! seal still commit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;

use crate::core::context::{Core, Unsealed};
use crate::core::error::CoreError;
use crate::core::mount::Backend;
use crate::core::records::kinds;
use crate::storage::{Invalidation, Kind, RowKey};

/// Shortest and longest pause before what could not be taken over is tried again.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Forgets what others changed, for as long as it is let.
pub(super) async fn follow(core: Arc<Core>, unsealed: Arc<Unsealed>) {
    let (mut changes, mut late) = (core.storage.invalidations(), core.late_changes.subscribe());
    // What changed between unsealing and listening has not been heard of.
    let mut first = Some(Invalidation::Everything);
    let mut owed: Option<Owed> = None;
    loop {
        let change = match first.take() {
            Some(change) => Some(change),
            None => tokio::select! {
                heard = changes.recv() => match heard {
                    Ok(change) => Some(change),
                    // Too many to keep count of.
                    Err(RecvError::Lagged(_)) => Some(Invalidation::Everything),
                    Err(RecvError::Closed) => return,
                },
                heard = late.recv() => Some(heard.unwrap_or(Invalidation::Everything)),
                Some(()) = due(owed.as_ref()) => None,
            },
        };
        let mut touched = Touched::default();
        if let Some(change) = &change {
            unsealed.records.invalidate(change);
            touched.add(change, unsealed.mfa.turn_row());
        }
        let failures = match owed.take() {
            Some(before) => {
                touched.join(before.touched);
                before.failures
            }
            None => 0,
        };
        if let Err(error) = apply(&unsealed, &touched).await {
            metrics::counter!("leasehold_changes_not_taken_over_total").increment(1);
            let reason = error.reason();
            tracing::warn!(%error, reason, "another node's change was not taken over: once more soon");
            owed = Some(Owed { touched, failures: failures.saturating_add(1) });
        }
    }
}

/// What was changed elsewhere and could not be taken over.
struct Owed {
    touched: Touched,
    /// How often in a row.
    failures: u32,
}

/// Completes when it is time to try again; at once with nothing when there is nothing to try.
async fn due(owed: Option<&Owed>) -> Option<()> {
    let doublings = owed?.failures.saturating_sub(1).min(16);
    tokio::time::sleep(PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX)).await;
    Some(())
}

/// The kinds of records that were changed.
#[derive(Default)]
struct Touched {
    everything: bool,
    kinds: BTreeSet<Kind>,
    /// Of second factors only what is demanded: log-ins that wait and codes that are taken change no
    /// standing, and there are many of them.
    demands: bool,
}

impl Touched {
    /// `demands` is the row that every change of what is demanded of second factors touches.
    fn add(&mut self, change: &Invalidation, demands: RowKey) {
        match change {
            Invalidation::Rows(keys) => {
                self.kinds.extend(keys.iter().map(|key| key.kind));
                self.demands |= keys.contains(&demands);
            }
            Invalidation::Everything => (self.everything, self.demands) = (true, true),
        }
    }

    fn join(&mut self, other: Self) {
        self.everything |= other.everything;
        self.kinds.extend(other.kinds);
        self.demands |= other.demands;
    }

    fn has(&self, kind: Kind) -> bool {
        self.everything || self.kinds.contains(&kind)
    }
}

async fn apply(unsealed: &Unsealed, change: &Touched) -> Result<(), CoreError> {
    let touched = |kind: Kind| change.has(kind);
    let standings =
        [kinds::POLICY, kinds::ENTITY, kinds::ALIAS, kinds::GROUP, kinds::AUTH_DATA, kinds::MOUNTS];
    let stands_anew = change.demands || standings.into_iter().any(touched);
    // What cannot fail comes first, and what fails keeps nothing else from being taken over.
    if touched(kinds::GROUP) {
        unsealed.identity.groups().forget();
    }
    if change.demands {
        unsealed.mfa.forget();
    }
    if stands_anew {
        unsealed.callers.forget();
    }
    if touched(kinds::LEASE) {
        unsealed.leases.wake_sweep();
    }
    let mut outcome = Ok(());
    if touched(kinds::MOUNTS) {
        outcome = outcome.and(unsealed.mounts.reload().await);
    }
    for mounted in unsealed.mounts.all() {
        match &mounted.backend {
            Backend::Secret(engine) if touched(kinds::MOUNT_DATA) => engine.invalidate(),
            Backend::Auth(method) if touched(kinds::AUTH_DATA) => {
                method.invalidate();
                outcome = outcome.and(method.load(&mounted.context()).await);
            }
            Backend::Secret(_) | Backend::Auth(_) => {}
        }
    }
    // Who was judged meanwhile was judged by what the methods had before.
    if stands_anew {
        unsealed.callers.forget();
    }
    if touched(kinds::QUOTA) {
        outcome = outcome.and(unsealed.quotas.load().await);
    }
    if touched(kinds::SETTING) {
        outcome = outcome.and(unsealed.cors.reload().await);
        outcome = outcome.and(unsealed.ui_headers.reload().await);
    }
    if touched(kinds::CORE) {
        outcome = outcome.and(unsealed.leases.load_hold().await);
    }
    outcome
}
