//! Quotas, and who tries to get around them.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::world::{CREATE, World, shared, unique};
use crate::support::broker::{Caller, Setup};

/// A mount of its own, and a quota of `rate` requests in an hour on it or on `below` it.
async fn limited(world: &World, below: &str, rate: u32) -> String {
    let root = world.broker.root();
    let mount = unique("limited");
    let kv = json!({ "type": "kv", "options": { "version": "1" } });
    root.write(&format!("sys/mounts/{mount}"), kv).await.ok();
    let quota = json!({ "path": format!("{mount}{below}"), "rate": rate, "interval": "1h" });
    root.write(&format!("sys/quotas/rate-limit/{mount}"), quota).await.ok();
    mount
}

fn everything(mount: &str) -> String {
    format!(
        "path \"{mount}/*\" {{ capabilities = [\"create\", \"read\", \"update\", \"list\"] }}\n\
         path \"auth/token/create\" {{ capabilities = [\"update\"] }}"
    )
}

async fn child(world: &World, of: &Caller) -> Caller {
    let made = of.write("auth/token/create", json!({})).await.ok();
    world.broker.admin().with_token(made["auth"]["client_token"].as_str().unwrap())
}

/// How many of so many reads get through.
async fn through(caller: &Caller, path: &str, tries: usize) -> usize {
    let mut through = 0;
    for _ in 0..tries {
        let answer = caller.read(path).await;
        assert!(matches!(answer.status, 404 | 429), "{} {}", answer.status, answer.body);
        through += usize::from(answer.status == 404);
    }
    through
}

#[tokio::test]
async fn quotas_are_kept_as_stock_clients_write_them() {
    let world = shared().await;
    let root = world.broker.root();
    let mount = limited(world, "", 7).await;
    let path = format!("sys/quotas/rate-limit/{mount}");
    assert_eq!(
        root.read(&path).await.data(),
        json!({
            "name": mount, "type": "rate-limit", "path": format!("{mount}/"), "role": "",
            "rate": 7.0, "interval": 3600, "block_interval": 0, "group_by": "client",
            "inheritable": true,
        })
    );
    let listed = root.list("sys/quotas/rate-limit").await.data();
    assert!(listed["keys"].as_array().unwrap().contains(&json!(mount)));
    let change = json!({ "block_interval": "5m", "type": "rate-limit", "inheritable": false });
    assert_eq!(root.write(&path, change).await.status, 204);
    assert_eq!(root.read(&path).await.data()["block_interval"], 300);
    assert!(root.write(&path, json!({ "rate": 0 })).await.error(400).contains("\"rate\""));
    assert_eq!(root.delete(&path).await.status, 204);
    assert_eq!(root.read(&path).await.status, 404);
    let config = root.read("sys/quotas/config").await.data();
    assert_eq!(config["enable_rate_limit_audit_logging"], true);
    let quiet = json!({ "enable_rate_limit_audit_logging": false });
    let warned = root.write("sys/quotas/config", quiet).await.ok();
    assert!(warned["warnings"][0].as_str().unwrap().contains("audit"), "{warned}");
}

