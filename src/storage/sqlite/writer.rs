//! The thread that writes: takes whatever is queued, applies it in one transaction, syncs once,
//! answers everybody.
//!
//! Each batch of a group runs inside a savepoint of its own, so that one whose precondition fails
//! fails alone. Claims live in this thread's memory: the file belongs to one process, and a claim
//! ends with the process that holds it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::apply::{self, ApplyError};
use super::file::{self, FileLock};
use super::{
    Change, Committed, Kind, Row, RowKey, SqliteOptions, StorageError, Timestamp, closed, failed,
    read, space,
};
use crate::crypto::envelope::SealedRecord;

/// Pages in the WAL that are worth moving to the main file when there is nothing else to do.
const CHECKPOINT_IDLE_PAGES: i64 = 1000;
/// Pages in the WAL that are moved even while writers wait.
const CHECKPOINT_BUSY_PAGES: i64 = 8000;
/// Length of the WAL, in pages (256 MiB), at which the writer waits for readers to let go of it.
const WAL_PAGES_MAX: i64 = 65_536;

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StorageError>>;

/// What the writer is asked.
pub(super) enum Job {
    /// See [`super::Storage::commit`].
    Commit { batch: Vec<Change>, reply: Reply<Committed> },
    /// See [`super::Storage::reseal`].
    Reseal { rows: Vec<(RowKey, u64, SealedRecord)>, reply: Reply<()> },
    /// See [`super::Storage::claim`].
    Claim {
        kind: Kind,
        now: Timestamp,
        claim_until: Timestamp,
        limit: usize,
        reply: Reply<Vec<Row>>,
    },
}

/// The thread and the queue before it.
#[derive(Debug)]
pub(super) struct Writer {
    queue: SyncSender<Job>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Gives the connection, and the lock on the file, to a thread of their own.
    pub fn start(
        path: &Path,
        connection: Connection,
        lock: FileLock,
        options: SqliteOptions,
    ) -> Result<Self, StorageError> {
        let (queue, jobs) = sync_channel(options.write_queue_max);
        let state = State {
            path: path.to_owned(),
            connection,
            claims: HashMap::new(),
            group_batches_max: options.group_batches_max.max(1),
            wasteful: true,
            shrinking: false,
            _lock: lock,
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || state.run(&jobs))
            .map_err(|error| StorageError::Unavailable(Box::new(error)))?;
        Ok(Self { queue, thread })
    }

    /// Queues a job.
    pub fn submit(&self, job: Job) -> Result<(), StorageError> {
        self.queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => StorageError::Busy,
            TrySendError::Disconnected(_) => closed(),
        })
    }

    /// Commits what is queued, empties the WAL, closes the file and gives up the lock.
    pub fn finish(self) {
        drop(self.queue);
        if self.thread.join().is_err() {
            tracing::error!("the writer of the store ended in a panic");
        }
    }
}

/// A job that changes the file.
enum Write {
    Commit(Vec<Change>, Reply<Committed>),
    Reseal(Vec<(RowKey, u64, SealedRecord)>, Reply<()>),
}

impl Write {
    fn apply(&self, db: &Connection) -> Result<(), ApplyError> {
        match self {
            Self::Commit(batch, _) => apply::batch(db, batch),
            Self::Reseal(rows, _) => apply::reseal(db, rows),
        }
    }

    fn deletes(&self) -> bool {
        let Self::Commit(batch, _) = self else { return false };
        batch.iter().any(|change| matches!(change, Change::Delete { .. }))
    }

    fn answer(self, result: Result<Committed, StorageError>) {
        // Nobody waits for the answer when the request was given up.
        let _ = match self {
            Self::Commit(_, reply) => reply.send(result).is_ok(),
            Self::Reseal(_, reply) => reply.send(result.map(|_| ())).is_ok(),
        };
    }
}

type Claim = Box<dyn FnOnce(&mut State)>;

