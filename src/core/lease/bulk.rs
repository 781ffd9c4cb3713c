//! Many leases at once: by owner, role, mount, path or token. A bulk revocation marks its leases and
//! leaves the rest to the sweep, so that it survives a crash and runs in parallel.

use serde::{Deserialize, Serialize};

use crate::crypto::blind::Tag;
use crate::storage::StorageError;
use crate::types::id::{EntityId, LeaseId, MountAccessor, NamespaceId, random_uuid};
use crate::types::time::Timestamp;

use super::super::error::CoreError;
use super::super::records::{Batch, Precondition, Record, kinds};
use super::super::view::{Entry, View};
use super::{Lease, LeaseState, Leases, Owner, decode, mount_label, operation_label, role_label};

/// Leases marked in one commit.
const MARKED_AT_ONCE: usize = 500;
/// Most failures listed with an operation.
const FAILURES_LISTED_MAX: usize = 100;

/// Which leases are meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selector {
    /// Those of an identity.
    Entity(EntityId),
    /// Those of a mount.
    Mount(MountAccessor),
    /// Those of a bulk operation.
    Operation(String),
    /// Those whose revocation has failed.
    Overdue,
    /// Those whose id begins with this; empty, or ending in a slash.
    Prefix(String),
    /// Those of a role of a mount.
    Role(MountAccessor, String),
    /// Those that belong to a token (by its hash).
    Token(String),
}

impl Selector {
    pub(super) fn label(&self) -> Option<String> {
        match self {
            Self::Entity(id) => Some(Owner::Entity(id.clone()).label()),
            Self::Mount(accessor) => Some(mount_label(accessor)),
            Self::Operation(id) => Some(operation_label(id)),
            Self::Overdue => Some(super::OVERDUE.to_owned()),
            Self::Prefix(_) => None,
            Self::Role(accessor, role) => Some(role_label(accessor, role)),
            Self::Token(hash) => Some(Owner::Token(hash.clone()).label()),
        }
    }

    pub(super) fn prefix(&self) -> &str {
        match self {
            Self::Prefix(prefix) => prefix,
            Self::Entity(_)
            | Self::Mount(_)
            | Self::Operation(_)
            | Self::Overdue
            | Self::Role(..)
            | Self::Token(_) => "",
        }
    }
}

/// A bulk revocation, as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Operation {
    selector: Selector,
    started_at: Timestamp,
    total: u64,
    /// Whether every lease it means has been marked.
    marked: bool,
}

/// How far a bulk revocation is.
#[derive(Clone, Debug, Serialize)]
pub struct BulkProgress {
    /// Its id.
    pub id: String,
    /// How many leases it took on.
    pub total: u64,
    /// How many of them are not dead yet.
    pub pending: u64,
    /// Whether all of them are dead.
    pub complete: bool,
    /// Those whose revocation failed so far, with the last error; they are tried again.
    pub failures: Vec<BulkFailure>,
}

/// A lease that a bulk revocation could not yet revoke.
#[derive(Clone, Debug, Serialize)]
pub struct BulkFailure {
    /// Which.
    pub lease_id: LeaseId,
    /// Tries so far.
    pub attempts: u32,
    /// What the last one said.
    pub error: String,
}

impl Leases {
    fn operations(&self) -> View {
        View::new(self.records.clone(), NamespaceId::ROOT, kinds::OPERATION, String::new())
    }

