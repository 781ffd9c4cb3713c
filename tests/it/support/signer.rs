//! Keys that sign tokens, as an identity provider has them: honest tokens, and any others.

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair};
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

/// A key with its name.
pub struct Signer {
    /// What the key is called.
    pub id: &'static str,
    /// What it signs with.
    pub algorithm: &'static str,
    key: Key,
    public_pem: String,
    jwk: Value,
}

enum Key {
    Usual(EncodingKey),
    P521(EcdsaKeyPair),
}

/// RSA, as most providers have it.
pub static RSA: LazyLock<Signer> = LazyLock::new(|| Signer::rsa("rsa"));
/// RSA of somebody else.
pub static OTHER_RSA: LazyLock<Signer> = LazyLock::new(|| Signer::rsa("other-rsa"));
/// P-256.
pub static P256: LazyLock<Signer> = LazyLock::new(|| Signer::ec("p256", "ES256"));
/// P-384.
pub static P384: LazyLock<Signer> = LazyLock::new(|| Signer::ec("p384", "ES384"));
/// P-521.
pub static P521: LazyLock<Signer> = LazyLock::new(|| {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let kind = &ECDSA_P521_SHA512_FIXED_SIGNING;
    let key = EcdsaKeyPair::from_pkcs8(kind, &pair.serialize_der()).unwrap();
    let (x, y) = pair.public_key_raw()[1..].split_at(66);
    let [x, y] = [x, y].map(|coordinate| BASE64URL_NOPAD.encode(coordinate));
    let jwk = json!({ "kty": "EC", "crv": "P-521", "alg": "ES512", "x": x, "y": y });
    Signer::new("p521", "ES512", Key::P521(key), pair.public_key_pem(), jwk)
});
/// Ed25519.
pub static ED25519: LazyLock<Signer> = LazyLock::new(|| {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let key = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap();
    let x = BASE64URL_NOPAD.encode(pair.public_key_raw());
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": x });
    Signer::new("ed25519", "EdDSA", Key::Usual(key), pair.public_key_pem(), jwk)
});

impl Signer {
    fn rsa(id: &'static str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let key = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
        let jwk = json!(Jwk::from_encoding_key(&key, Algorithm::RS256).unwrap());
        Self::new(id, "RS256", Key::Usual(key), pair.public_key_pem(), jwk)
    }

    fn ec(id: &'static str, algorithm: &'static str) -> Self {
        let kind = match algorithm {
            "ES256" => &rcgen::PKCS_ECDSA_P256_SHA256,
            _ => &rcgen::PKCS_ECDSA_P384_SHA384,
        };
        let pair = rcgen::KeyPair::generate_for(kind).unwrap();
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        let jwk = json!(Jwk::from_encoding_key(&key, algorithm.parse().unwrap()).unwrap());
        Self::new(id, algorithm, Key::Usual(key), pair.public_key_pem(), jwk)
    }

    fn new(
        id: &'static str,
        algorithm: &'static str,
        key: Key,
        public_pem: String,
        mut jwk: Value,
    ) -> Self {
        jwk["kid"] = json!(id);
        jwk["use"] = json!("sig");
        Self { id, algorithm, key, public_pem, jwk }
    }

    /// The public key in PEM.
    pub fn public_pem(&self) -> &str {
        &self.public_pem
    }

    /// The public key as a provider publishes it.
    pub fn jwk(&self) -> Value {
        self.jwk.clone()
    }

    /// A token with the usual header.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(&json!({ "typ": "JWT" }), claims)
    }

    /// A token whose header also says that; null takes a name away.
    pub fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let mut all = json!({ "alg": self.algorithm, "kid": self.id });
        for (name, value) in header.as_object().unwrap() {
            all[name] = value.clone();
        }
        all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        self.sign_texts(&all.to_string(), &claims.to_string())
    }

    /// A token of these texts, whatever they are.
    pub fn sign_texts(&self, header: &str, claims: &str) -> String {
        let signed = [header, claims].map(|part| BASE64URL_NOPAD.encode(part.as_bytes())).join(".");
        let key = match &self.key {
            Key::Usual(key) => key,
            Key::P521(pair) => {
                let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
                return format!("{signed}.{}", BASE64URL_NOPAD.encode(signature.as_ref()));
            }
        };
        // The header may name another algorithm of the same key.
        let named = serde_json::from_str::<Value>(header).unwrap_or_default();
        let named = named["alg"].as_str().and_then(|name| name.parse::<Algorithm>().ok());
        let own: Algorithm = self.algorithm.parse().unwrap();
        let algorithm = named.filter(|one| one.family() == own.family()).unwrap_or(own);
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), key, algorithm)
            .or_else(|_| jsonwebtoken::crypto::sign(signed.as_bytes(), key, own))
            .unwrap();
        format!("{signed}.{signature}")
    }
}

/// The set of keys that a provider with these keys publishes.
pub fn jwks(signers: &[&Signer]) -> Value {
    json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() })
}

/// A token that is "signed" with a secret that everybody knows.
pub fn sign_hs256(secret: &[u8], key_id: &str, claims: &Value) -> String {
    let header = json!({ "alg": "HS256", "typ": "JWT", "kid": key_id }).to_string();
    let signed = [header, claims.to_string()].map(|part| BASE64URL_NOPAD.encode(part.as_bytes()));
    let signed = signed.join(".");
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{signed}.{signature}")
}
