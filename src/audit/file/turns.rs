//! Who writes, and when.
//!
//! Entries queue up. The one whose entry finds no writer at work gets the turn: it lets the other tasks
//! that are ready go first, so that their entries join the group, and then writes the group itself. That
//! costs one system call for many requests and wakes no thread. Where that is not wanted (each group is
//! forced to the disk, the log fails, or the last write took long) and where the turn was given up, a
//! thread of the sink's own writes. The same thread forces lines to the disk, reopens and closes.
//!
//! A write that hangs holds up one task and the thread it runs on, never a second: whoever comes later
//! finds the writer taken, and waits for the bounded time that the broker gives everybody.

use std::sync::{Arc, PoisonError, TryLockError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::writer::Writer;
use crate::core::audit::{PreparedEntry, SinkError, Turn};
use crate::types::sync::{Condvar, Mutex, MutexGuard};
use crate::types::time::Clock;

/// A write that took longer is a sign of a disk that may block: the thread writes for a while then.
const SLOW: Duration = Duration::from_millis(20);
/// How long that while is.
const THREAD_ONLY: Duration = Duration::from_secs(5);

/// The queue, the writer, and the rule by which they meet.
pub(super) struct Turns {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Taken before the queue by whoever writes, so that entries are written in the order in which they
    /// were submitted. `None` once the sink is closed.
    writer: Mutex<Option<Writer>>,
    clock: Arc<dyn Clock>,
    lend: bool,
}

/// What is to be done. The broker bounds the entries.
#[derive(Default)]
struct Queue {
    entries: Vec<PreparedEntry>,
    /// Whether somebody has the turn and will take the entries that come until then.
    taken: bool,
    /// Until when, on the monotonic clock, only the thread writes.
    thread_only_until: Duration,
    /// Whether the thread has to look again how long it may sleep.
    roused: bool,
    reopen: Vec<oneshot::Sender<Result<(), SinkError>>>,
    closed: Vec<oneshot::Sender<()>>,
    closing: bool,
    ended: bool,
}

impl Queue {
    /// Whether the thread may sleep.
    fn is_idle(&self) -> bool {
        let left_to_others = self.taken || self.entries.is_empty();
        left_to_others && !self.roused && self.reopen.is_empty() && !self.closing
    }
}

impl Turns {
    pub(super) fn new(writer: Writer, clock: Arc<dyn Clock>, lend: bool) -> Self {
        Self {
            queue: Mutex::default(),
            wake: Condvar::new(),
            writer: Mutex::new(Some(writer)),
            clock,
            lend,
        }
    }

    pub(super) fn submit(&self, entry: PreparedEntry, healthy: bool) -> Turn {
        let mut queue = self.queue();
        if queue.closing {
            drop(queue);
            entry.refuse(SinkError::Closed);
            return Turn::Taken;
        }
        let lent = self.lend && healthy && entry.submitted() >= queue.thread_only_until;
        queue.entries.push(entry);
        if queue.taken {
            return Turn::Taken;
        }
        if lent {
            queue.taken = true;
            return Turn::Yours;
        }
        // The thread looks again before it sleeps: only the first of a group has to wake it.
        if queue.entries.len() == 1 {
            drop(queue);
            self.wake.notify_one();
        }
        Turn::Taken
    }

    /// Uses the turn: writes what is queued, unless somebody else is writing.
    pub(super) fn write(&self) {
        let mut slot = match self.writer.try_lock() {
            Ok(slot) => slot,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return self.hand_over(),
        };
        let Some(writer) = slot.as_mut() else { return self.hand_over() };
        let mut entries = {
            let mut queue = self.queue();
            queue.taken = false;
            std::mem::take(&mut queue.entries)
        };
        let before = self.clock.monotonic();
        let planned = writer.has_a_plan();
        writer.write_all(&mut entries);
        // Without a plan the thread sleeps until it is roused.
        let rouse = writer.has_a_plan() && !planned;
        drop(slot);
        let now = self.clock.monotonic();
        let slow = now.saturating_sub(before) > SLOW;
        let mut queue = self.queue();
        if slow {
            queue.thread_only_until = now.saturating_add(THREAD_ONLY);
        }
        queue.roused |= rouse;
        if queue.entries.capacity() == 0 {
            // Room for the next group.
            queue.entries = entries;
        }
        if !queue.is_idle() {
            drop(queue);
            self.wake.notify_one();
        }
    }

    /// Gives the turn up: the thread writes what is queued.
    pub(super) fn hand_over(&self) {
        self.queue().taken = false;
        self.wake.notify_one();
    }

    pub(super) fn reopen(&self) -> oneshot::Receiver<Result<(), SinkError>> {
        let (done, wait) = oneshot::channel();
        let mut queue = self.queue();
        if queue.closing {
            // Dropping `done` answers.
            return wait;
        }
        queue.reopen.push(done);
        drop(queue);
        self.wake.notify_one();
        wait
    }

    pub(super) async fn close(&self) {
        let (done, wait) = oneshot::channel();
        {
            let mut queue = self.queue();
            if queue.ended {
                return;
            }
            queue.closing = true;
            queue.closed.push(done);
        }
        self.wake.notify_one();
        // The thread answers when it has ended, and by ending.
        let _ = wait.await;
    }

    /// Has the thread end when everything is written.
    pub(super) fn stop(&self) {
        self.queue().closing = true;
        self.wake.notify_one();
    }

    /// The thread's work, until the sink is closed or dropped.
    pub(super) fn work(&self) {
        let mut limit = self.with_writer(|writer| {
            writer.begin();
            writer.patience()
        });
        loop {
            self.sleep(limit.flatten());
            let (closing, reopen) = {
                let mut queue = self.queue();
                queue.roused = false;
                (queue.closing, std::mem::take(&mut queue.reopen))
            };
            let due = self.with_writer(|writer| {
                // Only now, with the writer in hand: the order of the queue is the order of the log.
                let mut entries = std::mem::take(&mut self.queue().entries);
                writer.write_all(&mut entries);
                writer.due_for_sync()
            });
            if let Some(log) = due.flatten() {
                // Not with the writer in hand: others write meanwhile.
                let result = log.sync_data();
                self.with_writer(|writer| writer.synced(result));
            }
            for done in reopen {
                let reopened = self.with_writer(Writer::reopen);
                let _ = done.send(reopened.unwrap_or(Err(SinkError::Closed)));
            }
            if closing {
                break;
            }
            limit = self.with_writer(|writer| writer.patience());
        }
        self.end();
    }

    /// Sleeps until there is something to do, or for `limit`.
    fn sleep(&self, limit: Option<Duration>) {
        let queue = self.queue();
        match limit {
            None => {
                let awake = self.wake.wait_while(queue, |queue| queue.is_idle());
                drop(awake.unwrap_or_else(PoisonError::into_inner));
            }
            Some(limit) => {
                let awake = self.wake.wait_timeout_while(queue, limit, |queue| queue.is_idle());
                drop(awake.unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// Nobody gets the turn any more: lets go of the log, and tells who waits for that.
    fn end(&self) {
        let mut slot = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut writer) = slot.take() {
            // Submitted before the closing, by those who had the turn.
            let mut entries = std::mem::take(&mut self.queue().entries);
            writer.write_all(&mut entries);
            // The lock on the record goes before anybody is told that it has.
            writer.end();
        }
        drop(slot);
        let closed = {
            let mut queue = self.queue();
            queue.ended = true;
            std::mem::take(&mut queue.closed)
        };
        for done in closed {
            let _ = done.send(());
        }
    }

    fn with_writer<T>(&self, act: impl FnOnce(&mut Writer) -> T) -> Option<T> {
        let mut slot = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        slot.as_mut().map(act)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
