//! Tokens: narrowing, families, limits, ends.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::world::{World, shared, unique};
use crate::support::broker::Caller;

/// What a workload may that hands narrower tokens to its jobs.
const WORKLOAD: &str = r#"
    path "secret/data/*" { capabilities = ["read", "create", "update"] }
    path "secret/data/private/*" { capabilities = ["deny"] }
    path "secret/metadata/*" { capabilities = ["list"] }
    path "auth/token/create" { capabilities = ["create", "update"] }
"#;

fn token_of(answer: &Value) -> &str {
    answer["auth"]["client_token"].as_str().unwrap()
}

async fn create(by: &Caller, body: Value) -> Value {
    by.write("auth/token/create", body).await.ok()
}

async fn is_alive(world: &World, token: &str) -> bool {
    let root = world.broker.root();
    match root.write("auth/token/lookup", json!({ "token": token })).await.status {
        200 => true,
        403 | 404 => false,
        other => panic!("status {other}"),
    }
}

#[tokio::test]
async fn a_cron_job_gets_a_token_for_its_work_alone() {
    let world = shared().await;
    let root = world.broker.root();
    for path in ["secret/data/reports/daily", "secret/data/other", "secret/data/private/x"] {
        root.write(path, json!({ "data": { "k": "v" } })).await.ok();
    }
    let (workload, _) = world.workload(WORKLOAD).await;
    let asked = json!({ "scopes": ["read:secret/data/reports/*"], "ttl": "60s" });
    let made = create(&workload, asked).await;
    assert_eq!(made["auth"]["lease_duration"], 60);
    let job = world.broker.admin().with_token(token_of(&made));
    assert_eq!(job.read("secret/data/reports/daily").await.data()["data"], json!({ "k": "v" }));
    for (method, path) in [
        ("GET", "secret/data/other"),
        ("GET", "secret/data/private/x"),
        ("POST", "secret/data/reports/daily"),
        ("DELETE", "secret/data/reports/daily"),
        ("LIST", "secret/metadata/reports"),
        ("POST", "auth/token/create"),
        ("GET", "cubbyhole/x"),
        ("GET", "sys/mounts"),
    ] {
        let answer = job.request(method, path, &[], b"{}").await;
        assert_eq!(answer.error(403), "permission denied", "{method} {path}");
    }
    // What the command line asks first: only for what the token reaches.
    let mount = job.read("sys/internal/ui/mounts/secret/data/reports/daily").await.data();
    assert_eq!((&mount["path"], &mount["type"]), (&json!("secret/"), &json!("kv")));
    let other = job.read("sys/internal/ui/mounts/cubbyhole/x").await;
    assert_eq!(other.error(403), "permission denied");
    // It may look at itself, and end itself; never prolong itself.
    let own = job.read("auth/token/lookup-self").await.data();
    assert_eq!(own["scopes"], json!(["read:secret/data/reports/*"]));
    assert_eq!(job.write("auth/token/renew-self", json!({})).await.status, 403);
    let other = create(&workload, json!({ "scopes": ["read:secret/data/reports/*"] })).await;
    let other = world.broker.admin().with_token(token_of(&other));
    other.write("auth/token/revoke-self", json!({})).await.ok();
    assert_eq!(other.read("secret/data/reports/daily").await.status, 403);
    let known = root.write("auth/token/lookup", json!({ "token": token_of(&made) })).await.data();
    assert_eq!(known["scopes"], json!(["read:secret/data/reports/*"]));
    assert!(known["ttl"].as_u64().unwrap() <= 60);
    let entry = world.broker.audited(&job.read("secret/data/reports/daily").await);
    assert_eq!(entry["caller"]["scopes"], json!(["read:secret/data/reports/*"]));
}

#[tokio::test]
async fn scopes_name_nothing_that_the_caller_lacks() {
    let world = shared().await;
    let (workload, _) = world.workload(WORKLOAD).await;
    for scope in [
        "read:sys/mounts",
        "delete:secret/data/reports/*",
        "read:secret/*",
        "read:*",
        "read:secret/data/private/x",
        "read,delete:secret/data/reports/x",
        "sudo:secret/data/x",
        "nonsense",
        "read:",
        ":secret/data/x",
        "read:secret/data/../x",
    ] {
        let answer = workload.write("auth/token/create", json!({ "scopes": [scope] })).await;
        assert_eq!(answer.status, 400, "{scope}: {}", answer.body);
    }
    let empty = workload.write("auth/token/create", json!({ "scopes": [] })).await;
    assert_eq!(empty.status, 400, "{}", empty.body);
    // What includes a path that is denied to the caller does not open it.
    let wide = create(&workload, json!({ "scopes": ["read:secret/data/*"] })).await;
    let wide = world.broker.admin().with_token(token_of(&wide));
    assert_eq!(wide.read("secret/data/none").await.status, 404);
    assert_eq!(wide.read("secret/data/private/x").await.status, 403);
}

