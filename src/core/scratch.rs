//! A store for unit tests of what lies above it: real SQLite in a directory that goes with the test.

use std::sync::Arc;

use crate::crypto::aead::Suite;
use crate::crypto::keyring::Keyring;
use crate::storage::Storage;
use crate::storage::sqlite::{SqliteOptions, SqliteStorage};
use crate::types::time::Timestamp;

use super::records::Records;

/// The moment at which tests start their clocks.
pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// A store and the directory it is in.
pub(crate) struct Scratch {
    pub(crate) records: Arc<Records>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) keyring: Arc<Keyring>,
    _dir: tempfile::TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.sqlite");
        let storage: Arc<dyn Storage> =
            SqliteStorage::open(&path, SqliteOptions::default()).unwrap();
        let keyring = Arc::new(Keyring::generate(Suite::Aes256Gcm, NOW).unwrap());
        let records = Arc::new(Records::new(storage.clone(), keyring.clone(), 1 << 20));
        Self { records, storage, keyring, _dir: dir }
    }

    /// The same store as another process would open it, `wrap` put around it.
    pub(crate) fn reopened(&self, storage: Arc<dyn Storage>) -> Arc<Records> {
        Arc::new(Records::new(storage, self.keyring.clone(), 1 << 20))
    }
}
