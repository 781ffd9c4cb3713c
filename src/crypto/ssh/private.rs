//! Private keys: made, read in the forms that `ssh-keygen` and `openssl` write, and signed with.

use aws_lc_rs::encoding::{AsBigEndian, AsDer, Pkcs8V1Der};
use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeyPairComponents, KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512,
};
use data_encoding::BASE64;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use subtle::{Choice, ConditionallySelectable};
use zeroize::Zeroizing;

use super::public::{SshCurve, SshKind, SshPublicKey, SshPublicKeyError};
use super::wire::{Reader, Writer, without_leading_zeros};
use crate::types::secret::{RandomError, SecretBytes, SecretString, fill_random};

/// What OpenSSH's own form begins with (its `PROTOCOL.key`).
const MAGIC: &[u8] = b"openssh-key-v1\0";
const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";
/// Characters of a line between them.
const LINE: usize = 70;
/// Longest text that is read.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Longest modulus of a private key that is read: what the library takes.
const MODULUS_BYTES_MAX: usize = 1024;
/// The padding of a key that is not encrypted goes to a multiple of this.
const BLOCK_BYTES: usize = 8;

/// What keys can be made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SshKeyType {
    /// ECDSA.
    Ecdsa(SshCurve),
    /// Ed25519.
    Ed25519,
    /// RSA of 2048 bits.
    Rsa2048,
    /// RSA of 3072 bits.
    Rsa3072,
    /// RSA of 4096 bits.
    Rsa4096,
}

/// The hash in signatures by RSA keys (RFC 8332).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SshRsaSignature {
    /// `rsa-sha2-256`.
    Sha256,
    /// `rsa-sha2-512`.
    #[default]
    Sha512,
}

enum Pair {
    Ecdsa(SshCurve, EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(rsa::KeyPair),
}

/// A key pair.
pub struct SshPrivateKey {
    pair: Pair,
    public: SshPublicKey,
}

impl SshCurve {
    const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    const fn signing(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Self::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
            Self::P521 => &ECDSA_P521_SHA512_FIXED_SIGNING,
        }
    }
}

impl SshPrivateKey {
    /// A new key. RSA takes up to seconds: not on a thread that others wait for.
    ///
    /// # Errors
    /// When the generator fails.
    pub fn generate(kind: SshKeyType) -> Result<Self, SshKeyError> {
        Self::new(match kind {
            SshKeyType::Ecdsa(curve) => {
                Pair::Ecdsa(curve, EcdsaKeyPair::generate(curve.signing())?)
            }
            SshKeyType::Ed25519 => Pair::Ed25519(Ed25519KeyPair::generate()?),
            SshKeyType::Rsa2048 => Pair::Rsa(rsa::KeyPair::generate(KeySize::Rsa2048)?),
            SshKeyType::Rsa3072 => Pair::Rsa(rsa::KeyPair::generate(KeySize::Rsa3072)?),
            SshKeyType::Rsa4096 => Pair::Rsa(rsa::KeyPair::generate(KeySize::Rsa4096)?),
        })
    }

    /// Reads a key that is not encrypted: in OpenSSH's form, or in PEM as PKCS #8, PKCS #1 or SEC 1.
    ///
    /// # Errors
    /// Every other text, encrypted keys, and keys that are weak or inconsistent.
    pub fn import(text: &SecretString) -> Result<Self, SshKeyError> {
        let text = text.expose().trim();
        if text.len() > TEXT_BYTES_MAX {
            return Err(SshKeyError::Form);
        }
        if let Some(rest) = text.strip_prefix(BEGIN) {
            let inside = rest.strip_suffix(END).ok_or(SshKeyError::Form)?;
            let letters = inside.bytes().filter(|byte| !byte.is_ascii_whitespace());
            let letters = Zeroizing::new(letters.collect::<Vec<_>>());
            let blob = BASE64.decode(&letters).map_err(|_| SshKeyError::Form)?;
            return Self::from_openssh(&SecretBytes::new(blob));
        }
        if text.contains("ENCRYPTED") {
            return Err(SshKeyError::Encrypted);
        }
        match PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| SshKeyError::Form)? {
            PrivateKeyDer::Pkcs8(key) => Self::from_pkcs8(key.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(key) => {
                Self::new(Pair::Rsa(rsa::KeyPair::from_der(key.secret_pkcs1_der())?))
            }
            PrivateKeyDer::Sec1(key) => {
                let der = key.secret_sec1_der();
                Self::on_some_curve(|curve| {
                    EcdsaKeyPair::from_private_key_der(curve.signing(), der)
                })
            }
            _ => Err(SshKeyError::Form),
        }
    }

