//! What is stored of keys, and under which names.
//!
//! | record | what |
//! |---|---|
//! | `keys/:name` | a key without its material: type, rules, which versions there are |
//! | `versions/:id/:number` | the material of one version; written once |
//! | `used/:id/:number` | how many messages the nodes may have encrypted with it |
//! | `rotating/:name` | the key has a period of rotation |
//! | `gone/:id` | no key has this id (yet, or any more): what is stored under it is to be removed |
//! | `settings` | what holds for all keys |
//! | `wrapping-key` | what keys are wrapped under that are brought in |
//!
//! The id is drawn anew for each key. So versions never change, whatever happens to a name.

use serde::{Deserialize, Serialize};

use super::kind::KeyKind;
use super::stored::StoredKey;
use crate::core::error::CoreError;
use crate::types::time::{Timestamp, Ttl};

pub(super) const KEYS: &str = "keys/";
pub(super) const ROTATING: &str = "rotating/";
pub(super) const GONE: &str = "gone/";
pub(super) const SETTINGS: &str = "settings";
pub(super) const WRAPPING_KEY: &str = "wrapping-key";

/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// The record of the key `name`.
///
/// # Errors
/// When it is no name.
pub(super) fn key_name(name: &str) -> Result<String, CoreError> {
    check_name(name)?;
    Ok(format!("{KEYS}{name}"))
}

fn check_name(name: &str) -> Result<(), CoreError> {
    let problem = match name.as_bytes() {
        [] => "is required",
        bytes if bytes.len() > NAME_BYTES_MAX => "is longer than 128 bytes",
        [first, rest @ ..]
            if (first.is_ascii_alphanumeric() || *first == b'_')
                && rest.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b)) =>
        {
            return Ok(());
        }
        _ => "has only letters, digits and -_., and begins with a letter, a digit or _",
    };
    Err(CoreError::field("name", problem))
}

pub(super) fn rotating_name(name: &str) -> String {
    format!("{ROTATING}{name}")
}

pub(super) fn gone_name(id: &str) -> String {
    format!("{GONE}{id}")
}

pub(super) fn versions_dir(id: &str) -> String {
    format!("versions/{id}/")
}

pub(super) fn version_name(id: &str, number: u64) -> String {
    format!("versions/{id}/{number}")
}

pub(super) fn used_dir(id: &str) -> String {
    format!("used/{id}/")
}

pub(super) fn used_name(id: &str, number: u64) -> String {
    format!("used/{id}/{number}")
}

/// A key, without its material.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct KeyRecord {
    /// What its versions are stored under.
    pub(super) id: String,
    #[serde(rename = "type")]
    pub(super) kind: KeyKind,
    pub(super) derived: bool,
    pub(super) convergent: bool,
    pub(super) exportable: bool,
    pub(super) allow_plaintext_backup: bool,
    pub(super) deletion_allowed: bool,
    /// The newest version; they are numbered from 1.
    pub(super) latest_version: u64,
    /// When the newest version was made.
    pub(super) latest_at: Timestamp,
    /// The oldest version that decrypts and verifies.
    pub(super) min_decryption_version: u64,
    /// The oldest version that encrypts and signs; zero for none but the rule above.
    pub(super) min_encryption_version: u64,
    /// The oldest version that there is; zero while none was trimmed.
    pub(super) min_available_version: u64,
    /// Time between rotations; zero for none.
    pub(super) auto_rotate_period: Ttl,
    pub(super) imported: bool,
    /// Whether an imported key may have versions that are made here.
    pub(super) allow_rotation: bool,
    /// Length of an HMAC key, in bytes.
    pub(super) hmac_key_bytes: u64,
    /// Whether it is out of use, with all that belongs to it, until somebody restores it.
    #[serde(default)]
    pub(super) soft_deleted: bool,
}

impl KeyRecord {
    /// Whether versions can be made here.
    pub(super) const fn rotates(&self) -> bool {
        !self.imported || self.allow_rotation
    }

    /// The oldest version that there is.
    pub(super) fn oldest(&self) -> u64 {
        self.min_available_version.max(1)
    }

    /// The version to encrypt, sign or authenticate with; zero asks for the newest.
    ///
    /// # Errors
    /// Why it may not be that one.
    pub(super) fn version_for_new(&self, wanted: u64) -> Result<u64, String> {
        let oldest = self.min_encryption_version.max(self.min_decryption_version);
        match wanted {
            0 => Ok(self.latest_version),
            newer if newer > self.latest_version => {
                Err("field \"key_version\" is above the newest version of the key".into())
            }
            older if older < oldest => Err("field \"key_version\" is below what the key allows: \
                 see min_encryption_version and min_decryption_version"
                .into()),
            allowed => Ok(allowed),
        }
    }

    /// Whether that version may decrypt and verify.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check_old(&self, version: u64) -> Result<(), String> {
        if version > self.latest_version {
            return Err("the key has no such version yet".into());
        }
        if version < self.min_decryption_version {
            return Err("the key does not allow that version any more: it is below \
                 min_decryption_version"
                .into());
        }
        Ok(())
    }

    /// Whether the numbers of its versions go together.
    ///
    /// # Errors
    /// The field that does not.
    pub(super) fn check(&self) -> Result<(), CoreError> {
        let Self { latest_version: latest, min_decryption_version: decryption, .. } = *self;
        let encryption = self.min_encryption_version;
        let (field, problem) = if decryption == 0 || decryption > latest {
            ("min_decryption_version", "must be a version that the key has")
        } else if decryption < self.min_available_version {
            ("min_decryption_version", "is below the oldest version that was not trimmed away")
        } else if encryption > latest {
            ("min_encryption_version", "must be a version that the key has, or 0")
        } else if encryption != 0 && encryption < decryption {
            ("min_encryption_version", "must be 0, or not below min_decryption_version")
        } else {
            return Ok(());
        };
        Err(CoreError::field(field, problem))
    }
}

/// One version of a key. Written once.
#[derive(Serialize, Deserialize)]
pub(super) struct VersionRecord {
    pub(super) created_at: Timestamp,
    /// As its type keeps it.
    pub(super) key: StoredKey,
    /// What HMACs are made with; empty when the key itself is for that.
    pub(super) hmac_key: StoredKey,
    /// The public key, as it is told. Not of derived keys.
    pub(super) public_key: Option<String>,
}

/// Something stored under an id that is no key's.
#[derive(Serialize, Deserialize)]
pub(super) struct GoneRecord {
    /// When it may be removed: until then it may still become a key.
    pub(super) after: Timestamp,
}

/// Key material of the mount itself.
#[derive(Serialize, Deserialize)]
pub(super) struct WrappingRecord {
    pub(super) key: StoredKey,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        for good in ["a", "_x", "0", "A-b_c.d", &"n".repeat(128)] {
            assert_eq!(key_name(good).unwrap(), format!("keys/{good}"));
        }
        for bad in ["", ".", "..", "-a", "a/b", "a b", "a\u{e9}", "a\0", &"n".repeat(129)] {
            assert_eq!(key_name(bad).unwrap_err().status(), 400, "{bad}");
        }
    }
}
