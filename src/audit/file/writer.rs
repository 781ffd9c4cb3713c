//! The writing end: numbers and chains entries, writes a group with one call, then tells who waits.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde_json::json;

use super::target::{HeadRecord, Notice, Tail, Target};
use super::{FileSinkConfig, FileSinkError, Standing, SyncPolicy};
use crate::core::audit::chain::{Chain, Mark};
use crate::core::audit::entry::event_body;
use crate::core::audit::{PreparedEntry, SinkError};
use crate::types::time::Clock;

/// Where a group ends when there is more to write, in bytes.
const GROUP_BYTES_MAX: usize = 1 << 20;
/// How often a failed log is tried again while nobody writes.
const PROBE: Duration = Duration::from_millis(500);

pub(super) struct Writer {
    name: String,
    path: PathBuf,
    sync: SyncPolicy,
    clock: Arc<dyn Clock>,
    standing: Arc<Standing>,
    file: Arc<File>,
    record: HeadRecord,
    chain: Chain,
    /// The group being written.
    buffer: Vec<u8>,
    /// Events to write ahead of the next group.
    notices: Vec<Notice>,
    failure: Option<Failure>,
    /// Since when, on the monotonic clock, lines wait for being forced to the disk.
    dirty_since: Option<Duration>,
}

/// What went wrong since the last line that was written well.
struct Failure {
    error: Arc<io::Error>,
    refused: u64,
    /// Length of the log before a write that was cut short.
    cut_to: Option<u64>,
}

impl Writer {
    pub(super) fn open(
        config: FileSinkConfig,
        clock: Arc<dyn Clock>,
        standing: Arc<Standing>,
    ) -> Result<Self, FileSinkError> {
        let FileSinkConfig { name, path, sync, lend: _ } = config;
        let (record, recorded, mut notices) = HeadRecord::open(&path)?;
        let mut target = Target::open(&path)?;
        let head = target.continuation(&path, recorded)?;
        notices.append(&mut target.notices);
        for (event, detail) in &notices {
            tracing::error!(sink = %name, %event, %detail, "the audit log is not as it was left");
        }
        let writer = Self {
            name,
            path,
            sync,
            clock,
            standing,
            file: Arc::new(target.file),
            record,
            chain: Chain::after(head),
            buffer: Vec::with_capacity(64 * 1024),
            notices,
            failure: None,
            dirty_since: None,
        };
        writer.publish_head();
        Ok(writer)
    }

    /// Writes what the audit has to say about itself, ahead of any entry.
    pub(super) fn begin(&mut self) {
        self.write_all(&mut Vec::new());
    }

    /// Lets go of the log, whole and with its head recorded.
    pub(super) fn end(mut self) {
        if self.failure.is_none() && self.dirty_since.is_some() {
            match self.file.sync_data() {
                Ok(()) => self.dirty_since = None,
                Err(error) => {
                    self.failed(error, 0);
                }
            }
        }
        self.write_head();
        let _ = self.record.sync();
    }

    /// How long to sleep when there is nothing to do.
    pub(super) fn patience(&self) -> Option<Duration> {
        match (&self.failure, self.sync, self.dirty_since) {
            (Some(_), _, _) => Some(PROBE),
            (None, SyncPolicy::Interval(interval), Some(since)) => {
                let waited = self.clock.monotonic().saturating_sub(since);
                Some(interval.saturating_sub(waited))
            }
            (None, _, _) => None,
        }
    }

    /// Whether something has to be done though nobody submits anything.
    pub(super) fn has_a_plan(&self) -> bool {
        self.failure.is_some() || self.dirty_since.is_some()
    }

    /// Writes `entries`, and whatever the audit has to say about itself, and tells who waits for them.
    pub(super) fn write_all(&mut self, entries: &mut Vec<PreparedEntry>) {
        if entries.is_empty() && self.notices.is_empty() && self.failure.is_none() {
            return;
        }
        loop {
            self.write_group(entries);
            if entries.is_empty() {
                return;
            }
        }
    }

    /// Writes the first of `entries`, as many as make a group, and tells who waits for them.
    fn write_group(&mut self, entries: &mut Vec<PreparedEntry>) {
        let before = self.chain.clone();
        let (count, result) = match self.whole_len() {
            Ok(len) => {
                let count = self.compose(entries);
                (count, self.put(len))
            }
            Err(error) => (entries.len(), Err(error)),
        };
        match result {
            Ok(()) => {
                self.recovered();
                self.publish_head();
                entries.drain(..count).for_each(PreparedEntry::accept);
                // After the answer: a record that lags by one group is caught up with from the log.
                self.write_head();
            }
            Err(error) => {
                self.chain = before;
                let error = self.failed(error, count);
                for entry in entries.drain(..count) {
                    entry.refuse(SinkError::Write(error.clone()));
                }
            }
        }
    }

    /// The length of the log, once it is sure to hold nothing but whole lines and to have a name.
    fn whole_len(&mut self) -> io::Result<u64> {
        self.mend()?;
        let metadata = self.file.metadata()?;
        if metadata.nlink() > 0 {
            return Ok(metadata.len());
        }
        // The log was deleted rather than rotated: lines must not go where nobody can read them.
        self.notices.push(("log_deleted", json!({"after_seq": self.chain.head().seq})));
        self.reopen_target().map_err(io::Error::other)?;
        self.file.metadata().map(|metadata| metadata.len())
    }

