//! Bytes of others: certificates, lists, keys, tokens, records, shares, logs.

use std::io::Write;
use std::sync::OnceLock;

use leasehold::audit::verify::verify_files;
use leasehold::core::peer::{ClaimedCertificate, VerifiedPeer};
use leasehold::core::seal::fuzzed as seal;
use leasehold::core::token::fuzzed as tokens;
use leasehold::crypto::aead::Suite;
use leasehold::crypto::blind::{BlindKey, Purpose};
use leasehold::crypto::envelope::{self, RecordContext, SealedRecord};
use leasehold::crypto::jose::{JwsAlgorithm, KeySet, TokenKind, UncheckedToken};
use leasehold::crypto::keyring::Keyring;
use leasehold::crypto::otp::OtpAuth;
use leasehold::crypto::shamir;
use leasehold::crypto::ssh::{SshPrivateKey, SshPublicKey};
use leasehold::crypto::x509::crl::{Crl, Crls};
use leasehold::crypto::x509::{self, Anchors};
use leasehold::types::id::NamespaceId;
use leasehold::types::secret::{SecretArray, SecretBytes, SecretString};
use leasehold::types::time::Timestamp;
use rustls::pki_types::CertificateDer;

use super::{text, two};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// A certificate, from the wire: names that are read are clean, and nothing that signed itself is let
/// in by somebody else's authority.
pub fn certificate(input: &[u8]) {
    let der = CertificateDer::from(input);
    let claimed = ClaimedCertificate::read(&der);
    let names = claimed.uri_sans.iter().chain(&claimed.common_name);
    for name in names {
        assert!(!name.is_empty() && !name.contains(char::is_control), "{name:?}");
    }
    if VerifiedPeer::check_readable(&[der.clone(), der.clone()]).is_ok() {
        assert!(x509::parse(&der).is_ok());
    }
    let _ = x509::check_leaf(&der, NOW);
    if let Ok(anchors) = Anchors::from_certificates(vec![der.clone().into_owned()]) {
        let _ = x509::verify_chain(&der, std::slice::from_ref(&der), &anchors, &Crls::none(), NOW);
    }
    let foreign = x509::verify_chain(&der, &[], authority(), &Crls::none(), NOW);
    assert!(foreign.is_err(), "an authority that signed nothing let somebody in");
}

/// One whose key nobody has: it signed itself and nothing else.
fn authority() -> &'static Anchors {
    static AUTHORITY: OnceLock<Anchors> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let made = params.self_signed(&key).unwrap();
        Anchors::from_certificates(vec![made.der().clone()]).unwrap()
    })
}

/// Revocation lists, in DER or PEM.
pub fn crl(input: &[u8]) {
    let Ok(lists) = Crl::from_file_bytes(input) else { return };
    for list in lists {
        assert!(list.supersedes(&list));
        assert!(list.revoked_serials().count() == list.revoked_count());
        assert!(list.revoked_serials().all(|serial| serial.first() != Some(&0)));
        assert!(!list.is_signed_by(authority()), "an authority that signed no list");
    }
}

/// PEM files of the configuration, and keys that are imported.
pub fn pem(input: &[u8]) {
    let _ = x509::certificates_from_pem(input);
    let _ = x509::private_key_from_pem(input);
    if let Ok(anchors) = Anchors::from_pem(input) {
        assert!(!anchors.is_empty());
    }
    let Some(text) = text(input) else { return };
    let Ok(key) = SshPrivateKey::import(&SecretString::new(text.to_owned())) else { return };
    let again = SshPrivateKey::import(&key.to_openssh().unwrap()).unwrap();
    assert_eq!(again.public(), key.public());
    let again = SshPrivateKey::from_pkcs8(key.to_pkcs8().unwrap().expose()).unwrap();
    assert_eq!(again.public(), key.public());
}

/// Public keys as people paste them.
pub fn ssh(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let Ok(key) = SshPublicKey::parse(text) else { return };
    let again = SshPublicKey::parse(&key.to_line()).unwrap();
    assert_eq!((&again, again.fingerprint()), (&key, key.fingerprint()));
}

/// Addresses of one-time passwords: what is printed says the same.
pub fn otp(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let Ok(read) = OtpAuth::parse(text) else { return };
    let again = OtpAuth::parse(read.to_uri().expose()).unwrap();
    assert_eq!((again.issuer(), again.account()), (read.issuer(), read.account()));
    assert_eq!(again.parameters(), read.parameters());
    assert!(again.key().ct_eq(read.key().expose()));
}

struct Store {
    keyring: Keyring,
    context: RecordContext,
}

fn store() -> &'static Store {
    static STORE: OnceLock<Store> = OnceLock::new();
    STORE.get_or_init(|| {
        let blind = BlindKey::new(&SecretArray::random().unwrap());
        let tag = |name: &[u8]| blind.tag(NamespaceId::ROOT, 1, Purpose::Name, name);
        let context = RecordContext {
            namespace: NamespaceId::ROOT,
            kind: 1,
            parent: tag(b"parent"),
            name: tag(b"name"),
            rev: 1,
        };
        Store { keyring: Keyring::generate(Suite::Aes256Gcm, NOW).unwrap(), context }
    })
}

