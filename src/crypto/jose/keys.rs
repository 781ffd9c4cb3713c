//! Public keys: from a set in JSON (RFC 7517, RFC 7518 §6, RFC 8037 §2), or in PEM.

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};
use x509_parser::public_key::RSAPublicKey;

use super::JwsAlgorithm::{self, *};
use super::json::parse_object;

/// Most keys of one set.
const KEYS_MAX: usize = 128;
/// RFC 7518 §3.3: shorter keys must not be used. In bytes.
const RSA_BYTES_MIN: usize = 256;
/// Longer ones take too long.
const RSA_BYTES_MAX: usize = 1024;
/// Longest public exponent, in bytes.
const EXPONENT_BYTES_MAX: usize = 4;

const RSA: &[JwsAlgorithm] = &[PS256, PS384, PS512, RS256, RS384, RS512];
const P256: &[JwsAlgorithm] = &[ES256];
const P384: &[JwsAlgorithm] = &[ES384];
const P521: &[JwsAlgorithm] = &[ES512];
/// RFC 7518 §6.2.1.2: both coordinates have their full length, that of P-521 being 521 bits.
const P521_BYTES: usize = 66;
const ED25519: &[JwsAlgorithm] = &[EdDSA];

const OID_RSA: &str = "1.2.840.113549.1.1.1";
const OID_EC: &str = "1.2.840.10045.2.1";
const OID_P256: &str = "1.2.840.10045.3.1.7";
const OID_P384: &str = "1.3.132.0.34";
const OID_P521: &str = "1.3.132.0.35";
const OID_ED25519: &str = "1.3.101.112";

/// Public keys that tokens may be signed with.
pub struct KeySet {
    keys: Vec<PublicKey>,
}

struct PublicKey {
    id: Option<String>,
    /// Those that its type admits and that it was published for.
    algorithms: Vec<JwsAlgorithm>,
    key: VerifyingKey,
}

/// A key in the form of what checks signatures with it.
pub(super) enum VerifyingKey {
    /// Of all kinds but P-521.
    Usual(DecodingKey),
    /// On P-521, as an uncompressed point.
    P521(Vec<u8>),
}

/// Why there is no set of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// None of them can be used: RSA from 2048 to 8192 bits, P-256, P-384, P-521 and Ed25519 can,
    /// for signatures.
    #[error(
        "holds no key that can be used: RSA of 2048 to 8192 bits, P-256, P-384, P-521 or Ed25519"
    )]
    Empty,
    /// It is no set of keys, or no PEM of a public key or certificate.
    #[error("is no set of public keys")]
    Malformed,
    /// There are too many.
    #[error("holds more than 128 keys")]
    TooMany,
}

impl KeySet {
    /// Reads a set in JSON. Keys that cannot be used here are passed over.
    ///
    /// # Errors
    /// When it is none, or no key of it can be used.
    pub fn from_jwks(json: &[u8]) -> Result<Self, KeyError> {
        let set = parse_object(json).map_err(|_| KeyError::Malformed)?;
        let published = set.get("keys").and_then(Value::as_array).ok_or(KeyError::Malformed)?;
        if published.len() > KEYS_MAX {
            return Err(KeyError::TooMany);
        }
        let keys: Vec<_> =
            published.iter().filter_map(Value::as_object).filter_map(from_jwk).collect();
        if keys.is_empty() { Err(KeyError::Empty) } else { Ok(Self { keys }) }
    }

    /// Reads keys in PEM: `PUBLIC KEY`, `RSA PUBLIC KEY`, or the key of a `CERTIFICATE`, of which nothing
    /// else counts.
    ///
    /// # Errors
    /// When one of them is something else, or cannot be used.
    pub fn from_pems(texts: &[String]) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for text in texts {
            let before = keys.len();
            for block in x509_parser::pem::Pem::iter_from_buffer(text.as_bytes()) {
                let block = block.map_err(|_| KeyError::Malformed)?;
                if keys.len() >= KEYS_MAX {
                    return Err(KeyError::TooMany);
                }
                keys.push(from_der(&block.label, &block.contents)?);
            }
            if keys.len() == before {
                return Err(KeyError::Malformed);
            }
        }
        if keys.is_empty() { Err(KeyError::Empty) } else { Ok(Self { keys }) }
    }

    /// The keys that a token may be signed with which names this key, or none, and this algorithm. A
    /// key without a name comes into question only where no key of the set has one.
    pub(super) fn candidates(
        &self,
        id: Option<&str>,
        algorithm: JwsAlgorithm,
    ) -> impl Iterator<Item = &VerifyingKey> {
        let named = self.keys.iter().any(|key| key.id.is_some());
        self.keys
            .iter()
            .filter(move |key| id.is_none() || !named || key.id.as_deref() == id)
            .filter(move |key| key.algorithms.contains(&algorithm))
            .map(|key| &key.key)
    }
}

