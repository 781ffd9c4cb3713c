//! Keys that are brought into an engine, for the command line.

use data_encoding::BASE64;

use crate::crypto::key_wrap;
use crate::types::secret::SecretBytes;

/// `key`, wrapped under the RSA key in PEM (`PUBLIC KEY`), in base64: with SHA-256, as transit takes it.
///
/// # Errors
/// Why not, in words.
pub fn wrapped(public_pem: &str, key: &SecretBytes) -> Result<String, &'static str> {
    let lines = public_pem.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
    let lines: String = lines.collect();
    let public = BASE64.decode(lines.as_bytes()).map_err(|_| "the wrapping key is not in PEM")?;
    let wrapped = key_wrap::wrap_for(&public, key);
    Ok(BASE64.encode(&wrapped.map_err(|_| "the key cannot be wrapped under the wrapping key")?))
}
