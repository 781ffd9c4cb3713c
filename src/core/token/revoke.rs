//! Ending tokens: whole trees, single ones, and what has become due.
//!
//! The top of a tree is marked first, in one durable write; from then on nothing in the tree counts,
//! because every token counts only while its ancestors do. Rows then go leaves first, each after what
//! belonged to it has ended, and a row goes only while it has no children. A marked row is due soon, so
//! whatever an interruption leaves is found by the sweep.

use futures_util::StreamExt;
use futures_util::stream;

use crate::core::error::CoreError;
use crate::core::records::{Batch, Precondition, kinds};
use crate::storage::{Change, StorageError};
use crate::types::id::{Accessor, EntityId, MountAccessor, NamespaceId};
use crate::types::time::Ttl;

use super::entry::{TokenEntry, TokenKind, TokenLookup, parent_label};
use super::{ATTEMPTS, TokenStore};

/// Children looked at together.
const CHILDREN_PAGE: usize = 256;
/// Trees that one sweep ends at the same time.
const SWEEP_CONCURRENCY: usize = 16;
/// How long a node keeps a due token to itself.
const SWEEP_CLAIM: Ttl = Ttl::from_secs(30);
/// How often the removal of one row starts over because it got children meanwhile.
const REMOVALS_MAX: usize = 1024;

/// Which tokens.
#[derive(Clone, Debug)]
pub enum TokenSelector {
    /// Those of an identity.
    Entity(EntityId),
    /// Those that an auth mount logged in.
    Mount(MountAccessor),
}

impl TokenSelector {
    fn label(&self) -> String {
        match self {
            Self::Entity(id) => format!("entity:{id}"),
            Self::Mount(mount) => format!("mount:{mount}"),
        }
    }
}

/// What one sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenSweep {
    /// Trees ended.
    pub ended: usize,
    /// Trees that could not be ended and are tried again later.
    pub failed: usize,
    /// Whether there may be more that is due.
    pub more: bool,
}

enum Removal {
    Done,
    HasChildren,
}

impl TokenStore {
    /// Ends a token and all its descendants. They are dead when this returns, and also when it fails
    /// after the first write; the sweep then does the rest.
    ///
    /// # Errors
    /// When the store fails, or what belongs to one of the tokens could not be ended.
    pub async fn revoke_tree(&self, hash: &str) -> Result<(), CoreError> {
        if self.mark(hash).await? { self.remove_tree(hash).await } else { Ok(()) }
    }

    /// Ends the token with that accessor, and its descendants. False when there is none.
    ///
    /// # Errors
    /// As [`TokenStore::revoke_tree`].
    pub async fn revoke_by_accessor(&self, accessor: &Accessor) -> Result<bool, CoreError> {
        let Some(hash) = self.hash_of(accessor.as_str()).await? else { return Ok(false) };
        self.revoke_tree(&hash).await?;
        Ok(true)
    }

    /// Ends a token that was looked up, and its descendants.
    ///
    /// # Errors
    /// `Invalid` for a batch token; as [`TokenStore::revoke_tree`].
    pub async fn revoke(&self, token: &TokenLookup) -> Result<(), CoreError> {
        match (token.entry.token_type, token.stored_name()) {
            (TokenKind::Service, Some(hash)) => self.revoke_tree(hash).await,
            (TokenKind::Batch, _) | (TokenKind::Service, None) => {
                Err(CoreError::invalid("batch tokens cannot be revoked"))
            }
        }
    }

    /// Ends a token alone; its children become orphans and live on.
    ///
    /// # Errors
    /// As [`TokenStore::revoke_tree`].
    pub async fn revoke_orphan(&self, hash: &str) -> Result<(), CoreError> {
        loop {
            let children = self.children(hash).await?;
            if children.is_empty() {
                return self.revoke_tree(hash).await;
            }
            for child in children {
                self.make_orphan(&child, hash).await?;
            }
        }
    }

    /// Ends all tokens that `selector` picks, with their descendants. Answers how many were picked.
    ///
    /// # Errors
    /// As [`TokenStore::revoke_tree`], at the first token that could not be ended.
    pub async fn revoke_all(&self, selector: &TokenSelector) -> Result<usize, CoreError> {
        let mut ended = 0;
        loop {
            let picked = self.labelled(&selector.label()).await?;
            if picked.is_empty() {
                return Ok(ended);
            }
            for hash in picked {
                self.revoke_tree(&hash).await?;
                ended += 1;
            }
        }
    }

