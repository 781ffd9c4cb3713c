use std::collections::BTreeMap;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use data_encoding::BASE64;
use proptest::{prop_assert, prop_assert_eq};

use super::wire::{Reader, Writer};
use super::*;
use crate::types::secret::SecretString;
use crate::types::time::Timestamp;

fn principals(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn certificate<'a>(
    key: &'a SshPublicKey,
    principals: &'a [String],
    none: &'a BTreeMap<String, String>,
) -> SshCertificate<'a> {
    SshCertificate {
        key,
        kind: SshCertificateKind::User,
        serial: 7,
        key_id: "id",
        principals,
        valid_after: Timestamp::from_secs(1000),
        valid_before: Timestamp::from_secs(2000),
        critical_options: none,
        extensions: none,
    }
}

const SMALL: [SshKeyType; 4] = [
    SshKeyType::Ed25519,
    SshKeyType::Ecdsa(SshCurve::P256),
    SshKeyType::Ecdsa(SshCurve::P384),
    SshKeyType::Ecdsa(SshCurve::P521),
];

#[test]
fn keys_come_back_from_every_form_they_are_written_in() {
    let kinds = SMALL.into_iter().chain([SshKeyType::Rsa2048]);
    for kind in kinds {
        let key = SshPrivateKey::generate(kind).unwrap();
        let stored = SshPrivateKey::from_pkcs8(key.to_pkcs8().unwrap().expose()).unwrap();
        assert_eq!(stored.public(), key.public(), "{kind:?}");
        let text = key.to_openssh().unwrap();
        let read = SshPrivateKey::import(&text).unwrap();
        assert_eq!(read.public(), key.public(), "{kind:?}");
        // What was read is the whole key, not its public half alone.
        let again = read.to_pkcs8().unwrap();
        assert!(key.to_pkcs8().unwrap().ct_eq(again.expose()), "{kind:?}");
        let line = key.public().to_line();
        assert_eq!(&SshPublicKey::parse(&format!("{line} a comment\n")).unwrap(), key.public());
    }
}

#[test]
fn damaged_keys_are_refused() {
    let key = SshPrivateKey::generate(SshKeyType::Ed25519).unwrap();
    let text = key.to_openssh().unwrap();
    let body: String = text.expose().lines().filter(|line| !line.starts_with('-')).collect();
    let blob = BASE64.decode(body.as_bytes()).unwrap();
    let wrapped = |blob: &[u8]| {
        SecretString::new(format!(
            "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----",
            BASE64.encode(blob)
        ))
    };
    assert!(SshPrivateKey::import(&wrapped(&blob)).is_ok());
    for at in 0..blob.len() {
        let mut damaged = blob.clone();
        damaged[at] ^= 1;
        // The comment's own letters alone may differ; there are none.
        assert!(SshPrivateKey::import(&wrapped(&damaged)).is_err(), "byte {at}");
        assert!(SshPrivateKey::import(&wrapped(&blob[..at])).is_err(), "cut at {at}");
    }
    for text in ["", "x", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"] {
        assert!(SshPrivateKey::import(&SecretString::new(text.to_owned())).is_err());
    }
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----";
    let refused = SshPrivateKey::import(&SecretString::new(encrypted.to_owned()));
    assert!(matches!(refused, Err(SshKeyError::Encrypted)));
}

