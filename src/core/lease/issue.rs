//! Issuing: the intent is durable first, then the target is touched, then the lease is active.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::storage::{Change, RowKey, StorageError};
use crate::types::id::{EntityId, LeaseId, NamespaceId, random_base62};
use crate::types::time::{Timestamp, Ttl};

use super::super::engine::{IssueError, LeasePlan};
use super::super::error::CoreError;
use super::super::failpoint::fail_point;
use super::super::lifetime::Lifetime;
use super::super::mount::Mounted;
use super::super::quota::{self, CountBy};
use super::super::records::{Batch, Precondition, kinds};
use super::super::reply::{LeaseReply, Reply};
use super::super::view::{Entry, PutOptions, View};
use super::undo::Attempt;
use super::{Lease, LeaseState, Leases, Owner, held_label, mount_label, quota_label, role_label};

/// Longest idempotency key.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// Who asks for a credential, and how.
pub struct Issuing<'a> {
    /// The mount that planned it.
    pub mounted: &'a Arc<Mounted>,
    /// The path of the request.
    pub path: &'a str,
    /// Whom the lease will belong to.
    pub owner: Owner,
    /// The identity that asks.
    pub entity: Option<EntityId>,
    /// Those that were merged into it: what they hold counts as its own.
    pub former: &'a [EntityId],
    /// The identity's row: it must still be there when the intent is written.
    pub entity_row: Option<RowKey>,
    /// What stands for the caller's token or certificate.
    pub asked_with: &'a str,
    /// When the caller's token or certificate ends.
    pub caller_expires_at: Option<Timestamp>,
    /// The caller's token: it must still be there when the intent is written.
    pub caller_row: Option<RowKey>,
    /// The client's idempotency key.
    pub idempotency_key: Option<&'a str>,
}

/// A limit on live leases that a new one must fit under.
struct Cap {
    /// What the leases are found by that it counts.
    label: String,
    max: u64,
    /// Of what it is a limit.
    what: &'static str,
    /// The quota that says so, when none of the configuration does.
    quota: Option<String>,
}

/// Leads from an idempotency key to the lease it made.
#[derive(Serialize, Deserialize)]
pub(super) struct Idempotency {
    pub(super) lease: LeaseId,
}

/// What is known of an idempotency key.
enum Repeat {
    /// An earlier request got this.
    Answer(Box<Reply>),
    /// Nothing that still lives; the record is written under this precondition.
    Fresh(Precondition),
}

impl Leases {
    /// Issues the planned credential. A broken-off call leaves an intent, which the sweep revokes.
    ///
    /// # Errors
    /// `Overloaded` when too many are being made on the target already, `TooMany` when a cap is reached,
    /// `Upstream` when the target is down, and whatever the target refuses. Nothing is left behind that is not going to be revoked.
    pub async fn issue(&self, issuing: Issuing<'_>, plan: LeasePlan) -> Result<Reply, CoreError> {
        let now = self.clock.now();
        let idempotency = idempotency_name(&issuing)?;
        let mut replacing = Precondition::Absent;
        if let Some(name) = &idempotency {
            match self.repeated(name, now).await? {
                Repeat::Answer(reply) => return Ok(*reply),
                Repeat::Fresh(precondition) => replacing = precondition,
            }
        }
        // An intent is one for longer than creating may take; after that, its process has died.
        let settles_at = now.plus(self.target_timeouts(2));
        let (lease, warning) = intend(&issuing, plan, idempotency, now, settles_at)?;
        let _making = self.makings.begin(&lease.target, self.settings.issuing_per_target)?;
        // From here on, leaving early in any way hands the intent to the sweep.
        let mut attempt = Attempt::begin(self, &lease);
        if let Err(refusal) = self.write_intent(&issuing, &lease, replacing).await {
            // An unreachable store may have taken it all the same.
            if !matches!(refusal, CoreError::Storage(_)) {
                attempt.done();
            }
            return Err(refusal);
        }
        attempt.touches(&lease);
        let issued = match self.create(issuing.mounted, &lease).await {
            Ok(issued) => issued,
            Err(IssueError::Failed(error)) => return Err(error),
            Err(IssueError::NotBegun(error)) => {
                // No need to leave it to the sweep, whose target would not answer either.
                let intent = Entry { value: lease, rev: 1, due_at: None };
                self.forget(std::slice::from_ref(&intent)).await?;
                attempt.done();
                return Err(error);
            }
        };
        fail_point("lease.issued");

        let mut active = Lease { state: LeaseState::Active, settles_at: None, ..lease };
        active.answer = active.idempotency.is_some().then(|| issued.clone());
        let mut batch = Batch::new();
        self.put(&mut batch, &active, Precondition::Rev(1), active.expires_at)?;
        match self.view().commit(&batch).await {
            Err(CoreError::Storage(StorageError::Conflict)) => {
                return Err(CoreError::denied("the lease was revoked while it was being issued"));
            }
            other => other?,
        }
        attempt.done();
        fail_point("lease.active");
        self.wake_sweep_at(active.expires_at);
        metrics::counter!(
            "leasehold_leases_issued_total", "mount" => issuing.mounted.entry.path.clone()
        )
        .increment(1);
        let mut reply = lease_reply(&active, now);
        reply.data = Some(issued);
        reply.warnings.extend(warning);
        Ok(reply)
    }

