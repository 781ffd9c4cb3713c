//! What the store keeps about the seal, in clear: the slots, and the keyring sealed under the root key.

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::crypto::aead::Suite;
use crate::crypto::keyring::{Keyring, KeyringError};
use crate::crypto::root::RootKey;
use crate::storage::{Change, Storage};
use crate::types::time::Timestamp;

use super::super::error::CoreError;
use super::slot::{SlotKind, StoredSlot};

const SEAL: &str = "seal";
const KEYRING: &str = "keyring";
/// The layout that this build writes and reads.
const FORMAT: u32 = 1;

/// The seal's configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredSeal {
    format: u32,
    suite: String,
    /// The installation; in every slot's context.
    pub cluster_id: String,
    /// When it was initialised.
    pub created_at: Timestamp,
    /// The ways to the root key.
    pub slots: Vec<StoredSlot>,
}

/// A stored value together with its bytes, which a change of it has to expect.
pub struct Present<T> {
    /// The value.
    pub value: T,
    bytes: Vec<u8>,
}

impl StoredSeal {
    /// Of a new installation.
    pub fn new(
        suite: Suite,
        cluster_id: String,
        created_at: Timestamp,
        slots: Vec<StoredSlot>,
    ) -> Self {
        Self { format: FORMAT, suite: suite.name().to_owned(), cluster_id, created_at, slots }
    }

    /// The stored configuration; `None` when the store was never initialised.
    ///
    /// # Errors
    /// When the store fails, or the configuration is not one that this build knows.
    pub async fn load(storage: &dyn Storage) -> Result<Option<Present<Self>>, CoreError> {
        let Some(bytes) = storage.meta(SEAL).await? else { return Ok(None) };
        let value: Self = serde_json::from_slice(&bytes).map_err(|_| unknown("seal"))?;
        if value.format != FORMAT || Suite::from_name(&value.suite).is_none() {
            return Err(unknown("seal"));
        }
        Ok(Some(Present { value, bytes }))
    }

    /// The cipher that wraps the root key.
    pub fn suite(&self) -> Suite {
        Suite::from_name(&self.suite).unwrap_or(Suite::Aes256Gcm)
    }

    /// The slots that take shares.
    pub fn shared(&self) -> impl Iterator<Item = &StoredSlot> {
        self.slots.iter().filter(|slot| slot.kind == SlotKind::Shamir)
    }

    /// The change that stores it over `before`, and conflicts when that is no longer there.
    ///
    /// # Errors
    /// Never with what this build makes.
    pub fn change(&self, before: Option<&Present<Self>>) -> Result<Change, CoreError> {
        put(SEAL, self, before.map(|present| present.bytes.clone()))
    }
}

/// The keyring, sealed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredKeyring {
    format: u32,
    /// Grows with every change; bound into the seal.
    pub generation: u64,
    sealed: String,
}

impl StoredKeyring {
    /// Seals `keyring`.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn seal(keyring: &Keyring, root: &RootKey, generation: u64) -> Result<Self, CoreError> {
        let sealed = keyring.seal_under(root, generation).map_err(refused)?;
        Ok(Self { format: FORMAT, generation, sealed: BASE64.encode(&sealed) })
    }

    /// The stored keyring.
    ///
    /// # Errors
    /// When the store fails, or has none.
    pub async fn load(storage: &dyn Storage) -> Result<Present<Self>, CoreError> {
        let bytes = storage.meta(KEYRING).await?.ok_or_else(|| unknown("keyring"))?;
        let value: Self = serde_json::from_slice(&bytes).map_err(|_| unknown("keyring"))?;
        if value.format != FORMAT {
            return Err(unknown("keyring"));
        }
        Ok(Present { value, bytes })
    }

    /// Opens it.
    ///
    /// # Errors
    /// When the root key is another one's, or it is damaged.
    pub fn open(&self, root: &RootKey) -> Result<Keyring, CoreError> {
        let sealed = BASE64.decode(self.sealed.as_bytes()).map_err(|_| unknown("keyring"))?;
        Keyring::open_under(root, self.generation, &sealed).map_err(refused)
    }

    /// The change that stores it over `before`, and conflicts when that is no longer there.
    ///
    /// # Errors
    /// Never with what this build makes.
    pub fn change(&self, before: Option<&Present<Self>>) -> Result<Change, CoreError> {
        put(KEYRING, self, before.map(|present| present.bytes.clone()))
    }
}

fn put<T: Serialize>(
    name: &'static str,
    value: &T,
    before: Option<Vec<u8>>,
) -> Result<Change, CoreError> {
    let value = serde_json::to_vec(value).map_err(|_| unknown(name))?;
    Ok(Change::PutMeta { name, value: Some(value), expect: Some(before) })
}

fn unknown(what: &str) -> CoreError {
    CoreError::internal(format!("the stored {what} is not one that this build can read"))
}

fn refused(error: KeyringError) -> CoreError {
    match error {
        KeyringError::Full | KeyringError::StillNeeded(_) => CoreError::invalid(error.to_string()),
        KeyringError::DoesNotOpen
        | KeyringError::Unreadable
        | KeyringError::Seal(_)
        | KeyringError::Random(_) => CoreError::internal(error.to_string()),
    }
}
