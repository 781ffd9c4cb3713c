//! The sweep: takes back what is due. It takes no input but the store and the clock, so one code path
//! serves expiry, crashes, failed revocations and bulk revocations alike.
//!
//! Due rows are claimed page by page, sorted into one lane for each target, revoked there with limited
//! concurrency, and settled in common commits. Claiming, revoking and settling overlap. What is in
//! hand is bounded, and a lane that does not move gives its place away, so that neither a slow target
//! nor a long table costs others more than their turn.

mod doom;
mod lane;
mod settle;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, OptionFuture};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::types::time::{Timestamp, Ttl};

use super::super::error::CoreError;
use super::super::failpoint::fail_point;
use super::super::records::kinds;
use super::super::view::Entry;
use super::{Lease, LeaseState, Leases};
use lane::{Lane, Pace};
use settle::{Fate, Settled};

/// Leases in hand at once: the window that memory holds.
const WINDOW: usize = 2048;
/// Leases claimed at a time.
const CLAIMED_AT_ONCE: usize = 512;
/// Leases settled in one commit.
const SETTLED_AT_ONCE: usize = 1024;
/// How long a row that is in hand is kept from others, and from this node after a crash, in times of
/// what a target may take. Longer than waiting, revoking and settling take together.
const CLAIM_TIMEOUTS: u64 = 3;
/// The sweep looks at the store at least this often, whatever it plans: another node may have died.
const LOOK_AT_LEAST: Ttl = Ttl::from_secs(30);
/// How soon it looks again while what is due is claimed by somebody.
const LOOK_AGAIN: Ttl = Ttl::from_secs(5);
/// Pauses after failures of the store.
const STORE_PAUSE_FIRST: Duration = Duration::from_millis(500);
const STORE_PAUSE_MAX: Duration = Duration::from_secs(10);
/// How often lanes are looked over for entries that wait too long.
const LOOK_OVER: Duration = Duration::from_secs(1);
/// How long revocations under way may go on when the sweep is told to stop.
const STOP_MAX: Duration = Duration::from_millis(500);

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Leases claimed.
    pub claimed: usize,
    /// Credentials made dead and forgotten.
    pub revoked: usize,
    /// Revocations that failed.
    pub failed: usize,
    /// Leases forgotten without being revoked, as somebody had decided for that case.
    pub abandoned: usize,
    /// Leases left for later: their target is down, or they turned out not to be due.
    pub postponed: usize,
}

impl Leases {
    /// Takes back everything that is due now, and returns once all of that is settled. For callers
    /// that have to know; the server runs [`Leases::run_sweep`].
    ///
    /// # Errors
    /// When the store fails; nothing is lost, a later sweep finds the same rows.
    pub async fn sweep(self: &Arc<Self>) -> Result<SweepReport, CoreError> {
        let mut sweep = Sweep::new(self.clone());
        loop {
            sweep.step();
            if sweep.is_idle() {
                return Ok(sweep.report);
            }
            let event = sweep.next_event().await;
            sweep.take(event)?;
        }
    }

    /// Takes back whatever becomes due, until it is told to stop. Woken by signal, by the next due
    /// time, and at least every half minute.
    pub async fn run_sweep(self: Arc<Self>, stop: CancellationToken) {
        let mut sweep = Sweep::new(self.clone());
        let mut store_pause = STORE_PAUSE_FIRST;
        while !stop.is_cancelled() {
            sweep.step();
            if sweep.exhausted && sweep.look.is_none() {
                sweep.look = Some(self.clone().until_next_look(sweep.claimed_at).boxed());
            }
            let event = tokio::select! {
                () = stop.cancelled() => break,
                // Told apart from the events, since only this one can come while nothing is in hand.
                () = self.wake.notified() => Event::Look,
                event = sweep.next_event() => event,
            };
            match sweep.take(event) {
                Ok(()) => store_pause = STORE_PAUSE_FIRST,
                Err(error) => {
                    tracing::warn!(%error, "the sweep cannot use the store and tries again");
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = self.clock.sleep(store_pause) => {}
                    }
                    store_pause = (store_pause * 2).min(STORE_PAUSE_MAX);
                    sweep.exhausted = false;
                }
            }
        }
        sweep.finish().await;
    }

    /// Claims what is due; the rows that open.
    async fn claim_due(self: Arc<Self>, limit: usize) -> Result<Claimed, CoreError> {
        if self.hold().is_some() {
            return Ok(Claimed::default());
        }
        self.undo_broken_off().await?;
        let now = self.clock.now();
        let until = now.plus(self.target_timeouts(CLAIM_TIMEOUTS));
        let rows = self.records.storage().claim(kinds::LEASE, now, self.node, until, limit).await?;
        let entries = Vec::with_capacity(rows.len());
        let mut claimed = Claimed { at: now, entries, rows: rows.len(), limit };
        if rows.iter().any(|row| !self.records.keyring().holds(row.sealed.term())) {
            self.records.renew_keyring().await?;
        }
        for row in &rows {
            // A row that does not open or parse is left for its administrator; the rest goes on.
            match self.records.open(row).and_then(|record| record.decode::<Lease>()) {
                Ok(value) => {
                    claimed.entries.push(Entry { value, rev: row.rev, due_at: row.due_at });
                }
                Err(error) => {
                    metrics::counter!("leasehold_unreadable_leases_total").increment(1);
                    tracing::error!(error = %error, "a lease cannot be read");
                }
            }
        }
        claimed.entries = self.doom_intents(claimed.entries, until).await?;
        Ok(claimed)
    }

    /// Completes when the sweep has to look again that has claimed all it could at `claimed_at`.
    async fn until_next_look(self: Arc<Self>, claimed_at: Timestamp) {
        // Until the answer is here, everything that is issued wakes the sweep.
        self.planned.store(i64::MAX, Ordering::SeqCst);
        let next = match self.next_due().await {
            _ if self.hold().is_some() => None,
            Ok(next) => next,
            Err(_) => Some(Timestamp::default()),
        };
        let now = self.clock.now();
        let at = match next {
            // Due and yet not to be had: in hand, or claimed by another node. From when it was looked, since
            // what has become due after that is not seen behind it.
            Some(due) if due <= claimed_at => claimed_at.plus(LOOK_AGAIN),
            Some(due) => due.min(now.plus(LOOK_AT_LEAST)),
            None => now.plus(LOOK_AT_LEAST),
        };
        self.planned.store(at.as_millis(), Ordering::SeqCst);
        self.clock.sleep_until(at).await;
    }

    /// When the earliest lease is due, or `None` when nothing is leased.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn next_due(&self) -> Result<Option<Timestamp>, CoreError> {
        Ok(self.records.storage().next_due(kinds::LEASE).await?)
    }
}

