//! What clients of Vault and OpenBao count on, whatever path they ask.

use serde_json::{Value, json};

use super::world::{shared, unique};

#[tokio::test]
async fn put_is_post_and_the_list_verb_is_the_list_parameter() {
    let root = shared().await.broker.root();
    let dir = unique("manners");
    for method in ["POST", "PUT"] {
        let body = json!({ "by": method }).to_string();
        let answer =
            root.request(method, &format!("kv/{dir}/{method}"), &[], body.as_bytes()).await;
        assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{method}");
    }
    let path = format!("kv/{dir}");
    let names = json!({ "keys": ["POST", "PUT"] });
    assert_eq!(root.list(&path).await.data(), names);
    assert_eq!(root.list(&format!("{path}/")).await.data(), names);
    for query in ["list=true", "list=1", "list=True"] {
        assert_eq!(root.read(&format!("{path}?{query}")).await.data(), names, "{query}");
    }
    assert!(root.read(&format!("{path}?list=maybe")).await.error(400).contains("list"));
    let none = root.list(&format!("kv/{dir}-none")).await;
    assert_eq!((none.status, none.json()), (404, json!({ "errors": [] })));
}

#[tokio::test]
async fn the_envelope_has_all_its_keys() {
    let root = shared().await.broker.root();
    let keys = |answer: &Value| {
        let mut keys: Vec<String> = answer.as_object().unwrap().keys().cloned().collect();
        keys.sort_unstable();
        keys
    };
    let expected = [
        "auth",
        "data",
        "lease_duration",
        "lease_id",
        "mount_type",
        "renewable",
        "request_id",
        "warnings",
        "wrap_info",
    ];
    for path in ["sys/policies/acl", "secret/config", "auth/token/lookup-self", "sys/hold"] {
        let answer = root.read(path).await;
        assert_eq!(keys(&answer.ok()), expected, "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
}

#[tokio::test]
async fn durations_are_seconds_or_text_and_come_back_as_seconds() {
    let root = shared().await.broker.root();
    let mount = unique("durations");
    root.write(&format!("sys/mounts/{mount}"), json!({ "type": "kv" })).await.ok();
    let tune = format!("sys/mounts/{mount}/tune");
    for (given, seconds) in
        [(json!(90), 90), (json!("90"), 90), (json!("90s"), 90), (json!("1h30m"), 5400)]
    {
        root.write(&tune, json!({ "default_lease_ttl": given })).await.ok();
        assert_eq!(root.read(&tune).await.data()["default_lease_ttl"], seconds, "{given}");
    }
}

#[tokio::test]
async fn headers_of_stock_clients_are_taken_and_none_is_required() {
    let root = shared().await.broker.root();
    for headers in [
        &[][..],
        &[("x-vault-request", "true")],
        &[("x-vault-namespace", "")],
        &[("x-vault-namespace", "root/")],
        &[("x-vault-no-request-forwarding", "true"), ("x-vault-index", "x")],
    ] {
        root.request("GET", "sys/mounts", headers, b"").await.ok();
    }
    let elsewhere = root.request("GET", "sys/mounts", &[("x-vault-namespace", "team")], b"").await;
    assert!(elsewhere.error(400).contains("namespace"));
}

#[tokio::test]
async fn unknown_fields_are_warnings_wherever_they_stand() {
    let root = shared().await.broker.root();
    let mount = unique("warned");
    let asked = json!({
        "type": "kv", "colour": "blue",
        "config": { "max_lease_ttl": "1h", "sound": "loud", "force_no_cache": true },
    });
    let answer = root.write(&format!("sys/mounts/{mount}"), asked).await;
    assert_eq!(answer.status, 200);
    let warnings = answer.ok()["warnings"].to_string();
    assert!(warnings.contains("colour") && warnings.contains("config.sound"), "{warnings}");
    assert!(!warnings.contains("force_no_cache"), "{warnings}");
    let tuned = root.read(&format!("sys/mounts/{mount}/tune")).await.data();
    assert_eq!(tuned["max_lease_ttl"], 3600);
}

#[tokio::test]
async fn every_setting_of_a_mount_is_kept_and_shown_where_clients_look() {
    let root = shared().await.broker.root();
    let mount = unique("tuned");
    let lists = json!({
        "audit_non_hmac_request_keys": ["a"],
        "audit_non_hmac_response_keys": ["b", "c"],
        "passthrough_request_headers": ["X-One"],
        "allowed_response_headers": ["X-Two"],
    });
    let asked = json!({ "type": "kv", "config": lists });
    root.write(&format!("sys/mounts/{mount}"), asked).await.ok();
    let shown = |answer: &Value| {
        lists.as_object().unwrap().iter().all(|(name, list)| answer[name] == *list)
    };
    assert!(shown(&root.read("sys/mounts").await.data()[format!("{mount}/")]["config"]));
    assert!(shown(&root.read(&format!("sys/mounts/{mount}")).await.data()["config"]));
    let tune = format!("sys/mounts/{mount}/tune");
    assert!(shown(&root.read(&tune).await.data()));
    root.write(&tune, json!({ "passthrough_request_headers": [], "description": "d" })).await.ok();
    let tuned = root.read(&tune).await.data();
    assert_eq!(
        (&tuned["description"], &tuned["passthrough_request_headers"]),
        (&json!("d"), &Value::Null)
    );
}

#[tokio::test]
async fn any_answer_can_be_wrapped() {
    let root = shared().await.broker.root();
    let ttl = [("x-vault-wrap-ttl", "60")];
    for (method, path, body) in [
        ("GET", "sys/mounts", ""),
        ("LIST", "sys/policies/acl", ""),
        ("POST", "auth/token/create", "{}"),
        ("POST", "sys/tools/random", "{}"),
    ] {
        let answer = root.request(method, path, &ttl, body.as_bytes()).await.ok();
        assert_eq!((&answer["data"], &answer["auth"]), (&Value::Null, &Value::Null), "{path}");
        assert_eq!(
            answer["wrap_info"]["creation_path"].as_str().unwrap().trim_end_matches('/'),
            path
        );
        let token = answer["wrap_info"]["token"].clone();
        let opened = root.write("sys/wrapping/unwrap", json!({ "token": token })).await.ok();
        assert!(opened["data"].is_object() || opened["auth"].is_object(), "{path}: {opened}");
    }
}

#[tokio::test]
async fn health_is_a_status_that_the_asker_chooses() {
    let nobody = shared().await.broker.admin();
    for (method, query, status) in [
        ("GET", "", 200),
        ("HEAD", "", 200),
        ("GET", "?activecode=299", 299),
        ("HEAD", "?activecode=299", 299),
        ("GET", "?sealedcode=599&uninitcode=598&standbycode=597", 200),
        ("GET", "?standbyok=true&perfstandbyok=true", 200),
    ] {
        let answer = nobody.request(method, &format!("sys/health{query}"), &[], b"").await;
        assert_eq!(answer.status, status, "{method} {query}");
        nobody.hang_up().await;
    }
}

#[tokio::test]
async fn a_mount_that_moves_takes_its_secrets_leases_and_tokens_along() {
    let world = shared().await;
    let root = world.broker.root();
    let (from, to) = (unique("here"), unique("there"));
    root.write(&format!("sys/mounts/{from}"), json!({ "type": "database" })).await.ok();
    let config = world.database_config(&world.database);
    root.write(&format!("{from}/config/pg"), config).await.ok();
    let role = json!({ "db_name": "pg", "creation_statements": super::world::CREATE });
    root.write(&format!("{from}/roles/reader"), role).await.ok();
    let lease = root.read(&format!("{from}/creds/reader")).await.ok()["lease_id"].clone();
    let (people, crowd) = (unique("people"), unique("crowd"));
    root.write(&format!("sys/auth/{people}"), json!({ "type": "userpass" })).await.ok();
    let user = json!({ "password": "correct horse", "token_policies": "default" });
    root.write(&format!("auth/{people}/users/ann"), user).await.ok();
    let login = |mount: &str| format!("auth/{mount}/login/ann");
    let password = json!({ "password": "correct horse" });
    let made = root.write(&login(&people), password.clone()).await.ok();
    let ann = world.broker.admin().with_token(made["auth"]["client_token"].as_str().unwrap());

    for (from, to) in
        [(from.clone(), to.clone()), (format!("auth/{people}"), format!("auth/{crowd}"))]
    {
        let moved = root.write("sys/remount", json!({ "from": from, "to": to })).await.data();
        let id = moved["migration_id"].as_str().unwrap();
        let status = root.read(&format!("sys/remount/status/{id}")).await.data();
        assert_eq!(status["migration_info"]["status"], "success");
    }
    assert_eq!(root.read(&format!("{from}/roles/reader")).await.status, 404);
    assert_eq!(root.read(&format!("{to}/roles/reader")).await.data()["db_name"], "pg");
    let known = root.write("sys/leases/lookup", json!({ "lease_id": lease })).await.data();
    assert_eq!(known["id"], lease);
    root.write("sys/leases/renew", json!({ "lease_id": lease })).await.ok();
    root.write("sys/leases/revoke", json!({ "lease_id": lease })).await.ok();
    ann.write("auth/token/renew-self", json!({})).await.ok();
    root.write(&login(&crowd), password.clone()).await.ok();
    assert_eq!(root.write(&login(&people), password).await.status, 404);
    // An auth mount that goes takes the tokens that it gave, wherever it was then.
    root.delete(&format!("sys/auth/{crowd}")).await.ok();
    assert_eq!(ann.read("auth/token/lookup-self").await.status, 403);
}

#[tokio::test]
async fn a_patch_is_a_merge_patch_by_its_media_type_however_that_is_spelled() {
    let root = shared().await.broker.root();
    let path = format!("secret/data/{}", unique("patched"));
    root.write(&path, json!({ "data": { "a": "1", "b": "2" } })).await.ok();
    let patch = async |media_type: &str, body: Value| {
        let headers = [("content-type", media_type)];
        root.request("PATCH", &path, &headers, body.to_string().as_bytes()).await
    };
    let change = json!({ "data": { "a": null, "c": "3" } });
    for other in ["application/json", "application/json-patch+json", "text/plain", "merge-patch"] {
        assert_eq!(patch(other, change.clone()).await.status, 415, "{other}");
    }
    assert_eq!(root.read(&path).await.data()["data"], json!({ "a": "1", "b": "2" }));
    patch("Application/Merge-Patch+JSON; charset=utf-8", change).await.ok();
    assert_eq!(root.read(&path).await.data()["data"], json!({ "b": "2", "c": "3" }));
    patch("application/merge-patch+json", json!({ "data": { "b": "4" } })).await.ok();
    assert_eq!(root.read(&path).await.data()["data"], json!({ "b": "4", "c": "3" }));
}
