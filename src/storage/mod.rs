//! The store: untrusted and dumb. It sees blind tags, revisions, due times and sealed bytes.
//!
//! One shape for everything (see [`Row`]), one way to change it ([`Storage::commit`]), on SQLite and
//! on PostgreSQL alike. What the rows mean is the business of `core::records`.

#[cfg(feature = "failpoints")]
pub mod fault;
mod migrate;
pub mod open;
pub mod postgres;
mod row;
pub mod sqlite;
mod timing;

use async_trait::async_trait;

use crate::crypto::blind::Tag;
use crate::crypto::envelope::SealedRecord;
use crate::types::id::NamespaceId;
use crate::types::time::Timestamp;

/// Most rows in one page of any listing.
pub const PAGE_ROWS_MAX: usize = 1000;

/// What kind of record a row holds. Clear in the store; numbers are permanent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(pub u16);

/// Where a row lives: unique over the whole store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    /// Tenant.
    pub namespace: NamespaceId,
    /// Record kind.
    pub kind: Kind,
    /// Blind tag of the record's full name.
    pub name: Tag,
}

/// One stored record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where it lives.
    pub key: RowKey,
    /// Blind tag of what it is listed under.
    pub parent: Tag,
    /// Starts at 1 and grows by one with every change. Bound into the seal.
    pub rev: u64,
    /// When a reconciler has to look at it.
    pub due_at: Option<Timestamp>,
    /// Further blind tags it can be found by, without duplicates.
    pub labels: Vec<Tag>,
    /// The encrypted body.
    pub sealed: SealedRecord,
}

/// What a change expects to find. A change that finds something else is a [`StorageError::Conflict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No row with that key.
    Absent,
    /// A row at exactly this revision.
    Rev(u64),
}

/// One element of a batch. All of a batch happens, or none of it.
#[derive(Clone, Debug)]
pub enum Change {
    /// Inserts (`Expect::Absent`, `row.rev == 1`) or replaces (`Expect::Rev(n)`, `row.rev == n + 1`)
    /// the row. Replacing drops any claim on it.
    Put {
        /// The new row.
        row: Row,
        /// What must be there before.
        expect: Expect,
    },
    /// Removes the row.
    Delete {
        /// Which row.
        key: RowKey,
        /// The revision it must have.
        rev: u64,
    },
    /// Fails with a conflict unless the row exists; holds it against concurrent deletion until commit.
    RequireRow {
        /// Which row.
        key: RowKey,
    },
    /// Fails with a conflict if any row of `kind` lists `parent` as its parent, judged after the
    /// changes that precede it in the batch. Serialises with [`Change::RequireRow`] on `guard`, so that
    /// a directory is never removed while a child is being put under it.
    RequireChildless {
        /// The row (a directory) whose children are asked for.
        guard: RowKey,
        /// Kind of the children.
        kind: Kind,
        /// Parent tag of the children.
        parent: Tag,
    },
    /// Fails with [`StorageError::Limit`] unless fewer than `max` rows of `kind` carry `label`, judged
    /// after the changes that precede it in the batch: it belongs before the row that it makes room
    /// for. Exact among concurrent batches that all ask it.
    RequireFewer {
        /// Tenant.
        namespace: NamespaceId,
        /// Kind of the labelled rows.
        kind: Kind,
        /// The label.
        label: Tag,
        /// The number that may not be reached already.
        max: u64,
    },
    /// Writes a clear metadata value (the seal configuration, the schema's owner, …). `None` deletes.
    /// With `expect` set, the present value must equal it.
    PutMeta {
        /// Name of the value, a constant of the code.
        name: &'static str,
        /// The new value; nothing secret that is not sealed already.
        value: Option<Vec<u8>>,
        /// `Some(None)`: must be absent; `Some(Some(v))`: must equal `v`; `None`: do not care.
        expect: Option<Option<Vec<u8>>>,
    },
    /// Fails with a conflict if any row's data key is wrapped by a term below `term`; from then on a
    /// [`Change::Put`] of such a row is a conflict, and [`Storage::reseal`] with one too. Waits for
    /// batches under way on any node, so that none slips past the check: once this is committed, the
    /// keys of the terms below can be destroyed. The floor is kept as the metadata value
    /// [`TERM_FLOOR`], and never falls.
    RaiseTermFloor {
        /// The lowest term that may still wrap.
        term: u32,
    },
}

/// Name of the metadata value (four bytes, big-endian) below which no row may be wrapped.
pub const TERM_FLOOR: &str = "term_floor";

/// A committed batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// A number that never falls while the store goes forward, and is lower again in a store that was
    /// put back to an earlier state. The audit log witnesses it (promise P10).
    pub sequence: u64,
}

/// One page of rows in tag order, with the cursor that continues it.
#[derive(Debug, Default)]
pub struct Page {
    /// The rows.
    pub rows: Vec<Row>,
    /// Present when there may be more: pass as `after`.
    pub next: Option<Tag>,
}

