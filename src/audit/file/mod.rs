//! The file sink: JSON lines, appended by one thread, whole groups at a time.
//!
//! Beside the log `<file>` lie `<file>.head`, which holds the end of the chain so that it goes on when
//! the log was rotated away, and, after a crash in the middle of a line, `<file>.torn` with what was cut
//! off. A log is a regular file of mode 0600 that only one process writes.

mod target;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;

use self::writer::Writer;
use crate::core::audit::chain::Witness;
use crate::core::audit::{AuditSink, PreparedEntry, SinkError};
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
    shared: Arc<Shared>,
}

impl FileSink {
    /// Opens the log, finds the end of its chain and starts the writing thread. Blocks on the disk: for
    /// the start of the server.
    ///
    /// # Errors
    /// When the log cannot be opened or must not be appended to, by name.
    pub fn open(config: FileSinkConfig, clock: Arc<dyn Clock>) -> Result<Self, FileSinkError> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::default()),
            wake: Condvar::new(),
            healthy: AtomicBool::new(true),
            head: Mutex::new(Witness::GENESIS),
        });
        let path = config.path.clone();
        let name = config.name.clone();
        let target = path.display().to_string();
        let writer = Writer::open(config, clock, shared.clone())?;
        thread::Builder::new()
            .name("audit-file".into())
            .spawn(move || writer.run())
            .map_err(|source| FileSinkError::Io { path, source })?;
        Ok(Self { name, target, shared })
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

    fn submit(&self, entry: PreparedEntry) {
        let mut queue = self.shared.lock();
        if queue.closing {
            drop(queue);
            return entry.refuse(SinkError::Closed);
        }
        queue.entries.push(entry);
        // The writer looks again before it sleeps: only the first of a group has to wake it.
        if queue.entries.len() == 1 {
            drop(queue);
            self.shared.wake.notify_one();
        }
    }

    fn healthy(&self) -> bool {
        self.shared.healthy.load(Ordering::Acquire)
    }

    fn head(&self) -> Option<Witness> {
        Some(*self.shared.head.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn reopen(&self) -> Result<(), SinkError> {
        let (done, wait) = oneshot::channel();
        {
            let mut queue = self.shared.lock();
            if queue.closing {
                return Err(SinkError::Closed);
            }
            queue.reopen.push(done);
        }
        self.shared.wake.notify_one();
        wait.await.unwrap_or(Err(SinkError::Closed))
    }

    async fn close(&self) {
        let (done, wait) = oneshot::channel();
        {
            let mut queue = self.shared.lock();
            if queue.ended {
                return;
            }
            queue.closing = true;
            queue.closed.push(done);
        }
        self.shared.wake.notify_one();
        // The writer answers when it has ended, and by ending.
        let _ = wait.await;
    }
}

impl Drop for FileSink {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.wake.notify_one();
    }
}

/// What handle and writer share.
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    healthy: AtomicBool,
    head: Mutex<Witness>,
}

/// What the writer is asked to do. The broker bounds the entries.
#[derive(Default)]
struct Queue {
    entries: Vec<PreparedEntry>,
    reopen: Vec<oneshot::Sender<Result<(), SinkError>>>,
    closed: Vec<oneshot::Sender<()>>,
    closing: bool,
    ended: bool,
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.entries.is_empty() && self.reopen.is_empty() && !self.closing
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is something to do, or for `limit`, and takes it. `entries` has to be empty; its
    /// room is used for the next group.
    fn take(&self, limit: Option<Duration>, entries: &mut Vec<PreparedEntry>) -> Queue {
        let mut queue = self.lock();
        while queue.is_idle() {
            queue = match limit {
                None => self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(limit) => {
                    let woken = self.wake.wait_timeout(queue, limit);
                    let (queue, waited) = woken.unwrap_or_else(PoisonError::into_inner);
                    if waited.timed_out() {
                        return Queue::default();
                    }
                    queue
                }
            };
        }
        std::mem::swap(&mut queue.entries, entries);
        Queue {
            entries: Vec::new(),
            reopen: std::mem::take(&mut queue.reopen),
            closed: Vec::new(),
            closing: queue.closing,
            ended: false,
        }
    }

    /// The writer is gone: tells who waits for that.
    fn end(&self) {
        let closed = {
            let mut queue = self.lock();
            queue.ended = true;
            std::mem::take(&mut queue.closed)
        };
        for done in closed {
            let _ = done.send(());
        }
    }
}
