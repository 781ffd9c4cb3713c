use super::*;
use crate::crypto::envelope::OVERHEAD_BYTES;
use crate::storage::Expect;

fn sealed() -> SealedRecord {
    let mut bytes = vec![0; OVERHEAD_BYTES];
    bytes[0] = 1;
    bytes[1] = 1;
    SealedRecord::from_stored(bytes).unwrap()
}

fn put(name: u8) -> Change {
    let name = Tag::from_bytes([name; 16]);
    let key = RowKey { namespace: NamespaceId::ROOT, kind: Kind(1), name };
    let row = Row { key, parent: name, rev: 1, due_at: None, labels: vec![], sealed: sealed() };
    Change::Put { row, expect: Expect::Absent }
}

#[test]
fn every_question_is_answered_by_an_index() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    drop(file::prepare(&path).unwrap());
    let mut db = file::connect_to_write(&path).unwrap();
    file::migrate(&mut db).unwrap();
    for (query, index) in [
        (read::GET, "sqlite_autoindex_record_1"),
        (read::LIST, "INDEX record_parent"),
        (read::LABELLED, "sqlite_autoindex_record_1"),
        (read::LABELLED, "SEARCH l USING PRIMARY KEY"),
        (read::COUNT_LABELLED, "PRIMARY KEY"),
        (read::DUE, "INDEX record_due"),
        (read::NEXT_DUE, "COVERING INDEX record_due"),
        (read::COUNT_KIND, "COVERING INDEX record_due"),
        (read::COUNT_DUE, "COVERING INDEX record_due"),
        (read::WRAPPED_BELOW, "sqlite_autoindex_record_1"),
        (read::ANY_WRAPPED_BELOW, "COVERING INDEX record_term"),
        (read::COUNT_WRAPPED_BELOW, "COVERING INDEX record_term"),
        (read::META, "PRIMARY KEY"),
    ] {
        let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
        let nulls = vec![rusqlite::types::Null; statement.parameter_count()];
        let plan: Vec<String> = statement
            .query_map(rusqlite::params_from_iter(nulls), |row| row.get(3))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let plan = plan.join(" | ");
        assert!(plan.contains(index), "{query}\n{plan}");
        assert!(!plan.contains("TEMP B-TREE") && !plan.contains("SCAN r"), "{query}\n{plan}");
    }
}

#[test]
fn a_commit_waits_for_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    drop(file::prepare(&path).unwrap());
    let db = file::connect_to_write(&path).unwrap();
    let mode: String = db.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    let synchronous: i64 = db.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
    assert_eq!((mode.as_str(), synchronous), ("wal", 2), "2 is FULL");
}

#[tokio::test]
async fn full_queues_answer_busy_at_once_and_lose_nothing_they_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    let options =
        SqliteOptions { readers: 1, read_queue_max: 1, write_queue_max: 1, ..<_>::default() };
    let store = SqliteStorage::open(&path, options).unwrap();

    // A question that does not end until we let it.
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let (started, has_started) = oneshot::channel();
    let slow = {
        let store = store.clone();
        tokio::spawn(async move {
            store
                .read("slow", move |_| {
                    let _ = started.send(());
                    blocked.recv().unwrap();
                    Ok(())
                })
                .await
        })
    };
    has_started.await.unwrap();
    let mut waiting = Box::pin(store.sequence());
    assert!(futures_util::poll!(&mut waiting).is_pending(), "the queue takes one");
    assert!(matches!(store.sequence().await, Err(StorageError::Busy)));
    release.send(()).unwrap();
    slow.await.unwrap().unwrap();
    assert_eq!(waiting.await.unwrap(), 0);

    // Writers, against a foreign lock on the file.
    let foreign = file::connect_to_write(&path).unwrap();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    let commits: Vec<_> = (0..8)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.commit(vec![put(n)]).await })
        })
        .collect();
    tokio::task::yield_now().await;
    foreign.execute_batch("ROLLBACK").unwrap();
    let mut done = 0;
    for commit in commits {
        match commit.await.unwrap() {
            Ok(_) => done += 1,
            Err(StorageError::Busy) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(done > 0);
    let count = store.count(Kind(1), Timestamp::MAX).await.unwrap();
    assert_eq!(count.total, done, "what was refused did not happen, what was accepted did");
    store.close().await;
    assert!(matches!(store.sequence().await, Err(StorageError::Unavailable(_))));
}
