//! What is known about a token.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::crypto::blind::TokenHash;
use crate::types::id::{Accessor, EntityId, MountAccessor};
use crate::types::time::{Timestamp, Ttl};

/// What kind of token it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    /// Sealed facts that the holder carries. Nothing is stored, nothing can be revoked.
    Batch,
    /// Stored, renewable, revocable.
    Service,
}

impl TokenKind {
    /// As stock clients spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Service => "service",
        }
    }
}

/// Whom the leases belong to that are issued to a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseOwner {
    /// The identity behind the token: the leases outlive it.
    Entity,
    /// The token: the leases end with it.
    #[default]
    Token,
}

impl LeaseOwner {
    /// Reads `entity` or `token`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "entity" => Some(Self::Entity),
            "token" => Some(Self::Token),
            _ => None,
        }
    }

    /// `entity` or `token`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Entity => "entity",
            Self::Token => "token",
        }
    }
}

/// A token, as stored under its hash, or as sealed into a batch token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenEntry {
    /// Service or batch.
    pub token_type: TokenKind,
    /// Its handle; `None` for batch tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accessor: Option<Accessor>,
    /// Hash (hex) of the token it was made by; `None` for an orphan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// How many ancestors it had when it was made.
    #[serde(default)]
    pub depth: u16,
    /// Its policies, sorted.
    pub policies: Vec<String>,
    /// Whether the policies of its entity count too. Not for tokens that asked for less.
    #[serde(default)]
    pub inherits_identity: bool,
    /// What it is narrowed to; empty when it is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// The identity behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity_id: Option<EntityId>,
    /// What whoever made it noted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    /// Name for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub display_name: String,
    /// The path it was made at.
    pub path: String,
    /// The token role it was made by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The auth mount that logged it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<MountAccessor>,
    /// The role of that mount that matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_role: Option<String>,
    /// The name within that mount that it was given to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_alias: Option<String>,
    /// The groups that the method said its identity is in, by the ids of their aliases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// How long it was to live at first; zero for ever.
    #[serde(default)]
    pub creation_ttl: Ttl,
    /// When it ends; `None` only for root tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Limit of all renewals, fixed when it was made; zero for none.
    #[serde(default)]
    pub explicit_max_ttl: Ttl,
    /// When set, each renewal gives this lifetime.
    #[serde(default)]
    pub period: Ttl,
    /// Uses that are left; `None` for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u64>,
    /// Whether it can be renewed.
    #[serde(default)]
    pub renewable: bool,
    /// When it was last renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed_at: Option<Timestamp>,
    /// Addresses it can be used from (CIDR); empty for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bound_cidrs: Vec<String>,
    /// SHA-256 of the one certificate it can be used with.
    #[serde(default, with = "fingerprint", skip_serializing_if = "Option::is_none")]
    pub bound_certificate: Option<[u8; 32]>,
    /// When the certificate ends that it was asked for with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// Whom its leases belong to.
    #[serde(default)]
    pub lease_owner: LeaseOwner,
    /// Being revoked: dead already, and its descendants with it.
    #[serde(default)]
    pub revoking: bool,
}

impl TokenEntry {
    /// Whether it counts at `now`, as far as it says itself: its ancestors must count too.
    pub fn is_live(&self, now: Timestamp) -> bool {
        !self.revoking && self.uses_left != Some(0) && self.expires_at.is_none_or(|end| now < end)
    }

    /// Whether it grants everything.
    pub fn is_root(&self) -> bool {
        self.policies.iter().any(|name| name == "root") && self.scopes.is_empty()
    }

    /// What is left of it in whole seconds; zero when it never ends.
    pub fn ttl(&self, now: Timestamp) -> Ttl {
        self.expires_at.map_or(Ttl::ZERO, |end| end.remaining(now))
    }

    pub(super) fn labels(&self) -> Vec<String> {
        let mut labels = Vec::new();
        labels.extend(self.parent.as_deref().map(parent_label));
        labels.extend(self.entity_id.as_ref().map(|id| format!("entity:{id}")));
        labels.extend(self.mount.as_ref().map(|mount| format!("mount:{mount}")));
        labels
    }
}

pub(super) fn parent_label(hash: &str) -> String {
    format!("parent:{hash}")
}

/// A token that was found, alive.
#[derive(Clone, Debug)]
pub struct TokenLookup {
    /// What it is stored under; `None` for a batch token.
    pub hash: Option<TokenHash>,
    /// Its revision; 0 for a batch token.
    pub rev: u64,
    /// What is known about it.
    pub entry: TokenEntry,
    /// Keyed hash of the token, batch tokens included.
    pub(super) key: String,
}

impl TokenLookup {
    /// An opaque, stable stand-in for the token: its hash in hexadecimal.
    pub fn private_key(&self) -> String {
        self.key.clone()
    }

    /// The name it is stored under; `None` for a batch token.
    pub fn stored_name(&self) -> Option<&str> {
        self.hash.is_some().then_some(self.key.as_str())
    }

    /// The name of the row whose end is this token's end: its own, or that of a batch token's parent.
    pub fn row_name(&self) -> Option<&str> {
        self.stored_name().or(self.entry.parent.as_deref())
    }
}

mod fingerprint {
    use data_encoding::HEXLOWER;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<[u8; 32]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.serialize_str(&HEXLOWER.encode(bytes)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<[u8; 32]>, D::Error> {
        Option::<String>::deserialize(deserializer)?
            .map(|text| {
                let bytes = HEXLOWER.decode(text.as_bytes()).map_err(D::Error::custom)?;
                bytes.try_into().map_err(|_| D::Error::custom("not 32 bytes"))
            })
            .transpose()
    }
}
