//! Stands for the writer of an audit file: keeps what it is asked, and fails when it is told to.

use std::mem::take;
use std::sync::{Arc, Mutex as Plain, MutexGuard as PlainGuard};
use std::time::Duration;

use loom::sync::{Condvar, Mutex};

use crate::core::audit::{PreparedEntry, SinkError};
use crate::types::time;

/// How long a failed log is left alone.
const PROBE: Duration = Duration::from_millis(500);
/// How long lines may wait for being forced to the disk.
const INTERVAL: Duration = Duration::from_secs(1);

/// The disk, as the test sees it.
pub(super) struct Disk {
    seen: Plain<Seen>,
    /// How many lines are forced to the disk.
    forced: Mutex<usize>,
    bell: Condvar,
}

#[derive(Default)]
pub(super) struct Seen {
    pub log: Vec<u32>,
    pub reopened: usize,
    pub ended: bool,
    /// How many of the next groups fail.
    pub failing: usize,
    /// How long each of the next groups takes.
    pub slowness: Vec<Duration>,
    pub unhealthy: bool,
}

impl Disk {
    pub fn new(seen: Seen) -> Arc<Self> {
        Arc::new(Self { seen: Plain::new(seen), forced: Mutex::new(0), bell: Condvar::new() })
    }

    pub fn seen(&self) -> PlainGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// Waits until `lines` are forced to the disk.
    pub fn wait_until_forced(&self, lines: usize) {
        let mut forced = self.forced.lock().unwrap();
        while *forced < lines {
            forced = self.bell.wait(forced).unwrap();
        }
    }

    pub fn sync_data(&self) -> Result<(), SinkError> {
        let lines = self.seen().log.len();
        *self.forced.lock().unwrap() = lines;
        self.bell.notify_one();
        Ok(())
    }
}

pub(super) struct Writer {
    disk: Arc<Disk>,
    begun: bool,
    failed: bool,
    dirty_since: Option<Duration>,
}

impl Writer {
    pub fn new(disk: Arc<Disk>) -> Self {
        Self { disk, begun: false, failed: false, dirty_since: None }
    }

    pub fn begin(&mut self) {
        self.begun = true;
    }

    pub fn end(self) {
        assert!(self.begun, "ended before it began");
        if self.dirty_since.is_some() {
            self.disk.sync_data().unwrap();
        }
        self.disk.seen().ended = true;
    }

    pub fn patience(&self) -> Option<Duration> {
        match (self.failed, self.dirty_since) {
            (true, _) => Some(PROBE),
            (false, Some(since)) => Some(INTERVAL.saturating_sub(time::now() - since)),
            (false, None) => None,
        }
    }

    pub fn has_a_plan(&self) -> bool {
        self.failed || self.dirty_since.is_some()
    }

    pub fn write_all(&mut self, entries: &mut Vec<PreparedEntry>) {
        if entries.is_empty() && !self.failed {
            return;
        }
        {
            let mut seen = self.disk.seen();
            if let Some(slowness) = seen.slowness.pop() {
                time::advance(slowness);
            }
            self.failed = seen.failing > 0;
            seen.failing -= usize::from(self.failed);
            seen.unhealthy = self.failed;
            if !self.failed {
                seen.log.extend(entries.iter().map(|entry| entry.id));
                self.dirty_since.get_or_insert_with(time::now);
            }
        }
        for entry in take(entries) {
            if self.failed { entry.refuse(SinkError::Write) } else { entry.accept() }
        }
    }

    pub fn due_for_sync(&mut self) -> Option<Arc<Disk>> {
        let since = self.dirty_since?;
        if time::now() - since < INTERVAL {
            return None;
        }
        self.dirty_since = None;
        Some(self.disk.clone())
    }

    pub fn synced(&mut self, result: Result<(), SinkError>) {
        result.unwrap();
    }

    pub fn reopen(&mut self) -> Result<(), SinkError> {
        self.disk.seen().reopened += 1;
        Ok(())
    }
}
