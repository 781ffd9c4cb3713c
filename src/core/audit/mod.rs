//! The audit: no act without an open ticket, no answer without an accepted entry.
//!
//! A request opens an [`AuditTicket`](ticket::AuditTicket) before anything is decided about it, so that
//! denials and failures are recorded like successes. The ticket has to be finished to get the
//! [`AuditReceipt`](ticket::AuditReceipt) that an answer needs; a ticket that is dropped instead is
//! recorded as aborted. The [`AuditBroker`](broker::AuditBroker) hands each entry to every sink and waits,
//! for a bounded time, until at least one has accepted it. Each sink numbers and chains its entries
//! ([`chain`]), so that a line that is edited, removed or moved is found. The text of an entry is made in
//! [`entry`]; values are replaced by keyed hashes in [`redact`].

pub mod broker;
pub mod chain;
pub mod entry;
pub mod redact;
pub mod ticket;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use metrics::{Counter, Gauge, Histogram};
use tokio::sync::oneshot;

use self::chain::{Mark, Witness};
use self::entry::EntryBody;
use crate::types::time::Clock;

/// Where entries go. One implementation per kind of target, outside the core.
#[async_trait]
pub trait AuditSink: Send + Sync + 'static {
    /// What the sink is called in configuration, metrics and logs.
    fn name(&self) -> &str;

    /// Where entries end up, as the configuration says it.
    fn target(&self) -> String;

    /// Queues an entry without blocking. The sink later calls [`PreparedEntry::accept`], once the entry
    /// cannot be lost by the death of this process (or of the machine, where it is configured so), or
    /// [`PreparedEntry::refuse`]. Entries are accepted in the order in which they were submitted.
    ///
    /// With [`Turn::Yours`] nothing is written until the caller says [`AuditSink::write`] or
    /// [`AuditSink::hand_over`], which it owes soon.
    fn submit(&self, entry: PreparedEntry) -> Turn;

    /// Writes what is queued, in the time of a caller whose turn it is. Blocks for as long as the
    /// target takes.
    fn write(&self) {}

    /// Leaves what is queued to the sink, which the caller's turn was.
    fn hand_over(&self) {}

    /// Whether the last attempt to write succeeded. An unhealthy sink tries again by itself.
    fn healthy(&self) -> bool;

    /// The end of the sink's chain; `None` when the sink keeps none.
    fn head(&self) -> Option<Witness>;

    /// Lets go of the present target and opens it anew under its name: after a rotation.
    ///
    /// # Errors
    /// When the new target cannot be opened; the sink then goes on with the present one.
    async fn reopen(&self) -> Result<(), SinkError>;

    /// Writes what is queued, makes it durable, and lets go of the target. Later entries are refused.
    async fn close(&self);
}

/// Who writes an entry that was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "entries wait for the one whose turn it is"]
pub enum Turn {
    /// The sink, or somebody else.
    Taken,
    /// The one who submitted it, together with what others submit until then.
    Yours,
}

/// Why a sink refused an entry.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SinkError {
    /// The target did not take it: no space, an input/output error, a lost connection.
    #[error("the audit target cannot be written")]
    Write(#[source] Arc<io::Error>),
    /// The sink was closed, or dropped the entry.
    #[error("the audit sink is closed")]
    Closed,
}

/// Why an operation cannot go on, as far as the audit is concerned. Both are a 503 to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// The sinks are behind: no room in the queue, or no acceptance in time. Trying again may help.
    #[error("the audit is overloaded")]
    Overloaded,
    /// Every sink refused the entry.
    #[error("no audit sink accepts entries")]
    NoSink,
}

/// An entry on its way to one sink: its text but for number and chain, and the way back to who waits.
#[must_use = "an entry that is dropped counts as refused"]
pub struct PreparedEntry {
    body: Arc<EntryBody>,
    mark: Mark,
    done: Option<oneshot::Sender<Result<(), SinkError>>>,
    lane: Arc<LaneState>,
    submitted: Duration,
}

impl PreparedEntry {
    /// What [`chain::Chain::append`] makes the line of.
    pub fn body(&self) -> &EntryBody {
        &self.body
    }

    /// What the entry says about the store's sequence.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// When it was submitted, on the monotonic clock.
    pub fn submitted(&self) -> Duration {
        self.submitted
    }

    /// Tells who waits that the entry is safe.
    pub fn accept(mut self) {
        self.settle(Ok(()));
    }

    /// Tells who waits that the entry was not written.
    pub fn refuse(mut self, error: SinkError) {
        self.settle(Err(error));
    }

    fn settle(&mut self, result: Result<(), SinkError>) {
        let Some(done) = self.done.take() else { return };
        let lane = &self.lane;
        lane.pending.fetch_sub(1, Ordering::AcqRel);
        lane.settled.fetch_add(1, Ordering::AcqRel);
        lane.depth.decrement(1.0);
        match &result {
            Ok(()) => {
                lane.written.increment(1);
                let waited = lane.clock.monotonic().saturating_sub(self.submitted);
                lane.latency.record(waited.as_secs_f64());
            }
            Err(_) => lane.failures.increment(1),
        }
        // Who waited may have given up; the entry is written all the same.
        let _ = done.send(result);
    }
}

impl Drop for PreparedEntry {
    fn drop(&mut self) {
        self.settle(Err(SinkError::Closed));
    }
}

/// What the broker keeps about one sink.
struct LaneState {
    pending: AtomicUsize,
    /// Entries accepted or refused so far.
    settled: AtomicU64,
    /// `settled` at the moment when somebody gave up waiting; [`NOT_STALLED`] when nobody did.
    stalled_at: AtomicU64,
    clock: Arc<dyn Clock>,
    written: Counter,
    failures: Counter,
    depth: Gauge,
    latency: Histogram,
}

const NOT_STALLED: u64 = u64::MAX;

impl LaneState {
    fn new(sink: &str, clock: Arc<dyn Clock>) -> Self {
        let sink = sink.to_owned();
        Self {
            pending: AtomicUsize::new(0),
            settled: AtomicU64::new(0),
            stalled_at: AtomicU64::new(NOT_STALLED),
            clock,
            written: metrics::counter!("leasehold_audit_entries_total", "sink" => sink.clone()),
            failures: metrics::counter!("leasehold_audit_failures_total", "sink" => sink.clone()),
            depth: metrics::gauge!("leasehold_audit_queue_depth", "sink" => sink.clone()),
            latency: metrics::histogram!("leasehold_audit_write_seconds", "sink" => sink),
        }
    }

    /// Whether somebody gave up waiting and the sink has not moved since.
    fn stalled(&self) -> bool {
        self.stalled_at.load(Ordering::Acquire) == self.settled.load(Ordering::Acquire)
    }

    fn mark_stalled(&self, settled_at_submit: u64) {
        // A sink that settled something since is slow, not stuck.
        if self.settled.load(Ordering::Acquire) == settled_at_submit {
            self.stalled_at.store(settled_at_submit, Ordering::Release);
        }
    }

    fn prepare(
        self: &Arc<Self>,
        body: Arc<EntryBody>,
        mark: Mark,
    ) -> (PreparedEntry, oneshot::Receiver<Result<(), SinkError>>) {
        let (done, wait) = oneshot::channel();
        self.pending.fetch_add(1, Ordering::AcqRel);
        self.depth.increment(1.0);
        let submitted = self.clock.monotonic();
        (PreparedEntry { body, mark, done: Some(done), lane: self.clone(), submitted }, wait)
    }
}