    async fn create(
        &self,
        mounted: &Arc<Mounted>,
        lease: &Lease,
    ) -> Result<Map<String, Value>, IssueError> {
        let context = mounted.context();
        self.ask_target(lease, mounted.engine()?.issue(&context, lease.facts())).await
    }

    async fn write_intent(
        &self,
        issuing: &Issuing<'_>,
        lease: &Lease,
        replacing: Precondition,
    ) -> Result<(), CoreError> {
        let mut batch = Batch::new();
        let due_at = lease.settles_at.unwrap_or(lease.issued_at);
        self.put(&mut batch, lease, Precondition::Absent, due_at)?;
        if let Some(name) = &lease.idempotency {
            let value = Idempotency { lease: lease.id.clone() };
            let options = PutOptions::default();
            self.idempotency().put(&mut batch, name, &value, replacing, options)?;
        }
        batch.also(Change::RequireRow { key: issuing.mounted.gate });
        for key in [issuing.caller_row, issuing.entity_row].into_iter().flatten() {
            batch.also(Change::RequireRow { key });
        }
        for Cap { label, max, .. } in self.caps(lease, issuing.former).await? {
            batch.also(Change::RequireFewer {
                namespace: NamespaceId::ROOT,
                kind: kinds::LEASE,
                label: self.records.label_tag(NamespaceId::ROOT, kinds::LEASE, &label),
                // Judged with the new lease already counted.
                max: max.saturating_add(1),
            });
        }
        fail_point("lease.before-intent");
        match self.view().commit(&batch).await {
            Ok(()) => {
                fail_point("lease.intent");
                Ok(())
            }
            Err(CoreError::Storage(StorageError::Limit)) => {
                Err(self.which_cap(lease, issuing.former).await?)
            }
            Err(CoreError::Storage(StorageError::Conflict))
                if !self.mounts.is_open(issuing.mounted).await? =>
            {
                Err(issuing.mounted.closing())
            }
            Err(CoreError::Storage(StorageError::Conflict))
                if self.is_gone(issuing.entity_row).await? =>
            {
                // Deleted, or merged into another one that the next try finds.
                Err(CoreError::Overloaded { retry_after: Ttl::from_secs(1) })
            }
            // Another request with the same key was faster: its answer is there in a moment.
            Err(CoreError::Storage(StorageError::Conflict)) if lease.idempotency.is_some() => {
                Err(CoreError::Overloaded { retry_after: Ttl::from_secs(1) })
            }
            Err(CoreError::Storage(StorageError::Conflict)) => {
                Err(CoreError::denied("the caller's token was revoked meanwhile"))
            }
            Err(error) => Err(error),
        }
    }

