//! Version 2, request by request.

use super::*;

fn at(secs: i64) -> String {
    Timestamp::from_secs(1_767_225_600 + secs).to_rfc3339()
}

fn versions(numbers: &[u64]) -> Value {
    json!({ "versions": numbers })
}

async fn write(kv: &Mount, path: &str, data: Value) -> Value {
    data_of(kv.put(&format!("data/{path}"), json!({ "data": data })).await.unwrap())
}

#[tokio::test]
async fn the_life_of_a_secret_as_clients_see_it() {
    let store = Store::new();
    let kv = store.versioned();
    assert_not_found(kv.get("data/app/db").await);
    assert_not_found(kv.get("metadata/app/db").await);
    assert_not_found(kv.get("subkeys/app/db").await);
    let first = json!({
        "version": 1, "created_time": START, "deletion_time": "", "destroyed": false,
        "custom_metadata": null,
    });
    assert_eq!(write(&kv, "app/db", json!({"password": "one"})).await, first);
    let read = kv.read("data/app/db").await;
    assert_eq!(read, json!({"data": {"password": "one"}, "metadata": first}));

    store.advance(60);
    let second = json!({
        "version": 2, "created_time": at(60), "deletion_time": "", "destroyed": false,
        "custom_metadata": null,
    });
    assert_eq!(write(&kv, "app/db", json!({"password": "two"})).await, second);
    assert_eq!(kv.read("data/app/db").await["data"], json!({"password": "two"}));
    assert_eq!(kv.read_version("app/db", 1).await, json!({"password": "one"}));
    assert_eq!(kv.read_version("app/db", 0).await, json!({"password": "two"}));
    let third = kv.call(Operation::Read, "data/app/db", json!({"version": 3})).await;
    assert_not_found(third);

    store.advance(60);
    assert_done(kv.delete("data/app/db").await);
    let deleted = json!({
        "version": 2, "created_time": at(60), "deletion_time": at(120), "destroyed": false,
        "custom_metadata": null,
    });
    let gone = kv.read_gone("data/app/db", Value::Null).await;
    assert_eq!(gone, json!({"data": null, "metadata": deleted}));
    let gone = kv.read_gone("subkeys/app/db", Value::Null).await;
    assert_eq!(gone, json!({"subkeys": null, "metadata": deleted}));

    assert_done(kv.put("undelete/app/db", versions(&[2])).await);
    assert_eq!(kv.read("data/app/db").await["metadata"], second);
    assert_done(kv.put("destroy/app/db", versions(&[1])).await);
    let gone = kv.read_gone("data/app/db", json!({"version": 1})).await;
    let destroyed = json!({
        "version": 1, "created_time": START, "deletion_time": "", "destroyed": true,
        "custom_metadata": null,
    });
    assert_eq!(gone, json!({"data": null, "metadata": destroyed}));

    let metadata = json!({
        "cas_required": false, "created_time": START, "updated_time": at(60),
        "current_version": 2, "oldest_version": 0, "custom_metadata": null,
        "delete_version_after": "0s", "max_versions": 0,
        "versions": {
            "1": {"created_time": START, "deletion_time": "", "destroyed": true},
            "2": {"created_time": at(60), "deletion_time": "", "destroyed": false},
        },
    });
    assert_eq!(kv.read("metadata/app/db").await, metadata);
    assert_done(kv.delete("metadata/app/db").await);
    assert_not_found(kv.get("metadata/app/db").await);
    assert_eq!(store.rows().await, 0, "nothing is left of a removed secret");
}

#[tokio::test]
async fn the_settings_of_a_mount() {
    let store = Store::new();
    let kv = store.versioned();
    let none = json!({"max_versions": 0, "cas_required": false, "delete_version_after": "0s"});
    assert_eq!(kv.read("config").await, none);
    let body = json!({"max_versions": 5, "cas_required": true, "delete_version_after": "3h25m19s"});
    assert_done(kv.put("config", body.clone()).await);
    assert_eq!(kv.read("config").await, body);
    assert_done(kv.put("config", json!({"max_versions": 7})).await);
    let body = json!({"max_versions": 7, "cas_required": true, "delete_version_after": "3h25m19s"});
    assert_eq!(kv.read("config").await, body);
    let body = json!({"cas_required": "false", "delete_version_after": 0, "max_versions": "0"});
    assert_done(kv.put("config", body).await);
    assert_eq!(kv.read("config").await, none);
    assert_bad_field(kv.put("config", json!({"max_versions": -1})).await, "max_versions");
    assert_bad_field(kv.put("config", json!({"max_versions": 1001})).await, "max_versions");
    assert_bad_field(kv.put("config", json!({"cas_required": "hunter2"})).await, "cas_required");
    let negative = json!({"delete_version_after": "-1s"});
    assert_bad_field(kv.put("config", negative).await, "delete_version_after");
}

