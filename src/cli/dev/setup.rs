//! From an empty store to one worth trying, over the API like everybody else.

use serde_json::{Value, json};

use super::directory::Directory;
use crate::cli::ca::TRUST_DOMAIN;
use crate::cli::error::CliError;
use crate::client::{Client, ClientError, Request, Verb};

const SHARES: u8 = 3;
const THRESHOLD: u8 = 2;

const ADMIN_POLICY: &str = r#"# Everything, for the administrator of a development broker.
path "*" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
# The default policy names these exactly, which would win over the pattern above.
path "sys/leases/lookup" {
  capabilities = ["update", "list", "sudo"]
}
path "sys/leases/renew" {
  capabilities = ["update", "sudo"]
}
"#;

const WORKLOAD_POLICY: &str = r#"# What a workload needs: its secrets, its credentials, narrower tokens for its jobs.
path "secret/data/*" {
  capabilities = ["read"]
}
path "secret/metadata/*" {
  capabilities = ["read", "list"]
}
path "database/creds/*" {
  capabilities = ["read"]
}
path "database/static-creds/*" {
  capabilities = ["read"]
}
path "auth/token/create" {
  capabilities = ["create", "update"]
}
# To give back what it leased; other people's leases are not there for it.
path "sys/leases/revoke" {
  capabilities = ["update"]
}
"#;

/// Initializes the store if it is empty, and unseals it. Returns whether it was empty.
pub(super) async fn unseal(client: &Client, directory: &Directory) -> Result<bool, CliError> {
    let status = client.send(Request::new(Verb::Read, "sys/seal-status").retried()).await?;
    let is = |name: &str| status.data().get(name).and_then(Value::as_bool);
    let empty = is("initialized") == Some(false);
    if empty {
        if directory.has_keys() {
            return Err(CliError::local(
                format!("{} has the keys of another store", directory.path().display()),
                "start it with the -storage that it had before, or choose another -dir",
            ));
        }
        let body = json!({ "secret_shares": SHARES, "secret_threshold": THRESHOLD });
        let reply = client.write("sys/init", body).await?;
        let token = reply.text("root_token").ok_or(CliError::Answer("root token"))?;
        directory.keep_keys(reply.data(), token)?;
    } else if is("sealed") == Some(false) {
        return Ok(false);
    }
    for key in directory.keys()? {
        let reply = client.write("sys/unseal", json!({ "key": key.expose() })).await?;
        if reply.data().get("sealed").and_then(Value::as_bool) == Some(false) {
            return Ok(empty);
        }
    }
    Err(CliError::local(
        "the keys of the directory do not unseal the store",
        "start it with the same -storage as before, or choose another -dir",
    ))
}

/// Mounts, policies, roles and one secret. What is there already stays as it is.
pub(super) async fn furnish(client: &Client, ca_pem: &str) -> Result<(), CliError> {
    let mounts = client.read("sys/mounts").await?;
    for (path, body) in [
        ("secret", json!({ "type": "kv", "options": { "version": "2" } })),
        ("database", json!({ "type": "database" })),
    ] {
        if mounts.data().get(format!("{path}/")).is_none() {
            client.write(&format!("sys/mounts/{path}"), body).await?;
        }
    }
    let methods = client.read("sys/auth").await?;
    if methods.data().get("cert/").is_none() {
        client.write("sys/auth/cert", json!({ "type": "cert" })).await?;
    }
    for (name, policy) in [("admin", ADMIN_POLICY), ("workload", WORKLOAD_POLICY)] {
        absent(client, &format!("sys/policies/acl/{name}"), json!({ "policy": policy })).await?;
        let role = json!({
            "certificate": ca_pem,
            "allowed_uri_sans": [format!("spiffe://{TRUST_DOMAIN}/{name}/*")],
            "token_policies": [name],
        });
        absent(client, &format!("auth/cert/certs/{name}"), role).await?;
    }
    let hello = json!({ "data": { "greeting": "hello", "from": "leasehold" } });
    absent(client, "secret/data/hello", hello).await
}

async fn absent(client: &Client, path: &str, body: Value) -> Result<(), CliError> {
    match client.read(path).await {
        Ok(_) => Ok(()),
        Err(ClientError::Refused(refusal)) if refusal.status == 404 => {
            client.write(path, body).await?;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
