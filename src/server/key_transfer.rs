//! Keys of transit on their way from another server, for the command line: from the form in which they
//! are read out there to the one in which they are brought in here.

use data_encoding::BASE64;

use super::key_text;
use crate::crypto::pem::{Pkcs8, der_of};
use crate::types::secret::SecretBytes;

/// Why a key cannot be brought in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// It is not in the form in which keys of that type are read out.
    #[error("the source answers no key of that type")]
    Form,
    /// The wrapping key is none, or there is no randomness.
    #[error("the key cannot be wrapped for this server")]
    Wrapping,
}

/// The key `exported` of a type as transit calls it, wrapped under a public key in PEM.
///
/// # Errors
/// When it is no such key.
pub fn wrapped(kind: &str, exported: &str, public_pem: &str) -> Result<String, TransferError> {
    let key = material(kind, exported).ok_or(TransferError::Form)?;
    key_text::wrapped(public_pem, &key).map_err(|_| TransferError::Wrapping)
}

/// Whether two exports are of one key, in whatever form.
pub fn is_same(kind: &str, one: &str, other: &str) -> bool {
    match (material(kind, one), material(kind, other)) {
        (Some(one), Some(other)) => one.ct_eq(other.expose()),
        _ => false,
    }
}

/// As it is brought in: bytes of a cipher, PKCS #8 of what signs.
fn material(kind: &str, exported: &str) -> Option<SecretBytes> {
    let exported = exported.trim();
    let form = match kind {
        "ecdsa-p256" => Pkcs8::P256,
        "ecdsa-p384" => Pkcs8::P384,
        "ecdsa-p521" => Pkcs8::P521,
        "ed25519" => {
            // Seed and public key.
            let both = SecretBytes::new(BASE64.decode(exported.as_bytes()).ok()?);
            return Some(Pkcs8::Ed25519.of(both.expose().get(..32)?));
        }
        _ if kind.starts_with("rsa-") => Pkcs8::Rsa,
        _ => return BASE64.decode(exported.as_bytes()).ok().map(SecretBytes::new),
    };
    let (label, der) = der_of(exported)?;
    match label.as_str() {
        "PRIVATE KEY" => Some(der),
        "EC PRIVATE KEY" | "RSA PRIVATE KEY" => Some(form.of(der.expose())),
        _ => None,
    }
}
