//! How many messages each key has encrypted.
//!
//! A nonce of 96 random bits may repeat after some 2^32 messages (NIST SP 800-38D §8.3), and with it
//! everything is lost. So every node takes an allowance from the store before it encrypts, and uses it
//! up in memory. What is left of it when the node ends counts as used.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::record::used_name;
use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::core::view::Entry;
use crate::types::time::Ttl;

/// Messages of one allowance: a write in the store for each million.
pub(super) const ALLOWANCE: u64 = 1 << 20;
/// Most versions that allowances are kept for.
const KEPT_MAX: usize = 1 << 16;
/// How often an allowance is asked for while other nodes do so, too.
const ATTEMPTS: usize = 32;

/// How many messages may have been encrypted.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct UsedRecord {
    pub(super) messages: u64,
}

/// Why there is no allowance.
#[derive(Debug)]
pub(super) enum MeterError {
    /// The version has encrypted all that it may.
    Exhausted,
    Failed(CoreError),
}

impl From<CoreError> for MeterError {
    fn from(error: CoreError) -> Self {
        Self::Failed(error)
    }
}

#[derive(Default)]
struct Allowance {
    left: AtomicU64,
    asking: Mutex<()>,
}

impl Allowance {
    fn take(&self, count: u64) -> bool {
        let take = |left: u64| left.checked_sub(count);
        self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }
}

/// The allowances of this node. They hold no keys.
pub(super) struct Meter {
    allowances: Cache<(Arc<str>, u64), Arc<Allowance>>,
    allowance: u64,
}

impl Meter {
    /// With allowances of so many messages.
    pub(super) fn new(allowance: u64) -> Self {
        Self { allowances: Cache::new(KEPT_MAX), allowance }
    }

    /// Counts `count` messages that are about to be encrypted with a version that may encrypt `max`.
    pub(super) async fn take(
        &self,
        ctx: &EngineContext<'_>,
        id: &Arc<str>,
        version: u64,
        count: u64,
        max: u64,
    ) -> Result<(), MeterError> {
        let at = (id.clone(), version);
        let allowance = match self.allowances.get(&at) {
            Some(allowance) => allowance,
            None => {
                let fresh = || Ok::<_, CoreError>(Arc::default());
                self.allowances.get_or_insert_with(&at, fresh)?
            }
        };
        if allowance.take(count) {
            return Ok(());
        }
        let _asking = allowance.asking.lock().await;
        let left = allowance.left.swap(0, Ordering::AcqRel);
        let Some(missing) = count.checked_sub(left).filter(|missing| *missing > 0) else {
            // Somebody else has asked meanwhile.
            allowance.left.fetch_add(left - count, Ordering::AcqRel);
            return Ok(());
        };
        match self.ask(ctx, &used_name(id, version), missing, max).await {
            Ok(more) => {
                allowance.left.fetch_add(more - missing, Ordering::AcqRel);
                Ok(())
            }
            Err(error) => {
                allowance.left.fetch_add(left, Ordering::AcqRel);
                Err(error)
            }
        }
    }

    /// Takes an allowance of at least `count` from the store.
    async fn ask(
        &self,
        ctx: &EngineContext<'_>,
        record: &str,
        count: u64,
        max: u64,
    ) -> Result<u64, MeterError> {
        for _ in 0..ATTEMPTS {
            let found = ctx.view.get_fresh::<UsedRecord>(record).await?;
            let used = found.as_ref().map_or(0, |entry| entry.value.messages);
            let more = self.allowance.max(count).min(max.saturating_sub(used));
            if more < count {
                return Err(MeterError::Exhausted);
            }
            let after = UsedRecord { messages: used.saturating_add(more) };
            match ctx.view.write(record, &after, Entry::expected(found.as_ref())).await {
                Ok(()) => return Ok(more),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CoreError::Overloaded { retry_after: Ttl::from_secs(1) }.into())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::core::scratch::{Scratch, ScratchMount};

    #[tokio::test]
    async fn nodes_together_never_use_more_than_there_is() {
        let scratch = Scratch::new();
        let mounts = [ScratchMount::new(&scratch, "t/"), ScratchMount::new(&scratch, "t/")];
        let meters = [Meter::new(10), Meter::new(10)];
        let id: Arc<str> = Arc::from("id");
        let takes = (0..60usize).map(|n| {
            let (mount, meter, id) = (&mounts[n % 2], &meters[n % 2], &id);
            async move { meter.take(&mount.ctx(), id, 1, 1, 45).await }
        });
        let done = join_all(takes).await;
        assert_eq!(done.iter().filter(|taken| taken.is_ok()).count(), 45);
        let refused = done.into_iter().filter_map(Result::err);
        assert!(refused.into_iter().all(|error| matches!(error, MeterError::Exhausted)));
        let ctx = mounts[0].ctx();
        meters[0].take(&ctx, &id, 2, 30, 45).await.unwrap();
        let refused = meters[0].take(&ctx, &id, 2, 16, 45).await;
        assert!(matches!(refused, Err(MeterError::Exhausted)));
        meters[0].take(&ctx, &id, 2, 15, 45).await.unwrap();
        // What a node that ended had not used counts as used.
        meters[0].take(&ctx, &id, 3, 1, 45).await.unwrap();
        assert!(Meter::new(10).take(&ctx, &id, 3, 36, 45).await.is_err());
        Meter::new(10).take(&ctx, &id, 3, 35, 45).await.unwrap();
    }
}
