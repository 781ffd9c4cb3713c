//! From an empty server to one that the workloads can use. Over the API that brokers of this kind
//! share, so that it is the same for all of them.

use serde_json::json;

use super::support::broker::{Caller, DOMAIN};
use super::support::postgres::{SUPERUSER, TestPostgres};

/// How many names `secret/names/` has.
const NAMES: usize = 1000;

const POLICY: &str = r#"
path "secret/*" { capabilities = ["create", "read", "update", "list"] }
path "transit/*" { capabilities = ["create", "update"] }
path "database/creds/*" { capabilities = ["read"] }
path "auth/token/create" { capabilities = ["create", "update"] }
path "auth/token/revoke" { capabilities = ["update"] }
path "sys/leases/revoke" { capabilities = ["update"] }
path "sys/wrapping/unwrap" { capabilities = ["update"] }
"#;

/// Mounts, keys, secrets, and a role for workloads.
pub async fn all(root: &Caller, clients_pem: &str, database: Option<&TestPostgres>) {
    let kv = json!({ "type": "kv", "options": { "version": "2" } });
    root.write("sys/mounts/secret", kv).await.ok();
    root.write("sys/mounts/transit", json!({ "type": "transit" })).await.ok();
    root.write("transit/keys/aes", json!({ "type": "aes256-gcm96" })).await.ok();
    root.write("transit/keys/ed", json!({ "type": "ed25519" })).await.ok();
    root.write("sys/auth/cert", json!({ "type": "cert" })).await.ok();
    role(root, clients_pem, "workload", &[("workload", POLICY)]).await;
    secret(root, "bench").await;
    for name in 0..NAMES {
        secret(root, &format!("names/{name:04}")).await;
    }
    if let Some(postgres) = database {
        root.write("sys/mounts/database", json!({ "type": "database" })).await.ok();
        connection(root, postgres).await;
        database_role(root, "bench", "").await;
    }
}

/// What a secret of a service looks like.
pub const SECRET: &str = r#"{"data":{"username":"app","password":"correct horse battery staple"}}"#;

async fn secret(root: &Caller, name: &str) {
    let body = serde_json::from_str(SECRET).unwrap();
    let path = format!("secret/data/{name}");
    // Right after mounting, some servers still prepare the mount.
    for _ in 0..50 {
        let answer = root.write(&path, serde_json::Value::clone(&body)).await;
        if answer.status < 300 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{path} cannot be written");
}

/// Workloads below `spiffe://…/NAME/` have these policies.
pub async fn role(root: &Caller, clients_pem: &str, name: &str, policies: &[(&str, &str)]) {
    for (name, text) in policies {
        root.write(&format!("sys/policies/acl/{name}"), json!({ "policy": text })).await.ok();
    }
    let names: Vec<&str> = policies.iter().map(|(name, _)| *name).collect();
    let role = json!({
        "certificate": clients_pem,
        "allowed_uri_sans": [format!("spiffe://{DOMAIN}/{name}/*")],
        "token_policies": names,
        "token_ttl": "10m",
    });
    root.write(&format!("auth/cert/certs/{name}"), role).await.ok();
}

/// The PostgreSQL that credentials are made in.
pub async fn connection(root: &Caller, postgres: &TestPostgres) {
    let url = postgres.url_for("{{username}}", "{{password}}", "postgres");
    let config = json!({
        "plugin_name": "postgresql-database-plugin",
        "connection_url": format!("{url}?sslmode=disable"),
        "username": SUPERUSER,
        "password": postgres.password(),
        "allowed_roles": "*",
        "max_open_connections": 8,
    });
    root.write("database/config/bench", config).await.ok();
}

/// A role of it; without a revocation of its own, users are revoked as the server knows best.
pub async fn database_role(root: &Caller, name: &str, revocation: &str) {
    let mut role = json!({
        "db_name": "bench",
        "creation_statements": "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' \
            VALID UNTIL '{{expiration}}'; GRANT pg_read_all_data TO \"{{name}}\"",
        "default_ttl": "1h",
    });
    if !revocation.is_empty() {
        role["revocation_statements"] = revocation.into();
    }
    root.write(&format!("database/roles/{name}"), role).await.ok();
}
