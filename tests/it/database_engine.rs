//! The database engine behind its port, against a real PostgreSQL and a real store.

mod passwords;

use std::sync::Arc;
use std::time::Duration;

use leasehold::core::acl::{Acl, CheckRequest, CompiledPolicy};
use leasehold::core::engine::{
    CallerFacts, Engine, EngineContext, EngineRequest, IssueError, LeaseFacts, LeasePlan,
    MountFacts, Outcome,
};
use leasehold::core::error::CoreError;
use leasehold::core::fields::Fields;
use leasehold::core::hold::HoldCell;
use leasehold::core::operation::Operation;
use leasehold::core::policy::template::TemplateValues;
use leasehold::core::records::{Batch, Precondition, Records, kinds};
use leasehold::core::reply::Reply;
use leasehold::core::route;
use leasehold::core::view::View;
use leasehold::crypto::aead::Suite;
use leasehold::crypto::keyring::Keyring;
use leasehold::engines::database::DatabaseEngine;
use leasehold::storage::sqlite::{SqliteOptions, SqliteStorage};
use leasehold::types::id::{MountAccessor, NamespaceId, random_base62};
use leasehold::types::path::ApiPath;
use leasehold::types::time::{Clock, ManualClock, SystemClock, Timestamp, Ttl};
use serde_json::{Map, Value, json};

use crate::support::postgres::{SUPERUSER, TestPostgres};

const CREATE: &str = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' \
     VALID UNTIL '{{expiration}}'; GRANT SELECT ON TABLE stock TO \"{{name}}\"";

/// A mount of the engine on a store of its own, and a database on a real server.
struct Mount {
    engine: DatabaseEngine,
    facts: MountFacts,
    view: View,
    clock: Arc<ManualClock>,
    port: Arc<dyn Clock>,
    hold: HoldCell,
    server: &'static TestPostgres,
    database: String,
    _directory: tempfile::TempDir,
}

