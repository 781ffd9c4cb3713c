//! The file sink: JSON lines, appended whole groups at a time, by a thread of its own or in the time of
//! those who wait for them ([`turns`]).
//!
//! Beside the log `<file>` lie `<file>.head`, which holds the end of the chain so that it goes on when
//! the log was rotated away, and, after a crash in the middle of a line, `<file>.torn` with what was cut
//! off. A log is a regular file of mode 0600 that only one process writes.

mod target;
mod turns;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;

use self::turns::Turns;
use self::writer::Writer;
use crate::core::audit::chain::Witness;
use crate::core::audit::{AuditSink, PreparedEntry, SinkError, Turn};
use crate::types::time::Clock;

/// When lines are forced to the disk. Either way they have reached the kernel before an entry counts as
/// accepted, so that the death of the process loses none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before an entry counts as accepted: not even power loss loses one.
    Always,
    /// At most this long after: power loss can cost the entries of that time.
    Interval(Duration),
}

/// What a file sink needs to know.
#[derive(Clone, Debug)]
pub struct FileSinkConfig {
    /// The sink's name in metrics and logs.
    pub name: String,
    /// The log.
    pub path: PathBuf,
    /// When it is forced to the disk.
    pub sync: SyncPolicy,
    /// Whether a task that waits for its entry may write the group that the entry is in. Saves the
    /// way to the writing thread and back; a write that hangs then holds up the thread that runs the task,
    /// so there have to be others. Without effect with [`SyncPolicy::Always`].
    pub lend: bool,
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum FileSinkError {
    /// The operating system said no.
    #[error("cannot open {}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// A device, a pipe, a directory: nothing that can be read back and cut.
    #[error("{} is not a regular file", path.display())]
    NotRegular {
        /// Which file.
        path: PathBuf,
    },
    /// Somebody else could change the log.
    #[error("{} is writable by its group or by others (mode {mode:03o}); use mode 600", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Two writers would break the chain.
    #[error("{} is being written by another process", path.display())]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// The file does not end like an audit log, and nothing tells how the chain goes on.
    #[error("{} does not end in an audit entry; move it away to begin a new log", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
    },
}

/// Appends entries to a file.
pub struct FileSink {
    name: String,
    target: String,
    standing: Arc<Standing>,
    turns: Arc<Turns>,
}

/// How the log stands, as told to those who ask.
struct Standing {
    healthy: AtomicBool,
    head: Mutex<Witness>,
}

impl FileSink {
    /// Opens the log, finds the end of its chain and starts the writing thread. Blocks on the disk: for
    /// the start of the server.
    ///
    /// # Errors
    /// When the log cannot be opened or must not be appended to, by name.
    pub fn open(config: FileSinkConfig, clock: Arc<dyn Clock>) -> Result<Self, FileSinkError> {
        let standing = Arc::new(Standing {
            healthy: AtomicBool::new(true),
            head: Mutex::new(Witness::GENESIS),
        });
        let path = config.path.clone();
        let name = config.name.clone();
        let target = path.display().to_string();
        let lend = config.lend && matches!(config.sync, SyncPolicy::Interval(_));
        let writer = Writer::open(config, clock.clone(), standing.clone())?;
        let turns = Arc::new(Turns::new(writer, clock, lend));
        let working = turns.clone();
        thread::Builder::new()
            .name("audit-file".into())
            .spawn(move || working.work())
            .map_err(|source| FileSinkError::Io { path, source })?;
        Ok(Self { name, target, standing, turns })
    }
}

/// The end of the chain as recorded beside the log at `path`: what the last line of the log has to be.
///
/// # Errors
/// When the record is there and cannot be read.
pub fn recorded_head(path: &Path) -> io::Result<Option<Witness>> {
    target::read_head_record(&target::head_path(path))
}

#[async_trait]
impl AuditSink for FileSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn target(&self) -> String {
        self.target.clone()
    }

    fn submit(&self, entry: PreparedEntry) -> Turn {
        self.turns.submit(entry, self.healthy())
    }

    fn write(&self) {
        self.turns.write();
    }

    fn hand_over(&self) {
        self.turns.hand_over();
    }

    fn healthy(&self) -> bool {
        self.standing.healthy.load(Ordering::Acquire)
    }

    fn head(&self) -> Option<Witness> {
        Some(*self.standing.head.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn reopen(&self) -> Result<(), SinkError> {
        self.turns.reopen().await.unwrap_or(Err(SinkError::Closed))
    }

    async fn close(&self) {
        self.turns.close().await;
    }
}

impl Drop for FileSink {
    fn drop(&mut self) {
        self.turns.stop();
    }
}