/// Which rows changed: what other nodes' caches have to forget.
#[derive(Clone, Debug)]
pub enum Invalidation {
    /// These rows changed on another node.
    Rows(Vec<RowKey>),
    /// Contact was lost for a while; anything may have changed.
    Everything,
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A precondition of a batch did not hold; nothing was changed. Read again and retry.
    #[error("the record was changed by somebody else")]
    Conflict,
    /// A [`Change::RequireFewer`] did not hold; nothing was changed.
    #[error("the limit is reached")]
    Limit,
    /// Too much is queued; try again in a moment. Nothing was changed.
    #[error("the store is overloaded")]
    Busy,
    /// No space left, or the volume is read-only. Nothing was changed.
    #[error("the store cannot write: no space, or read-only")]
    Full(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store cannot be reached or answered with an error. A commit may or may not have happened.
    #[error("the store failed")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store holds something this build does not understand, or a damaged row.
    #[error("the store holds something unexpected: {0}")]
    Corrupt(String),
    /// Said while opening only: another server holds the store, or its address, directory or
    /// certificate authority is unusable. The text names what, and never holds a password.
    #[error("the store cannot be opened: {0}")]
    CannotOpen(String),
    /// The schema is newer than this build.
    #[error(
        "the store has schema version {found}, this build knows up to {known}; use a newer build"
    )]
    NewerSchema {
        /// Version found.
        found: u32,
        /// Newest version this build knows.
        known: u32,
    },
}

/// The operations on the store, and no others.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// One row.
    async fn get(&self, key: RowKey) -> Result<Option<Row>, StorageError>;

    /// Rows listed under `parent`, in tag order, after the cursor. `limit` is capped at [`PAGE_ROWS_MAX`].
    async fn list(
        &self,
        namespace: NamespaceId,
        kind: Kind,
        parent: Tag,
        after: Option<Tag>,
        limit: usize,
    ) -> Result<Page, StorageError>;

    /// Rows that carry `label`, in tag order, after the cursor.
    async fn labelled(
        &self,
        namespace: NamespaceId,
        kind: Kind,
        label: Tag,
        after: Option<Tag>,
        limit: usize,
    ) -> Result<Page, StorageError>;

    /// How many rows carry `label`, counting no further than `max`.
    async fn count_labelled(
        &self,
        namespace: NamespaceId,
        kind: Kind,
        label: Tag,
        max: u64,
    ) -> Result<u64, StorageError>;

    /// Rows of `kind` due at or before `until`, earliest first, claimed or not.
    async fn due(
        &self,
        kind: Kind,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError>;

    /// The earliest due time of `kind`, claimed or not.
    async fn next_due(&self, kind: Kind) -> Result<Option<Timestamp>, StorageError>;

    /// Claims rows of `kind` that are due at or before `now` and not claimed beyond `now`, for `node`
    /// until `claim_until`, earliest first. Two nodes never hold a claim on the same row at once. A
    /// claim changes no revision; a claim on a store that only one process can open ends with it.
    async fn claim(
        &self,
        kind: Kind,
        now: Timestamp,
        node: u64,
        claim_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError>;

    /// Counts rows of `kind` in all, and those due at or before `until`.
    async fn count(&self, kind: Kind, until: Timestamp) -> Result<KindCount, StorageError>;

    /// Rows of any kind whose data key is wrapped by a term below `term`, for re-wrapping, in key order
    /// after the cursor. `limit` is capped at [`PAGE_ROWS_MAX`], here and wherever there is one.
    async fn wrapped_below(
        &self,
        term: u32,
        after: Option<RowKey>,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError>;

    /// How many rows are wrapped by a term below `term`.
    async fn count_wrapped_below(&self, term: u32) -> Result<u64, StorageError>;

    /// Replaces the sealed bytes of rows whose revision is still the given one, leaving revision, due
    /// time, claim and labels as they are. Rows that changed meanwhile are skipped. For re-wrapping.
    async fn reseal(&self, rows: Vec<(RowKey, u64, SealedRecord)>) -> Result<(), StorageError>;

    /// Applies a batch in one durable transaction: when this returns, it survives power loss.
    async fn commit(&self, batch: Vec<Change>) -> Result<Committed, StorageError>;

    /// A clear metadata value.
    async fn meta(&self, name: &'static str) -> Result<Option<Vec<u8>>, StorageError>;

    /// The store's present [`Committed::sequence`].
    async fn sequence(&self) -> Result<u64, StorageError>;

    /// `sqlite` or `postgresql`, as `sys/seal-status` names it.
    fn name(&self) -> &'static str;

    /// Changes made by other nodes. A store with one node never sends. A receiver that fell behind
    /// (`RecvError::Lagged`) has to act as on [`Invalidation::Everything`].
    fn invalidations(&self) -> tokio::sync::broadcast::Receiver<Invalidation>;

    /// Finishes what is queued and closes.
    async fn close(&self);
}

/// What [`Storage::count`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindCount {
    /// All rows of the kind.
    pub total: u64,
    /// Those that are due.
    pub due: u64,
    /// The earliest due time.
    pub earliest: Option<Timestamp>,
}