    async fn is_gone(&self, row: Option<RowKey>) -> Result<bool, CoreError> {
        match row {
            Some(key) => Ok(self.records.storage().get(key).await?.is_none()),
            None => Ok(false),
        }
    }

    /// How many leases these identities hold, at most `max` each; with `of`, of those that carry that
    /// label. No lease carries two labels of identities.
    async fn count_of(
        &self,
        ids: &[EntityId],
        of: Option<&str>,
        max: u64,
    ) -> Result<u64, CoreError> {
        let mut count = 0u64;
        for id in ids {
            let holder = Owner::Entity(id.clone()).label();
            let label = of.map_or(holder.clone(), |of| held_label(&holder, of));
            let tag = self.records.label_tag(NamespaceId::ROOT, kinds::LEASE, &label);
            let storage = self.records.storage();
            let more = storage.count_labelled(NamespaceId::ROOT, kinds::LEASE, tag, max).await?;
            count = count.saturating_add(more);
        }
        Ok(count)
    }

    /// What the lease is counted under: by the configuration, and by quotas. What merged identities
    /// hold leaves less to the one that took them; they get no more, so it can only become less.
    async fn caps(&self, lease: &Lease, former: &[EntityId]) -> Result<Vec<Cap>, CoreError> {
        let per_owner_max = match self.settings.per_owner_max {
            0 => 0,
            max => max.saturating_sub(self.count_of(former, None, max).await?),
        };
        if per_owner_max == 0 && self.settings.per_owner_max > 0 {
            return Err(self.reached("identity".to_owned(), "identity"));
        }
        let settings = [
            (lease.holder_label(), per_owner_max, "identity"),
            (role_label(&lease.mount, &lease.role), self.settings.per_role_max, "role"),
            (mount_label(&lease.mount), self.settings.per_mount_max, "mount"),
        ];
        let settings = settings.into_iter().filter(|(_, max, _)| *max > 0);
        let mut caps: Vec<Cap> =
            settings.map(|(label, max, what)| Cap { label, max, what, quota: None }).collect();
        let mounted = self.mounts.by_accessor(&lease.mount);
        let path = mounted.as_ref().map_or("", |mounted| mounted.entry.path.as_str());
        for (name, quota) in self.quotas.lease_counts(path, &lease.role) {
            let (mut label, mut max) = (quota_label(&quota, &lease.mount), quota.max_leases);
            if quota.group_by == CountBy::Entity {
                max = max.saturating_sub(self.count_of(former, Some(&label), max).await?);
                label = held_label(&lease.holder_label(), &label);
            }
            caps.push(Cap { label, max, what: "quota", quota: Some(name) });
        }
        Ok(caps)
    }

    async fn which_cap(&self, lease: &Lease, former: &[EntityId]) -> Result<CoreError, CoreError> {
        let mut reached = None;
        for cap in self.caps(lease, former).await? {
            let tag = self.records.label_tag(NamespaceId::ROOT, kinds::LEASE, &cap.label);
            let storage = self.records.storage();
            let max = cap.max;
            if storage.count_labelled(NamespaceId::ROOT, kinds::LEASE, tag, max).await? >= max {
                reached = Some(cap);
                break;
            }
        }
        let what = reached.as_ref().map_or("identity, role or mount", |cap| cap.what);
        let name = match reached.and_then(|cap| cap.quota) {
            Some(quota) => {
                quota::rejected(&quota, "lease-count");
                format!("quota {quota:?}")
            }
            None => what.to_owned(),
        };
        Ok(self.reached(name, what))
    }

    fn reached(&self, name: String, what: &'static str) -> CoreError {
        metrics::counter!("leasehold_lease_cap_refusals_total", "cap" => what).increment(1);
        CoreError::TooMany {
            message: format!("the {name} has as many live leases as it may; revoke some first"),
            retry_after: Ttl::from_secs(30),
        }
    }