#[tokio::test]
async fn an_identity_is_one_client_whatever_it_comes_with() {
    let world = shared().await;
    let mount = limited(world, "", 6).await;
    let secret = format!("{mount}/x");
    let name = unique("identity");
    world.admit(&name, &everything(&mount)).await;
    let leaf = world.broker.svid(&name);
    let caller = world.broker.caller(&leaf);
    let log_in = async || {
        let made = caller.write("auth/cert/login", json!({ "name": name })).await.ok();
        let token = made["auth"]["client_token"].as_str().unwrap().to_owned();
        world.broker.caller(&leaf).with_token(&token)
    };
    let mut used = through(&caller, &secret, 2).await;
    // Tokens, their children, and another certificate of the same identity.
    let fresh_certificate = world.broker.caller(&world.broker.svid(&name));
    for other in [log_in().await, log_in().await, fresh_certificate] {
        used += through(&other, &secret, 1).await;
    }
    assert_eq!(used, 5);
    let parallel: Vec<Caller> =
        (0..8).map(|_| world.broker.caller(&world.broker.svid(&name))).collect();
    let got: Vec<usize> = join_all(parallel.iter().map(|c| through(c, &secret, 3))).await;
    assert_eq!(got.iter().sum::<usize>(), 1, "{got:?}");

    let refused = log_in().await.read(&secret).await;
    assert_eq!(refused.error(429), format!("request path \"{secret}\": rate limit quota exceeded"));
    let seconds = |name: &str| refused.header(name).unwrap().parse::<u64>().unwrap();
    assert!((1..=600).contains(&seconds("retry-after")));
    assert_eq!((seconds("x-ratelimit-limit"), seconds("x-ratelimit-remaining")), (6, 0));
    assert!((1..=3600).contains(&seconds("x-ratelimit-reset")));
    let entry = world.broker.audited(&refused);
    assert_eq!(entry["outcome"]["status"], 429);
    assert!(!entry["caller"]["entity_id"].as_str().unwrap().is_empty());
    let metrics = world.broker.root().read("sys/metrics").await.body;
    let counted = metrics.lines().any(|line| {
        line.starts_with("leasehold_quota_rejected_total{")
            && line.contains(&format!("quota=\"{mount}\""))
            && line.contains("type=\"rate-limit\"")
    });
    assert!(counted, "{metrics}");

    // Somebody else has an own allowance, and elsewhere there is no quota.
    let (other, _) = world.workload(&everything(&mount)).await;
    assert_eq!(through(&other, &secret, 8).await, 6);
}

#[tokio::test]
async fn a_token_gains_nothing_by_making_more_of_itself() {
    let world = shared().await;
    let mount = limited(world, "", 4).await;
    let secret = format!("{mount}/x");
    let (first, _) = world.token(&everything(&mount)).await;
    let (second, _) = world.token(&everything(&mount)).await;
    let (one, two) = (child(world, &first).await, child(world, &first).await);
    let grandchild = child(world, &one).await;
    let mut got = 0;
    for token in [&first, &one, &two, &grandchild, &first, &one] {
        got += through(token, &secret, 1).await;
    }
    assert_eq!(got, 4);
    assert_eq!(through(&second, &secret, 6).await, 4, "one that root made for somebody else");
}

#[tokio::test]
async fn a_path_has_one_spelling() {
    let world = shared().await;
    let mount = limited(world, "/a", 4).await;
    let (caller, _) = world.workload(&everything(&mount)).await;
    let mut through = 0;
    for (method, path) in [
        ("GET", format!("{mount}/a")),
        ("GET", format!("{mount}/%61")),
        ("LIST", format!("{mount}/a")),
        ("GET", format!("{mount}/a/?list=true")),
        ("GET", format!("{mount}/%61")),
        ("LIST", format!("{mount}/a/")),
        ("POST", format!("{mount}/a")),
    ] {
        let answer = caller.request(method, &path, &[], b"").await;
        assert_ne!(answer.status, 403, "{method} {path}: {}", answer.body);
        through += usize::from(answer.status != 429);
    }
    assert_eq!(through, 4);
    for path in [format!("{mount}//a"), format!("{mount}/./a"), format!("{mount}/b/../a")] {
        assert_eq!(caller.read(&path).await.status, 400, "{path}");
    }
    assert_eq!(caller.read(&format!("{mount}/A")).await.status, 404, "another path");
    assert_eq!(caller.read(&format!("{mount}/a/b")).await.status, 404);
}

