//! The bounded cache of decrypted records. Evicted and cleared bodies are wiped as they are dropped.

use std::sync::{Mutex, PoisonError};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::storage::RowKey;

use super::records::Record;

/// So many that writers who come at the same moment seldom meet in one.
const SHARDS: usize = 1024;
/// What an entry costs beside its body: key, name, bookkeeping.
const ENTRY_OVERHEAD_BYTES: u64 = 256;
const ENTRY_BYTES_TYPICAL: u64 = 1024;

#[derive(Clone)]
struct ByBytes;

impl Weighter<RowKey, Cached> for ByBytes {
    fn weight(&self, _: &RowKey, cached: &Cached) -> u64 {
        let text = |record: &Record| record.name.len() as u64 + record.body.len() as u64;
        ENTRY_OVERHEAD_BYTES + cached.as_ref().map_or(0, text)
    }
}

/// What is known of a row: its record, or `None` when there is none.
type Cached = Option<Record>;

/// Decrypted records by row, and rows that there are none of.
///
/// A reader that missed notes the row's [`epoch`](Self::epoch) before it asks the store, and what it
/// loaded is kept only when no writer came by meanwhile: an answer older than an acknowledged write is
/// never cached. A writer does the same, and what it wrote takes the place of what was there, unless
/// anything came or went meanwhile: a reader may have brought what another writer has committed since.
pub(super) struct RecordCache {
    entries: Cache<RowKey, Cached, ByBytes>,
    epochs: Vec<Mutex<u64>>,
}

impl RecordCache {
    pub(super) fn new(bytes_max: u64) -> Self {
        let items = usize::try_from(bytes_max / ENTRY_BYTES_TYPICAL).unwrap_or(usize::MAX).max(16);
        Self {
            entries: Cache::with_weighter(items, bytes_max, ByBytes),
            epochs: (0..SHARDS).map(|_| Mutex::new(0)).collect(),
        }
    }

    pub(super) fn get(&self, key: &RowKey) -> Option<Cached> {
        self.entries.get(key)
    }

    /// The state of the row's shard, to be noted before the store is asked.
    pub(super) fn epoch(&self, key: &RowKey) -> u64 {
        self.shard(key).map_or(0, |epoch| *epoch.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps what the store said of a row unless something in its shard was written or kept since `noted`.
    pub(super) fn insert_if(&self, key: RowKey, found: Cached, noted: u64) {
        let Some(shard) = self.shard(&key) else { return };
        let mut epoch = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if *epoch == noted {
            *epoch = epoch.wrapping_add(1);
            self.entries.insert(key, found);
        }
    }

    /// Brings a row that was changed up to date if it is here, or forgets it when something else in its
    /// shard was written or kept since `noted`.
    pub(super) fn replace_if(&self, key: RowKey, record: Record, noted: u64) {
        let Some(shard) = self.shard(&key) else { return };
        let mut epoch = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if *epoch != noted || self.entries.replace(key, Some(record), true).is_err() {
            self.entries.remove(&key);
        }
        *epoch = epoch.wrapping_add(1);
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
        // Names are tags, as evenly spread as any hash of them.
        let [first, second, ..] = *key.name.as_bytes();
        self.epochs.get(usize::from(u16::from_be_bytes([first, second])) % SHARDS)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::core::records::kinds;
    use crate::crypto::blind::Tag;
    use crate::types::id::NamespaceId;
    use crate::types::secret::SecretBytes;

    const ROW: RowKey = RowKey {
        namespace: NamespaceId::ROOT,
        kind: kinds::MOUNT_DATA,
        name: Tag::from_bytes([7; 16]),
    };

    fn record(rev: u64) -> Record {
        let body = Arc::new(SecretBytes::new(vec![1]));
        Record { name: "m/a".into(), rev, due_at: None, body }
    }

    /// A cache with the first revision of a row, and what two writers and a reader note of it.
    fn with_first() -> (RecordCache, u64) {
        let cache = RecordCache::new(1 << 20);
        cache.insert_if(ROW, Some(record(1)), cache.epoch(&ROW));
        let noted = cache.epoch(&ROW);
        (cache, noted)
    }

    fn revision(cache: &RecordCache) -> Option<u64> {
        cache.get(&ROW).flatten().map(|record| record.rev)
    }

    #[test]
    fn what_is_written_takes_the_place_of_what_was_read() {
        let (cache, noted) = with_first();
        cache.replace_if(ROW, record(2), noted);
        assert_eq!(revision(&cache), Some(2));
        // A reader that asked before the write was done brings what it said before.
        cache.insert_if(ROW, Some(record(1)), noted);
        assert_eq!(revision(&cache), Some(2));
    }

    #[test]
    fn what_nobody_read_is_not_kept_because_it_was_written() {
        let cache = RecordCache::new(1 << 20);
        cache.replace_if(ROW, record(2), cache.epoch(&ROW));
        assert_eq!(revision(&cache), None);
    }

    #[test]
    fn of_writers_who_may_have_come_in_another_order_nothing_is_kept() {
        for (one, other) in [(2, 3), (3, 2)] {
            let (cache, noted) = with_first();
            cache.replace_if(ROW, record(one), noted);
            cache.replace_if(ROW, record(other), noted);
            assert_eq!(revision(&cache), None);
        }
        // Another node's write, of which this one hears while it writes.
        let (cache, noted) = with_first();
        cache.remove(ROW);
        cache.insert_if(ROW, Some(record(3)), cache.epoch(&ROW));
        cache.replace_if(ROW, record(2), noted);
        assert_eq!(revision(&cache), None);
    }

    #[test]
    fn what_a_reader_brought_of_a_later_write_is_not_put_back() {
        let (cache, noted) = with_first();
        // Both writers have committed and know nothing of it yet.
        cache.insert_if(ROW, Some(record(3)), noted);
        assert_eq!(revision(&cache), Some(3));
        cache.replace_if(ROW, record(2), noted);
        assert_eq!(revision(&cache), None);
    }

    #[test]
    fn what_is_not_there_is_known_until_it_is_written() {
        let cache = RecordCache::new(1 << 20);
        let known_absent = || cache.get(&ROW).is_some_and(|cached| cached.is_none());
        let noted = cache.epoch(&ROW);
        cache.insert_if(ROW, None, noted);
        assert!(known_absent());
        // Here by a commit, or on another node.
        cache.remove(ROW);
        assert!(cache.get(&ROW).is_none());
        // Who asked before that knows nothing.
        cache.insert_if(ROW, None, noted);
        assert!(!known_absent());
    }

    #[test]
    fn nothing_comes_back_after_everything_was_forgotten() {
        let (cache, noted) = with_first();
        cache.clear();
        cache.replace_if(ROW, record(2), noted);
        cache.insert_if(ROW, Some(record(1)), noted);
        assert_eq!(revision(&cache), None);
    }
}
