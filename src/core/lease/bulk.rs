//! Many leases at once: by owner, role, mount, path or token. A bulk revocation marks its leases and
//! leaves the rest to the sweep, so that it survives a crash and runs in parallel.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::crypto::blind::Tag;
use crate::storage::StorageError;
use crate::types::id::{EntityId, LeaseId, MountAccessor, NamespaceId, random_uuid};
use crate::types::time::Timestamp;

use super::super::error::CoreError;
use super::super::failpoint::fail_point;
use super::super::records::{Batch, Precondition, Record, kinds};
use super::super::view::{Entry, PutOptions, View};
use super::abandon::GivenUp;
use super::{
    COUNT_MAX, Lease, LeaseState, Leases, Owner, decode, failed_label, mount_label,
    operation_label, role_label,
};

/// Leases marked in one commit.
const MARKED_AT_ONCE: usize = 500;
/// Bulk revocations that one lease can be part of; beyond that the oldest is forgotten.
const OPERATIONS_MAX: usize = 8;
/// Bulk revocations looked at together when old ones are removed.
const TIDIED_AT_ONCE: usize = 128;
/// Most failures listed with an operation.
const FAILURES_LISTED_MAX: usize = 100;

/// Which leases are meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selector {
    /// Those of an identity: of an entity, and of those that were merged into it.
    Entities(Vec<EntityId>),
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
    /// The labels that pick them, of which no lease has two; none where the prefix does.
    pub(super) fn labels(&self) -> Vec<String> {
        match self {
            Self::Entities(ids) => {
                let ids: BTreeSet<_> = ids.iter().collect();
                ids.into_iter().map(|id| Owner::Entity(id.clone()).label()).collect()
            }
            Self::Mount(accessor) => vec![mount_label(accessor)],
            Self::Operation(id) => vec![operation_label(id)],
            Self::Overdue => vec![super::OVERDUE.to_owned()],
            Self::Prefix(_) => Vec::new(),
            Self::Role(accessor, role) => vec![role_label(accessor, role)],
            Self::Token(hash) => vec![Owner::Token(hash.clone()).label()],
        }
    }

    /// Where a walk over them goes, the last place first.
    fn places(&self) -> Vec<Place> {
        match self {
            Self::Prefix(prefix) => vec![Place::Dir(prefix.clone())],
            Self::Entities(_)
            | Self::Mount(_)
            | Self::Operation(_)
            | Self::Overdue
            | Self::Role(..)
            | Self::Token(_) => self.labels().into_iter().map(Place::Label).collect(),
        }
    }
}

/// A bulk revocation, as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Operation {
    selector: Selector,
    started_at: Timestamp,
    total: u64,
    /// Whether every lease it means has been marked.
    marked: bool,
    /// The decision to forget what its target does not revoke.
    #[serde(default)]
    given_up: Option<GivenUp>,
    /// How many of its leases were forgotten without being revoked.
    #[serde(default)]
    pub(super) abandoned: u64,
    /// The first of those.
    #[serde(default)]
    pub(super) may_live: Vec<LeaseId>,
}

/// A bulk revocation that was decided on.
#[must_use = "what was decided has to be carried out once it is committed"]
pub struct Decided {
    id: String,
    operation: Operation,
}

/// How far a bulk revocation is.
#[derive(Clone, Debug, Serialize)]
pub struct BulkProgress {
    /// Its id.
    pub id: String,
    /// How many leases it took on.
    pub total: u64,
    /// How many of them are neither dead nor given up yet.
    pub pending: u64,
    /// Whether none of them is pending.
    pub complete: bool,
    /// How many were forgotten although their credentials may live.
    pub abandoned: u64,
    /// Which; of very many the first.
    pub may_live: Vec<LeaseId>,
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
    pub(super) fn operations(&self) -> View {
        View::new(self.records.clone(), NamespaceId::ROOT, kinds::OPERATION, String::new())
    }