#[tokio::test]
async fn check_and_set() {
    const MISMATCH: &str = "check-and-set parameter did not match the current version";
    const REQUIRED: &str = "check-and-set parameter required for this call";
    let store = Store::new();
    let kv = store.versioned();
    let body = |cas: Value| json!({"data": {"x": 1}, "options": {"cas": cas}});
    let refused = |text: &str| (400, text.to_owned());
    assert_eq!(refusal(kv.put("data/s", body(json!(1))).await), refused(MISMATCH));
    assert_eq!(data_of(kv.put("data/s", body(json!(0))).await.unwrap())["version"], 1);
    assert_eq!(refusal(kv.put("data/s", body(json!(0))).await), refused(MISMATCH));
    assert_eq!(data_of(kv.put("data/s", body(json!("1"))).await.unwrap())["version"], 2);
    // A hidden version still counts.
    assert_done(kv.delete("data/s").await);
    assert_eq!(refusal(kv.put("data/s", body(json!(0))).await), refused(MISMATCH));
    assert_eq!(refusal(kv.patch("data/s", body(json!(1))).await), refused(MISMATCH));
    for cas in [json!(-1), json!(1.5), json!("x"), Value::Null, json!([2]), json!({"hunter2": 1})] {
        assert_bad_field(kv.put("data/s", body(cas)).await, "options.cas");
    }
    assert_bad_field(kv.put("data/s", json!({"data": {}, "options": "cas=2"})).await, "options");

    // Required by the secret, then by the mount.
    assert_done(kv.put("metadata/s", json!({"cas_required": true})).await);
    assert_eq!(refusal(kv.put("data/s", json!({"data": {}})).await), refused(REQUIRED));
    assert_eq!(data_of(kv.put("data/s", body(json!(2))).await.unwrap())["version"], 3);
    let patch = json!({"data": {"y": 1}});
    assert_eq!(refusal(kv.patch("data/s", patch).await), refused(REQUIRED));
    assert_done(kv.put("config", json!({"cas_required": true})).await);
    assert_eq!(refusal(kv.put("data/new", json!({"data": {}})).await), refused(REQUIRED));
    assert_eq!(data_of(kv.put("data/new", body(json!(0))).await.unwrap())["version"], 1);
    let reply = kv.put("metadata/new", json!({"cas_required": false})).await.unwrap();
    assert!(reply.warnings[0].contains("cas_required"));
}

#[tokio::test]
async fn an_unknown_option_is_told() {
    let store = Store::new();
    let kv = store.versioned();
    let body = json!({"data": {"x": 1}, "options": {"CAS": 0}});
    let reply = kv.put("data/s", body).await.unwrap();
    assert!(reply.warnings[0].contains("CAS"), "{:?}", reply.warnings);
    assert_eq!(data_of(reply)["version"], 1);
}