    /// Ends up to `limit` tokens that have expired or were left half revoked, claimed for `node`.
    ///
    /// # Errors
    /// When the store fails. A single token that cannot be ended holds up no other.
    pub async fn sweep_due(&self, node: u64, limit: usize) -> Result<TokenSweep, CoreError> {
        let now = self.clock.now();
        let rows = self
            .records
            .storage()
            .claim(kinds::TOKEN, now, node, now.plus(SWEEP_CLAIM), limit)
            .await?;
        let more = rows.len() >= limit;
        let outcomes: Vec<bool> = stream::iter(rows)
            .map(|row| async move {
                let outcome = match self.records.open(&row) {
                    Ok(record) => self.end_due(&record.name).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = &outcome {
                    tracing::warn!(%error, "an expired token could not be ended yet");
                }
                outcome.is_ok()
            })
            .buffer_unordered(SWEEP_CONCURRENCY)
            .collect()
            .await;
        let ended = outcomes.iter().filter(|done| **done).count();
        Ok(TokenSweep { ended, failed: outcomes.len() - ended, more })
    }

    async fn end_due(&self, hash: &str) -> Result<(), CoreError> {
        let Some(found) = self.view().get_fresh::<TokenEntry>(hash).await? else { return Ok(()) };
        let now = self.clock.now();
        // A renewal may have come between. The row says itself when it is due next.
        if found.due_at.is_none_or(|due| now < due) {
            return Ok(());
        }
        self.revoke_tree(hash).await
    }

    /// Makes a token dead in one durable write. False when it is gone.
    async fn mark(&self, hash: &str) -> Result<bool, CoreError> {
        for _ in 0..ATTEMPTS {
            let Some(found) = self.view().get_fresh::<TokenEntry>(hash).await? else {
                return Ok(false);
            };
            let mut entry = found.value;
            if entry.revoking {
                return Ok(true);
            }
            entry.revoking = true;
            match self.replace(hash, &entry, found.rev).await {
                Ok(()) => return Ok(true),
                Err(CoreError::Storage(StorageError::Conflict)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StorageError::Busy.into())
    }

    /// Removes a marked token and its descendants, leaves first.
    async fn remove_tree(&self, top: &str) -> Result<(), CoreError> {
        let mut pending = vec![top.to_owned()];
        let mut restarts = 0;
        while let Some(hash) = pending.last().cloned() {
            let children = self.children(&hash).await?;
            if !children.is_empty() {
                pending.extend(children);
                continue;
            }
            match self.remove(&hash).await? {
                Removal::Done => {
                    pending.pop();
                }
                Removal::HasChildren => {
                    restarts += 1;
                    if restarts > REMOVALS_MAX {
                        return Err(StorageError::Busy.into());
                    }
                }
            }
        }
        Ok(())
    }

    /// Ends what belongs to a token, then removes its row, unless it has children.
    async fn remove(&self, hash: &str) -> Result<Removal, CoreError> {
        let Some(found) = self.view().get_fresh::<TokenEntry>(hash).await? else {
            return Ok(Removal::Done);
        };
        let gone = self
            .gone
            .get()
            .ok_or_else(|| CoreError::internal("nobody said what ends with a token"))?;
        gone.token_gone(hash, &found.value).await?;
        let mut batch = Batch::new();
        self.view().delete(&mut batch, hash, Precondition::Rev(found.rev));
        if let Some(accessor) = &found.value.accessor {
            self.accessor_view().delete(&mut batch, accessor.as_str(), Precondition::Any);
        }
        batch.also(Change::RequireFewer {
            namespace: NamespaceId::ROOT,
            kind: kinds::TOKEN,
            label: self.records.label_tag(NamespaceId::ROOT, kinds::TOKEN, &parent_label(hash)),
            max: 1,
        });
        match self.view().commit(&batch).await {
            Ok(()) => {
                self.parsed.remove(hash);
                Ok(Removal::Done)
            }
            // A child was made, or the row changed, after we looked.
            Err(CoreError::Storage(StorageError::Limit | StorageError::Conflict)) => {
                Ok(Removal::HasChildren)
            }
            Err(error) => Err(error),
        }
    }

    async fn make_orphan(&self, hash: &str, parent: &str) -> Result<(), CoreError> {
        for _ in 0..ATTEMPTS {
            let Some(found) = self.view().get_fresh::<TokenEntry>(hash).await? else {
                return Ok(());
            };
            let mut entry = found.value;
            if entry.parent.as_deref() != Some(parent) {
                return Ok(());
            }
            entry.parent = None;
            match self.replace(hash, &entry, found.rev).await {
                Ok(()) => return Ok(()),
                Err(CoreError::Storage(StorageError::Conflict)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StorageError::Busy.into())
    }

    async fn children(&self, hash: &str) -> Result<Vec<String>, CoreError> {
        self.labelled(&parent_label(hash)).await
    }

    /// The first page of tokens with `label`.
    async fn labelled(&self, label: &str) -> Result<Vec<String>, CoreError> {
        let (records, _) = self
            .records
            .labelled(NamespaceId::ROOT, kinds::TOKEN, label, None, CHILDREN_PAGE)
            .await?;
        Ok(records.iter().map(|record| record.name.to_string()).collect())
    }
}
