//! Answers of the secrets engines, and about leases.

use serde_json::{Value, json};
use tokio_postgres::NoTls;

use super::stage::Stage;
use crate::support::postgres::TestPostgres;

pub(super) const CREATE: &str = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' \
     VALID UNTIL '{{expiration}}'";

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

#[tokio::test]
async fn plain_secrets_answer_as_recorded() {
    for (area, mount) in [("kv1", "kv1"), ("cubbyhole", "cubbyhole")] {
        let mut stage = Stage::open(area).await;
        let at = |path: &str| format!("{mount}/{path}");
        stage.list(&at("")).await;
        stage.get(&at("a/b")).await;
        stage.post(&at("a/b"), json!({ "user": "u", "ttl": "90m", "list": [1, null] })).await;
        stage.get(&at("a/b")).await;
        stage.post(&at("a/b"), json!({ "user": "v" })).await;
        stage.get(&at("a/b")).await;
        stage.post(&at("c"), json!({ "x": { "y": 1.5 } })).await;
        stage.get(&at("c")).await;
        stage.post(&at("c"), json!({})).await;
        stage.list(&at("")).await;
        stage.get(&at("?list=true")).await;
        stage.list(&at("a")).await;
        stage.list(&at("none")).await;
        stage.delete(&at("a/b")).await;
        stage.delete(&at("a/b")).await;
        stage.get(&at("a/b")).await;
        stage.ask("PATCH", &at("c"), json!({ "x": 1 })).await;
        stage.finish();
    }
}

#[tokio::test]
async fn versioned_secrets_answer_as_recorded() {
    let mut stage = Stage::open("kv2").await;
    stage.get("kv2/config").await;
    stage.post("kv2/config", json!({ "max_versions": -1 })).await;
    stage.post("kv2/config", json!({ "max_versions": 5, "delete_version_after": "48h" })).await;
    stage.get("kv2/config").await;

    stage.get("kv2/data/a/b").await;
    stage.post("kv2/data/a/b", json!({ "user": "u" })).await;
    let cas = |data: Value, cas: u32| json!({ "data": data, "options": { "cas": cas } });
    stage.post("kv2/data/a/b", cas(json!({ "user": "u" }), 0)).await;
    stage.post("kv2/data/a/b", cas(json!({ "user": "u" }), 0)).await;
    let data = json!({ "user": "v", "deep": { "a": [1], "b": null, "c": { "d": 1 } } });
    stage.post("kv2/data/a/b", cas(data, 1)).await;
    stage.get("kv2/data/a/b").await;
    stage.get("kv2/data/a/b?version=1").await;
    stage.get("kv2/data/a/b?version=9").await;
    stage.get("kv2/data/a/b?version=x").await;
    stage.ask("PATCH", "kv2/data/a/b", json!({ "data": { "user": null, "more": 1 } })).await;
    stage.ask("PATCH", "kv2/data/none", json!({ "data": { "more": 1 } })).await;
    stage.get("kv2/subkeys/a/b").await;
    stage.get("kv2/subkeys/a/b?depth=1&version=2").await;
    stage.get("kv2/subkeys/none").await;

    stage.delete("kv2/data/a/b").await;
    stage.get("kv2/data/a/b").await;
    stage.get("kv2/subkeys/a/b").await;
    stage.ask("PATCH", "kv2/data/a/b", json!({ "data": { "more": 2 } })).await;
    stage.post("kv2/undelete/a/b", json!({ "versions": [3] })).await;
    stage.get("kv2/data/a/b").await;
    stage.post("kv2/delete/a/b", json!({ "versions": [1, 2] })).await;
    stage.post("kv2/destroy/a/b", json!({ "versions": [1] })).await;
    stage.get("kv2/data/a/b?version=1").await;
    for path in ["delete", "undelete", "destroy"] {
        stage.post(&format!("kv2/{path}/a/b"), json!({})).await;
        stage.post(&format!("kv2/{path}/none"), json!({ "versions": [1] })).await;
    }
    stage.delete("kv2/data/none").await;

    stage.get("kv2/metadata/a/b").await;
    stage.get("kv2/metadata/none").await;
    let settings = json!({ "max_versions": 4, "custom_metadata": { "team": "a" } });
    stage.post("kv2/metadata/a/b", settings).await;
    stage.post("kv2/metadata/a/b", json!({ "custom_metadata": { "n": 1 } })).await;
    stage.post("kv2/metadata/new", json!({ "cas_required": true })).await;
    stage.post("kv2/data/new", json!({ "data": {} })).await;
    let patch = json!({ "custom_metadata": { "team": null, "owner": "b" } });
    stage.ask("PATCH", "kv2/metadata/a/b", patch).await;
    stage.ask("PATCH", "kv2/metadata/none", json!({ "max_versions": 1 })).await;
    stage.get("kv2/metadata/a/b").await;
    stage.get("kv2/data/a/b").await;
    stage.list("kv2/metadata").await;
    stage.get("kv2/metadata?list=true").await;
    stage.list("kv2/metadata/a").await;
    stage.list("kv2/metadata/none").await;
    stage.delete("kv2/metadata/a/b").await;
    stage.delete("kv2/metadata/a/b").await;
    stage.get("kv2/data/a/b").await;
    stage.get("kv2/none").await;
    stage.finish();
}

