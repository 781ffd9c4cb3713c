//! A store that fails at the worst moment: a change happens whole or not at all.

use leasehold::storage::fault::{FaultyStorage, Moment, Reach};

use super::*;

/// Every kind of change, in an order in which each finds something to do.
fn scenario() -> Vec<(Operation, &'static str, Value)> {
    use Operation::{Delete, Patch, Update};
    vec![
        (Update, "config", json!({"max_versions": 2})),
        (Update, "data/a/s", json!({"data": {"n": 1}})),
        (Update, "data/a/s", json!({"data": {"n": 2}})),
        (Update, "data/a/s", json!({"data": {"n": 3}})),
        (Patch, "data/a/s", json!({"data": {"m": 4}})),
        (Delete, "data/a/s", Value::Null),
        (Update, "undelete/a/s", json!({"versions": [4]})),
        (Update, "delete/a/s", json!({"versions": [3, 4]})),
        (Update, "destroy/a/s", json!({"versions": [3]})),
        (Update, "metadata/a/s", json!({"custom_metadata": {"k": "v"}})),
        (Patch, "metadata/a/s", json!({"custom_metadata": {"k": null, "l": "w"}})),
        (Update, "data/b", json!({"data": {"n": 1}})),
        (Delete, "metadata/a/s", Value::Null),
        (Delete, "metadata/b", Value::Null),
    ]
}

/// All that a node that starts now can see, and how many rows there are.
async fn seen(store: &Store) -> Value {
    let kv = store.versioned();
    let mut all = json!({ "config": kv.read("config").await, "rows": store.rows().await });
    for path in ["a/s", "b"] {
        let Ok(reply) = kv.get(&format!("metadata/{path}")).await else { continue };
        let metadata = reply.data.unwrap();
        for version in metadata["versions"].as_object().unwrap().keys() {
            let body = json!({ "version": version });
            let read = kv.call(Operation::Read, &format!("data/{path}"), body).await.unwrap();
            all[format!("{path} {version}")] = Value::Object(read.data.unwrap());
        }
        all[path] = Value::Object(metadata);
    }
    all
}

/// What is seen after each step when nothing fails, before the first included.
async fn states() -> Vec<Value> {
    let store = Store::new();
    let kv = store.versioned();
    let mut states = vec![seen(&store).await];
    for (operation, path, body) in scenario() {
        kv.call(operation, path, body).await.unwrap();
        states.push(seen(&store).await);
    }
    states
}

#[tokio::test]
async fn a_failed_write_leaves_all_or_nothing() {
    let states = states().await;
    for moment in [Moment::Before, Moment::After] {
        let inner = Store::new();
        let faulty = FaultyStorage::new(inner.storage.clone());
        let store = Store::over(faulty.clone(), None);
        let kv = store.versioned();
        for (step, (operation, path, body)) in scenario().into_iter().enumerate() {
            faulty.fail_writes(Reach::Only(1), moment);
            let failed = kv.call(operation, path, body.clone()).await;
            assert_eq!(failed.unwrap_err().status(), 503, "{operation} {path}");
            assert_eq!(faulty.writes(), 1, "one commit for one request");
            let done = moment == Moment::After;
            let expected = &states[if done { step + 1 } else { step }];
            assert_eq!(seen(&store).await, *expected, "{operation} {path} {moment:?}");
            if !done {
                // The same node, with whatever it cached, can do it when the store is back.
                kv.call(operation, path, body).await.unwrap();
                assert_eq!(seen(&store).await, states[step + 1], "{operation} {path}");
            }
        }
        assert_eq!(store.rows().await, 2, "only the settings and their directory are left");
    }
}

#[tokio::test]
async fn a_failed_read_changes_nothing() {
    let states = states().await;
    let inner = Store::new();
    let faulty = FaultyStorage::new(inner.storage.clone());
    let store = Store::over(faulty.clone(), None);
    for (step, (operation, path, body)) in scenario().into_iter().enumerate() {
        for nth in 1.. {
            // A node that starts now has cached nothing.
            let kv = store.versioned();
            faulty.fail_reads(Reach::Only(nth));
            let result = kv.call(operation, path, body.clone()).await;
            let reached = faulty.reads() >= nth;
            faulty.fail_reads(Reach::Nothing);
            // Beyond the last read; or it was the look for an empty directory, when all is done.
            let Err(error) = result else { break };
            assert!(reached);
            assert_eq!(error.status(), 503);
            assert_eq!(seen(&store).await, states[step], "{operation} {path} read {nth}");
        }
        assert_eq!(seen(&store).await, states[step + 1], "{operation} {path}");
    }
}