    /// All leases that `selector` means, to be taken page by page.
    pub(super) fn walk(&self, selector: &Selector) -> Walk<'_> {
        Walk { leases: self, places: selector.places(), after: None }
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
        self.take_on(selector, None).await
    }

    /// As [`Leases::revoke_all`], but a lease whose target does not revoke it, or is known to be down,
    /// is forgotten, each on record. What is still being created is waited for.
    ///
    /// # Errors
    /// As [`Leases::revoke_all`].
    pub async fn abandon_all(
        &self,
        selector: Selector,
        decision: GivenUp,
    ) -> Result<String, CoreError> {
        self.take_on(selector, Some(decision)).await
    }

    async fn take_on(
        &self,
        selector: Selector,
        given_up: Option<GivenUp>,
    ) -> Result<String, CoreError> {
        let mut batch = Batch::new();
        let decided = self.decide(&mut batch, selector, given_up)?;
        self.operations().commit(&batch).await?;
        self.carry_out(decided).await
    }

    /// Adds the decision to revoke all leases that `selector` means to `batch`. Once that is
    /// committed they are revoked, by [`Leases::carry_out`] or else after the next unseal.
    ///
    /// # Errors
    /// `Held` while a hold is in force.
    pub fn decide_on(&self, batch: &mut Batch, selector: Selector) -> Result<Decided, CoreError> {
        self.decide(batch, selector, None)
    }

    fn decide(
        &self,
        batch: &mut Batch,
        selector: Selector,
        given_up: Option<GivenUp>,
    ) -> Result<Decided, CoreError> {
        let _unheld = self.unheld()?;
        let id = random_uuid()?;
        let operation = Operation {
            selector,
            started_at: self.clock.now(),
            total: 0,
            marked: false,
            given_up,
            abandoned: 0,
            may_live: Vec::new(),
        };
        let (absent, options) = (Precondition::Absent, PutOptions::default());
        self.operations().put(batch, &id, &operation, absent, options)?;
        Ok(Decided { id, operation })
    }

    /// Takes on a revocation whose decision was committed. Answers its id.
    ///
    /// # Errors
    /// When the store fails; it is taken up again by [`Leases::resume_operations`].
    pub async fn carry_out(&self, decided: Decided) -> Result<String, CoreError> {
        fail_point("bulk.begun");
        let Decided { id, operation } = decided;
        self.mark(&id, operation).await?;
        Ok(id)
    }

    async fn mark(&self, id: &str, operation: Operation) -> Result<(), CoreError> {
        let mut walk = self.walk(&operation.selector);
        while let Some(entries) = walk.next_page().await? {
            let given_up = operation.given_up.as_ref();
            self.mark_page(Mark { operation: Some(id), given_up }, entries).await?;
            fail_point("bulk.page");
        }
        self.finish_marking(id).await?;
        self.wake_sweep();
        Ok(())
    }

    async fn finish_marking(&self, id: &str) -> Result<(), CoreError> {
        loop {
            let Some(entry) = self.operations().get_fresh::<Operation>(id).await? else {
                return Ok(());
            };
            let operation = Operation { marked: true, ..entry.value };
            match self.operations().write(id, &operation, Precondition::Rev(entry.rev)).await {
                Err(CoreError::Storage(StorageError::Conflict)) => {}
                other => return other,
            }
        }
    }

    /// Gives the leases that belong to a token to the sweep: the token is gone. Durable when it returns.
    ///
    /// # Errors
    /// When the store fails; call again.
    pub async fn end_with_token(&self, hash: &str) -> Result<(), CoreError> {
        let mut found = false;
        let mut walk = self.walk(&Selector::Token(hash.to_owned()));
        while let Some(entries) = walk.next_page().await? {
            found |= !entries.is_empty();
            self.mark_page(Mark { operation: None, given_up: None }, entries).await?;
        }
        if found {
            self.wake_sweep();
        }
        Ok(())
    }

    /// Marks the leases of a page in one commit, which also counts them.
    async fn mark_page(&self, mark: Mark<'_>, entries: Vec<Entry<Lease>>) -> Result<(), CoreError> {
        let entries: Vec<_> =
            entries.into_iter().filter(|entry| !mark.is_on(&entry.value)).collect();
        match self.commit_marks(mark, &entries).await {
            Err(CoreError::Storage(StorageError::Conflict)) => {}
            other => return other,
        }
        // One of them changed meanwhile: each for itself.
        for entry in entries {
            let name = entry.value.id.as_str();
            loop {
                let Some(fresh) = self.view().get_fresh::<Lease>(name).await? else { break };
                if mark.is_on(&fresh.value) {
                    break;
                }
                match self.commit_marks(mark, &[fresh]).await {
                    Err(CoreError::Storage(StorageError::Conflict)) => {}
                    other => {
                        other?;
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    async fn commit_marks(
        &self,
        mark: Mark<'_>,
        entries: &[Entry<Lease>],
    ) -> Result<(), CoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        let mut batch = Batch::new();
        for entry in entries {
            let lease = mark.put_on(entry.value.clone());
            let due_at = lease.settles_at.unwrap_or(now);
            self.put(&mut batch, &lease, Precondition::Rev(entry.rev), due_at)?;
        }
        let Some(id) = mark.operation else { return self.view().commit(&batch).await };
        let found = self.operations().get_fresh::<Operation>(id).await?;
        let entry = found.ok_or_else(|| CoreError::internal("a bulk revocation has no record"))?;
        let total = entry.value.total.saturating_add(entries.len() as u64);
        let operation = Operation { total, ..entry.value };
        let expected = Precondition::Rev(entry.rev);
        self.operations().put(&mut batch, id, &operation, expected, PutOptions::default())?;
        self.view().commit(&batch).await
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
        let tag = |label: &str| self.records.label_tag(NamespaceId::ROOT, kinds::LEASE, label);
        let storage = self.records.storage();
        let pending = storage
            .count_labelled(NamespaceId::ROOT, kinds::LEASE, tag(&operation_label(id)), COUNT_MAX)
            .await?;
        let (failed, _) = self
            .records
            .labelled(NamespaceId::ROOT, kinds::LEASE, &failed_label(id), None, FAILURES_LISTED_MAX)
            .await?;
        let failures = decode(&failed)?
            .into_iter()
            .map(|Entry { value: lease, .. }| BulkFailure {
                lease_id: lease.id,
                attempts: lease.attempts,
                error: lease.last_error.unwrap_or_default(),
            })
            .collect();
        Ok(Some(BulkProgress {
            id: id.to_owned(),
            total: entry.value.total,
            pending,
            complete: entry.value.marked && pending == 0,
            abandoned: entry.value.abandoned,
            may_live: entry.value.may_live,
            failures,
        }))
    }

    /// Removes the records of bulk revocations that are complete and began before `before`, page by
    /// page. Answers how many.
    ///
    /// # Errors
    /// When the store fails; what was removed by then stays removed.
    pub async fn tidy_operations(&self, before: Timestamp) -> Result<usize, CoreError> {
        let (mut removed, mut after) = (0, None);
        loop {
            let (records, next) = self
                .records
                .page(NamespaceId::ROOT, kinds::OPERATION, "", after, TIDIED_AT_ONCE)
                .await?;
            let mut batch = Batch::new();
            for record in &records {
                let operation: Operation = record.decode()?;
                if operation.started_at < before && operation.marked && self.is_over(record).await?
                {
                    let precondition = Precondition::Rev(record.rev);
                    self.operations().delete(&mut batch, &record.name, precondition);
                }
            }
            removed += batch.len();
            self.operations().commit(&batch).await?;
            after = next;
            if after.is_none() {
                return Ok(removed);
            }
        }
    }

    /// Whether no lease is left of a bulk revocation.
    async fn is_over(&self, operation: &Record) -> Result<bool, CoreError> {
        let label = operation_label(&operation.name);
        let tag = self.records.label_tag(NamespaceId::ROOT, kinds::LEASE, &label);
        let storage = self.records.storage();
        Ok(storage.count_labelled(NamespaceId::ROOT, kinds::LEASE, tag, 1).await? == 0)
    }
}

/// A walk over leases.
pub(super) struct Walk<'a> {
    leases: &'a Leases,
    places: Vec<Place>,
    after: Option<Tag>,
}

/// What a walk looks at page by page.
#[derive(Clone)]
enum Place {
    /// What is listed below this name.
    Dir(String),
    /// What carries this label.
    Label(String),
}

impl Walk<'_> {
    /// The next page, which may be empty; `None` at the end.
    pub(super) async fn next_page(&mut self) -> Result<Option<Vec<Entry<Lease>>>, CoreError> {
        let Some(place) = self.places.last().cloned() else { return Ok(None) };
        let records = &self.leases.records;
        let (found, next) = match &place {
            Place::Label(label) => {
                records
                    .labelled(NamespaceId::ROOT, kinds::LEASE, label, self.after, MARKED_AT_ONCE)
                    .await?
            }
            Place::Dir(dir) => {
                records
                    .page(NamespaceId::ROOT, kinds::LEASE, dir, self.after, MARKED_AT_ONCE)
                    .await?
            }
        };
        self.after = next;
        if next.is_none() {
            self.places.pop();
        }
        let below = found.iter().filter(|record| record.is_dir()).map(dir_name);
        // Below the directory in hand, so that its own pages are finished first.
        let at = self.places.len().saturating_sub(usize::from(next.is_some()));
        self.places.splice(at..at, below);
        decode(&found).map(Some)
    }
}

/// What is written on leases that are going to be revoked.
#[derive(Clone, Copy)]
struct Mark<'a> {
    operation: Option<&'a str>,
    given_up: Option<&'a GivenUp>,
}

impl Mark<'_> {
    /// Whether putting it on would change nothing.
    fn is_on(self, lease: &Lease) -> bool {
        lease.state == LeaseState::Revoking
            && self.operation.is_none_or(|id| lease.operations.iter().any(|known| known == id))
    }

    fn put_on(self, mut lease: Lease) -> Lease {
        lease.state = LeaseState::Revoking;
        if let Some(id) = self.operation {
            if lease.operations.len() >= OPERATIONS_MAX {
                lease.operations.remove(0);
            }
            lease.operations.push(id.to_owned());
        }
        lease.given_up = self.given_up.cloned().or(lease.given_up);
        lease
    }
}

fn dir_name(record: &Record) -> Place {
    Place::Dir(record.name.to_string())
}
