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
    if touched(kinds::MOUNTS) {
        unsealed.mounts.reload().await?;
    }
    for mounted in unsealed.mounts.all() {
        match &mounted.backend {
            Backend::Secret(engine) if touched(kinds::MOUNT_DATA) => engine.invalidate(),
            Backend::Auth(method) if touched(kinds::AUTH_DATA) => {
                method.invalidate();
                method.load(&mounted.context()).await?;
            }
            Backend::Secret(_) | Backend::Auth(_) => {}
        }
    }
    if touched(kinds::GROUP) {
        unsealed.identity.groups().forget();
    }
    let standings =
        [kinds::POLICY, kinds::ENTITY, kinds::ALIAS, kinds::GROUP, kinds::AUTH_DATA, kinds::MOUNTS];
    if standings.into_iter().any(touched) {
        unsealed.callers.forget();
    }
    if touched(kinds::QUOTA) {
        unsealed.quotas.load().await?;
    }
    if touched(kinds::SETTING) {
        unsealed.cors.reload().await?;
    }
    if touched(kinds::CORE) {
        unsealed.leases.load_hold().await?;
    }
    if touched(kinds::LEASE) {
        unsealed.leases.wake_sweep();
    }
    Ok(())
}
