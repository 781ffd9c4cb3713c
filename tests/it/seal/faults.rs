//! The n-th write fails, before or after it is done, and the process is started anew: shares that
//! somebody holds open the store, and nothing in it is lost.

use leasehold::storage::fault::{FaultyStorage, Moment, Reach};

use super::*;

const MOMENTS: [Moment; 2] = [Moment::Before, Moment::After];
const ROWS: u32 = 40;

async fn faulty(directory: &Path) -> (Arc<FaultyStorage>, Arc<dyn Storage>) {
    let inner = sqlite(directory).await;
    (FaultyStorage::new(inner.clone()), inner)
}

#[tokio::test]
async fn initialising_happens_whole_or_not_at_all() {
    for moment in MOMENTS {
        let directory = tempfile::tempdir().unwrap();
        let (storage, inner) = faulty(directory.path()).await;
        let node = Node::new(storage.clone()).await;
        storage.fail_writes(Reach::From(1), moment);
        let body = json!({"secret_shares": 3, "secret_threshold": 2});
        let failed = node.call(Verb::Write, "sys/init", body.clone()).await.unwrap_err();
        assert_eq!(failed.status(), 503);
        assert_eq!(storage.writes(), 1, "initialising is one commit");
        let restarted = Node::new(inner.clone()).await;
        let again = restarted.call(Verb::Write, "sys/init", body).await;
        match moment {
            Moment::Before => {
                let keys = Keys::of(&again.unwrap().1, 2);
                restarted.unseal(&keys).await.unwrap();
                // Nothing of the first try is left to be in the way of destroying old keys.
                restarted.core.rotate_keys(&restarted.unsealed(), None).await.unwrap();
                restarted.core.maintain_keys(&restarted.unsealed()).await.unwrap();
                let terms = restarted.core.key_status(&restarted.unsealed()).await.unwrap().terms;
                assert_eq!(terms.len(), 1);
            }
            Moment::After => assert_eq!(status(again), 400),
        }
    }
}

#[tokio::test]
async fn a_rotation_that_breaks_off_anywhere_loses_nothing_and_goes_on() {
    for moment in MOMENTS {
        for nth in 1.. {
            let directory = tempfile::tempdir().unwrap();
            let (storage, inner) = faulty(directory.path()).await;
            let node = Node::new(storage.clone()).await;
            let keys = node.init(3, 2).await;
            node.unseal(&keys).await.unwrap();
            node.write(0..ROWS).await;
            storage.fail_writes(Reach::From(nth), moment);
            let rotated = node.core.rotate_keys(&node.unsealed(), None).await;
            let maintained = node.core.maintain_keys(&node.unsealed()).await;
            let broken_off = storage.writes() >= nth;
            assert_eq!(broken_off, rotated.is_err() || maintained.is_err());

            let restarted = Node::new(inner.clone()).await;
            restarted.unseal(&keys).await.unwrap();
            restarted.assert_readable(0..ROWS).await;
            let unsealed = restarted.unsealed();
            restarted.core.maintain_keys(&unsealed).await.unwrap();
            restarted.core.maintain_keys(&unsealed).await.unwrap();
            let status = restarted.core.key_status(&unsealed).await.unwrap();
            assert_eq!((status.terms.len(), status.pending), (1, 0), "{nth} {moment:?}");
            restarted.assert_readable(0..ROWS).await;
            if !broken_off {
                assert!(nth > 3, "there was more than one write to fail");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_process_that_outlives_the_fault_goes_on_too() {
    for moment in MOMENTS {
        let directory = tempfile::tempdir().unwrap();
        let (storage, _inner) = faulty(directory.path()).await;
        let node = Node::new(storage.clone()).await;
        let keys = node.init(1, 1).await;
        node.unseal(&keys).await.unwrap();
        node.write(0..ROWS).await;
        for nth in 1..6 {
            storage.fail_writes(Reach::Only(nth), moment);
            let _ = node.core.rotate_keys(&node.unsealed(), None).await;
            let _ = node.core.maintain_keys(&node.unsealed()).await;
            storage.fail_writes(Reach::Nothing, moment);
            node.write(0..ROWS).await;
            node.core.maintain_keys(&node.unsealed()).await.unwrap();
            node.assert_readable(0..ROWS).await;
            let status = node.core.key_status(&node.unsealed()).await.unwrap();
            assert_eq!((status.terms.len(), status.pending), (1, 0), "{nth} {moment:?}");
        }
    }
}

#[tokio::test]
async fn shares_that_somebody_holds_open_the_store_whatever_fails() {
    for verify in [false, true] {
        for moment in MOMENTS {
            for nth in 1.. {
                let directory = tempfile::tempdir().unwrap();
                let (storage, inner) = faulty(directory.path()).await;
                let node = Node::new(storage.clone()).await;
                let old = node.init(3, 2).await;
                node.unseal(&old).await.unwrap();
                storage.fail_writes(Reach::From(nth), moment);
                let new = rekey_and_verify(&node, &old, verify).await;
                let broken_off = storage.writes() >= nth;

                // The old shares are everybody's; the new ones only exist if they were answered.
                let old_opens = Node::opens(&inner, &old).await;
                let new_opens = match &new {
                    Some(new) => Node::opens(&inner, new).await,
                    None => false,
                };
                assert!(old_opens || new_opens, "{verify} {moment:?} {nth}");
                if !broken_off {
                    assert!(new_opens && !old_opens);
                    break;
                }
            }
        }
    }
}

/// As far as it goes; the new shares when they were answered.
async fn rekey_and_verify(node: &Node, old: &Keys, verify: bool) -> Option<Keys> {
    let plan = json!({"secret_shares": 3, "secret_threshold": 2, "require_verification": verify});
    let started = node.ok(Verb::Write, "sys/rekey/init", plan).await;
    let mut answer = Value::Null;
    for key in old.enough() {
        let share = json!({"key": key, "nonce": started["nonce"]});
        answer = node.call(Verb::Write, "sys/rekey/update", share).await.ok()?.1;
    }
    let new = Keys::of(&answer, 2);
    for key in new.enough() {
        let share = json!({"key": key, "nonce": answer["verification_nonce"]});
        let _ = node.call(Verb::Write, "sys/rekey/verify", share).await;
    }
    Some(new)
}