#[tokio::test]
async fn patches_merge_into_the_next_version() {
    let store = Store::new();
    let kv = store.versioned();
    let patch = |data: Value| kv.patch("data/s", json!({ "data": data }));
    assert_not_found(patch(json!({"x": 1})).await);
    write(&kv, "s", json!({"keep": 1, "drop": 2, "deep": {"a": 1, "b": [1, 2]}})).await;
    let reply = patch(json!({"drop": null, "deep": {"b": [3], "c": {"d": null}}, "new": "x"}));
    assert_eq!(data_of(reply.await.unwrap())["version"], 2);
    let merged = json!({"keep": 1, "deep": {"a": 1, "b": [3], "c": {}}, "new": "x"});
    assert_eq!(kv.read("data/s").await["data"], merged);
    assert_eq!(kv.read_version("s", 1).await["drop"], 2);
    let with_cas = json!({"data": {"keep": 2}, "options": {"cas": 2}});
    assert_eq!(data_of(kv.patch("data/s", with_cas).await.unwrap())["version"], 3);

    // Nothing to merge into: hidden, then destroyed.
    assert_done(kv.delete("data/s").await);
    let reply = patch(json!({"x": 1})).await.unwrap();
    assert_eq!(reply.status, Status::Gone);
    assert_eq!(reply.data.unwrap()["metadata"]["version"], 3);
    assert_done(kv.put("destroy/s", versions(&[3])).await);
    assert_eq!(patch(json!({"x": 1})).await.unwrap().status, Status::Gone);
    assert_eq!(kv.read("metadata/s").await["current_version"], 3);

    // A secret that has no version yet.
    assert_done(kv.put("metadata/empty", json!({"max_versions": 3})).await);
    assert_not_found(kv.patch("data/empty", json!({"data": {"x": 1}})).await);
}

#[tokio::test]
async fn patches_cannot_build_up_a_secret_without_bound() {
    let store = Store::new();
    let kv = store.versioned();
    let half = "x".repeat(600_000);
    write(&kv, "s", json!({ "a": half })).await;
    let (status, text) = refusal(kv.patch("data/s", json!({"data": {"b": half}})).await);
    assert_eq!((status, text.contains("1 MiB")), (400, true));
    // What was written whole may be larger, and may shrink.
    write(&kv, "s", json!({"a": half, "b": half, "c": 1})).await;
    assert!(kv.patch("data/s", json!({"data": {"d": 2}})).await.is_err());
    kv.patch("data/s", json!({"data": {"c": null}})).await.unwrap();
    assert_eq!(kv.read("metadata/s").await["current_version"], 3);
}

#[tokio::test]
async fn hiding_showing_and_destroying() {
    let store = Store::new();
    let kv = store.versioned();
    for n in 1..=4 {
        write(&kv, "s", json!({ "n": n })).await;
    }
    let gone = async |version: u64| {
        let body = json!({ "version": version });
        let reply = kv.call(Operation::Read, "data/s", body).await.unwrap();
        reply.status == Status::Gone
    };
    // Numbers come as a list of numbers or of texts, or as one text; those that are not there are
    // no error.
    assert_done(kv.put("delete/s", json!({"versions": ["1", "2"]})).await);
    assert_done(kv.put("delete/s", json!({"versions": "3,99"})).await);
    assert!(gone(1).await && gone(2).await && gone(3).await && !gone(4).await);
    let deletion_time = kv.read("metadata/s").await["versions"]["1"]["deletion_time"].clone();
    store.advance(5);
    assert_done(kv.put("delete/s", versions(&[1])).await);
    let again = kv.read("metadata/s").await["versions"]["1"]["deletion_time"].clone();
    assert_eq!(again, deletion_time, "hiding twice does not change when");
    assert_done(kv.put("undelete/s", versions(&[1, 2, 99])).await);
    assert!(!gone(1).await && !gone(2).await && gone(3).await);

    assert_eq!(kv.contents().await, 4);
    assert_done(kv.put("destroy/s", versions(&[1, 3, 99])).await);
    assert_eq!(kv.contents().await, 2, "the contents are gone, not hidden");
    assert_done(kv.put("undelete/s", versions(&[1, 3])).await);
    assert_done(kv.put("delete/s", versions(&[1])).await);
    assert_done(kv.put("destroy/s", versions(&[1])).await);
    assert!(gone(1).await && gone(3).await);
    for path in ["delete/s", "undelete/s", "destroy/s"] {
        assert_bad_field(kv.put(path, json!({})).await, "versions");
        assert_bad_field(kv.put(path, json!({"versions": []})).await, "versions");
        assert_bad_field(kv.put(path, json!({"versions": ["hunter2"]})).await, "versions");
        assert_bad_field(kv.put(path, json!({"versions": [-1]})).await, "versions");
        let absent = path.replace("/s", "/absent");
        assert_done(kv.put(&absent, versions(&[1])).await);
    }
    assert_done(kv.delete("data/absent").await);
    assert_not_found(kv.get("metadata/absent").await);
}

