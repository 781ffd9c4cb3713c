//! A clock that a wrong wall clock cannot fool.
//!
//! A wall clock that is set back would prolong every lease; one that jumps ahead would end them all at
//! once. So time goes on as the monotonic clock says, follows the wall clock ahead by small steps
//! only, and a large jump is reported and not followed until an administrator has looked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::types::time::{Clock, Timestamp, Ttl};

/// Longest sleep before the wall clock is looked at again.
const SLEEP_MAX: Duration = Duration::from_secs(5);

/// Time that never goes back and never jumps.
pub struct GuardedClock {
    inner: Arc<dyn Clock>,
    /// What has to be added to the monotonic clock, in milliseconds. Only grows.
    offset: AtomicI64,
    jump_max_millis: i64,
    jumped: AtomicBool,
}

impl GuardedClock {
    /// Starts at the wall clock of `inner`. It may run ahead of its monotonic clock by `jump_max` at
    /// once.
    pub fn new(inner: Arc<dyn Clock>, jump_max: Ttl) -> Self {
        let offset = AtomicI64::new(inner.now().as_millis() - millis(inner.monotonic()));
        let jump_max_millis = jump_max.as_millis();
        Self { inner, offset, jump_max_millis, jumped: AtomicBool::new(false) }
    }

    /// How far the wall clock is ahead of this one, while that is more than is followed.
    pub fn jump(&self) -> Option<Ttl> {
        let ahead = self.inner.now().millis_since(self.steady());
        (ahead > self.jump_max_millis)
            .then(|| Ttl::from_secs(u64::try_from(ahead / 1000).unwrap_or(0)))
    }

    /// Whether a jump was reported since the last time this was asked.
    pub fn take_jump(&self) -> bool {
        self.jumped.swap(false, Ordering::AcqRel)
    }

    /// Follows the wall clock, however far ahead it is: an administrator says that it is right.
    pub fn accept(&self) {
        let ahead = self.inner.now().millis_since(self.steady());
        self.offset.fetch_add(ahead.max(0), Ordering::AcqRel);
    }

    /// Goes on from `floor` at the earliest: the time that the store has seen already.
    pub fn raise_to(&self, floor: Timestamp) {
        let behind = floor.millis_since(self.steady());
        self.offset.fetch_add(behind.max(0), Ordering::AcqRel);
    }

    fn steady(&self) -> Timestamp {
        let offset = self.offset.load(Ordering::Acquire);
        Timestamp::from_millis(millis(self.inner.monotonic()).saturating_add(offset))
    }
}

impl Clock for GuardedClock {
    fn now(&self) -> Timestamp {
        let offset = self.offset.load(Ordering::Acquire);
        let steady = Timestamp::from_millis(millis(self.inner.monotonic()).saturating_add(offset));
        let ahead = self.inner.now().millis_since(steady);
        if ahead <= 0 {
            return steady;
        }
        if ahead > self.jump_max_millis {
            if !self.jumped.swap(true, Ordering::AcqRel) {
                metrics::counter!("leasehold_clock_jumps_total").increment(1);
            }
            return steady;
        }
        self.offset.fetch_max(offset.saturating_add(ahead), Ordering::AcqRel);
        steady.plus_millis(ahead)
    }

    fn monotonic(&self) -> Duration {
        self.inner.monotonic()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'_, ()> {
        self.inner.sleep(time)
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            loop {
                let left = at.millis_since(self.now());
                let Ok(left) = u64::try_from(left) else { return };
                if left == 0 {
                    return;
                }
                self.inner.sleep(Duration::from_millis(left).min(SLEEP_MAX)).await;
            }
        })
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::time::ManualClock;
    use proptest::prelude::*;

    const START: Timestamp = Timestamp::from_secs(1_000_000);

    fn guarded() -> (Arc<ManualClock>, GuardedClock) {
        let inner = Arc::new(ManualClock::new(START));
        let clock = GuardedClock::new(inner.clone(), Ttl::from_secs(3600));
        (inner, clock)
    }

    #[test]
    fn a_wall_clock_set_back_stops_nothing() {
        let (inner, clock) = guarded();
        inner.set_wall(Timestamp::from_secs(500_000));
        assert_eq!(clock.now(), START);
        inner.advance(Duration::from_secs(10));
        assert_eq!(clock.now(), START.plus(Ttl::from_secs(10)));
        assert_eq!(clock.jump(), None);
    }

    #[test]
    fn small_steps_ahead_are_followed_and_kept() {
        let (inner, clock) = guarded();
        inner.set_wall(START.plus(Ttl::from_secs(60)));
        assert_eq!(clock.now(), START.plus(Ttl::from_secs(60)));
        inner.set_wall(START);
        assert_eq!(clock.now(), START.plus(Ttl::from_secs(60)));
    }

    #[test]
    fn a_jump_is_reported_and_followed_only_when_accepted() {
        let (inner, clock) = guarded();
        let far = START.plus(Ttl::from_secs(86_400));
        inner.set_wall(far);
        assert_eq!(clock.now(), START);
        assert_eq!(clock.jump(), Some(Ttl::from_secs(86_400)));
        assert!(clock.take_jump());
        assert!(!clock.take_jump());
        inner.advance(Duration::from_secs(5));
        assert_eq!(clock.now(), START.plus(Ttl::from_secs(5)));
        clock.accept();
        assert_eq!(clock.now(), far.plus(Ttl::from_secs(5)));
        assert_eq!(clock.jump(), None);
    }

    #[test]
    fn the_floor_holds_after_a_restart_with_a_clock_set_back() {
        let (inner, clock) = guarded();
        let seen = START.plus(Ttl::from_secs(500));
        clock.raise_to(seen);
        assert_eq!(clock.now(), seen);
        inner.advance(Duration::from_secs(1));
        assert_eq!(clock.now(), seen.plus(Ttl::from_secs(1)));
        clock.raise_to(START);
        assert_eq!(clock.now(), seen.plus(Ttl::from_secs(1)));
    }

    #[tokio::test]
    async fn sleepers_wake_by_monotonic_time_although_the_wall_was_set_back() {
        let (inner, clock) = guarded();
        let clock = Arc::new(clock);
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep_until(START.plus(Ttl::from_secs(3))).await }
        });
        tokio::task::yield_now().await;
        inner.set_wall(Timestamp::from_secs(1));
        inner.advance(Duration::from_secs(3));
        sleeper.await.unwrap();
    }

    proptest! {
        #[test]
        fn time_never_goes_back_nor_faster_than_allowed(
            steps in proptest::collection::vec((-10_000_000_i64..10_000_000, 0_u64..100_000), 1..40)
        ) {
            let (inner, clock) = guarded();
            let mut last = clock.now();
            for (wall, passed) in steps {
                inner.set_wall(START.plus_millis(wall));
                inner.advance(Duration::from_millis(passed));
                let now = clock.now();
                prop_assert!(now >= last);
                let most = last.plus_millis(i64::try_from(passed).unwrap() + 3_600_000);
                prop_assert!(now <= most, "{now} after {last}");
                last = now;
            }
        }
    }
}