/// Records from a store that somebody else wrote to: none opens but those that were sealed here.
pub fn sealed(input: &[u8]) {
    let Store { keyring, context } = store();
    if let Ok(record) = SealedRecord::from_stored(input.to_vec()) {
        assert_eq!(record.as_bytes(), input);
        assert!(envelope::open(keyring, context, &record).is_err());
        assert!(envelope::rewrap(keyring, context, &record).is_err());
    }
    let own = envelope::seal(keyring, context, input).unwrap();
    assert!(envelope::open(keyring, context, &own).unwrap().ct_eq(input));
    let mut bent = own.as_bytes().to_vec();
    let place = input.iter().fold(0, |sum: usize, byte| sum * 31 % 65_521 + usize::from(*byte));
    let length = bent.len();
    bent[place % length] ^= 1 << (input.len() % 8);
    let opened = SealedRecord::from_stored(bent)
        .is_ok_and(|record| envelope::open(keyring, context, &record).is_ok());
    assert!(!opened, "a record with another bit opened");
    let elsewhere = RecordContext { rev: 2, ..*context };
    assert!(envelope::open(keyring, &elsewhere, &own).is_err());
}

/// Longest secret that is shared out here, and the number of shares that is not reached: putting them
/// together takes time for each byte and each pair of shares, in code that is slow on purpose.
const SHARED_BYTES_MAX: usize = 64;
const SHARES_MAX: u8 = 32;

/// Shares: whatever is given is put together or refused, and shares that were made here bring back
/// what they were made of.
pub fn shares(input: &[u8]) {
    if let Some(text) = text(input)
        && let Some(share) = seal::share(text)
    {
        let hex = data_encoding::HEXLOWER.encode(&share);
        assert_eq!(seal::share(&hex), Some(share.clone()));
        assert_eq!(seal::share(&data_encoding::BASE64.encode(&share)), Some(share));
    }
    let [threshold, count, length, rest @ ..] = input else { return };
    let rest = &rest[..rest.len().min(SHARED_BYTES_MAX)];
    let length = usize::from(*length % 40) + 1;
    let given: Vec<_> = rest.chunks(length).map(SecretBytes::copy_of).collect();
    let _ = shamir::combine(&given, *threshold);
    let (count, threshold) = (*count % SHARES_MAX, *threshold % SHARES_MAX);
    let Ok(made) = shamir::split(rest, count, threshold) else { return };
    let enough: Vec<_> = made.iter().rev().take(usize::from(threshold)).collect();
    let copies = |of: &[&SecretBytes]| -> Vec<SecretBytes> {
        of.iter().map(|share| SecretBytes::copy_of(share.expose())).collect()
    };
    assert!(shamir::combine(&copies(&enough), threshold).unwrap().ct_eq(rest));
    let mut bent = copies(&enough);
    let mut first = bent[0].expose().to_vec();
    first[0] ^= 1;
    bent[0] = SecretBytes::new(first);
    assert!(!shamir::combine(&bent, threshold).is_ok_and(|found| found.ct_eq(rest)));
    assert!(shamir::combine(&copies(&enough[1..]), threshold).is_err());
}

/// Tokens: facts read back, and no letter of a token can be another.
pub fn token(input: &[u8]) {
    let printed = tokens::batch(input);
    if printed.len() <= leasehold::core::token::TOKEN_BYTES_MAX {
        assert_eq!(tokens::presented(&printed).as_deref(), Some(input));
    }
    let Some(text) = text(input) else { return };
    let Some(sealed) = tokens::presented(text) else { return };
    if text.starts_with("lhb.") {
        assert_eq!(tokens::batch(&sealed), text, "a token has one spelling");
    }
    if let Some((prefix, _)) = text.split_once('.') {
        for at in prefix.len() + 1..text.len() {
            let mut other = text.as_bytes().to_vec();
            other[at] = if other[at] == b'a' { b'b' } else { b'a' };
            let other = String::from_utf8(other).unwrap();
            assert_eq!(tokens::presented(&other), None, "{other}");
        }
    }
}

pub const JOSE_WORDS: &[&str] = &[
    "{\"keys\":[",
    "]}",
    "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"",
    "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"",
    "{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}",
    "\"kid\":\"a\"",
    "\"alg\":\"none\"",
    "\"use\":\"sig\"",
    ".",
    "eyJhbGciOiJub25lIn0",
    "\n",
];

/// A token nobody signed is nobody's, whatever key set it is checked with.
pub fn signed_token(input: &[u8]) {
    let Some((token, jwks)) = two(input) else { return };
    let keys = KeySet::from_jwks(jwks.as_bytes());
    let Ok(unchecked) = UncheckedToken::parse(token, TokenKind::Any, JwsAlgorithm::ALL) else {
        return;
    };
    let Ok(keys) = keys else { return };
    unchecked.is_known_to(&keys);
    if unchecked.verify(&keys).is_ok() {
        // With one bit of what is signed changed, it must not be.
        let mut other = token.as_bytes().to_vec();
        let place = token.find('.').unwrap() + 2;
        other[place] = if other[place] == b'A' { b'B' } else { b'A' };
        let other = String::from_utf8(other).unwrap();
        let forged = UncheckedToken::parse(&other, TokenKind::Any, JwsAlgorithm::ALL)
            .is_ok_and(|unchecked| unchecked.verify(&keys).is_ok());
        assert!(!forged, "{other}");
    }
}

/// A log: what is found intact is not once a line of it is gone.
pub fn audit(input: &[u8]) {
    let report = |log: &[u8]| {
        let mut file = tempfile::NamedTempFile::new_in(scratch()).unwrap();
        file.write_all(log).unwrap();
        verify_files(&[file.path().to_owned()], None).unwrap()
    };
    if !report(input).is_intact() {
        return;
    }
    let lines: Vec<&[u8]> = input.split_inclusive(|byte| *byte == b'\n').collect();
    if lines.len() > 2 {
        let without: Vec<&[u8]> = [&lines[..1], &lines[2..]].concat();
        assert!(!report(&without.concat()).is_intact(), "the second line is not missed");
    }
}

/// Where files of one input go: memory, where there is such a place.
pub fn scratch() -> std::path::PathBuf {
    let memory = std::path::PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}