    /// Fills the buffer with events and a group of entries; how many entries went in.
    fn compose(&mut self, entries: &[PreparedEntry]) -> usize {
        self.buffer.clear();
        // What the audit has to say about itself comes ahead of the entries that follow it.
        let now = self.clock.now();
        for (event, detail) in &self.notices {
            let body = event_body(now, event, detail);
            self.chain.append(&body, Mark::Seen(0), &mut self.buffer);
        }
        if let Some(failure) = &self.failure {
            let detail = json!({"refused": failure.refused, "error": failure.error.to_string()});
            let body = event_body(now, "sink_recovered", &detail);
            self.chain.append(&body, Mark::Seen(0), &mut self.buffer);
        }
        let mut count = 0;
        for entry in entries {
            self.chain.append(entry.body(), entry.mark(), &mut self.buffer);
            count += 1;
            if self.buffer.len() >= GROUP_BYTES_MAX {
                break;
            }
        }
        count
    }

    /// Writes the buffer to the log of length `len`: all of it, or nothing once the log is mended.
    fn put(&mut self, len: u64) -> io::Result<()> {
        let durable = self.sync == SyncPolicy::Always || self.failure.is_some();
        let written = (&*self.file).write_all(&self.buffer);
        match written.and_then(|()| if durable { self.file.sync_data() } else { Ok(()) }) {
            Ok(()) if durable => self.dirty_since = None,
            Ok(()) => {
                self.dirty_since.get_or_insert_with(|| self.clock.monotonic());
            }
            Err(error) => {
                self.failure_mut(&error).cut_to = Some(len);
                // At once if it works, so that a crash meanwhile leaves no torn line.
                let _ = self.mend();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Cuts off what a failed write left, so that the chain stays whole.
    fn mend(&mut self) -> io::Result<()> {
        let Some(failure) = &mut self.failure else { return Ok(()) };
        if let Some(len) = failure.cut_to {
            if self.file.metadata()?.len() > len {
                self.file.set_len(len)?;
            }
            failure.cut_to = None;
        }
        Ok(())
    }

    fn failure_mut(&mut self, error: &io::Error) -> &mut Failure {
        if self.failure.is_none() {
            tracing::error!(sink = %self.name, %error, "the audit log cannot be written");
            self.standing.healthy.store(false, Ordering::Release);
        }
        self.failure.get_or_insert_with(|| Failure {
            error: Arc::new(io::Error::new(error.kind(), error.to_string())),
            refused: 0,
            cut_to: None,
        })
    }

    fn failed(&mut self, error: io::Error, entries: usize) -> Arc<io::Error> {
        let failure = self.failure_mut(&error);
        failure.refused = failure.refused.saturating_add(entries as u64);
        failure.error = Arc::new(error);
        failure.error.clone()
    }

    fn recovered(&mut self) {
        self.notices.clear();
        if let Some(failure) = self.failure.take() {
            tracing::warn!(
                sink = %self.name,
                refused = failure.refused,
                "the audit log can be written again"
            );
            self.standing.healthy.store(true, Ordering::Release);
        }
    }

    fn publish_head(&self) {
        *self.standing.head.lock().unwrap_or_else(PoisonError::into_inner) = self.chain.head();
    }

    fn write_head(&self) {
        if let Err(error) = self.record.write(&self.chain.head()) {
            // Not fatal: the log itself says how the chain goes on, unless it is rotated away first.
            tracing::warn!(sink = %self.name, %error, "the audit head record cannot be written");
        }
    }

    /// The log, when lines have waited long enough for being forced to the disk. Whoever gets it
    /// does that, and says how it went with [`Writer::synced`].
    pub(super) fn due_for_sync(&mut self) -> Option<Arc<File>> {
        let (SyncPolicy::Interval(interval), Some(since)) = (self.sync, self.dirty_since) else {
            return None;
        };
        if self.clock.monotonic().saturating_sub(since) < interval {
            return None;
        }
        // Lines that are written from now on wait for the next time.
        self.dirty_since = None;
        Some(self.file.clone())
    }

    /// Notes how forcing the log to the disk went.
    pub(super) fn synced(&mut self, result: io::Result<()>) {
        if let Err(error) = result.and_then(|()| self.record.sync()) {
            self.failed(error, 0);
        }
    }

    /// Goes over to the file that has the log's name now.
    pub(super) fn reopen(&mut self) -> Result<(), SinkError> {
        self.reopen_target().map_err(|error| {
            tracing::error!(sink = %self.name, %error, "the audit log cannot be reopened");
            SinkError::Write(Arc::new(io::Error::other(error)))
        })
    }

    fn reopen_target(&mut self) -> Result<(), FileSinkError> {
        let failed = |source| FileSinkError::Io { path: self.path.clone(), source };
        let old = self.file.metadata().map_err(failed)?;
        let mut target = Target::open(&self.path)?;
        let new = target.file.metadata().map_err(failed)?;
        if (old.dev(), old.ino()) == (new.dev(), new.ino()) {
            return Ok(());
        }
        // The old log is complete from here on, whatever becomes of the new one.
        let _ = self.mend();
        let _ = self.file.sync_all();
        let expected = match target.tail {
            Tail::Empty => true,
            Tail::Line(line) => line.witness == self.chain.head(),
            Tail::Foreign => false,
        };
        if !expected {
            target.notices.push(("unexpected_lines", json!({"after_seq": self.chain.head().seq})));
        }
        self.notices.append(&mut target.notices);
        // What was to be cut was in the old log.
        if let Some(failure) = &mut self.failure {
            failure.cut_to = None;
        }
        self.file = Arc::new(target.file);
        self.write_head();
        let _ = self.record.sync();
        Ok(())
    }
}
