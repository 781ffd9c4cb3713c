//! How fast a client may be, and how far each has got: a token bucket for each, kept as one moment.
//!
//! A bucket is the moment at which it is full again. What has come to that moment says nothing that a
//! new bucket would not say, so it can be forgotten at no loss; that is what bounds the memory.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::types::time::Ttl;

/// Buckets kept at most, over all quotas.
const BUCKETS_MAX: usize = 131_072;
const SHARDS: usize = 16;
/// Forgetting goes through a whole shard, so not more often than this.
const FORGET_EVERY: Duration = Duration::from_secs(1);
/// The client that all stand for who find no room. No hash of a client is likely to be it.
const CROWD: u128 = u128::MAX;

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pace {
    /// After which time one more request is allowed, in nanoseconds.
    per_request: u64,
    /// Requests that a rested client can make at once.
    burst: u64,
    /// How long a client that went too far is kept out, in nanoseconds.
    block: u64,
}

impl Pace {
    /// `rate` requests in `interval`; who goes beyond is kept out for `block`.
    pub(super) fn new(rate: f64, interval: Ttl, block: Ttl) -> Self {
        let nanos = |ttl: Ttl| ttl.as_secs().saturating_mul(1_000_000_000);
        Self {
            per_request: ((nanos(interval) as f64 / rate) as u64).max(1),
            burst: (rate as u64).max(1),
            block: nanos(block),
        }
    }
}

/// Where a client stands with its quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Requests that a rested client can make at once.
    pub limit: u64,
    /// How many are left of them now.
    pub remaining: u64,
    /// When all of them are there again, from now.
    pub reset: Ttl,
    /// Whether answers that are no refusal tell it, too.
    pub told: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// When it is full again, in nanoseconds of the monotonic clock.
    full_at: u64,
    /// Until when its client is kept out.
    blocked_until: u64,
}

impl Bucket {
    fn is_fresh(&self, now: u64) -> bool {
        self.full_at <= now && self.blocked_until <= now
    }

    /// Takes one request; or says after how many nanoseconds there will be one.
    fn take(&mut self, pace: &Pace, now: u64) -> Result<(), u64> {
        if self.blocked_until > now {
            return Err(self.blocked_until - now);
        }
        let ahead = self.full_at.saturating_sub(now);
        let tolerated = pace.per_request.saturating_mul(pace.burst - 1);
        if ahead > tolerated {
            if pace.block > 0 {
                self.blocked_until = now.saturating_add(pace.block);
            }
            return Err(pace.block.max(ahead - tolerated));
        }
        self.full_at = self.full_at.max(now).saturating_add(pace.per_request);
        Ok(())
    }

    fn allowance(&self, pace: &Pace, now: u64, told: bool) -> Allowance {
        let ahead = self.full_at.saturating_sub(now);
        let left = pace.per_request.saturating_mul(pace.burst).saturating_sub(ahead);
        let blocked = self.blocked_until.saturating_sub(now);
        Allowance {
            limit: pace.burst,
            remaining: if blocked > 0 { 0 } else { left / pace.per_request },
            reset: seconds(ahead.max(blocked)),
            told,
        }
    }
}

fn seconds(nanos: u64) -> Ttl {
    Ttl::from_secs(nanos.div_ceil(1_000_000_000))
}

#[derive(Default)]
struct Shard {
    buckets: HashMap<(u64, u128), Bucket>,
    forgot_at: u64,
}

/// The buckets of all quotas and clients, on this node.
pub(super) struct Buckets {
    shards: Vec<Mutex<Shard>>,
    per_shard: usize,
    /// Two, so that nobody finds two clients of one hash.
    hashers: (RandomState, RandomState),
}

impl Default for Buckets {
    fn default() -> Self {
        Self::with_room(BUCKETS_MAX)
    }
}

