//! Signatures over elliptic curves: Ed25519 (RFC 8032) and ECDSA over the curves of NIST (FIPS 186-5).

use aws_lc_rs::digest;
use aws_lc_rs::encoding::PublicKeyX509Der;
use aws_lc_rs::encoding::{AsBigEndian, AsDer, Curve25519SeedBin, EcPrivateKeyRfc5915Der};
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING,
    ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_ASN1_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, EcdsaVerificationAlgorithm, Ed25519KeyPair, KeyPair, UnparsedPublicKey,
};
use zeroize::Zeroizing;

use super::kdf::hkdf;
use super::pem;
use crate::types::secret::{SecretBytes, SecretString};

const SEED_BYTES: usize = 32;
/// Length of an Ed25519 private key as it is kept: the seed and the public key.
const ED25519_BYTES: usize = 64;

/// The bytes are not a key of that kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a private key of that kind")]
pub struct NotAKey;

/// Something could not be signed or made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library failed")]
pub struct LibraryError;

/// An Ed25519 key.
pub struct Ed25519Key(Ed25519KeyPair);

impl Ed25519Key {
    /// A fresh key, as it is kept: seed and public key.
    ///
    /// # Errors
    /// When the library has no randomness to give.
    pub fn generate() -> Result<SecretBytes, LibraryError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| LibraryError)?;
        kept(&pair)
    }

    /// The key in a PKCS #8 structure (RFC 8410 §7), as it is kept.
    ///
    /// # Errors
    /// When there is none.
    pub fn import(pkcs8: &[u8]) -> Result<SecretBytes, NotAKey> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(|_| NotAKey)?;
        kept(&pair).map_err(|_| NotAKey)
    }

    /// Readies a key that was kept.
    ///
    /// # Errors
    /// When it is none, or its halves do not belong together.
    pub fn new(kept: &SecretBytes) -> Result<Self, NotAKey> {
        if kept.len() != ED25519_BYTES {
            return Err(NotAKey);
        }
        let (seed, public) = kept.expose().split_at_checked(SEED_BYTES).ok_or(NotAKey)?;
        Ed25519KeyPair::from_seed_and_public_key(seed, public).map(Self).map_err(|_| NotAKey)
    }

    /// The key that follows from a kept one and a context.
    ///
    /// # Errors
    /// Never; the library does not know.
    pub fn derive(kept: &SecretBytes, context: &[u8]) -> Result<Self, NotAKey> {
        let seed = hkdf(kept.expose(), context, SEED_BYTES);
        Ed25519KeyPair::from_seed_unchecked(seed.expose()).map(Self).map_err(|_| NotAKey)
    }

    /// The public key.
    pub fn public(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    /// Signs.
    ///
    /// # Errors
    /// Never; the library does not know.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, LibraryError> {
        let signature = self.0.try_sign(message).map_err(|_| LibraryError)?;
        Ok(signature.as_ref().to_vec())
    }

    /// Whether the signature is one of this key.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        verify_ed25519(self.public(), message, signature)
    }
}

fn verify_ed25519(public: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let key = UnparsedPublicKey::new(&signature::ED25519, public);
    key.verify(message, signature).is_ok()
}

fn kept(pair: &Ed25519KeyPair) -> Result<SecretBytes, LibraryError> {
    let seed = pair.seed().map_err(|_| LibraryError)?;
    let seed: Curve25519SeedBin<'_> = seed.as_be_bytes().map_err(|_| LibraryError)?;
    let mut kept = Vec::with_capacity(ED25519_BYTES);
    kept.extend_from_slice(seed.as_ref());
    kept.extend_from_slice(pair.public_key().as_ref());
    Ok(SecretBytes::new(kept))
}

/// A curve of NIST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// P-256.
    P256,
    /// P-384.
    P384,
    /// P-521.
    P521,
}

