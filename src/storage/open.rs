//! Opening the store that the configuration names.

use std::path::PathBuf;
use std::sync::Arc;

use super::postgres::{PostgresOptions, PostgresStorage};
use super::sqlite::{SqliteOptions, SqliteStorage};
use super::{Kind, Storage, StorageError};
use crate::types::secret::SecretString;

/// Which store to open.
#[derive(Debug)]
pub enum StorageSpec {
    /// One file on this machine.
    Sqlite {
        /// The file; made if it is missing.
        path: PathBuf,
        /// As in [`SqliteOptions`].
        often_absent: Option<Kind>,
    },
    /// A PostgreSQL database, shared by all nodes of a cluster.
    Postgres {
        /// `postgres://user:password@host:port/database?sslmode=…`.
        url: SecretString,
        /// Certificate authorities of the server, PEM. Needed for `sslmode=verify-ca|verify-full`.
        ca_file: Option<PathBuf>,
        /// Connections in the pool; one more listens for changes.
        max_connections: usize,
    },
}

/// Opens the store and brings its schema up to date.
///
/// # Errors
/// Whatever the store's own opening fails with, above all [`StorageError::CannotOpen`] and
/// [`StorageError::NewerSchema`].
pub async fn open(spec: &StorageSpec) -> Result<Arc<dyn Storage>, StorageError> {
    match spec {
        StorageSpec::Sqlite { path, often_absent } => {
            let path = path.clone();
            let options = SqliteOptions { often_absent: *often_absent, ..SqliteOptions::default() };
            let opened = tokio::task::spawn_blocking(move || SqliteStorage::open(&path, options));
            // The error of a panic would quote what it was about.
            Ok(opened
                .await
                .map_err(|_| StorageError::Unavailable("opening it panicked".into()))??)
        }
        StorageSpec::Postgres { url, ca_file, max_connections } => {
            let options =
                PostgresOptions { max_connections: *max_connections, ..PostgresOptions::default() };
            Ok(PostgresStorage::connect(url, ca_file.as_deref(), options).await?)
        }
    }
}