#[test]
fn weak_and_strange_public_keys_are_refused() {
    let rsa = |exponent: &[u8], bytes: usize| {
        let mut modulus = vec![0xc1; bytes];
        modulus[bytes - 1] |= 1;
        let mut blob = Writer::with_capacity(1024);
        blob.string(b"ssh-rsa").mpint(exponent).mpint(&modulus);
        SshPublicKey::parse(&format!("ssh-rsa {}", BASE64.encode(blob.bytes())))
    };
    assert_eq!(rsa(&[1, 0, 1], 256).unwrap().kind(), SshKind::Rsa(2048));
    assert_eq!(rsa(&[1, 0, 1], 255), Err(SshPublicKeyError::Weak));
    assert_eq!(rsa(&[1, 0, 1], 128), Err(SshPublicKeyError::Weak));
    assert_eq!(rsa(&[1, 0, 1], 2049), Err(SshPublicKeyError::Form));
    assert_eq!(rsa(&[1], 256), Err(SshPublicKeyError::Form));
    assert_eq!(rsa(&[2], 256), Err(SshPublicKeyError::Form));

    let good = SshPrivateKey::generate(SshKeyType::Ecdsa(SshCurve::P256)).unwrap();
    let line = good.public().to_line();
    let (_, text) = line.split_once(' ').unwrap();
    let blob = BASE64.decode(text.as_bytes()).unwrap();
    let mut off_curve = blob.clone();
    *off_curve.last_mut().unwrap() ^= 1;
    let mut longer = blob.clone();
    longer.push(0);
    for bad in [off_curve, longer, blob[..blob.len() - 1].to_vec()] {
        let line = format!("ecdsa-sha2-nistp256 {}", BASE64.encode(&bad));
        assert_eq!(SshPublicKey::parse(&line), Err(SshPublicKeyError::Form));
    }
    for (line, error) in [
        (format!("ssh-ed25519 {text}"), SshPublicKeyError::Form),
        (format!("{line}\n{line}"), SshPublicKeyError::Form),
        ("ssh-ed25519".to_owned(), SshPublicKeyError::Form),
        (String::new(), SshPublicKeyError::Form),
        ("ssh-dss AAAAB3NzaC1kc3M=".to_owned(), SshPublicKeyError::Unserved),
        (
            format!("ssh-ed25519 {}", BASE64.encode(b"\0\0\0\x0bssh-ed25519")),
            SshPublicKeyError::Form,
        ),
    ] {
        assert_eq!(SshPublicKey::parse(&line), Err(error), "{line}");
    }
    // A certificate is no key to be signed again.
    let names = principals(&["ann"]);
    let none = BTreeMap::new();
    let line =
        certificate(good.public(), &names, &none).sign(&good, SshRsaSignature::default()).unwrap();
    assert_eq!(SshPublicKey::parse(&line), Err(SshPublicKeyError::Unserved));
}

#[test]
fn numbers_have_one_form_and_nothing_follows_a_key() {
    let modulus = [vec![0, 0xc1], vec![0xc1; 254], vec![0xc1]].concat();
    let rsa = |exponent: &[u8], modulus: &[u8], after: &[u8]| {
        let mut blob = Writer::with_capacity(1024);
        blob.string(b"ssh-rsa").string(exponent).string(modulus).raw(after);
        SshPublicKey::from_blob(blob.bytes())
    };
    assert!(rsa(&[1, 0, 1], &modulus, &[]).is_ok());
    for (exponent, modulus, after) in [
        (&[0, 1, 0, 1][..], &modulus[..], &[][..]),
        (&[][..], &modulus, &[]),
        (&[0x81][..], &modulus, &[]),
        (&[1, 0, 1][..], &[&[0], &modulus[..]].concat(), &[]),
        (&[1, 0, 1][..], &modulus[1..], &[]),
        (&[1, 0, 1][..], &[], &[]),
        (&[1, 0, 1][..], &modulus, &[0]),
    ] {
        assert_eq!(rsa(exponent, modulus, after), Err(SshPublicKeyError::Form));
    }
    let ed25519 = SshPrivateKey::generate(SshKeyType::Ed25519).unwrap();
    let p256 = SshPrivateKey::generate(SshKeyType::Ecdsa(SshCurve::P256)).unwrap();
    for (name, key) in [
        ("sk-ssh-ed25519@openssh.com", ed25519.public().parts()),
        ("sk-ecdsa-sha2-nistp256@openssh.com", p256.public().parts()),
    ] {
        let blob = |application: &[u8], after: &[u8]| {
            let mut blob = Writer::with_capacity(256);
            blob.string(name.as_bytes()).raw(key).string(application).raw(after);
            SshPublicKey::from_blob(blob.bytes())
        };
        assert_eq!(blob(b"ssh:", &[]).unwrap().kind().algorithm(), name);
        assert_eq!(blob(b"", &[]), Err(SshPublicKeyError::Form));
        assert_eq!(blob(b"ssh:", &[0]), Err(SshPublicKeyError::Form));
    }
    // A key on one curve that says it is on another.
    let mut blob = Writer::with_capacity(256);
    blob.string(b"ecdsa-sha2-nistp384").raw(p256.public().parts());
    assert_eq!(SshPublicKey::from_blob(blob.bytes()), Err(SshPublicKeyError::Form));
}

/// OpenSSH's form around a private part, whose check numbers agree.
fn unencrypted(public: &[u8], private: impl FnOnce(&mut Writer)) -> SecretString {
    let mut inner = Writer::with_capacity(1024);
    inner.uint32(7).uint32(7);
    private(&mut inner);
    let mut outer = Writer::with_capacity(1024);
    outer.raw(b"openssh-key-v1\0").string(b"none").string(b"none").string(&[]).uint32(1);
    outer.string(public).string(inner.bytes());
    SecretString::new(format!(
        "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----",
        BASE64.encode(outer.bytes())
    ))
}