    /// Reads what [`SshPrivateKey::to_pkcs8`] wrote.
    ///
    /// # Errors
    /// Anything but a PKCS #8 structure (RFC 5958) with a key of a kind that is served.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, SshKeyError> {
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8(der) {
            return Self::new(Pair::Ed25519(pair));
        }
        if let Ok(pair) = rsa::KeyPair::from_pkcs8(der) {
            return Self::new(Pair::Rsa(pair));
        }
        Self::on_some_curve(|curve| EcdsaKeyPair::from_pkcs8(curve.signing(), der))
    }

    fn on_some_curve(
        read: impl Fn(SshCurve) -> Result<EcdsaKeyPair, KeyRejected>,
    ) -> Result<Self, SshKeyError> {
        for curve in SshCurve::ALL {
            if let Ok(pair) = read(curve) {
                return Self::new(Pair::Ecdsa(curve, pair));
            }
        }
        Err(SshKeyError::Rejected)
    }

    fn new(pair: Pair) -> Result<Self, SshKeyError> {
        let public = match &pair {
            Pair::Ecdsa(curve, pair) => SshPublicKey::from_parts(SshKind::Ecdsa(*curve), |out| {
                out.string(curve.name().as_bytes()).string(pair.public_key().as_ref());
            }),
            Pair::Ed25519(pair) => SshPublicKey::from_parts(SshKind::Ed25519, |out| {
                out.string(pair.public_key().as_ref());
            }),
            Pair::Rsa(pair) => SshPublicKey::from_parts(SshKind::Rsa(0), |out| {
                let key = pair.public_key();
                out.mpint(key.exponent().big_endian_without_leading_zero())
                    .mpint(key.modulus().big_endian_without_leading_zero());
            }),
        }?;
        Ok(Self { pair, public })
    }

    /// The public half.
    pub const fn public(&self) -> &SshPublicKey {
        &self.public
    }

    /// The key as a PKCS #8 structure, to be stored.
    ///
    /// # Errors
    /// When the library cannot write it.
    pub fn to_pkcs8(&self) -> Result<SecretBytes, SshKeyError> {
        Ok(match &self.pair {
            Pair::Ecdsa(_, pair) => SecretBytes::copy_of(pair.to_pkcs8v1()?.as_ref()),
            Pair::Ed25519(pair) => SecretBytes::copy_of(pair.to_pkcs8v1()?.as_ref()),
            Pair::Rsa(pair) => {
                let der: Pkcs8V1Der<'_> = pair.as_der()?;
                SecretBytes::copy_of(der.as_ref())
            }
        })
    }

    /// The signature of `message` in the form of RFC 4253 section 6.6.
    pub(super) fn sign(
        &self,
        message: &[u8],
        hash: SshRsaSignature,
    ) -> Result<Vec<u8>, SshKeyError> {
        let random = SystemRandom::new();
        let mut out = Writer::with_capacity(1024);
        match &self.pair {
            Pair::Ed25519(pair) => {
                out.string(b"ssh-ed25519").string(pair.try_sign(message)?.as_ref());
            }
            Pair::Ecdsa(curve, pair) => {
                // RFC 5656 section 3.1.2: the two numbers, each as an mpint.
                let signature = pair.sign(&random, message)?;
                let (r, s) = signature
                    .as_ref()
                    .split_at_checked(curve.bytes())
                    .ok_or(SshKeyError::Rejected)?;
                let mut numbers = Writer::with_capacity(160);
                numbers.mpint(r).mpint(s);
                out.string(self.public.kind().algorithm().as_bytes()).string(numbers.bytes());
            }
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let (name, padding) = match hash {
                    SshRsaSignature::Sha256 => ("rsa-sha2-256", &RSA_PKCS1_SHA256),
                    SshRsaSignature::Sha512 => ("rsa-sha2-512", &RSA_PKCS1_SHA512),
                };
                pair.sign(padding, &random, message, &mut signature)?;
                out.string(name.as_bytes()).string(&signature);
            }
        }
        Ok(out.bytes().to_vec())
    }

    /// The key in OpenSSH's own form, not encrypted.
    ///
    /// # Errors
    /// When the library cannot tell the key's parts, or there is no randomness.
    pub fn to_openssh(&self) -> Result<SecretString, SshKeyError> {
        let mut check = [0u8; 4];
        fill_random(&mut check)?;
        let mut inner = Writer::with_capacity(8192);
        inner.raw(&check).raw(&check).string(self.public.kind().algorithm().as_bytes());
        match &self.pair {
            Pair::Ed25519(pair) => {
                let seed = pair.seed()?.as_be_bytes()?;
                let both = Zeroizing::new([seed.as_ref(), pair.public_key().as_ref()].concat());
                inner.string(pair.public_key().as_ref()).string(&both);
            }
            Pair::Ecdsa(curve, pair) => {
                inner
                    .string(curve.name().as_bytes())
                    .string(pair.public_key().as_ref())
                    .mpint(pair.private_key().as_be_bytes()?.as_ref());
            }
            Pair::Rsa(pair) => {
                let der: Pkcs8V1Der<'_> = pair.as_der()?;
                let parts = RsaParts::of_pkcs8(der.as_ref()).ok_or(SshKeyError::Rejected)?;
                for part in [parts.n, parts.e, parts.d, parts.q_inverse, parts.p, parts.q] {
                    inner.mpint(part);
                }
            }
        }
        // No comment; then 1, 2, 3 … up to a whole block.
        inner.string(&[]);
        let padding = inner.bytes().len().wrapping_neg() % BLOCK_BYTES;
        for byte in (1..=padding).filter_map(|byte| u8::try_from(byte).ok()) {
            inner.raw(&[byte]);
        }
        let mut outer = Writer::with_capacity(inner.bytes().len() + 2048);
        outer
            .raw(MAGIC)
            .string(b"none")
            .string(b"none")
            .string(&[])
            .uint32(1)
            .string(self.public.blob())
            .string(inner.bytes());
        Ok(between_lines(&Zeroizing::new(BASE64.encode(outer.bytes()))))
    }

    fn from_openssh(blob: &SecretBytes) -> Result<Self, SshKeyError> {
        let rest = blob.expose().strip_prefix(MAGIC).ok_or(SshKeyError::Form)?;
        let mut outer = Reader::new(rest);
        let cipher = outer.string().ok_or(SshKeyError::Form)?;
        if cipher != b"none" {
            return Err(SshKeyError::Encrypted);
        }
        let (mut inner, public) = sections(outer).ok_or(SshKeyError::Form)?;
        let pair = read_pair(&mut inner)?;
        let padded = inner.string().map(|_comment| inner.rest()).ok_or(SshKeyError::Form)?;
        if padded.len() >= BLOCK_BYTES || !padded.iter().zip(1u8..).all(|(byte, at)| *byte == at) {
            return Err(SshKeyError::Form);
        }
        let key = Self::new(pair)?;
        if key.public.blob() == public { Ok(key) } else { Err(SshKeyError::Rejected) }
    }
}

