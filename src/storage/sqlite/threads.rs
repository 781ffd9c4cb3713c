//! The threads while the store is open, and how it is closed under those who use it.

use std::sync::PoisonError;

use super::reader::{Question, Readers};
use super::writer::{Job, Writer};
use super::{StorageError, closed};
use crate::types::sync::RwLock;

/// The threads of an open store, or nothing.
#[derive(Debug)]
pub(super) struct Threads {
    /// Taken out to close; the threads end when their queues are gone and empty.
    running: RwLock<Option<Running>>,
}

/// The threads themselves.
#[derive(Debug)]
pub(super) struct Running {
    writer: Writer,
    readers: Readers,
}

impl Threads {
    pub fn new(writer: Writer, readers: Readers) -> Self {
        Self { running: RwLock::new(Some(Running { writer, readers })) }
    }

    /// Queues a job for the writer, unless the store is closed.
    pub fn write(&self, job: Job) -> Result<(), StorageError> {
        self.with_running(|running| running.writer.submit(job))
    }

    /// Queues a question for the readers, unless the store is closed.
    pub fn read(&self, question: Question) -> Result<(), StorageError> {
        self.with_running(|running| running.readers.submit(question))
    }

    /// Closes the store to new jobs, and gives what is left to [`Running::finish`]; nothing when
    /// somebody else does that.
    pub fn take(&self) -> Option<Running> {
        self.running.write().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn with_running(
        &self,
        act: impl FnOnce(&Running) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        act(running.as_ref().ok_or_else(closed)?)
    }
}

impl Running {
    /// Has everything done that is queued. Blocks until the threads have ended.
    pub fn finish(self) {
        // Readers first: the last connection to close is the one that empties the WAL.
        self.readers.finish();
        self.writer.finish();
    }
}
