//! What the tests find in the shared broker, and how they make more of it without getting into each
//! other's way.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::support::broker::{Broker, Caller, DOMAIN, Setup};
use crate::support::postgres::{SUPERUSER, TestPostgres};

/// Makes a role that can log in and read the table `stock`.
pub const CREATE: &str = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' \
     VALID UNTIL '{{expiration}}'; GRANT SELECT ON TABLE stock TO \"{{name}}\"";

/// A broker with mounts, policies and roles.
pub struct World {
    pub broker: Broker,
    /// The database that `database/` leases users of.
    pub database: String,
}

static SHARED: OnceCell<World> = OnceCell::const_new();

/// The broker that tests share.
pub async fn shared() -> &'static World {
    SHARED.get_or_init(|| World::new(Setup::default())).await
}

/// A name that no other test has.
pub fn unique(stem: &str) -> String {
    static LAST: AtomicU32 = AtomicU32::new(0);
    format!("{stem}{}", LAST.fetch_add(1, Ordering::Relaxed))
}

impl World {
    /// Starts a broker and furnishes it.
    pub async fn new(setup: Setup) -> Self {
        let server = tokio::task::spawn_blocking(TestPostgres::shared);
        let broker = Broker::ready(setup).await;
        let server = server.await.unwrap();
        let database = server.database().rsplit('/').next().unwrap().to_owned();
        server.sql(&database, "CREATE TABLE stock (x int)");
        let world = Self { broker, database };
        world.furnish().await;
        world
    }

    async fn furnish(&self) {
        let root = self.broker.root();
        for (path, body) in [
            ("sys/mounts/secret", json!({ "type": "kv", "options": { "version": "2" } })),
            ("sys/mounts/kv", json!({ "type": "kv", "options": { "version": "1" } })),
            ("sys/mounts/database", json!({ "type": "database" })),
            ("sys/auth/cert", json!({ "type": "cert" })),
            ("database/config/pg", self.database_config(&self.database)),
            (
                "database/roles/reader",
                json!({
                    "db_name": "pg",
                    "creation_statements": CREATE,
                    "default_ttl": "1h",
                    "max_ttl": "2h",
                }),
            ),
        ] {
            root.write(path, body).await.ok();
        }
    }

    /// How `database/` reaches a database of the tests' server.
    pub fn database_config(&self, database: &str) -> Value {
        database_config(TestPostgres::shared(), database)
    }

    /// Somebody whose certificate entitles to a policy with that text, by a role of its own. Also
    /// answers the name of role, policy and workload.
    pub async fn workload(&self, policy: &str) -> (Caller, String) {
        let name = unique("workload");
        self.admit(&name, policy).await;
        (self.broker.caller(&self.broker.svid(&name)), name)
    }

    /// Makes a role and a policy called `name` for the SPIFFE path of that name.
    pub async fn admit(&self, name: &str, policy: &str) {
        let root = self.broker.root();
        root.write(&format!("sys/policies/acl/{name}"), json!({ "policy": policy })).await.ok();
        let role = json!({
            "allowed_uri_sans": [format!("spiffe://{DOMAIN}/{name}")],
            "token_policies": [name],
        });
        root.write(&format!("auth/cert/certs/{name}"), role).await.ok();
    }

    /// A token with a policy with that text, made by root.
    pub async fn token(&self, policy: &str) -> (Caller, String) {
        let name = unique("policy");
        let root = self.broker.root();
        root.write(&format!("sys/policies/acl/{name}"), json!({ "policy": policy })).await.ok();
        let made = root.write("auth/token/create", json!({ "policies": [name] })).await.ok();
        let token = made["auth"]["client_token"].as_str().unwrap().to_owned();
        (self.broker.admin().with_token(&token), token)
    }
}

/// How a mount reaches a database of that server.
pub fn database_config(server: &TestPostgres, database: &str) -> Value {
    let address = format!("127.0.0.1:{}/{database}?sslmode=disable", server.port());
    json!({
        "plugin_name": "postgresql-database-plugin",
        "connection_url": format!("postgresql://{{{{username}}}}:{{{{password}}}}@{address}"),
        "username": SUPERUSER,
        "password": server.password(),
        "allowed_roles": "*",
    })
}
