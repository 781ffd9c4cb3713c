//! Leases: what was handed out, to whom it belongs, and when it is taken back.
//!
//! `Intent → Active → Revoking → (gone)`. The intent is durable before the target is touched and names
//! the credential that will be made, so a crash at any moment leaves nothing on a target that no row
//! names. Rows are found by due time, so a million of them cost disk and not memory.

mod abandon;
mod breaker;
mod bulk;
mod hold;
mod issue;
mod making;
mod renew;
mod revoke;
mod sweep;
mod undo;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::Notify;

use crate::crypto::blind::Tag;
use crate::types::id::{EntityId, LeaseId, MountAccessor, NamespaceId};
use crate::types::time::{Clock, Timestamp, Ttl};

use super::audit::broker::AuditBroker;
use super::engine::LeaseFacts;
use super::error::CoreError;
use super::hold::HoldCell;
use super::mount::MountTable;
use super::quota::{LeaseCount, Quotas};
use super::records::{Record, Records, kinds};
use super::view::{Entry, View};

pub use abandon::{Abandoned, GivenUp};
pub use bulk::{BulkProgress, Decided, Selector};
pub use issue::Issuing;
pub use sweep::SweepReport;

/// Leases are counted up to this, which is to say: all of them.
const COUNT_MAX: u64 = u64::MAX >> 1;
/// Label of the leases whose revocation has failed at least once.
const OVERDUE: &str = "overdue";

/// Limits and pace, from the configuration.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// Most live leases of one owner; zero for no cap.
    pub per_owner_max: u64,
    /// Most live leases of one role of one mount; zero for no cap.
    pub per_role_max: u64,
    /// Most live leases of one mount; zero for no cap.
    pub per_mount_max: u64,
    /// Most credentials in the making at once on one target; who comes then is told to come again.
    pub issuing_per_target: usize,
    /// Revocations under way at once on one target.
    pub per_target: usize,
    /// Most revocations a second, over all targets.
    pub rate_per_sec: u32,
    /// Longest pause between two tries of one revocation.
    pub backoff_max: Ttl,
    /// How long a target may take to create, prolong or revoke one credential.
    pub target_timeout: Duration,
}

impl Default for LeaseSettings {
    fn default() -> Self {
        Self {
            per_owner_max: 10_000,
            per_role_max: 0,
            per_mount_max: 0,
            issuing_per_target: 128,
            per_target: 8,
            rate_per_sec: 10_000,
            backoff_max: Ttl::from_secs(300),
            target_timeout: Duration::from_secs(60),
        }
    }
}

/// Where a lease is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseState {
    /// Handed out.
    Active,
    /// About to be made; the target may or may not have it.
    Intent,
    /// Being taken back.
    Revoking,
}

/// Whom a lease belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// An identity; the lease survives the passing token or certificate it was asked with.
    Entity(EntityId),
    /// A token (by its hash); the lease ends with it.
    Token(String),
}

impl Owner {
    fn label(&self) -> String {
        match self {
            Self::Entity(id) => format!("entity:{id}"),
            Self::Token(hash) => format!("owner-token:{hash}"),
        }
    }
}

/// A lease, as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// Where it is in its life.
    pub state: LeaseState,
    /// The mount that made it.
    pub mount: MountAccessor,
    /// The path it was asked at.
    pub path: String,
    /// Whom it belongs to.
    pub owner: Owner,
    /// The identity behind the token or certificate it was asked with, whoever owns it.
    #[serde(default)]
    pub entity: Option<EntityId>,
    /// What stands for the token or certificate it was asked with
    /// ([`CallerFacts::private_key`](crate::core::engine::CallerFacts::private_key)).
    #[serde(default)]
    pub asked_with: String,
    /// The engine's role.
    pub role: String,
    /// The system it lives on, unique over all mounts.
    pub target: String,
    /// When it was asked for.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Beyond which no renewal prolongs it, whoever asks.
    pub max_expires_at: Timestamp,
    /// When it was last renewed.
    pub renewed_at: Option<Timestamp>,
    /// Its first lifetime: what a renewal gives that asks for none.
    pub ttl: Ttl,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// While the target may still be creating the credential: until when at most. A row is not
    /// forgotten before that, because what is revoked now may only come to be a moment later.
    #[serde(default)]
    pub settles_at: Option<Timestamp>,
    /// What the engine needs to renew and revoke it.
    pub data: Value,
    /// Tries to revoke it that failed.
    #[serde(default)]
    pub attempts: u32,
    /// What the last failed try said.
    #[serde(default)]
    pub last_error: Option<String>,
    /// When revoking it first failed.
    #[serde(default)]
    pub failing_since: Option<Timestamp>,
    /// The bulk revocations it is part of.
    #[serde(default)]
    pub operations: Vec<String>,
    /// The decision to forget it should its target not revoke it.
    #[serde(default)]
    pub given_up: Option<GivenUp>,
    /// Name of the idempotency record that leads to it.
    #[serde(default)]
    pub idempotency: Option<String>,
    /// What was answered; kept only for a retrying client that sent an idempotency key.
    #[serde(default)]
    pub answer: Option<Map<String, Value>>,
}