/// The private part of OpenSSH's form, behind its check numbers, and the public key before it.
fn sections(mut outer: Reader<'_>) -> Option<(Reader<'_>, &[u8])> {
    let unencrypted = outer.string()? == b"none" && outer.string()?.is_empty();
    if !unencrypted || outer.uint32()? != 1 {
        return None;
    }
    let public = outer.string()?;
    let mut inner = Reader::new(outer.string()?);
    outer.end()?;
    (inner.uint32()? == inner.uint32()?).then_some((inner, public))
}

/// The private part of OpenSSH's form, up to the comment.
fn read_pair(inner: &mut Reader<'_>) -> Result<Pair, SshKeyError> {
    let form = || SshKeyError::Form;
    let algorithm = inner.string().ok_or_else(form)?;
    if algorithm == b"ssh-ed25519" {
        let (public, both) = inner.string().zip(inner.string()).ok_or_else(form)?;
        let (seed, again) = both.split_at_checked(32).ok_or_else(form)?;
        if again != public {
            return Err(form());
        }
        return Ok(Pair::Ed25519(Ed25519KeyPair::from_seed_and_public_key(seed, public)?));
    }
    if algorithm == b"ssh-rsa" {
        let mut number = || inner.mpint().ok_or_else(form);
        let (n, e, d) = (number()?, number()?, number()?);
        let (q_inverse, p, q) = (number()?, number()?, number()?);
        // The reduction below takes as long as these two lengths multiplied.
        let longest = [d, p, q].into_iter().map(<[u8]>::len).max();
        if n.len() > MODULUS_BYTES_MAX || longest > Some(n.len()) {
            return Err(SshKeyError::Rejected);
        }
        return Ok(Pair::Rsa(rsa::KeyPair::from_components(&KeyPairComponents {
            public_key: PublicKeyComponents { n, e },
            d,
            p,
            q,
            dP: reduced(d, p).as_slice(),
            dQ: reduced(d, q).as_slice(),
            qInv: q_inverse,
        })?));
    }
    let curve = SshCurve::ALL
        .into_iter()
        .find(|curve| algorithm == SshKind::Ecdsa(*curve).algorithm().as_bytes())
        .ok_or(SshKeyError::Rejected)?;
    let name = inner.string().ok_or_else(form)?;
    let (point, number) = inner.string().zip(inner.mpint()).ok_or_else(form)?;
    if name != curve.name().as_bytes() || number.len() > curve.bytes() {
        return Err(form());
    }
    let mut scalar = Zeroizing::new(vec![0; curve.bytes().saturating_sub(number.len())]);
    scalar.reserve_exact(number.len());
    scalar.extend_from_slice(number);
    let pair = EcdsaKeyPair::from_private_key_and_public_key(curve.signing(), &scalar, point)?;
    Ok(Pair::Ecdsa(curve, pair))
}

