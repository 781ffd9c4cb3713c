use data_encoding::BASE64URL_NOPAD;
use serde_json::json;

use super::*;
use crate::signer::{self, ED25519, OTHER_RSA, P256, P384, P521, RSA, Signer};

fn published(signers: &[&Signer]) -> KeySet {
    KeySet::from_jwks(signer::jwks(signers).to_string().as_bytes()).unwrap()
}

fn judged(token: &str, keys: &KeySet) -> Result<Map<String, Value>, TokenError> {
    UncheckedToken::parse(token, TokenKind::Any, JwsAlgorithm::ALL)?.verify(keys)
}

fn claims() -> Value {
    json!({ "sub": "ann" })
}

#[test]
fn each_kind_of_key_signs_and_no_other_key_does() {
    let signers = [&*RSA, &*OTHER_RSA, &*P256, &*P384, &*P521, &*ED25519];
    let all = published(&signers);
    for signer in signers {
        let token = signer.sign(&claims());
        assert_eq!(judged(&token, &all).unwrap()["sub"], "ann", "{}", signer.id);
        let pem = KeySet::from_pems(&[signer.public_pem().to_owned()]).unwrap();
        assert_eq!(judged(&token, &pem).unwrap()["sub"], "ann", "{}", signer.id);
        for other in signers.iter().filter(|other| other.id != signer.id) {
            let pem = KeySet::from_pems(&[other.public_pem().to_owned()]).unwrap();
            assert!(judged(&token, &pem).is_err(), "{} by {}", signer.id, other.id);
            assert_eq!(judged(&token, &published(&[other])), Err(TokenError::Key));
            // By its own key, under the name of another.
            let token = signer.sign_as(&json!({ "kid": other.id }), &claims());
            assert!(judged(&token, &all).is_err(), "{} as {}", signer.id, other.id);
        }
    }
}

#[test]
fn every_algorithm_of_a_key_counts_where_it_is_allowed_and_nowhere_else() {
    let pem = KeySet::from_pems(&[RSA.public_pem().to_owned()]).unwrap();
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
        let token = RSA.sign_as(&json!({ "alg": algorithm }), &claims());
        assert!(judged(&token, &pem).is_ok(), "{algorithm}");
        // The set says that the key is for RS256.
        assert_eq!(judged(&token, &published(&[&RSA])).is_ok(), algorithm == "RS256");
        let others: Vec<_> =
            JwsAlgorithm::ALL.iter().copied().filter(|one| one.as_str() != algorithm).collect();
        let refused = UncheckedToken::parse(&token, TokenKind::Any, &others).unwrap_err();
        assert_eq!(refused, TokenError::Algorithm);
        assert_eq!(
            UncheckedToken::parse(&token, TokenKind::Any, &[]).unwrap_err(),
            TokenError::Algorithm
        );
    }
}

#[test]
fn a_token_without_a_signature_or_signed_with_a_public_key_is_refused() {
    let all = published(&[&RSA, &P256]);
    let pem = KeySet::from_pems(&[RSA.public_pem().to_owned()]).unwrap();
    let honest = RSA.sign(&claims());
    let (signed, _) = honest.rsplit_once('.').unwrap();
    let payload = signed.split_once('.').unwrap().1;
    let mut forged = vec![
        signer::sign_hs256(RSA.public_pem().as_bytes(), "rsa", &claims()),
        signer::sign_hs256(RSA.jwk()["n"].as_str().unwrap().as_bytes(), "rsa", &claims()),
        signer::sign_hs256(b"", "rsa", &claims()),
        format!("{signed}."),
        format!("{signed}.AA"),
        signed.to_owned(),
    ];
    for alg in ["none", "None", "NONE", "nOnE", "", "rs256", "RS256 ", "HS256", "A128GCM"] {
        let header = json!({ "alg": alg, "kid": "rsa" }).to_string();
        let header = BASE64URL_NOPAD.encode(header.as_bytes());
        forged.push(format!("{header}.{payload}."));
        forged.push(format!("{header}.{payload}.AA"));
        forged.push(RSA.sign_as(&json!({ "alg": alg }), &claims()));
    }
    for token in &forged {
        for keys in [&all, &pem] {
            assert!(judged(token, keys).is_err(), "{token}");
        }
    }
    assert!(judged(&honest, &all).is_ok() && judged(&honest, &pem).is_ok());
}