#[tokio::test]
async fn old_versions_go_with_their_contents() {
    let store = Store::new();
    let kv = store.versioned();
    for n in 1..=12 {
        write(&kv, "ten", json!({ "n": n })).await;
    }
    let metadata = kv.read("metadata/ten").await;
    assert_eq!(
        (&metadata["oldest_version"], &metadata["current_version"]),
        (&json!(3), &json!(12))
    );
    assert_eq!(metadata["versions"].as_object().unwrap().len(), 10);
    assert_not_found(kv.call(Operation::Read, "data/ten", json!({"version": 2})).await);
    assert_eq!(kv.contents().await, 10);
    // The secret's own number goes before the mount's, and a lower one counts from the next write.
    assert_done(kv.put("config", json!({"max_versions": 4})).await);
    assert_done(kv.put("metadata/ten", json!({"max_versions": 2})).await);
    assert_eq!(kv.contents().await, 10);
    write(&kv, "ten", json!({"n": 13})).await;
    assert_eq!(kv.contents().await, 2);
    assert_eq!(kv.read_version("ten", 12).await, json!({"n": 12}));
    for n in 1..=6 {
        write(&kv, "four", json!({ "n": n })).await;
    }
    assert_eq!(kv.contents().await, 6);
    // What was destroyed before has nothing left to remove.
    assert_done(kv.put("destroy/four", versions(&[3])).await);
    write(&kv, "four", json!({"n": 7})).await;
    assert_eq!(kv.read("metadata/four").await["oldest_version"], 4);
    assert_eq!(kv.contents().await, 6);
}

#[tokio::test]
async fn versions_hide_themselves_when_their_time_has_come() {
    let store = Store::new();
    let kv = store.versioned();
    assert_done(kv.put("config", json!({"delete_version_after": "1h"})).await);
    let written = write(&kv, "s", json!({"n": 1})).await;
    assert_eq!(written["deletion_time"], at(3600));
    let reply = kv.put("metadata/s", json!({"delete_version_after": "2h"})).await.unwrap();
    assert!(reply.warnings[0].contains("delete_version_after"));
    assert_eq!(write(&kv, "s", json!({"n": 2})).await["deletion_time"], at(3600));
    assert_done(kv.put("metadata/s", json!({"delete_version_after": "10s"})).await);
    assert_eq!(kv.read("metadata/s").await["delete_version_after"], "10s");
    assert_eq!(write(&kv, "s", json!({"n": 3})).await["deletion_time"], at(10));
    store.advance(9);
    assert_eq!(kv.read("data/s").await["data"]["n"], 3);
    store.advance(1);
    kv.read_gone("data/s", Value::Null).await;
    assert_eq!(kv.read_version("s", 1).await["n"], 1);
    // Shown again, it stays.
    assert_done(kv.put("undelete/s", versions(&[1, 3])).await);
    store.advance(7200);
    assert_eq!(kv.read("data/s").await["metadata"]["deletion_time"], "");
    assert_eq!(kv.read_version("s", 1).await["n"], 1);
    kv.read_gone("data/s", json!({"version": 2})).await;
    // What somebody hid stays hidden although the clock is set back.
    assert_done(kv.delete("data/s").await);
    store.clock.set_wall(Timestamp::from_secs(1_767_225_600));
    kv.read_gone("data/s", Value::Null).await;
}