impl Lease {
    /// As its engine sees it.
    pub fn facts(&self) -> LeaseFacts<'_> {
        LeaseFacts { data: &self.data, role: &self.role, expires_at: self.expires_at }
    }

    /// Whether it was handed out and has not ended.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.state == LeaseState::Active && now < self.expires_at
    }

    fn role_label(&self) -> String {
        role_label(&self.mount, &self.role)
    }

    /// Under which it counts as somebody's: all that one identity holds is one heap, however many
    /// tokens it was asked with.
    fn holder_label(&self) -> String {
        let entity = self.entity.clone().map(Owner::Entity);
        entity.as_ref().unwrap_or(&self.owner).label()
    }

    fn labels(&self) -> Vec<String> {
        let mut labels = vec![self.owner.label(), self.role_label(), mount_label(&self.mount)];
        let holder = self.holder_label();
        labels.push(held_label(&holder, &self.role_label()));
        labels.push(held_label(&holder, &mount_label(&self.mount)));
        if !labels.contains(&holder) {
            labels.push(holder);
        }
        labels.extend(self.operations.iter().map(|id| operation_label(id)));
        if self.failing_since.is_some() {
            labels.push(OVERDUE.to_owned());
            labels.extend(self.operations.iter().map(|id| failed_label(id)));
        }
        labels
    }
}

fn role_label(mount: &MountAccessor, role: &str) -> String {
    format!("role:{mount}/{role}")
}

fn mount_label(mount: &MountAccessor) -> String {
    format!("mount:{mount}")
}

/// Those that one holder has of what carries another label.
fn held_label(holder: &str, of: &str) -> String {
    // No id and no hash has a space, so no two pairs make one text.
    format!("{holder} {of}")
}

/// What the leases are labelled with that a quota is for, whoever holds them.
fn quota_label(quota: &LeaseCount, mount: &MountAccessor) -> String {
    if quota.role.is_empty() { mount_label(mount) } else { role_label(mount, &quota.role) }
}

fn operation_label(operation: &str) -> String {
    format!("operation:{operation}")
}

/// Those of an operation that could not be revoked yet.
fn failed_label(operation: &str) -> String {
    format!("failed:{operation}")
}

/// The leases of an unsealed server.
pub struct Leases {
    records: Arc<Records>,
    mounts: Arc<MountTable>,
    quotas: Arc<Quotas>,
    clock: Arc<dyn Clock>,
    settings: LeaseSettings,
    audit: AuditBroker,
    /// Told whenever something became due earlier than the sweep has planned.
    wake: Notify,
    /// When the sweep will look again, in milliseconds; what is due later need not wake it.
    planned: AtomicI64,
    /// What is being issued by this process right now.
    in_flight: Mutex<BTreeSet<LeaseId>>,
    /// What has to be taken back without waiting for its due time.
    broken_off: Mutex<BTreeMap<LeaseId, undo::BrokenOff>>,
    makings: making::Makings,
    breakers: breaker::Breakers,
    hold: HoldCell,
    /// Held while the hold changes here and in the store, so that what is read there is never older than
    /// what is in force here. Says whether the hold in force still has to be stored.
    hold_unstored: tokio::sync::Mutex<bool>,
    node: u64,
}

/// What leases are kept in, and what they work with.
pub struct Surroundings {
    /// Where they are kept.
    pub records: Arc<Records>,
    /// Where their engines are found.
    pub mounts: Arc<MountTable>,
    /// The hold, as the mounts see it.
    pub hold: HoldCell,
    /// What counts them besides the settings.
    pub quotas: Arc<Quotas>,
    /// What the time is.
    pub clock: Arc<dyn Clock>,
    /// Where what is abandoned is recorded.
    pub audit: AuditBroker,
}

impl Leases {
    /// The leases of node `node`.
    pub fn new(surroundings: Surroundings, settings: LeaseSettings, node: u64) -> Self {
        let Surroundings { records, mounts, hold, quotas, clock, audit } = surroundings;
        Self {
            records,
            mounts,
            quotas,
            clock,
            settings,
            audit,
            wake: Notify::new(),
            planned: AtomicI64::new(i64::MAX),
            in_flight: Mutex::default(),
            broken_off: Mutex::default(),
            makings: making::Makings::default(),
            breakers: breaker::Breakers::default(),
            hold,
            hold_unstored: tokio::sync::Mutex::new(false),
            node,
        }
    }

    /// Some times what a target may take.
    fn target_timeouts(&self, times: u64) -> Ttl {
        Ttl::from_secs(self.settings.target_timeout.as_secs().max(1).saturating_mul(times))
    }

