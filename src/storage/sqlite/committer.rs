//! What commits groups: the connection that writes, and the claims.
//!
//! A batch whose precondition fails fails alone: then the group is done again, each of its batches
//! inside a savepoint of its own. Claims live in memory: the file belongs to one process, and a claim
//! ends with the process that holds it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::apply::{self, ApplyError, Floor};
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

fn deletes(write: &Write) -> bool {
    let Write::Commit(batch, _) = write else { return false };
    batch.iter().any(|change| matches!(change, Change::Delete { .. }))
}

type GroupResults = (u64, Vec<Result<(), StorageError>>);

/// One transaction. An error leaves it to the caller to end it; nothing of it has happened, or, when
/// the disk failed in the very act of committing, perhaps all of it.
fn apply_group(db: &Connection, writes: &[Write]) -> rusqlite::Result<GroupResults> {
    db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    // Batches are seldom refused, and a savepoint for each costs more than a few that are done twice.
    let results = match apply_all(db, writes)? {
        Ok(()) => writes.iter().map(|_| Ok(())).collect(),
        Err(refused) if writes.len() == 1 => vec![Err(refused)],
        Err(_) => {
            db.prepare_cached("ROLLBACK")?.execute([])?;
            db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            apply_each(db, writes)?
        }
    };
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

/// Applies batches until one is refused, of which, and of those before it, traces are left then.
fn apply_all(db: &Connection, writes: &[Write]) -> rusqlite::Result<Result<(), StorageError>> {
    let mut floor = Floor::default();
    for write in writes {
        if let Err(error) = apply_one(db, write, &mut floor) {
            return refused(db, error).map(Err);
        }
    }
    Ok(Ok(()))
}

/// Applies each batch, or leaves no trace of it, and says which.
fn apply_each(
    db: &Connection,
    writes: &[Write],
) -> rusqlite::Result<Vec<Result<(), StorageError>>> {
    let mut floor = Floor::default();
    let apply = |write| {
        db.prepare_cached("SAVEPOINT batch")?.execute([])?;
        let result = match apply_one(db, write, &mut floor) {
            Ok(()) => Ok(()),
            Err(error) => Err(refused(db, error)?),
        };
        if result.is_err() {
            db.prepare_cached("ROLLBACK TO batch")?.execute([])?;
            floor.forget();
        }
        db.prepare_cached("RELEASE batch")?.execute([])?;
        Ok(result)
    };
    writes.iter().map(apply).collect()
}

fn apply_one(db: &Connection, write: &Write, floor: &mut Floor) -> Result<(), ApplyError> {
    match write {
        Write::Commit(batch, _) => apply::batch(db, batch, floor),
        Write::Reseal(rows, _) => apply::reseal(db, rows, floor),
    }
}

/// What a batch's author is told. The outer error says that SQLite ended the whole transaction by
/// itself, so that nobody's changes are left.
fn refused(db: &Connection, error: ApplyError) -> rusqlite::Result<StorageError> {
    match error {
        ApplyError::Refused(error) => Ok(error),
        ApplyError::Sqlite(error) if db.is_autocommit() => Err(error),
        ApplyError::Sqlite(error) => Ok(failed(error)),
    }
}

struct WalState {
    pages: i64,
    moved: i64,
}

fn pragma_checkpoint(db: &Connection, mode: &str) -> rusqlite::Result<WalState> {
    db.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?
        .query_row([], |row| Ok(WalState { pages: row.get(1)?, moved: row.get(2)? }))
}
