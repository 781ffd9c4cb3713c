//! What is due: rotations, and the removal of what deleted keys left.

use std::sync::PoisonError;

use super::TransitEngine;
use super::keys::remove_gone;
use super::record::{GONE, GoneRecord, KeyRecord, ROTATING, gone_name, key_name, rotating_name};
use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::types::time::{Timestamp, Ttl};

/// Longest time between two looks: changes that were not heard of are found then.
const LOOK_AFTER: Ttl = Ttl::from_secs(60);

impl TransitEngine {
    /// Something may be due that was not before.
    pub(super) fn look_again(&self) {
        *self.next_look.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Does what is due.
    pub(super) async fn run_due(
        &self,
        ctx: &EngineContext<'_>,
    ) -> Result<Option<Timestamp>, CoreError> {
        let now = ctx.clock.now();
        let mut next = now.plus(LOOK_AFTER);
        {
            let mut look = self.next_look.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = *look
                && now < at
                // A clock that was set back must not keep what is due waiting.
                && at <= next
            {
                return Ok(Some(at));
            }
            // Before looking, so that what changes meanwhile is looked at again.
            *look = Some(next);
        }
        self.remove_due(ctx, now).await?;
        for name in ctx.view.list(ROTATING).await? {
            match self.rotate_if_due(ctx, &name, now).await {
                Ok(Some(due)) => next = next.min(due),
                Ok(None) => {}
                Err(error) => {
                    let reason = error.reason();
                    tracing::warn!(key = %name, %error, reason, "a key was not rotated");
                }
            }
        }
        let mut look = self.next_look.lock().unwrap_or_else(PoisonError::into_inner);
        if look.is_some() {
            *look = Some(next.max(now.plus(Ttl::from_secs(1))));
        }
        Ok(Some(next))
    }

    async fn remove_due(&self, ctx: &EngineContext<'_>, now: Timestamp) -> Result<(), CoreError> {
        for id in ctx.view.list(GONE).await? {
            let gone = ctx.view.get::<GoneRecord>(&gone_name(&id)).await?;
            if gone.is_some_and(|gone| gone.value.after <= now) {
                remove_gone(ctx, &id).await?;
            }
        }
        Ok(())
    }

    /// Rotates a key whose time has come. When the next rotation is due, if ever.
    async fn rotate_if_due(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, CoreError> {
        let Some(key) = ctx.view.get_fresh::<KeyRecord>(&key_name(name)?).await? else {
            ctx.view.remove(&rotating_name(name)).await?;
            return Ok(None);
        };
        let key = key.value;
        if key.auto_rotate_period.is_zero() || key.soft_deleted {
            return Ok(None);
        }
        let due = key.latest_at.plus(key.auto_rotate_period);
        if due > now {
            return Ok(Some(due));
        }
        self.add_version(ctx, name, Some(key.latest_version)).await?;
        tracing::info!(key = %name, after = key.latest_version, "rotated a key");
        Ok(Some(now.plus(key.auto_rotate_period)))
    }
}