    /// Waits for a target, and no longer than it may take.
    async fn ask_target<T, E: From<CoreError>>(
        &self,
        lease: &Lease,
        question: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::time::timeout(self.settings.target_timeout, question).await.unwrap_or_else(|_| {
            Err(E::from(CoreError::Upstream {
                target: lease.target.clone(),
                message: "it did not answer in time".into(),
            }))
        })
    }

    fn view(&self) -> View {
        View::new(self.records.clone(), NamespaceId::ROOT, kinds::LEASE, String::new())
    }

    /// One lease.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get(&self, id: &LeaseId) -> Result<Option<Entry<Lease>>, CoreError> {
        if id.as_str().is_empty() || id.as_str().ends_with('/') {
            return Ok(None);
        }
        self.view().get(id.as_str()).await
    }

    /// The next level below `prefix` (empty, or ending in a slash): lease ids' last segments, and
    /// directories with their slash.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn names(&self, prefix: &str) -> Result<Vec<String>, CoreError> {
        self.view().list(prefix).await
    }

    /// A page of the leases that `selector` picks, in the store's order.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn search(
        &self,
        selector: &Selector,
        after: Option<Tag>,
        limit: usize,
    ) -> Result<(Vec<Lease>, Option<Tag>), CoreError> {
        let (records, next) = match selector {
            Selector::Prefix(prefix) => {
                self.records.page(NamespaceId::ROOT, kinds::LEASE, prefix, after, limit).await?
            }
            Selector::Entities(_)
            | Selector::Mount(_)
            | Selector::Operation(_)
            | Selector::Overdue
            | Selector::Role(..)
            | Selector::Token(_) => self.labelled(&selector.labels(), after, limit).await?,
        };
        let leases = decode(&records)?.into_iter().map(|entry| entry.value).collect();
        Ok((leases, next))
    }

    /// A page of the leases with one of these labels, in the store's order.
    async fn labelled(
        &self,
        labels: &[String],
        after: Option<Tag>,
        limit: usize,
    ) -> Result<(Vec<Record>, Option<Tag>), CoreError> {
        let mut found = BTreeMap::new();
        let mut more = false;
        for label in labels {
            let (records, next) =
                self.records.labelled(NamespaceId::ROOT, kinds::LEASE, label, after, limit).await?;
            more |= next.is_some();
            let named = records.into_iter().map(|record| {
                let name = self.records.key(&self.view().full_name(&record.name)).name;
                (*name.as_bytes(), record)
            });
            found.extend(named);
        }
        more |= found.len() > limit;
        let page: Vec<_> = found.into_iter().take(limit).collect();
        let last = page.last().map(|(name, _)| Tag::from_bytes(*name)).filter(|_| more);
        Ok((page.into_iter().map(|(_, record)| record).collect(), last))
    }

    /// How many leases a mount has; only those whose revocation has failed when `overdue`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn count(&self, mount: &MountAccessor, overdue: bool) -> Result<u64, CoreError> {
        if overdue {
            let mut count = 0;
            let mut walk = self.walk(&Selector::Overdue);
            while let Some(entries) = walk.next_page().await? {
                count += entries.iter().filter(|entry| entry.value.mount == *mount).count() as u64;
            }
            return Ok(count);
        }
        let label = self.records.label_tag(NamespaceId::ROOT, kinds::LEASE, &mount_label(mount));
        let storage = self.records.storage();
        Ok(storage.count_labelled(NamespaceId::ROOT, kinds::LEASE, label, COUNT_MAX).await?)
    }

    /// How many leases there are that a quota counts.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn count_under(&self, quota: &LeaseCount) -> Result<u64, CoreError> {
        let Some(mounted) = self.mounts.at(&quota.path) else { return Ok(0) };
        let label = quota_label(quota, &mounted.entry.accessor);
        let label = self.records.label_tag(NamespaceId::ROOT, kinds::LEASE, &label);
        let storage = self.records.storage();
        Ok(storage.count_labelled(NamespaceId::ROOT, kinds::LEASE, label, COUNT_MAX).await?)
    }

    /// How many leases there are whose revocation has failed.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn count_overdue(&self) -> Result<u64, CoreError> {
        let label = self.records.label_tag(NamespaceId::ROOT, kinds::LEASE, OVERDUE);
        let storage = self.records.storage();
        Ok(storage.count_labelled(NamespaceId::ROOT, kinds::LEASE, label, COUNT_MAX).await?)
    }

    /// Tells the sweep that something may be due.
    pub fn wake_sweep(&self) {
        self.wake.notify_one();
    }

    /// Tells the sweep that something is due at `at`, if that is earlier than it plans to look.
    fn wake_sweep_at(&self, at: Timestamp) {
        if at.as_millis() < self.planned.load(Ordering::SeqCst) {
            self.wake.notify_one();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn decode(records: &[Record]) -> Result<Vec<Entry<Lease>>, CoreError> {
    records
        .iter()
        .filter(|record| !record.is_dir())
        .map(|record| Ok(Entry { value: record.decode()?, rev: record.rev, due_at: record.due_at }))
        .collect()
}
