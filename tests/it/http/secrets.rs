//! kv of both versions, and cubbyhole.

use serde_json::json;

use super::world::{shared, unique};

#[tokio::test]
async fn version_2_keeps_versions() {
    let world = shared().await;
    let root = world.broker.root();
    let path = unique("app/");
    let data = format!("secret/data/{path}");
    let first = root.write(&data, json!({ "data": { "a": 1, "b": "x" } })).await.data();
    assert_eq!((&first["version"], &first["destroyed"]), (&json!(1), &json!(false)));
    let second = root.write(&data, json!({ "data": { "a": 2 }, "options": { "cas": 1 } })).await;
    assert_eq!(second.data()["version"], 2);
    // A writer who has not seen the second version is told so.
    let stale = root.write(&data, json!({ "data": { "a": 3 }, "options": { "cas": 1 } })).await;
    assert!(stale.error(400).contains("check-and-set"), "{}", stale.body);
    assert_eq!(root.read(&data).await.data()["data"], json!({ "a": 2 }));
    let old = root.read(&format!("{data}?version=1")).await.data();
    assert_eq!(old["data"], json!({ "a": 1, "b": "x" }));

    let patched = root.patch(&data, json!({ "data": { "a": null, "c": [1, { "d": 2 }] } })).await;
    assert_eq!(patched.data()["version"], 3);
    assert_eq!(root.read(&data).await.data()["data"], json!({ "c": [1, { "d": 2 }] }));
    let keys = root.read(&format!("secret/subkeys/{path}")).await.data();
    assert_eq!(keys["subkeys"], json!({ "c": null }));

    // Deleted versions say when, and come back; destroyed ones do not.
    root.delete(&data).await.ok();
    let gone = root.read(&data).await;
    assert_eq!(gone.status, 404);
    let gone = gone.json();
    assert_eq!(gone["data"]["data"], json!(null));
    assert_ne!(gone["data"]["metadata"]["deletion_time"], json!(""));
    let versions = json!({ "versions": [3] });
    root.write(&format!("secret/undelete/{path}"), versions).await.ok();
    assert_eq!(root.read(&data).await.status, 200);
    root.write(&format!("secret/destroy/{path}"), json!({ "versions": [1, 3] })).await.ok();
    root.write(&format!("secret/undelete/{path}"), json!({ "versions": [1, 3] })).await.ok();
    for version in [1, 3] {
        let answer = root.read(&format!("{data}?version={version}")).await;
        assert_eq!(answer.status, 404);
        assert_eq!(answer.json()["data"]["metadata"]["destroyed"], true);
    }
    assert_eq!(root.read(&format!("{data}?version=2")).await.data()["data"], json!({ "a": 2 }));
}