#[tokio::test]
async fn no_quota_keeps_anybody_from_ending_what_is_out() {
    let world = World::new(Setup::default()).await;
    let root = world.broker.root();
    let policy = "path \"*\" { capabilities = [\"create\", \"read\", \"update\", \"list\"] }";
    let (caller, _) = world.workload(policy).await;
    let (token, _) = world.token(policy).await;
    let leased = caller.read("database/creds/reader").await.ok();
    let lease = json!({ "lease_id": leased["lease_id"] });
    let least = json!({ "rate": 1, "interval": "1d", "block_interval": "1d", "group_by": "none" });
    root.write("sys/quotas/rate-limit/least", least).await.ok();
    root.read("sys/mounts").await.ok();

    // Nobody gets on with anything, not even with guessing tokens or logging in.
    assert_eq!(root.read("sys/mounts").await.status, 429);
    assert_eq!(caller.read("database/creds/reader").await.status, 429);
    assert_eq!(world.broker.admin().with_token("hvs.guess").read("sys/mounts").await.status, 429);
    assert_eq!(world.broker.nobody().read("sys/mounts").await.status, 429);
    assert_eq!(caller.write("auth/cert/login", json!({})).await.status, 429);
    assert_eq!(token.write("auth/token/lookup-self", json!({})).await.status, 429);
    // But what is out can be prolonged and ended, and the server watched and sealed.
    assert_eq!(caller.write("sys/leases/renew", lease.clone()).await.status, 200);
    assert_eq!(caller.write("sys/leases/revoke", lease).await.status, 204);
    assert_eq!(token.write("auth/token/renew-self", json!({})).await.status, 200);
    assert_eq!(token.write("auth/token/revoke-self", json!({})).await.status, 204);
    for path in ["sys/health", "sys/seal-status"] {
        assert_eq!(world.broker.nobody().read(path).await.status, 200, "{path}");
    }
    let headers = json!({
        "enable_rate_limit_response_headers": true, "rate_limit_exempt_paths": ["sys/mounts"],
    });
    root.write("sys/quotas/config", headers).await.ok();
    assert_eq!(root.read("sys/mounts").await.status, 200);
    assert_eq!(root.read("sys/auth").await.status, 429);
    root.write("sys/quotas/rate-limit/least", json!({ "rate": 100, "block_interval": 0 }))
        .await
        .ok();
    let told = root.read("sys/auth").await;
    assert_eq!((told.status, told.header("x-ratelimit-remaining")), (200, Some("99")));
    assert_eq!(root.delete("sys/quotas/rate-limit/least").await.status, 204);
    assert_eq!(root.read("sys/auth").await.header("x-ratelimit-limit"), None);
    assert_eq!(root.write("sys/seal", json!({})).await.status, 204);
}

#[tokio::test]
async fn a_quota_by_role_is_for_those_who_stand_by_it() {
    let world = shared().await;
    let mount = limited(world, "", 50).await;
    let secret = format!("{mount}/x");
    let role = unique("held-back");
    world.admit(&role, &everything(&mount)).await;
    let leaf = world.broker.svid(&role);
    let held_back = world.broker.caller(&leaf);
    let (other, _) = world.workload(&everything(&mount)).await;
    let quota = json!({ "path": mount, "role": role, "rate": 2, "interval": "1h" });
    let root = world.broker.root();
    root.write(&format!("sys/quotas/rate-limit/{mount}-role"), quota).await.ok();
    assert_eq!(through(&held_back, &secret, 4).await, 2);
    assert_eq!(through(&other, &secret, 4).await, 4);
    let made = held_back.write("auth/cert/login", json!({ "name": role })).await.ok();
    let token = made["auth"]["client_token"].as_str().unwrap();
    let logged_in = world.broker.caller(&leaf).with_token(token);
    assert_eq!(through(&logged_in, &secret, 2).await, 0, "its token stands by the role too");
}