impl Mount {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let storage = SqliteStorage::open(&path, SqliteOptions::default()).unwrap();
        let now = SystemClock.now();
        let keyring = Keyring::generate(Suite::ChaCha20Poly1305, now).unwrap();
        let records = Arc::new(Records::new(storage, Arc::new(keyring), 1 << 20));
        let view =
            View::new(records, NamespaceId::ROOT, kinds::MOUNT_DATA, "mount-uuid/".to_owned());
        let server = TestPostgres::shared();
        let database = server.database().rsplit('/').next().unwrap().to_owned();
        server.sql(&database, "CREATE TABLE stock (x int)");
        let clock = Arc::new(ManualClock::new(now));
        Self {
            engine: DatabaseEngine::new(),
            facts: MountFacts {
                path: "database/".into(),
                accessor: MountAccessor::new("database_00000000"),
                options: Default::default(),
                default_ttl: Ttl::from_secs(3600),
                max_ttl: Ttl::from_secs(86_400),
            },
            view,
            port: Arc::clone(&clock) as Arc<dyn Clock>,
            clock,
            hold: HoldCell::default(),
            server,
            database,
            _directory: directory,
        }
    }

    /// As [`Mount::new`], with the database configured as `pg`.
    async fn configured() -> Self {
        let mount = Self::new();
        mount.write("config/pg", mount.config()).await.unwrap();
        mount
    }

    fn config(&self) -> Value {
        json!({
            "plugin_name": "postgresql-database-plugin",
            "connection_url": self.url(),
            "username": SUPERUSER,
            "password": self.server.password(),
            "allowed_roles": "*",
        })
    }

    fn url(&self) -> String {
        format!(
            "postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/{}?sslmode=disable",
            self.server.port(),
            self.database
        )
    }

    fn ctx(&self) -> EngineContext<'_> {
        EngineContext { mount: &self.facts, view: &self.view, clock: &self.port, hold: &self.hold }
    }

    async fn call(
        &self,
        operation: Operation,
        path: &str,
        body: Value,
    ) -> Result<Outcome, CoreError> {
        self.call_as("cert-tester", operation, path, body).await
    }

    async fn call_as(
        &self,
        display_name: &str,
        operation: Operation,
        path: &str,
        body: Value,
    ) -> Result<Outcome, CoreError> {
        let (route, params) = route::find(self.engine.routes(), path).expect("no such route");
        assert!(route.serves(operation), "{path} does not serve {operation}");
        let full = ApiPath::parse(&format!("database/{path}")).unwrap();
        let acl = Acl::new(vec![CompiledPolicy::root()], &TemplateValues::default());
        let permit = acl.authorize(&CheckRequest::new(&full, operation)).unwrap();
        let caller = CallerFacts { display_name: display_name.into(), ..CallerFacts::default() };
        let fields = Fields::new(body.as_object().cloned().unwrap_or_default());
        let request =
            EngineRequest { operation, route, params, fields, merge_patch: false, caller: &caller };
        self.engine.handle(&self.ctx(), &permit, request).await
    }

    async fn reply(
        &self,
        operation: Operation,
        path: &str,
        body: Value,
    ) -> Result<Reply, CoreError> {
        match self.call(operation, path, body).await? {
            Outcome::Respond(reply) => Ok(reply),
            Outcome::Issue(_) => panic!("{path} issues a lease"),
        }
    }

    async fn write(&self, path: &str, body: Value) -> Result<Reply, CoreError> {
        self.reply(Operation::Update, path, body).await
    }

    async fn read(&self, path: &str) -> Value {
        let reply = self.reply(Operation::Read, path, Value::Null).await.unwrap();
        Value::Object(reply.data.unwrap())
    }

    async fn plan(&self, display_name: &str, role: &str) -> Result<LeasePlan, CoreError> {
        let path = format!("creds/{role}");
        match self.call_as(display_name, Operation::Read, &path, Value::Null).await? {
            Outcome::Issue(plan) => Ok(plan),
            Outcome::Respond(_) => panic!("no lease"),
        }
    }

    async fn issue(&self, plan: &LeasePlan) -> Result<Map<String, Value>, CoreError> {
        let issued = self.engine.issue(&self.ctx(), self.lease(plan)).await;
        issued.map_err(IssueError::into_cause)
    }

    async fn revoke(&self, plan: &LeasePlan) -> Result<(), CoreError> {
        self.engine.revoke(&self.ctx(), self.lease(plan)).await
    }

    fn lease<'a>(&self, plan: &'a LeasePlan) -> LeaseFacts<'a> {
        let expires_at = self.clock.now().plus(Ttl::from_secs(600));
        LeaseFacts { data: &plan.data, role: &plan.role, expires_at }
    }

    fn lets_in(&self, username: &str, password: &str) -> bool {
        self.server.can_log_in(username, password, &self.database)
    }

    fn roles_like(&self, pattern: &str) -> String {
        let sql = format!("SELECT count(*) FROM pg_roles WHERE rolname LIKE '{pattern}'");
        self.server.sql(&self.database, &sql)
    }

    /// A user for a static role, with the password `before`.
    fn user(&self) -> String {
        let name = format!("app_{}", random_base62(8).unwrap().to_lowercase());
        let sql = format!("CREATE ROLE {name} LOGIN PASSWORD 'before'");
        self.server.sql(&self.database, &sql);
        name
    }

    /// Changes a stored record as JSON, as a crash at some moment would have left it.
    async fn edit(&self, record: &str, edit: impl FnOnce(&mut Value)) {
        let mut entry = self.view.get::<Value>(record).await.unwrap().unwrap();
        edit(&mut entry.value);
        self.view.write(record, &entry.value, Precondition::Rev(entry.rev)).await.unwrap();
    }

    async fn stored(&self, record: &str) -> Value {
        self.view.get::<Value>(record).await.unwrap().unwrap().value
    }

    async fn tick(&self) -> Option<Timestamp> {
        self.engine.tick(&self.ctx()).await.unwrap()
    }
}

