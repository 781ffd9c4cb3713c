//! The store: one contract, run on every implementation, and what each adds of its own.

mod contract;
#[cfg(feature = "failpoints")]
mod fault;
mod groups;
mod postgres;
mod sqlite;

use std::sync::Arc;

use leasehold::crypto::blind::Tag;
use leasehold::crypto::envelope::{OVERHEAD_BYTES, SealedRecord};
use leasehold::storage::open::{StorageSpec, open};
use leasehold::storage::{Change, Expect, Kind, Row, RowKey, Storage, StorageError};
use leasehold::types::id::NamespaceId;
use leasehold::types::secret::SecretString;
use leasehold::types::time::Timestamp;

use crate::support::postgres::TestPostgres;

/// An empty store that can be opened more than once.
pub struct TestStore {
    place: Place,
}

enum Place {
    Sqlite(tempfile::TempDir),
    Postgres { url: String },
}

impl TestStore {
    fn sqlite() -> Self {
        Self { place: Place::Sqlite(tempfile::tempdir().unwrap()) }
    }

    fn postgres() -> Self {
        Self { place: Place::Postgres { url: TestPostgres::shared().database() } }
    }

    fn spec(&self) -> StorageSpec {
        match &self.place {
            Place::Sqlite(directory) => {
                let path = directory.path().join("store/leasehold.db");
                StorageSpec::Sqlite { path, often_absent: Some(KIND) }
            }
            Place::Postgres { url } => StorageSpec::Postgres {
                url: SecretString::new(url.clone()),
                ca_file: None,
                max_connections: 8,
            },
        }
    }

    async fn try_open(&self) -> Result<Arc<dyn Storage>, StorageError> {
        open(&self.spec()).await
    }

    async fn open(&self) -> Arc<dyn Storage> {
        self.try_open().await.unwrap()
    }

    /// Changes the database behind the store's back.
    fn tamper(&self, sql: &str) {
        match (self.spec(), &self.place) {
            (StorageSpec::Sqlite { path, .. }, _) => {
                rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
            }
            (StorageSpec::Postgres { .. }, Place::Postgres { url }) => {
                let (_, database) = url.rsplit_once('/').unwrap();
                TestPostgres::shared().sql(database, sql);
            }
            (StorageSpec::Postgres { .. }, Place::Sqlite(_)) => unreachable!(),
        }
    }
}

/// One test for each store, for every function of the contract.
macro_rules! contract_tests {
    ($($test:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::contract::$test(&super::TestStore::sqlite()).await;
            })+
        }

        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::contract::$test(&super::TestStore::postgres()).await;
            })+
        }
    };
}

contract_tests!(
    rows_come_back_as_they_were_put,
    a_change_that_expects_something_else_is_a_conflict,
    a_batch_happens_whole_or_not_at_all,
    changes_see_those_before_them_in_the_batch,
    namespaces_and_kinds_do_not_mix,
    listings_page_in_tag_order,
    pages_are_capped,
    labels_follow_their_rows,
    due_rows_come_earliest_first,
    a_claim_excludes_others_until_it_ends,
    parallel_claims_are_disjoint,
    required_rows_must_be_there,
    a_directory_is_never_removed_under_a_child,
    a_limit_is_exact_under_concurrency,
    parallel_replacements_lose_no_update,
    a_conflict_in_a_crowd_fails_alone,
    opposite_orders_do_not_lock_each_other_out,
    resealing_touches_nothing_else,
    rows_wrapped_by_old_terms_are_found,
    a_raised_floor_refuses_older_terms_for_ever,
    nothing_slips_under_a_floor_that_is_being_raised,
    metadata_is_compared_and_set,
    the_sequence_never_falls,
    reopening_keeps_everything,
    a_newer_schema_is_refused,
    a_damaged_row_does_not_hide_its_neighbours,
    a_closed_store_says_so,
);

const KIND: Kind = Kind(7);

fn tag(number: u64) -> Tag {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    Tag::from_bytes(bytes)
}

fn key(number: u64) -> RowKey {
    RowKey { namespace: NamespaceId::ROOT, kind: KIND, name: tag(number) }
}

fn sealed(term: u32, body: &[u8]) -> SealedRecord {
    let mut bytes = vec![0; OVERHEAD_BYTES];
    bytes[..2].copy_from_slice(&[1, 1]);
    bytes[2..6].copy_from_slice(&term.to_be_bytes());
    bytes.extend_from_slice(body);
    let sealed = SealedRecord::from_stored(bytes).unwrap();
    assert_eq!(sealed.term(), term);
    sealed
}

const PARENT: u64 = 1_000_000;

/// A new row under [`PARENT`] with nothing else about it.
fn row(number: u64) -> Row {
    Row {
        key: key(number),
        parent: tag(PARENT),
        rev: 1,
        due_at: None,
        labels: vec![],
        sealed: sealed(1, &number.to_be_bytes()),
    }
}

fn due_row(number: u64, at: i64) -> Row {
    Row { due_at: Some(Timestamp::from_millis(at)), ..row(number) }
}

fn labelled_row(number: u64, labels: &[u64]) -> Row {
    Row { labels: labels.iter().copied().map(tag).collect(), ..row(number) }
}

fn insert(row: Row) -> Change {
    Change::Put { row, expect: Expect::Absent }
}

/// The row's next revision, as it stands otherwise.
fn next(row: &Row) -> Row {
    Row { rev: row.rev + 1, ..row.clone() }
}

fn replace(row: Row) -> Change {
    let expect = Expect::Rev(row.rev - 1);
    Change::Put { row, expect }
}

fn delete(row: &Row) -> Change {
    Change::Delete { key: row.key, rev: row.rev }
}
