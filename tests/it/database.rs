//! The PostgreSQL driver against a real server.

use std::sync::Arc;

use leasehold::engines::database::driver::{DatabaseDriver, DoomedUser, DriverError, NewUser};
use leasehold::engines::database::password;
use leasehold::engines::database::postgres::{PostgresConfig, PostgresDriver};
use leasehold::engines::database::statement::{Statements, Variable};
use leasehold::types::id::random_base62;
use leasehold::types::secret::SecretString;
use leasehold::types::time::{Clock, SystemClock, Timestamp, Ttl};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::support::postgres::{SUPERUSER, TestPostgres};

const ALL: &[Variable] = &[Variable::Name, Variable::Password, Variable::Expiration];
const CREATE: &str = r#"CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}'
    VALID UNTIL '{{expiration}}'; GRANT pg_monitor TO "{{name}}";"#;

/// A database of its own on the shared server, and a driver for it.
struct Target {
    server: &'static TestPostgres,
    database: String,
    driver: Arc<PostgresDriver>,
}

impl Target {
    fn new() -> Self {
        let server = TestPostgres::shared();
        let url = server.database();
        let database = url.rsplit('/').next().unwrap().to_owned();
        let driver = driver(server, &database, SUPERUSER, &[server.password()]);
        Self { server, database, driver: Arc::new(driver) }
    }

    /// The same database through a user who is no superuser.
    fn without_superuser(mut self) -> Self {
        let user = format!("broker_{}", self.database);
        self.sql(&format!("CREATE ROLE {user} LOGIN CREATEROLE PASSWORD 'broker-password'"));
        self.sql(&format!("GRANT ALL ON SCHEMA public TO {user} WITH GRANT OPTION"));
        self.driver = Arc::new(driver(self.server, &self.database, &user, &["broker-password"]));
        self
    }

    fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.database, sql)
    }

    fn exists(&self, name: &str) -> bool {
        let literal = name.replace('\'', "''");
        self.sql(&format!("SELECT count(*) FROM pg_roles WHERE rolname = '{literal}'")) == "1"
    }

    async fn create(&self, name: &str, sql: &str) -> Result<SecretString, DriverError> {
        let password = password::generate().unwrap();
        let creation = Statements::parse(&[sql], ALL).unwrap();
        let user = NewUser { name, password: &password, expires: soon(), creation: &creation };
        self.driver.create_user(&user).await.map(|()| password)
    }

    async fn revoke(&self, name: &str, sql: &str) -> Result<(), DriverError> {
        let revocation = Statements::parse(&[sql], &[Variable::Name]).unwrap();
        let heir = format!("heir_{}", self.database);
        self.driver.revoke_user(&DoomedUser { name, revocation: &revocation, heir: &heir }).await
    }

    fn lets_in(&self, name: &str, password: &SecretString) -> bool {
        self.server.can_log_in(name, password.expose(), &self.database)
    }

    async fn session(&self, name: &str, password: &SecretString) -> tokio_postgres::Client {
        session(&self.server.url_for(name, password.expose(), &self.database)).await
    }
}

async fn session(url: &str) -> tokio_postgres::Client {
    let (client, socket) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(socket);
    client
}

fn soon() -> Timestamp {
    SystemClock.now().plus(Ttl::from_secs(3600))
}

fn name() -> String {
    format!("v-test-{}", random_base62(16).unwrap())
}

fn settings<'a>(url: &'a str, username: &'a str, passwords: &[&str]) -> PostgresConfig<'a> {
    PostgresConfig {
        connection_url: url,
        username,
        passwords: passwords.iter().map(|p| SecretString::new((*p).to_owned())).collect(),
        tls_ca: None,
        tls_certificate: None,
        private_key: None,
        max_open_connections: 4,
        max_idle_connections: 2,
        max_connection_lifetime: Ttl::ZERO,
    }
}

