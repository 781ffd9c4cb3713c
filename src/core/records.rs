//! Sealed records with names, over the blind store: the one place that seals, opens, tags and caches.
//!
//! A record has a full name such as `<mount uuid>/team/app/password`. Its row is found by the tag of
//! that name and listed under the tag of its directory. Directories are rows too (their names end in
//! a slash), put with their first child and removed with their last in the same commit, so that LIST
//! needs neither clear names nor a scan.

mod pruning;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use crate::crypto::blind::{BlindKey, Purpose, Tag};
use crate::crypto::envelope::{self, RecordContext, SealedRecord};
use crate::crypto::keyring::Keyring;
use crate::storage::{
    Change, Committed, Expect, Invalidation, Kind, PAGE_ROWS_MAX, Row, RowKey, Storage,
    StorageError,
};
use crate::types::id::NamespaceId;
use crate::types::secret::SecretBytes;
use crate::types::time::Timestamp;

use super::cache::RecordCache;
use super::error::CoreError;
use super::failpoint::fail_point;
use super::outliving::seen_through;

/// How often a commit is tried again when only directories, not the caller's own expectations, were
/// changed by somebody else meanwhile.
const COMMIT_ATTEMPTS: usize = 24;

/// The kinds of records. Numbers are permanent: they are in every row and in every seal.
pub mod kinds {
    use crate::storage::Kind;

    /// The table of mounts.
    pub const MOUNTS: Kind = Kind(1);
    /// Policies by name.
    pub const POLICY: Kind = Kind(2);
    /// Service tokens by their hash.
    pub const TOKEN: Kind = Kind(3);
    /// Token hashes by accessor.
    pub const ACCESSOR: Kind = Kind(4);
    /// Token roles by name.
    pub const TOKEN_ROLE: Kind = Kind(5);
    /// Leases by id.
    pub const LEASE: Kind = Kind(6);
    /// Entities by id.
    pub const ENTITY: Kind = Kind(7);
    /// What leads to entities: by alias, and by the id of one that was merged away.
    pub const ALIAS: Kind = Kind(8);
    /// Whatever engines keep below their mounts.
    pub const MOUNT_DATA: Kind = Kind(9);
    /// Wrapped answers by wrapping token.
    pub const WRAPPED: Kind = Kind(10);
    /// Claims and last runs of scheduled jobs.
    pub const JOB: Kind = Kind(11);
    /// Settings and markers of the core: holds, audit heads.
    pub const CORE: Kind = Kind(12);
    /// Lease ids by idempotency key.
    pub const IDEMPOTENCY: Kind = Kind(13);
    /// Progress of bulk operations.
    pub const OPERATION: Kind = Kind(14);
    /// Whatever auth methods keep below their mounts.
    pub const AUTH_DATA: Kind = Kind(15);
    /// Password policies by name.
    pub const PASSWORD_POLICY: Kind = Kind(16);
    /// Quotas and their settings.
    pub const QUOTA: Kind = Kind(17);
    /// Groups of identities by id.
    pub const GROUP: Kind = Kind(18);
    /// What changes of groups are conditional upon.
    pub const GROUP_TURN: Kind = Kind(19);
    /// Second factors: methods, of whom they are demanded, shared secrets, log-ins that wait.
    pub const MFA: Kind = Kind(20);
    /// Settings of the server by name.
    pub const SETTING: Kind = Kind(21);
}

/// A record read back.
#[derive(Clone, Debug)]
pub struct Record {
    /// Full name.
    pub name: Arc<str>,
    /// Revision, for conditional changes.
    pub rev: u64,
    /// When it is due.
    pub due_at: Option<Timestamp>,
    /// The body.
    pub body: Arc<SecretBytes>,
}

impl Record {
    /// Parses the body.
    ///
    /// # Errors
    /// When the body is not what this build writes.
    pub fn decode<T: serde::de::DeserializeOwned>(&self) -> Result<T, CoreError> {
        serde_json::from_slice(self.body.expose())
            // The parser's message could quote the body.
            .map_err(|_| CoreError::internal("a stored record does not parse"))
    }

    /// Whether this is a directory, not a record of its own.
    pub fn is_dir(&self) -> bool {
        self.name.ends_with('/')
    }
}