/// How the two numbers of an ECDSA signature are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marshaling {
    /// As a structure in DER (RFC 3279 §2.2.3).
    Asn1,
    /// One after the other, each as long as the curve's order (RFC 7518 §3.4).
    Fixed,
}

impl Curve {
    /// The curve's own name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    /// Length of a coordinate and of a private key, in bytes.
    const fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    fn signing(self, marshaling: Marshaling) -> &'static EcdsaSigningAlgorithm {
        match (self, marshaling) {
            (Self::P256, Marshaling::Asn1) => &ECDSA_P256_SHA256_ASN1_SIGNING,
            (Self::P256, Marshaling::Fixed) => &ECDSA_P256_SHA256_FIXED_SIGNING,
            (Self::P384, Marshaling::Asn1) => &ECDSA_P384_SHA384_ASN1_SIGNING,
            (Self::P384, Marshaling::Fixed) => &ECDSA_P384_SHA384_FIXED_SIGNING,
            (Self::P521, Marshaling::Asn1) => &ECDSA_P521_SHA512_ASN1_SIGNING,
            (Self::P521, Marshaling::Fixed) => &ECDSA_P521_SHA512_FIXED_SIGNING,
        }
    }

    fn verification(self, marshaling: Marshaling) -> &'static EcdsaVerificationAlgorithm {
        match (self, marshaling) {
            (Self::P256, Marshaling::Asn1) => &signature::ECDSA_P256_SHA256_ASN1,
            (Self::P256, Marshaling::Fixed) => &signature::ECDSA_P256_SHA256_FIXED,
            (Self::P384, Marshaling::Asn1) => &signature::ECDSA_P384_SHA384_ASN1,
            (Self::P384, Marshaling::Fixed) => &signature::ECDSA_P384_SHA384_FIXED,
            (Self::P521, Marshaling::Asn1) => &signature::ECDSA_P521_SHA512_ASN1,
            (Self::P521, Marshaling::Fixed) => &signature::ECDSA_P521_SHA512_FIXED,
        }
    }

    /// A digest of any hash as one that the library takes for this curve.
    ///
    /// What is signed is a number: the leftmost bits of the digest, as many as the curve's order has
    /// (FIPS 186-5 §6.4.1). So a longer digest is cut, and zeros before a shorter one change nothing.
    fn fit(self, digest: &[u8]) -> Result<digest::Digest, LibraryError> {
        let algorithm = match self {
            Self::P256 => &digest::SHA256,
            Self::P384 => &digest::SHA384,
            Self::P521 => &digest::SHA512,
        };
        let length = algorithm.output_len();
        let cut = digest.get(..length).unwrap_or(digest);
        let mut fitted = vec![0u8; length - cut.len()];
        fitted.extend_from_slice(cut);
        digest::Digest::import_less_safe(&fitted, algorithm).map_err(|_| LibraryError)
    }
}

/// An ECDSA key.
pub struct EcdsaKey {
    curve: Curve,
    asn1: EcdsaKeyPair,
    fixed: EcdsaKeyPair,
}

impl EcdsaKey {
    /// A fresh key, as it is kept: PKCS #8.
    ///
    /// # Errors
    /// When the library has no randomness to give.
    pub fn generate(curve: Curve) -> Result<SecretBytes, LibraryError> {
        let pair = EcdsaKeyPair::generate(curve.signing(Marshaling::Asn1));
        let document = pair.and_then(|pair| pair.to_pkcs8v1()).map_err(|_| LibraryError)?;
        Ok(SecretBytes::copy_of(document.as_ref()))
    }

    /// The key in a PKCS #8 structure, as it is kept.
    ///
    /// # Errors
    /// When there is none, or it is of another curve.
    pub fn import(curve: Curve, pkcs8: &[u8]) -> Result<SecretBytes, NotAKey> {
        let pair = EcdsaKeyPair::from_pkcs8(curve.signing(Marshaling::Asn1), pkcs8);
        let document = pair.map_err(|_| NotAKey)?.to_pkcs8v1().map_err(|_| NotAKey)?;
        Ok(SecretBytes::copy_of(document.as_ref()))
    }

