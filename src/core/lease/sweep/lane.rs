//! Lanes: the claimed leases of one target, waiting for their turn.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::types::time::Timestamp;

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

/// One target's queue.
#[derive(Default)]
pub(super) struct Lane {
    queue: VecDeque<(Entry<Lease>, Duration)>,
    running: usize,
    /// When a revocation last began or ended, on the monotonic clock.
    moved: Duration,
    /// Leases that were put back since the lane last stood still.
    put_back: i64,
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
    per_slice: u32,
    left: u32,
    slice: Option<BoxFuture<'static, ()>>,
}

impl Pace {
    pub(super) fn new(per_sec: u32) -> Self {
        let per_slice = per_sec.div_ceil(SLICES_PER_SEC).max(1);
        Self { per_slice, left: per_slice, slice: None }
    }

    fn is_spent(&self) -> bool {
        self.left == 0
    }

    fn take(&mut self) {
        self.left = self.left.saturating_sub(1);
        if self.slice.is_none() {
            // The machine's own time: a rate protects machines, and has no part in what is due when.
            let slice = tokio::time::sleep(Duration::from_secs(1) / SLICES_PER_SEC);
            self.slice = Some(Box::pin(slice));
        }
    }

    /// Completes at the end of the slice; never while none has begun.
    pub(super) async fn wait(&mut self) {
        match &mut self.slice {
            Some(slice) => slice.await,
            None => std::future::pending().await,
        }
        self.slice = None;
        self.left = self.per_slice;
    }
}

impl Sweep {
    /// Puts a claimed lease in its lane, unless that stands still and is full enough.
    pub(super) fn enqueue(&mut self, entry: Entry<Lease>, monotonic: Duration) {
        let lane = self.lanes.entry(entry.value.target.clone()).or_default();
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
    }

    /// Starts what the limits of targets, their breakers, the hold and the rate allow: one of each
    /// lane in turn, so that none goes short.
    pub(super) fn start_kills(&mut self) {
        let held = self.leases.hold().is_some();
        let now = self.leases.clock.now();
        let monotonic = self.leases.clock.monotonic();
        let mut started = true;
        while started && self.queued > 0 && (held || !self.pace.is_spent()) {
            started = false;
            for (target, lane) in &mut self.lanes {
                if lane.queue.is_empty() || lane.running >= self.leases.settings.per_target.max(1) {
                    continue;
                }
                if self.pace.is_spent() && !held {
                    break;
                }
                let admission = self.leases.breakers.admit(target, now);
                if admission == Admission::Wait && !held {
                    continue;
                }
                let Some((entry, _)) = lane.queue.pop_front() else { continue };
                let fate = match admission {
                    _ if held => Some(Fate::Back(now)),
                    Admission::Closed { until } => Some(not_tried(&entry.value, until)),
                    Admission::Go | Admission::Wait => None,
                };
                started = true;
                self.queued -= 1;
                lane.moved = monotonic;
                if let Some(fate) = fate {
                    self.settled.push(Settled { entry, fate });
                    continue;
                }
                self.pace.take();
                lane.running += 1;
                let leases = self.leases.clone();
                self.kills.spawn(async move {
                    let result = contained("revocation", leases.kill(&entry.value)).await;
                    Killed { entry, result }
                });
            }
        }
        self.lanes.retain(|_, lane| lane.running > 0 || !lane.queue.is_empty());
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