struct State {
    path: PathBuf,
    connection: Connection,
    /// Until when a row is somebody's.
    claims: HashMap<RowKey, Timestamp>,
    group_batches_max: usize,
    /// Whether the file may hold more free pages than it should.
    wasteful: bool,
    /// Whether some were given back since the WAL was moved.
    shrinking: bool,
    _lock: FileLock,
}

impl State {
    fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let first = match self.next(jobs) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => {
                    self.give_back();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let (mut writes, mut claims) = (Vec::new(), Vec::new());
            sort(first, &mut writes, &mut claims);
            let mut idle = false;
            while writes.len() + claims.len() < self.group_batches_max && !idle {
                match jobs.try_recv() {
                    Ok(job) => sort(job, &mut writes, &mut claims),
                    Err(_) => idle = true,
                }
            }
            if !writes.is_empty() {
                self.commit_group(writes);
            }
            for claim in claims {
                claim(&mut self);
            }
            if let Err(error) = self.checkpoint(idle) {
                // The WAL keeps everything; the next attempt may succeed.
                tracing::warn!(%error, "moving the WAL into the store's file failed");
            }
        }
        if let Err(error) = pragma_checkpoint(&self.connection, "TRUNCATE") {
            tracing::warn!(%error, "the WAL could not be emptied at the end; it is read at start");
        }
    }

    /// Waits for a job; when there is space to give back, not for long.
    fn next(&self, jobs: &Receiver<Job>) -> Result<Job, RecvTimeoutError> {
        match self.wasteful {
            true => jobs.recv_timeout(space::REST),
            false => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// Gives a few pages back, if there are too many free ones.
    fn give_back(&mut self) {
        let given = space::is_wasted(&self.connection).and_then(|wasted| {
            if wasted {
                space::give_back(&self.connection)?;
                self.checkpoint(true)?;
            } else if self.shrinking {
                // The file itself shrinks when the WAL is moved into it.
                pragma_checkpoint(&self.connection, "PASSIVE")?;
            }
            Ok(wasted)
        });
        // After an error it is left until rows are deleted again.
        let wasted = given.unwrap_or_else(|error| {
            tracing::warn!(%error, "no space of the store's file was given back");
            false
        });
        (self.wasteful, self.shrinking) = (wasted, wasted);
    }

    fn commit_group(&mut self, writes: Vec<Write>) {
        self.wasteful |= writes.iter().any(Write::deletes);
        metrics::counter!("leasehold_storage_groups_total").increment(1);
        metrics::counter!("leasehold_storage_grouped_batches_total")
            .increment(u64::try_from(writes.len()).unwrap_or(u64::MAX));
        match apply_group(&self.connection, &writes) {
            Ok((sequence, results)) => {
                for (write, result) in writes.into_iter().zip(results) {
                    if let (Write::Commit(batch, _), Ok(())) = (&write, &result) {
                        self.drop_claims(batch);
                    }
                    write.answer(result.map(|()| Committed { sequence }));
                }
            }
            Err(error) => {
                self.recover();
                let error = Arc::new(error);
                for write in writes {
                    write.answer(Err(failed(error.clone())));
                }
            }
        }
    }

    fn drop_claims(&mut self, batch: &[Change]) {
        if self.claims.is_empty() {
            return;
        }
        for change in batch {
            if let Change::Put { row: Row { key, .. }, .. } | Change::Delete { key, .. } = change {
                self.claims.remove(key);
            }
        }
    }

    /// Leaves no transaction behind, whatever went wrong in it.
    fn recover(&mut self) {
        if self.connection.is_autocommit() {
            return;
        }
        let Err(error) = self.connection.execute_batch("ROLLBACK") else { return };
        if self.connection.is_autocommit() {
            return;
        }
        tracing::error!(%error, "rolling back failed; the store's file is opened again");
        match file::connect_to_write(&self.path) {
            Ok(connection) => self.connection = connection,
            // The old connection still holds its transaction: the next group ends up here again.
            Err(error) => tracing::error!(%error, "the store's file cannot be opened"),
        }
    }

    fn claim(
        &mut self,
        kind: Kind,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        self.claims.retain(|_, held_until| *held_until > now);
        let rows =
            read::due(&self.connection, kind, now, limit, |key| !self.claims.contains_key(key))?;
        self.claims.extend(rows.iter().map(|row| (row.key, until)));
        Ok(rows)
    }

    fn checkpoint(&self, idle: bool) -> rusqlite::Result<()> {
        let wal = pragma_checkpoint(&self.connection, "NOOP")?;
        let unmoved = wal.pages - wal.moved;
        if wal.pages >= WAL_PAGES_MAX {
            pragma_checkpoint(&self.connection, "TRUNCATE")?;
        } else if unmoved >= CHECKPOINT_BUSY_PAGES || (idle && unmoved >= CHECKPOINT_IDLE_PAGES) {
            pragma_checkpoint(&self.connection, "PASSIVE")?;
        }
        Ok(())
    }
}

fn sort(job: Job, writes: &mut Vec<Write>, claims: &mut Vec<Claim>) {
    match job {
        Job::Commit { batch, reply } => writes.push(Write::Commit(batch, reply)),
        Job::Reseal { rows, reply } => writes.push(Write::Reseal(rows, reply)),
        Job::Claim { kind, now, claim_until, limit, reply } => {
            claims.push(Box::new(move |state: &mut State| {
                // Rows claimed for a request that was given up are free again when the claim ends.
                let _ = reply.send(state.claim(kind, now, claim_until, limit));
            }));
        }
    }
}

type GroupResults = (u64, Vec<Result<(), StorageError>>);

/// One transaction. An error leaves it to the caller to end it; nothing of it has happened, or, when
/// the disk failed in the very act of committing, perhaps all of it.
fn apply_group(db: &Connection, writes: &[Write]) -> rusqlite::Result<GroupResults> {
    db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let mut results = Vec::with_capacity(writes.len());
    for write in writes {
        // A single batch needs no savepoint: the transaction is its own.
        let result = if writes.len() == 1 { write.apply(db) } else { apply_alone(db, write)? };
        results.push(match result {
            Ok(()) => Ok(()),
            Err(ApplyError::Refused(error)) => Err(error),
            // SQLite ended the transaction by itself: nobody's changes are left.
            Err(ApplyError::Sqlite(error)) if db.is_autocommit() => return Err(error),
            Err(ApplyError::Sqlite(error)) => Err(failed(error)),
        });
    }
    if results.iter().all(Result::is_err) {
        db.prepare_cached("ROLLBACK")?.execute([])?;
        return Ok((0, results));
    }
    let sequence: i64 = db
        .prepare_cached("UPDATE sequence SET value = value + 1 WHERE id = 1 RETURNING value")?
        .query_row([], |row| row.get(0))?;
    db.prepare_cached("COMMIT")?.execute([])?;
    Ok((super::super::row::count_from_sql(sequence), results))
}

/// Applies one batch of several, or leaves no trace of it. The outer error says that this failed too.
fn apply_alone(db: &Connection, write: &Write) -> rusqlite::Result<Result<(), ApplyError>> {
    db.prepare_cached("SAVEPOINT batch")?.execute([])?;
    let result = write.apply(db);
    if !db.is_autocommit() {
        if result.is_err() {
            db.prepare_cached("ROLLBACK TO batch")?.execute([])?;
        }
        db.prepare_cached("RELEASE batch")?.execute([])?;
    }
    Ok(result)
}

struct WalState {
    pages: i64,
    moved: i64,
}

fn pragma_checkpoint(db: &Connection, mode: &str) -> rusqlite::Result<WalState> {
    db.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?
        .query_row([], |row| Ok(WalState { pages: row.get(1)?, moved: row.get(2)? }))
}
