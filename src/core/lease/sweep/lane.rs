//! Lanes: the claimed leases of one target, waiting for their turn.

use std::collections::VecDeque;
use std::time::Duration;

use crate::types::time::{Clock, Timestamp};

use super::super::super::error::CoreError;
use super::super::super::supervise::contained;
use super::super::super::view::Entry;
use super::super::Lease;
use super::super::breaker::Admission;
use super::settle::{Fate, Settled};
use super::{Killed, Sweep, WINDOW};

/// How long an entry waits in a lane that moves. Then it is put back, so that its claim never ends
/// while it is in hand.
const WAIT_MAX: Duration = Duration::from_secs(20);
/// How long a lane may stand still before its entries make room for those of others.
const STILL_MAX: Duration = Duration::from_secs(2);
/// Entries that a lane which stands still keeps, to go on with once it moves.
const QUEUE_MIN: usize = 16;
/// How far apart the leases are put back for later that a slow target holds up.
const SPREAD_MILLIS: i64 = 100;
/// Most time that they are spread over.
const SPREAD_MILLIS_MAX: i64 = 300_000;
/// Least time until they come back.
const BACK_MILLIS_MIN: i64 = 5_000;
/// Slices of a second that the rate is kept in.
const SLICES_PER_SEC: u32 = 20;
const SLICE: Duration = Duration::from_millis(50);
const _: () = assert!(SLICE.as_millis() * SLICES_PER_SEC as u128 == 1000);

/// One target's queue.
#[derive(Default)]
pub(super) struct Lane {
    queue: VecDeque<(Entry<Lease>, Duration)>,
    running: usize,
    /// When a revocation last began or ended, on the monotonic clock.
    moved: Duration,
    /// Leases that were put back since the lane last stood still.
    put_back: i64,
    /// Whether it is among [`Sweep::turns`].
    has_turn: bool,
}

impl Lane {
    /// One of its revocations has ended.
    pub(super) fn ended(&mut self, monotonic: Duration) {
        self.moved = monotonic;
        self.running = self.running.saturating_sub(1);
        self.put_back = 0;
    }

    /// Takes out everything that waits.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Entry<Lease>> {
        self.queue.drain(..).map(|(entry, _)| entry)
    }
}

/// Keeps the configured rate: so many in each slice of a second.
pub(super) struct Pace {
    per_sec: u32,
    left: u32,
    /// What a slice has left over for the next, in parts of one of `SLICES_PER_SEC`.
    rest: u32,
    /// When the slice is over, on the monotonic clock; `None` before its first one.
    over_at: Option<Duration>,
}

impl Pace {
    pub(super) fn new(per_sec: u32) -> Self {
        let per_sec = per_sec.max(1);
        Self { per_sec, left: per_sec.div_ceil(SLICES_PER_SEC), rest: 0, over_at: None }
    }

    fn is_spent(&self) -> bool {
        self.left == 0
    }

    fn take(&mut self, now: Duration) {
        self.left = self.left.saturating_sub(1);
        self.over_at.get_or_insert(now.saturating_add(SLICE));
    }

    /// Completes when more may be taken; never while nothing was.
    pub(super) async fn wait(&mut self, clock: &dyn Clock) {
        let Some(mut over_at) = self.over_at else { return std::future::pending().await };
        // With a low rate, slices without any come between.
        let slices = SLICES_PER_SEC.saturating_sub(self.rest).div_ceil(self.per_sec);
        over_at += SLICE * (slices - 1);
        let left = over_at.saturating_sub(clock.monotonic());
        // A timer would take another moment, which whoever asks anew each time would wait for each time.
        if !left.is_zero() {
            clock.sleep(left).await;
        }
        let earned = self.per_sec.saturating_mul(slices).saturating_add(self.rest);
        (self.left, self.rest) = (earned / SLICES_PER_SEC, earned % SLICES_PER_SEC);
        self.over_at = None;
    }
}

impl Sweep {
    /// Puts a claimed lease in its lane, unless that stands still and is full enough.
    pub(super) fn enqueue(&mut self, entry: Entry<Lease>, monotonic: Duration) {
        let target = entry.value.target.clone();
        let lane = self.lanes.entry(target.clone()).or_default();
        if lane.is_still(monotonic) && lane.queue.len() >= QUEUE_MIN {
            let at = lane.later(self.leases.clock.now());
            self.settled.push(Settled { entry, fate: Fate::Postponed(at) });
            return;
        }
        if lane.queue.is_empty() && lane.running == 0 {
            lane.moved = monotonic;
        }
        lane.queue.push_back((entry, monotonic));
        self.queued += 1;
        if !std::mem::replace(&mut lane.has_turn, true) {
            self.turns.push_back(target);
        }
    }

