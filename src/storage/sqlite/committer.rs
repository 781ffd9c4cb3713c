//! What commits groups: the connection that writes, and the claims.
//!
//! Each batch of a group runs inside a savepoint of its own, so that one whose precondition fails
//! fails alone. Claims live in memory: the file belongs to one process, and a claim ends with the
//! process that holds it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::apply::{self, ApplyError};
use super::file::{self, FileLock};
use super::writer::Write;
use super::{Change, Committed, Kind, Row, RowKey, StorageError, Timestamp, failed, read, space};

/// Pages in the WAL that are worth moving to the main file when there is nothing else to do.
const CHECKPOINT_IDLE_PAGES: i64 = 1000;
/// Pages in the WAL that are moved even while writers wait.
const CHECKPOINT_BUSY_PAGES: i64 = 8000;
/// Length of the WAL, in pages (256 MiB), at which the writer waits for readers to let go of it.
const WAL_PAGES_MAX: i64 = 65_536;

/// The store's file, for writing.
pub(super) struct Committer {
    path: PathBuf,
    connection: Connection,
    /// Until when a row is somebody's.
    claims: HashMap<RowKey, Timestamp>,
    /// Whether the file may hold more free pages than it should.
    wasteful: bool,
    /// Whether some were given back since the WAL was moved.
    shrinking: bool,
    _lock: FileLock,
}

impl Committer {
    /// Over the file at `path`, with the lock that keeps others out.
    pub fn new(path: &Path, connection: Connection, lock: FileLock) -> Self {
        Self {
            path: path.to_owned(),
            connection,
            claims: HashMap::new(),
            wasteful: true,
            shrinking: false,
            _lock: lock,
        }
    }

    /// Commits `writes` together, and says of each what became of it.
    pub fn commit(&mut self, writes: &[Write]) -> Vec<Result<Committed, StorageError>> {
        self.wasteful |= writes.iter().any(deletes);
        metrics::counter!("leasehold_storage_groups_total").increment(1);
        metrics::counter!("leasehold_storage_grouped_batches_total")
            .increment(u64::try_from(writes.len()).unwrap_or(u64::MAX));
        match apply_group(&self.connection, writes) {
            Ok((sequence, results)) => {
                for (write, result) in writes.iter().zip(&results) {
                    if let (Write::Commit(batch, _), Ok(())) = (write, result) {
                        self.drop_claims(batch);
                    }
                }
                let committed = |result: Result<(), _>| result.map(|()| Committed { sequence });
                results.into_iter().map(committed).collect()
            }
            Err(error) => {
                self.recover();
                let error = Arc::new(error);
                writes.iter().map(|_| Err(failed(error.clone()))).collect()
            }
        }
    }

    /// Claims rows that are due, see [`super::Storage::claim`].
    pub fn claim(
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

    /// How long to wait for a job before [`Committer::give_back`]; forever, when there is nothing to.
    pub fn patience(&self) -> Option<Duration> {
        self.wasteful.then_some(space::REST)
    }

    /// Gives a few pages back, if there are too many free ones.
    pub fn give_back(&mut self) {
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

    /// Moves the WAL into the file when it is worth it. `idle` says that nobody waits.
    pub fn tidy(&self, idle: bool) {
        if let Err(error) = self.checkpoint(idle) {
            // The WAL keeps everything; the next attempt may succeed.
            tracing::warn!(%error, "moving the WAL into the store's file failed");
        }
    }

    /// Empties the WAL, closes the file and gives up the lock.
    pub fn end(self) {
        if let Err(error) = pragma_checkpoint(&self.connection, "TRUNCATE") {
            tracing::warn!(%error, "the WAL could not be emptied at the end; it is read at start");
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

fn apply_one(db: &Connection, write: &Write) -> Result<(), ApplyError> {
    match write {
        Write::Commit(batch, _) => apply::batch(db, batch),
        Write::Reseal(rows, _) => apply::reseal(db, rows),
    }
}

fn deletes(write: &Write) -> bool {
    let Write::Commit(batch, _) = write else { return false };
    batch.iter().any(|change| matches!(change, Change::Delete { .. }))
}

type GroupResults = (u64, Vec<Result<(), StorageError>>);

/// One transaction. An error leaves it to the caller to end it; nothing of it has happened, or, when
/// the disk failed in the very act of committing, perhaps all of it.
fn apply_group(db: &Connection, writes: &[Write]) -> rusqlite::Result<GroupResults> {
    db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let mut results = Vec::with_capacity(writes.len());
    for write in writes {
        // A single batch needs no savepoint: the transaction is its own.
        let result = if writes.len() == 1 { apply_one(db, write) } else { apply_alone(db, write)? };
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
    let result = apply_one(db, write);
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
