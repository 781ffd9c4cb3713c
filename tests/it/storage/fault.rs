//! The store that fails on purpose does so when it was told to, and only then.

use leasehold::storage::fault::{FaultyStorage, Moment, Reach};

use super::*;

#[tokio::test]
async fn faults_hit_what_they_were_aimed_at() {
    let store = FaultyStorage::new(TestStore::sqlite().open().await);
    store.commit(vec![insert(row(1))]).await.unwrap();
    assert_eq!(store.writes(), 1);

    store.fail_writes(Reach::Only(2), Moment::Before);
    store.commit(vec![insert(row(2))]).await.unwrap();
    store.commit(vec![insert(row(3))]).await.unwrap_err();
    store.commit(vec![insert(row(4))]).await.unwrap();
    assert_eq!(store.get(key(3)).await.unwrap(), None);

    store.fail_writes(Reach::From(1), Moment::After);
    let unknown = store.commit(vec![insert(row(5))]).await;
    assert!(matches!(unknown, Err(StorageError::Unavailable(_))), "{unknown:?}");
    assert_eq!(store.get(key(5)).await.unwrap(), Some(row(5)), "it happened nevertheless");
    let refused = store.commit(vec![insert(row(5))]).await;
    assert!(matches!(refused, Err(StorageError::Conflict)), "{refused:?}");
    store.reseal(vec![(key(5), 1, sealed(2, b"new"))]).await.unwrap_err();
    assert_eq!(store.writes(), 3);

    store.fail_writes(Reach::Nothing, Moment::Before);
    store.fail_reads(Reach::From(2));
    assert!(store.get(key(1)).await.is_ok());
    assert!(store.get(key(1)).await.is_err());
    assert!(store.claim(KIND, Timestamp::MAX, 1, Timestamp::MAX, 9).await.is_err());
    assert!(store.meta("m").await.is_err());
    assert_eq!(store.reads(), 4);
    store.commit(vec![insert(row(6))]).await.unwrap();
    store.fail_reads(Reach::Nothing);
    assert_eq!(store.get(key(6)).await.unwrap(), Some(row(6)));
}
