//! A clock that a wrong wall clock cannot fool.
//!
//! A wall clock that is set back would prolong every lease; one that jumps ahead would end them all at
//! once. So time goes on as the monotonic clock says, follows the wall clock ahead by small steps
//! only, and a large jump is reported and not followed until an administrator has looked. Small steps
//! use up an allowance that comes back slowly: many of them are a jump too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::types::time::{Clock, Timestamp, Ttl};

/// Longest sleep before the wall clock is looked at again.
const SLEEP_MAX: Duration = Duration::from_secs(5);
/// How much time has to pass for each step ahead to be forgotten, in times of the step.
const FORGOTTEN_AFTER: i64 = 24;

/// Time that never goes back and never jumps.
pub struct GuardedClock {
    inner: Arc<dyn Clock>,
    jump_max_millis: i64,
    state: Mutex<State>,
}

#[derive(Clone, Copy)]
struct State {
    /// What has to be added to the monotonic clock, in milliseconds. Only grows.
    offset: i64,
    /// How far steps of the wall clock were followed lately, in milliseconds.
    followed: i64,
    /// When that was last reckoned, on the monotonic clock, in milliseconds.
    reckoned_at: i64,
    /// Whether the jump that is not followed was counted.
    counted: bool,
    /// How far ahead it was when somebody was told of it, in milliseconds.
    told: Option<i64>,
}

impl GuardedClock {
    /// Starts at the wall clock of `inner`. It may run ahead of its monotonic clock by `jump_max`.
    pub fn new(inner: Arc<dyn Clock>, jump_max: Ttl) -> Self {
        let wall = inner.now();
        let reckoned_at = millis(inner.monotonic());
        let offset = wall.as_millis().saturating_sub(reckoned_at);
        let state = State { offset, followed: 0, reckoned_at, counted: false, told: None };
        Self { inner, jump_max_millis: jump_max.as_millis(), state: Mutex::new(state) }
    }