    /// The key with these numbers, big-endian and without zeros in front, as it is kept.
    ///
    /// # Errors
    /// When the public point is not that of the private number, or not on that curve.
    pub fn from_numbers(
        curve: Curve,
        private: &[u8],
        x: &[u8],
        y: &[u8],
    ) -> Result<SecretBytes, NotAKey> {
        let padded = |number: &[u8]| {
            let zeros = curve.bytes().checked_sub(number.len()).ok_or(NotAKey)?;
            let mut fixed = Zeroizing::new(Vec::with_capacity(curve.bytes()));
            fixed.resize(zeros, 0);
            fixed.extend_from_slice(number);
            Ok(fixed)
        };
        // Uncompressed (SEC 1 §2.3.3).
        let point = [&[4], padded(x)?.as_slice(), padded(y)?.as_slice()].concat();
        let pair = EcdsaKeyPair::from_private_key_and_public_key(
            curve.signing(Marshaling::Asn1),
            &padded(private)?,
            &point,
        );
        let document = pair.map_err(|_| NotAKey)?.to_pkcs8v1().map_err(|_| NotAKey)?;
        Ok(SecretBytes::copy_of(document.as_ref()))
    }

    /// Readies a key that was kept.
    ///
    /// # Errors
    /// When it is none of that curve.
    pub fn new(curve: Curve, kept: &SecretBytes) -> Result<Self, NotAKey> {
        let pair = |marshaling| {
            EcdsaKeyPair::from_pkcs8(curve.signing(marshaling), kept.expose()).map_err(|_| NotAKey)
        };
        Ok(Self { curve, asn1: pair(Marshaling::Asn1)?, fixed: pair(Marshaling::Fixed)? })
    }

    /// Signs a digest, of whichever hash.
    ///
    /// # Errors
    /// Never; the library does not know.
    pub fn sign(&self, digest: &[u8], marshaling: Marshaling) -> Result<Vec<u8>, LibraryError> {
        let pair = match marshaling {
            Marshaling::Asn1 => &self.asn1,
            Marshaling::Fixed => &self.fixed,
        };
        let digest = self.curve.fit(digest)?;
        Ok(pair.sign_digest(&digest).map_err(|_| LibraryError)?.as_ref().to_vec())
    }

    /// Whether the signature is one of this key.
    pub fn verify(&self, digest: &[u8], signature: &[u8], marshaling: Marshaling) -> bool {
        verify_ecdsa(self.curve, self.asn1.public_key().as_ref(), digest, signature, marshaling)
    }

    /// The public key in PEM.
    ///
    /// # Errors
    /// Never; the library does not know.
    pub fn public_pem(&self) -> Result<String, LibraryError> {
        let der: PublicKeyX509Der<'_> =
            self.asn1.public_key().as_der().map_err(|_| LibraryError)?;
        Ok(pem::text("PUBLIC KEY", der.as_ref()).expose().to_owned())
    }

    /// The private key in PEM (RFC 5915 §4).
    ///
    /// # Errors
    /// Never; the library does not know.
    pub fn private_pem(&self) -> Result<SecretString, LibraryError> {
        let der: EcPrivateKeyRfc5915Der<'_> =
            self.asn1.private_key().as_der().map_err(|_| LibraryError)?;
        Ok(pem::text("EC PRIVATE KEY", der.as_ref()))
    }
}

/// Whether the signature of a digest is one of the key with this public half.
fn verify_ecdsa(
    curve: Curve,
    public: &[u8],
    digest: &[u8],
    signature: &[u8],
    marshaling: Marshaling,
) -> bool {
    let Ok(digest) = curve.fit(digest) else { return false };
    let key = UnparsedPublicKey::new(curve.verification(marshaling), public);
    key.verify_digest(&digest, signature).is_ok()
}

#[cfg(test)]
mod tests;