#[derive(Default)]
struct Claimed {
    at: Timestamp,
    entries: Vec<Entry<Lease>>,
    rows: usize,
    limit: usize,
}

/// What a sweep waits for.
enum Event {
    /// Rows were claimed, or could not be.
    Claimed(Result<Claimed, CoreError>),
    /// A revocation has ended.
    Killed(Box<Killed>),
    /// A commit has ended.
    Committed(settle::Outcome),
    /// Time to look at the store.
    Look,
    /// Time to look at the lanes.
    LookOver,
    /// More may be started.
    Paced,
}

/// A revocation that has ended.
struct Killed {
    entry: Entry<Lease>,
    result: Result<(), CoreError>,
}

/// One sweep: what is in hand, and what is under way.
struct Sweep {
    leases: Arc<Leases>,
    lanes: BTreeMap<String, Lane>,
    /// The targets with something in their lanes, in the order of their turns.
    turns: VecDeque<String>,
    /// Entries that wait in lanes.
    queued: usize,
    kills: JoinSet<Killed>,
    settled: Vec<Settled>,
    claiming: Option<BoxFuture<'static, Result<Claimed, CoreError>>>,
    committing: Option<BoxFuture<'static, settle::Outcome>>,
    /// Leases in the commit under way.
    committed: usize,
    /// Nothing more is due, as far as is known.
    exhausted: bool,
    /// Asked to look while a claim was under way, which may have looked already.
    look_again: bool,
    /// The time of the last claim.
    claimed_at: Timestamp,
    look: Option<BoxFuture<'static, ()>>,
    look_over: Option<BoxFuture<'static, ()>>,
    pace: Pace,
    report: SweepReport,
}

impl Sweep {
    fn new(leases: Arc<Leases>) -> Self {
        Self {
            pace: Pace::new(leases.settings.rate_per_sec),
            leases,
            lanes: BTreeMap::new(),
            turns: VecDeque::new(),
            queued: 0,
            kills: JoinSet::new(),
            settled: Vec::new(),
            claiming: None,
            committing: None,
            committed: 0,
            exhausted: false,
            look_again: false,
            claimed_at: Timestamp::default(),
            look: None,
            look_over: None,
            report: SweepReport::default(),
        }
    }

    fn in_hand(&self) -> usize {
        self.queued + self.kills.len() + self.settled.len() + self.committed
    }

    fn is_idle(&self) -> bool {
        self.exhausted && self.claiming.is_none() && self.in_hand() == 0
    }

    /// Sets everything going that can go.
    fn step(&mut self) {
        self.start_kills();
        if self.committing.is_none() && !self.settled.is_empty() {
            let batch: Vec<Settled> =
                self.settled.drain(..self.settled.len().min(SETTLED_AT_ONCE)).collect();
            self.committed = batch.len();
            self.committing = Some(settle::settle(self.leases.clone(), batch).boxed());
        }
        let room = WINDOW.saturating_sub(self.in_hand());
        if self.claiming.is_none() && !self.exhausted && room >= CLAIMED_AT_ONCE {
            let claim = self.leases.clone().claim_due(CLAIMED_AT_ONCE);
            self.claiming = Some(claim.boxed());
        }
        if self.queued == 0 {
            self.look_over = None;
        } else if self.look_over.is_none() {
            let clock = self.leases.clock.clone();
            self.look_over = Some(async move { clock.sleep(LOOK_OVER).await }.boxed());
        }
    }

