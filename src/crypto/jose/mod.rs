//! Signed tokens (RFC 7515, RFC 7519) and the public keys that they are checked with (RFC 7517), read
//! as RFC 8725 says: nothing that a token says about itself decides how it is judged.
//!
//! Which algorithms count is decided by the type of the key and by the caller; there is no `none` and
//! there are no shared secrets, so that a public key is never taken for one. Keys and certificates in a
//! header, and addresses of keys there, are passed over.

mod json;
mod keys;

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, UnparsedPublicKey};
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use json::{JsonError, parse_object};
use keys::VerifyingKey;
pub use keys::{KeyError, KeySet};

/// Longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 32 * 1024;
/// Longest header, in bytes as it is written.
const HEADER_BYTES_MAX: usize = 8 * 1024;
/// Longest name of a key, in bytes.
const KEY_ID_BYTES_MAX: usize = 512;
/// Most keys that one token is tried with, when it names none.
const KEYS_TRIED_MAX: usize = 8;

/// The algorithms that a token may be signed with (RFC 7518 §3.1, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum JwsAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// ECDSA on P-521 with SHA-512.
    ES512,
    /// Ed25519.
    EdDSA,
    /// RSA PSS with SHA-256.
    PS256,
    /// RSA PSS with SHA-384.
    PS384,
    /// RSA PSS with SHA-512.
    PS512,
    /// RSA PKCS #1 with SHA-256.
    RS256,
    /// RSA PKCS #1 with SHA-384.
    RS384,
    /// RSA PKCS #1 with SHA-512.
    RS512,
}

impl JwsAlgorithm {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::EdDSA,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
    ];

    /// Its registered name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::EdDSA => "EdDSA",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
        }
    }

    /// The algorithm of that name, in its one spelling.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|algorithm| algorithm.as_str() == name)
    }

    /// What `jsonwebtoken` calls it; it knows nothing of P-521.
    const fn implementation(self) -> Option<jsonwebtoken::Algorithm> {
        use jsonwebtoken::Algorithm;
        Some(match self {
            Self::ES256 => Algorithm::ES256,
            Self::ES384 => Algorithm::ES384,
            Self::ES512 => return None,
            Self::EdDSA => Algorithm::EdDSA,
            Self::PS256 => Algorithm::PS256,
            Self::PS384 => Algorithm::PS384,
            Self::PS512 => Algorithm::PS512,
            Self::RS256 => Algorithm::RS256,
            Self::RS384 => Algorithm::RS384,
            Self::RS512 => Algorithm::RS512,
        })
    }
}

/// What kind of token is meant (RFC 8725 §3.11): one that was made for something else is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// One that says who somebody is, to whomever it names: `JWT`, or an access token of RFC 9068.
    Any,
    /// What an identity provider tells its client, or a cluster its services: `JWT` alone.
    Identity,
}

impl TokenKind {
    fn admits(self, typ: &str) -> bool {
        // RFC 7515 §4.1.9: media types, without "application/" where there is no other slash.
        let lower = typ.to_ascii_lowercase();
        let name = lower.strip_prefix("application/").unwrap_or(&lower);
        match self {
            Self::Any => matches!(name, "jwt" | "jose" | "at+jwt"),
            Self::Identity => matches!(name, "jwt" | "jose"),
        }
    }
}

/// A token that nobody has checked yet.
pub struct UncheckedToken<'t> {
    algorithm: JwsAlgorithm,
    key_id: Option<String>,
    signed: &'t str,
    payload: Vec<u8>,
    signature: &'t str,
}

