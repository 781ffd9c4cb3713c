//! Sweeping due leases on a target that does nothing, beside bare SQLite deleting the same rows.

use std::time::{Duration, Instant};

use leasehold::types::time::Ttl;
use rusqlite::{Connection, params};

use crate::driver::Run;
use crate::idle_target::IdleTarget;
use crate::support::core::{START, sqlite};

/// Rows in one commit, on both sides.
const GROUP: usize = 512;

/// Sweeps, and gives the rows' mean size too, for the bare side to delete the same.
pub async fn sweep(leases: usize) -> (Run, usize) {
    let (_directory, storage) = sqlite();
    let idle = IdleTarget::start(storage, u32::MAX).await;
    let bytes = idle.lease("pg", leases, START, START.plus(Ttl::from_secs(60))).await;
    idle.core.clock.advance(Duration::from_secs(61));
    let begun = Instant::now();
    let report = idle.core.leases().sweep().await.unwrap();
    let run = Run::of(report.revoked, begun.elapsed());
    assert_eq!(report.revoked, leases);
    (run, bytes / leases)
}

/// Deletes as many rows of `bytes` each, with their labels, in groups.
pub fn delete(leases: usize, bytes: usize) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let mut connection = Connection::open(dir.path().join("bare.db")).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.pragma_update(None, "synchronous", "FULL").unwrap();
    connection.pragma_update(None, "secure_delete", "ON").unwrap();
    connection.execute_batch(include_str!("../../../migrations/sqlite/0001_records.sql")).unwrap();
    let tag = |n: usize| {
        (n as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes()
    };
    let labels = |n: usize| [tag(1_000_000 + n % 50), tag(2_000_000), tag(3_000_000)];
    let groups: Vec<Vec<usize>> =
        (0..leases).collect::<Vec<_>>().chunks(GROUP).map(<[usize]>::to_vec).collect();
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
    Run::of(leases, begun.elapsed())
}
