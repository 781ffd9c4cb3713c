//! The embedded store: one SQLite file in WAL mode, opened by one process.
//!
//! One thread owns the connection that writes (see `committer`) and commits whatever is queued in one
//! transaction (see `writer`); a few threads own connections that read (see `reader`). Both are fed by
//! bounded queues: a full one answers [`StorageError::Busy`]. Connections never leave this module.

mod apply;
mod committer;
mod file;
mod names;
mod read;
mod reader;
mod space;
mod threads;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{broadcast, oneshot};

use super::timing::Timer;
use super::{
    Change, Committed, Invalidation, Kind, KindCount, Page, Row, RowKey, Storage, StorageError,
};
use crate::crypto::blind::Tag;
use crate::crypto::envelope::SealedRecord;
use crate::types::id::NamespaceId;
use crate::types::time::Timestamp;
use committer::Committer;
use names::{Learning, Names};
use reader::Readers;
use threads::Threads;
use writer::{Job, Writer};

/// What may be tuned. The defaults suit a server of a few cores.
#[derive(Clone, Copy, Debug)]
pub struct SqliteOptions {
    /// Threads that read.
    pub readers: usize,
    /// Reads that may wait for a thread.
    pub read_queue_max: usize,
    /// Batches that may wait for the writer.
    pub write_queue_max: usize,
    /// Batches committed in one transaction.
    pub group_batches_max: usize,
    /// The kind whose rows are mostly looked for in vain: its names are kept in memory, so that this
    /// costs nothing. Takes 512 KiB.
    pub often_absent: Option<Kind>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            readers: 3,
            read_queue_max: 4096,
            write_queue_max: 1024,
            group_batches_max: 256,
            often_absent: None,
        }
    }
}

/// The store on one SQLite file.
#[derive(Debug)]
pub struct SqliteStorage {
    threads: Threads,
    names: Option<Arc<Names>>,
    learning: Mutex<Option<Learning>>,
    invalidations: broadcast::Sender<Invalidation>,
}

impl SqliteStorage {
    /// Opens the file at `path`, or makes it, with its directory; brings its schema up to date.
    ///
    /// The file is readable by its owner alone, and so is its directory when it is made here. A lock
    /// file beside it keeps a second server out.
    ///
    /// # Errors
    /// [`StorageError::CannotOpen`] when another server holds the file or it cannot be made,
    /// [`StorageError::NewerSchema`], and whatever reading and writing can fail with.
    pub fn open(path: &Path, options: SqliteOptions) -> Result<Arc<Self>, StorageError> {
        let lock = file::prepare(path)?;
        let mut connection = file::connect_to_write(path)?;
        file::migrate(&mut connection)?;
        let readers = (0..options.readers.max(1))
            .map(|_| file::connect_to_read(path))
            .collect::<Result<Vec<_>, _>>()?;
        let readers = Readers::start(readers, options.read_queue_max)?;
        let committer = Committer::new(path, connection, lock);
        let writer = Writer::start(committer, options.write_queue_max, options.group_batches_max)?;
        let threads = Threads::new(writer, readers);
        let names = options.often_absent.map(|kind| Arc::new(Names::new(kind)));
        let learning = names.as_ref().and_then(|names| Learning::start(path, names.clone()));
        Ok(Arc::new(Self {
            threads,
            names,
            learning: Mutex::new(learning),
            invalidations: broadcast::Sender::new(1),
        }))
    }

    async fn read<T: Send + 'static>(
        &self,
        op: &'static str,
        question: impl FnOnce(&Connection) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let _timer = Timer::start(op);
        let (reply, answer) = oneshot::channel();
        self.threads.read(Box::new(move |connection| {
            // Nobody waits for the answer when the request was given up.
            let _ = reply.send(question(connection));
        }))?;
        answer.await.map_err(|_| closed())?
    }

    async fn write<T: Send + 'static>(
        &self,
        op: &'static str,
        job: impl FnOnce(writer::Reply<T>) -> Job + Send,
    ) -> Result<T, StorageError> {
        let _timer = Timer::start(op);
        let (reply, answer) = oneshot::channel();
        self.threads.write(job(reply))?;
        answer.await.map_err(|_| closed())?
    }
}

