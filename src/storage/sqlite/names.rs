//! Which names of a kind have a row, told from memory: a Bloom filter, which forgets no name that was
//! ever written and now and then takes one for written that was not. Most workloads are nobody that
//! anything was said about; to find that out needs no thread and no file.
//!
//! Only one process can have the file open, and every row that it writes is added here before it is
//! queued. So what is not here is not in the file either, once everything was added that was there
//! before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};

use rusqlite::Connection;

use super::{StorageError, failed, read};
use crate::storage::{Change, Kind, RowKey};
use crate::types::id::NamespaceId;

/// Bits of the filter, 512 KiB. Of 400,000 names it takes one in a hundred for written that is not, of a
/// million one in seven.
const BITS: usize = 1 << 22;
/// How many names are added between two looks at whether the store is being closed.
const NAMES_AT_ONCE: usize = 1024;

/// The names of one kind.
#[derive(Debug)]
pub(super) struct Names {
    kind: Kind,
    /// Everything that the file had is here.
    complete: AtomicBool,
    words: Box<[AtomicU64]>,
}

impl Names {
    /// None, and nothing told.
    pub fn new(kind: Kind) -> Self {
        let words = (0..BITS / 64).map(|_| AtomicU64::new(0)).collect();
        Self { kind, complete: AtomicBool::new(false), words }
    }

    /// Whether there is no such row, for certain.
    pub fn lack(&self, key: &RowKey) -> bool {
        self.is_of(key)
            && self.complete.load(Ordering::Acquire)
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

    /// Tells nothing any more: the store is closed, and says so.
    pub fn forget(&self) {
        self.complete.store(false, Ordering::Release);
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

/// The thread that adds what the file has.
#[derive(Debug)]
pub(super) struct Learning {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Learning {
    /// Begins, on a connection of its own.
    pub fn start(connection: Connection, names: Arc<Names>) -> Result<Self, StorageError> {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = Builder::new()
            .name("store-names".to_owned())
            .spawn(move || match learn(&connection, &names, &told) {
                Ok(()) => {}
                // Nothing is lost but the short way.
                Err(error) => {
                    tracing::warn!(%error, "what is not in the store is looked for in its file");
                }
            })
            .map_err(|error| StorageError::Unavailable(Box::new(error)))?;
        Ok(Self { stop, thread })
    }

    /// Gives up, if it has not ended yet.
    pub fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            tracing::error!("the thread that learns what is in the store ended in a panic");
        }
    }
}

fn learn(connection: &Connection, names: &Names, stop: &AtomicBool) -> Result<(), StorageError> {
    let mut count = 0_usize;
    let whole = read::names(connection, NamespaceId::ROOT, names.kind, |name| {
        names.add_name(name.as_bytes());
        count += 1;
        !count.is_multiple_of(NAMES_AT_ONCE) || !stop.load(Ordering::Relaxed)
    })
    .map_err(failed)?;
    if whole {
        names.complete.store(true, Ordering::Release);
    }
    Ok(())
}
