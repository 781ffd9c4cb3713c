//! The file and its connections: who may open it, how, and with which schema.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use rustix::fs::{FlockOperation, flock};

use super::super::migrate;
use super::{StorageError, failed};

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// How long to wait for a lock that only a foreign process (a backup, the `sqlite3` shell) can hold.
const FOREIGN_LOCK_WAIT: Duration = Duration::from_secs(5);
const CACHED_STATEMENTS: usize = 64;
/// Page caches, in KiB: the writer's holds the upper levels of every index of a million rows.
const WRITER_CACHE_KIB: i64 = 16 * 1024;
const READER_CACHE_KIB: i64 = 4 * 1024;

/// Keeps other servers out for as long as it lives.
#[derive(Debug)]
pub(super) struct FileLock {
    held: File,
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing is not enough: a child process that is about to exec has the same open file for a
        // moment, and the lock belongs to the open file.
        if let Err(error) = flock(&self.held, FlockOperation::Unlock) {
            tracing::warn!(%error, "the lock on the store's file was not given up");
        }
    }
}

/// Makes the directory and the file if they are missing, closes them to other users, and locks.
pub(super) fn prepare(path: &Path) -> Result<FileLock, StorageError> {
    let cannot = |what: &str, error: io::Error| {
        StorageError::CannotOpen(format!("{what} {}: {error}", path.display()))
    };
    let directory = directory_of(path);
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(&directory)
        .map_err(|error| cannot("making the directory of", error))?;
    let lock = open_private(&beside(path, ".lock")).map_err(|e| cannot("locking", e))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(StorageError::CannotOpen(format!(
                "{} is in use by another server; stop that one first, or share a PostgreSQL store",
                path.display()
            )));
        }
        Err(error) => return Err(cannot("locking", error.into())),
    }
    open_private(path).map_err(|error| cannot("opening", error))?;
    // The file's name must survive a power cut as well as its content does.
    File::open(&directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| cannot("syncing the directory of", error))?;
    Ok(FileLock { held: lock })
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

/// SQLite gives its `-wal` and `-shm` files the mode of the main file.
fn open_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(path)?;
    if file.metadata()?.permissions().mode() & 0o777 != FILE_MODE {
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    }
    Ok(file)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// The connection that writes.
pub(super) fn connect_to_write(path: &Path) -> Result<Connection, StorageError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, WRITER_CACHE_KIB)?;
    let pages: i64 =
        connection.pragma_query_value(None, "page_count", |row| row.get(0)).map_err(failed)?;
    if pages == 0 {
        // For `space`. Only a file that is still empty takes it, and any other would be written to.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(failed)?;
    }
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))
        .map_err(failed)?;
    if mode != "wal" {
        return Err(StorageError::CannotOpen(format!(
            "{} is on a file system without shared memory, which SQLite's WAL needs",
            path.display()
        )));
    }
    let set = |name: &str, value: i64| connection.pragma_update(None, name, value).map_err(failed);
    // FULL: a commit is on the disk before it is answered. NORMAL would lose the last ones.
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    connection.pragma_update_and_check(None, "secure_delete", true, |_| Ok(())).map_err(failed)?;
    // The writer checkpoints between groups, after it has answered.
    set("wal_autocheckpoint", 0)?;
    Ok(connection)
}

/// A connection that reads. It sees what was committed when its query began.
pub(super) fn connect_to_read(path: &Path) -> Result<Connection, StorageError> {
    // Opened for writing, since it must be able to write the shared memory; then forbidden to.
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, READER_CACHE_KIB)?;
    connection.pragma_update(None, "query_only", true).map_err(failed)?;
    Ok(connection)
}

fn connect(path: &Path, access: OpenFlags, cache_kib: i64) -> Result<Connection, StorageError> {
    // No mutex: a connection belongs to one thread. No URI: a file name is only a file name.
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(FOREIGN_LOCK_WAIT).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    // No temporary files: what is rolled back stays in memory.
    connection.pragma_update(None, "temp_store", "MEMORY").map_err(failed)?;
    connection.pragma_update(None, "cache_size", -cache_kib).map_err(failed)?;
    connection.pragma_update(None, "trusted_schema", false).map_err(failed)?;
    connection.pragma_update(None, "cell_size_check", true).map_err(failed)?;
    Ok(connection)
}

/// Brings the schema up to date, in one transaction.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StorageError> {
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    transaction
        .execute_batch("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY)")
        .map_err(failed)?;
    let found: i64 = transaction
        .query_row("SELECT coalesce(max(version), 0) FROM schema_version", [], |row| row.get(0))
        .map_err(failed)?;
    for step in migrate::missing(migrate::SQLITE, found)? {
        transaction.execute_batch(step.sql).map_err(failed)?;
        transaction
            .execute("INSERT INTO schema_version (version) VALUES (?1)", [step.version])
            .map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}