    /// How far the wall clock is ahead of this one, while that is more than is followed.
    pub fn jump(&self) -> Option<Ttl> {
        let (_, ahead) = self.read(&mut self.state());
        (ahead > 0).then(|| Ttl::from_secs(u64::try_from(ahead / 1000).unwrap_or(0)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time, and how far the wall clock is ahead of it without being followed.
    fn read(&self, state: &mut State) -> (Timestamp, i64) {
        // The wall clock first: whoever is interrupted between the two must not take the time that
        // passes there for a step ahead.
        let wall = self.inner.now();
        let monotonic = millis(self.inner.monotonic());
        let steady = Timestamp::from_millis(monotonic.saturating_add(state.offset));
        let ahead = wall.millis_since(steady);
        if ahead <= 0 {
            (state.counted, state.told) = (false, None);
            return (steady, 0);
        }
        let passed = monotonic.saturating_sub(state.reckoned_at).max(0);
        let followed = state.followed.saturating_sub(passed / FORGOTTEN_AFTER).max(0);
        if followed.saturating_add(ahead) > self.jump_max_millis {
            if !std::mem::replace(&mut state.counted, true) {
                metrics::counter!("leasehold_clock_jumps_total").increment(1);
            }
            return (steady, ahead);
        }
        *state = State {
            offset: state.offset.saturating_add(ahead),
            followed: followed.saturating_add(ahead),
            reckoned_at: monotonic,
            counted: false,
            told: None,
        };
        (steady.plus_millis(ahead), 0)
    }
}

impl Clock for GuardedClock {
    fn now(&self) -> Timestamp {
        self.read(&mut self.state()).0
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

    fn raise_to(&self, floor: Timestamp) {
        let mut state = self.state();
        let (now, _) = self.read(&mut state);
        state.offset = state.offset.saturating_add(floor.millis_since(now).max(0));
    }

    /// What was told of a jump before stays.
    fn jump_is_told(&self) {
        let mut state = self.state();
        let (_, ahead) = self.read(&mut state);
        if ahead > 0 {
            state.told.get_or_insert(ahead);
        }
    }

    fn accept_jump(&self) {
        let mut state = self.state();
        let (_, ahead) = self.read(&mut state);
        // No further than was said, but for what would be followed anyway.
        let known = |told: i64| ahead <= told.saturating_add(self.jump_max_millis);
        if state.told.take().is_some_and(known) {
            let offset = state.offset.saturating_add(ahead);
            *state = State { offset, followed: 0, counted: false, ..*state };
        }
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
        // Nobody was told of it, so that nobody can have meant it.
        clock.accept_jump();
        assert_eq!(clock.now(), START);
        assert_eq!(clock.jump(), Some(Ttl::from_secs(86_400)));
        clock.jump_is_told();
        inner.advance(Duration::from_secs(5));
        assert_eq!(clock.now(), START.plus(Ttl::from_secs(5)));
        clock.accept_jump();
        assert_eq!(clock.now(), far.plus(Ttl::from_secs(5)));
        assert_eq!(clock.jump(), None);
    }

    #[test]
    fn what_was_said_of_a_jump_that_ended_is_not_said_of_the_next() {
        let (inner, clock) = guarded();
        inner.set_wall(START.plus(Ttl::from_secs(86_400)));
        clock.jump_is_told();
        inner.set_wall(START);
        assert_eq!(clock.jump(), None);
        inner.set_wall(START.plus(Ttl::from_secs(7200)));
        clock.accept_jump();
        assert_eq!((clock.now(), clock.jump()), (START, Some(Ttl::from_secs(7200))));
    }

    #[test]
    fn a_jump_is_accepted_no_further_than_was_told() {
        let (inner, clock) = guarded();
        inner.set_wall(START.plus(Ttl::from_secs(7200)));
        clock.jump_is_told();
        let years = START.plus(Ttl::from_secs(300_000_000));
        inner.set_wall(years);
        // Told once more, of which nobody reads the new number.
        clock.jump_is_told();
        clock.accept_jump();
        assert_eq!(clock.now(), START);
        clock.jump_is_told();
        clock.accept_jump();
        assert_eq!(clock.now(), years);
    }

    #[test]
    fn many_small_steps_are_a_jump_and_few_over_a_long_time_are_not() {
        let (inner, clock) = guarded();
        let step = |secs: u64| inner.set_wall(inner.now().plus(Ttl::from_secs(secs)));
        step(1800);
        assert_eq!(clock.now(), START.plus(Ttl::from_secs(1800)));
        step(1700);
        assert_eq!(clock.now(), START.plus(Ttl::from_secs(3500)));
        step(200);
        assert_eq!(clock.now(), START.plus(Ttl::from_secs(3500)));
        assert_eq!(clock.jump(), Some(Ttl::from_secs(200)));
        // Half a day later, half of it is forgotten.
        inner.advance(Duration::from_secs(12 * 3600));
        assert_eq!(clock.jump(), None);
        assert_eq!(clock.now(), inner.now());
        step(3000);
        assert_eq!(clock.jump(), Some(Ttl::from_secs(3000)));
    }

    #[test]
    fn a_wall_clock_that_is_put_right_again_is_no_jump_any_more() {
        let (inner, clock) = guarded();
        inner.set_wall(START.plus(Ttl::from_secs(86_400)));
        assert!(clock.jump().is_some());
        inner.set_wall(START);
        assert_eq!((clock.jump(), clock.now()), (None, START));
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

    /// A machine on which time passes between any two looks at its clocks.
    struct Interrupted(Arc<ManualClock>);

    impl Clock for Interrupted {
        fn now(&self) -> Timestamp {
            let now = self.0.now();
            self.0.advance(Duration::from_secs(7200));
            now
        }
        fn monotonic(&self) -> Duration {
            let time = self.0.monotonic();
            self.0.advance(Duration::from_secs(7200));
            time
        }
        fn sleep(&self, time: Duration) -> BoxFuture<'_, ()> {
            self.0.sleep(time)
        }
        fn sleep_until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
            self.0.sleep_until(at)
        }
    }

    #[test]
    fn time_that_passes_while_the_clocks_are_read_is_no_jump() {
        let inner = Arc::new(ManualClock::new(START));
        let clock = GuardedClock::new(Arc::new(Interrupted(inner)), Ttl::from_secs(3600));
        for _ in 0..5 {
            let before = clock.now();
            assert_eq!(clock.jump(), None);
            assert!(clock.now() > before);
        }
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
            let (mut last, mut passed) = (clock.now(), 0);
            for (wall, pause) in steps {
                inner.set_wall(START.plus_millis(wall));
                inner.advance(Duration::from_millis(pause));
                passed += i64::try_from(pause).unwrap();
                let now = clock.now();
                prop_assert!(now.millis_since(last) >= i64::try_from(pause).unwrap());
                // However the wall clock goes, in one step or in many.
                let most = passed + passed / FORGOTTEN_AFTER + 3_600_000;
                prop_assert!(now.millis_since(START) <= most, "{now}");
                last = now;
            }
        }
    }
}
