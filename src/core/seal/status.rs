//! What can be said about the seal to anybody.

use super::super::context::{Core, Phase};
use super::super::error::CoreError;
use super::slot::SlotKind;
use super::stored::StoredSeal;

/// Where the seal stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealStatus {
    /// The kind of the slot that people use, or else of the first.
    pub kind: &'static str,
    /// Whether there is anything to unseal.
    pub initialized: bool,
    /// Whether the keys are missing.
    pub sealed: bool,
    /// Shares that open; while two sets are valid, of the one that takes more.
    pub threshold: u8,
    /// Shares of that set.
    pub shares: u8,
    /// Shares given so far.
    pub progress: usize,
    /// Tells this gathering from others; empty while nothing is given.
    pub nonce: String,
    /// The installation, while unsealed.
    pub cluster_id: Option<String>,
}

impl Core {
    /// Whether the store was initialised, by whichever node.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn is_initialized(&self) -> Result<bool, CoreError> {
        if !matches!(&*self.phase(), Phase::Uninitialized) {
            return Ok(true);
        }
        if !is_initialized(self.storage.as_ref()).await? {
            return Ok(false);
        }
        // The lock keeps an unsealing that ends just now from being undone.
        self.seal.keys.while_locked(|| {
            if matches!(&*self.phase(), Phase::Uninitialized) {
                self.set_phase(Phase::Sealed);
            }
        });
        Ok(true)
    }

    /// Where the seal stands.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn seal_status(&self) -> Result<SealStatus, CoreError> {
        if !self.is_initialized().await? {
            return Ok(SealStatus {
                kind: SlotKind::Shamir.as_str(),
                initialized: false,
                sealed: true,
                threshold: 0,
                shares: 0,
                progress: 0,
                nonce: String::new(),
                cluster_id: None,
            });
        }
        let stored = self.stored_seal().await?.value;
        let shared = stored.shared().max_by_key(|slot| slot.threshold);
        let sealed = self.unsealed().is_err();
        let needed = shared.map_or(0, |slot| usize::from(slot.threshold));
        let ceremonies = self.seal.ceremonies();
        Ok(SealStatus {
            kind: shared.or(stored.slots.first()).map_or("", |slot| slot.kind.as_str()),
            initialized: true,
            sealed,
            threshold: shared.map_or(0, |slot| slot.threshold),
            shares: shared.map_or(0, |slot| slot.shares),
            // There may be wrong ones among them: as long as it is sealed, one is missing.
            progress: ceremonies.unseal.len().min(needed.saturating_sub(1)),
            nonce: ceremonies.unseal.nonce().to_owned(),
            cluster_id: (!sealed).then_some(stored.cluster_id),
        })
    }
}

/// One way to the root key, as told to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealBackend {
    /// Its kind.
    pub kind: &'static str,
    /// Whether this process is configured to use it.
    pub configured: bool,
    /// Whether it could be used now.
    pub healthy: bool,
}

impl Core {
    /// The ways to the root key that the store knows; none while it is not initialised.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn seal_backends(&self) -> Result<Vec<SealBackend>, CoreError> {
        if !self.is_initialized().await? {
            return Ok(Vec::new());
        }
        let mut backends = Vec::new();
        for stored in &self.stored_seal().await?.value.slots {
            let slot = self.seal.slot(stored.kind);
            let healthy = match slot {
                Some(slot) => slot.is_usable().await,
                None => false,
            };
            let kind = stored.kind.as_str();
            backends.push(SealBackend { kind, configured: slot.is_some(), healthy });
        }
        Ok(backends)
    }
}

/// Whether the store was initialised: for the server's start.
///
/// # Errors
/// When the store fails, or holds a seal that this build does not know.
pub async fn is_initialized(storage: &dyn crate::storage::Storage) -> Result<bool, CoreError> {
    Ok(StoredSeal::load(storage).await?.is_some())
}
