//! Authenticated encryption: two suites, one key type, one way to fail.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use chacha20poly1305::ChaCha20Poly1305;
use zeroize::{Zeroize, Zeroizing};

use crate::types::secret::{RandomError, SecretArray, SecretBytes, fill_random};

/// Length of a key, in bytes, in every suite.
pub const KEY_BYTES: usize = 32;
/// Length of a nonce, in bytes, in every suite.
pub const NONCE_BYTES: usize = 12;
/// Length of the authentication tag that ends every ciphertext, in bytes, in every suite.
pub const TAG_BYTES: usize = 16;

/// An authenticated cipher. The numbers are stored in record headers and are permanent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// AES-256 in Galois/Counter Mode (NIST SP 800-38D).
    Aes256Gcm,
    /// ChaCha20 and Poly1305 (RFC 8439 §2.8).
    ChaCha20Poly1305,
}

impl Suite {
    /// Every suite.
    pub const ALL: [Self; 2] = [Self::Aes256Gcm, Self::ChaCha20Poly1305];

    /// The number that stands for this suite in stored bytes.
    pub const fn id(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::ChaCha20Poly1305 => 2,
        }
    }

    /// The suite with that number.
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.id() == id)
    }

    /// The name used in configuration and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }

    /// The suite with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.name() == name)
    }
}

/// It does not open: wrong key, nonce, associated data or suite, damaged or truncated. Deliberately
/// one error, so that a failure tells an attacker nothing about where it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("does not open: damaged, or not sealed with this key in this place")]
pub struct AeadError;

/// Why nothing was sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Beyond what the suite may encrypt under one nonce (64 GiB or more).
    #[error("too long to be sealed in one piece")]
    TooLong,
    /// No nonce or key could be drawn.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// A key for one of the suites. Use a key with one suite only: whoever owns it says which.
pub struct AeadKey(SecretArray<KEY_BYTES>);

impl AeadKey {
    /// Makes a key of secret bytes, which must be uniformly random.
    pub fn new(bytes: SecretArray<KEY_BYTES>) -> Self {
        Self(bytes)
    }

    /// A fresh key.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn random() -> Result<Self, RandomError> {
        SecretArray::random().map(Self)
    }

    /// The key's bytes, for wrapping it under another key.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        self.0.expose()
    }

    /// An explicit second copy, for a key that outlives the structure it is in.
    pub fn duplicate(&self) -> Self {
        Self(self.0.duplicate())
    }

    /// Encrypts `plaintext` and authenticates it together with `aad`. Gives ciphertext then tag.
    ///
    /// The same key and nonce must never meet a second message.
    ///
    /// # Errors
    /// [`SealError::TooLong`] beyond the suite's limit.
    pub fn seal(
        &self,
        suite: Suite,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let mut out = Vec::new();
        self.seal_onto(&mut out, suite, nonce, aad, plaintext)?;
        Ok(out)
    }

    /// Decrypts what [`seal`](Self::seal) made with the same suite, nonce and `aad`.
    ///
    /// # Errors
    /// [`AeadError`], whatever the reason.
    pub fn open(
        &self,
        suite: Suite,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<SecretBytes, AeadError> {
        let (body, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(AeadError)?;
        let mut plaintext = Zeroizing::new(body.to_vec());
        let buffer = plaintext.as_mut_slice().into();
        match suite {
            Suite::Aes256Gcm => Aes256Gcm::new(self.expose().into()).decrypt_inout_detached(
                nonce.into(),
                aad,
                buffer,
                tag.into(),
            ),
            Suite::ChaCha20Poly1305 => ChaCha20Poly1305::new(self.expose().into())
                .decrypt_inout_detached(nonce.into(), aad, buffer, tag.into()),
        }
        .map_err(|_| AeadError)?;
        Ok(SecretBytes::new(std::mem::take(&mut *plaintext)))
    }

    /// Seals under a random nonce, which goes in front: nonce, ciphertext, tag.
    ///
    /// A key may seal at most 2^32 messages this way (NIST SP 800-38D §8.3).
    ///
    /// # Errors
    /// When it is too long or no nonce can be drawn.
    pub fn seal_random(
        &self,
        suite: Suite,
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0u8; NONCE_BYTES];
        fill_random(&mut nonce)?;
        let mut out = Vec::with_capacity(plaintext.len().saturating_add(NONCE_BYTES + TAG_BYTES));
        out.extend_from_slice(&nonce);
        self.seal_onto(&mut out, suite, &nonce, aad, plaintext)?;
        Ok(out)
    }

    /// Opens what [`seal_random`](Self::seal_random) made with the same suite and `aad`.
    ///
    /// # Errors
    /// [`AeadError`], whatever the reason.
    pub fn open_random(
        &self,
        suite: Suite,
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<SecretBytes, AeadError> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(AeadError)?;
        self.open(suite, nonce, aad, sealed)
    }

    /// Appends ciphertext and tag to `out`, which should have room for both: growing it would leave a
    /// copy of the plaintext in the memory it gives back. On error `out` is as it was.
    pub(super) fn seal_onto(
        &self,
        out: &mut Vec<u8>,
        suite: Suite,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<(), SealError> {
        out.reserve_exact(plaintext.len().saturating_add(TAG_BYTES));
        let start = out.len();
        out.extend_from_slice(plaintext);
        let body = out.get_mut(start..).unwrap_or_default();
        let buffer = body.into();
        let sealed = match suite {
            Suite::Aes256Gcm => Aes256Gcm::new(self.expose().into()).encrypt_inout_detached(
                nonce.into(),
                aad,
                buffer,
            ),
            Suite::ChaCha20Poly1305 => ChaCha20Poly1305::new(self.expose().into())
                .encrypt_inout_detached(nonce.into(), aad, buffer),
        };
        let Ok(tag) = sealed else {
            out.get_mut(start..).unwrap_or_default().zeroize();
            out.truncate(start);
            return Err(SealError::TooLong);
        };
        out.extend_from_slice(&tag);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