#[tokio::test]
async fn a_narrowed_token_makes_no_wider_one() {
    let world = shared().await;
    let (workload, _) = world.workload(WORKLOAD).await;
    let scopes = json!(["read:secret/data/reports/*", "create,update:auth/token/create"]);
    let made = create(&workload, json!({ "scopes": scopes, "ttl": "10m" })).await;
    let narrow = world.broker.admin().with_token(token_of(&made));
    // Asked for nothing, the child is as narrow.
    let child = create(&narrow, json!({})).await;
    let child = world.broker.admin().with_token(token_of(&child));
    assert_eq!(child.read("secret/data/reports/none").await.status, 404);
    assert_eq!(child.read("secret/data/other").await.status, 403);
    let wider =
        narrow.write("auth/token/create", json!({ "scopes": ["read:secret/data/*"] })).await;
    assert_eq!(wider.status, 400, "{}", wider.body);
    let narrower = json!({ "scopes": ["read:secret/data/reports/one"] });
    let narrower = create(&narrow, narrower).await;
    let narrower = world.broker.admin().with_token(token_of(&narrower));
    assert_eq!(narrower.read("secret/data/reports/one").await.status, 404);
    assert_eq!(narrower.read("secret/data/reports/two").await.status, 403);
    // Neither is any of them prolonged by what it makes.
    let longer = create(&narrow, json!({ "ttl": "100h" })).await;
    assert!(longer["auth"]["lease_duration"].as_u64().unwrap() <= 7 * 24 * 3600);
}

#[tokio::test]
async fn policies_of_a_child_are_some_of_its_parents() {
    let world = shared().await;
    let (workload, name) = world.workload(WORKLOAD).await;
    let made = create(&workload, json!({ "policies": [name], "no_default_policy": true })).await;
    assert_eq!(made["auth"]["policies"], json!([name]));
    for policies in [json!(["root"]), json!([unique("foreign")]), json!([name, "root"])] {
        let answer = workload.write("auth/token/create", json!({ "policies": policies })).await;
        assert_eq!(answer.status, 400, "{policies}: {}", answer.body);
    }
    for body in [json!({ "id": "chosen" }), json!({ "no_parent": true }), json!({ "period": "1h" })]
    {
        let answer = workload.write("auth/token/create", body.clone()).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.body);
    }
    assert_eq!(workload.write("auth/token/create-orphan", json!({})).await.status, 403);
}

#[tokio::test]
async fn a_family_ends_together_but_for_its_orphans() {
    let world = shared().await;
    let root = world.broker.root();
    let parent = create(&root, json!({ "policies": ["root"], "ttl": "1h" })).await;
    let by_parent = world.broker.admin().with_token(token_of(&parent));
    let child = create(&by_parent, json!({ "ttl": "1h" })).await;
    let by_child = world.broker.admin().with_token(token_of(&child));
    let grandchild = create(&by_child, json!({ "ttl": "1h" })).await;
    let orphan = create(&by_parent, json!({ "ttl": "1h", "no_parent": true })).await;
    let path = format!("secret/data/{}", unique("family"));
    assert_eq!(by_child.write(&path, json!({ "data": {} })).await.status, 200);
    root.write("auth/token/revoke", json!({ "token": token_of(&parent) })).await.ok();
    for (dead, who) in [(&parent, "parent"), (&child, "child"), (&grandchild, "grandchild")] {
        assert!(!is_alive(world, token_of(dead)).await, "{who}");
        let answer = world.broker.admin().with_token(token_of(dead)).read(&path).await;
        assert_eq!(answer.status, 403, "{who}");
    }
    assert!(is_alive(world, token_of(&orphan)).await);

    // Revoked alone, a parent leaves its children behind.
    let by_orphan = world.broker.admin().with_token(token_of(&orphan));
    let kept = create(&by_orphan, json!({ "ttl": "1h" })).await;
    let body = json!({ "token": token_of(&orphan) });
    root.write("auth/token/revoke-orphan", body).await.ok();
    assert!(!is_alive(world, token_of(&orphan)).await);
    assert!(is_alive(world, token_of(&kept)).await);

    let accessor = kept["auth"]["accessor"].as_str().unwrap();
    let known = root.write("auth/token/lookup-accessor", json!({ "accessor": accessor })).await;
    assert_eq!(known.data()["id"], "", "an accessor does not give the token away");
    root.write("auth/token/revoke-accessor", json!({ "accessor": accessor })).await.ok();
    assert!(!is_alive(world, token_of(&kept)).await);
}

#[tokio::test]
async fn uses_are_counted_exactly() {
    let world = shared().await;
    let made = create(&world.broker.root(), json!({ "policies": ["root"], "num_uses": 5 })).await;
    let token = token_of(&made);
    let tries = join_all(
        (0..20)
            .map(async |_| world.broker.admin().with_token(token).read("sys/mounts").await.status),
    );
    let statuses = tries.await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 5, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 403].contains(status)), "{statuses:?}");
    assert!(!is_alive(world, token).await);
}

