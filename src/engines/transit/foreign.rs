//! Backups that OpenBao wrote.
//!
//! In base64 as well: a JSON document with the settings of a key (`policy`), and with all its versions
//! (`archived_keys`), in order from `archive_min_version` on. Types are numbers there, times
//! of rotation are in nanoseconds, and the numbers of ECDSA and RSA keys are decimal ones of any length.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Number;
use zeroize::Zeroizing;

use super::export::Backup;
use super::kind::{Family, KeyKind};
use super::record::{KeyRecord, VersionRecord};
use super::ring::Version;
use super::stored::StoredKey;
use crate::crypto::rsa::{RsaKey, RsaNumbers};
use crate::crypto::signing::{EcdsaKey, Ed25519Key};
use crate::types::secret::SecretBytes;
use crate::types::time::{Timestamp, Ttl};

/// What OpenBao calls HKDF-SHA256, which is the only derivation of new keys.
const KDF_HKDF: u64 = 1;
/// The construction of convergent keys that is ours, too.
const CONVERGENT_VERSION: i64 = 3;
const NANOS_PER_SEC: u64 = 1_000_000_000;
/// Digits of a number of 4096 bits, and some.
const DIGITS_MAX: usize = 1_240;

#[derive(Deserialize)]
struct Document {
    policy: Policy,
    archived_keys: Archive,
}

#[derive(Deserialize)]
struct Archive {
    keys: Vec<Entry>,
}

#[derive(Deserialize)]
struct Policy {
    name: String,
    #[serde(rename = "type")]
    kind: u64,
    derived: bool,
    kdf: u64,
    convergent_encryption: bool,
    exportable: bool,
    allow_plaintext_backup: bool,
    deletion_allowed: bool,
    latest_version: u64,
    min_decryption_version: u64,
    min_encryption_version: u64,
    min_available_version: u64,
    archive_min_version: u64,
    auto_rotate_period: u64,
    #[serde(rename = "Imported")]
    imported: bool,
    #[serde(rename = "AllowImportedKeyRotation")]
    allow_rotation: bool,
    #[serde(default)]
    soft_deleted: bool,
}