#[tokio::test]
async fn numbers_come_back_digit_for_digit() {
    let root = shared().await.broker.root();
    for (path, wrapped) in
        [(unique("secret/data/number"), true), (unique("cubbyhole/number"), false)]
    {
        for number in
            ["340282366920938463463374607431768211457", "0.10000000000000000555", "1e+400"]
        {
            let body = format!(r#"{{"n":{number}}}"#);
            let body = if wrapped { format!(r#"{{"data":{body}}}"#) } else { body };
            root.request("POST", &path, &[], body.as_bytes()).await.ok();
            let answer = root.read(&path).await;
            assert!(answer.body.contains(&format!("\"n\":{number}")), "{}", answer.body);
        }
    }
}

#[tokio::test]
async fn version_2_keeps_what_is_known_of_a_secret() {
    let world = shared().await;
    let root = world.broker.root();
    let dir = unique("dir");
    let (data, metadata) = (format!("secret/data/{dir}/a"), format!("secret/metadata/{dir}/a"));
    let settings = json!({
        "max_versions": 2,
        "custom_metadata": { "owner": "team" },
        "delete_version_after": "1h",
    });
    root.write(&metadata, settings).await.ok();
    for n in 1..=3 {
        root.write(&data, json!({ "data": { "n": n } })).await.ok();
    }
    let known = root.read(&metadata).await.data();
    assert_eq!(known["custom_metadata"], json!({ "owner": "team" }));
    assert_eq!((&known["current_version"], &known["oldest_version"]), (&json!(3), &json!(2)));
    let versions = known["versions"].as_object().unwrap();
    assert_eq!(versions.keys().collect::<Vec<_>>(), ["2", "3"]);
    assert_ne!(versions["3"]["deletion_time"], json!(""), "it hides itself in an hour");
    root.patch(&metadata, json!({ "custom_metadata": { "owner": null, "x": "y" } })).await.ok();
    let known = root.read(&metadata).await.data();
    assert_eq!(known["custom_metadata"], json!({ "x": "y" }));

    root.write(&format!("secret/data/{dir}/b/c"), json!({ "data": {} })).await.ok();
    let names = root.list(&format!("secret/metadata/{dir}")).await.data();
    assert_eq!(names["keys"], json!(["a", "b/"]));
    root.write(&metadata, json!({ "cas_required": true })).await.ok();
    let blind = root.write(&data, json!({ "data": {} })).await;
    assert!(blind.error(400).contains("check-and-set"), "{}", blind.body);
    root.delete(&metadata).await.ok();
    assert_eq!(root.read(&metadata).await.status, 404);
    assert_eq!(root.read(&data).await.status, 404);
    let names = root.list(&format!("secret/metadata/{dir}")).await.data();
    assert_eq!(names["keys"], json!(["b/"]));
}

#[tokio::test]
async fn of_parallel_writers_with_check_and_set_one_wins() {
    let world = shared().await;
    let path = format!("secret/data/{}", unique("contended"));
    world.broker.root().write(&path, json!({ "data": { "n": 0 } })).await.ok();
    let write = async |n: u32| {
        let body = json!({ "data": { "n": n }, "options": { "cas": 1 } });
        world.broker.root().write(&path, body).await.status
    };
    let mut statuses: Vec<u16> = futures_util::future::join_all((1..=16).map(write)).await;
    statuses.sort_unstable();
    assert_eq!(statuses[0], 200);
    assert!(statuses[1..].iter().all(|status| [400, 409].contains(status)), "{statuses:?}");
    assert_eq!(world.broker.root().read(&path).await.data()["metadata"]["version"], 2);
}

#[tokio::test]
async fn version_1_keeps_one_value() {
    let world = shared().await;
    let root = world.broker.root();
    let path = format!("kv/{}", unique("x"));
    assert_eq!(root.write(&path, json!({ "a": "b", "ttl": "90s" })).await.status, 204);
    let read = root.read(&path).await.ok();
    assert_eq!(read["data"], json!({ "a": "b", "ttl": "90s" }));
    // What the secret says about its age is what clients are told; it is no lease.
    assert_eq!((&read["lease_duration"], &read["lease_id"]), (&json!(90), &json!("")));
    root.write(&path, json!({ "c": 1 })).await.ok();
    assert_eq!(root.read(&path).await.data(), json!({ "c": 1 }));
    assert!(!root.list("kv/").await.data()["keys"].as_array().unwrap().is_empty());
    root.delete(&path).await.ok();
    assert_eq!(root.read(&path).await.error(404), "");
}

#[tokio::test]
async fn a_cubbyhole_is_its_tokens_alone() {
    let world = shared().await;
    let policy = "";
    let (mine, _) = world.token(policy).await;
    let (yours, _) = world.token(policy).await;
    mine.write("cubbyhole/a/b", json!({ "k": "v" })).await.ok();
    assert_eq!(mine.read("cubbyhole/a/b").await.data(), json!({ "k": "v" }));
    assert_eq!(mine.list("cubbyhole/").await.data()["keys"], json!(["a/"]));
    assert_eq!(yours.read("cubbyhole/a/b").await.status, 404);
    assert_eq!(world.broker.root().read("cubbyhole/a/b").await.status, 404);
    mine.delete("cubbyhole/a/b").await.ok();
    assert_eq!(mine.read("cubbyhole/a/b").await.status, 404);
    // It ends with the token.
    mine.write("cubbyhole/a", json!({ "k": "v" })).await.ok();
    mine.write("auth/token/revoke-self", json!({})).await.ok();
    assert_eq!(mine.read("cubbyhole/a").await.status, 403);
}
