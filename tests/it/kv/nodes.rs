//! Many writers at once, in one process and in two that know nothing of each other.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use leasehold::storage::open::StorageSpec;
use leasehold::types::secret::SecretString;

use super::*;
use crate::support::postgres::TestPostgres;

const WRITERS: u64 = 24;

fn version(reply: Reply) -> u64 {
    reply.data.unwrap()["version"].as_u64().unwrap()
}

async fn keep_many(kv: &Mount) {
    assert_done(kv.put("config", json!({"max_versions": 100})).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_writers_all_succeed_each_with_a_version_of_its_own() {
    let store = Store::new();
    let nodes = [store.versioned(), store.versioned()];
    keep_many(&nodes[0]).await;
    let writes = (0..WRITERS).map(|n| {
        let node = &nodes[usize::try_from(n % 2).unwrap()];
        async move { (n, version(node.put("data/s", json!({"data": {"n": n}})).await.unwrap())) }
    });
    let written = join_all(writes).await;
    let versions: BTreeSet<u64> = written.iter().map(|(_, version)| *version).collect();
    assert_eq!(versions, (1..=WRITERS).collect());
    // One that has nothing in its cache: nobody tells these of each other's writes.
    let last = store.versioned();
    for (n, version) in written {
        assert_eq!(last.read_version("s", version).await, json!({"n": n}));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_parallel_writers_with_the_same_expectation_one_succeeds() {
    let store = Store::new();
    let nodes = [store.versioned(), store.versioned()];
    for cas in 0..4 {
        let body = json!({"data": {"x": cas}, "options": {"cas": cas}});
        let writes = (0..WRITERS).map(|n| {
            let node = &nodes[usize::try_from(n % 2).unwrap()];
            node.put("data/s", body.clone())
        });
        let (done, refused): (Vec<_>, Vec<_>) =
            join_all(writes).await.into_iter().partition(Result::is_ok);
        assert_eq!(done.len(), 1);
        for refused in refused {
            let text = "check-and-set parameter did not match the current version".to_owned();
            assert_eq!(refusal(refused), (400, text));
        }
    }
    assert_eq!(nodes[0].contents().await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_patches_lose_nothing() {
    let store = Store::new();
    let nodes = [store.versioned(), store.versioned()];
    nodes[0].put("data/s", json!({"data": {}})).await.unwrap();
    let patches = (0..WRITERS).map(|n| {
        let node = &nodes[usize::try_from(n % 2).unwrap()];
        let key = format!("k{n}");
        async move { node.patch("data/s", json!({"data": {key: n}})).await.unwrap() }
    });
    join_all(patches).await;
    let all: serde_json::Map<_, _> = (0..WRITERS).map(|n| (format!("k{n}"), json!(n))).collect();
    let last = store.versioned().read("data/s").await;
    assert_eq!(last["data"], Value::Object(all));
    assert_eq!(last["metadata"]["version"], WRITERS + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_never_fail_while_versions_go() {
    let store = Store::new();
    let nodes = [store.versioned(), store.versioned()];
    nodes[0].put("config", json!({"max_versions": 1})).await.unwrap();
    nodes[0].put("data/s", json!({"data": {"n": 0}})).await.unwrap();
    let write = async {
        for n in 1..=40 {
            nodes[0].put("data/s", json!({"data": {"n": n}})).await.unwrap();
        }
    };
    let read = async {
        for _ in 0..200 {
            let read = nodes[0].read("data/s").await;
            // What is answered fits together: version n + 1 holds n.
            let n = read["data"]["n"].as_u64().unwrap();
            assert_eq!(read["metadata"]["version"], n + 1);
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(write, read);
    assert_eq!(nodes[1].read("data/s").await["data"]["n"], 40);
    assert_eq!(nodes[0].contents().await, 1);
}

#[tokio::test]
async fn an_outdated_cache_neither_refuses_nor_skips_a_change() {
    let store = Store::new();
    let (old, new) = (store.versioned(), store.versioned());
    let body = |cas: u64| json!({"data": {"x": cas}, "options": {"cas": cas}});
    new.put("data/s", body(0)).await.unwrap();
    old.read("metadata/s").await;
    new.put("data/s", body(1)).await.unwrap();
    // The node still believes that version 1 is the latest.
    assert_eq!(old.read("metadata/s").await["current_version"], 1);
    assert_done(old.put("destroy/s", json!({"versions": [2]})).await);
    assert_eq!(new.contents().await, 1);

    let old = store.versioned();
    old.read("metadata/s").await;
    new.put("data/s", body(2)).await.unwrap();
    assert_eq!(version(old.put("data/s", body(3)).await.unwrap()), 4);

    let old = store.versioned();
    assert_not_found(old.get("metadata/t").await);
    new.put("data/t", json!({"data": {"a": 1}})).await.unwrap();
    assert_eq!(version(old.patch("data/t", json!({"data": {"b": 2}})).await.unwrap()), 2);

    // The other node removed the whole secret: the next write begins anew.
    assert_done(store.versioned().delete("metadata/t").await);
    assert_eq!(version(old.put("data/t", json!({"data": {"c": 3}})).await.unwrap()), 1);
    // Contents that another node destroyed are not answered from what this one remembers.
    assert_done(store.versioned().put("destroy/t", json!({"versions": [1]})).await);
    let fresh = store.versioned();
    assert_eq!(fresh.read_gone("data/t", Value::Null).await["metadata"]["destroyed"], true);
}

/// Each of two that take one of the last two secrets sees the other's still there.
async fn whoever_takes_the_last_secret_takes_the_directory(store: Store) {
    let nodes = [store.plain(), store.plain()];
    for round in 0..30 {
        let dir = format!("team-{round}/app");
        for name in ["a", "b"] {
            assert_done(nodes[0].put(&format!("{dir}/{name}"), json!({ "x": 1 })).await);
        }
        let (a, b) = (format!("{dir}/a"), format!("{dir}/b"));
        let (gone, also) = tokio::join!(nodes[0].delete(&a), nodes[1].delete(&b));
        assert_done(gone);
        assert_done(also);
        assert_eq!(store.rows().await, 0, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_takes_the_last_secret_takes_the_directory_on_sqlite() {
    whoever_takes_the_last_secret_takes_the_directory(Store::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_takes_the_last_secret_takes_the_directory_on_postgresql() {
    let url = SecretString::new(TestPostgres::shared().database());
    let spec = StorageSpec::Postgres { url, ca_file: None, max_connections: 8 };
    let storage = leasehold::storage::open::open(&spec).await.unwrap();
    whoever_takes_the_last_secret_takes_the_directory(Store::over(storage, None)).await;
}
