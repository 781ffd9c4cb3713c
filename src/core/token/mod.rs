//! Tokens: what they look like, what is known about them, how they are made and how they end.
//!
//! A service token is stored under a keyed hash of itself and never in clear. Its children name it as
//! their parent and count only while every ancestor does, so marking one row ends a whole tree at
//! once; the rows below it are then removed, leaves first, and a crash in between leaves
//! nothing that works and nothing that the sweep does not find.

mod entry;
#[cfg(feature = "failpoints")]
pub mod fuzzed;
mod issue;
mod parameters;
mod plain;
mod revoke;
mod role;

use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::crypto::batch::BatchTokenKey;
use crate::crypto::blind::{TokenHash, TokenHashKey};
use crate::crypto::keyring::Label;
use crate::storage::{RowKey, StorageError};
use crate::types::id::NamespaceId;
use crate::types::secret::SecretBytes;
use crate::types::time::{Clock, Timestamp, Ttl};

use super::error::CoreError;
use super::records::{Batch, Precondition, Records, kinds};
use super::view::{PutOptions, View};

pub use entry::{LeaseOwner, TokenEntry, TokenKind, TokenLookup};
pub use issue::{IssuedToken, NewLifetime, NewToken, RenewalBounds, auth_reply};
pub use parameters::{
    address_allowed, cidrs, login_kind, parameters_json, policy_names, read_parameters,
    with_default,
};
pub(crate) use parameters::{with_shown_token_fields, with_token_fields};
pub use plain::{BATCH_PREFIX, SERVICE_PREFIX, SERVICE_TOKEN_BYTES, TOKEN_BYTES_MAX};
pub use revoke::{TokenSelector, TokenSweep};
pub use role::{RoleTokenType, TokenRole, TokenRoles};

/// Most ancestors of a token.
pub const TOKEN_DEPTH_MAX: u16 = 32;
/// Parsed entries kept beside the record cache.
const PARSED_MAX: usize = 65_536;
/// How often a change is tried again when the same token is changed elsewhere meanwhile.
const ATTEMPTS: usize = 64;
/// How long the request that takes a token's last use may run before the sweep ends the token.
const LAST_USE_GRACE: Ttl = Ttl::from_secs(120);
/// How long whoever revokes a token may take before the sweep takes over, and how long the sweep
/// waits before it tries again. The token is dead all the while.
const REVOKING_GRACE: Ttl = Ttl::from_secs(30);
/// Uses of one token are counted one after the other on each node, so that they do not collide.
const COUNTERS: usize = 64;

/// What has to end with a token: called before its row goes, and again after an interruption, until
/// it succeeds.
#[async_trait]
pub trait TokenGone: Send + Sync + 'static {
    /// The token stored under `hash` is dead and about to be forgotten.
    ///
    /// # Errors
    /// When something could not be ended; the token stays dead and listed.
    async fn token_gone(&self, hash: &str, entry: &TokenEntry) -> Result<(), CoreError>;
}

/// What a use of a token left.
#[must_use = "a token whose last use this was has to be revoked when the request is done"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// This was the last: revoke it when the request is done.
    Last,
    /// It can be used again.
    More,
}

/// What leads from an accessor to its token.
#[derive(Debug, Serialize, Deserialize)]
struct Pointer {
    hash: String,
}

type Parsed = Cache<String, (Weak<SecretBytes>, Arc<TokenLookup>)>;

/// The tokens of an unsealed server.
pub struct TokenStore {
    records: Arc<Records>,
    clock: Arc<dyn Clock>,
    hash_key: TokenHashKey,
    batch_key: BatchTokenKey,
    gone: OnceLock<Arc<dyn TokenGone>>,
    parsed: Parsed,
    counters: Vec<Mutex<()>>,
}

impl TokenStore {
    /// The tokens in `records`.
    pub fn new(records: Arc<Records>, clock: Arc<dyn Clock>) -> Self {
        let keyring = records.keyring();
        Self {
            hash_key: keyring.token_hash_key(),
            batch_key: BatchTokenKey::new(keyring.subkey(Label::BatchToken)),
            records,
            clock,
            gone: OnceLock::new(),
            parsed: Cache::new(PARSED_MAX),
            counters: (0..COUNTERS).map(|_| Mutex::new(())).collect(),
        }
    }

    /// Says what ends with a token. Once, before the first token is revoked.
    pub fn on_gone(&self, gone: Arc<dyn TokenGone>) {
        // A second call would be a mistake in the wiring; the first stays.
        let _ = self.gone.set(gone);
    }

