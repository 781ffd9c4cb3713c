//! Keys in memory, ready for use.
//!
//! A request asks the store for the record of the key, which the store's own cache answers as a rule
//! and forgets when any node changes it. What was read of it is kept here, and holds for as long as
//! that cache gives the same body. Versions never change, so one that the record still allows is used
//! without looking. All of it is forgotten when another node changes something below the mount, when
//! the key is deleted here, and with the engine: at unmounting and sealing.

use std::sync::Arc;
use std::sync::{Mutex, PoisonError};

use data_encoding::BASE64;
use quick_cache::sync::Cache;

use super::kind::{Family, KeyKind};
use super::record::{
    KeyRecord, VersionRecord, WRAPPING_KEY, WrappingRecord, key_name, version_name,
};
use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::crypto::message::{MessageCipher, MessageKey};
use crate::crypto::rsa::{RsaKey, RsaSize};
use crate::crypto::signing::{EcdsaKey, Ed25519Key};
use crate::types::secret::SecretBytes;

/// Most keys, and most versions of keys, that are kept ready.
const KEPT_MAX: usize = 1024;
/// The key that wraps what is brought in.
pub(super) const WRAPPING_SIZE: RsaSize = RsaSize::Bits4096;

/// A key without its material, as it was last read.
pub(super) struct OpenKey {
    pub(super) id: Arc<str>,
    pub(super) record: KeyRecord,
    body: Arc<SecretBytes>,
}

impl OpenKey {
    /// The key, when it is in use.
    ///
    /// # Errors
    /// `Invalid` when it is soft-deleted.
    pub(super) fn in_use(self: Arc<Self>) -> Result<Arc<Self>, CoreError> {
        if self.record.soft_deleted {
            return Err(CoreError::invalid(
                "the key is soft-deleted: write soft-delete-restore to use it again",
            ));
        }
        Ok(self)
    }
}

/// What one version works with.
pub(super) enum Material {
    Cipher { cipher: MessageCipher, key: MessageKey, root: SecretBytes },
    Ecdsa(EcdsaKey),
    Ed25519 { key: Ed25519Key, root: SecretBytes },
    Hmac,
    Rsa { size: RsaSize, key: RsaKey },
}

/// One version of a key, ready for use.
pub(super) struct Version {
    pub(super) number: u64,
    pub(super) material: Material,
    /// What HMACs are made with.
    pub(super) hmac_key: SecretBytes,
}

impl Version {
    /// Readies a stored version.
    ///
    /// # Errors
    /// When what is stored is no such key.
    pub(super) fn open(
        kind: KeyKind,
        number: u64,
        record: &VersionRecord,
    ) -> Result<Self, CoreError> {
        let kept = record.key.secret();
        let broken = || CoreError::internal("a stored version is no key of its type");
        let copy = || SecretBytes::copy_of(kept.expose());
        let material = match kind.family() {
            Family::Cipher(cipher) => {
                let key = MessageKey::new(cipher, kept.expose()).map_err(|_| broken())?;
                Material::Cipher { cipher, key, root: copy() }
            }
            Family::Ecdsa(curve) => {
                Material::Ecdsa(EcdsaKey::new(curve, kept).map_err(|_| broken())?)
            }
            Family::Ed25519 => {
                let key = Ed25519Key::new(kept).map_err(|_| broken())?;
                Material::Ed25519 { key, root: copy() }
            }
            Family::Hmac => Material::Hmac,
            Family::Rsa(size) => {
                Material::Rsa { size, key: RsaKey::new(size, kept).map_err(|_| broken())? }
            }
        };
        let hmac_key = match kind.family() {
            Family::Hmac => copy(),
            Family::Cipher(_) | Family::Ecdsa(_) | Family::Ed25519 | Family::Rsa(_) => {
                SecretBytes::copy_of(record.hmac_key.secret().expose())
            }
        };
        Ok(Self { number, material, hmac_key })
    }

