//! Public keys (RFC 4253 section 6.6, RFC 5656, RFC 8709, OpenSSH `PROTOCOL.u2f`).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    EcdsaVerificationAlgorithm, ParsedPublicKey,
};
use data_encoding::{BASE64, BASE64_NOPAD};

use super::wire::{Reader, Writer};
use crate::crypto::digest::sha256;

/// Shortest RSA modulus that is accepted, in bits.
pub const SSH_RSA_BITS_MIN: usize = 2048;
/// Longest, as in OpenSSH.
const RSA_BITS_MAX: usize = 16_384;
/// Longest line that is read.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// The curve of an ECDSA key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SshCurve {
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
    /// NIST P-521.
    P521,
}

impl SshCurve {
    /// As keys name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::P256 => "nistp256",
            Self::P384 => "nistp384",
            Self::P521 => "nistp521",
        }
    }

    /// Bits of the field.
    pub const fn bits(self) -> u64 {
        match self {
            Self::P256 => 256,
            Self::P384 => 384,
            Self::P521 => 521,
        }
    }

    /// Bytes of a coordinate and of a private key.
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    const fn verification(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED,
            Self::P384 => &ECDSA_P384_SHA384_FIXED,
            Self::P521 => &ECDSA_P521_SHA512_FIXED,
        }
    }
}

/// What kind of key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SshKind {
    /// ECDSA.
    Ecdsa(SshCurve),
    /// Ed25519.
    Ed25519,
    /// RSA with a modulus of so many bits.
    Rsa(usize),
    /// ECDSA on P-256 in a security key.
    SkEcdsa,
    /// Ed25519 in a security key.
    SkEd25519,
}

impl SshKind {
    /// The name of the key's algorithm.
    pub const fn algorithm(self) -> &'static str {
        match self {
            Self::Ecdsa(SshCurve::P256) => "ecdsa-sha2-nistp256",
            Self::Ecdsa(SshCurve::P384) => "ecdsa-sha2-nistp384",
            Self::Ecdsa(SshCurve::P521) => "ecdsa-sha2-nistp521",
            Self::Ed25519 => "ssh-ed25519",
            Self::Rsa(_) => "ssh-rsa",
            Self::SkEcdsa => "sk-ecdsa-sha2-nistp256@openssh.com",
            Self::SkEd25519 => "sk-ssh-ed25519@openssh.com",
        }
    }

    /// The name of a certificate's algorithm on such a key (OpenSSH `PROTOCOL.certkeys`).
    pub const fn certificate_algorithm(self) -> &'static str {
        match self {
            Self::Ecdsa(SshCurve::P256) => "ecdsa-sha2-nistp256-cert-v01@openssh.com",
            Self::Ecdsa(SshCurve::P384) => "ecdsa-sha2-nistp384-cert-v01@openssh.com",
            Self::Ecdsa(SshCurve::P521) => "ecdsa-sha2-nistp521-cert-v01@openssh.com",
            Self::Ed25519 => "ssh-ed25519-cert-v01@openssh.com",
            Self::Rsa(_) => "ssh-rsa-cert-v01@openssh.com",
            Self::SkEcdsa => "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
            Self::SkEd25519 => "sk-ssh-ed25519-cert-v01@openssh.com",
        }
    }
}

/// A public key that was checked: of a known kind, long enough, and a point on its curve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshPublicKey {
    kind: SshKind,
    blob: Vec<u8>,
}

impl SshPublicKey {
    /// Reads a line as in `id_ed25519.pub`: algorithm, key in base64, and perhaps a comment.
    ///
    /// # Errors
    /// What is no such line, and keys that are too weak or of a kind that is not served.
    pub fn parse(line: &str) -> Result<Self, SshPublicKeyError> {
        let line = line.trim();
        if line.len() > LINE_BYTES_MAX || line.contains(['\n', '\r', '\0']) {
            return Err(SshPublicKeyError::Form);
        }
        let mut words = line.split_ascii_whitespace();
        let (algorithm, text) = match (words.next(), words.next()) {
            (Some(algorithm), Some(text)) => (algorithm, text),
            (_, _) => return Err(SshPublicKeyError::Form),
        };
        let blob = BASE64.decode(text.as_bytes()).map_err(|_| SshPublicKeyError::Form)?;
        let key = Self::from_blob(&blob)?;
        if key.kind.algorithm() == algorithm { Ok(key) } else { Err(SshPublicKeyError::Form) }
    }