    /// All leases that `selector` means, to be taken page by page.
    pub(super) fn walk(&self, selector: &Selector) -> Walk<'_> {
        Walk {
            leases: self,
            label: selector.label(),
            dirs: vec![selector.prefix().to_owned()],
            after: None,
        }
    }

    /// The ids that a bulk revocation would take on: a dry run.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn selected(
        &self,
        selector: &Selector,
        listed_max: usize,
    ) -> Result<(u64, Vec<LeaseId>), CoreError> {
        let mut total = 0;
        let mut ids = Vec::new();
        let mut walk = self.walk(selector);
        while let Some(entries) = walk.next_page().await? {
            total += entries.len() as u64;
            let room = listed_max.saturating_sub(ids.len());
            ids.extend(entries.into_iter().take(room).map(|entry| entry.value.id));
        }
        Ok((total, ids))
    }

    /// Takes on the revocation of all leases that `selector` means, and returns the operation's id.
    ///
    /// # Errors
    /// `Held` while a hold is in force; otherwise when the store fails. Begun operations are taken up
    /// again by [`Leases::resume_operations`].
    pub async fn revoke_all(&self, selector: Selector) -> Result<String, CoreError> {
        self.refuse_held()?;
        let id = random_uuid()?;
        let operation =
            Operation { selector, started_at: self.clock.now(), total: 0, marked: false };
        self.operations().write(&id, &operation, Precondition::Absent).await?;
        self.mark(&id, operation).await?;
        Ok(id)
    }

    async fn mark(&self, id: &str, mut operation: Operation) -> Result<(), CoreError> {
        let now = self.clock.now();
        let mut total = 0;
        let mut walk = self.walk(&operation.selector);
        while let Some(entries) = walk.next_page().await? {
            total += entries.len() as u64;
            self.mark_page(Some(id), entries, now).await?;
        }
        operation.total = total.max(operation.total);
        operation.marked = true;
        self.operations().write(id, &operation, Precondition::Any).await?;
        self.wake_sweep();
        Ok(())
    }

    /// Gives the leases that belong to a token to the sweep: the token is gone. Durable when it returns.
    ///
    /// # Errors
    /// When the store fails; call again.
    pub async fn end_with_token(&self, hash: &str) -> Result<(), CoreError> {
        let now = self.clock.now();
        let mut found = false;
        let mut walk = self.walk(&Selector::Token(hash.to_owned()));
        while let Some(entries) = walk.next_page().await? {
            found |= !entries.is_empty();
            self.mark_page(None, entries, now).await?;
        }
        if found {
            self.wake_sweep();
        }
        Ok(())
    }

    async fn mark_page(
        &self,
        id: Option<&str>,
        entries: Vec<Entry<Lease>>,
        now: Timestamp,
    ) -> Result<(), CoreError> {
        let mut batch = Batch::new();
        let entries: Vec<_> =
            entries.into_iter().map(|entry| (marked(id, entry.value), entry.rev)).collect();
        for (lease, rev) in &entries {
            self.put(&mut batch, lease, Precondition::Rev(*rev), now)?;
        }
        match self.view().commit(&batch).await {
            Err(CoreError::Storage(StorageError::Conflict)) => {
                // One of them changed meanwhile: each for itself.
                for (lease, _) in &entries {
                    self.mark_one(id, &lease.id, now).await?;
                }
                Ok(())
            }
            other => other,
        }
    }

    async fn mark_one(
        &self,
        id: Option<&str>,
        lease: &LeaseId,
        now: Timestamp,
    ) -> Result<(), CoreError> {
        loop {
            let Some(entry) = self.view().get_fresh::<Lease>(lease.as_str()).await? else {
                return Ok(());
            };
            let mut batch = Batch::new();
            self.put(&mut batch, &marked(id, entry.value), Precondition::Rev(entry.rev), now)?;
            match self.view().commit(&batch).await {
                Err(CoreError::Storage(StorageError::Conflict)) => {}
                other => return other,
            }
        }
    }

    /// Takes up the bulk revocations that a crash broke off. After unseal.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn resume_operations(&self) -> Result<(), CoreError> {
        if self.hold().is_some() {
            return Ok(());
        }
        for (id, entry) in self.operations().entries::<Operation>("").await? {
            if !entry.value.marked {
                self.mark(&id, entry.value).await?;
            }
        }
        Ok(())
    }

    /// How far a bulk revocation is; `None` when there is none with that id.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn progress(&self, id: &str) -> Result<Option<BulkProgress>, CoreError> {
        if id.is_empty() || id.contains('/') {
            return Ok(None);
        }
        let Some(entry) = self.operations().get::<Operation>(id).await? else { return Ok(None) };
        let mut pending = 0;
        let mut failures = Vec::new();
        let mut walk = self.walk(&Selector::Operation(id.to_owned()));
        while let Some(entries) = walk.next_page().await? {
            pending += entries.len() as u64;
            for lease in entries.into_iter().map(|entry| entry.value) {
                if let Some(error) = lease.last_error
                    && failures.len() < FAILURES_LISTED_MAX
                {
                    failures.push(BulkFailure {
                        lease_id: lease.id,
                        attempts: lease.attempts,
                        error,
                    });
                }
            }
        }
        Ok(Some(BulkProgress {
            id: id.to_owned(),
            total: entry.value.total,
            pending,
            complete: entry.value.marked && pending == 0,
            failures,
        }))
    }

    /// Removes the records of bulk revocations that ended before `before`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tidy_operations(&self, before: Timestamp) -> Result<usize, CoreError> {
        let mut removed = 0;
        for (id, entry) in self.operations().entries::<Operation>("").await? {
            let over = self.progress(&id).await?.is_some_and(|progress| progress.complete);
            if over && entry.value.started_at < before {
                self.operations().remove(&id).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// A walk over leases.
pub(super) struct Walk<'a> {
    leases: &'a Leases,
    label: Option<String>,
    dirs: Vec<String>,
    after: Option<Tag>,
}

impl Walk<'_> {
    /// The next page, which may be empty; `None` at the end.
    pub(super) async fn next_page(&mut self) -> Result<Option<Vec<Entry<Lease>>>, CoreError> {
        let Some(dir) = self.dirs.last().cloned() else { return Ok(None) };
        let records = &self.leases.records;
        let (found, next) = match &self.label {
            Some(label) => {
                records
                    .labelled(NamespaceId::ROOT, kinds::LEASE, label, self.after, MARKED_AT_ONCE)
                    .await?
            }
            None => {
                records
                    .page(NamespaceId::ROOT, kinds::LEASE, &dir, self.after, MARKED_AT_ONCE)
                    .await?
            }
        };
        self.after = next;
        if next.is_none() {
            self.dirs.pop();
        }
        let below = found.iter().filter(|record| record.is_dir()).map(dir_name);
        // Below the directory in hand, so that its own pages are finished first.
        let at = self.dirs.len().saturating_sub(usize::from(next.is_some()));
        self.dirs.splice(at..at, below);
        decode(&found).map(Some)
    }
}

fn marked(operation: Option<&str>, lease: Lease) -> Lease {
    let operation = operation.map(str::to_owned).or(lease.operation);
    Lease { state: LeaseState::Revoking, operation, ..lease }
}

fn dir_name(record: &Record) -> String {
    record.name.to_string()
}
