//! Seal slots: the ways to get at the root key. Each wraps the same one.
//!
//! What a slot is made with (kind, id, number of shares, threshold, installation) is bound into the
//! wrapping: a slot whose clear description was changed does not open.

use std::sync::Arc;

use async_trait::async_trait;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::crypto::aead::{KEY_BYTES, SealError, Suite};
use crate::crypto::root::{RootKey, unwrap_root, wrap_root};
use crate::crypto::shamir::{self, ShamirError};
use crate::types::id::random_uuid;
use crate::types::secret::{RandomError, SecretArray, SecretBytes};

use super::super::error::CoreError;
use super::key_file::{KeyFile, KeyFileError};
use super::key_thread::on_key_thread;

/// What guards the root key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlotKind {
    /// Shares held by people.
    Shamir,
    /// A key in a file: for development and tests.
    StaticFile,
}

impl SlotKind {
    /// As it is stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shamir => "shamir",
            Self::StaticFile => "static-file",
        }
    }
}

/// A slot, as stored in clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredSlot {
    /// Tells it from all others.
    pub id: String,
    /// What guards the key.
    pub kind: SlotKind,
    /// How many shares there are; zero where there are none.
    pub shares: u8,
    /// How many of them it takes.
    pub threshold: u8,
    /// Whether it was opened at least once, or is the first: only then may it take another's place.
    pub proven: bool,
    /// The wrapped root key, base64.
    wrapped: String,
}

impl StoredSlot {
    /// The same, once it was opened.
    #[must_use]
    pub fn into_proven(self) -> Self {
        Self { proven: true, ..self }
    }

    /// What the wrapping is bound to. Every text goes behind its length, so that no two slots share
    /// one context.
    fn context(&self, cluster_id: &str) -> Vec<u8> {
        let mut context = Vec::new();
        for text in [self.kind.as_str(), &self.id, cluster_id] {
            context.extend_from_slice(&(text.len() as u64).to_be_bytes());
            context.extend_from_slice(text.as_bytes());
        }
        context.extend_from_slice(&[self.shares, self.threshold]);
        context
    }

    fn unwrap(
        &self,
        cluster_id: &str,
        unseal_key: &[u8; KEY_BYTES],
    ) -> Result<Arc<RootKey>, SlotError> {
        let wrapped = BASE64.decode(self.wrapped.as_bytes()).map_err(|_| SlotError::WrongKey)?;
        unwrap_root(unseal_key, &wrapped, &self.context(cluster_id))
            .map(Arc::new)
            .map_err(|_| SlotError::WrongKey)
    }
}

/// What a new slot is made with.
#[derive(Clone, Debug)]
pub struct SlotPlan {
    /// The installation.
    pub cluster_id: String,
    /// The cipher that wraps.
    pub suite: Suite,
    /// How many shares to make, and how many of them it shall take. Zero where there are none.
    pub split: (u8, u8),
    /// See [`StoredSlot::proven`].
    pub proven: bool,
}

impl SlotPlan {
    fn wrap(
        &self,
        kind: SlotKind,
        unseal_key: &[u8; KEY_BYTES],
        root: &RootKey,
    ) -> Result<StoredSlot, SlotError> {
        let (shares, threshold) = self.split;
        let (id, proven) = (random_uuid()?, self.proven);
        let mut slot = StoredSlot { id, kind, shares, threshold, proven, wrapped: String::new() };
        let wrapped = wrap_root(self.suite, unseal_key, root, &slot.context(&self.cluster_id))?;
        slot.wrapped = BASE64.encode(&wrapped);
        Ok(slot)
    }
}

/// A slot just made.
pub struct NewSlot {
    /// To be stored.
    pub stored: StoredSlot,
    /// To be handed out; none when the slot opens by itself.
    pub shares: Vec<SecretBytes>,
}