#[tokio::test]
async fn metadata_is_written_patched_and_listed() {
    let store = Store::new();
    let kv = store.versioned();
    assert_not_found(kv.patch("metadata/s", json!({"max_versions": 3})).await);
    let body = json!({"max_versions": 3, "custom_metadata": {"owner": "team-a", "n": 5}});
    assert_done(kv.put("metadata/s", body).await);
    let metadata = json!({
        "cas_required": false, "created_time": START, "updated_time": START,
        "current_version": 0, "oldest_version": 0, "versions": {},
        "custom_metadata": {"owner": "team-a", "n": "5"},
        "delete_version_after": "0s", "max_versions": 3,
    });
    assert_eq!(kv.read("metadata/s").await, metadata);
    assert_not_found(kv.get("data/s").await);
    assert_eq!(kv.list("metadata/").await.unwrap(), json!(["s"]));
    let written = write(&kv, "s", json!({"x": 1})).await;
    assert_eq!(written["custom_metadata"], json!({"owner": "team-a", "n": "5"}));

    let patch = json!({"custom_metadata": {"n": null, "tier": "gold"}, "cas_required": true});
    assert_done(kv.patch("metadata/s", patch).await);
    let metadata = kv.read("metadata/s").await;
    assert_eq!(metadata["custom_metadata"], json!({"owner": "team-a", "tier": "gold"}));
    assert_eq!((&metadata["max_versions"], &metadata["cas_required"]), (&json!(3), &json!(true)));
    let nulls = json!({"max_versions": null, "cas_required": null, "custom_metadata": null});
    assert_done(kv.put("metadata/s", nulls.clone()).await);
    assert_eq!(kv.read("metadata/s").await["max_versions"], 3, "a write leaves what is null");
    assert_done(kv.patch("metadata/s", nulls).await);
    let metadata = kv.read("metadata/s").await;
    assert_eq!((&metadata["max_versions"], &metadata["cas_required"]), (&json!(0), &json!(false)));
    assert_eq!(metadata["custom_metadata"], Value::Null);
    // A write replaces the notes whole.
    assert_done(kv.put("metadata/s", json!({"custom_metadata": {"a": "1"}})).await);
    assert_done(kv.put("metadata/s", json!({"custom_metadata": {"b": "2"}})).await);
    assert_eq!(kv.read("metadata/s").await["custom_metadata"], json!({"b": "2"}));
}

#[tokio::test]
async fn custom_metadata_has_limits() {
    let store = Store::new();
    let kv = store.versioned();
    let custom = |pairs: Vec<(String, String)>| json!({"custom_metadata": pairs.into_iter().collect::<std::collections::BTreeMap<_, _>>()});
    let many = |count: usize| (0..count).map(|n| (format!("k{n}"), "v".to_owned())).collect();
    let one = |key: &str, value: &str| custom(vec![(key.to_owned(), value.to_owned())]);
    assert_done(kv.put("metadata/s", custom(many(64))).await);
    assert_done(kv.put("metadata/s", one(&"k".repeat(128), &"v".repeat(512))).await);
    for body in [
        custom(many(65)),
        one(&"k".repeat(129), "v"),
        one("k", &"v".repeat(513)),
        one("", "v"),
        one("k", ""),
        one("k\n", "hunter2"),
        one("k", "hunter2\u{7f}"),
        json!({"custom_metadata": {"k": ["hunter2"]}}),
        json!({"custom_metadata": 5}),
    ] {
        assert_bad_field(kv.put("metadata/s", body.clone()).await, "custom_metadata");
        assert_bad_field(kv.patch("metadata/s", body).await, "custom_metadata");
    }
    // A patch cannot go past the limits bit by bit either.
    assert_done(kv.put("metadata/s", custom(many(64))).await);
    assert_bad_field(kv.patch("metadata/s", one("another", "v")).await, "custom_metadata");
    let swap = json!({"custom_metadata": {"k0": null, "another": "v"}});
    assert_done(kv.patch("metadata/s", swap).await);
}

#[tokio::test]
async fn subkeys_show_names_and_no_values() {
    let store = Store::new();
    let kv = store.versioned();
    write(&kv, "s", json!({"old": 1})).await;
    write(&kv, "s", json!({"a": {"b": {"c": "hunter2"}}, "d": ["hunter2"], "e": {}})).await;
    let shape = async |body: Value| {
        let reply = kv.call(Operation::Read, "subkeys/s", body).await.unwrap();
        data_of(reply)["subkeys"].clone()
    };
    let whole = json!({"a": {"b": {"c": null}}, "d": null, "e": null});
    assert_eq!(shape(json!({})).await, whole);
    assert_eq!(shape(json!({"depth": 0})).await, whole);
    assert_eq!(shape(json!({"depth": 1})).await, json!({"a": null, "d": null, "e": null}));
    assert_eq!(shape(json!({"depth": "2"})).await, json!({"a": {"b": null}, "d": null, "e": null}));
    assert_eq!(shape(json!({"version": 1})).await, json!({"old": null}));
    let negative = kv.call(Operation::Read, "subkeys/s", json!({"depth": -1})).await;
    assert_bad_field(negative, "depth");
}

