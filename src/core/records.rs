//! Sealed records with names, over the blind store: the one place that seals, opens, tags and caches.
//!
//! A record has a full name such as `<mount uuid>/team/app/password`. Its row is found by the tag of
//! that name and listed under the tag of its directory. Directories are rows too (their names end in
//! a slash), put with their first child and removed with their last in the same commit, so that LIST
//! needs neither clear names nor a scan.

mod commit;
mod pruning;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio::sync::broadcast;
use zeroize::Zeroizing;

use crate::crypto::blind::{BlindKey, Purpose, Tag};
use crate::crypto::envelope::{self, RecordContext, SealedRecord};
use crate::crypto::keyring::Keyring;
use crate::storage::{Change, Invalidation, Kind, PAGE_ROWS_MAX, Row, RowKey, Storage};
use crate::types::id::NamespaceId;
use crate::types::secret::SecretBytes;
use crate::types::time::Timestamp;

use super::cache::RecordCache;
use super::error::CoreError;

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
    Put { body: Arc<SecretBytes>, due_at: Option<Timestamp>, labels: Vec<String> },
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
        let action = Action::Put { body: Arc::new(body), due_at, labels };
        self.steps.push(Step { at, precondition, action });
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

/// What becomes of the answer that a record is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absence {
    /// The store is asked each time: on what is not there rests that nothing is to be done, such as a
    /// removal.
    Asked,
    /// It is kept as records are, until one is written.
    Remembered,
}

/// The store, opened with the keyring.
pub struct Records {
    storage: Arc<dyn Storage>,
    keyring: ArcSwap<Keyring>,
    blind: BlindKey,
    cache: Arc<RecordCache>,
    sequence: AtomicU64,
    late: Arc<OnceLock<broadcast::Sender<Invalidation>>>,
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
            late: Arc::default(),
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

    /// From now on others have the store open with these keys, and `heard_by` is told what is committed
    /// here all the same.
    pub fn is_over(&self, heard_by: broadcast::Sender<Invalidation>) {
        // Once is enough.
        let _ = self.late.set(heard_by);
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
        self.find(at, Absence::Asked).await
    }

    /// One record that something else stands for while it is not there. From the cache when it is known,
    /// also that it is not there. For names that come up at every turn, and that no stranger chooses: those
    /// would push out what is of use.
    ///
    /// # Errors
    /// As [`Records::get`].
    pub async fn get_defaulted(&self, at: &FullName) -> Result<Option<Record>, CoreError> {
        self.find(at, Absence::Remembered).await
    }

    async fn find(&self, at: &FullName, absence: Absence) -> Result<Option<Record>, CoreError> {
        let key = self.key(at);
        if let Some(known) = self.cache.get(&key)
            && (known.is_some() || absence == Absence::Remembered)
        {
            metrics::counter!("leasehold_cache_hits_total").increment(1);
            return Ok(known);
        }
        metrics::counter!("leasehold_cache_misses_total").increment(1);
        self.load(key, absence).await
    }

    /// One record, from the store even when it is cached.
    ///
    /// # Errors
    /// As [`Records::get`].
    pub async fn get_fresh(&self, at: &FullName) -> Result<Option<Record>, CoreError> {
        self.load(self.key(at), Absence::Asked).await
    }

    async fn load(&self, key: RowKey, absence: Absence) -> Result<Option<Record>, CoreError> {
        let epoch = self.cache.epoch(&key);
        let record = match self.storage.get(key).await? {
            Some(row) => self.open_all(std::slice::from_ref(&row)).await?.pop(),
            None => None,
        };
        if record.is_some() || absence == Absence::Remembered {
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
}
