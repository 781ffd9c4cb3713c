//! Policies, what they grant, and what they say about themselves.

use serde_json::{Value, json};

use super::world::{shared, unique};

#[tokio::test]
async fn policies_are_kept_at_both_of_their_paths() {
    let world = shared().await;
    let root = world.broker.root();
    let name = unique("Kept-");
    let text = "path \"a/*\" {\n  capabilities = [\"read\"]\n}\n";
    assert_eq!(
        root.write(&format!("sys/policies/acl/{name}"), json!({ "policy": text })).await.status,
        204
    );
    let lower = name.to_lowercase();
    let read = root.read(&format!("sys/policies/acl/{lower}")).await.data();
    assert_eq!((&read["name"], &read["policy"]), (&json!(lower), &json!(text)));
    let old = root.read(&format!("sys/policy/{lower}")).await.ok();
    assert_eq!((&old["rules"], &old["data"]["rules"]), (&json!(text), &json!(text)));
    for path in ["sys/policies/acl", "sys/policy"] {
        let listed = root.list(path).await.data();
        assert!(listed["keys"].as_array().unwrap().contains(&json!(lower)), "{path}");
    }
    root.delete(&format!("sys/policies/acl/{lower}")).await.ok();
    assert_eq!(root.read(&format!("sys/policies/acl/{lower}")).await.error(404), "");
    for name in ["root", "default"] {
        let at = format!("sys/policies/acl/{name}");
        assert_eq!(root.delete(&at).await.status, 400, "{name}");
    }
    assert_eq!(root.write("sys/policies/acl/root", json!({ "policy": text })).await.status, 400);
}

#[tokio::test]
async fn bad_policies_are_refused_with_the_place() {
    let world = shared().await;
    let root = world.broker.root();
    let at = format!("sys/policies/acl/{}", unique("bad"));
    for (text, part) in [
        ("path \"a\" {\n  capabilities = [\"raed\"]\n}", "raed"),
        ("path \"a\" {", "line"),
        ("pth \"a\" { capabilities = [] }", "pth"),
        ("{\"path\": {\"a\": {\"capabilities\": 7}}}", "capabilities"),
        ("path \"a\" { policy = \"wirte\" }", "wirte"),
        ("path \"a/*/b\" { capabilities = [\"read\"] }", "a/*/b"),
    ] {
        let answer = root.write(&at, json!({ "policy": text })).await;
        let said = answer.error(400);
        assert!(said.contains(part), "{text}: {said}");
    }
    assert!(root.write(&at, json!({})).await.error(400).contains("policy"));
    assert_eq!(root.read(&at).await.status, 404);
}

