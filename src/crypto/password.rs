//! Passwords at rest: Argon2id (RFC 9106), salted, with what OWASP recommends.

use std::hint::black_box;

use argon2::{Algorithm, Argon2, Params, Version};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::types::secret::{RandomError, SecretString, fill_random};

/// Memory that one hash takes, in KiB. OWASP, "Password Storage": 19 MiB with two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// RFC 9106 §3.1: 16 bytes are recommended.
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// More than hashing takes of the stack.
const STACK_BYTES: usize = 64 * 1024;

/// What a password is kept as. The cost is kept with it, so that it can be raised later.
#[derive(Serialize, Deserialize)]
pub struct PasswordHash {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
    hash: String,
}

/// Why a password could not be hashed.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// There is no memory for it, or what is stored has a cost that no hash can have.
    #[error("the password cannot be hashed")]
    Cost,
    /// No randomness for the salt.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// What is stored is not what [`PasswordHash::of`] made.
    #[error("a stored password hash is malformed")]
    Stored,
}

impl PasswordHash {
    /// Hashes `password` with a fresh salt. Takes tens of milliseconds and 19 MiB.
    ///
    /// # Errors
    /// `Random`, or `Cost` when there is no memory.
    pub fn of(password: &SecretString) -> Result<Self, PasswordError> {
        let mut salt = [0u8; SALT_BYTES];
        fill_random(&mut salt)?;
        let hash = argon2id(password, &salt, (MEMORY_KIB, PASSES, LANES))?;
        Ok(Self {
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            lanes: LANES,
            salt: BASE64.encode(&salt),
            hash: BASE64.encode(&hash),
        })
    }

    /// Whether `password` is the one that was hashed. Without a hash it never is, and finding that
    /// out takes the same work.
    ///
    /// # Errors
    /// `Stored`, or `Cost` when there is no memory.
    pub fn verify(stored: Option<&Self>, password: &SecretString) -> Result<bool, PasswordError> {
        let Some(stored) = stored else {
            let hash = argon2id(password, &[0; SALT_BYTES], (MEMORY_KIB, PASSES, LANES))?;
            let equal: bool = hash.as_slice().ct_eq(&[0; HASH_BYTES]).into();
            // Compared all the same; the answer does not depend on it.
            let _ = black_box(equal);
            return Ok(false);
        };
        let decoded =
            |text: &str| BASE64.decode(text.as_bytes()).map_err(|_| PasswordError::Stored);
        let (salt, expected) = (decoded(&stored.salt)?, decoded(&stored.hash)?);
        let hash = argon2id(password, &salt, (stored.memory_kib, stored.passes, stored.lanes))?;
        Ok(hash.as_slice().ct_eq(&expected).into())
    }
}

fn argon2id(
    password: &SecretString,
    salt: &[u8],
    cost: (u32, u32, u32),
) -> Result<[u8; HASH_BYTES], PasswordError> {
    let result = run(password, salt, cost);
    scrub_stack();
    result
}

/// A frame of its own, so that [`scrub_stack`] covers all of it.
#[inline(never)]
fn run(
    password: &SecretString,
    salt: &[u8],
    (memory_kib, passes, lanes): (u32, u32, u32),
) -> Result<[u8; HASH_BYTES], PasswordError> {
    let params = Params::new(memory_kib, passes, lanes, Some(HASH_BYTES));
    let params = params.map_err(|_| PasswordError::Cost)?;
    let mut hash = [0u8; HASH_BYTES];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.expose().as_bytes(), salt, &mut hash)
        .map_err(|_| PasswordError::Cost)?;
    Ok(hash)
}

/// The first block that is hashed holds the password itself, on the stack.
#[inline(never)]
fn scrub_stack() {
    let mut frame = [0u8; STACK_BYTES];
    zeroize::Zeroize::zeroize(&mut frame[..]);
    black_box(&mut frame);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretString {
        SecretString::new(text.to_owned())
    }

    /// RFC 9106 gives no vector without a secret and associated data; this one is from the reference
    /// implementation's own tests (version 19, Argon2id, t=2, m=256 KiB, p=1).
    #[test]
    fn the_reference_implementation_agrees() {
        let hash = argon2id(&secret("password"), b"somesalt", (256, 2, 1)).unwrap();
        let expected = "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe";
        assert_eq!(data_encoding::HEXLOWER.encode(&hash), expected);
    }

    #[test]
    fn only_the_password_that_was_hashed_is_right() {
        let stored = PasswordHash::of(&secret("correct horse")).unwrap();
        assert_eq!((stored.memory_kib, stored.passes, stored.lanes), (19_456, 2, 1));
        for (given, right) in [("correct horse", true), ("correct hors", false), ("", false)] {
            assert_eq!(PasswordHash::verify(Some(&stored), &secret(given)).unwrap(), right);
        }
        assert!(!PasswordHash::verify(None, &secret("correct horse")).unwrap());
        let again = PasswordHash::of(&secret("correct horse")).unwrap();
        assert_ne!(stored.hash, again.hash, "salted");
        let text = serde_json::to_string(&stored).unwrap();
        let read: PasswordHash = serde_json::from_str(&text).unwrap();
        assert!(PasswordHash::verify(Some(&read), &secret("correct horse")).unwrap());
    }

    #[test]
    fn what_is_stored_wrongly_lets_nobody_in() {
        let hash = |memory_kib, salt: &str, hash: &str| PasswordHash {
            memory_kib,
            passes: 1,
            lanes: 1,
            salt: salt.into(),
            hash: hash.into(),
        };
        let salt = BASE64.encode(&[1; SALT_BYTES]);
        for stored in [hash(8, "*", ""), hash(8, &salt, "*")] {
            let error = PasswordHash::verify(Some(&stored), &secret("x")).unwrap_err();
            assert!(matches!(error, PasswordError::Stored));
        }
        let error = PasswordHash::verify(Some(&hash(0, &salt, "")), &secret("x")).unwrap_err();
        assert!(matches!(error, PasswordError::Cost));
        let empty = hash(8, &salt, "");
        assert!(!PasswordHash::verify(Some(&empty), &secret("x")).unwrap());
    }
}