impl fmt::Debug for UncheckedToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UncheckedToken").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl<'t> UncheckedToken<'t> {
    /// Takes a token apart (RFC 7515 §3.1).
    ///
    /// # Errors
    /// What is no signed token, or none of that kind; `Algorithm` when `allowed` lacks what it says
    /// that it is signed with.
    pub fn parse(
        token: &'t str,
        kind: TokenKind,
        allowed: &[JwsAlgorithm],
    ) -> Result<Self, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        // Five parts would be an encrypted token.
        if payload.contains('.') || header.len() > HEADER_BYTES_MAX || signature.is_empty() {
            return Err(TokenError::Malformed);
        }
        let decoded =
            |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| TokenError::Malformed);
        // Only for its form: it is decoded again where it is checked.
        decoded(signature)?;
        let header = parse_object(&decoded(header)?)?;
        let text = |name: &str| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(TokenError::Malformed),
        };
        // RFC 7515 §4.1.11: what has to be understood is not. RFC 7797: nor is another encoding.
        if header.contains_key("crit") || header.contains_key("b64") {
            return Err(TokenError::Critical);
        }
        let algorithm = text("alg")?.ok_or(TokenError::Malformed)?;
        let algorithm = JwsAlgorithm::parse(algorithm).ok_or(TokenError::Algorithm)?;
        if !allowed.contains(&algorithm) {
            return Err(TokenError::Algorithm);
        }
        let another_kind = text("typ")?.is_some_and(|typ| !kind.admits(typ));
        // RFC 7519 §5.2: a content type says that another token is inside.
        if another_kind || text("cty")?.is_some() {
            return Err(TokenError::Kind);
        }
        let key_id = text("kid")?.map(str::to_owned);
        if key_id.as_ref().is_some_and(|id| id.len() > KEY_ID_BYTES_MAX) {
            return Err(TokenError::Malformed);
        }
        Ok(Self { algorithm, key_id, signed, payload: decoded(payload)?, signature })
    }

    /// Whether `keys` holds a key that it may have been signed with.
    pub fn is_known_to(&self, keys: &KeySet) -> bool {
        keys.candidates(self.key_id.as_deref(), self.algorithm).next().is_some()
    }

    /// What it says, which anybody may have written: good for refusing it, and for nothing else.
    ///
    /// # Errors
    /// `Json` when its claims are malformed.
    pub fn unchecked_claims(&self) -> Result<Map<String, Value>, TokenError> {
        Ok(parse_object(&self.payload)?)
    }

    /// The claims, once a key of `keys` is found to have signed them. What they say is not judged.
    ///
    /// # Errors
    /// `Key` when no key comes into question, `Signature` when none has signed it.
    pub fn verify(self, keys: &KeySet) -> Result<Map<String, Value>, TokenError> {
        let mut candidates = keys.candidates(self.key_id.as_deref(), self.algorithm).peekable();
        if candidates.peek().is_none() {
            return Err(TokenError::Key);
        }
        let signed_by = |key: &VerifyingKey| {
            has_signed(key, self.algorithm, self.signed.as_bytes(), self.signature)
        };
        if !candidates.take(KEYS_TRIED_MAX).any(signed_by) {
            return Err(TokenError::Signature);
        }
        Ok(parse_object(&self.payload)?)
    }
}

fn has_signed(key: &VerifyingKey, algorithm: JwsAlgorithm, signed: &[u8], signature: &str) -> bool {
    match (key, algorithm.implementation()) {
        (VerifyingKey::Usual(key), Some(implementation)) => {
            jsonwebtoken::crypto::verify(signature, signed, key, implementation).unwrap_or(false)
        }
        (VerifyingKey::P521(point), None) => {
            let key = UnparsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point);
            let signature = BASE64URL_NOPAD.decode(signature.as_bytes());
            signature.is_ok_and(|signature| key.verify(signed, &signature).is_ok())
        }
        (VerifyingKey::Usual(_), None) | (VerifyingKey::P521(_), Some(_)) => false,
    }
}

/// Why a token is not accepted. Nothing of the token is quoted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It says that it is signed with an algorithm that is not allowed here, or with none.
    #[error("the token is signed with an algorithm that is not allowed, or not signed")]
    Algorithm,
    /// Its header asks for something that is not understood.
    #[error("the token's header demands an extension")]
    Critical,
    /// Its JSON is malformed.
    #[error("the token {0}")]
    Json(#[from] JsonError),
    /// No key comes into question.
    #[error(
        "the token is signed with a key that is not known, or by another algorithm than its key's"
    )]
    Key,
    /// It was made for something else.
    #[error("the token is of another kind")]
    Kind,
    /// It is no signed token.
    #[error("the token is not a signed JWT")]
    Malformed,
    /// No key has signed it.
    #[error("the token's signature is wrong")]
    Signature,
    /// It is too long.
    #[error("the token is longer than 32 KiB")]
    TooLong,
}

#[cfg(test)]
#[path = "tests/published.rs"]
mod published;
#[cfg(test)]
mod tests;