    /// The public key, as it is told. `context` is that of a derived key.
    ///
    /// # Errors
    /// When the library fails.
    pub(super) fn public_key(&self, context: Option<&[u8]>) -> Result<Option<String>, CoreError> {
        let failed = || CoreError::internal("a public key cannot be told");
        Ok(match (&self.material, context) {
            (Material::Ed25519 { root, .. }, Some(context)) => {
                let key = Ed25519Key::derive(root, context).map_err(|_| failed())?;
                Some(BASE64.encode(key.public()))
            }
            (Material::Ed25519 { key, .. }, None) => Some(BASE64.encode(key.public())),
            (Material::Ecdsa(key), _) => Some(key.public_pem().map_err(|_| failed())?),
            (Material::Rsa { key, .. }, _) => Some(key.public_pem()),
            (Material::Cipher { .. } | Material::Hmac, _) => None,
        })
    }
}

/// The keys of a mount that are ready.
pub(super) struct Ring {
    keys: Cache<String, Arc<OpenKey>>,
    versions: Cache<(Arc<str>, u64), Arc<Version>>,
    wrapping: Mutex<Option<Arc<RsaKey>>>,
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            keys: Cache::new(KEPT_MAX),
            versions: Cache::new(KEPT_MAX),
            wrapping: Mutex::default(),
        }
    }
}

impl Ring {
    /// The key `name`, as the store has it.
    ///
    /// # Errors
    /// When it is no name, or the store fails.
    pub(super) async fn key(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
    ) -> Result<Option<Arc<OpenKey>>, CoreError> {
        let Some(record) = ctx.view.get_record(&key_name(name)?).await? else {
            self.forget(name);
            return Ok(None);
        };
        if let Some(open) = self.keys.get(name)
            && Arc::ptr_eq(&open.body, &record.body)
        {
            return Ok(Some(open));
        }
        let read: KeyRecord = record.decode()?;
        let open = Arc::new(OpenKey {
            id: Arc::from(read.id.as_str()),
            record: read,
            body: record.body.clone(),
        });
        self.keys.insert(name.to_owned(), open.clone());
        Ok(Some(open))
    }

    /// A version that the key's record says is there. `None` when it was removed since.
    ///
    /// # Errors
    /// When the store fails, or holds no key of that type.
    pub(super) async fn version(
        &self,
        ctx: &EngineContext<'_>,
        key: &OpenKey,
        number: u64,
    ) -> Result<Option<Arc<Version>>, CoreError> {
        let at = (key.id.clone(), number);
        if let Some(version) = self.versions.get(&at) {
            return Ok(Some(version));
        }
        let stored = ctx.view.get::<VersionRecord>(&version_name(&key.id, number)).await?;
        let Some(stored) = stored else { return Ok(None) };
        let version = Arc::new(Version::open(key.record.kind, number, &stored.value)?);
        self.versions.insert(at, version.clone());
        Ok(Some(version))
    }

    /// The wrapping key, if there is one yet.
    ///
    /// # Errors
    /// When the store fails, or holds no such key.
    pub(super) async fn wrapping(
        &self,
        ctx: &EngineContext<'_>,
    ) -> Result<Option<Arc<RsaKey>>, CoreError> {
        let kept = self.wrapping.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if kept.is_some() {
            return Ok(kept);
        }
        let Some(stored) = ctx.view.get::<WrappingRecord>(WRAPPING_KEY).await? else {
            return Ok(None);
        };
        let key = RsaKey::new(WRAPPING_SIZE, stored.value.key.secret());
        let key = key.map_err(|_| CoreError::internal("the stored wrapping key is none"))?;
        let key = Arc::new(key);
        *self.wrapping.lock().unwrap_or_else(PoisonError::into_inner) = Some(key.clone());
        Ok(Some(key))
    }

    /// Forgets one key.
    pub(super) fn forget(&self, name: &str) {
        if let Some((_, open)) = self.keys.remove(name) {
            self.versions.retain(|(id, _), _| *id != open.id);
        }
    }

    /// Forgets all of them.
    pub(super) fn clear(&self) {
        self.keys.clear();
        self.versions.clear();
        *self.wrapping.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
