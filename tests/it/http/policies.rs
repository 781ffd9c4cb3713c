//! Policies, what they grant, and what they say about themselves.

use serde_json::{Value, json};

use crate::support::broker::{Caller, DOMAIN};

use super::world::{World, shared, unique};

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
async fn a_policy_that_is_removed_and_written_anew_is_the_new_one() {
    let world = shared().await;
    let root = world.broker.root();
    root.write("kv/anew", json!({ "a": 1 })).await.ok();
    let (caller, name) =
        world.workload(r#"path "kv/*" { capabilities = ["read", "update"] }"#).await;
    let at = format!("sys/policies/acl/{name}");
    let made = root.write("auth/token/create", json!({ "policies": [name] })).await.ok();
    let bearer = world.broker.admin().with_token(made["auth"]["client_token"].as_str().unwrap());
    for caller in [&caller, &bearer] {
        caller.write("kv/anew", json!({ "a": 1 })).await.ok();
    }
    root.delete(&at).await.ok();
    let narrow = r#"path "kv/anew" { capabilities = ["read"] }"#;
    root.write(&at, json!({ "policy": narrow })).await.ok();
    for caller in [&caller, &bearer] {
        caller.read("kv/anew").await.ok();
        caller.write("kv/anew", json!({ "a": 2 })).await.error(403);
    }
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

/// Somebody with policies of its role, of its entity and of a group, all three of their own.
struct Standing {
    caller: Caller,
    role: String,
    entity: String,
}

impl Standing {
    async fn of(world: &World) -> Self {
        let root = world.broker.root();
        let (caller, role) = world
            .workload(
                r#"
                path "secret/data/of/{{identity.entity.id}}/*" {
                    capabilities = ["create", "read", "update"]
                }
                path "secret/data/open/*" { capabilities = ["read"] }
                path "secret/data/open/closed" { capabilities = ["deny"] }
                path "secret/metadata/open/*" { capabilities = ["list"] }
                path "sys/leases" { capabilities = ["read"] }
                path "sys/explain" { capabilities = ["update", "sudo"] }
                path "auth/token/create" { capabilities = ["create", "update"] }
                "#,
            )
            .await;
        let own = caller.read("auth/token/lookup-self").await.data();
        let entity = own["entity_id"].as_str().unwrap().to_owned();
        let alias = json!({
            "name": format!("spiffe://{DOMAIN}/{role}"),
            "mount_accessor": root.read("sys/auth").await.data()["cert/"]["accessor"],
        });
        root.write("identity/entity-alias", alias).await.ok();
        let of_group = format!(
            "path \"secret/data/{{{{identity.groups.names.{role}.metadata.dir}}}}/*\" \
             {{ capabilities = [\"read\"] }}"
        );
        let of_entity = "path \"secret/data/entity/*\" { capabilities = [\"read\"] }".to_owned();
        for (kind, text) in [("group", of_group), ("entity", of_entity)] {
            let at = format!("sys/policies/acl/{role}-{kind}");
            root.write(&at, json!({ "policy": text })).await.ok();
        }
        let own = json!({ "policies": [format!("{role}-entity")] });
        root.write(&format!("identity/entity/id/{entity}"), own).await.ok();
        let group = json!({
            "policies": [format!("{role}-group")],
            "metadata": { "dir": format!("papers-{role}") },
            "member_entity_ids": [entity],
        });
        root.write(&format!("identity/group/name/{role}"), group).await.ok();
        Self { caller, role, entity }
    }

    /// A token of its own, and the accessor of that.
    async fn token(&self, world: &World, with: Value) -> (Caller, Value) {
        let made = self.caller.write("auth/token/create", with).await.ok();
        let token = made["auth"]["client_token"].as_str().unwrap();
        let caller = world.broker.caller(&world.broker.svid(&self.role)).with_token(token);
        (caller, made["auth"]["accessor"].clone())
    }
}

#[tokio::test]
async fn what_is_explained_is_what_is_decided() {
    let world = shared().await;
    let root = world.broker.root();
    let standing = Standing::of(world).await;
    let (caller, role, entity) = (&standing.caller, &standing.role, &standing.entity);
    let (whole, of_whole) = standing.token(world, json!({})).await;
    let narrow = json!({ "scopes": ["read:secret/data/open/*"] });
    let (narrow, of_narrow) = standing.token(world, narrow).await;
    let bare = json!({ "no_default_policy": true, "policies": [role] });
    let (bare, of_bare) = standing.token(world, bare).await;
    let by_entity = json!({ "entity_id": entity, "policies": [role] });
    let mut seen = std::collections::BTreeMap::<bool, usize>::new();
    for (operation, path) in [
        ("create", format!("secret/data/of/{entity}/x")),
        ("update", format!("secret/data/of/{entity}/x")),
        ("read", format!("secret/data/of/{entity}/x")),
        ("read", "secret/data/of/somebody/x".to_owned()),
        ("read", "secret/data/open/x".to_owned()),
        ("read", "secret/data/open/closed".to_owned()),
        ("update", "secret/data/open/x".to_owned()),
        ("list", "secret/metadata/open".to_owned()),
        ("list", "secret/metadata/closed".to_owned()),
        ("read", format!("secret/data/papers-{role}/x")),
        ("read", "secret/data/papers-/x".to_owned()),
        ("read", "secret/data/entity/x".to_owned()),
        ("delete", "secret/data/entity/x".to_owned()),
        // Of `default`.
        ("read", "cubbyhole/x".to_owned()),
        // Of no policy: by what the path demands.
        ("read", "sys/health".to_owned()),
        ("read", "sys/seal-status".to_owned()),
        ("read", "sys/internal/ui/mounts".to_owned()),
        ("read", "sys/internal/specs/path-help/secret/data/x".to_owned()),
        ("read", "sys/leases".to_owned()),
        ("read", "sys/mounts".to_owned()),
        ("read", "nowhere/at/all".to_owned()),
    ] {
        let asks: [(&str, &Caller, &Caller, Value); 5] = [
            ("certificate", caller, caller, json!({})),
            ("certificate, by its entity", caller, &root, by_entity.clone()),
            ("its token", &whole, &root, json!({ "accessor": of_whole })),
            ("its narrowed token", &narrow, &root, json!({ "accessor": of_narrow })),
            ("its token without default", &bare, &root, json!({ "accessor": of_bare })),
        ];
        for (who, does, asks, mut about) in asks {
            about["path"] = json!(path);
            about["operation"] = json!(operation);
            let said = asks.write("sys/explain", about).await.data();
            let done = match operation {
                "read" => does.read(&path).await,
                "list" => does.list(&path).await,
                "delete" => does.delete(&path).await,
                _ => does.write(&path, json!({ "data": {} })).await,
            };
            let allowed = done.status != 403;
            assert_eq!(said["allowed"], json!(allowed), "{who}: {operation} {path}: {said:#}");
            *seen.entry(allowed).or_default() += 1;
            // For the next who creates it.
            if operation == "create" && allowed {
                root.delete(&path.replace("/data/", "/metadata/")).await.ok();
            }
        }
        if operation == "create" {
            root.write(&path, json!({ "data": {} })).await.ok();
        }
    }
    assert!(seen[&true] > 30 && seen[&false] > 30, "{seen:?}");
}

#[tokio::test]
async fn an_explanation_says_whose_policies_it_is_by() {
    let world = shared().await;
    let root = world.broker.root();
    let standing = Standing::of(world).await;
    let (role, entity) = (&standing.role, &standing.entity);
    let explain = async |about: Value| {
        let mut asked = about;
        asked["path"] = json!("secret/data/open/x");
        root.write("sys/explain", asked).await
    };
    let (of_entity, of_group) = (format!("{role}-entity"), format!("{role}-group"));
    let alone = explain(json!({ "entity_id": entity })).await.ok();
    assert_eq!(alone["data"]["policies"], json!(["default", of_entity, of_group]));
    assert_eq!(alone["data"]["allowed"], false);
    assert!(alone["warnings"][0].as_str().unwrap().contains("\"policies\""), "{alone}");
    let with = explain(json!({ "entity_id": entity, "policies": [role, of_group] })).await.ok();
    assert_eq!(with["data"]["policies"], json!(["default", role, of_entity, of_group]));
    assert_eq!((&with["data"]["allowed"], &with["warnings"]), (&json!(true), &Value::Null));
    let without = json!({ "entity_id": entity, "no_default_policy": true });
    assert_eq!(explain(without).await.data()["policies"], json!([of_entity, of_group]));
    // Policies alone are those and no others.
    assert_eq!(explain(json!({ "policies": [role] })).await.data()["policies"], json!([role]));
    let (_, accessor) = standing.token(world, json!({})).await;
    for with in [json!({ "entity_id": entity }), json!({ "policies": [role] })] {
        let mut both = with;
        both["accessor"] = accessor.clone();
        assert!(explain(both).await.error(400).contains("accessor"));
    }
    assert!(explain(json!({ "entity_id": "none" })).await.error(400).contains("entity_id"));

    // Of who is disabled nothing counts, whatever policies say; and what is open stays open.
    let disabled = json!({ "disabled": true });
    root.write(&format!("identity/entity/id/{entity}"), disabled).await.ok();
    assert_eq!(standing.caller.read("secret/data/open/x").await.status, 403);
    for about in
        [json!({ "entity_id": entity, "policies": ["root"] }), json!({ "accessor": accessor })]
    {
        let said = explain(about.clone()).await.data();
        assert_eq!(said["allowed"], false, "{said}");
        assert_eq!(said["reason"], json!(format!("entity {entity} is disabled")));
        let mut health = about;
        health["path"] = json!("sys/health");
        assert_eq!(root.write("sys/explain", health).await.data()["allowed"], true);
    }
}
