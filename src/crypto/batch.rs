//! Sealing of facts that their holder carries and cannot read or change: batch tokens, and what a log-in
//! in progress takes along.

use super::aead::{AeadError, AeadKey, NONCE_BYTES, SealError, Suite};
use super::kdf::{self, HMAC_BYTES};
use crate::types::secret::{SecretArray, SecretBytes, fill_random};

const VERSION: u8 = 1;
const SALT_BYTES: usize = 24;
/// Fixed, because every key encrypts one message only.
const NONCE: [u8; NONCE_BYTES] = [0; NONCE_BYTES];

/// Seals and opens what is carried, each kind under a subkey of its own.
///
/// Each gets a key of its own, derived from a random 192-bit salt, so that their number is not
/// bounded by what random 96-bit nonces allow under one key (NIST SP 800-38D §8.3).
pub struct BatchTokenKey(SecretArray<HMAC_BYTES>);

impl BatchTokenKey {
    /// Takes the keyring's subkey for batch tokens, or for another kind.
    pub fn new(key: SecretArray<HMAC_BYTES>) -> Self {
        Self(key)
    }

    /// Seals. Layout: version, suite, salt, ciphertext, tag.
    ///
    /// # Errors
    /// When it is too long or no salt can be drawn.
    pub fn seal(&self, suite: Suite, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut salt = [0; SALT_BYTES];
        fill_random(&mut salt)?;
        let header = [VERSION, suite.id()];
        let sealed = self.key(header, &salt).seal(suite, &NONCE, &header, plaintext)?;
        Ok([&header, salt.as_slice(), &sealed].concat())
    }

    /// Opens what [`seal`](Self::seal) made.
    ///
    /// # Errors
    /// Anything else, whatever is wrong with it.
    pub fn open(&self, sealed: &[u8]) -> Result<SecretBytes, AeadError> {
        let (header, rest) = sealed.split_first_chunk::<2>().ok_or(AeadError)?;
        let (salt, body) = rest.split_first_chunk::<SALT_BYTES>().ok_or(AeadError)?;
        let [VERSION, suite] = *header else { return Err(AeadError) };
        let suite = Suite::from_id(suite).ok_or(AeadError)?;
        self.key(*header, salt).open(suite, &NONCE, header, body)
    }

    fn key(&self, header: [u8; 2], salt: &[u8; SALT_BYTES]) -> AeadKey {
        AeadKey::new(kdf::expand(self.0.expose(), &[&header, salt]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> BatchTokenKey {
        BatchTokenKey::new(SecretArray::init_with(|out| out.fill(byte)))
    }

    #[test]
    fn what_was_sealed_opens_and_nothing_else_does() {
        for suite in Suite::ALL {
            let sealed = key(1).seal(suite, b"facts").unwrap();
            assert_eq!(key(1).open(&sealed).unwrap().expose(), b"facts");
            assert!(key(2).open(&sealed).is_err());
            for position in 0..sealed.len() {
                let mut changed = sealed.clone();
                changed[position] ^= 1;
                assert!(key(1).open(&changed).is_err(), "byte {position}");
            }
            for length in 0..sealed.len() {
                assert!(key(1).open(&sealed[..length]).is_err(), "{length} bytes");
            }
        }
    }

    #[test]
    fn the_same_facts_never_look_the_same() {
        let suite = Suite::Aes256Gcm;
        assert_ne!(key(1).seal(suite, b"facts").unwrap(), key(1).seal(suite, b"facts").unwrap());
    }
}