/// What a change of a record expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Anything; the last writer wins.
    Any,
    /// Nothing there.
    Absent,
    /// Exactly this revision.
    Rev(u64),
}

/// Name of a record within the whole store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FullName {
    /// Tenant.
    pub namespace: NamespaceId,
    /// Kind.
    pub kind: Kind,
    /// Name; `a/b` is listed under `a/`.
    pub name: String,
}

/// The row of a caller's token, as engines see it: what is kept for the token goes with it, and must
/// not be written once it has gone.
#[derive(Clone, Copy, Debug)]
pub struct CallerRow(pub(in crate::core) RowKey);

enum Action {
    Put { body: SecretBytes, due_at: Option<Timestamp>, labels: Vec<String> },
    Delete,
}

struct Step {
    at: FullName,
    precondition: Precondition,
    action: Action,
}

/// Changes that happen together or not at all.
#[derive(Default)]
pub struct Batch {
    steps: Vec<Step>,
    further: Vec<Change>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.further.is_empty()
    }

    /// How many records it changes.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Writes a record.
    pub fn put(
        &mut self,
        at: FullName,
        precondition: Precondition,
        body: SecretBytes,
        due_at: Option<Timestamp>,
        labels: Vec<String>,
    ) {
        self.steps.push(Step { at, precondition, action: Action::Put { body, due_at, labels } });
    }

    /// Removes a record. With [`Precondition::Any`], one that is not there is no error.
    pub fn delete(&mut self, at: FullName, precondition: Precondition) {
        self.steps.push(Step { at, precondition, action: Action::Delete });
    }

    /// Lets it happen only while the caller's token is still there.
    pub fn only_for(&mut self, caller: CallerRow) {
        self.also(Change::RequireRow { key: caller.0 });
    }

    /// Adds a precondition or metadata change of the store itself.
    pub fn also(&mut self, change: Change) {
        self.further.push(change);
    }
}

/// Serialises a body for [`Batch::put`], wiping what serialising leaves behind.
///
/// # Errors
/// When the value has no JSON form (a map with keys that are not strings).
pub fn encode<T: serde::Serialize>(value: &T) -> Result<SecretBytes, CoreError> {
    serde_json::to_vec(value)
        .map(SecretBytes::new)
        .map_err(|_| CoreError::internal("a record could not be serialised"))
}

/// Where a newer keyring comes from, when another node has rotated.
#[async_trait]
pub trait KeyringSource: Send + Sync + 'static {
    /// Puts the stored keyring in force when it is newer than the one in use.
    ///
    /// # Errors
    /// When the store fails, or the server is being sealed.
    async fn renew(&self, records: &Records) -> Result<(), CoreError>;
}

/// The store, opened with the keyring.
pub struct Records {
    storage: Arc<dyn Storage>,
    keyring: ArcSwap<Keyring>,
    blind: BlindKey,
    cache: Arc<RecordCache>,
    sequence: AtomicU64,
    source: OnceLock<Arc<dyn KeyringSource>>,
}

impl Records {
    /// Opens the store with the keys of an unsealed server. `cache_bytes` bounds what is kept
    /// decrypted in memory.
    pub fn new(storage: Arc<dyn Storage>, keyring: Arc<Keyring>, cache_bytes: u64) -> Self {
        let blind = keyring.blind_key();
        Self {
            storage,
            keyring: ArcSwap::new(keyring),
            blind,
            cache: Arc::new(RecordCache::new(cache_bytes)),
            sequence: AtomicU64::new(0),
            source: OnceLock::new(),
        }
    }

