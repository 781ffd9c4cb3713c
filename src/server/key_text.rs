//! Keys that are brought into an engine, for the command line.

use data_encoding::BASE64;

use crate::crypto::key_wrap;
use crate::crypto::pem::der_of;
use crate::types::secret::SecretBytes;

/// `key`, wrapped under the RSA key in PEM (`PUBLIC KEY`), in base64: with SHA-256, as transit takes it.
///
/// # Errors
/// Why not, in words.
pub fn wrapped(public_pem: &str, key: &SecretBytes) -> Result<String, &'static str> {
    let public = der_of(public_pem).filter(|(label, _)| label == "PUBLIC KEY");
    let (_, public) = public.ok_or("the wrapping key is not in PEM")?;
    let wrapped = key_wrap::wrap_for(public.expose(), key);
    Ok(BASE64.encode(&wrapped.map_err(|_| "the key cannot be wrapped under the wrapping key")?))
}