#[test]
fn every_bit_counts() {
    let keys = published(&[&P256]);
    let token = P256.sign(&claims());
    for position in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(judged(&changed, &keys).is_err(), "byte {position}");
    }
    for cut in 0..token.len() {
        assert!(judged(&token[..cut], &keys).is_err(), "{cut} bytes");
    }
    for text in [format!("{token}="), format!("{token}."), format!(" {token}"), token + "\n"] {
        assert!(judged(&text, &keys).is_err(), "{text:?}");
    }
}

#[test]
fn what_a_header_says_of_keys_and_extensions_is_not_followed() {
    let keys = published(&[&RSA]);
    let own = json!({ "jwk": OTHER_RSA.jwk(), "kid": "rsa" });
    assert_eq!(judged(&OTHER_RSA.sign_as(&own, &claims()), &keys), Err(TokenError::Signature));
    for name in ["jku", "x5u"] {
        let header = json!({ name: "https://evil.example/keys", "kid": "evil" });
        assert_eq!(judged(&OTHER_RSA.sign_as(&header, &claims()), &keys), Err(TokenError::Key));
    }
    for header in [json!({ "crit": ["exp"] }), json!({ "crit": [] }), json!({ "b64": false })] {
        let token = RSA.sign_as(&header, &claims());
        assert_eq!(judged(&token, &keys), Err(TokenError::Critical), "{header}");
    }
    for header in [json!({ "alg": 7 }), json!({ "kid": ["rsa"] }), json!({ "typ": {} })] {
        let token = RSA.sign_as(&header, &claims());
        assert_eq!(judged(&token, &keys), Err(TokenError::Malformed), "{header}");
    }
    assert_eq!(
        judged(&RSA.sign_as(&json!({ "cty": "JWT" }), &claims()), &keys),
        Err(TokenError::Kind)
    );
}

#[test]
fn a_token_of_another_kind_is_refused() {
    let keys = published(&[&RSA]);
    for (typ, any, identity) in [
        ("JWT", true, true),
        ("jwt", true, true),
        ("application/jwt", true, true),
        ("at+jwt", true, false),
        ("application/at+JWT", true, false),
        ("logout+jwt", false, false),
        ("dpop+jwt", false, false),
        ("secevent+jwt", false, false),
        ("text/jwt", false, false),
        ("", false, false),
    ] {
        let token = RSA.sign_as(&json!({ "typ": typ }), &claims());
        for (kind, expected) in [(TokenKind::Any, any), (TokenKind::Identity, identity)] {
            let parsed = UncheckedToken::parse(&token, kind, JwsAlgorithm::ALL);
            assert_eq!(parsed.and_then(|token| token.verify(&keys)).is_ok(), expected, "{typ}");
        }
    }
    assert!(judged(&RSA.sign_as(&json!({ "typ": null }), &claims()), &keys).is_ok());
}