fn text<'a>(data: &'a Value, field: &str) -> &'a str {
    data[field].as_str().unwrap_or_else(|| panic!("no {field} in {data}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_a_user_from_issue_to_revocation() {
    let mount = Mount::configured().await;
    let role = json!({"db_name": "pg", "creation_statements": CREATE, "default_ttl": "10m"});
    let reply = mount.write("roles/reader", role).await.unwrap();
    assert_eq!(reply.warnings, Vec::<String>::new());

    let plan = mount.plan("cert-pay\"; DROP TABLE stock; --", "reader").await.unwrap();
    assert_eq!((plan.target.as_str(), plan.role.as_str()), ("pg", "reader"));
    assert_eq!((plan.ttl, plan.renewable), (Ttl::from_secs(600), true));
    let planned = text(&plan.data, "username").to_owned();
    assert!(planned.starts_with("v-cert-pay-reader-"), "{planned}");
    assert_eq!(mount.roles_like(&planned), "0", "planning touched the target");

    let answer = mount.issue(&plan).await.unwrap();
    assert_eq!(answer["username"], planned.as_str());
    let password = answer["password"].as_str().unwrap();
    assert!(mount.lets_in(&planned, password));
    let until = format!(
        "SELECT extract(epoch FROM rolvaliduntil)::bigint FROM pg_roles \
         WHERE rolname = '{planned}'"
    );
    let valid: i64 = mount.server.sql(&mount.database, &until).parse().unwrap();
    let slack = valid - (mount.clock.now().as_secs() + 600);
    assert!((5..=6).contains(&slack), "{slack}");

    mount.clock.advance(Duration::from_secs(300));
    mount.engine.renew(&mount.ctx(), mount.lease(&plan)).await.unwrap();
    let renewed: i64 = mount.server.sql(&mount.database, &until).parse().unwrap();
    assert_eq!(renewed - valid, 300);

    mount.revoke(&plan).await.unwrap();
    assert!(!mount.lets_in(&planned, password));
    assert_eq!(mount.roles_like(&planned), "0");
    mount.revoke(&plan).await.unwrap();
    let gone = mount.engine.renew(&mount.ctx(), mount.lease(&plan)).await;
    assert!(matches!(gone, Err(CoreError::Invalid(_))), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_outlives_its_role() {
    let mount = Mount::configured().await;
    let role = json!({"db_name": "pg", "creation_statements": [CREATE]});
    mount.write("roles/brief", role).await.unwrap();
    let plan = mount.plan("c", "brief").await.unwrap();
    mount.issue(&plan).await.unwrap();
    let refused = mount.reply(Operation::Delete, "config/pg", Value::Null).await.unwrap_err();
    assert!(refused.to_string().contains("roles/brief"), "{refused}");
    mount.reply(Operation::Delete, "roles/brief", Value::Null).await.unwrap();
    assert!(mount.plan("c", "brief").await.is_err());
    mount.revoke(&plan).await.unwrap();
    assert_eq!(mount.roles_like("v-c-brief-%"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_down_is_an_upstream_failure() {
    let mount = Mount::configured().await;
    let role = json!({"db_name": "pg", "creation_statements": CREATE});
    mount.write("roles/reader", role).await.unwrap();
    let mut elsewhere = mount.config();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    elsewhere["connection_url"] =
        format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{free}/x").into();
    let refused = mount.write("config/pg", elsewhere.clone()).await.unwrap_err();
    assert!(matches!(refused, CoreError::Upstream { .. }), "{refused}");
    elsewhere["verify_connection"] = false.into();
    mount.write("config/pg", elsewhere).await.unwrap();
    let plan = mount.plan("c", "reader").await.unwrap();
    for error in [mount.issue(&plan).await.unwrap_err(), mount.revoke(&plan).await.unwrap_err()] {
        assert!(matches!(error, CoreError::Upstream { .. }), "{error}");
    }
    mount.write("config/pg", mount.config()).await.unwrap();
    mount.revoke(&plan).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_creation_is_rolled_back_and_explained() {
    let mount = Mount::configured().await;
    let sql = "CREATE ROLE {{name}} LOGIN PASSWORD {{password}}; GRANT ALL ON nowhere TO {{name}}";
    let role = json!({
        "db_name": "pg", "creation_statements": sql,
        "rollback_statements": "CREATE TABLE rolled_back AS SELECT '{{name}}' AS name",
    });
    mount.write("roles/broken", role).await.unwrap();
    let plan = mount.plan("c", "broken").await.unwrap();
    let error = mount.issue(&plan).await.unwrap_err().to_string();
    assert!(error.contains("statement 2 of 3") && error.contains("nowhere"), "{error}");
    assert!(!error.contains("GRANT") && !error.contains("SCRAM"), "{error}");
    let name = mount.server.sql(&mount.database, "SELECT name FROM rolled_back");
    assert_eq!(name, text(&plan.data, "username"));
    assert_eq!(mount.roles_like("v-c-broken-%"), "0");
    mount.revoke(&plan).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_never_read_back_and_updates_keep_what_they_leave_out() {
    let mount = Mount::configured().await;
    mount
        .write("config/pg", json!({"max_open_connections": 2, "allowed_roles": ["a*", "b"]}))
        .await
        .unwrap();
    let shown = mount.read("config/pg").await;
    assert!(!shown.to_string().contains(mount.server.password()), "{shown}");
    assert_eq!(shown["connection_details"]["username"], SUPERUSER);
    assert_eq!(shown["connection_details"]["max_open_connections"], 2);
    assert_eq!(shown["allowed_roles"], json!(["a*", "b"]));
    for (name, allowed) in [("ab", true), ("b", true), ("bc", false)] {
        let role = json!({"db_name": "pg", "creation_statements": CREATE});
        let reply = mount.write(&format!("roles/{name}"), role).await.unwrap();
        assert_eq!(reply.warnings.is_empty(), allowed);
        assert_eq!(mount.plan("c", name).await.is_ok(), allowed);
    }
    let keys = mount.reply(Operation::List, "roles/", Value::Null).await.unwrap();
    assert_eq!(keys.data.unwrap()["keys"], json!(["ab", "b", "bc"]));
    mount.write("reset/pg", Value::Null).await.unwrap();
    mount.plan("c", "b").await.unwrap();
    let empty = mount.reply(Operation::List, "static-roles/", Value::Null).await;
    assert!(matches!(empty, Err(CoreError::NotFound)));
    let role = mount.read("roles/b").await;
    assert_eq!(role["creation_statements"], json!([CREATE]));
    assert_eq!(role["credential_type"], "password");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused_by_field() {
    let mount = Mount::configured().await;
    let base = mount.config();
    for (change, field) in [
        (json!({"plugin_name": "mysql-database-plugin"}), "plugin_name"),
        (json!({"connection_url": ""}), "connection_url"),
        (json!({"connection_url": "postgresql://u:hunter2@127.0.0.1/x"}), "connection_url"),
        (json!({"username": ""}), "username"),
        (json!({"username_template": "{{printf \"x\"}}"}), "username_template"),
        (json!({"root_rotation_statements": "SELECT {{name}}"}), "root_rotation_statements"),
        (json!({"password_authentication": "password"}), "password_authentication"),
        (json!({"password_policy": "mine"}), "password_policy"),
        (json!({"max_open_connections": 65}), "max_open_connections"),
        (json!({"max_open_connections": -1}), "max_open_connections"),
        (json!({"max_connection_lifetime": "soon"}), "max_connection_lifetime"),
        (json!({"tls_ca": "not pem"}), "connection_url"),
        (json!({"verify_connection": "perhaps"}), "verify_connection"),
    ] {
        let mut body = base.clone();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let error = mount.write("config/other", body).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("field \"{field}\"")), "{change}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let role = json!({"db_name": "pg", "creation_statements": CREATE});
    for (change, field) in [
        (json!({"db_name": ""}), "db_name"),
        (json!({"creation_statements": []}), "creation_statements"),
        (json!({"creation_statements": "CREATE ROLE {{name}}"}), "creation_statements"),
        (json!({"creation_statements": "{{name}} {{password}} {{x}}"}), "creation_statements"),
        (json!({"revocation_statements": "DROP ROLE {{password}}"}), "revocation_statements"),
        (json!({"revocation_statements": "DROP ROLE '"}), "revocation_statements"),
        (json!({"renew_statements": "COMMIT"}), "renew_statements"),
        (json!({"rollback_statements": [1, {}]}), "rollback_statements"),
        (json!({"default_ttl": "2h", "max_ttl": "1h"}), "default_ttl"),
        (json!({"credential_type": "rsa_private_key"}), "credential_type"),
        (json!({"credential_config": {"key_bits": 2048}}), "credential_config"),
    ] {
        let mut body = role.clone();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let error = mount.write("roles/other", body).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("field \"{field}\"")), "{change}: {error}");
    }
    let user = mount.user();
    let role = json!({"db_name": "pg", "username": user, "rotation_period": 60});
    for (change, field) in [
        (json!({"db_name": ""}), "db_name"),
        (json!({"username": ""}), "username"),
        (json!({"username": "x".repeat(64)}), "username"),
        (json!({"username": SUPERUSER}), "username"),
        (json!({"rotation_period": 4}), "rotation_period"),
        (json!({"rotation_schedule": "* * * * *"}), "rotation_schedule"),
        (json!({"rotation_statements": "ALTER ROLE {{name}}"}), "rotation_statements"),
        (json!({"credential_type": "client_certificate"}), "credential_type"),
    ] {
        let mut body = role.clone();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let error = mount.write("static-roles/other", body).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("field \"{field}\"")), "{change}: {error}");
    }
    let missing = mount.write("config/new", json!({})).await.unwrap_err().to_string();
    assert!(missing.starts_with("field \"plugin_name\""), "{missing}");
    for path in ["config/none", "roles/none", "static-roles/none"] {
        let missing = mount.reply(Operation::Read, path, Value::Null).await;
        assert!(matches!(missing, Err(CoreError::NotFound)), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_finds_a_revocation_that_cannot_work() {
    let mount = Mount::configured().await;
    let mut role = json!({
        "db_name": "pg", "creation_statements": CREATE, "verify": true,
        "revocation_statements": "DROP ROLE {{name}}",
    });
    let error = mount.write("roles/tried", role.clone()).await.unwrap_err().to_string();
    assert!(error.starts_with("field \"revocation_statements\" cannot work"), "{error}");
    assert!(error.contains("2BP01") && error.contains("the trial user is gone"), "{error}");
    let saved = mount.reply(Operation::Read, "roles/tried", Value::Null).await;
    assert!(matches!(saved, Err(CoreError::NotFound)));

    role["creation_statements"] = "SELECT {{name}}, {{password}}".into();
    let error = mount.write("roles/tried", role.clone()).await.unwrap_err().to_string();
    assert!(error.starts_with("field \"creation_statements\" cannot work"), "{error}");

    role["creation_statements"] = CREATE.into();
    role["revocation_statements"] =
        "REVOKE ALL ON stock FROM {{name}}; DROP ROLE \"{{name}}\"".into();
    let reply = mount.write("roles/tried", role).await.unwrap();
    let report = &reply.data.unwrap()["verification"];
    assert_eq!(
        *report,
        json!({"created": true, "login": "accepted", "renewed": true, "revoked": true})
    );
    assert_eq!(mount.roles_like("v-trial-%"), "0");
    assert_eq!(mount.view.list("trials/").await.unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_of_an_interrupted_trial_is_cleaned_up() {
    let mount = Mount::configured().await;
    let role = json!({"db_name": "pg", "creation_statements": CREATE});
    mount.write("roles/tried", role).await.unwrap();
    // The record of a trial is durable before its user is made; then the process died.
    let plan = mount.plan("crashed", "tried").await.unwrap();
    mount.issue(&plan).await.unwrap();
    let started = mount.clock.now();
    let trial = json!({"data": plan.data, "started_at": started.as_millis()});
    mount.view.write("trials/crashed", &trial, Precondition::Absent).await.unwrap();

    let due = mount.tick().await.unwrap();
    assert_eq!(due, started.plus(Ttl::from_secs(300)));
    assert_eq!(mount.roles_like("v-crashed-%"), "1", "a running trial was disturbed");
    mount.clock.set_wall(due);
    assert_eq!(mount.tick().await, None);
    assert_eq!(mount.roles_like("v-crashed-%"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn static_roles_rotate_when_they_are_due() {
    let mount = Mount::configured().await;
    let user = mount.user();
    let role = json!({"db_name": "pg", "username": user, "rotation_period": "1h"});
    mount.write("static-roles/app", role.clone()).await.unwrap();
    assert!(!mount.lets_in(&user, "before"), "the old password still works");
    let first = mount.read("static-creds/app").await;
    assert!(mount.lets_in(&user, text(&first, "password")));
    assert_eq!(
        (first["ttl"].as_u64(), first["rotation_period"].as_u64()),
        (Some(3600), Some(3600))
    );
    assert_eq!(text(&first, "last_vault_rotation"), mount.clock.now().to_rfc3339());

    let due = mount.tick().await.unwrap();
    assert_eq!(due, mount.clock.now().plus(Ttl::from_secs(3600)));
    assert_eq!(mount.read("static-creds/app").await["password"], first["password"]);
    mount.clock.set_wall(due);
    assert_eq!(mount.tick().await, Some(due.plus(Ttl::from_secs(3600))));
    let second = mount.read("static-creds/app").await;
    assert_ne!(second["password"], first["password"]);
    assert!(mount.lets_in(&user, text(&second, "password")));
    assert!(!mount.lets_in(&user, text(&first, "password")));

    mount.write("rotate-role/app", Value::Null).await.unwrap();
    let third = mount.read("static-creds/app").await;
    assert_ne!(third["password"], second["password"]);

    let error = mount.write("static-roles/app", json!({"username": "other"})).await.unwrap_err();
    assert!(error.to_string().starts_with("field \"username\""), "{error}");
    let error = mount.write("static-roles/twin", role).await.unwrap_err();
    assert!(error.to_string().contains("static-roles/app"), "{error}");
    let cron = json!({"rotation_schedule": "0 3 * * *", "rotation_window": "1h"});
    mount.write("static-roles/app", cron).await.unwrap();
    let shown = mount.read("static-roles/app").await;
    assert_eq!(shown["rotation_schedule"], "0 3 * * *");
    assert_eq!(shown.get("rotation_period"), None);

    // A window that closed while nobody was there is waited out, not caught up.
    let due = mount.tick().await.unwrap();
    mount.clock.set_wall(due.plus(Ttl::from_secs(3601)));
    assert_eq!(mount.tick().await, Some(due.plus(Ttl::from_secs(86_400))));
    assert_eq!(mount.read("static-creds/app").await["password"], third["password"]);
    mount.clock.set_wall(due.plus(Ttl::from_secs(86_400 + 60)));
    mount.tick().await;
    assert_ne!(mount.read("static-creds/app").await["password"], third["password"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_is_not_there_cannot_be_taken_over() {
    let mount = Mount::configured().await;
    let role = json!({"db_name": "pg", "username": "nobody_here", "rotation_period": "1h"});
    let error = mount.write("static-roles/app", role).await.unwrap_err().to_string();
    assert!(error.contains("no such user"), "{error}");
    let kept = mount.reply(Operation::Read, "static-roles/app", Value::Null).await;
    assert!(matches!(kept, Err(CoreError::NotFound)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_a_static_rotation_loses_no_password() {
    let mount = Mount::configured().await;
    let user = mount.user();
    let role = json!({"db_name": "pg", "username": user, "rotation_period": "1h"});
    mount.write("static-roles/app", role).await.unwrap();
    for already_set in [false, true] {
        // The pending password is durable; the process died before, or after, it was set.
        let pending = format!("Pending{}", random_base62(17).unwrap());
        mount.edit("static-roles/app", |role| role["pending_password"] = json!(pending)).await;
        if already_set {
            let sql = format!("ALTER ROLE {user} PASSWORD '{pending}'");
            mount.server.sql(&mount.database, &sql);
        }
        let shown = mount.read("static-creds/app").await;
        assert_eq!(text(&shown, "password"), pending);
        assert!(mount.lets_in(&user, &pending));
        assert_eq!(mount.stored("static-roles/app").await["pending_password"], Value::Null);
    }
    // The scheduler finishes what nobody asks for.
    mount.edit("static-roles/app", |role| role["pending_password"] = json!("PendingAgain1")).await;
    mount.tick().await;
    assert!(mount.lets_in(&user, "PendingAgain1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_rotation_keeps_the_password_and_is_tried_again() {
    let mount = Mount::configured().await;
    let user = mount.user();
    let role = json!({"db_name": "pg", "username": user, "rotation_period": "1h"});
    mount.write("static-roles/app", role).await.unwrap();
    let before = mount.read("static-creds/app").await;
    let broken =
        json!({"rotation_statements": "SELECT no_such_function('{{name}}', {{password}})"});
    mount.write("static-roles/app", broken).await.unwrap();
    assert!(mount.write("rotate-role/app", Value::Null).await.is_err());
    assert_eq!(mount.read("static-creds/app").await["password"], before["password"]);

    mount.clock.advance(Duration::from_secs(3600));
    let again = mount.tick().await.unwrap();
    let pause = again.millis_since(mount.clock.now());
    assert!((10_000..=600_000).contains(&pause), "{pause}");
    let repaired = json!({"rotation_statements": []});
    mount.write("static-roles/app", repaired).await.unwrap();
    mount.clock.set_wall(again);
    mount.tick().await;
    let after = mount.read("static-creds/app").await;
    assert_ne!(after["password"], before["password"]);
    assert!(mount.lets_in(&user, text(&after, "password")));
}

/// A mount whose database is configured with a root user of its own.
async fn with_own_root() -> (Mount, String) {
    let mount = Mount::new();
    let root = format!("root_{}", random_base62(8).unwrap().to_lowercase());
    let sql = format!("CREATE ROLE {root} SUPERUSER LOGIN PASSWORD 'before'");
    mount.server.sql(&mount.database, &sql);
    let mut config = mount.config();
    config["username"] = root.as_str().into();
    config["password"] = "before".into();
    mount.write("config/pg", config).await.unwrap();
    mount.write("roles/r", json!({"db_name": "pg", "creation_statements": CREATE})).await.unwrap();
    (mount, root)
}

async fn issues(mount: &Mount) -> bool {
    let plan = mount.plan("c", "r").await.unwrap();
    let issued = mount.issue(&plan).await.is_ok();
    if issued {
        mount.revoke(&plan).await.unwrap();
    }
    issued
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_password_becomes_one_that_nobody_has_seen() {
    let (mount, root) = with_own_root().await;
    mount.write("rotate-root/pg", Value::Null).await.unwrap();
    assert!(!mount.lets_in(&root, "before"));
    let stored = mount.stored("config/pg").await;
    assert!(mount.lets_in(&root, text(&stored, "password")));
    assert_eq!(stored["pending_password"], Value::Null);
    assert!(issues(&mount).await);
    mount.write("rotate-root/pg", Value::Null).await.unwrap();
    assert!(!mount.lets_in(&root, text(&stored, "password")));
    assert!(issues(&mount).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_a_root_rotation_locks_nobody_out() {
    for already_set in [false, true] {
        let (mount, root) = with_own_root().await;
        mount
            .edit("config/pg", |config| {
                config["pending_password"] = json!("pending-one");
                config["generation"] = json!("after-the-crash");
            })
            .await;
        if already_set {
            let sql = format!("ALTER ROLE {root} PASSWORD 'pending-one'");
            mount.server.sql(&mount.database, &sql);
        }
        assert!(issues(&mount).await, "both passwords must be tried");
        mount.tick().await;
        let stored = mount.stored("config/pg").await;
        assert_eq!(stored["pending_password"], Value::Null);
        let in_force = if already_set { "pending-one" } else { "before" };
        assert_eq!(text(&stored, "password"), in_force);
        assert!(issues(&mount).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_root_rotation_keeps_the_old_password() {
    let (mount, root) = with_own_root().await;
    let broken = json!({"root_rotation_statements": "SELECT nowhere('{{name}}', {{password}})"});
    mount.write("config/pg", broken).await.unwrap();
    let error = mount.write("rotate-root/pg", Value::Null).await.unwrap_err().to_string();
    assert!(error.contains("42883") && !error.contains("SCRAM"), "{error}");
    assert!(mount.lets_in(&root, "before"));
    assert_eq!(mount.stored("config/pg").await["pending_password"], Value::Null);
    assert!(issues(&mount).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_engine_is_readable_in_the_store() {
    let mount = Mount::configured().await;
    let user = mount.user();
    let role = json!({"db_name": "pg", "username": user, "rotation_period": "1h"});
    mount.write("static-roles/app", role).await.unwrap();
    mount
        .write("roles/secretive", json!({"db_name": "pg", "creation_statements": CREATE}))
        .await
        .unwrap();
    let password = text(&mount.read("static-creds/app").await, "password").to_owned();
    // The last write must be on disk: an empty commit waits for those before it.
    mount.view.commit(&Batch::new()).await.unwrap();
    let mut bytes = Vec::new();
    for file in std::fs::read_dir(mount._directory.path()).unwrap() {
        bytes.extend(std::fs::read(file.unwrap().path()).unwrap());
    }
    for secret in [password.as_str(), user.as_str(), "secretive", "CREATE ROLE", &mount.database] {
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{secret} is readable");
    }
}
