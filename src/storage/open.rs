//! Opening the store that the configuration names.

use std::path::PathBuf;
use std::sync::Arc;

use super::sqlite::{SqliteOptions, SqliteStorage};
use super::{Storage, StorageError};

/// Which store to open.
#[derive(Debug)]
pub enum StorageSpec {
    /// One file on this machine.
    Sqlite {
        /// The file; made if it is missing.
        path: PathBuf,
    },
}

/// Opens the store and brings its schema up to date.
///
/// # Errors
/// Whatever the store's own opening fails with, above all [`StorageError::CannotOpen`] and
/// [`StorageError::NewerSchema`].
pub async fn open(spec: &StorageSpec) -> Result<Arc<dyn Storage>, StorageError> {
    match spec {
        StorageSpec::Sqlite { path } => {
            let path = path.clone();
            let opened = tokio::task::spawn_blocking(move || {
                SqliteStorage::open(&path, SqliteOptions::default())
            });
            Ok(opened.await.map_err(|error| StorageError::Unavailable(Box::new(error)))??)
        }
    }
}
