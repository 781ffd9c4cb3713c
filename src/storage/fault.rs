//! A store that fails when it is told to. For tests: no build without the feature `failpoints` has it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::{
    Change, Committed, Invalidation, Kind, KindCount, Page, Row, RowKey, Storage, StorageError,
};
use crate::crypto::blind::Tag;
use crate::crypto::envelope::SealedRecord;
use crate::types::id::NamespaceId;
use crate::types::time::Timestamp;

/// Which operations fail. They are counted from 1, from the moment the fault is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// None.
    Nothing,
    /// This one alone.
    Only(u64),
    /// This one and all later ones.
    From(u64),
}

impl Reach {
    fn contains(self, number: u64) -> bool {
        match self {
            Self::Nothing => false,
            Self::Only(failing) => number == failing,
            Self::From(first) => number >= first,
        }
    }
}

/// When a write fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before it is done: nothing has happened.
    Before,
    /// After it is done, as when the connection is lost before the answer: it has happened, and the
    /// caller cannot know.
    After,
}

/// Passes everything on to another store, but for what it was told to fail with
/// [`StorageError::Unavailable`].
pub struct FaultyStorage {
    inner: Arc<dyn Storage>,
    writes: AtomicU64,
    reads: AtomicU64,
    plan: Mutex<Plan>,
}

#[derive(Clone, Copy)]
struct Plan {
    writes: Reach,
    moment: Moment,
    reads: Reach,
}

impl FaultyStorage {
    /// Wraps `inner`; nothing fails yet.
    pub fn new(inner: Arc<dyn Storage>) -> Arc<Self> {
        let plan = Plan { writes: Reach::Nothing, moment: Moment::Before, reads: Reach::Nothing };
        Arc::new(Self {
            inner,
            writes: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            plan: Mutex::new(plan),
        })
    }

    /// Fails commits and reseals, and counts them from 1 again.
    pub fn fail_writes(&self, reach: Reach, moment: Moment) {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        (plan.writes, plan.moment) = (reach, moment);
        self.writes.store(0, Ordering::SeqCst);
    }

    /// Fails questions, claims among them, and counts them from 1 again.
    pub fn fail_reads(&self, reach: Reach) {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).reads = reach;
        self.reads.store(0, Ordering::SeqCst);
    }

    /// Commits and reseals asked for since the start or since [`FaultyStorage::fail_writes`].
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    /// Questions asked since the start or since [`FaultyStorage::fail_reads`].
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::SeqCst)
    }

    fn reading(&self) -> Result<&Arc<dyn Storage>, StorageError> {
        let plan = *self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.reads.fetch_add(1, Ordering::SeqCst) + 1;
        if plan.reads.contains(number) { Err(injected()) } else { Ok(&self.inner) }
    }

    async fn writing<T: Send>(
        &self,
        write: impl Future<Output = Result<T, StorageError>> + Send,
    ) -> Result<T, StorageError> {
        let plan = *self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
        match (plan.writes.contains(number), plan.moment) {
            (false, _) => write.await,
            (true, Moment::Before) => Err(injected()),
            // A write that is refused anyway is not done, and its refusal is an answer.
            (true, Moment::After) => write.await.and_then(|_| Err(injected())),
        }
    }
}

fn injected() -> StorageError {
    StorageError::Unavailable("an injected fault".into())
}

#[async_trait]
impl Storage for FaultyStorage {
    async fn get(&self, key: RowKey) -> Result<Option<Row>, StorageError> {
        self.reading()?.get(key).await
    }

    async fn list(
        &self,
        namespace: NamespaceId,
        kind: Kind,
        parent: Tag,
        after: Option<Tag>,
        limit: usize,
    ) -> Result<Page, StorageError> {
        self.reading()?.list(namespace, kind, parent, after, limit).await
    }

    async fn labelled(
        &self,
        namespace: NamespaceId,
        kind: Kind,
        label: Tag,
        after: Option<Tag>,
        limit: usize,
    ) -> Result<Page, StorageError> {
        self.reading()?.labelled(namespace, kind, label, after, limit).await
    }

    async fn count_labelled(
        &self,
        namespace: NamespaceId,
        kind: Kind,
        label: Tag,
        max: u64,
    ) -> Result<u64, StorageError> {
        self.reading()?.count_labelled(namespace, kind, label, max).await
    }

    async fn due(
        &self,
        kind: Kind,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        self.reading()?.due(kind, until, limit).await
    }

    async fn next_due(&self, kind: Kind) -> Result<Option<Timestamp>, StorageError> {
        self.reading()?.next_due(kind).await
    }

    async fn claim(
        &self,
        kind: Kind,
        now: Timestamp,
        node: u64,
        claim_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        self.reading()?.claim(kind, now, node, claim_until, limit).await
    }

    async fn count(&self, kind: Kind, until: Timestamp) -> Result<KindCount, StorageError> {
        self.reading()?.count(kind, until).await
    }

    async fn wrapped_below(
        &self,
        term: u32,
        after: Option<RowKey>,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        self.reading()?.wrapped_below(term, after, limit).await
    }

    async fn count_wrapped_below(&self, term: u32) -> Result<u64, StorageError> {
        self.reading()?.count_wrapped_below(term).await
    }

    async fn reseal(&self, rows: Vec<(RowKey, u64, SealedRecord)>) -> Result<(), StorageError> {
        self.writing(self.inner.reseal(rows)).await
    }

    async fn commit(&self, batch: Vec<Change>) -> Result<Committed, StorageError> {
        self.writing(self.inner.commit(batch)).await
    }

    async fn meta(&self, name: &'static str) -> Result<Option<Vec<u8>>, StorageError> {
        self.reading()?.meta(name).await
    }

    async fn sequence(&self) -> Result<u64, StorageError> {
        self.reading()?.sequence().await
    }

    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn invalidations(&self) -> broadcast::Receiver<Invalidation> {
        self.inner.invalidations()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
