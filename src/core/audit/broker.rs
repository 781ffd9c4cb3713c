//! The broker: hands each entry to every sink and waits until one has accepted it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{FutureExt, select_ok};
use serde_json::Value;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::chain::{Mark, Witness};
use super::entry::{EntryBody, OperationSummary, event_body};
use super::ticket::AuditTicket;
use super::{AuditError, AuditSink, LaneState, SinkError, Turn};
use crate::types::time::Clock;

/// Limits of the audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerConfig {
    /// Most operations open at once, and most entries waiting for one sink.
    pub queue_entries: usize,
    /// Longest wait for room in the queue, and for an entry's acceptance.
    pub wait: Duration,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self { queue_entries: 8192, wait: Duration::from_secs(5) }
    }
}

/// How one sink does.
#[derive(Clone, Debug)]
pub struct SinkStatus {
    /// What it is called.
    pub name: String,
    /// Where its entries end up.
    pub target: String,
    /// Whether it takes entries.
    pub healthy: bool,
    /// Entries that wait for it.
    pub pending: usize,
    /// The end of its chain.
    pub head: Option<Witness>,
}

/// All sinks behind one door. Cheap to clone.
#[derive(Clone)]
pub struct AuditBroker {
    shared: Arc<Shared>,
}

struct Shared {
    lanes: Vec<Lane>,
    slots: Arc<Semaphore>,
    config: BrokerConfig,
    clock: Arc<dyn Clock>,
    /// Highest sequence of the store that this process has seen.
    store_sequence: AtomicU64,
    aborted: metrics::Counter,
}

struct Lane {
    sink: Arc<dyn AuditSink>,
    state: Arc<LaneState>,
}

/// What one sink answers, and how far it had come when it was asked.
struct Pending {
    state: Arc<LaneState>,
    settled: u64,
    answer: oneshot::Receiver<Result<(), SinkError>>,
}

/// An entry that is queued.
struct Submitted<'s> {
    pending: Vec<Pending>,
    /// Sinks that wait for the one who submitted it.
    turns: Vec<MyTurn<'s>>,
}

/// A sink's turn that is owed. Dropped unused, by a request that is given up for instance, it is handed
/// over.
struct MyTurn<'s>(Option<&'s dyn AuditSink>);

impl MyTurn<'_> {
    fn write(mut self) {
        if let Some(sink) = self.0.take() {
            sink.write();
        }
    }
}

impl Drop for MyTurn<'_> {
    fn drop(&mut self) {
        if let Some(sink) = self.0.take() {
            sink.hand_over();
        }
    }
}