fn from_jwk(jwk: &Map<String, Value>) -> Option<PublicKey> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    if jwk.get("use").is_some_and(|usage| usage != "sig") {
        return None;
    }
    if let Some(operations) = jwk.get("key_ops") {
        operations.as_array()?.iter().find(|operation| *operation == "verify")?;
    }
    let bytes = |name: &str| BASE64URL_NOPAD.decode(text(name)?.as_bytes()).ok();
    let (key, by_type) = match (text("kty")?, text("crv")) {
        ("RSA", _) => (rsa(&bytes("n")?, &bytes("e")?)?, RSA),
        ("EC", Some("P-256")) => (point(&bytes("x")?, &bytes("y")?, 32)?, P256),
        ("EC", Some("P-384")) => (point(&bytes("x")?, &bytes("y")?, 48)?, P384),
        ("EC", Some("P-521")) => (point(&bytes("x")?, &bytes("y")?, P521_BYTES)?, P521),
        ("OKP", Some("Ed25519")) => (ed25519(&bytes("x")?)?, ED25519),
        (_, _) => return None,
    };
    let algorithms = match jwk.get("alg") {
        None => by_type.to_vec(),
        Some(given) => {
            let given = JwsAlgorithm::parse(given.as_str()?)?;
            by_type.iter().copied().filter(|algorithm| *algorithm == given).collect()
        }
    };
    (!algorithms.is_empty()).then(|| PublicKey {
        id: text("kid").map(str::to_owned),
        algorithms,
        key,
    })
}

fn from_der(label: &str, der: &[u8]) -> Result<PublicKey, KeyError> {
    let spki = match label {
        "PUBLIC KEY" => whole(SubjectPublicKeyInfo::from_der(der))?,
        "CERTIFICATE" => whole(X509Certificate::from_der(der))?.tbs_certificate.subject_pki,
        "RSA PUBLIC KEY" => {
            let key = rsa_pkcs1(der).ok_or(KeyError::Empty)?;
            return Ok(PublicKey { id: None, algorithms: RSA.to_vec(), key });
        }
        _ => return Err(KeyError::Malformed),
    };
    let public = spki.subject_public_key.data.as_ref();
    let curve = || Some(spki.algorithm.parameters.as_ref()?.as_oid().ok()?.to_id_string());
    let (key, algorithms) = match spki.algorithm.algorithm.to_id_string().as_str() {
        OID_RSA => (rsa_pkcs1(public), RSA),
        OID_EC => match curve().as_deref() {
            Some(OID_P256) => (uncompressed(public, 32), P256),
            Some(OID_P384) => (uncompressed(public, 48), P384),
            Some(OID_P521) => (uncompressed(public, P521_BYTES), P521),
            Some(_) | None => (None, P256),
        },
        OID_ED25519 => (ed25519(public), ED25519),
        _ => (None, RSA),
    };
    let key = key.ok_or(KeyError::Empty)?;
    Ok(PublicKey { id: None, algorithms: algorithms.to_vec(), key })
}

fn whole<T, E>(parsed: Result<(&[u8], T), E>) -> Result<T, KeyError> {
    match parsed {
        Ok(([], value)) => Ok(value),
        Ok(_) | Err(_) => Err(KeyError::Malformed),
    }
}

fn rsa_pkcs1(der: &[u8]) -> Option<VerifyingKey> {
    let key = whole(RSAPublicKey::from_der(der)).ok()?;
    rsa(key.modulus, key.exponent)
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<VerifyingKey> {
    let (modulus, exponent) = (without_zeros(modulus), without_zeros(exponent));
    let usable = (RSA_BYTES_MIN..=RSA_BYTES_MAX).contains(&modulus.len())
        && (1..=EXPONENT_BYTES_MAX).contains(&exponent.len())
        // Neither 1, which everybody can sign for, nor even.
        && exponent.last().is_some_and(|last| last % 2 == 1)
        && exponent != [1];
    usable.then(|| VerifyingKey::Usual(DecodingKey::from_rsa_raw_components(modulus, exponent)))
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

fn point(x: &[u8], y: &[u8], coordinate_bytes: usize) -> Option<VerifyingKey> {
    uncompressed(&[&[4], x, y].concat(), coordinate_bytes).filter(|_| x.len() == coordinate_bytes)
}

/// SEC 1 §2.3.3. Whether the point is on the curve is looked at with each signature.
fn uncompressed(point: &[u8], coordinate_bytes: usize) -> Option<VerifyingKey> {
    let usable = point.len() == 1 + 2 * coordinate_bytes && point.first() == Some(&4);
    usable.then(|| match coordinate_bytes {
        P521_BYTES => VerifyingKey::P521(point.to_vec()),
        _ => VerifyingKey::Usual(DecodingKey::from_ec_der(point)),
    })
}

fn ed25519(public: &[u8]) -> Option<VerifyingKey> {
    (public.len() == 32).then(|| VerifyingKey::Usual(DecodingKey::from_ed_der(public)))
}