/// `exponent mod (prime - 1)`, big-endian: what the Chinese remainder theorem needs and OpenSSH does
/// not store. In time that depends on the lengths alone.
fn reduced(exponent: &[u8], prime: &[u8]) -> Zeroizing<Vec<u8>> {
    // Little-endian, with room for the bit that doubling pushes out. A prime is odd.
    let mut modulus = Zeroizing::new(prime.iter().rev().copied().chain([0]).collect::<Vec<_>>());
    if let Some(lowest) = modulus.first_mut() {
        *lowest &= 0xfe;
    }
    let mut rest = Zeroizing::new(vec![0u8; modulus.len()]);
    let mut less = Zeroizing::new(vec![0u8; modulus.len()]);
    for bit in exponent.iter().flat_map(|byte| (0..8).rev().map(move |at| (byte >> at) & 1)) {
        let mut carry = bit;
        for digit in rest.iter_mut() {
            let pushed_out = *digit >> 7;
            *digit = (*digit << 1) | carry;
            carry = pushed_out;
        }
        let mut borrow = 0;
        for ((less, digit), taken) in less.iter_mut().zip(rest.iter()).zip(modulus.iter()) {
            let difference = 0x100 + u16::from(*digit) - u16::from(*taken) - borrow;
            borrow = 1 - (difference >> 8);
            *less = difference.to_le_bytes()[0];
        }
        let fits = Choice::from(u8::from(borrow.to_le_bytes()[0] == 0));
        for (digit, less) in rest.iter_mut().zip(less.iter()) {
            digit.conditional_assign(less, fits);
        }
    }
    rest.reverse();
    rest
}

/// The numbers of an RSA key (RFC 8017 appendix A.1.2).
struct RsaParts<'d> {
    n: &'d [u8],
    e: &'d [u8],
    d: &'d [u8],
    p: &'d [u8],
    q: &'d [u8],
    q_inverse: &'d [u8],
}

impl<'d> RsaParts<'d> {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    const OCTETS: u8 = 0x04;

    /// Out of PKCS #8 as the library writes it.
    fn of_pkcs8(der: &'d [u8]) -> Option<Self> {
        let (outer, _) = element(der, Self::SEQUENCE)?;
        let (_version, rest) = element(outer, Self::INTEGER)?;
        let (_algorithm, rest) = element(rest, Self::SEQUENCE)?;
        let (key, _) = element(rest, Self::OCTETS)?;
        let (numbers, _) = element(key, Self::SEQUENCE)?;
        let (_version, mut rest) = element(numbers, Self::INTEGER)?;
        let mut number = || {
            let (number, further) = element(rest, Self::INTEGER)?;
            rest = further;
            Some(without_leading_zeros(number))
        };
        let (n, e, d, p, q) = (number()?, number()?, number()?, number()?, number()?);
        let (_d_p, _d_q, q_inverse) = (number()?, number()?, number()?);
        Some(Self { n, e, d, p, q, q_inverse })
    }
}

/// The contents of the first DER element (X.690 section 8.1), which has this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |len, byte| (len << 8) | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(len)?;
    (*found == tag).then_some((contents, rest))
}

fn between_lines(encoded: &str) -> SecretString {
    let mut text = String::with_capacity(encoded.len() + encoded.len() / LINE + 100);
    text.push_str(BEGIN);
    text.push('\n');
    let mut rest = encoded;
    while !rest.is_empty() {
        let (line, further) = rest.split_at_checked(LINE).unwrap_or((rest, ""));
        text.push_str(line);
        text.push('\n');
        rest = further;
    }
    text.push_str(END);
    text.push('\n');
    SecretString::new(text)
}

/// Why there is no key, or no signature by it.
#[derive(Debug, thiserror::Error)]
pub enum SshKeyError {
    /// Not a private key in a form that is read.
    #[error("is not a private key in OpenSSH's form or in PEM")]
    Form,
    /// Under a passphrase.
    #[error("is encrypted: remove its passphrase first (ssh-keygen -p)")]
    Encrypted,
    /// Inconsistent, or of a kind that is not served.
    #[error("is not a sound Ed25519, ECDSA or RSA key")]
    Rejected,
    /// The public half is weak.
    #[error(transparent)]
    Public(#[from] SshPublicKeyError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

impl From<KeyRejected> for SshKeyError {
    fn from(_: KeyRejected) -> Self {
        Self::Rejected
    }
}

impl From<Unspecified> for SshKeyError {
    fn from(_: Unspecified) -> Self {
        Self::Rejected
    }
}