impl AuditBroker {
    /// A broker over `sinks`, of which at least one has to accept each entry. The metrics recorder has to
    /// be installed before.
    ///
    /// # Errors
    /// [`AuditError::NoSink`] when there is none: going without is spelled [`AuditBroker::unaudited`].
    pub fn new(
        sinks: Vec<Arc<dyn AuditSink>>,
        config: BrokerConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AuditError> {
        if sinks.is_empty() {
            return Err(AuditError::NoSink);
        }
        Ok(Self::build(sinks, config, clock))
    }

    /// A broker without any sink: entries are made and thrown away. Only where the configuration says so
    /// in as many words.
    pub fn unaudited(clock: Arc<dyn Clock>) -> Self {
        Self::build(Vec::new(), BrokerConfig::default(), clock)
    }

    fn build(sinks: Vec<Arc<dyn AuditSink>>, config: BrokerConfig, clock: Arc<dyn Clock>) -> Self {
        let lanes = sinks
            .into_iter()
            .map(|sink| Lane { state: Arc::new(LaneState::new(sink.name(), clock.clone())), sink })
            .collect();
        let shared = Shared {
            lanes,
            slots: Arc::new(Semaphore::new(config.queue_entries)),
            config,
            clock,
            store_sequence: AtomicU64::new(0),
            aborted: metrics::counter!("leasehold_audit_aborted_total"),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Opens the ticket of an operation, before anything is decided about it, and reserves room for its
    /// entry. An operation that may change something is refused at once when no sink works.
    ///
    /// # Errors
    /// [`AuditError::Overloaded`] when there is no room within the configured wait;
    /// [`AuditError::NoSink`] for a mutating operation while every sink fails.
    pub async fn open(
        &self,
        summary: OperationSummary,
        mutating: bool,
    ) -> Result<AuditTicket, AuditError> {
        if mutating {
            self.ready()?;
        }
        let slots = &self.shared.slots;
        let slot = match slots.clone().try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => timeout(self.shared.config.wait, slots.clone().acquire_owned())
                .await
                .map_err(|_| AuditError::Overloaded)?
                // The semaphore is never closed.
                .map_err(|_| AuditError::Overloaded)?,
        };
        Ok(AuditTicket::new(self.clone(), summary, slot))
    }

    /// Records something that happened to the server rather than to a request: start, unseal, a released
    /// hold. `detail` is written in clear and must hold no secret.
    ///
    /// # Errors
    /// As [`AuditTicket::finish`].
    pub async fn record_event(
        &self,
        event: &'static str,
        detail: &Value,
    ) -> Result<(), AuditError> {
        self.record(event_body(self.shared.clock.now(), event, detail)).await
    }

    /// Notes how far the store has come; entries from now on witness it.
    pub fn observe_store_sequence(&self, sequence: u64) {
        self.shared.store_sequence.fetch_max(sequence, Ordering::AcqRel);
    }

    /// Records that an administrator accepted a store that stands at `sequence`, below what was
    /// witnessed: from here on this is what a later start compares with.
    ///
    /// # Errors
    /// As [`AuditTicket::finish`].
    pub async fn rebase_store_sequence(
        &self,
        sequence: u64,
        detail: &Value,
    ) -> Result<(), AuditError> {
        self.shared.store_sequence.store(sequence, Ordering::Release);
        let body = event_body(self.shared.clock.now(), "store_rebased", detail);
        self.deliver(body, Mark::Rebase(sequence)).await
    }

    /// The end of the chain that has seen the highest store sequence.
    pub fn witness(&self) -> Option<Witness> {
        let heads = self.shared.lanes.iter().filter_map(|lane| lane.sink.head());
        heads.max_by_key(|head| head.store_sequence)
    }

    /// How each sink does. Empty when there is none.
    pub fn sinks(&self) -> Vec<SinkStatus> {
        let lanes = self.shared.lanes.iter();
        lanes
            .map(|lane| SinkStatus {
                name: lane.sink.name().to_owned(),
                target: lane.sink.target(),
                healthy: lane.works(),
                pending: lane.state.pending.load(Ordering::Acquire),
                head: lane.sink.head(),
            })
            .collect()
    }

    /// Whether an operation that changes something may begin.
    ///
    /// # Errors
    /// [`AuditError::NoSink`] when every sink fails, [`AuditError::Overloaded`] when those that do not
    /// are stuck or full.
    pub fn ready(&self) -> Result<(), AuditError> {
        let lanes = &self.shared.lanes;
        let full = |lane: &&Lane| {
            lane.state.pending.load(Ordering::Acquire) >= self.shared.config.queue_entries
        };
        if lanes.is_empty() || lanes.iter().any(|lane| lane.works() && !full(&lane)) {
            Ok(())
        } else if lanes.iter().any(|lane| lane.sink.healthy()) {
            Err(AuditError::Overloaded)
        } else {
            Err(AuditError::NoSink)
        }
    }

    /// Lets every sink open its target anew: after a rotation.
    ///
    /// # Errors
    /// The sinks that could not, by name. They go on with what they have.
    pub async fn reopen(&self) -> Result<(), Vec<(String, SinkError)>> {
        let mut failed = Vec::new();
        for lane in &self.shared.lanes {
            if let Err(error) = lane.sink.reopen().await {
                failed.push((lane.sink.name().to_owned(), error));
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(failed) }
    }

    /// Writes what is queued and closes every sink.
    pub async fn close(&self) {
        for lane in &self.shared.lanes {
            lane.sink.close().await;
        }
    }

    pub(super) async fn record(&self, body: EntryBody) -> Result<(), AuditError> {
        let seen = self.shared.store_sequence.load(Ordering::Acquire);
        self.deliver(body, Mark::Seen(seen)).await
    }

    /// Hands over the entry of an operation nobody waits for any more.
    pub(super) fn record_aborted(&self, body: EntryBody) {
        let seen = self.shared.store_sequence.load(Ordering::Acquire);
        self.shared.aborted.increment(1);
        // Nobody is there to write it: the turns are given up.
        drop(self.submit(body, Mark::Seen(seen)));
    }

    async fn deliver(&self, body: EntryBody, mark: Mark) -> Result<(), AuditError> {
        if self.shared.lanes.is_empty() {
            return Ok(());
        }
        let Submitted { mut pending, turns } = self.submit(body, mark);
        if pending.is_empty() {
            return Err(AuditError::Overloaded);
        }
        if !turns.is_empty() {
            // Whoever is ready goes first, and the entries are written together.
            tokio::task::yield_now().await;
            turns.into_iter().for_each(MyTurn::write);
        }
        // Mostly it has been written by now, and no timer is needed.
        let mut accepted = false;
        pending.retain_mut(|one| match one.answer.try_recv() {
            Ok(Ok(())) => {
                accepted = true;
                false
            }
            Err(TryRecvError::Empty) => true,
            Ok(Err(_)) | Err(TryRecvError::Closed) => false,
        });
        if accepted {
            return Ok(());
        }
        if pending.is_empty() {
            return Err(AuditError::NoSink);
        }
        let answers = pending
            .iter_mut()
            .map(|one| (&mut one.answer).map(|answer| answer.unwrap_or(Err(SinkError::Closed))));
        match timeout(self.shared.config.wait, select_ok(answers)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(AuditError::NoSink),
            Err(_) => {
                for one in &pending {
                    one.state.mark_stalled(one.settled);
                }
                Err(AuditError::Overloaded)
            }
        }
    }

    /// Queues the entry with every sink that has room.
    fn submit(&self, body: EntryBody, mark: Mark) -> Submitted<'_> {
        let body = Arc::new(body);
        let mut pending = Vec::with_capacity(self.shared.lanes.len());
        let mut turns = Vec::new();
        for lane in &self.shared.lanes {
            let state = &lane.state;
            if state.pending.load(Ordering::Acquire) >= self.shared.config.queue_entries {
                state.failures.increment(1);
                continue;
            }
            let settled = state.settled.load(Ordering::Acquire);
            let (entry, answer) = state.prepare(body.clone(), mark);
            if lane.sink.submit(entry) == Turn::Yours {
                turns.push(MyTurn(Some(lane.sink.as_ref())));
            }
            pending.push(Pending { state: state.clone(), settled, answer });
        }
        Submitted { pending, turns }
    }
}

impl fmt::Debug for AuditBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditBroker").field("sinks", &self.shared.lanes.len()).finish()
    }
}

impl Lane {
    fn works(&self) -> bool {
        self.sink.healthy() && !self.state.stalled()
    }
}