/// Why a slot was not made or opened.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The shares, or the key file, are not those of this slot; or its description was changed.
    #[error("the unseal key is wrong")]
    WrongKey,
    /// The key file cannot be used.
    #[error("the key file cannot be used")]
    KeyFile(#[from] KeyFileError),
    /// Shares cannot be made like that, or do not go together.
    #[error(transparent)]
    Shares(#[from] ShamirError),
    /// Wrapping failed.
    #[error("the root key cannot be wrapped")]
    Wrap(#[from] SealError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The thread that handles keys could not do its work.
    #[error("no thread could be started for the work with keys")]
    NoThread,
}

impl From<SlotError> for CoreError {
    fn from(error: SlotError) -> Self {
        match error {
            SlotError::WrongKey => Self::invalid("unseal failed, invalid key"),
            SlotError::Shares(error) => match error {
                ShamirError::Random(error) => Self::internal(error.to_string()),
                ShamirError::Threshold
                | ShamirError::SecretLength
                | ShamirError::TooFew { .. }
                | ShamirError::Malformed
                | ShamirError::Duplicate => Self::invalid(error.to_string()),
            },
            SlotError::KeyFile(error) => Self::internal(format!("key file: {error}")),
            SlotError::Wrap(error) => Self::internal(error.to_string()),
            SlotError::Random(error) => Self::internal(error.to_string()),
            SlotError::NoThread => Self::internal(SlotError::NoThread.to_string()),
        }
    }
}

/// A way to guard the root key.
#[async_trait]
pub trait SealSlot: Send + Sync + 'static {
    /// Which kind of slot it makes and opens.
    fn kind(&self) -> SlotKind;

    /// Whether it opens without people.
    fn is_automatic(&self) -> bool;

    /// Whether what it opens with is at hand, as far as that can be told without opening anything.
    async fn is_usable(&self) -> bool {
        true
    }

    /// Wraps `root` under a fresh key, or under the one that it has.
    ///
    /// # Errors
    /// [`SlotError`].
    async fn create(&self, root: Arc<RootKey>, plan: SlotPlan) -> Result<NewSlot, SlotError>;

    /// The root key. `shares` are not looked at when the slot opens by itself.
    ///
    /// # Errors
    /// [`SlotError`].
    async fn open(
        &self,
        slot: StoredSlot,
        cluster_id: String,
        shares: Vec<SecretBytes>,
    ) -> Result<Arc<RootKey>, SlotError>;
}

/// Shares held by people, any k of n.
#[derive(Debug)]
pub struct ShamirSlot;

#[async_trait]
impl SealSlot for ShamirSlot {
    fn kind(&self) -> SlotKind {
        SlotKind::Shamir
    }

    fn is_automatic(&self) -> bool {
        false
    }

    async fn create(&self, root: Arc<RootKey>, plan: SlotPlan) -> Result<NewSlot, SlotError> {
        on_key_thread(move || {
            let unseal_key = SecretArray::<KEY_BYTES>::random()?;
            let (count, threshold) = plan.split;
            let shares = shamir::split(unseal_key.expose(), count, threshold)?;
            let stored = plan.wrap(SlotKind::Shamir, unseal_key.expose(), &root)?;
            Ok(NewSlot { stored, shares })
        })
        .await?
    }

    async fn open(
        &self,
        slot: StoredSlot,
        cluster_id: String,
        shares: Vec<SecretBytes>,
    ) -> Result<Arc<RootKey>, SlotError> {
        on_key_thread(move || {
            let unseal_key = shamir::combine(&shares, slot.threshold)?;
            let unseal_key =
                SecretArray::from_slice(unseal_key.expose()).ok_or(SlotError::WrongKey)?;
            slot.unwrap(&cluster_id, unseal_key.expose())
        })
        .await?
    }
}

/// A key in a file.
#[derive(Debug)]
pub struct StaticFileSlot {
    file: KeyFile,
}

impl StaticFileSlot {
    /// The key in `file`, read whenever it is needed and not kept.
    pub fn new(file: KeyFile) -> Self {
        Self { file }
    }
}

#[async_trait]
impl SealSlot for StaticFileSlot {
    fn kind(&self) -> SlotKind {
        SlotKind::StaticFile
    }

    fn is_automatic(&self) -> bool {
        true
    }

    async fn is_usable(&self) -> bool {
        let file = self.file.clone();
        on_key_thread(move || file.read().is_ok()).await.unwrap_or(false)
    }

    async fn create(&self, root: Arc<RootKey>, plan: SlotPlan) -> Result<NewSlot, SlotError> {
        let file = self.file.clone();
        on_key_thread(move || {
            let plan = SlotPlan { split: (0, 0), ..plan };
            let stored = plan.wrap(SlotKind::StaticFile, file.read()?.expose(), &root)?;
            Ok(NewSlot { stored, shares: Vec::new() })
        })
        .await?
    }

    async fn open(
        &self,
        slot: StoredSlot,
        cluster_id: String,
        _shares: Vec<SecretBytes>,
    ) -> Result<Arc<RootKey>, SlotError> {
        let file = self.file.clone();
        on_key_thread(move || slot.unwrap(&cluster_id, file.read()?.expose())).await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(shares: u8, threshold: u8) -> SlotPlan {
        SlotPlan {
            cluster_id: "c".into(),
            suite: Suite::Aes256Gcm,
            split: (shares, threshold),
            proven: true,
        }
    }

    fn copies(shares: &[SecretBytes]) -> Vec<SecretBytes> {
        shares.iter().map(|share| SecretBytes::copy_of(share.expose())).collect()
    }

    async fn open(
        slot: &StoredSlot,
        cluster: &str,
        shares: &[SecretBytes],
    ) -> Option<Arc<RootKey>> {
        ShamirSlot.open(slot.clone(), cluster.into(), copies(shares)).await.ok()
    }

    #[tokio::test]
    async fn any_threshold_of_shares_opens_and_fewer_do_not() {
        let root = Arc::new(RootKey::random().unwrap());
        let NewSlot { stored, shares } = ShamirSlot.create(root.clone(), plan(5, 3)).await.unwrap();
        for picked in [[0, 1, 2], [4, 2, 0], [1, 3, 4]] {
            let some: Vec<_> =
                picked.iter().map(|i| SecretBytes::copy_of(shares[*i].expose())).collect();
            assert!(open(&stored, "c", &some).await.unwrap().same_as(&root));
        }
        assert!(open(&stored, "c", &shares[..2]).await.is_none());
    }

    #[tokio::test]
    async fn a_changed_description_does_not_open() {
        let root = Arc::new(RootKey::random().unwrap());
        let NewSlot { stored, shares } = ShamirSlot.create(root, plan(3, 2)).await.unwrap();
        assert!(open(&stored, "c", &shares).await.is_some());
        assert!(open(&stored, "other installation", &shares).await.is_none());
        let changes: [fn(&mut StoredSlot); 4] = [
            |slot| slot.threshold = 1,
            |slot| slot.shares = 4,
            |slot| slot.id.push('x'),
            |slot| slot.kind = SlotKind::StaticFile,
        ];
        for change in changes {
            let mut changed = stored.clone();
            change(&mut changed);
            assert!(open(&changed, "c", &shares).await.is_none());
        }
    }
}
