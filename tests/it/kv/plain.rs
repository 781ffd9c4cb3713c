//! Version 1.

use leasehold::core::hold::HoldCell;
use leasehold::core::mount::{MountClass, MountConfig, MountTable, NewMount, Registry};

use super::*;

#[tokio::test]
async fn a_secret_is_written_read_replaced_and_deleted() {
    let store = Store::new();
    let kv = store.plain();
    assert_not_found(kv.get("app/db").await);
    assert_eq!(kv.exists("app/db").await, Some(false));
    assert_done(kv.put("app/db", json!({"password": "hunter2", "port": 5432})).await);
    assert_eq!(kv.exists("app/db").await, Some(true));
    assert_eq!(kv.read("app/db").await, json!({"password": "hunter2", "port": 5432}));
    assert_done(kv.put("app/db", json!({"other": [1, {"deep": null}]})).await);
    assert_eq!(kv.read("app/db").await, json!({"other": [1, {"deep": null}]}));
    assert_done(kv.delete("app/db").await);
    assert_done(kv.delete("app/db").await);
    assert_not_found(kv.get("app/db").await);
    assert_eq!(store.rows().await, 0);
}

#[tokio::test]
async fn a_ttl_is_answered_as_a_duration_without_a_lease() {
    let store = Store::new();
    let kv = store.plain();
    for (secret, secs) in [
        (json!({"x": 1}), 2_764_800),
        (json!({"ttl": "1h"}), 3600),
        (json!({"ttl": 90}), 90),
        (json!({"ttl": "45"}), 45),
        (json!({"lease": "2m"}), 120),
        (json!({"ttl": "1h", "lease": "2m"}), 3600),
        (json!({"ttl": "soon"}), 2_764_800),
        (json!({"ttl": {"a": 1}}), 2_764_800),
        (json!({"ttl": -5}), 2_764_800),
    ] {
        assert_done(kv.put("s", secret.clone()).await);
        let reply = kv.get("s").await.unwrap();
        assert_eq!(reply.refresh_after, Ttl::from_secs(secs), "{secret}");
        assert!(reply.lease.is_none());
        assert_eq!(Value::Object(reply.data.unwrap()), secret);
    }
}

#[tokio::test]
async fn lists_show_one_level_and_only_what_is_there() {
    let store = Store::new();
    let kv = store.plain();
    assert_not_found(kv.call(Operation::List, "", Value::Null).await);
    for path in ["a", "a/b", "a/c/d", "z", "ü/x"] {
        assert_done(kv.put(path, json!({"at": path})).await);
    }
    assert_eq!(kv.list("").await.unwrap(), json!(["a", "a/", "z", "ü/"]));
    assert_eq!(kv.list("a/").await.unwrap(), json!(["b", "c/"]));
    assert_done(kv.delete("a/c/d").await);
    assert_eq!(kv.list("a/").await.unwrap(), json!(["b"]));
    assert_not_found(kv.call(Operation::List, "a/c/", Value::Null).await);
    // The secret `a` and the directory `a/` are two things.
    assert_eq!(kv.read("a").await, json!({"at": "a"}));
    for path in ["", "a/"] {
        for operation in [Operation::Read, Operation::Update, Operation::Delete] {
            let reply = kv.call(operation, path, json!({"x": 1})).await;
            assert_eq!(refusal(reply).0, 400, "{operation} {path}");
        }
    }
}

#[tokio::test]
async fn what_is_refused() {
    let store = Store::new();
    let kv = store.plain();
    assert_eq!(refusal(kv.put("s", json!({})).await), (400, "missing data fields".to_owned()));
    assert_eq!(refusal(kv.patch("s", json!({"x": 1})).await).0, 405);
    assert_eq!(store.rows().await, 0);
}

#[tokio::test]
async fn a_mount_keeps_the_version_it_was_made_with() {
    let store = Store::new();
    let options = |version: &str| [("version".to_owned(), version.to_owned())].into();
    for (kv, own, other) in [(store.plain(), "1", "2"), (store.versioned(), "2", "1")] {
        kv.engine.accept_options(&options(own)).unwrap();
        let refused = kv.engine.accept_options(&options(other)).unwrap_err();
        assert_eq!(refused.status(), 400);
        assert!(refused.public_text().contains("options.version"));
    }
    let facts = MountFacts { options: options("3"), ..store.plain().facts };
    assert_eq!(kv::build(&facts).err().unwrap().status(), 400);
}

#[tokio::test]
async fn tuning_cannot_change_the_version() {
    let store = Store::new();
    let mut registry = Registry::default();
    registry.engines.insert("kv", Box::new(kv::build));
    let records = Arc::new(Records::new(store.storage.clone(), store.keyring.clone(), 1 << 20));
    let hour = Ttl::from_secs(3600);
    let (registry, hold) = (Arc::new(registry), HoldCell::default());
    let mounts =
        MountTable::load(records, registry, store.clock.clone(), hold, hour, hour).await.unwrap();
    let new = NewMount {
        path: "secret".into(),
        class: MountClass::Secret,
        kind: "kv".into(),
        description: String::new(),
        options: Default::default(),
        config: MountConfig::default(),
    };
    mounts.enable(new).await.unwrap();
    let tune = |name: &'static str, value: &'static str| {
        mounts.tune("secret/", move |entry| {
            entry.options.insert(name.into(), value.into());
            Ok(())
        })
    };
    for version in ["2", "3", "x"] {
        assert_eq!(tune("version", version).await.unwrap_err().status(), 400);
    }
    // The mount is as it was, in service and in the store.
    assert!(mounts.at("secret/").unwrap().entry.options.is_empty());
    tune("version", "1").await.unwrap();
    mounts.reload().await.unwrap();
    assert_eq!(mounts.at("secret/").unwrap().entry.options["version"], "1");
}