#[async_trait]
impl Storage for SqliteStorage {
    async fn get(&self, key: RowKey) -> Result<Option<Row>, StorageError> {
        if self.names.as_ref().is_some_and(|names| names.lack(&key)) {
            metrics::counter!("leasehold_storage_known_absent_total").increment(1);
            return Ok(None);
        }
        self.read("get", move |db| read::get(db, key)).await
    }

    async fn list(
        &self,
        namespace: NamespaceId,
        kind: Kind,
        parent: Tag,
        after: Option<Tag>,
        limit: usize,
    ) -> Result<Page, StorageError> {
        self.read("list", move |db| read::list(db, namespace, kind, parent, after, limit)).await
    }

    async fn labelled(
        &self,
        namespace: NamespaceId,
        kind: Kind,
        label: Tag,
        after: Option<Tag>,
        limit: usize,
    ) -> Result<Page, StorageError> {
        self.read("labelled", move |db| read::labelled(db, namespace, kind, label, after, limit))
            .await
    }

    async fn count_labelled(
        &self,
        namespace: NamespaceId,
        kind: Kind,
        label: Tag,
        max: u64,
    ) -> Result<u64, StorageError> {
        self.read("count_labelled", move |db| {
            read::count_labelled(db, namespace, kind, label, max).map_err(failed)
        })
        .await
    }

    async fn due(
        &self,
        kind: Kind,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        self.read("due", move |db| read::due(db, kind, until, limit, |_| true)).await
    }

    async fn next_due(&self, kind: Kind) -> Result<Option<Timestamp>, StorageError> {
        self.read("next_due", move |db| read::next_due(db, kind).map_err(failed)).await
    }

    async fn claim(
        &self,
        kind: Kind,
        now: Timestamp,
        _node: u64,
        claim_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        self.write("claim", |reply| Job::Claim { kind, now, claim_until, limit, reply }).await
    }

    async fn count(&self, kind: Kind, until: Timestamp) -> Result<KindCount, StorageError> {
        self.read("count", move |db| read::count(db, kind, until).map_err(failed)).await
    }

    async fn wrapped_below(
        &self,
        term: u32,
        after: Option<RowKey>,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        self.read("wrapped_below", move |db| read::wrapped_below(db, term, after, limit)).await
    }

    async fn count_wrapped_below(&self, term: u32) -> Result<u64, StorageError> {
        self.read("count_wrapped_below", move |db| {
            read::count_wrapped_below(db, term).map_err(failed)
        })
        .await
    }

    async fn reseal(&self, rows: Vec<(RowKey, u64, SealedRecord)>) -> Result<(), StorageError> {
        self.write("reseal", |reply| Job::Reseal { rows, reply }).await
    }

    async fn commit(&self, batch: Vec<Change>) -> Result<Committed, StorageError> {
        if let Some(names) = &self.names {
            names.add(&batch);
        }
        self.write("commit", |reply| Job::Commit { batch, reply }).await
    }

    async fn meta(&self, name: &'static str) -> Result<Option<Vec<u8>>, StorageError> {
        self.read("meta", move |db| read::meta(db, name).map_err(failed)).await
    }

    async fn sequence(&self) -> Result<u64, StorageError> {
        self.read("sequence", move |db| read::sequence(db).map_err(failed)).await
    }

    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn invalidations(&self) -> broadcast::Receiver<Invalidation> {
        self.invalidations.subscribe()
    }

    async fn close(&self) {
        let Some(running) = self.threads.take() else { return };
        if let Some(names) = &self.names {
            names.close();
        }
        let learning = self.learning.lock().unwrap_or_else(PoisonError::into_inner).take();
        let finish = move || {
            // First, as its connection is one more that has to be closed before the last.
            if let Some(learning) = learning {
                learning.end();
            }
            running.finish();
        };
        if tokio::task::spawn_blocking(finish).await.is_err() {
            tracing::error!("a thread of the store ended in a panic");
        }
    }
}

fn closed() -> StorageError {
    StorageError::Unavailable("the store is closed".into())
}

/// What a failure of SQLite means to the caller.
fn failed(error: impl Into<Arc<rusqlite::Error>>) -> StorageError {
    let error = error.into();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull | ErrorCode::ReadOnly) => StorageError::Full(Box::new(error)),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StorageError::Busy,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StorageError::Corrupt(format!("the SQLite file: {error}"))
        }
        Some(_) | None => StorageError::Unavailable(Box::new(error)),
    }
}

#[cfg(test)]
mod tests;
