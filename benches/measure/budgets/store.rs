//! Bare SQLite, committing the rows of a KV write in groups of 16.

use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use crate::driver::Run;

/// Sealed size of a version's row and of a metadata row, as the broker writes them.
const VERSION_BYTES: usize = 220;
const METADATA_BYTES: usize = 420;

/// For `time`: each write is one new version row and one changed metadata row, as a KV write is, and
/// 16 writes share one durable commit.
pub fn commit_groups_of_16(time: Duration) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let mut connection = Connection::open(dir.path().join("bare.db")).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.pragma_update(None, "synchronous", "FULL").unwrap();
    connection.pragma_update(None, "secure_delete", "ON").unwrap();
    connection.execute_batch(include_str!("../../../migrations/sqlite/0001_records.sql")).unwrap();
    let begun = Instant::now();
    let mut writes: usize = 0;
    while begun.elapsed() < time {
        let transaction = connection.transaction().unwrap();
        {
            let mut put = transaction
                .prepare_cached(
                    "INSERT INTO record (namespace, kind, name, parent, rev, term, labels, sealed) \
                     VALUES (0, 9, ?1, ?2, ?3, 1, x'', ?4) \
                     ON CONFLICT DO UPDATE SET rev = rev + 1, sealed = excluded.sealed",
                )
                .unwrap();
            for _ in 0..16 {
                let version =
                    (writes as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
                let secret =
                    (writes as u128 % 800).wrapping_mul(0xd1b5_4a32_d192_ed03_aa01_57b1_1d2f_3c4d);
                let parent = [7u8; 16];
                put.execute(params![version.to_be_bytes(), parent, 1, [1u8; VERSION_BYTES]])
                    .unwrap();
                put.execute(params![secret.to_be_bytes(), parent, 1, [2u8; METADATA_BYTES]])
                    .unwrap();
                writes += 1;
            }
        }
        transaction.commit().unwrap();
    }
    Run::of(writes, begun.elapsed())
}