#[tokio::test]
async fn paths_of_any_form_stay_apart() {
    let store = Store::new();
    let kv = store.versioned();
    let long = vec!["s"; 60].join("/");
    let paths = [
        "1", "1/1", "1/1/1", "a", "a/1", "a/2", "a/1:b", "1:a", "2:a/1", "meta/x", "ver/1",
        "config", "data", "Ü/ß", "a b", "*", "+", "%2e", &long,
    ];
    for path in paths {
        write(&kv, path, json!({"at": path, "n": 1})).await;
        write(&kv, path, json!({"at": path, "n": 2})).await;
    }
    assert_eq!(kv.contents().await, 2 * paths.len());
    for path in paths {
        assert_eq!(kv.read_version(path, 1).await, json!({"at": path, "n": 1}));
        assert_eq!(kv.read_version(path, 2).await, json!({"at": path, "n": 2}));
    }
    assert_eq!(kv.list("metadata/a/").await.unwrap(), json!(["1", "1:b", "2"]));
    assert_eq!(kv.list("metadata/1/").await.unwrap(), json!(["1", "1/"]));
    assert_done(kv.delete("metadata/1/1").await);
    assert_eq!(kv.read_version("1/1/1", 2).await["at"], "1/1/1");
    assert_eq!(kv.list("metadata/1/").await.unwrap(), json!(["1/"]));
    for path in paths {
        assert_done(kv.delete(&format!("metadata/{path}")).await);
    }
    assert_not_found(kv.call(Operation::List, "metadata/", Value::Null).await);
    assert_eq!(store.rows().await, 0);
}

#[tokio::test]
async fn a_write_is_told_to_create_or_to_update() {
    let store = Store::new();
    let kv = store.versioned();
    for path in ["data/s", "metadata/s"] {
        assert_eq!(kv.exists(path).await, Some(false));
    }
    write(&kv, "s", json!({"x": 1})).await;
    assert_done(kv.delete("data/s").await);
    for path in ["data/s", "metadata/s"] {
        assert_eq!(kv.exists(path).await, Some(true), "a hidden version is there all the same");
    }
    for path in ["config", "delete/s", "undelete/s", "destroy/s", "data/", "data/s/", "metadata/"] {
        assert_eq!(kv.exists(path).await, None, "{path}");
    }
}

#[tokio::test]
async fn bad_requests_name_what_is_wrong() {
    let store = Store::new();
    let kv = store.versioned();
    for body in [json!({}), json!({"data": null}), json!({"data": "hunter2"}), json!({"data": []})]
    {
        assert_bad_field(kv.put("data/s", body.clone()).await, "data");
        assert_bad_field(kv.patch("data/s", body).await, "data");
    }
    for version in [json!(-1), json!("x"), json!(1.5), json!([1])] {
        let body = json!({ "version": version });
        assert_bad_field(kv.call(Operation::Read, "data/s", body).await, "version");
    }
    for path in ["data/", "data/dir/", "metadata/", "metadata/dir/", "destroy/", "subkeys/"] {
        let body = json!({"data": {"x": 1}, "versions": [1]});
        let operation =
            if path.starts_with("subkeys") { Operation::Read } else { Operation::Update };
        let (route, _) = route::find(kv.engine.routes(), path).unwrap();
        let body = body.as_object().unwrap().clone().into_iter();
        let body = body.filter(|(name, _)| route.knows_field(name)).collect();
        assert_eq!(refusal(kv.call(operation, path, Value::Object(body)).await).0, 400, "{path}");
    }
    for (operation, path) in [
        (Operation::List, "data/"),
        (Operation::Delete, "config"),
        (Operation::Read, "delete/s"),
        (Operation::Read, "destroy/s"),
        (Operation::Update, "subkeys/s"),
        (Operation::Patch, "config"),
    ] {
        let reply = kv.call(operation, path, Value::Null).await;
        assert_eq!(refusal(reply).0, 405, "{operation} {path}");
    }
    assert_not_found(kv.get("nothing/s").await);
    assert_eq!(store.rows().await, 0);
}
