//! Leases, on a real store and on targets that do what the tests want.

mod bulk;
mod cluster;
#[cfg(feature = "failpoints")]
mod faults;
mod given_up;
mod issue;
mod mounts;
mod nesting;
mod renew;
mod revoke;
mod sweep;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use leasehold::core::error::CoreError;
use leasehold::core::lease::{
    GivenUp, Issuing, Lease, LeaseState, Leases, Owner, Selector, Surroundings, SweepReport,
};
use leasehold::core::mount::Mounted;
use leasehold::core::reply::Reply;
use leasehold::types::id::{EntityId, LeaseId, RequestId};
use leasehold::types::time::{Clock, Timestamp, Ttl};

use crate::support::core::{START, TestCore, TestSetup};
use crate::support::target::{KIND, Mood, Targets, plan};

const HOUR: Ttl = Ttl::from_secs(3600);
const PATH: &str = "db/creds/role";

/// A broker with one mount, and the targets behind it.
struct World {
    test: TestCore,
    targets: Arc<Targets>,
    mounted: Arc<Mounted>,
}

impl World {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut TestSetup)) -> Self {
        let targets = Targets::new();
        let mut setup = TestSetup::new();
        setup.registry = targets.registry();
        change(&mut setup);
        let test = TestCore::start(setup).await;
        let mounted = test.mount(KIND, "db/").await;
        Self { test, targets, mounted }
    }

    fn leases(&self) -> &Arc<Leases> {
        self.test.leases()
    }

    fn issuing(&self) -> Issuing<'_> {
        Issuing {
            mounted: &self.mounted,
            path: PATH,
            owner: owner("alice"),
            entity: None,
            former: &[],
            entity_row: None,
            asked_with: "",
            caller_expires_at: None,
            caller_row: None,
            idempotency_key: None,
        }
    }

    async fn try_issue(&self, target: &str, name: &str) -> Result<Reply, CoreError> {
        self.leases().issue(self.issuing(), plan(target, name, HOUR)).await
    }

    /// Issues a credential for an hour.
    async fn issue(&self, target: &str, name: &str) -> LeaseId {
        id(&self.try_issue(target, name).await.unwrap())
    }

    async fn lease(&self, id: &LeaseId) -> Option<Lease> {
        self.leases().get(id).await.unwrap().map(|entry| entry.value)
    }

    /// All rows there are.
    async fn rows(&self) -> Vec<Lease> {
        let selector = Selector::Mount(self.mounted.facts.accessor.clone());
        let (mut rows, mut after) = (Vec::new(), None);
        loop {
            let (page, next) = self.leases().search(&selector, after, 1000).await.unwrap();
            rows.extend(page);
            after = next;
            if after.is_none() {
                return rows;
            }
        }
    }

    async fn overdue(&self) -> Vec<Lease> {
        self.leases().search(&Selector::Overdue, None, 1000).await.unwrap().0
    }

    /// The names on targets that no row names. There must never be one.
    async fn leaked(&self) -> BTreeSet<String> {
        let named: BTreeSet<String> = self.rows().await.iter().map(name).collect();
        self.targets.live().difference(&named).cloned().collect()
    }

    async fn sweep(&self) -> SweepReport {
        self.leases().sweep().await.unwrap()
    }

    fn advance(&self, secs: u64) {
        self.test.clock.advance(Duration::from_secs(secs));
    }

    fn now(&self) -> Timestamp {
        self.test.clock.now()
    }

    /// Lets time pass and sweeps until nothing is left, as long as it takes.
    async fn sweep_up(&self) {
        for _ in 0..200 {
            self.sweep().await;
            if self.rows().await.is_empty() {
                return;
            }
            self.advance(60);
        }
        panic!("still there: {:?}", self.rows().await);
    }
}

fn decision() -> GivenUp {
    GivenUp { by: "admin".into(), request_id: RequestId::random().unwrap() }
}

fn owner(name: &str) -> Owner {
    Owner::Entity(EntityId::new(name))
}

fn id(reply: &Reply) -> LeaseId {
    reply.lease.as_ref().unwrap().id.clone()
}

fn name(lease: &Lease) -> String {
    lease.data["name"].as_str().unwrap().to_owned()
}

fn is_upstream(error: &CoreError) -> bool {
    matches!(error, CoreError::Upstream { .. })
}