#[tokio::test]
async fn leases_are_counted_by_mount_and_role() {
    let world = shared().await;
    let root = world.broker.root();
    let mount = unique("counted");
    root.write(&format!("sys/mounts/{mount}"), json!({ "type": "database" })).await.ok();
    let config = world.database_config(&world.database);
    root.write(&format!("{mount}/config/pg"), config).await.ok();
    for role in ["few", "many"] {
        let body = json!({ "db_name": "pg", "creation_statements": CREATE, "default_ttl": "1h" });
        root.write(&format!("{mount}/roles/{role}"), body).await.ok();
    }
    let quota = |name: &str| format!("sys/quotas/lease-count/{mount}-{name}");
    let all = json!({ "path": mount, "max_leases": 3 });
    assert_eq!(root.write(&quota("all"), all).await.status, 204);
    let few = json!({ "path": format!("{mount}/"), "role": "few", "max_leases": 1 });
    assert_eq!(root.write(&quota("few"), few).await.status, 204);
    let nowhere = json!({ "path": "nowhere", "max_leases": 1 });
    assert!(root.write(&quota("x"), nowhere).await.error(400).contains("\"path\""));

    let policy = format!("path \"{mount}/creds/*\" {{ capabilities = [\"read\"] }}");
    let (caller, name) = world.workload(&policy).await;
    let ask = async |role: &str| caller.read(&format!("{mount}/creds/{role}")).await;
    let issued = ask("few").await.ok();
    let refused = ask("few").await;
    assert!(refused.error(429).contains(&format!("quota \"{mount}-few\"")), "{}", refused.body);
    assert!(refused.header("retry-after").is_some());
    // Two are left of the mount, however many ask at once.
    let eight: Vec<Caller> =
        (0..8).map(|_| world.broker.caller(&world.broker.svid(&name))).collect();
    let many = format!("{mount}/creds/many");
    let parallel = join_all(eight.iter().map(|one| one.read(&many))).await;
    let ok = parallel.iter().filter(|answer| answer.status == 200).count();
    let full = parallel.iter().filter(|answer| answer.status == 429).count();
    assert_eq!((ok, full), (2, 6));
    let read = root.read(&quota("all")).await.data();
    let shown = (&read["counter"], &read["max_leases"], &read["type"], &read["path"]);
    let expected = (json!(3), json!(3), json!("lease-count"), json!(format!("{mount}/")));
    assert_eq!(shown, (&expected.0, &expected.1, &expected.2, &expected.3));
    assert_eq!(root.read(&quota("few")).await.data()["counter"], 1);
    let listed = root.list("sys/quotas/lease-count").await.data();
    assert!(listed["keys"].as_array().unwrap().contains(&json!(format!("{mount}-few"))));

    // Counted by identity, what one has is nothing to the other.
    let each = json!({ "path": mount, "max_leases": 1, "group_by": "entity" });
    let deleted = root.delete(&quota("all")).await;
    assert_eq!(deleted.status, 204);
    root.write(&quota("each"), each).await.ok();
    let (other, _) = world.workload(&policy).await;
    assert_eq!(other.read(&many).await.status, 200);
    for full in [&other, &caller] {
        let refused = full.read(&many).await;
        assert!(refused.error(429).contains(&format!("quota \"{mount}-each\"")));
    }
    let read = root.read(&quota("each")).await.data();
    assert_eq!((&read["group_by"], &read["counter"]), (&json!("entity"), &json!(4)));
    root.delete(&quota("each")).await.ok();

    // A lease that ends makes room; one that is prolonged needs none.
    let lease = json!({ "lease_id": issued["lease_id"] });
    assert_eq!(root.write("sys/leases/renew", lease.clone()).await.status, 200);
    assert_eq!(root.write("sys/leases/revoke", lease).await.status, 204);
    assert_eq!(ask("few").await.status, 200);
    assert_eq!(ask("many").await.status, 200);
    assert_eq!(root.read(&quota("all")).await.status, 404);
    let metrics = root.read("sys/metrics").await.body;
    assert!(metrics.contains("type=\"lease-count\""), "{metrics}");
    assert_ne!(issued["data"]["username"], Value::Null);
}