    /// The store below. For what has no names: sequence, due times, metadata.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// The highest sequence that this process has committed. What the audit witnesses.
    pub fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Acquire)
    }

    /// The keyring in force.
    pub fn keyring(&self) -> Arc<Keyring> {
        self.keyring.load_full()
    }

    /// Puts another keyring in force: one with a further term, or without an old one.
    pub fn set_keyring(&self, keyring: Arc<Keyring>) {
        self.keyring.store(keyring);
    }

    /// Says where newer keyrings come from. Once; without it, this process is the only one to rotate.
    pub fn renew_from(&self, source: Arc<dyn KeyringSource>) {
        // A second call would be a mistake in the wiring; the first stays.
        let _ = self.source.set(source);
    }

    /// Takes over what another node has made of the keyring.
    ///
    /// # Errors
    /// As [`KeyringSource::renew`].
    pub async fn renew_keyring(&self) -> Result<(), CoreError> {
        match self.source.get() {
            Some(source) => source.renew(self).await,
            None => Ok(()),
        }
    }

    /// Opens rows, with a newer keyring when they need a term that this node has not heard of.
    async fn open_all(&self, rows: &[Row]) -> Result<Vec<Record>, CoreError> {
        let keyring = self.keyring.load_full();
        if rows.iter().any(|row| !keyring.holds(row.sealed.term())) {
            self.renew_keyring().await?;
        }
        rows.iter().map(|row| self.open(row)).collect()
    }

    /// Forgets everything decrypted.
    pub fn forget(&self) {
        self.cache.clear();
    }

    /// Forgets what another node changed.
    pub fn invalidate(&self, invalidation: &Invalidation) {
        match invalidation {
            Invalidation::Everything => self.cache.clear(),
            Invalidation::Rows(keys) => keys.iter().for_each(|key| self.cache.remove(*key)),
        }
    }

    /// The row key of a name.
    pub fn key(&self, at: &FullName) -> RowKey {
        let name = self.blind.tag(at.namespace, at.kind.0, Purpose::Name, at.name.as_bytes());
        RowKey { namespace: at.namespace, kind: at.kind, name }
    }

    /// The tag that rows listed under `dir` carry as their parent.
    pub fn parent_tag(&self, namespace: NamespaceId, kind: Kind, dir: &str) -> Tag {
        self.blind.tag(namespace, kind.0, Purpose::Parent, dir.as_bytes())
    }

    /// The tag of a label.
    pub fn label_tag(&self, namespace: NamespaceId, kind: Kind, label: &str) -> Tag {
        self.blind.tag(namespace, kind.0, Purpose::Label, label.as_bytes())
    }

    /// One record, from the cache when it is there.
    ///
    /// # Errors
    /// When the store fails, or the row does not open.
    pub async fn get(&self, at: &FullName) -> Result<Option<Record>, CoreError> {
        let key = self.key(at);
        if let Some(record) = self.cache.get(&key) {
            metrics::counter!("leasehold_cache_hits_total").increment(1);
            return Ok(Some(record));
        }
        metrics::counter!("leasehold_cache_misses_total").increment(1);
        self.load(key).await
    }

    /// One record, from the store even when it is cached.
    ///
    /// # Errors
    /// As [`Records::get`].
    pub async fn get_fresh(&self, at: &FullName) -> Result<Option<Record>, CoreError> {
        self.load(self.key(at)).await
    }

    async fn load(&self, key: RowKey) -> Result<Option<Record>, CoreError> {
        let epoch = self.cache.epoch(&key);
        let Some(row) = self.storage.get(key).await? else { return Ok(None) };
        let record = self.open_all(std::slice::from_ref(&row)).await?.pop();
        if let Some(record) = &record {
            self.cache.insert_if(key, record.clone(), epoch);
        }
        Ok(record)
    }

    /// Opens a row that an index walk returned.
    ///
    /// # Errors
    /// When the row does not open: it was damaged, moved or swapped.
    pub fn open(&self, row: &Row) -> Result<Record, CoreError> {
        let plain = envelope::open(
            &self.keyring.load(),
            &context(row.key, row.parent, row.rev),
            &row.sealed,
        )
        .map_err(|_| CoreError::internal("a stored record does not open with its key"))?;
        let broken = || CoreError::internal("a stored record has no name");
        let (length, rest) = plain.expose().split_first_chunk::<2>().ok_or_else(broken)?;
        let (name, body) =
            rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or_else(broken)?;
        Ok(Record {
            name: std::str::from_utf8(name).map_err(|_| broken())?.into(),
            rev: row.rev,
            due_at: row.due_at,
            body: Arc::new(SecretBytes::copy_of(body)),
        })
    }

    fn seal(
        &self,
        key: RowKey,
        parent: Tag,
        rev: u64,
        name: &str,
        body: &[u8],
    ) -> Result<SealedRecord, CoreError> {
        let length =
            u16::try_from(name.len()).map_err(|_| CoreError::invalid("the name is too long"))?;
        let mut plain = Zeroizing::new(Vec::with_capacity(2 + name.len() + body.len()));
        plain.extend_from_slice(&length.to_be_bytes());
        plain.extend_from_slice(name.as_bytes());
        plain.extend_from_slice(body);
        envelope::seal(&self.keyring.load(), &context(key, parent, rev), &plain)
            .map_err(|_| CoreError::internal("a record could not be sealed"))
    }

    /// One page of what is listed under `dir` (records and directories), in the store's blind order.
    ///
    /// # Errors
    /// As [`Records::get`].
    pub async fn page(
        &self,
        namespace: NamespaceId,
        kind: Kind,
        dir: &str,
        after: Option<Tag>,
        limit: usize,
    ) -> Result<(Vec<Record>, Option<Tag>), CoreError> {
        let parent = self.parent_tag(namespace, kind, dir);
        let page = self.storage.list(namespace, kind, parent, after, limit).await?;
        Ok((self.open_all(&page.rows).await?, page.next))
    }

    /// One page of the records that carry `label`.
    ///
    /// # Errors
    /// As [`Records::get`].
    pub async fn labelled(
        &self,
        namespace: NamespaceId,
        kind: Kind,
        label: &str,
        after: Option<Tag>,
        limit: usize,
    ) -> Result<(Vec<Record>, Option<Tag>), CoreError> {
        let tag = self.label_tag(namespace, kind, label);
        let page = self.storage.labelled(namespace, kind, tag, after, limit).await?;
        Ok((self.open_all(&page.rows).await?, page.next))
    }

    /// Everything listed under `dir`, sorted by name: last segments, directories with their slash.
    ///
    /// # Errors
    /// As [`Records::get`].
    pub async fn names(
        &self,
        namespace: NamespaceId,
        kind: Kind,
        dir: &str,
    ) -> Result<Vec<String>, CoreError> {
        let mut names = Vec::new();
        let mut after = None;
        loop {
            let (records, next) = self.page(namespace, kind, dir, after, PAGE_ROWS_MAX).await?;
            names.extend(records.iter().map(|r| last_segment(&r.name).to_owned()));
            after = next;
            if after.is_none() {
                names.sort_unstable();
                return Ok(names);
            }
        }
    }

    /// Applies a batch in one durable commit, with the directories it needs or empties.
    ///
    /// # Errors
    /// `Storage(Conflict)` when a precondition does not hold; nothing has changed then.
    pub async fn commit(&self, batch: &Batch) -> Result<Committed, CoreError> {
        let mut fresh = false;
        for _ in 0..COMMIT_ATTEMPTS {
            let plan = self.plan(batch, fresh).await?;
            if plan.changes.is_empty() {
                return Ok(Committed { sequence: self.storage.sequence().await? });
            }
            match self.apply(plan.changes, plan.touched).await {
                Ok(committed) => {
                    self.prune_emptied(plan.left).await;
                    return Ok(committed);
                }
                Err(StorageError::Conflict) => {
                    // Perhaps another node has destroyed the term that this was sealed under.
                    self.renew_keyring().await?;
                    self.recheck(batch).await?;
                }
                Err(error) => return Err(error.into()),
            }
            fresh = true;
        }
        Err(StorageError::Busy.into())
    }

    async fn apply(
        &self,
        changes: Vec<Change>,
        touched: Vec<RowKey>,
    ) -> Result<Committed, StorageError> {
        let (storage, cache) = (self.storage.clone(), self.cache.clone());
        let work = async move {
            fail_point("records.before_commit");
            let result = storage.commit(changes).await;
            fail_point("records.after_commit");
            // Also after a failure: the outcome of a broken connection is unknown.
            touched.into_iter().for_each(|key| cache.remove(key));
            result
        };
        // Whoever asked may be gone before the store has answered, such as a task that is ended: what
        // was committed, such as the end of a token, counts on this node all the same.
        let go_on = |rest| {
            if let Ok(runtime) = Handle::try_current() {
                runtime.spawn(rest);
            }
        };
        seen_through(work, go_on).await.inspect(|committed| {
            self.sequence.fetch_max(committed.sequence, Ordering::AcqRel);
        })
    }

    /// After a conflict: fails when one of the caller's own preconditions no longer holds.
    async fn recheck(&self, batch: &Batch) -> Result<(), CoreError> {
        if batch.steps.is_empty() {
            return Err(StorageError::Conflict.into());
        }
        for step in &batch.steps {
            let holds = match step.precondition {
                Precondition::Any => true,
                Precondition::Absent => self.get_fresh(&step.at).await?.is_none(),
                Precondition::Rev(rev) => {
                    self.get_fresh(&step.at).await?.is_some_and(|record| record.rev == rev)
                }
            };
            if !holds {
                return Err(StorageError::Conflict.into());
            }
        }
        for change in &batch.further {
            let holds = match change {
                Change::PutMeta { name, expect: Some(expected), .. } => {
                    self.storage.meta(name).await? == *expected
                }
                Change::RequireRow { key } => self.storage.get(*key).await?.is_some(),
                Change::PutMeta { expect: None, .. }
                | Change::Put { .. }
                | Change::Delete { .. }
                | Change::RequireChildless { .. }
                | Change::RequireFewer { .. }
                | Change::RaiseTermFloor { .. } => true,
            };
            if !holds {
                return Err(StorageError::Conflict.into());
            }
        }
        Ok(())
    }

    async fn plan(&self, batch: &Batch, fresh: bool) -> Result<Plan, CoreError> {
        let mut plan = Plan::default();
        for step in &batch.steps {
            let key = self.key(&step.at);
            let rev = match step.precondition {
                Precondition::Absent => None,
                Precondition::Rev(rev) => Some(rev),
                Precondition::Any => self.rev(&step.at, fresh).await?,
            };
            match (&step.action, rev) {
                (Action::Put { body, due_at, labels }, _) => {
                    let expect = rev.map_or(Expect::Absent, Expect::Rev);
                    let row =
                        self.row(&step.at, key, rev.map_or(1, |r| r + 1), body, *due_at, labels)?;
                    if rev.is_none() {
                        self.plan_dirs(&mut plan, &step.at, fresh).await?;
                    }
                    plan.changes.push(Change::Put { row, expect });
                    plan.touched.push(key);
                }
                (Action::Delete, Some(rev)) => {
                    plan.changes.push(Change::Delete { key, rev });
                    plan.touched.push(key);
                    plan.removed.entry(parent_of(&step.at)).or_default().insert(key.name);
                }
                (Action::Delete, None) => {}
            }
        }
        self.plan_pruning(&mut plan).await?;
        plan.changes.extend(batch.further.iter().cloned());
        Ok(plan)
    }

    async fn rev(&self, at: &FullName, fresh: bool) -> Result<Option<u64>, CoreError> {
        let record = if fresh { self.get_fresh(at).await? } else { self.get(at).await? };
        Ok(record.map(|record| record.rev))
    }

    fn row(
        &self,
        at: &FullName,
        key: RowKey,
        rev: u64,
        body: &SecretBytes,
        due_at: Option<Timestamp>,
        labels: &[String],
    ) -> Result<Row, CoreError> {
        let parent = self.parent_tag(at.namespace, at.kind, dir_of(&at.name));
        let labels: BTreeSet<Tag> =
            labels.iter().map(|label| self.label_tag(at.namespace, at.kind, label)).collect();
        let sealed = self.seal(key, parent, rev, &at.name, body.expose())?;
        Ok(Row { key, parent, rev, due_at, labels: labels.into_iter().collect(), sealed })
    }

    /// Puts the directories that a new record needs, from the deepest up to the first that exists.
    async fn plan_dirs(
        &self,
        plan: &mut Plan,
        at: &FullName,
        fresh: bool,
    ) -> Result<(), CoreError> {
        let mut dir = parent_of(at);
        while !dir.name.is_empty() {
            if !plan.kept.insert(dir.clone()) {
                return Ok(());
            }
            let key = self.key(&dir);
            if self.rev(&dir, fresh).await?.is_some() {
                plan.changes.push(Change::RequireRow { key });
                plan.touched.push(key);
                return Ok(());
            }
            let row = self.row(&dir, key, 1, &SecretBytes::new(Vec::new()), None, &[])?;
            plan.changes.push(Change::Put { row, expect: Expect::Absent });
            plan.touched.push(key);
            dir = parent_of(&dir);
        }
        Ok(())
    }

    /// Moves the data keys of `rows` to the active term.
    ///
    /// # Errors
    /// When a row does not open, or the store fails.
    pub async fn rewrap(&self, rows: &[Row]) -> Result<(), CoreError> {
        let keyring = self.keyring.load_full();
        let resealed = rows
            .iter()
            .map(|row| {
                envelope::rewrap(&keyring, &context(row.key, row.parent, row.rev), &row.sealed)
                    .map(|sealed| (row.key, row.rev, sealed))
                    .map_err(|_| CoreError::internal("a stored record does not open with its key"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(self.storage.reseal(resealed).await?)
    }
}

#[derive(Default)]
struct Plan {
    changes: Vec<Change>,
    touched: Vec<RowKey>,
    kept: BTreeSet<FullName>,
    removed: BTreeMap<FullName, BTreeSet<Tag>>,
    /// Directories that lose children and keep others, as far as is known beforehand.
    left: Vec<FullName>,
}

fn context(key: RowKey, parent: Tag, rev: u64) -> RecordContext {
    RecordContext { namespace: key.namespace, kind: key.kind.0, name: key.name, parent, rev }
}

/// The directory part of a name, with its slash; empty at the top.
fn dir_of(name: &str) -> &str {
    let body = name.strip_suffix('/').unwrap_or(name);
    body.rfind('/').map_or("", |slash| body.get(..=slash).unwrap_or_default())
}

fn parent_of(at: &FullName) -> FullName {
    FullName { namespace: at.namespace, kind: at.kind, name: dir_of(&at.name).to_owned() }
}

fn depth(name: &str) -> usize {
    name.bytes().filter(|b| *b == b'/').count()
}

/// The cursor of a listing, from the bytes that its last page gave.
pub const fn cursor(bytes: [u8; 16]) -> Tag {
    Tag::from_bytes(bytes)
}

/// The last segment of a name, with the slash of a directory.
pub fn last_segment(name: &str) -> &str {
    name.get(dir_of(name).len()..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_split_into_directory_and_last_segment() {
        for (name, dir, last) in [
            ("a", "", "a"),
            ("a/", "", "a/"),
            ("a/b", "a/", "b"),
            ("a/b/", "a/", "b/"),
            ("a/b/c", "a/b/", "c"),
        ] {
            assert_eq!((dir_of(name), last_segment(name)), (dir, last), "{name}");
        }
    }

    #[cfg(feature = "failpoints")]
    #[tokio::test]
    async fn a_commit_whose_asker_is_gone_counts_all_the_same() {
        use crate::core::scratch::Scratch;
        use crate::core::view::View;
        use crate::storage::fault::FaultyStorage;

        let scratch = Scratch::new();
        let counted = FaultyStorage::new(scratch.storage.clone());
        let over = |records| View::new(records, NamespaceId::ROOT, kinds::MOUNT_DATA, "m/".into());
        let view = over(scratch.reopened(counted.clone()));
        view.write("a", &1, Precondition::Absent).await.unwrap();
        let before = view.get::<u64>("a").await.unwrap().unwrap();
        assert_eq!(before.value, 1, "and it is in the cache");
        let done = counted.writes();
        let mut asked = Box::pin(view.write("a", &2, Precondition::Rev(before.rev)));
        while counted.writes() == done {
            assert!(futures_util::poll!(asked.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
        drop(asked);
        let elsewhere = over(scratch.records.clone());
        while elsewhere.get_fresh::<u64>("a").await.unwrap().unwrap().value == 1 {}
        // The store has answered by now, or is about to.
        for _ in 0..1000 {
            if view.get::<u64>("a").await.unwrap().unwrap().value == 2 {
                return;
            }
            elsewhere.get_fresh::<u64>("a").await.unwrap();
        }
        panic!("what was committed is not what is answered");
    }
}