impl Buckets {
    fn with_room(buckets: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            per_shard: buckets / SHARDS,
            hashers: (RandomState::new(), RandomState::new()),
        }
    }

    /// Takes one request of `client` under `quota`. The second part says after which time there will
    /// be one, when there is none now.
    pub(super) fn take(
        &self,
        quota: &str,
        pace: &Pace,
        client: &str,
        now: Duration,
        told: bool,
    ) -> (Allowance, Option<Ttl>) {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let one = self.hashers.0.hash_one(client);
        let both = (u128::from(one) << 64) | u128::from(self.hashers.1.hash_one(client));
        // A quota that was changed begins anew.
        let quota = self.hashers.0.hash_one((quota, pace));
        let index = usize::try_from(one % SHARDS as u64).unwrap_or(0);
        let Some(shard) = self.shards.get(index) else {
            return (Bucket::default().allowance(pace, now, told), None);
        };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let key = self.room_for(&mut shard, (quota, both), now);
        let bucket = shard.buckets.entry(key).or_default();
        let refused = bucket.take(pace, now).err();
        (bucket.allowance(pace, now, told), refused.map(seconds))
    }

    /// The key itself, or that of the crowd when there is no room for one more.
    fn room_for(&self, shard: &mut Shard, key: (u64, u128), now: u64) -> (u64, u128) {
        if shard.buckets.len() < self.per_shard || shard.buckets.contains_key(&key) {
            return key;
        }
        let pause = u64::try_from(FORGET_EVERY.as_nanos()).unwrap_or(u64::MAX);
        if now.saturating_sub(shard.forgot_at) >= pause {
            shard.buckets.retain(|_, bucket| !bucket.is_fresh(now));
            shard.forgot_at = now;
        }
        if shard.buckets.len() < self.per_shard { key } else { (key.0, CROWD) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn pace(rate: f64, interval: u64, block: u64) -> Pace {
        Pace::new(rate, Ttl::from_secs(interval), Ttl::from_secs(block))
    }

    fn granted(buckets: &Buckets, pace: &Pace, client: &str, now: Duration, tries: usize) -> usize {
        let take = || buckets.take("q", pace, client, now, false).1.is_none();
        (0..tries).filter(|_| take()).count()
    }

    #[test]
    fn a_rested_client_may_burst_and_then_goes_at_its_pace() {
        let (buckets, pace) = (Buckets::default(), pace(10.0, 1, 0));
        assert_eq!(granted(&buckets, &pace, "a", NOW, 100), 10);
        assert_eq!(granted(&buckets, &pace, "b", NOW, 3), 3, "another client has its own");
        assert_eq!(granted(&buckets, &pace, "a", NOW + Duration::from_millis(99), 5), 0);
        assert_eq!(granted(&buckets, &pace, "a", NOW + Duration::from_millis(350), 5), 3);
        assert_eq!(granted(&buckets, &pace, "a", NOW + Duration::from_secs(60), 100), 10);
    }

    #[test]
    fn an_allowance_counts_down_and_says_when_it_is_whole_again() {
        let (buckets, pace) = (Buckets::default(), pace(3.0, 60, 0));
        let take = |now| buckets.take("q", &pace, "a", now, true);
        let (first, refused) = take(NOW);
        let expected = Allowance { limit: 3, remaining: 2, reset: Ttl::from_secs(20), told: true };
        assert_eq!((first, refused), (expected, None));
        take(NOW);
        assert_eq!(take(NOW).0.remaining, 0);
        assert_eq!(take(NOW).1, Some(Ttl::from_secs(20)));
        assert_eq!(take(NOW + Duration::from_secs(19)).1, Some(Ttl::from_secs(1)));
        assert_eq!(take(NOW + Duration::from_secs(20)).1, None);
    }

    #[test]
    fn less_than_one_request_in_an_interval_is_one_in_several() {
        let (buckets, pace) = (Buckets::default(), pace(0.1, 1, 0));
        assert_eq!(granted(&buckets, &pace, "a", NOW, 9), 1);
        assert_eq!(granted(&buckets, &pace, "a", NOW + Duration::from_secs(9), 9), 0);
        assert_eq!(granted(&buckets, &pace, "a", NOW + Duration::from_secs(10), 9), 1);
    }

    #[test]
    fn who_goes_too_far_is_kept_out_and_not_for_longer_by_trying() {
        let (buckets, pace) = (Buckets::default(), pace(2.0, 1, 30));
        assert_eq!(granted(&buckets, &pace, "a", NOW, 3), 2);
        for second in 1..30 {
            let at = NOW + Duration::from_secs(second);
            let (allowance, refused) = buckets.take("q", &pace, "a", at, false);
            assert_eq!(refused, Some(Ttl::from_secs(30 - second)));
            assert_eq!(allowance.remaining, 0);
        }
        assert_eq!(granted(&buckets, &pace, "a", NOW + Duration::from_secs(30), 3), 2);
    }

    #[test]
    fn parallel_requests_get_no_more_than_one_after_the_other() {
        let (buckets, pace) = (Buckets::default(), pace(50.0, 60, 0));
        let total: usize = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| granted(&buckets, &pace, "a", NOW, 100))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(total, 50);
    }

    #[test]
    fn memory_is_bounded_and_pushing_others_out_gains_nothing() {
        let (buckets, pace) = (Buckets::with_room(SHARDS * 8), pace(1.0, 3600, 0));
        assert_eq!(granted(&buckets, &pace, "first", NOW, 2), 1);
        let new: usize =
            (0..10_000).map(|n| granted(&buckets, &pace, &format!("c{n}"), NOW, 1)).sum();
        // As many as there is room for, and one for the crowd of each shard.
        assert!(new <= SHARDS * 9, "{new}");
        let kept: usize =
            buckets.shards.iter().map(|shard| shard.lock().unwrap().buckets.len()).sum();
        assert!(kept <= SHARDS * 9, "{kept}");
        assert_eq!(granted(&buckets, &pace, "first", NOW, 2), 0, "it was not forgotten");
        // Those that have rested make room.
        let later = NOW + Duration::from_secs(3600);
        let new: usize =
            (0..10_000).map(|n| granted(&buckets, &pace, &format!("l{n}"), later, 1)).sum();
        assert!((SHARDS * 8..=SHARDS * 9).contains(&new), "{new}");
        let kept: usize =
            buckets.shards.iter().map(|shard| shard.lock().unwrap().buckets.len()).sum();
        assert!(kept <= SHARDS * 9, "{kept}");
    }
}