    /// The roles that tokens can be made by.
    pub fn roles(&self) -> TokenRoles {
        TokenRoles::new(self.records.clone())
    }

    /// The live token that was presented. `None` for everything else: unknown, malformed, expired,
    /// used up, revoked, or with an ancestor that is.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn lookup(&self, plain: &str) -> Result<Option<Arc<TokenLookup>>, CoreError> {
        match plain::classify(plain) {
            None => Ok(None),
            Some(plain::Presented::Stored) => {
                self.lookup_stored(&self.hash_key.hash(plain).to_hex()).await
            }
            Some(plain::Presented::Batch(sealed)) => {
                let Some(found) = self.open_batch(plain, &sealed) else { return Ok(None) };
                self.if_live(Arc::new(found)).await
            }
        }
    }

    /// What a token would be stored under, and whether anything is, dead or alive; `None` for what is
    /// not stored, or no token by its looks.
    ///
    /// # Errors
    /// When the store fails.
    pub(in crate::core) async fn trace(
        &self,
        plain: &str,
    ) -> Result<Option<(TokenHash, bool)>, CoreError> {
        let Some(plain::Presented::Stored) = plain::classify(plain) else { return Ok(None) };
        let hash = self.hash_key.hash(plain);
        let stored = self.stored(&hash.to_hex()).await?.is_some();
        Ok(Some((hash, stored)))
    }

    /// The live token stored under `hash` (hex).
    ///
    /// # Errors
    /// When the store fails.
    pub async fn lookup_stored(&self, hash: &str) -> Result<Option<Arc<TokenLookup>>, CoreError> {
        match self.stored(hash).await? {
            Some(found) => self.if_live(found).await,
            None => Ok(None),
        }
    }

    /// Stands for the token and all that were made from it, link by link: its oldest ancestor that
    /// root has made, or nobody.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn origin(&self, token: &TokenLookup) -> Result<String, CoreError> {
        let mut origin = token.private_key();
        let mut parent = token.entry.parent.clone();
        for _ in 0..TOKEN_DEPTH_MAX {
            let Some(hash) = parent else { break };
            let Some(ancestor) = self.stored(&hash).await? else { break };
            if ancestor.entry.policies.iter().any(|policy| policy == "root") {
                break;
            }
            parent = ancestor.entry.parent.clone();
            origin = hash;
        }
        Ok(origin)
    }

    /// The live token with that accessor.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn lookup_accessor(
        &self,
        accessor: &str,
    ) -> Result<Option<Arc<TokenLookup>>, CoreError> {
        match self.hash_of(accessor).await? {
            Some(hash) => self.lookup_stored(&hash).await,
            None => Ok(None),
        }
    }

    /// All accessors, sorted.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn accessors(&self) -> Result<Vec<String>, CoreError> {
        self.accessor_view().list("").await
    }

    /// How many tokens are stored and have not ended.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn count(&self) -> Result<u64, CoreError> {
        let count = self.records.storage().count(kinds::TOKEN, self.clock.now()).await?;
        Ok(count.total.saturating_sub(count.due))
    }

    /// The row of a stored token: it must still be there when something is made for the token.
    pub fn row_key(&self, name: &str) -> RowKey {
        self.records.key(&self.view().full_name(name))
    }

    /// When the stored token of that name ends; `None` when it does not, or is gone.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn end_of(&self, name: &str) -> Result<Option<Timestamp>, CoreError> {
        Ok(self.stored(name).await?.and_then(|token| token.entry.expires_at))
    }

    /// Counts one use of a token. The conditional write is the check, so of parallel uses of the
    /// last one exactly one succeeds.
    ///
    /// # Errors
    /// `Denied` when none is left.
    pub async fn consume_use(&self, token: &TokenLookup) -> Result<Use, CoreError> {
        let (Some(hash), Some(_)) = (token.stored_name(), token.entry.uses_left) else {
            return Ok(Use::More);
        };
        let spent = || CoreError::denied("the token was used as often as it may be");
        let _one_at_a_time = match self.counter(hash) {
            Some(counter) => Some(counter.lock().await),
            None => None,
        };
        for _ in 0..ATTEMPTS {
            let now = self.clock.now();
            let found = self.view().get_fresh::<TokenEntry>(hash).await?.ok_or_else(spent)?;
            let mut entry = found.value;
            let left = entry.uses_left.and_then(|left| left.checked_sub(1)).ok_or_else(spent)?;
            if !entry.is_live(now) {
                return Err(spent());
            }
            entry.uses_left = Some(left);
            match self.replace(hash, &entry, found.rev).await {
                Ok(()) => return Ok(if left == 0 { Use::Last } else { Use::More }),
                Err(CoreError::Storage(StorageError::Conflict)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StorageError::Busy.into())
    }

    fn counter(&self, hash: &str) -> Option<&Mutex<()>> {
        let index = hash.get(..2).and_then(|head| usize::from_str_radix(head, 16).ok());
        self.counters.get(index.unwrap_or(0) % COUNTERS)
    }

    async fn hash_of(&self, accessor: &str) -> Result<Option<String>, CoreError> {
        if accessor.is_empty() || accessor.contains('/') {
            return Ok(None);
        }
        let pointer = self.accessor_view().get::<Pointer>(accessor).await?;
        Ok(pointer.map(|pointer| pointer.value.hash))
    }

    /// The token stored under `hash`, dead or alive.
    async fn stored(&self, hash: &str) -> Result<Option<Arc<TokenLookup>>, CoreError> {
        let Some(record) = self.view().get_record(hash).await? else {
            // Removed, perhaps by another node.
            self.parsed.remove(hash);
            return Ok(None);
        };
        // The record cache decides what is current: a parsed entry counts only while it was parsed
        // from the very body that is cached.
        if let Some((body, parsed)) = self.parsed.get(hash)
            && std::ptr::eq(body.as_ptr(), Arc::as_ptr(&record.body))
        {
            return Ok(Some(parsed));
        }
        let Some(known) = TokenHash::from_hex(hash) else { return Ok(None) };
        let found = Arc::new(TokenLookup {
            hash: Some(known),
            rev: record.rev,
            entry: record.decode()?,
            key: hash.to_owned(),
        });
        self.parsed.insert(hash.to_owned(), (Arc::downgrade(&record.body), found.clone()));
        Ok(Some(found))
    }

    fn open_batch(&self, plain: &str, sealed: &[u8]) -> Option<TokenLookup> {
        let facts = self.batch_key.open(sealed).ok()?;
        let entry: TokenEntry = serde_json::from_slice(facts.expose()).ok()?;
        let key = self.hash_key.hash(plain).to_hex();
        Some(TokenLookup { hash: None, rev: 0, entry, key })
    }

    async fn if_live(
        &self,
        found: Arc<TokenLookup>,
    ) -> Result<Option<Arc<TokenLookup>>, CoreError> {
        let now = self.clock.now();
        let live = found.entry.is_live(now) && self.ancestors_live(&found.entry, now).await?;
        Ok(live.then_some(found))
    }

    async fn ancestors_live(&self, entry: &TokenEntry, now: Timestamp) -> Result<bool, CoreError> {
        let Some(mut hash) = entry.parent.clone() else { return Ok(true) };
        for _ in 0..TOKEN_DEPTH_MAX {
            let Some(ancestor) = self.stored(&hash).await? else { return Ok(false) };
            if !ancestor.entry.is_live(now) {
                return Ok(false);
            }
            match &ancestor.entry.parent {
                Some(next) => hash = next.clone(),
                None => return Ok(true),
            }
        }
        Ok(false)
    }

    /// Rewrites a token that was read at `rev`.
    async fn replace(&self, hash: &str, entry: &TokenEntry, rev: u64) -> Result<(), CoreError> {
        let mut batch = Batch::new();
        self.put(&mut batch, hash, entry, Precondition::Rev(rev))?;
        self.view().commit(&batch).await
    }

    fn put(
        &self,
        batch: &mut Batch,
        hash: &str,
        entry: &TokenEntry,
        precondition: Precondition,
    ) -> Result<(), CoreError> {
        let options = PutOptions { due_at: self.due_at(entry), labels: entry.labels() };
        self.view().put(batch, hash, entry, precondition, options)
    }

    /// When the sweep has to look at a token.
    fn due_at(&self, entry: &TokenEntry) -> Option<Timestamp> {
        let now = self.clock.now();
        if entry.revoking {
            Some(now.plus(REVOKING_GRACE))
        } else if entry.uses_left == Some(0) {
            let grace = now.plus(LAST_USE_GRACE);
            Some(entry.expires_at.map_or(grace, |end| end.min(grace)))
        } else {
            entry.expires_at
        }
    }

    fn view(&self) -> View {
        View::new(self.records.clone(), NamespaceId::ROOT, kinds::TOKEN, String::new())
    }

    fn accessor_view(&self) -> View {
        View::new(self.records.clone(), NamespaceId::ROOT, kinds::ACCESSOR, String::new())
    }
}

#[cfg(test)]
mod tests;
