//! Identifiers, each with a type of its own.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::secret::{RandomError, fill_random};

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// `len` characters of base62, each uniformly random.
///
/// # Errors
/// When the operating system has no randomness to give.
pub fn random_base62(len: usize) -> Result<String, RandomError> {
    let mut out = String::with_capacity(len);
    let mut pool = zeroize::Zeroizing::new([0u8; 64]);
    while out.len() < len {
        fill_random(pool.as_mut_slice())?;
        for byte in pool.iter() {
            // 248 is the largest multiple of 62 in a byte; the rest would bias the first letters.
            if *byte < 248 && out.len() < len {
                out.extend(BASE62.get(usize::from(byte % 62)).map(|c| char::from(*c)));
            }
        }
    }
    Ok(out)
}

/// A random (version 4) UUID in its usual text form.
///
/// # Errors
/// When the operating system has no randomness to give.
pub fn random_uuid() -> Result<String, RandomError> {
    let mut bytes = [0u8; 16];
    fill_random(&mut bytes)?;
    let value =
        (u128::from_be_bytes(bytes) & !(0xf << 76) & !(0b11 << 62)) | (4 << 76) | (0b10 << 62);
    let hex = format!("{value:032x}");
    let mut out = String::with_capacity(36);
    for (position, digit) in hex.chars().enumerate() {
        if matches!(position, 8 | 12 | 16 | 20) {
            out.push('-');
        }
        out.push(digit);
    }
    Ok(out)
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps text that came from our own store or was just made.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// One request, as shown to callers, in logs and in the audit (a UUID).
    RequestId
);
text_id!(
    /// An entity: the owner of leases and policies behind one or more identities (a UUID).
    EntityId
);
text_id!(
    /// A lease: `<mount>/<path>/<24 base62>`.
    LeaseId
);
text_id!(
    /// A handle on a token that is not the token (24 base62).
    Accessor
);
text_id!(
    /// A handle on a mount that survives remounting (`<type>_<8 hex>`).
    MountAccessor
);

impl RequestId {
    /// A fresh one.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn random() -> Result<Self, RandomError> {
        random_uuid().map(Self)
    }
}

/// The tenant that a record belongs to. In the key and in the AAD of every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NamespaceId(pub u32);

impl NamespaceId {
    /// The only namespace exposed so far.
    pub const ROOT: Self = Self(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_have_version_four_and_the_rfc_variant() {
        for _ in 0..100 {
            let id = random_uuid().unwrap();
            assert_eq!(id.len(), 36);
            assert_eq!(id.as_bytes()[14], b'4', "{id}");
            assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{id}");
        }
    }

    #[test]
    fn base62_ids_have_the_asked_length_and_alphabet() {
        let id = random_base62(24).unwrap();
        assert_eq!(id.len(), 24);
        assert!(id.bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_ne!(id, random_base62(24).unwrap());
    }
}
