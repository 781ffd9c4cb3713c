//! The bounded cache of decrypted records. Evicted and cleared bodies are wiped as they are dropped.

use std::hash::BuildHasher;
use std::sync::{Mutex, PoisonError};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::storage::RowKey;

use super::records::Record;

const SHARDS: usize = 64;
/// What an entry costs beside its body: key, name, bookkeeping.
const ENTRY_OVERHEAD_BYTES: u64 = 256;
const ENTRY_BYTES_TYPICAL: u64 = 1024;

#[derive(Clone)]
struct ByBytes;

impl Weighter<RowKey, Record> for ByBytes {
    fn weight(&self, _: &RowKey, record: &Record) -> u64 {
        ENTRY_OVERHEAD_BYTES + record.name.len() as u64 + record.body.len() as u64
    }
}

/// Decrypted records by row.
///
/// A reader that missed notes the row's [`epoch`](Self::epoch) before it asks the store, and what it
/// loaded is kept only when no writer came by meanwhile: an answer older than an acknowledged write is
/// never cached.
pub(super) struct RecordCache {
    entries: Cache<RowKey, Record, ByBytes>,
    epochs: Vec<Mutex<u64>>,
    hasher: std::hash::RandomState,
}

impl RecordCache {
    pub(super) fn new(bytes_max: u64) -> Self {
        let items = usize::try_from(bytes_max / ENTRY_BYTES_TYPICAL).unwrap_or(usize::MAX).max(16);
        Self {
            entries: Cache::with_weighter(items, bytes_max, ByBytes),
            epochs: (0..SHARDS).map(|_| Mutex::new(0)).collect(),
            hasher: std::hash::RandomState::new(),
        }
    }

    pub(super) fn get(&self, key: &RowKey) -> Option<Record> {
        self.entries.get(key)
    }

    /// The state of the row's shard, to be noted before the store is asked.
    pub(super) fn epoch(&self, key: &RowKey) -> u64 {
        self.shard(key).map_or(0, |epoch| *epoch.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps `record` unless something in its shard was written since `noted`.
    pub(super) fn insert_if(&self, key: RowKey, record: Record, noted: u64) {
        let Some(shard) = self.shard(&key) else { return };
        let epoch = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if *epoch == noted {
            self.entries.insert(key, record);
        }
    }

    /// Forgets a row that was, or may have been, changed.
    pub(super) fn remove(&self, key: RowKey) {
        let Some(shard) = self.shard(&key) else { return };
        let mut epoch = shard.lock().unwrap_or_else(PoisonError::into_inner);
        *epoch = epoch.wrapping_add(1);
        self.entries.remove(&key);
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        for shard in &self.epochs {
            let mut epoch = shard.lock().unwrap_or_else(PoisonError::into_inner);
            *epoch = epoch.wrapping_add(1);
        }
        self.entries.clear();
    }

    fn shard(&self, key: &RowKey) -> Option<&Mutex<u64>> {
        let index = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        self.epochs.get(index)
    }
}