fn driver(
    server: &TestPostgres,
    database: &str,
    username: &str,
    passwords: &[&str],
) -> PostgresDriver {
    let url = format!(
        "postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/{database}",
        server.port()
    );
    PostgresDriver::new(settings(&url, username, passwords), Arc::new(SystemClock)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_user_is_dead_in_every_way() {
    for target in [Target::new(), Target::new().without_superuser()] {
        let name = name();
        let create = r#"CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}';
            GRANT ALL ON SCHEMA public TO "{{name}}""#;
        let password = target.create(&name, create).await.unwrap();
        let held = target.session(&name, &password).await;
        held.batch_execute("CREATE TABLE left_behind (x int)").await.unwrap();

        target.revoke(&name, "").await.unwrap();

        assert!(held.batch_execute("SELECT 1").await.is_err(), "a live session survived");
        assert!(!target.lets_in(&name, &password));
        assert!(!target.exists(&name));
        let owner = "SELECT r.rolname, r.rolcanlogin, r.rolsuper, r.rolcreaterole FROM pg_class c \
             JOIN pg_roles r ON r.oid = c.relowner WHERE c.relname = 'left_behind'";
        assert_eq!(target.sql(owner), format!("heir_{}|f|f|f", target.database));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_leaves_behind_has_no_more_power_than_it_had() {
    let target = Target::new();
    target.sql("CREATE TABLE payroll (amount int)");
    let name = name();
    let create = r#"CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}';
        GRANT ALL ON SCHEMA public TO "{{name}}""#;
    let password = target.create(&name, create).await.unwrap();
    let session = target.session(&name, &password).await;
    session
        .batch_execute(
            "CREATE FUNCTION climb() RETURNS bigint LANGUAGE sql SECURITY DEFINER \
             AS 'SELECT count(*) FROM payroll'; CREATE VIEW peek AS SELECT * FROM payroll; \
             GRANT SELECT ON peek TO PUBLIC",
        )
        .await
        .unwrap();
    target.revoke(&name, "").await.unwrap();

    let other = target.create("v-other-reader-0", CREATE).await.unwrap();
    let session = target.session("v-other-reader-0", &other).await;
    for sql in ["SELECT climb()", "SELECT * FROM peek"] {
        let error = session.batch_execute(sql).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "{sql}");
    }
    target.revoke("v-other-reader-0", "").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_again_or_at_once_or_what_never_was_succeeds() {
    let target = Target::new();
    target.revoke("v-never-was", "").await.unwrap();
    target.revoke("v-never-was", "DROP ROLE {{name}}").await.unwrap();
    let name = name();
    target.create(&name, CREATE).await.unwrap();
    let (a, b, c) =
        tokio::join!(target.revoke(&name, ""), target.revoke(&name, ""), target.revoke(&name, ""));
    for outcome in [a, b, c] {
        // Rivals may find each other in the way, which a retry cures; nothing else is allowed.
        assert!(outcome.as_ref().err().is_none_or(DriverError::is_unavailable), "{outcome:?}");
    }
    target.revoke(&name, "").await.unwrap();
    assert!(!target.exists(&name));
}

#[tokio::test(flavor = "multi_thread")]
async fn creation_is_one_transaction_and_errors_repeat_no_sql() {
    let target = Target::new();
    let name = name();
    let broken = r#"CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}'; -- first
        GRANT SELECT ON no_such_table_xyz TO "{{name}}" -- second"#;
    let error = target.create(&name, broken).await.unwrap_err().to_string();
    assert!(error.contains("statement 2 of 3") && error.contains("42P01"), "{error}");
    assert!(!error.contains("GRANT") && !error.contains("SCRAM"), "{error}");
    assert!(!target.exists(&name));

    let syntax = r#"CREATE ROLE "{{name}}" LOGIN; ALTER ROLE "{{name}}" '{{password}}'"#;
    let error = target.create(&name, syntax).await.unwrap_err().to_string();
    assert!(error.contains("statement 2 of 3") && !error.contains("SCRAM"), "{error}");
    assert!(!target.exists(&name));

    // A user of another name could never be revoked.
    let error = target.create(&name, r#"CREATE ROLE "x{{name}}" LOGIN"#).await.unwrap_err();
    assert!(matches!(error, DriverError::NotCreated), "{error}");
    assert!(!target.exists(&format!("x{name}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_log_never_holds_a_clear_password() {
    let mut target = Target::new();
    let user = format!("logged_{}", target.database);
    target.sql(&format!("CREATE ROLE {user} SUPERUSER LOGIN PASSWORD 'logged-password'"));
    target.sql(&format!("ALTER ROLE {user} SET log_statement = 'all'"));
    target.driver = Arc::new(driver(target.server, &target.database, &user, &["logged-password"]));
    let name = name();
    let first = target.create(&name, CREATE).await.unwrap();
    let second = password::generate().unwrap();
    target.driver.set_password(&name, &second, &Statements::default()).await.unwrap();
    assert!(target.lets_in(&name, &second) && !target.lets_in(&name, &first));
    let unlucky = target.create("v-unlucky", "CREATE ROLE {{name}} PASSWORD {{password}} FROM 1");
    assert!(unlucky.await.is_err());
    let log = target.server.log();
    assert!(log.contains(&name), "statements are not logged");
    assert!(log.contains("SCRAM-SHA-256$4096:"));
    for password in [&first, &second] {
        assert!(!log.contains(password.expose()));
    }
    target.revoke(&name, "").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_itself_refuses_what_has_expired() {
    let target = Target::new();
    let (name, password) = (name(), password::generate().unwrap());
    // The operator's own limit is not what counts.
    let sql = "CREATE ROLE {{name}} LOGIN PASSWORD {{password}} VALID UNTIL 'infinity'";
    let creation = Statements::parse(&[sql], ALL).unwrap();
    let expires = SystemClock.now().plus_millis(-5_000);
    let user = NewUser { name: &name, password: &password, expires, creation: &creation };
    target.driver.create_user(&user).await.unwrap();
    assert!(!target.lets_in(&name, &password));
    target.driver.renew_user(&name, soon(), &Statements::default()).await.unwrap();
    assert!(target.lets_in(&name, &password));
    target.revoke(&name, "").await.unwrap();
    let error = target.driver.renew_user(&name, soon(), &Statements::default()).await;
    assert!(matches!(error, Err(DriverError::NoSuchUser)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_stay_names() {
    let target = Target::new();
    target.sql("CREATE TABLE precious (x int)");
    let sql = r#"CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}';
        COMMENT ON ROLE {{name}} IS 'made for {{name}}'"#;
    for (number, hostile) in [
        r#"x"; DROP TABLE precious; --"#,
        "x'; DROP TABLE precious; --",
        "x$$; DROP TABLE precious; $$",
        "x\n; DROP TABLE precious",
        "x/*\u{e9}*/{{password}}",
        "x() OR pg_sleep(10)",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("{hostile}{number}{}", target.database);
        let password = target.create(&name, sql).await.unwrap();
        assert!(target.exists(&name), "{name}");
        assert!(target.lets_in(&name, &password), "{name}");
        target.driver.renew_user(&name, soon(), &Statements::default()).await.unwrap();
        target.driver.set_password(&name, &password, &Statements::default()).await.unwrap();
        let revocation = if number % 2 == 0 { "" } else { "DROP ROLE {{name}}" };
        target.revoke(&name, revocation).await.unwrap();
        assert!(!target.exists(&name), "{name}");
    }
    assert_eq!(target.sql("SELECT count(*) FROM precious"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_owned_in_other_databases_is_found_there() {
    let target = Target::new();
    let other = target.server.database().rsplit('/').next().unwrap().to_owned();
    let name = name();
    let password = target.create(&name, CREATE).await.unwrap();
    target.server.sql(&other, &format!("CREATE SCHEMA mine AUTHORIZATION \"{name}\""));
    target.server.sql(&other, &format!("GRANT ALL ON SCHEMA public TO \"{name}\""));
    target.revoke(&name, "").await.unwrap();
    assert!(!target.exists(&name));
    let owner = "SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'mine'";
    assert_eq!(target.server.sql(&other, owner), format!("heir_{}", target.database));

    // A database that lets nobody in: named in the error, and the credential is dead all the same.
    let password = (target.create(&name, CREATE).await.unwrap(), password).0;
    target.server.sql(&other, &format!("GRANT ALL ON SCHEMA public TO \"{name}\""));
    target.sql(&format!("ALTER DATABASE {other} ALLOW_CONNECTIONS false"));
    let error = target.revoke(&name, "").await.unwrap_err().to_string();
    assert!(error.contains(&other), "{error}");
    assert!(!target.lets_in(&name, &password));
    target.sql(&format!("ALTER DATABASE {other} ALLOW_CONNECTIONS true"));
    target.revoke(&name, "").await.unwrap();
    assert!(!target.exists(&name));
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_statements_are_checked_for_what_they_leave() {
    let target = Target::new();
    target.sql("CREATE TABLE granted (x int)");
    let create =
        "CREATE ROLE {{name}} LOGIN PASSWORD {{password}}; GRANT ALL ON granted TO {{name}}";
    let name = name();
    let password = target.create(&name, create).await.unwrap();
    let held = target.session(&name, &password).await;
    let error = target.revoke(&name, "DROP ROLE {{name}}").await.unwrap_err().to_string();
    assert!(error.contains("2BP01") && error.contains("revocation_statements"), "{error}");
    assert!(!target.lets_in(&name, &password), "a failed revocation left a live credential");
    assert!(held.batch_execute("SELECT 1").await.is_err());

    let error = target.revoke(&name, "ALTER ROLE {{name}} LOGIN").await.unwrap_err();
    assert!(matches!(error, DriverError::StillAlive), "{error}");
    target.revoke(&name, "REVOKE ALL ON granted FROM {{name}}; DROP ROLE {{name}}").await.unwrap();
    assert!(!target.exists(&name));
}

/// How many sessions of the broker wait in, or run, a statement that contains `text`.
fn running(target: &Target, text: &str) -> String {
    target.sql(&format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND state = 'active' \
         AND application_name = 'leasehold' AND query LIKE '%{text}%'",
        target.database
    ))
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..400 {
        if holds() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never came true: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_waits_for_a_creation_whose_outcome_nobody_saw() {
    let target = Target::new();
    let name = name();
    // Somebody who sent COMMIT, died, and whose COMMIT is still on its way.
    let ghost = session(&target.server.url(&target.database)).await;
    ghost
        .batch_execute(&format!(
            "BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('{name}', 0)); \
             CREATE ROLE \"{name}\" LOGIN"
        ))
        .await
        .unwrap();
    let revocation = async { target.revoke(&name, "").await };
    let commit = async {
        until("the revocation waits", || running(&target, "advisory") == "1").await;
        ghost.batch_execute("COMMIT").await.unwrap();
    };
    let (outcome, ()) = tokio::join!(revocation, commit);
    outcome.unwrap();
    assert!(!target.exists(&name), "the revocation overtook the creation");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_was_given_up_never_happens() {
    let target = Arc::new(Target::new());
    let name = name();
    // The last statement waits at a gate that this test holds.
    let gate = session(&target.server.url(&target.database)).await;
    gate.batch_execute("SELECT pg_advisory_lock(424242)").await.unwrap();
    let create = "CREATE ROLE {{name}} LOGIN PASSWORD {{password}}; \
         SELECT pg_advisory_xact_lock(424242)";
    let creation = tokio::spawn({
        let (target, name) = (Arc::clone(&target), name.clone());
        async move { target.create(&name, create).await.map(drop) }
    });
    until("the creation is at the gate", || running(&target, "424242") == "1").await;
    creation.abort();
    assert!(creation.await.unwrap_err().is_cancelled());
    let revocation = async { target.revoke(&name, "").await };
    let open = async {
        until("the revocation waits", || running(&target, "pg_has_role") == "1").await;
        gate.batch_execute("SELECT pg_advisory_unlock(424242)").await.unwrap();
    };
    let (outcome, ()) = tokio::join!(revocation, open);
    outcome.unwrap();
    until("the abandoned session ends", || running(&target, "424242") == "0").await;
    assert!(!target.exists(&name));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_down_is_unavailable_and_nothing_is_left() {
    let server = TestPostgres::start();
    let driver = driver(&server, "postgres", SUPERUSER, &[server.password()]);
    driver.verify().await.unwrap();
    server.stop();
    let (name, password) = (name(), password::generate().unwrap());
    let creation = Statements::parse(&[CREATE], ALL).unwrap();
    let user = NewUser { name: &name, password: &password, expires: soon(), creation: &creation };
    let error = driver.create_user(&user).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    // By now the pool knows that it has no session, and cannot make one.
    let error = driver.create_user(&user).await.unwrap_err();
    assert!(matches!(error, DriverError::NotBegun(_)) && error.is_unavailable(), "{error}");
    let strange = self::driver(&server, "postgres", SUPERUSER, &["wrong"]);
    let none = Statements::default();
    let doomed = DoomedUser { name: &name, revocation: &none, heir: "heir" };
    assert!(driver.revoke_user(&doomed).await.unwrap_err().is_unavailable());

    server.start_again();
    // The pool held a session of the server that died; it is not handed out as an error.
    driver.revoke_user(&doomed).await.unwrap();
    driver.create_user(&user).await.unwrap();
    driver.revoke_user(&doomed).await.unwrap();
    let error = strange.create_user(&user).await.unwrap_err();
    let DriverError::NotBegun(reason) = error else { panic!("{error}") };
    assert!(matches!(*reason, DriverError::Login { .. }), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_one_creation_do_not_reach_the_next() {
    let target = Target::new();
    let sql = "CREATE ROLE {{name}} LOGIN PASSWORD {{password}}; \
         SET standard_conforming_strings = off; SET search_path = nowhere";
    let (first, second) = (name(), name());
    target.create(&first, sql).await.unwrap();
    let shown = "CREATE ROLE {{name}} LOGIN PASSWORD {{password}}; CREATE TABLE seen AS SELECT \
         current_setting('standard_conforming_strings') AS s, current_setting('search_path') AS p, \
         current_user AS u";
    target.create(&second, shown).await.unwrap();
    let seen = target.sql("SELECT s, p, u FROM public.seen");
    assert_eq!(seen, format!("on|\"$user\", public|{SUPERUSER}"));
    for name in [first, second] {
        target.revoke(&name, "").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_root_password_changes_both_are_tried() {
    let server = TestPostgres::shared();
    let user = format!("root_{}", random_base62(8).unwrap().to_lowercase());
    server.sql("postgres", &format!("CREATE ROLE {user} SUPERUSER LOGIN PASSWORD 'old-one'"));
    let driver = driver(server, "postgres", &user, &["old-one", "new-one"]);
    driver.verify().await.unwrap();
    let new = SecretString::new("new-one".into());
    assert!(!driver.can_log_in(&user, &new).await.unwrap());
    driver.set_password(&user, &new, &Statements::default()).await.unwrap();
    assert!(driver.can_log_in(&user, &new).await.unwrap());

    let both = self::driver(server, "postgres", &user, &["old-one", "new-one"]);
    both.verify().await.unwrap();
    let stale = self::driver(server, "postgres", &user, &["old-one"]);
    assert!(matches!(stale.verify().await, Err(DriverError::Login { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_verified_as_asked() {
    let authority = |name: &str| {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (parameters.self_signed(&key).unwrap().pem(), Issuer::new(parameters, key))
    };
    let (ca, issuer) = authority("ca");
    let (stranger, _) = authority("stranger");
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["db.example".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let server = TestPostgres::start_with_tls(&leaf.pem(), &key.serialize_pem());

    let outcome = async |host: &str, mode: &str, ca: Option<&str>| {
        let port = server.port();
        let url = format!(
            "postgres://{{{{username}}}}:{{{{password}}}}@{host}:{port}/postgres\
             ?hostaddr=127.0.0.1&sslmode={mode}"
        );
        let config =
            PostgresConfig { tls_ca: ca, ..settings(&url, SUPERUSER, &[server.password()]) };
        let driver = PostgresDriver::new(config, Arc::new(SystemClock)).unwrap();
        let works = driver.verify().await.is_ok();
        (works, driver.is_server_unverified())
    };
    assert_eq!(outcome("db.example", "verify-full", Some(&ca)).await, (true, false));
    assert_eq!(outcome("other.example", "verify-full", Some(&ca)).await, (false, false));
    assert_eq!(outcome("db.example", "verify-full", Some(&stranger)).await, (false, false));
    assert_eq!(outcome("other.example", "verify-ca", Some(&ca)).await, (true, false));
    assert_eq!(outcome("db.example", "verify-ca", Some(&stranger)).await, (false, false));
    assert_eq!(outcome("db.example", "require", Some(&stranger)).await, (false, false));
    assert_eq!(outcome("db.example", "require", None).await, (true, true));
}
