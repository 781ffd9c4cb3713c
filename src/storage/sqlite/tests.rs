use super::*;
use crate::crypto::digest::sha256;
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
        (read::NAMES, "COVERING INDEX sqlite_autoindex_record_1"),
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

/// Waits until the names of the file are known, by one that it does not have.
async fn until_learned(store: &SqliteStorage, absent: &RowKey) {
    let names = store.names.as_ref().unwrap();
    for _ in 0..3000 {
        if names.lack(absent) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the names were never learned");
}

fn key(kind: u16, name: u8) -> RowKey {
    let name = Tag::from_bytes([name; 16]);
    RowKey { namespace: NamespaceId::ROOT, kind: Kind(kind), name }
}

#[tokio::test]
async fn what_was_never_written_is_told_without_asking_and_nothing_else_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    let store = SqliteStorage::open(&path, SqliteOptions::default()).unwrap();
    store.commit(vec![put(1), put(2)]).await.unwrap();
    store.close().await;

    let options =
        SqliteOptions { readers: 1, often_absent: Some(Kind(1)), ..SqliteOptions::default() };
    let store = SqliteStorage::open(&path, options).unwrap();
    until_learned(&store, &key(1, 9)).await;
    store.commit(vec![put(3)]).await.unwrap();
    store.commit(vec![Change::Delete { key: key(1, 2), rev: 1 }]).await.unwrap();
    // Nobody answers.
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let slow = {
        let store = store.clone();
        tokio::spawn(async move {
            store.read("slow", move |_| blocked.recv().map_err(|_| closed())).await
        })
    };
    tokio::task::yield_now().await;
    assert!(store.get(key(1, 9)).await.unwrap().is_none());
    let other_tenant = RowKey { namespace: NamespaceId(7), ..key(1, 9) };
    let asked = [key(1, 1), key(1, 2), key(1, 3), key(2, 9), other_tenant];
    let mut asked = asked.map(|key| Box::pin(store.get(key)));
    for question in &mut asked {
        assert!(futures_util::poll!(question).is_pending());
    }
    release.send(()).unwrap();
    slow.await.unwrap().unwrap();
    let mut found = Vec::new();
    for question in asked {
        found.push(question.await.unwrap().is_some());
    }
    assert_eq!(found, [true, false, true, false, false]);

    store.close().await;
    assert!(matches!(store.get(key(1, 9)).await, Err(StorageError::Unavailable(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_row_is_missed_while_the_names_are_learned() {
    const BEFORE: u32 = 30_000;
    // As evenly spread as the tags of names.
    let tag = |n: u32| Tag::from_bytes(*sha256(&n.to_be_bytes()).first_chunk().unwrap());
    let key = move |n| RowKey { namespace: NamespaceId::ROOT, kind: Kind(1), name: tag(n) };
    let put = move |n| {
        let row = Row {
            key: key(n),
            parent: tag(0),
            rev: 1,
            due_at: None,
            labels: vec![],
            sealed: sealed(),
        };
        Change::Put { row, expect: Expect::Absent }
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    let store = SqliteStorage::open(&path, SqliteOptions::default()).unwrap();
    for first in (0..BEFORE).step_by(1000) {
        store.commit((first..first + 1000).map(put).collect()).await.unwrap();
    }
    store.close().await;

    let options = SqliteOptions { often_absent: Some(Kind(1)), ..SqliteOptions::default() };
    for round in 0..3 {
        let store = SqliteStorage::open(&path, options).unwrap();
        // Whoever writes and whoever asks, while the file is still being gone through.
        let writers = (0..4u32).map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..40u32 {
                    let new = BEFORE + round * 1000 + writer * 100 + n;
                    store.commit(vec![put(new)]).await.unwrap();
                    assert!(store.get(key(new)).await.unwrap().is_some(), "{new}");
                    let old = n.wrapping_mul(2_654_435_761) % BEFORE;
                    assert!(store.get(key(old)).await.unwrap().is_some(), "{old}");
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        let never = (1 << 31..).map(key).take(1000).collect::<Vec<_>>();
        until_learned(&store, &never[0]).await;
        let names = store.names.as_ref().unwrap();
        for n in 0..BEFORE {
            assert!(!names.lack(&key(n)), "{n}");
        }
        // And it is of use: hardly anything is asked for nothing.
        let known = never.iter().filter(|key| names.lack(key)).count();
        assert!(known > 990, "{known} of 1000");
        store.close().await;
    }
}
