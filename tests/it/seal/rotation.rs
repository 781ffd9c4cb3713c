//! Key terms: made, re-wrapped, destroyed, with several nodes at it.

use leasehold::core::seal::RotationSettings;
use leasehold::crypto::aead::Suite;

use super::*;

async fn unsealed_node(storage: Arc<dyn Storage>) -> (Node, Keys) {
    let node = Node::new(storage).await;
    let keys = node.init(3, 2).await;
    node.unseal(&keys).await.unwrap();
    (node, keys)
}

#[tokio::test]
async fn rotating_moves_every_row_and_destroys_the_old_key() {
    let directory = tempfile::tempdir().unwrap();
    let (node, keys) = unsealed_node(sqlite(directory.path()).await).await;
    node.write(0..600).await;
    let unsealed = node.unsealed();
    let before = node.core.storage.meta("keyring").await.unwrap().unwrap();
    let term = node.core.rotate_keys(&unsealed, Some(Suite::ChaCha20Poly1305)).await.unwrap();
    assert_eq!(term, 2);
    node.write(600..601).await;
    let during = node.core.key_status(&unsealed).await.unwrap();
    assert_eq!((during.terms.len(), during.active.term), (2, 2));
    assert_eq!(during.active.suite, Suite::ChaCha20Poly1305);
    assert!(during.pending >= 600, "{}", during.pending);
    node.assert_readable(0..601).await;

    node.core.maintain_keys(&unsealed).await.unwrap();
    let after = node.core.key_status(&unsealed).await.unwrap();
    assert_eq!((after.terms.len(), after.active.term, after.pending), (1, 2, 0));
    assert!(after.active.encryptions > 600);
    assert_ne!(node.core.storage.meta("keyring").await.unwrap().unwrap(), before);
    drop(unsealed);
    node.core.seal().await;
    node.unseal(&keys).await.unwrap();
    node.assert_readable(0..601).await;
    assert_eq!(node.unsealed().records.keyring().terms().len(), 1);
    assert!(node.is_root(keys.root_token.as_deref().unwrap()).await);
}

#[tokio::test]
async fn counts_survive_sealing() {
    let directory = tempfile::tempdir().unwrap();
    let (node, keys) = unsealed_node(sqlite(directory.path()).await).await;
    node.write(0..50).await;
    let before = node.core.key_status(&node.unsealed()).await.unwrap().active.encryptions;
    node.core.seal().await;
    node.unseal(&keys).await.unwrap();
    let after = node.core.key_status(&node.unsealed()).await.unwrap().active.encryptions;
    assert!(before >= 50 && after >= before, "{before} {after}");
}

#[tokio::test]
async fn keys_are_rotated_by_age_when_that_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let (node, _) = unsealed_node(sqlite(directory.path()).await).await;
    let unsealed = node.unsealed();
    let day = Ttl::from_secs(24 * 3600);
    let settings = RotationSettings { interval: day, ..RotationSettings::default() };
    node.core.set_rotation_settings(&unsealed, settings).await.unwrap();
    assert_eq!(node.core.rotation_settings(&unsealed).await.unwrap(), settings);
    node.core.maintain_keys(&unsealed).await.unwrap();
    assert_eq!(unsealed.records.keyring().active_term(), 1);
    node.clock.advance(Duration::from_secs(24 * 3600));
    node.core.maintain_keys(&unsealed).await.unwrap();
    node.core.maintain_keys(&unsealed).await.unwrap();
    assert_eq!(unsealed.records.keyring().active_term(), 2, "once, not at every round");
    assert_eq!(unsealed.records.keyring().terms().len(), 1);
}

#[tokio::test]
async fn a_node_that_was_not_told_reads_and_writes_on() {
    let directory = tempfile::tempdir().unwrap();
    two_nodes(|| {
        let path = directory.path().to_owned();
        async move { sqlite(&path).await }
    })
    .await;
}

#[tokio::test]
async fn a_node_that_was_not_told_reads_and_writes_on_with_postgresql() {
    let url = postgres_url();
    let storage = || {
        let url = url.clone();
        async move { postgres(&url).await }
    };
    let (first, second) = (storage().await, storage().await);
    a_rotates_under_b(first, second).await;
}

/// SQLite lets one process in, but two cores in it are two nodes as far as keys are concerned.
async fn two_nodes<F: Future<Output = Arc<dyn Storage>>>(storage: impl Fn() -> F) {
    let storage = storage().await;
    a_rotates_under_b(storage.clone(), storage).await;
}

async fn a_rotates_under_b(first: Arc<dyn Storage>, second: Arc<dyn Storage>) {
    let (a, keys) = unsealed_node(first).await;
    let b = Node::new(second).await;
    b.unseal(&keys).await.unwrap();
    b.write(0..20).await;

    // A row under a term that B has not heard of.
    a.core.rotate_keys(&a.unsealed(), None).await.unwrap();
    a.write(20..40).await;
    assert_eq!(b.unsealed().records.keyring().active_term(), 1);
    b.assert_readable(0..40).await;
    assert_eq!(b.unsealed().records.keyring().active_term(), 2);

    // B writes on under a term that is destroyed meanwhile.
    a.core.rotate_keys(&a.unsealed(), None).await.unwrap();
    b.write(40..60).await;
    a.core.maintain_keys(&a.unsealed()).await.unwrap();
    assert_eq!(a.unsealed().records.keyring().terms().len(), 1);
    assert_eq!(b.unsealed().records.keyring().active_term(), 2, "B still has the old keyring");
    b.write(60..80).await;
    assert_eq!(b.unsealed().records.keyring().active_term(), 3);
    a.assert_readable(0..80).await;
    b.assert_readable(0..80).await;

    // Both rotate at once, and write all the while.
    for round in 0..4 {
        let (x, y) = (a.unsealed(), b.unsealed());
        let (left, right, ..) = tokio::join!(
            a.core.rotate_keys(&x, None),
            b.core.rotate_keys(&y, None),
            a.write(100..120),
            b.write(120..140),
        );
        assert!(left.is_ok() && right.is_ok(), "round {round}");
        let (left, right, ..) = tokio::join!(
            a.core.maintain_keys(&x),
            b.core.maintain_keys(&y),
            a.write(140..160),
            b.write(160..180),
        );
        left.unwrap();
        right.unwrap();
    }
    a.core.maintain_keys(&a.unsealed()).await.unwrap();
    for node in [&a, &b] {
        node.assert_readable(0..80).await;
        node.assert_readable(100..180).await;
    }
    assert_eq!(a.core.key_status(&a.unsealed()).await.unwrap().terms.len(), 1);
}

#[tokio::test]
async fn a_row_that_does_not_open_keeps_the_old_key_and_no_other_row() {
    let directory = tempfile::tempdir().unwrap();
    let (node, _) = unsealed_node(sqlite(directory.path()).await).await;
    node.write(0..10).await;
    let path = directory.path().join("store/leasehold.db");
    let damaged = "UPDATE record SET sealed = CAST(substr(sealed, 1, 10) || zeroblob(60) || \
                   substr(sealed, 71) AS BLOB) WHERE rowid = (SELECT max(rowid) FROM record)";
    rusqlite::Connection::open(path).unwrap().execute(damaged, []).unwrap();
    let unsealed = node.unsealed();
    node.core.rotate_keys(&unsealed, None).await.unwrap();
    node.core.maintain_keys(&unsealed).await.unwrap();
    let status = node.core.key_status(&unsealed).await.unwrap();
    assert_eq!((status.terms.len(), status.pending), (2, 1));
}
