//! The types of keys, and what each can do.

use serde::{Deserialize, Serialize};

use crate::core::error::CoreError;
use crate::crypto::message::{MessageCipher, MessageKey};
use crate::crypto::rsa::{RsaKey, RsaSize};
use crate::crypto::signing::{Curve, EcdsaKey, Ed25519Key, LibraryError};
use crate::types::secret::SecretBytes;

/// Length of an HMAC key when none is asked for, and the shortest that is made, in bytes.
pub(super) const HMAC_KEY_BYTES: u64 = 32;
/// Longest HMAC key, in bytes.
pub(super) const HMAC_KEY_BYTES_MAX: u64 = 512;

/// The type of a key. The names are in records and are permanent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum KeyKind {
    #[serde(rename = "aes128-gcm96")]
    Aes128,
    #[serde(rename = "aes256-gcm96")]
    Aes256,
    #[serde(rename = "chacha20-poly1305")]
    ChaCha20,
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
    #[serde(rename = "ecdsa-p384")]
    EcdsaP384,
    #[serde(rename = "ecdsa-p521")]
    EcdsaP521,
    #[serde(rename = "ed25519")]
    Ed25519,
    #[serde(rename = "hmac")]
    Hmac,
    #[serde(rename = "rsa-2048")]
    Rsa2048,
    #[serde(rename = "rsa-3072")]
    Rsa3072,
    #[serde(rename = "rsa-4096")]
    Rsa4096,
    #[serde(rename = "xchacha20-poly1305")]
    XChaCha20,
}

/// What there is to know of a type that its other properties follow from.
#[derive(Clone, Copy)]
pub(super) enum Family {
    Cipher(MessageCipher),
    Ecdsa(Curve),
    Ed25519,
    Hmac,
    Rsa(RsaSize),
}

impl KeyKind {
    pub(super) const ALL: [Self; 12] = [
        Self::Aes128,
        Self::Aes256,
        Self::ChaCha20,
        Self::EcdsaP256,
        Self::EcdsaP384,
        Self::EcdsaP521,
        Self::Ed25519,
        Self::Hmac,
        Self::Rsa2048,
        Self::Rsa3072,
        Self::Rsa4096,
        Self::XChaCha20,
    ];

    /// As stock clients spell it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Aes128 => "aes128-gcm96",
            Self::Aes256 => "aes256-gcm96",
            Self::ChaCha20 => "chacha20-poly1305",
            Self::EcdsaP256 => "ecdsa-p256",
            Self::EcdsaP384 => "ecdsa-p384",
            Self::EcdsaP521 => "ecdsa-p521",
            Self::Ed25519 => "ed25519",
            Self::Hmac => "hmac",
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa3072 => "rsa-3072",
            Self::Rsa4096 => "rsa-4096",
            Self::XChaCha20 => "xchacha20-poly1305",
        }
    }

    pub(super) fn from_name(name: &str) -> Result<Self, CoreError> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
            CoreError::field("type", format!("must be one of {}", names.join(", ")))
        })
    }

    pub(super) const fn family(self) -> Family {
        match self {
            Self::Aes128 => Family::Cipher(MessageCipher::Aes128Gcm),
            Self::Aes256 => Family::Cipher(MessageCipher::Aes256Gcm),
            Self::ChaCha20 => Family::Cipher(MessageCipher::ChaCha20Poly1305),
            Self::XChaCha20 => Family::Cipher(MessageCipher::XChaCha20Poly1305),
            Self::EcdsaP256 => Family::Ecdsa(Curve::P256),
            Self::EcdsaP384 => Family::Ecdsa(Curve::P384),
            Self::EcdsaP521 => Family::Ecdsa(Curve::P521),
            Self::Ed25519 => Family::Ed25519,
            Self::Hmac => Family::Hmac,
            Self::Rsa2048 => Family::Rsa(RsaSize::Bits2048),
            Self::Rsa3072 => Family::Rsa(RsaSize::Bits3072),
            Self::Rsa4096 => Family::Rsa(RsaSize::Bits4096),
        }
    }

    pub(super) const fn is_cipher(self) -> bool {
        matches!(self.family(), Family::Cipher(_))
    }

    pub(super) const fn is_rsa(self) -> bool {
        matches!(self.family(), Family::Rsa(_))
    }

    pub(super) const fn encrypts(self) -> bool {
        self.is_cipher() || self.is_rsa()
    }

    pub(super) const fn signs(self) -> bool {
        matches!(self.family(), Family::Ecdsa(_) | Family::Ed25519 | Family::Rsa(_))
    }

    /// Whether other keys can be made of it and a context.
    pub(super) const fn derives(self) -> bool {
        matches!(self.family(), Family::Cipher(_) | Family::Ed25519)
    }

    /// Whether one operation takes so long that no thread that serves requests should do it.
    pub(super) const fn is_slow(self) -> bool {
        match self {
            Self::EcdsaP384 | Self::EcdsaP521 | Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 => {
                true
            }
            Self::Aes128
            | Self::Aes256
            | Self::ChaCha20
            | Self::EcdsaP256
            | Self::Ed25519
            | Self::Hmac
            | Self::XChaCha20 => false,
        }
    }

    /// What its public keys are called.
    pub(super) const fn public_name(self) -> &'static str {
        match self.family() {
            Family::Ecdsa(curve) => curve.name(),
            Family::Cipher(_) | Family::Ed25519 | Family::Hmac | Family::Rsa(_) => self.name(),
        }
    }

    /// A fresh key, as it is kept. `size` is that of an HMAC key, in bytes.
    pub(super) fn generate(self, size: u64) -> Result<SecretBytes, CoreError> {
        let failed = |error: LibraryError| CoreError::internal(error.to_string());
        match self.family() {
            Family::Cipher(cipher) => Ok(SecretBytes::random(cipher.key_bytes())?),
            Family::Ecdsa(curve) => EcdsaKey::generate(curve).map_err(failed),
            Family::Ed25519 => Ed25519Key::generate().map_err(failed),
            Family::Hmac => Ok(SecretBytes::random(usize::try_from(size).unwrap_or_default())?),
            Family::Rsa(size) => RsaKey::generate(size).map_err(failed),
        }
    }

    /// A key that is brought in, as it is kept: symmetric ones are the bytes, others are in PKCS #8.
    pub(super) fn import(self, key: &SecretBytes) -> Option<SecretBytes> {
        match self.family() {
            Family::Cipher(cipher) => {
                MessageKey::new(cipher, key.expose()).ok()?;
                Some(SecretBytes::copy_of(key.expose()))
            }
            Family::Ecdsa(curve) => EcdsaKey::import(curve, key.expose()).ok(),
            Family::Ed25519 => Ed25519Key::import(key.expose()).ok(),
            Family::Hmac => (HMAC_KEY_BYTES..=HMAC_KEY_BYTES_MAX)
                .contains(&(key.len() as u64))
                .then(|| SecretBytes::copy_of(key.expose())),
            Family::Rsa(size) => RsaKey::import(size, key.expose()).ok(),
        }
    }
}