#[test]
fn names_that_are_there_twice_are_refused_in_both_parts() {
    let keys = published(&[&RSA]);
    let header = r#"{"alg":"RS256","kid":"rsa"}"#;
    let twice = r#"{"alg":"none","alg":"RS256","kid":"rsa"}"#;
    assert!(judged(&RSA.sign_texts(header, r#"{"sub":"a"}"#), &keys).is_ok());
    for (header, claims) in [(twice, "{}"), (header, r#"{"sub":"a","sub":"b"}"#)] {
        let refused = judged(&RSA.sign_texts(header, claims), &keys);
        assert_eq!(refused, Err(TokenError::Json(JsonError::Repeated)));
    }
    for claims in ["[]", "\"a\"", "null", "", "{"] {
        let refused = judged(&RSA.sign_texts(header, claims), &keys);
        assert_eq!(refused, Err(TokenError::Json(JsonError::Malformed)), "{claims}");
    }
}

#[test]
fn a_huge_token_is_refused_before_anything_is_done_with_it() {
    let keys = published(&[&RSA]);
    let fits = json!({ "sub": "x".repeat(20_000) });
    assert!(judged(&RSA.sign(&fits), &keys).is_ok());
    let huge = json!({ "sub": "x".repeat(TOKEN_BYTES_MAX) });
    assert_eq!(judged(&RSA.sign(&huge), &keys), Err(TokenError::TooLong));
    let huge = json!({ "x": "x".repeat(HEADER_BYTES_MAX) });
    assert_eq!(judged(&RSA.sign_as(&huge, &claims()), &keys), Err(TokenError::Malformed));
    let long = json!({ "kid": "x".repeat(KEY_ID_BYTES_MAX + 1) });
    assert_eq!(judged(&RSA.sign_as(&long, &claims()), &keys), Err(TokenError::Malformed));
    assert_eq!(judged(&"a.b.c".repeat(9), &keys), Err(TokenError::Malformed));
    assert_eq!(judged("a.b.c.d.e", &keys), Err(TokenError::Malformed));
}

fn set(keys: Value) -> Result<KeySet, KeyError> {
    KeySet::from_jwks(json!({ "keys": keys }).to_string().as_bytes())
}

fn with(name: &str, value: Value) -> Value {
    let mut jwk = RSA.jwk();
    jwk[name] = value;
    jwk
}

#[test]
fn keys_that_are_not_for_signatures_or_too_weak_are_passed_over() {
    assert!(set(json!([RSA.jwk()])).is_ok());
    let short = BASE64URL_NOPAD.encode(&[0xff; 128]);
    let long = BASE64URL_NOPAD.encode(&[0xff; 1025]);
    for unusable in [
        with("use", json!("enc")),
        with("use", json!(7)),
        with("key_ops", json!(["encrypt"])),
        with("alg", json!("ES256")),
        with("alg", json!("RSA-OAEP")),
        with("alg", json!("HS256")),
        with("kty", json!("oct")),
        with("kty", json!("EC")),
        with("n", json!(short)),
        with("n", json!(long)),
        with("e", json!("AQ")),
        with("e", json!("AQAA")),
        with("e", json!("AQABAQAB")),
        json!({ "kty": "oct", "k": "c2VjcmV0", "alg": "HS256" }),
        json!({ "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA" }),
        json!({ "kty": "OKP", "crv": "X25519", "x": BASE64URL_NOPAD.encode(&[9; 32]) }),
        json!({}),
        json!(null),
    ] {
        assert_eq!(set(json!([unusable.clone()])).err(), Some(KeyError::Empty), "{unusable}");
        // And do not spoil those beside them.
        let keys = set(json!([unusable, P256.jwk()])).unwrap();
        assert!(judged(&P256.sign(&claims()), &keys).is_ok());
    }
    assert!(set(json!([with("key_ops", json!(["verify"]))])).is_ok());
    assert_eq!(set(json!(vec![RSA.jwk(); 129])).err(), Some(KeyError::TooMany));
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#] {
        assert_eq!(KeySet::from_jwks(text.as_bytes()).err(), Some(KeyError::Malformed), "{text}");
    }
}

#[test]
fn pem_is_taken_of_public_keys_and_certificates_alone() {
    let ca = crate::pki::Ca::root("signs tokens");
    assert!(KeySet::from_pems(&[ca.pem()]).is_ok());
    let two = format!("{}{}", RSA.public_pem(), P256.public_pem());
    let keys = KeySet::from_pems(&[two]).unwrap();
    assert!(judged(&RSA.sign(&claims()), &keys).is_ok());
    assert!(judged(&P256.sign(&claims()), &keys).is_ok());
    let private = ca.issue(&crate::pki::Spec::leaf()).key_pem;
    let cut = RSA.public_pem().replace("-----END", "");
    for text in
        ["", "MII", &private, &cut, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]
    {
        assert!(KeySet::from_pems(&[text.to_owned()]).is_err(), "{text}");
        assert!(KeySet::from_pems(&[RSA.public_pem().to_owned(), text.to_owned()]).is_err());
    }
    assert_eq!(KeySet::from_pems(&[]).err(), Some(KeyError::Empty));
}