#[test]
fn a_private_key_of_absurd_length_is_refused_before_any_arithmetic() {
    // Reducing one of these numbers by another takes a minute.
    for lengths in [[6000usize; 6], [256, 3, 9000, 9000, 9000, 9000], [256, 3, 256, 128, 9000, 128]]
    {
        let text = unencrypted(b"", |inner| {
            inner.string(b"ssh-rsa");
            for length in lengths {
                inner.mpint(&vec![0x7f; length]);
            }
            inner.string(b"");
        });
        assert!(matches!(SshPrivateKey::import(&text), Err(SshKeyError::Rejected)));
    }
}

#[test]
fn a_revocation_list_has_the_form_of_the_specification() {
    let key = SshPrivateKey::generate(SshKeyType::Ed25519).unwrap();
    let revoked = |serials: &[u64], key_ids: &[&'static str]| SshRevoked {
        authority: key.public(),
        serials: serials.to_vec(),
        key_ids: key_ids.to_vec(),
    };
    let list =
        |revoked: &[SshRevoked<'_>]| ssh_revocation_list(3, Timestamp::from_secs(1000), revoked);
    let empty = list(&[]);
    assert!(empty.starts_with(b"SSHKRL\n\0\0\0\0\x01\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\x03\xe8"));
    assert_eq!(empty.len(), 44);
    let full = list(&[revoked(&[1, u64::MAX], &["ann"]), revoked(&[], &["bob"])]);
    let mut rest = Reader::new(&full[44..]);
    let mut sections = Vec::new();
    while !rest.rest().is_empty() {
        assert_eq!(rest.raw(1), Some(&[1u8][..]));
        let mut section = Reader::new(rest.string().unwrap());
        assert_eq!(section.string(), Some(key.public().blob()));
        assert_eq!(section.string(), Some(&[][..]));
        let mut parts = Vec::new();
        while !section.rest().is_empty() {
            parts.push((section.raw(1).unwrap()[0], section.string().unwrap().to_vec()));
        }
        sections.push(parts);
    }
    let serials = [1u64.to_be_bytes(), u64::MAX.to_be_bytes()].concat();
    assert_eq!(sections[0], [(0x20, serials), (0x23, b"\0\0\0\x03ann".to_vec())]);
    assert_eq!(sections[1], [(0x23, b"\0\0\0\x03bob".to_vec())]);
}

/// What was signed, and the signature's name and contents.
fn signed_parts(line: &str) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let blob = BASE64.decode(line.split_once(' ').unwrap().1.as_bytes()).unwrap();
    // The signature is the last string; find it by reading through an Ed25519 certificate.
    let mut reader = Reader::new(&blob);
    for _ in 0..3 {
        reader.string().unwrap();
    }
    reader.raw(12).unwrap();
    reader.string().unwrap();
    reader.string().unwrap();
    reader.raw(16).unwrap();
    for _ in 0..4 {
        reader.string().unwrap();
    }
    let signed = blob[..blob.len() - reader.rest().len()].to_vec();
    let mut signature = Reader::new(reader.string().unwrap());
    reader.end().unwrap();
    let (name, value) = (signature.string().unwrap(), signature.string().unwrap());
    signature.end().unwrap();
    (signed, name.to_vec(), value.to_vec())
}

#[test]
fn certificates_are_signed_by_their_authority() {
    let user = SshPrivateKey::generate(SshKeyType::Ed25519).unwrap();
    let names = principals(&["ann"]);
    let none = BTreeMap::new();
    let certificate = certificate(user.public(), &names, &none);

    let ca = SshPrivateKey::generate(SshKeyType::Ed25519).unwrap();
    let line = certificate.sign(&ca, SshRsaSignature::default()).unwrap();
    assert!(line.starts_with("ssh-ed25519-cert-v01@openssh.com "));
    let (signed, name, value) = signed_parts(&line);
    assert_eq!(name, b"ssh-ed25519");
    let public = &ca.public().parts()[4..];
    UnparsedPublicKey::new(&ED25519, public).verify(&signed, &value).unwrap();

    let ca = SshPrivateKey::generate(SshKeyType::Ecdsa(SshCurve::P256)).unwrap();
    let (signed, name, value) =
        signed_parts(&certificate.sign(&ca, SshRsaSignature::default()).unwrap());
    assert_eq!(name, b"ecdsa-sha2-nistp256");
    let mut numbers = Reader::new(&value);
    let padded = |number: &[u8]| [vec![0; 32 - number.len()], number.to_vec()].concat();
    let fixed = [padded(numbers.mpint().unwrap()), padded(numbers.mpint().unwrap())].concat();
    let mut parts = Reader::new(ca.public().parts());
    let (_curve, point) = (parts.string().unwrap(), parts.string().unwrap());
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(&signed, &fixed).unwrap();

    let ca = SshPrivateKey::generate(SshKeyType::Rsa2048).unwrap();
    let mut parts = Reader::new(ca.public().parts());
    let (e, n) = (parts.mpint().unwrap(), parts.mpint().unwrap());
    for (hash, name, verification) in [
        (SshRsaSignature::Sha512, "rsa-sha2-512", &RSA_PKCS1_2048_8192_SHA512),
        (SshRsaSignature::Sha256, "rsa-sha2-256", &RSA_PKCS1_2048_8192_SHA256),
    ] {
        let (signed, said, value) = signed_parts(&certificate.sign(&ca, hash).unwrap());
        assert_eq!(said, name.as_bytes());
        let public = RsaPublicKeyComponents { n, e };
        public.verify(verification, &signed, &value).unwrap();
    }
}

