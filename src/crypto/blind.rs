//! Keyed hashes: what the store knows a record by, what a token is kept as, what the audit shows.

use std::fmt;
use std::hash::{Hash, Hasher};

use data_encoding::HEXLOWER;
use subtle::ConstantTimeEq;

use super::kdf::{HMAC_BYTES, HmacKey};
use crate::types::id::NamespaceId;
use crate::types::secret::SecretArray;

/// Length of a [`Tag`], in bytes. Two of 2^64 names meet by chance; a store holds far fewer.
pub const TAG_BYTES: usize = 16;

/// A keyed hash (HMAC-SHA-256 cut to 128 bits) that stands for a path, name, label or id in storage.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag([u8; TAG_BYTES]);

impl Tag {
    /// From bytes read back from storage.
    pub const fn from_bytes(bytes: [u8; TAG_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes, as storage keeps them.
    pub const fn as_bytes(&self) -> &[u8; TAG_BYTES] {
        &self.0
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({})", HEXLOWER.encode(&self.0))
    }
}

/// What a tag is for. The same text gets unrelated tags for different purposes, so that the store
/// cannot tell that a record's label equals another record's name. Numbers are permanent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The record's own key.
    Name,
    /// What the record is listed under.
    Parent,
    /// Something the record can be found by.
    Label,
}

impl Purpose {
    const fn id(self) -> u8 {
        match self {
            Self::Name => 1,
            Self::Parent => 2,
            Self::Label => 3,
        }
    }
}

/// Makes the [`Tag`]s of the store.
pub struct BlindKey(HmacKey);

impl BlindKey {
    /// Keys the index. All nodes, and all key terms, share one such key: tags never change.
    pub fn new(key: &SecretArray<HMAC_BYTES>) -> Self {
        Self(HmacKey::new(key.expose()))
    }

    /// The tag of `text` among records of `kind` in `namespace`.
    ///
    /// Everything before `text` has a fixed length and its own length goes before it, so two
    /// different questions never hash the same bytes.
    pub fn tag(&self, namespace: NamespaceId, kind: u16, purpose: Purpose, text: &[u8]) -> Tag {
        let mac = self.0.mac(&[
            &namespace.0.to_be_bytes(),
            &kind.to_be_bytes(),
            &[purpose.id()],
            &(text.len() as u64).to_be_bytes(),
            text,
        ]);
        let mut tag = [0u8; TAG_BYTES];
        for (to, from) in tag.iter_mut().zip(mac) {
            *to = from;
        }
        Tag(tag)
    }
}

/// What a bearer token is kept as. Compared in constant time; useless without the token.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; HMAC_BYTES]);

impl TokenHash {
    /// From bytes read back from a record.
    pub const fn from_bytes(bytes: [u8; HMAC_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; HMAC_BYTES] {
        &self.0
    }

    /// Lower-case hexadecimal, 64 characters.
    pub fn to_hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// Reads [`to_hex`](Self::to_hex) back.
    pub fn from_hex(hex: &str) -> Option<Self> {
        let bytes = HEXLOWER.decode(hex.as_bytes()).ok()?;
        <[u8; HMAC_BYTES]>::try_from(bytes).ok().map(Self)
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenHash {}

impl Hash for TokenHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

/// Turns bearer tokens into [`TokenHash`]es.
pub struct TokenHashKey(HmacKey);

impl TokenHashKey {
    /// Keys the hash. A stolen store without this key does not even allow guesses to be checked.
    pub fn new(key: &SecretArray<HMAC_BYTES>) -> Self {
        Self(HmacKey::new(key.expose()))
    }

    /// The hash of a token, as presented.
    pub fn hash(&self, token: &str) -> TokenHash {
        TokenHash(self.0.mac(&[token.as_bytes()]))
    }
}

/// Turns values that must not be in the audit into ones that can be compared there.
pub struct AuditKey(HmacKey);

impl AuditKey {
    /// Keys the hash.
    pub fn new(key: &SecretArray<HMAC_BYTES>) -> Self {
        Self(HmacKey::new(key.expose()))
    }

    /// `hmac-sha256:` and 64 hexadecimal digits: the form stock audit tools look for.
    pub fn hmac(&self, text: &str) -> String {
        format!("hmac-sha256:{}", HEXLOWER.encode(&self.0.mac(&[text.as_bytes()])))
    }
}

#[cfg(test)]
mod tests;