    /// Reads the binary form.
    ///
    /// # Errors
    /// As [`SshPublicKey::parse`].
    pub(super) fn from_blob(blob: &[u8]) -> Result<Self, SshPublicKeyError> {
        let mut reader = Reader::new(blob);
        let algorithm = reader.string().ok_or(SshPublicKeyError::Form)?;
        let kind = match algorithm {
            b"ssh-ed25519" => ed25519(&mut reader).map(|()| SshKind::Ed25519),
            b"ecdsa-sha2-nistp256" => ecdsa(&mut reader, SshCurve::P256),
            b"ecdsa-sha2-nistp384" => ecdsa(&mut reader, SshCurve::P384),
            b"ecdsa-sha2-nistp521" => ecdsa(&mut reader, SshCurve::P521),
            b"ssh-rsa" => return Self::rsa(reader, blob),
            b"sk-ssh-ed25519@openssh.com" => ed25519(&mut reader)
                .and_then(|()| application(&mut reader))
                .map(|()| SshKind::SkEd25519),
            b"sk-ecdsa-sha2-nistp256@openssh.com" => ecdsa(&mut reader, SshCurve::P256)
                .and_then(|_| application(&mut reader))
                .map(|()| SshKind::SkEcdsa),
            _ => return Err(SshPublicKeyError::Unserved),
        };
        let kind = kind.filter(|_| reader.end().is_some()).ok_or(SshPublicKeyError::Form)?;
        Ok(Self { kind, blob: blob.to_vec() })
    }

    fn rsa(mut reader: Reader<'_>, blob: &[u8]) -> Result<Self, SshPublicKeyError> {
        let (exponent, modulus) = match (reader.mpint(), reader.mpint(), reader.end()) {
            (Some(exponent), Some(modulus), Some(())) => (exponent, modulus),
            (_, _, _) => return Err(SshPublicKeyError::Form),
        };
        let zeros = modulus.first().map_or(0, |first| first.leading_zeros() as usize);
        let bits = modulus.len().saturating_mul(8).saturating_sub(zeros);
        let odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
        // An exponent of one would make every signature valid.
        let sound = odd(exponent) && exponent != [1] && exponent.len() <= 8 && odd(modulus);
        if !sound || bits > RSA_BITS_MAX {
            return Err(SshPublicKeyError::Form);
        }
        if bits < SSH_RSA_BITS_MIN {
            return Err(SshPublicKeyError::Weak);
        }
        Ok(Self { kind: SshKind::Rsa(bits), blob: blob.to_vec() })
    }

    /// From the parts that follow the algorithm's name.
    pub(super) fn from_parts(
        kind: SshKind,
        parts: impl FnOnce(&mut Writer),
    ) -> Result<Self, SshPublicKeyError> {
        let mut blob = Writer::with_capacity(1024);
        blob.string(kind.algorithm().as_bytes());
        parts(&mut blob);
        Self::from_blob(blob.bytes())
    }

    /// What kind of key it is.
    pub const fn kind(&self) -> SshKind {
        self.kind
    }

    /// The binary form.
    pub(super) fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// The binary form after the algorithm's name: what certificates repeat.
    pub(super) fn parts(&self) -> &[u8] {
        let mut reader = Reader::new(&self.blob);
        reader.string().map_or(&[], |_| reader.rest())
    }

    /// Algorithm and key in base64, without a comment or an end of line.
    pub fn to_line(&self) -> String {
        format!("{} {}", self.kind.algorithm(), BASE64.encode(&self.blob))
    }

    /// SHA-256 of the binary form.
    pub fn digest(&self) -> [u8; 32] {
        sha256(&self.blob)
    }

    /// As `ssh-keygen -l` shows it.
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", BASE64_NOPAD.encode(&self.digest()))
    }
}

fn ed25519(reader: &mut Reader<'_>) -> Option<()> {
    let key = reader.string().filter(|key| key.len() == 32)?;
    ParsedPublicKey::new(&ED25519, key).ok().map(drop)
}

fn ecdsa(reader: &mut Reader<'_>, curve: SshCurve) -> Option<SshKind> {
    reader.string().filter(|name| *name == curve.name().as_bytes())?;
    let point = reader.string()?;
    // Uncompressed (SEC 1 section 2.3.3), as RFC 5656 section 3.1 wants it.
    let fits = point.first() == Some(&4) && point.len() == 1 + 2 * curve.bytes();
    let on_curve = fits && ParsedPublicKey::new(curve.verification(), point).is_ok();
    on_curve.then_some(SshKind::Ecdsa(curve))
}

fn application(reader: &mut Reader<'_>) -> Option<()> {
    reader.string().filter(|name| !name.is_empty()).map(|_| ())
}

/// Why a public key was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SshPublicKeyError {
    /// It is no public key in OpenSSH's form.
    #[error("is not a public key as ssh-keygen writes it")]
    Form,
    /// DSA, a certificate, or something else.
    #[error("is of a kind that is not signed: use an Ed25519, ECDSA or RSA key")]
    Unserved,
    /// RSA below [`SSH_RSA_BITS_MIN`].
    #[error("is an RSA key of fewer than 2048 bits")]
    Weak,
}