#[test]
fn a_certificate_for_everybody_or_with_text_that_breaks_out_is_not_signed() {
    let key = SshPrivateKey::generate(SshKeyType::Ed25519).unwrap();
    let none = BTreeMap::new();
    let sign = |names: &[&str], key_id: &str, options: &[(&str, &str)]| {
        let names = principals(names);
        let options =
            options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let certificate = SshCertificate {
            key_id,
            critical_options: &options,
            ..certificate(key.public(), &names, &none)
        };
        certificate.sign(&key, SshRsaSignature::default())
    };
    assert!(sign(&["ann", "bob"], "some id", &[("force-command", "ls -l 'a, b'")]).is_ok());
    assert!(matches!(sign(&[], "id", &[]), Err(SshCertificateError::Principals)));
    for bad in ["", "a\nb", "a\0", "a,b", "*", "a*", "a?", "!a", "a b", "\"a\"", "a\u{85}b"] {
        let refused = sign(&["ann", bad], "id", &[]);
        assert!(matches!(refused, Err(SshCertificateError::Principal)), "{bad:?}");
    }
    let many: Vec<String> = (0..257).map(|n| format!("u{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(matches!(sign(&many, "id", &[]), Err(SshCertificateError::Principals)));
    for bad in ["", "a\nb", "a\0", "a,b"] {
        assert!(matches!(sign(&["ann"], bad, &[]), Err(SshCertificateError::KeyId)), "{bad:?}");
    }
    for bad in [("", "x"), ("a,b", "x"), ("a=b", "x"), ("force-command", "a\nb"), ("a", "b\0")] {
        let refused = sign(&["ann"], "id", &[bad]);
        assert!(matches!(refused, Err(SshCertificateError::Option)), "{bad:?}");
    }
    let names = principals(&["ann"]);
    for (after, before) in [(2000, 2000), (2001, 2000), (-1, 2000), (-2, -1)] {
        let certificate = SshCertificate {
            valid_after: Timestamp::from_secs(after),
            valid_before: Timestamp::from_secs(before),
            ..certificate(key.public(), &names, &none)
        };
        let refused = certificate.sign(&key, SshRsaSignature::default());
        assert!(matches!(refused, Err(SshCertificateError::Span)), "{after} {before}");
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_readers_fail_otherwise_than_by_refusing(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..120)
    ) {
        for algorithm in ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa", "sk-ssh-ed25519@openssh.com"] {
            let mut blob = Writer::with_capacity(256);
            blob.string(algorithm.as_bytes()).raw(&bytes);
            let _ = SshPublicKey::from_blob(blob.bytes());
        }
        let mut blob = b"openssh-key-v1\0\0\0\0\x04none".to_vec();
        blob.extend(&bytes);
        let text = format!(
            "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----",
            BASE64.encode(&blob)
        );
        let _ = SshPrivateKey::import(&SecretString::new(text));
        for algorithm in ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"] {
            let text = unencrypted(&bytes, |inner| {
                inner.string(algorithm.as_bytes()).raw(&bytes);
            });
            prop_assert!(SshPrivateKey::import(&text).is_err());
        }
        let text = String::from_utf8_lossy(&bytes);
        let _ = SshPublicKey::parse(&text);
        let _ = SshPublicKey::parse(&format!("ssh-ed25519 {text}"));
    }

    #[test]
    fn what_is_written_is_read_again(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..40),
        after in proptest::collection::vec(proptest::num::u8::ANY, 0..8),
    ) {
        let mut out = Writer::with_capacity(64);
        out.mpint(&bytes).string(&bytes).uint32(7).raw(&after);
        let mut reader = Reader::new(out.bytes());
        let number = super::wire::without_leading_zeros(&bytes);
        // Zero is a number to be written, and none that a key has.
        let read = if number.is_empty() { reader.string() } else { reader.mpint() };
        prop_assert_eq!(read, Some(number));
        prop_assert_eq!(reader.string(), Some(bytes.as_slice()));
        prop_assert_eq!(reader.uint32(), Some(7));
        prop_assert_eq!(reader.rest(), after.as_slice());
    }
}
