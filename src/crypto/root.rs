//! The root key, and how an unseal key wraps it.

use super::aead::{AeadError, AeadKey, KEY_BYTES, SealError, Suite};
use super::kdf;
use crate::types::secret::{RandomError, SecretArray};

const VERSION: u8 = 1;
const LABEL_KEYRING: &[u8] = b"leasehold/v1/root-key/keyring";
const LABEL_UNSEAL: &[u8] = b"leasehold/v1/unseal-key/root-key";

/// The key above all others. It seals the keyring and nothing else; every seal slot wraps the same.
pub struct RootKey(SecretArray<KEY_BYTES>);

impl RootKey {
    /// A fresh one.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn random() -> Result<Self, RandomError> {
        SecretArray::random().map(Self)
    }

    /// Takes over what a slot outside this process (KMS, HSM) has unwrapped.
    pub fn new(bytes: SecretArray<KEY_BYTES>) -> Self {
        Self(bytes)
    }

    /// The bytes, for a slot outside this process to wrap.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        self.0.expose()
    }

    /// Whether both are the same key, in constant time: proves new shares before old ones go.
    pub fn same_as(&self, other: &Self) -> bool {
        self.0.ct_eq(other.expose())
    }

    /// The key that seals the keyring with `suite`. One key per suite, so that no key meets two.
    pub(super) fn keyring_key(&self, suite: Suite) -> AeadKey {
        AeadKey::new(kdf::expand(self.expose(), &[LABEL_KEYRING, &[suite.id()]]))
    }
}

/// Wraps `root` under `unseal_key` (put together from shares, or read from a key file). `context`
/// names the slot and whatever must not change about it; unwrapping asks for the same bytes.
///
/// Layout: version, suite, nonce, ciphertext, tag.
///
/// # Errors
/// When no nonce can be drawn.
pub fn wrap_root(
    suite: Suite,
    unseal_key: &[u8; KEY_BYTES],
    root: &RootKey,
    context: &[u8],
) -> Result<Vec<u8>, SealError> {
    let header = [VERSION, suite.id()];
    let sealed = wrapping_key(suite, unseal_key).seal_random(
        suite,
        &associated_data(header, context),
        root.expose(),
    )?;
    Ok([&header, sealed.as_slice()].concat())
}

/// Opens what [`wrap_root`] made with the same unseal key and `context`.
///
/// # Errors
/// [`AeadError`]: the unseal key is wrong, the slot's configuration was changed, or it is damaged.
pub fn unwrap_root(
    unseal_key: &[u8; KEY_BYTES],
    wrapped: &[u8],
    context: &[u8],
) -> Result<RootKey, AeadError> {
    let (header, sealed) = wrapped.split_first_chunk::<2>().ok_or(AeadError)?;
    let [VERSION, suite] = *header else { return Err(AeadError) };
    let suite = Suite::from_id(suite).ok_or(AeadError)?;
    let root = wrapping_key(suite, unseal_key).open_random(
        suite,
        &associated_data(*header, context),
        sealed,
    )?;
    SecretArray::from_slice(root.expose()).map(RootKey).ok_or(AeadError)
}

fn wrapping_key(suite: Suite, unseal_key: &[u8; KEY_BYTES]) -> AeadKey {
    AeadKey::new(kdf::expand(unseal_key, &[LABEL_UNSEAL, &[suite.id()]]))
}

/// Unambiguous because only `context`, at the end, varies in length.
fn associated_data(header: [u8; 2], context: &[u8]) -> Vec<u8> {
    [LABEL_UNSEAL, header.as_slice(), context].concat()
}

#[cfg(test)]
mod tests;