#[derive(Deserialize)]
struct Entry {
    key: Option<StoredKey>,
    hmac_key: Option<StoredKey>,
    creation_time: i64,
    convergent_version: i64,
    ec_x: Option<Number>,
    ec_y: Option<Number>,
    ec_d: Option<Number>,
    rsa_key: Option<Rsa>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Rsa {
    n: Number,
    e: Number,
    d: Number,
    primes: [Number; 2],
    precomputed: Precomputed,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Precomputed {
    dp: Number,
    dq: Number,
    qinv: Number,
}

/// The backup that this document is, if it is one.
pub(super) fn read(document: &[u8]) -> Option<Backup> {
    let Document { policy, archived_keys } = serde_json::from_slice(document).ok()?;
    let kind = kind(policy.kind)?;
    if policy.derived && policy.kdf != KDF_HKDF {
        return None;
    }
    let oldest = policy.min_available_version.max(1);
    let mut versions = BTreeMap::new();
    let mut latest = None;
    for (entry, at) in archived_keys.keys.into_iter().zip(0u64..) {
        let number = policy.archive_min_version.checked_add(at)?;
        // The list begins with an empty entry where versions begin at 1.
        if !(oldest..=policy.latest_version).contains(&number) {
            continue;
        }
        if policy.convergent_encryption && entry.convergent_version != CONVERGENT_VERSION {
            return None;
        }
        let version = version(kind, policy.derived, number, entry)?;
        latest = Some((version.created_at, version.key.secret().len() as u64));
        versions.insert(number, version);
    }
    let (latest_at, bytes) = latest?;
    let key = KeyRecord {
        // Drawn anew when it is stored.
        id: String::new(),
        kind,
        derived: policy.derived,
        convergent: policy.convergent_encryption,
        exportable: policy.exportable,
        allow_plaintext_backup: policy.allow_plaintext_backup,
        deletion_allowed: policy.deletion_allowed,
        latest_version: policy.latest_version,
        latest_at,
        min_decryption_version: policy.min_decryption_version.max(1),
        min_encryption_version: policy.min_encryption_version,
        min_available_version: policy.min_available_version,
        auto_rotate_period: Ttl::from_secs(policy.auto_rotate_period / NANOS_PER_SEC),
        imported: policy.imported,
        allow_rotation: policy.allow_rotation,
        hmac_key_bytes: if kind == KeyKind::Hmac { bytes } else { 0 },
        soft_deleted: policy.soft_deleted,
    };
    Some(Backup::of(policy.name, key, versions))
}

fn kind(number: u64) -> Option<KeyKind> {
    Some(match number {
        0 => KeyKind::Aes256,
        1 => KeyKind::EcdsaP256,
        2 => KeyKind::Ed25519,
        3 => KeyKind::Rsa2048,
        4 => KeyKind::Rsa4096,
        5 => KeyKind::ChaCha20,
        6 => KeyKind::EcdsaP384,
        7 => KeyKind::EcdsaP521,
        8 => KeyKind::Aes128,
        9 => KeyKind::Rsa3072,
        10 => KeyKind::Hmac,
        11 => KeyKind::XChaCha20,
        _ => return None,
    })
}

fn version(kind: KeyKind, derived: bool, number: u64, entry: Entry) -> Option<VersionRecord> {
    let hmac_key = if kind == KeyKind::Hmac {
        StoredKey::new(SecretBytes::new(Vec::new()))
    } else {
        entry.hmac_key.filter(|key| !key.secret().is_empty())?
    };
    let material = match kind.family() {
        Family::Cipher(_) | Family::Hmac => kind.import(entry.key?.secret())?,
        Family::Ed25519 => {
            let kept = entry.key?;
            Ed25519Key::new(kept.secret()).ok()?;
            SecretBytes::copy_of(kept.secret().expose())
        }
        Family::Ecdsa(curve) => {
            let (x, y) = (big_endian(&entry.ec_x?)?, big_endian(&entry.ec_y?)?);
            let private = big_endian(&entry.ec_d?)?;
            EcdsaKey::from_numbers(curve, private.expose(), x.expose(), y.expose()).ok()?
        }
        Family::Rsa(size) => {
            let Rsa { n, e, d, primes: [p, q], precomputed } = entry.rsa_key?;
            let Precomputed { dp, dq, qinv } = precomputed;
            let numbers = RsaNumbers {
                n: &big_endian(&n)?,
                e: &big_endian(&e)?,
                d: &big_endian(&d)?,
                p: &big_endian(&p)?,
                q: &big_endian(&q)?,
                d_p: &big_endian(&dp)?,
                d_q: &big_endian(&dq)?,
                q_inverse: &big_endian(&qinv)?,
            };
            RsaKey::from_numbers(size, &numbers).ok()?
        }
    };
    let created_at = Timestamp::from_secs(entry.creation_time);
    let key = StoredKey::new(material);
    let mut record = VersionRecord { created_at, key, hmac_key, public_key: None };
    if !derived {
        record.public_key = Version::open(kind, number, &record).ok()?.public_key(None).ok()?;
    }
    Some(record)
}

/// The bytes of a decimal number, without zeros in front.
fn big_endian(number: &Number) -> Option<SecretBytes> {
    let digits = number.as_str();
    if digits.len() > DIGITS_MAX || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    // A digit is less than half a byte: no copies are left behind by growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(digits.len() / 2 + 1));
    for digit in digits.bytes() {
        let mut carry = u16::from(digit - b'0');
        for byte in bytes.iter_mut() {
            let [low, high] = (u16::from(*byte) * 10 + carry).to_le_bytes();
            *byte = low;
            carry = u16::from(high);
        }
        if carry > 0 {
            bytes.push(carry.to_le_bytes()[0]);
        }
    }
    bytes.reverse();
    Some(SecretBytes::copy_of(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_numbers_become_bytes() {
        let read = |text: &str| {
            let number: Number = serde_json::from_str(text).unwrap();
            big_endian(&number).map(|bytes| bytes.expose().to_vec())
        };
        assert_eq!(read("0"), Some(vec![]));
        assert_eq!(read("255"), Some(vec![255]));
        assert_eq!(read("256"), Some(vec![1, 0]));
        assert_eq!(read("65537"), Some(vec![1, 0, 1]));
        let big = read("340282366920938463463374607431768211456").unwrap();
        assert_eq!((big.len(), big[0]), (17, 1), "2^128");
        for bad in ["-1", "1.5", "1e3", &"9".repeat(DIGITS_MAX + 1)] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert!(read(&"9".repeat(DIGITS_MAX)).is_some());
    }
}
