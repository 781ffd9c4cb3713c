//! Ciphers, keys and secret sharing. Pure: no I/O, no clock, no storage. The only cipher calls.
//!
//! ```text
//! unseal key (shares, key file, KMS) ─ wraps ─▶ root key ─ seals ─▶ keyring: KEK terms and a seed
//!                                                                     │               │
//!                                     KEK wraps one fresh DEK per record              HKDF labels
//!                                     DEK encrypts that record's body, once           │
//!                                                                   blind tags, token hashes, audit
//! ```

pub mod aead;
pub mod batch;
pub mod blind;
pub mod digest;
pub mod envelope;
pub mod jose;
mod kdf;
pub mod key_wrap;
pub mod keyring;
pub mod mac;
pub mod message;
pub mod otp;
pub mod password;
pub mod pem;
pub mod root;
pub mod rsa;
pub mod scram;
pub mod server_trust;
pub mod shamir;
pub mod signing;
pub mod ssh;
pub mod x509;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
