//! Sweeping due leases on a target that does nothing, beside bare SQLite deleting the same rows.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use leasehold::core::acl::permit::Permit;
use leasehold::core::engine::{Engine, EngineContext, EngineRequest, LeaseFacts, Outcome};
use leasehold::core::error::CoreError;
use leasehold::core::lease::{Lease, LeaseState, Owner};
use leasehold::core::records::{Batch, Precondition, kinds};
use leasehold::core::route::RouteSpec;
use leasehold::core::view::{PutOptions, View};
use leasehold::types::id::{EntityId, LeaseId, NamespaceId, random_base62};
use leasehold::types::time::Ttl;
use rusqlite::{Connection, params};
use serde_json::json;

use super::core::{START, TestCore, TestSetup};
use super::driver::Run;

const LEASES: usize = 100_000;
/// Rows in one commit, on both sides.
const GROUP: usize = 512;

struct Nothing;

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
        _lease: LeaseFacts<'_>,
    ) -> Result<(), CoreError> {
        Ok(())
    }
}

/// Sweeps, and gives the rows' mean size too, for the bare side to delete the same.
pub async fn sweep() -> (Run, usize) {
    let mut setup = TestSetup::new();
    setup.leases.rate_per_sec = u32::MAX;
    setup.registry.engines.insert("nothing", Box::new(|_| Ok(Arc::new(Nothing))));
    let cubbyhole = leasehold::engines::cubbyhole::build;
    setup.registry.engines.insert("cubbyhole", Box::new(cubbyhole));
    let test = TestCore::start(setup).await;
    let mounted = test.mount("nothing", "db/").await;
    let accessor = mounted.facts.accessor.clone();
    let records = test.unsealed.records.clone();
    let view = View::new(records, NamespaceId::ROOT, kinds::LEASE, String::new());
    let due = START.plus(Ttl::from_secs(60));
    let mut bytes = 0;
    for group in 0..LEASES / 1000 {
        let mut batch = Batch::new();
        for n in 0..1000 {
            let id = format!("db/creds/app/{}", random_base62(24).unwrap());
            let lease = Lease {
                id: LeaseId::new(id.clone()),
                state: LeaseState::Active,
                mount: accessor.clone(),
                path: "db/creds/app".into(),
                owner: Owner::Entity(EntityId::new(format!("entity-{}", n % 50))),
                entity: None,
                asked_with: String::new(),
                role: "app".into(),
                target: format!("{accessor}/pg"),
                issued_at: START,
                expires_at: due,
                max_expires_at: due,
                renewed_at: None,
                ttl: Ttl::from_secs(60),
                renewable: true,
                settles_at: None,
                data: json!({
                    "username": format!("v-app-{group}-{n}-{}", random_base62(20).unwrap()),
                    "revocation": [], "config": "pg",
                }),
                attempts: 0,
                last_error: None,
                failing_since: None,
                operations: Vec::new(),
                given_up: None,
                idempotency: None,
                answer: None,
            };
            bytes += serde_json::to_vec(&lease).unwrap().len() + 120;
            let labels = [
                format!("entity:entity-{}", n % 50),
                format!("role:{accessor}/app"),
                format!("mount:{accessor}"),
            ];
            let options = PutOptions { due_at: Some(due), labels: labels.to_vec() };
            view.put(&mut batch, &id, &lease, Precondition::Absent, options).unwrap();
        }
        view.commit(&batch).await.unwrap();
    }
    test.clock.advance(std::time::Duration::from_secs(61));
    let begun = Instant::now();
    let report = test.leases().sweep().await.unwrap();
    let run = Run::new(report.revoked, begun.elapsed());
    assert_eq!(report.revoked, LEASES);
    (run, bytes / LEASES)
}

/// Deletes as many rows of `bytes` each, with their labels, in groups.
pub fn delete(bytes: usize) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let mut connection = Connection::open(dir.path().join("bare.db")).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.pragma_update(None, "synchronous", "FULL").unwrap();
    connection.pragma_update(None, "secure_delete", "ON").unwrap();
    connection.execute_batch(include_str!("../../migrations/sqlite/0001_records.sql")).unwrap();
    let tag = |n: usize| {
        (n as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes()
    };
    let labels = |n: usize| [tag(1_000_000 + n % 50), tag(2_000_000), tag(3_000_000)];
    let groups: Vec<Vec<usize>> =
        (0..LEASES).collect::<Vec<_>>().chunks(GROUP).map(<[usize]>::to_vec).collect();
    for group in &groups {
        let transaction = connection.transaction().unwrap();
        for n in group {
            transaction
                .prepare_cached(
                    "INSERT INTO record \
                     (namespace, kind, name, parent, rev, due_at, term, labels, sealed) \
                     VALUES (0, 6, ?1, ?2, 1, 60000, 1, ?3, ?4)",
                )
                .unwrap()
                .execute(params![tag(*n), [7u8; 16], labels(*n).concat(), vec![1u8; bytes]])
                .unwrap();
            for label in labels(*n) {
                transaction
                    .prepare_cached(
                        "INSERT INTO label (namespace, kind, tag, name) VALUES (0, 6, ?1, ?2)",
                    )
                    .unwrap()
                    .execute(params![label, tag(*n)])
                    .unwrap();
            }
        }
        transaction.commit().unwrap();
    }
    let begun = Instant::now();
    for group in &groups {
        let transaction = connection.transaction().unwrap();
        for n in group {
            transaction
                .prepare_cached("DELETE FROM record WHERE namespace = 0 AND kind = 6 AND name = ?1")
                .unwrap()
                .execute([tag(*n)])
                .unwrap();
            for label in labels(*n) {
                transaction
                    .prepare_cached(
                        "DELETE FROM label \
                         WHERE namespace = 0 AND kind = 6 AND tag = ?1 AND name = ?2",
                    )
                    .unwrap()
                    .execute(params![label, tag(*n)])
                    .unwrap();
            }
        }
        transaction.commit().unwrap();
    }
    Run::new(LEASES, begun.elapsed())
}
