//! Which versions of the server have opened this store, and since when.

use serde::{Deserialize, Serialize};

use crate::storage::StorageError;
use crate::types::id::NamespaceId;
use crate::types::time::Timestamp;

use super::context::Unsealed;
use super::error::CoreError;
use super::records::kinds;
use super::view::{Entry, View};

/// Name of the one record.
const NAME: &str = "versions";
/// How often the record is read again when another node writes it at the same time.
const ATTEMPTS: usize = 8;

/// A version, and when it opened the store for the first time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// The version.
    pub version: String,
    /// When.
    pub since: Timestamp,
}

/// Notes that `version` has opened the store, unless it was noted before.
///
/// # Errors
/// When the store fails.
pub(in crate::core) async fn note(
    unsealed: &Unsealed,
    version: &str,
    now: Timestamp,
) -> Result<(), CoreError> {
    let view = view(unsealed);
    for _ in 0..ATTEMPTS {
        let stored = view.get_fresh::<Vec<Installed>>(NAME).await?;
        let precondition = Entry::expected(stored.as_ref());
        let mut all = stored.map(|entry| entry.value).unwrap_or_default();
        if all.iter().any(|one| one.version == version) {
            return Ok(());
        }
        all.push(Installed { version: version.to_owned(), since: now });
        match view.write(NAME, &all, precondition).await {
            Err(CoreError::Storage(StorageError::Conflict)) => {}
            other => return other,
        }
    }
    Err(StorageError::Conflict.into())
}

/// All that were noted, in the order in which they came.
///
/// # Errors
/// When the store fails.
pub async fn history(unsealed: &Unsealed) -> Result<Vec<Installed>, CoreError> {
    let stored = view(unsealed).get_fresh::<Vec<Installed>>(NAME).await?;
    Ok(stored.map(|entry| entry.value).unwrap_or_default())
}

fn view(unsealed: &Unsealed) -> View {
    View::new(unsealed.records.clone(), NamespaceId::ROOT, kinds::SETTING, String::new())
}