/// A database of the tests' server, with users that are there for this.
pub(super) struct Target {
    database: String,
    root: String,
    pub(super) user: String,
    pub(super) config: Value,
}

impl Target {
    pub(super) fn of(stage: &mut Stage, name: &str) -> Self {
        let server = TestPostgres::shared();
        let database = server.database().rsplit('/').next().unwrap().to_owned();
        let (root, user) = (format!("golden_{name}_root"), format!("golden_{name}_app"));
        for made in [
            format!("CREATE ROLE {root} SUPERUSER LOGIN PASSWORD 'first'"),
            format!("CREATE ROLE {user} LOGIN PASSWORD 'first'"),
        ] {
            server.sql(&database, &made);
        }
        let address = format!("127.0.0.1:{}/{database}", server.port());
        stage.know(&address, "127.0.0.1:5432/app");
        let url = format!("postgresql://{{{{username}}}}:{{{{password}}}}@{address}");
        let config = json!({
            "plugin_name": "postgresql-database-plugin",
            "connection_url": format!("{url}?sslmode=disable"),
            "username": root, "password": "first", "allowed_roles": "*",
        });
        Self { database, root, user, config }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_answer_as_recorded() {
    let mut stage = Stage::open("database").await;
    let target = Target::of(&mut stage, "database");
    stage.list("database/config").await;
    stage.get("database/config/pg").await;
    stage.post("database/config/pg", json!({ "plugin_name": "oracle" })).await;
    let mut wrong = target.config.clone();
    wrong["password"] = json!("wrong");
    stage.post("database/config/pg", wrong).await;
    stage.post("database/config/pg", target.config.clone()).await;
    stage.get("database/config/pg").await;
    stage.list("database/config").await;
    stage.post("database/reset/pg", json!({})).await;
    stage.post("database/reset/none", json!({})).await;
    stage.post("database/rotate-root/none", json!({})).await;
    stage.post("database/rotate-root/pg", json!({})).await;
    assert!(!TestPostgres::shared().can_log_in(&target.root, "first", "postgres"));

    stage.list("database/roles").await;
    stage.get("database/roles/reader").await;
    stage.post("database/roles/reader", json!({ "db_name": "pg" })).await;
    let role = json!({
        "db_name": "pg", "creation_statements": CREATE, "default_ttl": "1h", "max_ttl": "2h",
    });
    stage.post("database/roles/reader", role.clone()).await;
    stage.get("database/roles/reader").await;
    stage.list("database/roles").await;
    let path = "database/creds/reader";
    stage.get("database/creds/none").await;
    let mut broken = role;
    broken["creation_statements"] = json!(format!("{CREATE}; GRANT nothing TO \"{{{{name}}}}\""));
    stage.post("database/roles/broken", broken).await;
    stage.get("database/creds/broken").await;
    let leased = stage.get(path).await;
    stage.delete("database/config/pg").await;
    let lease = json!({ "lease_id": leased["lease_id"] });
    stage.root.write("sys/leases/revoke", lease).await.ok();

    static_roles(&mut stage, &target).await;
    for path in ["database/roles/reader", "database/roles/reader", "database/roles/broken"] {
        stage.delete(path).await;
    }
    stage.delete("database/config/pg").await;
    stage.delete("database/config/pg").await;
    stage.finish();
}

async fn static_roles(stage: &mut Stage, target: &Target) {
    stage.list("database/static-roles").await;
    stage.get("database/static-roles/app").await;
    stage.get("database/static-creds/app").await;
    let role = json!({ "db_name": "pg", "username": target.user });
    stage.post("database/static-roles/app", role.clone()).await;
    let mut periodic = role.clone();
    periodic["rotation_period"] = json!("24h");
    stage.post("database/static-roles/app", periodic).await;
    stage.get("database/static-roles/app").await;
    stage.list("database/static-roles").await;
    stage.get("database/static-creds/app").await;
    stage.post("database/rotate-role/app", json!({})).await;
    stage.post("database/rotate-role/none", json!({})).await;
    stage.delete("database/static-roles/app").await;
    stage.delete("database/static-roles/app").await;
    let mut scheduled = role;
    scheduled["rotation_schedule"] = json!("0 0 * * SAT");
    scheduled["rotation_window"] = json!("1h");
    stage.post("database/static-roles/app", scheduled).await;
    stage.get("database/static-roles/app").await;
    stage.get("database/static-creds/app").await;
    stage.delete("database/static-roles/app").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_answer_as_recorded() {
    let mut stage = Stage::open("leases").await;
    let target = Target::of(&mut stage, "leases");
    let role = json!({
        "db_name": "pg", "creation_statements": CREATE, "default_ttl": "1h", "max_ttl": "2h",
    });
    stage.root.write("database/config/pg", target.config.clone()).await.ok();
    stage.root.write("database/roles/reader", role).await.ok();
    let path = "database/creds/reader";
    stage.list("sys/leases/lookup/database/creds/reader").await;
    stage.get("sys/leases/count").await;
    stage.get("sys/leases").await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        let leased = stage.root.read(path).await.ok();
        ids.push(text(&leased["lease_id"]));
    }
    stage.post("sys/leases/search", json!({ "mount": "database/", "limit": 2 })).await;
    stage.post("sys/leases/lookup", json!({ "lease_id": ids[0] })).await;
    stage.post("sys/leases/lookup", json!({ "lease_id": "database/creds/reader/none" })).await;
    stage.post("sys/leases/lookup", json!({})).await;
    stage.list("sys/leases/lookup/").await;
    stage.list("sys/leases/lookup/database/creds").await;
    stage.list("sys/leases/lookup/database/creds/reader").await;
    stage.get("sys/leases/count").await;
    stage.get("sys/leases/count?type=irrevocable").await;
    stage.get("sys/leases/count?type=other").await;
    stage.get("sys/leases?type=irrevocable&limit=5").await;
    stage.post("sys/leases/renew", json!({ "lease_id": ids[0], "increment": "90m" })).await;
    stage.post(&format!("sys/leases/renew/{}", ids[0]), json!({})).await;
    stage.post("sys/leases/renew", json!({ "lease_id": "none" })).await;
    stage.post("sys/leases/renew", json!({})).await;
    stage.post("sys/leases/search", json!({ "overdue": true })).await;
    stage.post("sys/leases/search", json!({})).await;
    stage.post("sys/leases/revoke", json!({ "lease_id": ids[0] })).await;
    stage.post("sys/leases/revoke", json!({ "lease_id": ids[0] })).await;
    stage.post("sys/leases/revoke", json!({})).await;
    stage.post(&format!("sys/leases/revoke/{}", ids[1]), json!({ "sync": true })).await;

    let prefix = "sys/leases/revoke-prefix/database/creds/reader";
    stage.post(prefix, json!({ "dry_run": true })).await;
    stage.post(prefix, json!({ "sync": true })).await;
    bulk(&mut stage, &target).await;
    stage.post("sys/leases/revoke-where", json!({})).await;
    stage.get("sys/leases/operations/none").await;
    stage.post("sys/leases/tidy", json!({})).await;
    overdue(&mut stage, &target).await;
    stage.finish();
}

/// Bulk revocations that are not over when they are answered: the target takes its time.
async fn bulk(stage: &mut Stage, target: &Target) {
    let url = TestPostgres::shared().url(&target.database);
    let (session, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let role = json!({
        "db_name": "pg", "creation_statements": CREATE,
        "revocation_statements": [
            "SELECT pg_advisory_xact_lock(1)", "DROP ROLE IF EXISTS \"{{name}}\"",
        ],
    });
    stage.root.write("database/roles/slow", role).await.ok();
    let selected = json!({ "mount": "database/", "role": "slow" });
    for (path, body) in [
        ("sys/leases/revoke-prefix/database/creds/slow", json!({})),
        ("sys/leases/revoke-where", selected),
    ] {
        session.simple_query("SELECT pg_advisory_lock(1)").await.unwrap();
        stage.root.read("database/creds/slow").await.ok();
        let mut dry = body.clone();
        dry["dry_run"] = json!(true);
        stage.post(path, dry).await;
        let queued = stage.post(path, body).await;
        session.simple_query("SELECT pg_advisory_unlock(1)").await.unwrap();
        operation(stage, &queued).await;
    }
}

/// The end of a bulk revocation.
async fn operation(stage: &mut Stage, queued: &Value) {
    let id = text(&queued["data"]["operation_id"]);
    let at = format!("sys/leases/operations/{id}");
    crate::support::wire::soon(async {
        while stage.root.read(&at).await.data()["complete"] != json!(true) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    stage.get(&at).await;
}

/// Leases that cannot be taken back, and what can be done about them.
async fn overdue(stage: &mut Stage, target: &Target) {
    let path = "database/creds/reader";
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(text(&stage.root.read(path).await.ok()["lease_id"]));
    }
    let mut wrong = target.config.clone();
    wrong["password"] = json!("wrong");
    wrong["verify_connection"] = json!(false);
    stage.root.write("database/config/pg", wrong).await.ok();
    stage.post("sys/leases/revoke", json!({ "lease_id": ids[0] })).await;
    stage.post("sys/leases/lookup", json!({ "lease_id": ids[0] })).await;
    stage.get("sys/leases").await;
    stage.get("sys/leases/count?type=irrevocable").await;
    stage.post("sys/leases/search", json!({ "overdue": true })).await;
    stage.post("sys/leases/abandon", json!({})).await;
    stage.post("sys/leases/abandon", json!({ "lease_id": ids[0] })).await;
    stage.post("sys/leases/abandon", json!({ "lease_id": ids[0] })).await;
    let force = "sys/leases/revoke-force/database/creds/reader";
    stage.post(force, json!({ "dry_run": true })).await;
    stage.post(force, json!({})).await;
}