    async fn next_event(&mut self) -> Event {
        // What comes seldom first: nothing of it waits while one revocation after the other ends.
        tokio::select! {
            biased;
            Some(outcome) = OptionFuture::from(self.committing.as_mut()) => {
                Event::Committed(outcome)
            }
            Some(claimed) = OptionFuture::from(self.claiming.as_mut()) => Event::Claimed(claimed),
            () = self.pace.wait(self.leases.clock.as_ref()), if self.queued > 0 => Event::Paced,
            Some(()) = OptionFuture::from(self.look.as_mut()) => Event::Look,
            Some(()) = OptionFuture::from(self.look_over.as_mut()) => Event::LookOver,
            Some(Ok(killed)) = self.kills.join_next() => Event::Killed(Box::new(killed)),
            else => Event::Look,
        }
    }

    fn take(&mut self, event: Event) -> Result<(), CoreError> {
        match event {
            Event::Claimed(claimed) => {
                self.claiming = None;
                let look_again = std::mem::take(&mut self.look_again);
                self.take_claimed(claimed?);
                self.exhausted &= !look_again;
            }
            Event::Killed(killed) => {
                self.take_killed(*killed);
                while let Some(Ok(killed)) = self.kills.try_join_next() {
                    self.take_killed(killed);
                }
            }
            Event::Committed(outcome) => {
                self.committing = None;
                self.committed = 0;
                // What became due later, or is gone, changes when to look next.
                self.look = None;
                match outcome {
                    Ok(report) => {
                        self.report.revoked += report.revoked;
                        self.report.failed += report.failed;
                        self.report.abandoned += report.abandoned;
                        self.report.postponed += report.postponed;
                    }
                    Err((unsettled, error)) => {
                        // Tried again, unless the sweep ends: then the rows are claimed anew.
                        self.settled.extend(unsettled);
                        return Err(error);
                    }
                }
            }
            Event::Look => {
                self.look = None;
                self.exhausted = false;
                self.look_again = self.claiming.is_some();
            }
            Event::LookOver => {
                self.look_over = None;
                self.look_over_lanes();
            }
            Event::Paced => {}
        }
        Ok(())
    }

    fn take_claimed(&mut self, claimed: Claimed) {
        self.report.claimed += claimed.entries.len();
        self.exhausted = claimed.rows < claimed.limit || claimed.limit == 0;
        self.claimed_at = claimed.at;
        let now = self.leases.clock.now();
        let since = self.leases.clock.monotonic();
        for entry in claimed.entries {
            match later(&self.leases, &entry.value, now) {
                Some(at) => self.settled.push(Settled { entry, fate: Fate::Back(at) }),
                None => self.enqueue(entry, since),
            }
        }
    }

    fn take_killed(&mut self, Killed { entry, result }: Killed) {
        if let Some(lane) = self.lanes.get_mut(&entry.value.target) {
            lane.ended(self.leases.clock.monotonic());
        }
        let fate = match result {
            Ok(()) => {
                fail_point("sweep.killed");
                Fate::Dead
            }
            // A hold came between: nothing was tried, and nothing is forgotten.
            Err(CoreError::Held(_)) => Fate::Back(self.leases.clock.now()),
            Err(error)
                if !error.is_ours()
                    && let Some(decision) = entry.value.given_up.clone() =>
            {
                Fate::GivenUp { decision, error }
            }
            Err(error) => {
                tracing::warn!(
                    lease_id = %entry.value.id, target = entry.value.target, error = %error,
                    "revocation failed and will be tried again"
                );
                Fate::Failed(error)
            }
        };
        self.settled.push(Settled { entry, fate });
    }

    /// Ends in good order: nothing new is begun, what is dead is forgotten, and what was not begun is
    /// free for others.
    async fn finish(mut self) {
        let ending = async {
            loop {
                for entry in self.lanes.values_mut().flat_map(Lane::drain) {
                    let fate = Fate::Back(entry.due_at.unwrap_or_default());
                    self.settled.push(Settled { entry, fate });
                }
                self.queued = 0;
                self.exhausted = true;
                self.step();
                if self.is_idle() {
                    return;
                }
                let event = self.next_event().await;
                if self.take(event).is_err() {
                    return;
                }
            }
        };
        // What is cut off here is claimed anew, by this node or another.
        let _ = tokio::time::timeout(STOP_MAX, ending).await;
    }
}

/// When a claimed lease is due after all, if it is not now.
fn later(leases: &Leases, lease: &Lease, now: Timestamp) -> Option<Timestamp> {
    match (lease.state, lease.settles_at) {
        // The store says when a row is due, and is not to be believed: what was promised counts.
        (LeaseState::Active, _) if now < lease.expires_at => Some(lease.expires_at),
        (_, Some(settled)) if leases.is_unsettled(lease, now) => {
            Some(settled.max(now.plus(LOOK_AGAIN)))
        }
        // It was being made when it was claimed. What is made by now must not be killed by what was
        // known then; and what is not was to be doomed first.
        (LeaseState::Intent, _) => Some(now),
        (LeaseState::Active | LeaseState::Revoking, _) => None,
    }
}
