//! Credentials of a real PostgreSQL: leased, used, taken back.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio_postgres::NoTls;

use super::world::{CREATE, World, database_config, shared, unique};
use crate::support::broker::Caller;
use crate::support::postgres::TestPostgres;
use crate::support::wire::{Answer, soon};

pub(super) const LEASER: &str = r#"
    path "database/creds/*" { capabilities = ["read"] }
    path "sys/leases/lookup" { capabilities = ["update"] }
    path "sys/leases/renew" { capabilities = ["update"] }
    path "sys/leases/revoke" { capabilities = ["update"] }
    path "auth/token/create" { capabilities = ["update"] }
"#;

/// A leased user.
pub(super) struct Leased {
    pub(super) lease: String,
    pub(super) user: String,
    password: String,
}

impl Leased {
    fn of(answer: &Answer) -> Self {
        let body = answer.ok();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Self {
            lease: text(&body["lease_id"]),
            user: text(&body["data"]["username"]),
            password: text(&body["data"]["password"]),
        }
    }

    pub(super) fn can_log_in(&self, world: &World) -> bool {
        TestPostgres::shared().can_log_in(&self.user, &self.password, &world.database)
    }

    async fn session(&self, world: &World) -> tokio_postgres::Client {
        let url = TestPostgres::shared().url_for(&self.user, &self.password, &world.database);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

pub(super) fn role_exists(user: &str) -> bool {
    let sql = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{user}'");
    TestPostgres::shared().sql("postgres", &sql) == "1"
}

pub(super) async fn lease(by: &Caller) -> Leased {
    Leased::of(&by.read("database/creds/reader").await)
}

pub(super) async fn revoke(by: &Caller, lease: &str) -> Answer {
    by.write("sys/leases/revoke", json!({ "lease_id": lease })).await
}

#[tokio::test]
async fn a_revoked_credential_is_dead() {
    let world = shared().await;
    let (caller, name) = world.workload(LEASER).await;
    let answer = caller.read("database/creds/reader").await;
    let body = answer.ok();
    assert_eq!((&body["lease_duration"], &body["renewable"]), (&json!(3600), &json!(true)));
    let leased = Leased::of(&answer);
    assert!(leased.lease.starts_with("database/creds/reader/"));
    assert_eq!(world.broker.audited(&answer)["lease_id"], json!(leased.lease));
    let session = leased.session(world).await;
    session.simple_query("SELECT * FROM stock").await.unwrap();

    let asked = json!({ "lease_id": leased.lease });
    let known = caller.write("sys/leases/lookup", asked.clone()).await.data();
    assert_eq!(
        (&known["state"], &known["path"]),
        (&json!("active"), &json!("database/creds/reader"))
    );
    assert_eq!(revoke(&caller, &leased.lease).await.status, 204);
    // The answer says that it is over, and it is: for the open session, and for the next one.
    assert!(session.simple_query("SELECT 1").await.is_err());
    assert!(!leased.can_log_in(world) && !role_exists(&leased.user));
    let gone = caller.write("sys/leases/lookup", asked).await;
    assert_eq!(gone.error(400), "invalid lease");
    assert_eq!(revoke(&caller, &leased.lease).await.status, 204, "twice does no harm: {name}");
}

#[tokio::test]
async fn leases_are_their_owners() {
    let world = shared().await;
    let (mine, name) = world.workload(LEASER).await;
    let (yours, _) = world.workload(LEASER).await;
    let leased = lease(&mine).await;
    for (path, extra) in [("lookup", json!({})), ("renew", json!({ "increment": "1h" }))] {
        let mut body = extra;
        body["lease_id"] = json!(leased.lease);
        let answer = yours.write(&format!("sys/leases/{path}"), body).await;
        assert_eq!(answer.error(400), "invalid lease", "{path}");
    }
    assert_eq!(revoke(&yours, &leased.lease).await.error(400), "invalid lease");
    assert!(leased.can_log_in(world));
    // The identity owns it, not the certificate: a renewed one goes on with it.
    let rotated = world.broker.caller(&world.broker.svid(&name));
    let body = json!({ "lease_id": leased.lease, "increment": "90m" });
    let renewed = rotated.write("sys/leases/renew", body).await.ok();
    assert!((5390..=5400).contains(&renewed["lease_duration"].as_u64().unwrap()), "{renewed}");
    let body = json!({ "lease_id": leased.lease, "increment": "100h" });
    let renewed = rotated.write("sys/leases/renew", body).await.ok();
    assert!(renewed["lease_duration"].as_u64().unwrap() <= 7200, "the role's maximum: {renewed}");
    // PostgreSQL itself knows until when.
    let valid = format!(
        "SELECT rolvaliduntil > now() + interval '1h' FROM pg_roles WHERE rolname = '{}'",
        leased.user
    );
    assert_eq!(TestPostgres::shared().sql("postgres", &valid), "t");
    assert_eq!(revoke(&rotated, &leased.lease).await.status, 204);
}

#[tokio::test]
async fn leases_of_a_token_end_with_it() {
    let world = shared().await;
    let (caller, token) = world.token(LEASER).await;
    let leased = lease(&caller).await;
    assert!(leased.can_log_in(world));
    let root = world.broker.root();
    root.write("auth/token/revoke", json!({ "token": token })).await.ok();
    soon(async {
        while role_exists(&leased.user) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // No lease outlives the token that owns it.
    let made =
        root.write("auth/token/create", json!({ "policies": ["root"], "ttl": "5m" })).await.ok();
    let short = world.broker.admin().with_token(made["auth"]["client_token"].as_str().unwrap());
    let body = short.read("database/creds/reader").await.ok();
    assert!(body["lease_duration"].as_u64().unwrap() <= 300, "{body}");
    assert!(body["warnings"][0].as_str().unwrap().contains("limited by"), "{body}");
    let leased = Leased::of(&short.read("database/creds/reader").await);
    short.write("auth/token/revoke-self", json!({})).await.ok();
    soon(async {
        while role_exists(&leased.user) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_end_that_is_due_comes_by_itself() {
    let world = shared().await;
    let root = world.broker.root();
    let role = unique("brief");
    let body = json!({
        "db_name": "pg",
        "creation_statements": CREATE,
        "default_ttl": "1s",
        "max_ttl": "1s",
    });
    root.write(&format!("database/roles/{role}"), body).await.ok();
    let leased = Leased::of(&root.read(&format!("database/creds/{role}")).await);
    let session = leased.session(world).await;
    soon(async {
        while role_exists(&leased.user) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(session.simple_query("SELECT 1").await.is_err());
    assert!(!leased.can_log_in(world));
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_credential() {
    let world = shared().await;
    let (caller, name) = world.workload(LEASER).await;
    let key = unique("key");
    let headers = [("idempotency-key", key.as_str())];
    let ask = async |by: &Caller| by.request("GET", "database/creds/reader", &headers, b"").await;
    let first = Leased::of(&ask(&caller).await);
    let second = Leased::of(&ask(&caller).await);
    assert_eq!((&first.lease, &first.password), (&second.lease, &second.password));
    // Of parallel requests, those that are not answered yet are asked to come again.
    let key = unique("key");
    let headers = [("idempotency-key", key.as_str())];
    let tries = (0..8).map(async |_| {
        let own = world.broker.caller(&world.broker.svid(&name));
        loop {
            let answer = own.request("GET", "database/creds/reader", &headers, b"").await;
            if answer.status == 503 {
                assert_eq!(answer.header("retry-after"), Some("1"));
                tokio::time::sleep(Duration::from_millis(50)).await;
            } else {
                return Leased::of(&answer);
            }
        }
    });
    let all = join_all(tries).await;
    assert!(all.iter().all(|one| one.lease == all[0].lease && one.password == all[0].password));
    // A key is its owner's, and the path's.
    let (other, _) = world.workload(LEASER).await;
    let theirs = Leased::of(&other.request("GET", "database/creds/reader", &headers, b"").await);
    assert_ne!(theirs.lease, all[0].lease);
    for lease in [&first.lease, &all[0].lease] {
        assert_eq!(revoke(&caller, lease).await.status, 204);
    }
    let again = Leased::of(&ask(&caller).await);
    assert_ne!(again.lease, first.lease, "what is over is not answered again");
    for bad in ["", &"k".repeat(256)] {
        let headers = [("idempotency-key", bad)];
        let answer = caller.request("GET", "database/creds/reader", &headers, b"").await;
        assert_eq!(answer.status, 400, "{bad}: {}", answer.body);
    }
}

#[tokio::test]
async fn prefixes_are_revoked_counted_and_searched() {
    let world = shared().await;
    let root = world.broker.root();
    let role = unique("bulk");
    let body = json!({ "db_name": "pg", "creation_statements": CREATE, "default_ttl": "1h" });
    root.write(&format!("database/roles/{role}"), body).await.ok();
    let path = format!("database/creds/{role}");
    let mut leased = Vec::new();
    for _ in 0..6 {
        leased.push(Leased::of(&root.read(&path).await));
    }
    let listed = root.list(&format!("sys/leases/lookup/{path}")).await.data();
    assert_eq!(listed["keys"].as_array().unwrap().len(), 6);
    let top = root.list("sys/leases/lookup").await.data();
    assert!(top["keys"].as_array().unwrap().contains(&json!("database/")), "{top}");
    let found =
        root.write("sys/leases/search", json!({ "mount": "database/", "role": role })).await;
    assert_eq!(found.data()["lease_count"], 6);
    let counts = root.read("sys/leases/count").await.data();
    assert!(counts["counts"]["database/"].as_u64().unwrap() >= 6, "{counts}");
    let prefix = format!("sys/leases/revoke-prefix/{path}");
    let dry = root.write(&prefix, json!({ "dry_run": true })).await.data();
    assert_eq!(dry["total"], 6);
    assert!(leased.iter().all(|one| role_exists(&one.user)), "a dry run touches nothing");
    let done = root.write(&prefix, json!({ "sync": true })).await.data();
    assert_eq!((&done["complete"], &done["total"]), (&json!(true), &json!(6)), "{done}");
    assert!(leased.iter().all(|one| !role_exists(&one.user)));
    assert_eq!(root.list(&format!("sys/leases/lookup/{path}")).await.status, 404);
}

#[tokio::test]
async fn caps_on_live_leases_hold_under_parallel_requests() {
    let tables = "[leases]\nmax_per_identity = 5\n";
    let setup = crate::support::broker::Setup { tables: tables.into(), ..Default::default() };
    let world = World::new(setup).await;
    let (caller, name) = world.workload(LEASER).await;
    let tries = (0..16).map(async |_| {
        let own = world.broker.caller(&world.broker.svid(&name));
        own.read("database/creds/reader").await
    });
    let answers = join_all(tries).await;
    let issued = answers.iter().filter(|answer| answer.status == 200).count();
    let seen: Vec<_> = answers.iter().map(|answer| (answer.status, &answer.body)).collect();
    assert_eq!(issued, 5, "{seen:#?}");
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        assert!(answer.error(429).contains("identity"), "{}", answer.body);
        assert!(answer.header("retry-after").is_some());
    }
    // What is refused leaves nothing behind.
    let prefix = "sys/leases/revoke-prefix/database/creds/reader";
    let root = world.broker.root();
    assert_eq!(root.write(prefix, json!({ "sync": true })).await.data()["total"], 5);
    assert_eq!(caller.read("database/creds/reader").await.status, 200);
    root.write(prefix, json!({ "sync": true })).await.ok();
}

#[tokio::test]
async fn a_database_that_is_down_is_told_and_made_up_for() {
    let own = tokio::task::spawn_blocking(TestPostgres::start).await.unwrap();
    let world = shared().await;
    let root = world.broker.root();
    let (mount, lag) = (unique("down"), Duration::from_millis(50));
    root.write(&format!("sys/mounts/{mount}"), json!({ "type": "database" })).await.ok();
    own.sql("postgres", "CREATE TABLE stock (x int)");
    let config = database_config(&own, "postgres");
    root.write(&format!("{mount}/config/pg"), config).await.ok();
    let role = json!({ "db_name": "pg", "creation_statements": CREATE });
    root.write(&format!("{mount}/roles/r"), role).await.ok();
    let leased = Leased::of(&root.read(&format!("{mount}/creds/r")).await);
    own.stop();
    let down = root.read(&format!("{mount}/creds/r")).await;
    let said = down.error(502);
    assert!(!said.contains(own.password()), "{said}");
    assert_eq!(world.broker.audited(&down)["outcome"]["status"], 502);
    let refused = revoke(&root, &leased.lease).await;
    assert_eq!(refused.status, 502, "{}", refused.body);
    let overdue = async || {
        let found = root.read("sys/leases").await.data();
        let all = found["leases"].as_array().unwrap().clone();
        all.into_iter().find(|one| one["id"] == json!(leased.lease))
    };
    let seen = overdue().await.expect("it is overdue");
    assert!(!seen["revoke_error"].as_str().unwrap().is_empty(), "{seen}");
    own.start_again();
    // Nobody has to ask again, but may.
    soon(async {
        while revoke(&root, &leased.lease).await.status != 204 {
            tokio::time::sleep(lag).await;
        }
    })
    .await;
    assert!(overdue().await.is_none());
    let sql = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{}'", leased.user);
    soon(async {
        while own.sql("postgres", &sql) != "0" {
            tokio::time::sleep(lag).await;
        }
    })
    .await;
    // The credential that was refused is not there either.
    let roles = "SELECT count(*) FROM pg_roles WHERE rolcanlogin AND rolname <> 'root'";
    soon(async {
        while own.sql("postgres", roles) != "0" {
            tokio::time::sleep(lag).await;
        }
    })
    .await;
}

#[tokio::test]
async fn giving_up_a_credential_is_an_audited_act() {
    let own = tokio::task::spawn_blocking(TestPostgres::start).await.unwrap();
    let world = shared().await;
    let root = world.broker.root();
    let mount = unique("lost");
    root.write(&format!("sys/mounts/{mount}"), json!({ "type": "database" })).await.ok();
    own.sql("postgres", "CREATE TABLE stock (x int)");
    let config = database_config(&own, "postgres");
    root.write(&format!("{mount}/config/pg"), config).await.ok();
    let role = json!({ "db_name": "pg", "creation_statements": CREATE });
    root.write(&format!("{mount}/roles/r"), role).await.ok();
    let mut leased = Vec::new();
    for _ in 0..12 {
        leased.push(Leased::of(&root.read(&format!("{mount}/creds/r")).await).lease);
    }
    leased.sort();
    drop(own);
    let forced = root.write(&format!("sys/leases/revoke-force/{mount}"), json!({})).await.data();
    assert_eq!((&forced["total"], &forced["abandoned"]), (&json!(12), &json!(12)), "{forced}");
    let named = |list: &Value| {
        let list = list.as_array().unwrap().iter();
        let mut ids: Vec<_> = list.map(|id| id.as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    assert_eq!(named(&forced["credentials_that_may_live"]), leased);
    let operation = forced["operation_id"].as_str().unwrap();
    let told = root.read(&format!("sys/leases/operations/{operation}")).await.data();
    assert_eq!((&told["complete"], &told["revoked"]), (&json!(true), &json!(0)), "{told}");
    // Each is on record by itself.
    let entries = world.broker.audit();
    for lease in &leased {
        let records = entries.iter().filter(|entry| {
            entry["event"] == "lease_abandoned" && entry["detail"]["lease_id"] == json!(lease)
        });
        assert_eq!(records.count(), 1);
        let known = root.write("sys/leases/lookup", json!({ "lease_id": lease })).await;
        assert_eq!(known.status, 400);
    }
    assert_eq!(root.delete(&format!("sys/mounts/{mount}")).await.status, 204);
}

#[tokio::test]
async fn a_mount_that_goes_takes_its_leases_along() {
    let world = shared().await;
    let root = world.broker.root();
    let (first, second) = (unique("moved"), unique("moved"));
    root.write(&format!("sys/mounts/{first}"), json!({ "type": "database" })).await.ok();
    root.write(&format!("{first}/config/pg"), world.database_config(&world.database)).await.ok();
    let role = json!({ "db_name": "pg", "creation_statements": CREATE });
    root.write(&format!("{first}/roles/r"), role).await.ok();
    let leased = Leased::of(&root.read(&format!("{first}/creds/r")).await);
    let body = json!({ "from": first, "to": second });
    root.write("sys/remount", body).await.ok();
    assert_eq!(root.read(&format!("{first}/creds/r")).await.status, 404);
    let later = Leased::of(&root.read(&format!("{second}/creds/r")).await);
    assert!(role_exists(&leased.user) && role_exists(&later.user));
    let removed = root.delete(&format!("sys/mounts/{second}")).await;
    assert_eq!(removed.status, 204, "{}", removed.body);
    assert!(!role_exists(&leased.user) && !role_exists(&later.user));
    assert_eq!(root.read(&format!("{second}/creds/r")).await.status, 404);
}

#[tokio::test]
async fn mounts_are_tuned_and_their_lifetimes_count() {
    let world = shared().await;
    let root = world.broker.root();
    let mount = unique("tuned");
    root.write(&format!("sys/mounts/{mount}"), json!({ "type": "database" })).await.ok();
    root.write(&format!("{mount}/config/pg"), world.database_config(&world.database)).await.ok();
    let role = json!({ "db_name": "pg", "creation_statements": CREATE });
    root.write(&format!("{mount}/roles/r"), role).await.ok();
    let tune = format!("sys/mounts/{mount}/tune");
    let body = json!({ "default_lease_ttl": "5m", "max_lease_ttl": "10m", "description": "d" });
    root.write(&tune, body).await.ok();
    let tuned = root.read(&tune).await.data();
    assert_eq!((&tuned["default_lease_ttl"], &tuned["max_lease_ttl"]), (&json!(300), &json!(600)));
    let answer = root.read(&format!("{mount}/creds/r")).await;
    assert_eq!(answer.ok()["lease_duration"], 300);
    let lease = Leased::of(&answer).lease;
    let body = json!({ "lease_id": lease, "increment": "1h" });
    let renewed = root.write("sys/leases/renew", body).await.ok();
    assert!(renewed["lease_duration"].as_u64().unwrap() <= 600, "{renewed}");
    for bad in [
        json!({ "default_lease_ttl": "20m" }),
        json!({ "default_lease_ttl": "-1s" }),
        json!({ "max_lease_ttl": "9999999999h" }),
    ] {
        let answer = root.write(&tune, bad.clone()).await;
        assert_eq!(answer.status, 400, "{bad}: {}", answer.body);
    }
    let listed = root.read("sys/mounts").await.data();
    assert_eq!(listed[format!("{mount}/")]["type"], "database");
    for (path, body) in [
        (format!("sys/mounts/{mount}"), json!({ "type": "kv" })),
        (format!("sys/mounts/{mount}/below"), json!({ "type": "kv" })),
        ("sys/mounts/sys/x".to_owned(), json!({ "type": "kv" })),
        (format!("sys/mounts/{}", unique("x")), json!({ "type": "no-such-engine" })),
        (format!("sys/mounts/{}", unique("x")), json!({})),
    ] {
        let answer = root.write(&path, body).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.body);
    }
    assert_eq!(root.delete(&format!("sys/mounts/{mount}")).await.status, 204);
}

#[tokio::test]
async fn a_database_that_refuses_connections_leaves_no_lease_behind() {
    let world = shared().await;
    let root = world.broker.root();
    let mount = unique("closed");
    root.write(&format!("sys/mounts/{mount}"), json!({ "type": "database" })).await.ok();
    // Nobody listens there: the address is taken, and nothing more.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    drop(taken);
    let config = json!({
        "plugin_name": "postgresql-database-plugin",
        "connection_url": format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{port}/x?sslmode=disable"),
        "username": "u",
        "password": "p",
        "allowed_roles": "*",
        "verify_connection": false,
    });
    root.write(&format!("{mount}/config/pg"), config).await.ok();
    let role = json!({ "db_name": "pg", "creation_statements": CREATE });
    root.write(&format!("{mount}/roles/r"), role).await.ok();
    for _ in 0..4 {
        let refused = root.read(&format!("{mount}/creds/r")).await;
        assert!(refused.error(502).contains("could not be reached"), "{}", refused.body);
        let found = root.write("sys/leases/search", json!({ "mount": mount })).await.data();
        assert_eq!(found["lease_count"], 0, "{found}");
    }
    assert_eq!(root.delete(&format!("sys/mounts/{mount}")).await.status, 204);
}