    /// Starts what the limits of targets, their breakers, the hold and the rate allow: one of each lane in
    /// turn, so that none goes short. Where the rate ends it, the next slice goes on.
    pub(super) fn start_kills(&mut self) {
        let held = self.leases.hold().is_some();
        let mut passed_over = 0;
        while passed_over < self.turns.len() && (held || !self.pace.is_spent()) {
            let Some(target) = self.turns.pop_front() else { break };
            let started = self.start_kill(&target, held);
            let Some(lane) = self.lanes.get_mut(&target) else { continue };
            lane.has_turn = !lane.queue.is_empty();
            if lane.has_turn {
                self.turns.push_back(target);
                passed_over = if started { 0 } else { passed_over + 1 };
            }
        }
        self.lanes.retain(|_, lane| lane.running > 0 || lane.has_turn);
    }

    /// Takes the first one out of the lane of `target`, if it may go on.
    fn start_kill(&mut self, target: &str, held: bool) -> bool {
        let Some(lane) = self.lanes.get_mut(target) else { return false };
        if lane.queue.is_empty() || lane.running >= self.leases.settings.per_target.max(1) {
            return false;
        }
        let now = self.leases.clock.now();
        let admission = self.leases.breakers.admit(target, now);
        if admission == Admission::Wait && !held {
            return false;
        }
        let Some((entry, _)) = lane.queue.pop_front() else { return false };
        self.queued -= 1;
        lane.moved = self.leases.clock.monotonic();
        let fate = match admission {
            _ if held => Fate::Back(now),
            Admission::Closed { until } => not_tried(&entry.value, until),
            Admission::Go | Admission::Wait => {
                self.pace.take(lane.moved);
                lane.running += 1;
                let leases = self.leases.clone();
                self.kills.spawn(async move {
                    let result = contained("revocation", leases.kill(&entry.value)).await;
                    Killed { entry, result }
                });
                return true;
            }
        };
        self.settled.push(Settled { entry, fate });
        true
    }

    /// Puts back what has waited too long, and what stands in the way of others.
    pub(super) fn look_over_lanes(&mut self) {
        let now = self.leases.clock.now();
        let monotonic = self.leases.clock.monotonic();
        let crowded = self.queued >= WINDOW / 4;
        for lane in self.lanes.values_mut() {
            let in_the_way = crowded && lane.is_still(monotonic);
            while let Some((_, since)) = lane.queue.front()
                && (in_the_way || monotonic.saturating_sub(*since) >= WAIT_MAX)
            {
                let Some((entry, _)) = lane.queue.pop_front() else { break };
                self.queued -= 1;
                let at = lane.later(now);
                self.settled.push(Settled { entry, fate: Fate::Postponed(at) });
            }
        }
    }
}

/// What becomes of a lease whose target is down until then, as far as is known.
fn not_tried(lease: &Lease, until: Timestamp) -> Fate {
    match &lease.given_up {
        None => Fate::Postponed(until),
        Some(decision) => Fate::GivenUp {
            decision: decision.clone(),
            error: CoreError::Upstream {
                target: lease.target.clone(),
                message: "it is down, and was not tried again".into(),
            },
        },
    }
}

impl Lane {
    /// Whether it has revocations under way, and none of them ends.
    fn is_still(&self, monotonic: Duration) -> bool {
        self.running > 0 && monotonic.saturating_sub(self.moved) >= STILL_MAX
    }

    /// When the next of those comes back that this lane holds up: one after the other, so that they
    /// do not all stand here again at once.
    fn later(&mut self, now: Timestamp) -> Timestamp {
        self.put_back = self.put_back.saturating_add(1);
        let spread = self.put_back.saturating_mul(SPREAD_MILLIS).min(SPREAD_MILLIS_MAX);
        now.plus_millis(BACK_MILLIS_MIN.saturating_add(spread))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::types::time::ManualClock;

    #[test]
    fn a_rate_is_kept_whether_or_not_it_fills_the_slices() {
        const SECONDS: u32 = 20;
        for rate in [1, 3, 7, 19, 20, 21, 50, 999, 1000] {
            let clock = ManualClock::new(Timestamp::from_secs(1));
            let mut pace = Pace::new(rate);
            let mut taken = 0;
            for _ in 0..SECONDS * SLICES_PER_SEC {
                while !pace.is_spent() {
                    pace.take(clock.monotonic());
                    taken += 1;
                }
                clock.advance(SLICE);
                // Asked anew each time, as whoever waits for something else as well does.
                let _ = pace.wait(&clock).now_or_never();
            }
            let expected = rate * SECONDS;
            let first = rate.div_ceil(SLICES_PER_SEC);
            assert!((expected..=expected + first).contains(&taken), "{taken} at {rate} a second");
        }
    }
}