#[tokio::test]
async fn renewing_stays_within_the_maximum() {
    let world = shared().await;
    let root = world.broker.root();
    let body = json!({ "ttl": "10m", "explicit_max_ttl": "20m", "policies": ["default"] });
    let made = create(&root, body).await;
    let own = world.broker.admin().with_token(token_of(&made));
    let renewed = own.write("auth/token/renew-self", json!({ "increment": "10h" })).await.ok();
    let left = renewed["auth"]["lease_duration"].as_u64().unwrap();
    assert!((601..=1200).contains(&left), "{left}");
    let fixed = create(&root, json!({ "ttl": "10m", "renewable": false })).await;
    let own = world.broker.admin().with_token(token_of(&fixed));
    assert_eq!(own.write("auth/token/renew-self", json!({})).await.status, 400);
    let periodic = create(&root, json!({ "period": "5m", "policies": ["default"] })).await;
    assert_eq!(periodic["auth"]["lease_duration"], 300);
    let own = world.broker.admin().with_token(token_of(&periodic));
    let renewed = own.write("auth/token/renew-self", json!({ "increment": "1h" })).await.ok();
    assert_eq!(renewed["auth"]["lease_duration"], 300);
    let long = create(&root, json!({ "ttl": "9000h", "policies": ["default"] })).await;
    assert_eq!(long["auth"]["lease_duration"], 7 * 24 * 3600);
    assert!(long["warnings"][0].is_string(), "{long}");
}

#[tokio::test]
async fn batch_tokens_are_tokens_without_a_row() {
    let world = shared().await;
    let root = world.broker.root();
    let name = unique("batch");
    root.write(
        &format!("sys/policies/acl/{name}"),
        json!({ "policy": r#"path "secret/data/*" { capabilities = ["read"] }"# }),
    )
    .await
    .ok();
    let body = json!({ "type": "batch", "ttl": "5m", "policies": [name] });
    let made = create(&root, body).await;
    assert_eq!(
        (&made["auth"]["token_type"], &made["auth"]["accessor"]),
        (&json!("batch"), &json!(""))
    );
    let token = token_of(&made).to_owned();
    let own = world.broker.admin().with_token(&token);
    assert_eq!(own.read("secret/data/none").await.status, 404);
    assert_eq!(own.write("auth/token/renew-self", json!({})).await.status, 400);
    let revoke = root.write("auth/token/revoke", json!({ "token": token })).await;
    assert_eq!(revoke.status, 400, "{}", revoke.body);
    // A forged one is none.
    let last = if token.ends_with('A') { 'B' } else { 'A' };
    let forged = format!("{}{last}", &token[..token.len() - 1]);
    assert_eq!(world.broker.admin().with_token(&forged).read("secret/data/none").await.status, 403);
}

#[tokio::test]
async fn a_role_sets_what_its_tokens_are() {
    let world = shared().await;
    let root = world.broker.root();
    let role = unique("role");
    let body = json!({
        "allowed_policies": "default",
        "orphan": true,
        "token_bound_cidrs": ["203.0.113.0/24"],
        "token_explicit_max_ttl": "30m",
    });
    root.write(&format!("auth/token/roles/{role}"), body).await.ok();
    let create = format!("auth/token/create/{role}");
    let made = root.write(&create, json!({ "ttl": "2h" })).await.ok();
    assert_eq!(made["auth"]["orphan"], true);
    assert!(made["auth"]["lease_duration"].as_u64().unwrap() <= 1800);
    // We do not come from there.
    let own = world.broker.admin().with_token(token_of(&made));
    let answer = own.read("auth/token/lookup-self").await;
    assert_eq!(answer.error(403), "permission denied");
    let entry = world.broker.audited(&answer);
    assert!(entry["outcome"]["reason"].as_str().unwrap().contains("addresses"), "{entry}");
    let refused = root.write(&create, json!({ "policies": ["root"] })).await;
    assert_eq!(refused.status, 400, "{}", refused.body);
}

#[tokio::test]
async fn tokens_are_told_apart_from_other_text() {
    let world = shared().await;
    let root = world.broker.root();
    let token = world.broker.root_token();
    // A prefix and a checksum, so that scanners can find leaked ones.
    let (prefix, _) = token.split_at(4);
    assert!(prefix.ends_with('.') || token.contains('.'), "{prefix}");
    let mut wrong = token.clone().into_bytes();
    let middle = wrong.len() / 2;
    wrong[middle] = if wrong[middle] == b'a' { b'b' } else { b'a' };
    let wrong = String::from_utf8(wrong).unwrap();
    assert_eq!(world.broker.admin().with_token(&wrong).read("sys/mounts").await.status, 403);
    let bearer = format!("Bearer {token}");
    let by_bearer =
        world.broker.admin().request("GET", "sys/mounts", &[("authorization", &bearer)], b"").await;
    assert_eq!(by_bearer.status, 200);
    let own = root.read("auth/token/lookup-self").await.data();
    assert_eq!(own["policies"], json!(["root"]));
    assert_eq!(own["ttl"], 0);
}
