//! Keeping up with the other nodes that share the store.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;

use crate::core::context::{Core, Unsealed};
use crate::core::error::CoreError;
use crate::core::mount::Backend;
use crate::core::records::kinds;
use crate::storage::{Invalidation, Kind};

/// Forgets what other nodes changed, for as long as it is let.
pub(super) async fn follow(core: Arc<Core>, unsealed: Arc<Unsealed>) {
    let mut changes = core.storage.invalidations();
    // What changed between unsealing and listening has not been heard of.
    let mut first = Some(Invalidation::Everything);
    loop {
        let change = match first.take() {
            Some(change) => change,
            None => match changes.recv().await {
                Ok(change) => change,
                // Too many to keep count of.
                Err(RecvError::Lagged(_)) => Invalidation::Everything,
                Err(RecvError::Closed) => return,
            },
        };
        unsealed.records.invalidate(&change);
        if let Err(error) = apply(&unsealed, &change).await {
            tracing::warn!(%error, reason = error.reason(), "another node's change was not taken over");
        }
    }
}

async fn apply(unsealed: &Unsealed, change: &Invalidation) -> Result<(), CoreError> {
    let kinds_changed: Option<BTreeSet<Kind>> = match change {
        Invalidation::Rows(keys) => Some(keys.iter().map(|key| key.kind).collect()),
        Invalidation::Everything => None,
    };
    let touched = |kind: Kind| kinds_changed.as_ref().is_none_or(|set| set.contains(&kind));
    // Of second factors only what is demanded: log-ins that wait and codes that are taken change no
    // standing, and there are many of them.
    let demands_changed = match change {
        Invalidation::Rows(keys) => keys.contains(&unsealed.mfa.turn_row()),
        Invalidation::Everything => true,
    };
    let standings =
        [kinds::POLICY, kinds::ENTITY, kinds::ALIAS, kinds::GROUP, kinds::AUTH_DATA, kinds::MOUNTS];
    let stands_anew = demands_changed || standings.into_iter().any(touched);
    // What cannot fail comes first, and what fails keeps nothing else from being taken over.
    if touched(kinds::GROUP) {
        unsealed.identity.groups().forget();
    }
    if demands_changed {
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
