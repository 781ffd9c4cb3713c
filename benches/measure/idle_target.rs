//! A core in this process whose one engine has targets that do nothing, or are down, and leases on them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use leasehold::core::acl::permit::Permit;
use leasehold::core::engine::{Engine, EngineContext, EngineRequest, LeaseFacts, Outcome};
use leasehold::core::error::CoreError;
use leasehold::core::lease::{Lease, LeaseState, Owner};
use leasehold::core::records::{Batch, Precondition, kinds};
use leasehold::core::route::RouteSpec;
use leasehold::core::view::{PutOptions, View};
use leasehold::storage::Storage;
use leasehold::types::id::{EntityId, LeaseId, MountAccessor, NamespaceId, random_base62};
use leasehold::types::time::{Timestamp, Ttl};
use serde_json::json;

use super::support::core::{TestCore, TestSetup};

/// Leases written in one commit.
const BATCH: usize = 1000;
const OWNERS: usize = 50;

/// What the targets are, and what was asked of them.
#[derive(Default)]
pub struct Targets {
    /// Those that cannot be reached.
    down: Mutex<BTreeSet<String>>,
    /// Revocations that could not be done.
    refused: AtomicUsize,
    /// Revocations that were done.
    ended: Mutex<BTreeMap<String, usize>>,
}

impl Targets {
    pub fn take_down(&self, target: &str) {
        self.down.lock().unwrap().insert(target.to_owned());
    }

    pub fn bring_up(&self, target: &str) {
        self.down.lock().unwrap().remove(target);
    }

    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    pub fn ended(&self, target: &str) -> usize {
        self.ended.lock().unwrap().get(target).copied().unwrap_or(0)
    }
}

struct Nothing(Arc<Targets>);

#[async_trait]
impl Engine for Nothing {
    fn routes(&self) -> &'static [RouteSpec] {
        &[]
    }

    async fn handle(
        &self,
        _ctx: &EngineContext<'_>,
        _permit: &Permit,
        _request: EngineRequest<'_>,
    ) -> Result<Outcome, CoreError> {
        Err(CoreError::Unsupported)
    }

    async fn revoke(
        &self,
        _ctx: &EngineContext<'_>,
        lease: LeaseFacts<'_>,
    ) -> Result<(), CoreError> {
        let target = lease.data["config"].as_str().unwrap();
        if self.0.down.lock().unwrap().contains(target) {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
            let message = "connection refused".to_owned();
            return Err(CoreError::Upstream { target: target.to_owned(), message });
        }
        *self.0.ended.lock().unwrap().entry(target.to_owned()).or_default() += 1;
        Ok(())
    }
}

/// The core and its mount.
pub struct IdleTarget {
    pub core: TestCore,
    pub targets: Arc<Targets>,
    accessor: MountAccessor,
    view: View,
}

impl IdleTarget {
    /// On an empty store, with so many revocations a second at most.
    pub async fn start(storage: Arc<dyn Storage>, rate_per_sec: u32) -> Self {
        let mut setup = TestSetup::new();
        setup.leases.rate_per_sec = rate_per_sec;
        let targets = Arc::new(Targets::default());
        let own = targets.clone();
        let build = move |_: &_| Ok(Arc::new(Nothing(own.clone())) as Arc<dyn Engine>);
        setup.registry.engines.insert("nothing", Box::new(build));
        let cubbyhole = leasehold::engines::cubbyhole::build;
        setup.registry.engines.insert("cubbyhole", Box::new(cubbyhole));
        let core = TestCore::start_on(storage, setup).await;
        let mounted = core.mount("nothing", "db/").await;
        let accessor = mounted.facts.accessor.clone();
        let records = core.unsealed.records.clone();
        let view = View::new(records, NamespaceId::ROOT, kinds::LEASE, String::new());
        Self { core, targets, accessor, view }
    }

    /// Writes so many leases on `target`, with their labels; answers with about how many bytes they are.
    pub async fn lease(
        &self,
        target: &str,
        count: usize,
        issued: Timestamp,
        due: Timestamp,
    ) -> usize {
        let mut bytes = 0;
        for group in 0..count.div_ceil(BATCH) {
            let mut batch = Batch::new();
            for number in 0..BATCH.min(count - group * BATCH) {
                let lease = self.one(target, number, issued, due);
                bytes += serde_json::to_vec(&lease).unwrap().len() + 120;
                let labels = [
                    format!("entity:entity-{}", number % OWNERS),
                    format!("role:{}/app", self.accessor),
                    format!("mount:{}", self.accessor),
                ];
                let options = PutOptions { due_at: Some(due), labels: labels.to_vec() };
                let id = lease.id.as_str().to_owned();
                self.view.put(&mut batch, &id, &lease, Precondition::Absent, options).unwrap();
            }
            self.view.commit(&batch).await.unwrap();
        }
        bytes
    }

    fn one(&self, target: &str, number: usize, issued: Timestamp, due: Timestamp) -> Lease {
        let random = random_base62(24).unwrap();
        Lease {
            id: LeaseId::new(format!("db/creds/app/{random}")),
            state: LeaseState::Active,
            mount: self.accessor.clone(),
            path: "db/creds/app".into(),
            owner: Owner::Entity(EntityId::new(format!("entity-{}", number % OWNERS))),
            entity: None,
            asked_with: String::new(),
            role: "app".into(),
            target: format!("{}/{target}", self.accessor),
            issued_at: issued,
            expires_at: due,
            max_expires_at: due,
            renewed_at: None,
            ttl: Ttl::from_secs(60),
            renewable: true,
            settles_at: None,
            data: json!({
                "username": format!("v-app-{number}-{random}"), "revocation": [], "config": target,
            }),
            attempts: 0,
            last_error: None,
            failing_since: None,
            operations: Vec::new(),
            given_up: None,
            idempotency: None,
            answer: None,
        }
    }
}
