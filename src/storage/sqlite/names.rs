//! Which names of a kind have a row, told from memory: a Bloom filter, which forgets no name that was
//! ever written and now and then takes one for written that was not. Most workloads are nobody that
//! anything was said about; to find that out needs no thread and no file.
//!
//! Only one server can have the file open, and every row that it writes is added here before it is
//! queued. So what is not here is not in the file either, once everything was added that was there
//! before.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};

use rusqlite::Connection;

use super::{StorageError, failed, file, read};
use crate::crypto::blind::Tag;
use crate::storage::{Change, Kind, RowKey};
use crate::types::id::NamespaceId;

/// Bits of the filter, 512 KiB. Of 400,000 names it takes one in a hundred for written that is not, of a
/// million one in seven.
const BITS: usize = 1 << 22;
/// What can be told.
const LEARNING: u8 = 0;
const COMPLETE: u8 = 1;
const CLOSED: u8 = 2;
/// How many names are added between two looks at whether the store is being closed.
const NAMES_AT_ONCE: usize = 1024;

/// The names of one kind.
#[derive(Debug)]
pub(super) struct Names {
    kind: Kind,
    /// [`COMPLETE`] once everything is here that the file had, until the store is closed.
    state: AtomicU8,
    words: Box<[AtomicU64]>,
}

impl Names {
    /// None, and nothing told.
    pub fn new(kind: Kind) -> Self {
        let words = (0..BITS / 64).map(|_| AtomicU64::new(0)).collect();
        Self { kind, state: AtomicU8::new(LEARNING), words }
    }

    /// Whether there is no such row, for certain.
    pub fn lack(&self, key: &RowKey) -> bool {
        self.is_of(key)
            && self.state.load(Ordering::Acquire) == COMPLETE
            && self.bits(key.name.as_bytes()).any(|(word, bit)| word & bit == 0)
    }

    /// Adds the rows that `batch` writes. Before it is queued: whoever hears that it was committed
    /// finds them.
    pub fn add(&self, batch: &[Change]) {
        for change in batch {
            if let Change::Put { row, .. } = change
                && self.is_of(&row.key)
            {
                self.add_name(row.key.name.as_bytes());
            }
        }
    }

    /// Adds what the file has, unless it is stopped, and tells what is not here from then on.
    fn learn(&self, connection: &Connection, stop: &AtomicBool) -> Result<(), StorageError> {
        let mut count = 0_usize;
        let each = |name: Tag| {
            self.add_name(name.as_bytes());
            count += 1;
            !count.is_multiple_of(NAMES_AT_ONCE) || !stop.load(Ordering::Relaxed)
        };
        let whole = read::names(connection, NamespaceId::ROOT, self.kind, each).map_err(failed)?;
        if whole {
            // Unless it was closed meanwhile.
            let _ = self.state.compare_exchange(
                LEARNING,
                COMPLETE,
                Ordering::Release,
                Ordering::Relaxed,
            );
        }
        Ok(())
    }

    /// Tells nothing any more: the store is closed, and says so.
    pub fn close(&self) {
        self.state.store(CLOSED, Ordering::Release);
    }

    fn is_of(&self, key: &RowKey) -> bool {
        key.kind == self.kind && key.namespace == NamespaceId::ROOT
    }