    /// The answer that an earlier request with the same idempotency key got.
    async fn repeated(&self, name: &str, now: Timestamp) -> Result<Repeat, CoreError> {
        let Some(entry) = self.idempotency().get_fresh::<Idempotency>(name).await? else {
            return Ok(Repeat::Fresh(Precondition::Absent));
        };
        let fresh = Repeat::Fresh(Precondition::Rev(entry.rev));
        let id = entry.value.lease;
        // Not from the cache: the answer must not name a credential that another node has revoked.
        let Some(lease) = self.view().get_fresh::<Lease>(id.as_str()).await? else {
            return Ok(fresh);
        };
        if self.is_broken_off(&id) {
            return Ok(fresh);
        }
        let lease = lease.value;
        match lease.state {
            LeaseState::Active if now < lease.expires_at => {
                let mut reply = lease_reply(&lease, now);
                reply.data = lease.answer;
                reply.existing = true;
                Ok(Repeat::Answer(Box::new(reply)))
            }
            LeaseState::Intent => Err(CoreError::Overloaded { retry_after: Ttl::from_secs(1) }),
            LeaseState::Active | LeaseState::Revoking => Ok(fresh),
        }
    }

    pub(super) fn idempotency(&self) -> View {
        View::new(self.records.clone(), NamespaceId::ROOT, kinds::IDEMPOTENCY, String::new())
    }

    pub(super) fn put(
        &self,
        batch: &mut Batch,
        lease: &Lease,
        precondition: Precondition,
        due_at: Timestamp,
    ) -> Result<(), CoreError> {
        let options = PutOptions { due_at: Some(due_at), labels: lease.labels() };
        self.view().put(batch, lease.id.as_str(), lease, precondition, options)
    }
}

fn intend(
    issuing: &Issuing<'_>,
    plan: LeasePlan,
    idempotency: Option<String>,
    now: Timestamp,
    settles_at: Timestamp,
) -> Result<(Lease, Option<String>), CoreError> {
    let facts = &issuing.mounted.facts;
    let lifetime = Lifetime {
        issued_at: now,
        role_max: plan.max_ttl,
        mount_max: facts.max_ttl,
        not_after: issuing.caller_expires_at,
        ..Lifetime::default()
    };
    let span = lifetime
        .initial(plan.ttl, facts.default_ttl)
        .map_err(|over| CoreError::denied(over.to_string()))?;
    let id = format!("{}/{}", issuing.path.trim_end_matches('/'), random_base62(24)?);
    let lease = Lease {
        id: LeaseId::new(id),
        state: LeaseState::Intent,
        mount: facts.accessor.clone(),
        path: issuing.path.to_owned(),
        owner: issuing.owner.clone(),
        entity: issuing.entity.clone(),
        asked_with: issuing.asked_with.to_owned(),
        role: plan.role,
        target: format!("{}/{}", facts.accessor, plan.target),
        issued_at: now,
        expires_at: span.expires_at,
        // The caller's own end bounds each renewal anew: tokens are renewed, certificates rotated.
        max_expires_at: Lifetime { not_after: None, ..lifetime }.latest(),
        renewed_at: None,
        ttl: span.ttl,
        renewable: plan.renewable,
        settles_at: Some(settles_at),
        data: plan.data,
        attempts: 0,
        last_error: None,
        failing_since: None,
        operations: Vec::new(),
        given_up: None,
        idempotency,
        answer: None,
    };
    Ok((lease, span.warning()))
}

fn idempotency_name(issuing: &Issuing<'_>) -> Result<Option<String>, CoreError> {
    let Some(key) = issuing.idempotency_key else { return Ok(None) };
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX || !key.is_ascii() {
        return Err(CoreError::field("Idempotency-Key", "must be 1 to 255 ASCII characters"));
    }
    // By owner and path, so that nobody reaches somebody else's answer by guessing a key. The parts
    // are joined by a character that none of them can hold.
    let parts = [&issuing.owner.label(), issuing.path, key];
    Ok(Some(parts.join("\n").replace('/', "\r")))
}

fn lease_reply(lease: &Lease, now: Timestamp) -> Reply {
    Reply {
        lease: Some(LeaseReply {
            id: lease.id.clone(),
            renewable: lease.renewable,
            duration: lease.expires_at.remaining(now),
        }),
        ..Reply::default()
    }
}