#[tokio::test]
async fn the_more_specific_rule_counts_and_denial_wins() {
    let world = shared().await;
    let n = unique("prec");
    let policy = format!(
        r#"
        path "secret/data/{n}/*" {{ capabilities = ["create", "read", "update"] }}
        path "secret/data/{n}/closed/*" {{ capabilities = ["deny"] }}
        path "secret/data/{n}/closed/but" {{ capabilities = ["read"] }}
        path "secret/data/{n}/+/one" {{ capabilities = ["read"] }}
        path "kv/{n}" {{
            capabilities = ["create", "update"]
            allowed_parameters = {{ "size" = ["1", "2"], "note" = [] }}
            denied_parameters = {{ "secret" = [] }}
            required_parameters = ["size"]
        }}
        path "secret/metadata/{n}/*" {{
            capabilities = ["list"]
        }}
        path "sys/wrapping/wrap" {{
            capabilities = ["update"]
            min_wrapping_ttl = "1m"
            max_wrapping_ttl = "1h"
        }}
        "#
    );
    let (caller, _) = world.token(&policy).await;
    let statuses = async |path: &str| {
        (
            caller.read(&format!("secret/data/{n}/{path}")).await.status,
            caller.write(&format!("secret/data/{n}/{path}"), json!({ "data": {} })).await.status,
        )
    };
    assert_eq!(statuses("open").await, (404, 200));
    assert_eq!(statuses("closed/x").await, (403, 403));
    assert_eq!(statuses("closed/but").await, (404, 403));
    assert_eq!(statuses("x/one").await, (404, 403));
    let at = format!("kv/{n}");
    for (body, status) in [
        (json!({ "size": "1" }), 204),
        (json!({ "size": "2", "note": "x" }), 204),
        (json!({ "size": "3" }), 403),
        (json!({ "note": "x" }), 403),
        (json!({ "size": "1", "other": "x" }), 403),
        (json!({ "size": "1", "secret": "x" }), 403),
    ] {
        assert_eq!(caller.write(&at, body.clone()).await.status, status, "{body}");
    }
    for (ttl, status) in [("30s", 403), ("5m", 200), ("2h", 403)] {
        let headers = [("x-vault-wrap-ttl", ttl)];
        let answer = caller.request("POST", "sys/wrapping/wrap", &headers, b"{}").await;
        assert_eq!(answer.status, status, "{ttl}: {}", answer.body);
    }
    let answer = caller.write("sys/wrapping/wrap", json!({})).await;
    assert_ne!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn templates_speak_of_the_caller() {
    let world = shared().await;
    let policy = r#"
        path "secret/data/of/{{identity.entity.id}}/*" { capabilities = ["create", "read", "update"] }
    "#;
    let (caller, _) = world.workload(policy).await;
    let (other, _) = world.workload(policy).await;
    let id = |answer: Value| answer["auth"]["entity_id"].as_str().unwrap().to_owned();
    let mine = id(caller.write("auth/cert/login", json!({})).await.ok());
    let theirs = id(other.write("auth/cert/login", json!({})).await.ok());
    assert_ne!(mine, theirs);
    let at = |id: &str| format!("secret/data/of/{id}/x");
    assert_eq!(caller.write(&at(&mine), json!({ "data": {} })).await.status, 200);
    assert_eq!(caller.read(&at(&theirs)).await.status, 403);
    assert_eq!(other.read(&at(&mine)).await.status, 403);
}

#[tokio::test]
async fn a_changed_policy_counts_at_once() {
    let world = shared().await;
    let root = world.broker.root();
    let (caller, name) =
        world.workload(r#"path "secret/data/*" { capabilities = ["read"] }"#).await;
    for _ in 0..3 {
        assert_eq!(caller.read("secret/data/none").await.status, 404);
        let nothing = json!({ "policy": "path \"x\" { capabilities = [\"read\"] }" });
        root.write(&format!("sys/policies/acl/{name}"), nothing).await.ok();
        assert_eq!(caller.read("secret/data/none").await.status, 403);
        let again = json!({ "policy": r#"path "secret/data/*" { capabilities = ["read"] }"# });
        root.write(&format!("sys/policies/acl/{name}"), again).await.ok();
    }
    root.delete(&format!("sys/policies/acl/{name}")).await.ok();
    assert_eq!(caller.read("secret/data/none").await.status, 403);
}

#[tokio::test]
async fn capabilities_are_told_to_those_who_hold_them() {
    let world = shared().await;
    let policy = r#"
        path "secret/data/a" { capabilities = ["read", "update"] }
        path "secret/data/b" { capabilities = ["deny"] }
    "#;
    let (caller, token) = world.token(policy).await;
    let asked = json!({ "paths": ["secret/data/a", "secret/data/b", "secret/data/c"] });
    let told = caller.write("sys/capabilities-self", asked.clone()).await.ok();
    assert_eq!(told["secret/data/a"], json!(["read", "update"]));
    assert_eq!(told["data"]["secret/data/b"], json!(["deny"]));
    assert_eq!(told["secret/data/c"], json!(["deny"]));
    let root = world.broker.root();
    let mut about = asked.clone();
    about["token"] = json!(token);
    let told = root.write("sys/capabilities", about).await.data();
    assert_eq!(told["secret/data/a"], json!(["read", "update"]));
    let own = caller.read("auth/token/lookup-self").await.data();
    let about = json!({ "accessor": own["accessor"], "path": "secret/data/a" });
    let told = root.write("sys/capabilities-accessor", about).await.data();
    assert_eq!(told["capabilities"], json!(["read", "update"]));
    let told = root.write("sys/capabilities-self", json!({ "path": "anything" })).await.data();
    assert_eq!(told["capabilities"], json!(["root"]));
}

#[tokio::test]
async fn denials_are_explained_to_administrators_alone() {
    let world = shared().await;
    let name = unique("explained");
    let policy = r#"
        path "secret/data/*" { capabilities = ["read"] }
        path "secret/data/closed/*" { capabilities = ["deny"] }
    "#;
    let root = world.broker.root();
    root.write(&format!("sys/policies/acl/{name}"), json!({ "policy": policy })).await.ok();
    let explain = async |operation: &str, path: &str| {
        let asked = json!({ "path": path, "operation": operation, "policies": [name] });
        root.write("sys/explain", asked).await.data()
    };
    let yes = explain("read", "secret/data/x").await;
    assert_eq!((&yes["allowed"], &yes["matched"]["path"]), (&json!(true), &json!("secret/data/*")));
    let no = explain("update", "secret/data/x").await;
    assert_eq!((&no["allowed"], &no["missing_capability"]), (&json!(false), &json!("update")));
    let no = explain("read", "secret/data/closed/x").await;
    assert_eq!(no["matched"]["path"], "secret/data/closed/*");
    assert_eq!(no["matched"]["policies"], json!([name]));
    let no = explain("read", "elsewhere").await;
    assert_eq!((&no["allowed"], &no["matched"]), (&json!(false), &Value::Null));
    let (caller, _) = world.token(r#"path "sys/explain" { capabilities = ["update"] }"#).await;
    let answer = caller.write("sys/explain", json!({ "path": "x", "policies": [name] })).await;
    assert_eq!(answer.error(403), "permission denied");
}