    fn add_name(&self, name: &[u8; 16]) {
        for (index, bit) in places(name) {
            if let Some(word) = self.words.get(index) {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    /// The filter's words at the places of a name, each with the bit that is meant.
    fn bits(&self, name: &[u8; 16]) -> impl Iterator<Item = (u64, u64)> {
        places(name).filter_map(|(index, bit)| {
            self.words.get(index).map(|word| (word.load(Ordering::Relaxed), bit))
        })
    }
}

/// The places of a name: word and bit. A name is a keyed hash, so any part of it is a hash as well.
fn places(name: &[u8; 16]) -> impl Iterator<Item = (usize, u64)> {
    name.as_chunks::<4>().0.iter().map(|chunk| {
        let place = u32::from_be_bytes(*chunk) as usize % BITS;
        (place / 64, 1 << (place % 64))
    })
}

/// The thread that adds what the file has. Gives up when it is dropped, if it has not ended yet.
#[derive(Debug)]
pub(super) struct Learning {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Learning {
    /// Begins, on a connection of its own. Nothing is lost without but the short way: `None` where there
    /// is no thread to be had.
    pub fn start(path: &Path, names: Arc<Names>) -> Option<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (path, told) = (path.to_owned(), stop.clone());
        let learn = move || {
            file::connect_to_read(&path)
                .and_then(|connection| names.learn(&connection, &told))
                .unwrap_or_else(|error| unlearned(&error));
        };
        let thread = Builder::new().name("store-names".to_owned()).spawn(learn);
        let thread = thread.inspect_err(unlearned).ok()?;
        Some(Self { stop, thread: Some(thread) })
    }

    /// Ends it, and waits for that.
    pub fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that learns what is in the store ended in a panic");
        }
    }
}

fn unlearned(error: &impl std::fmt::Display) {
    tracing::warn!(%error, "what is not in the store is looked for in its file");
}

impl Drop for Learning {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sqlite::{SqliteOptions, SqliteStorage};

    fn key(name: u8) -> RowKey {
        let name = Tag::from_bytes([name; 16]);
        RowKey { namespace: NamespaceId::ROOT, kind: Kind(1), name }
    }

    /// The path of a store with nothing in it, and its directory.
    fn empty() -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.db");
        drop(SqliteStorage::open(&path, SqliteOptions::default()).unwrap());
        (directory, path)
    }

    #[test]
    fn nothing_is_told_before_everything_is_known_or_after_the_end() {
        let (_directory, path) = empty();
        let connection = file::connect_to_read(&path).unwrap();
        let names = Names::new(Kind(1));
        names.add_name(&[1; 16]);
        let lacking = || [1, 2].map(|name| names.lack(&key(name)));
        assert_eq!(lacking(), [false, false]);
        names.learn(&connection, &AtomicBool::new(false)).unwrap();
        assert_eq!(lacking(), [false, true]);
        names.close();
        assert_eq!(lacking(), [false, false]);
        names.learn(&connection, &AtomicBool::new(false)).unwrap();
        assert_eq!(lacking(), [false, false], "closed for good");
    }

    #[test]
    fn what_could_not_be_learned_whole_is_not_told() {
        let (_directory, path) = empty();
        let writer = file::connect_to_write(&path).unwrap();
        let insert = "INSERT INTO record (namespace, kind, name, parent, rev, term, labels, sealed)
            VALUES (0, 1, ?1, zeroblob(16), 1, 1, x'', x'')";
        for n in 0..NAMES_AT_ONCE as u128 {
            writer.execute(insert, [n.to_be_bytes()]).unwrap();
        }
        let connection = file::connect_to_read(&path).unwrap();
        let stopped = Names::new(Kind(1));
        stopped.learn(&connection, &AtomicBool::new(true)).unwrap();
        assert!(!stopped.lack(&key(2)));
        // A name that nobody could ask for is no reason to tell nothing.
        writer.execute(insert, [[1_u8; 3]]).unwrap();
        let whole = Names::new(Kind(1));
        whole.learn(&connection, &AtomicBool::new(false)).unwrap();
        assert!(
            whole.lack(&key(2))
                && (0..NAMES_AT_ONCE as u128).all(|n| {
                    let name = Tag::from_bytes(n.to_be_bytes());
                    !whole.lack(&RowKey { name, ..key(0) })
                })
        );
        // And a file that fails.
        writer.execute_batch("DROP TABLE record").unwrap();
        let failed = Names::new(Kind(1));
        assert!(failed.learn(&connection, &AtomicBool::new(false)).is_err());
        assert!(!failed.lack(&key(2)));
    }
}
