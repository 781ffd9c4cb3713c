//! Auth methods: their settings, roles, users and groups.

use serde_json::{Map, Value, json};

use super::copy::{Context, written};
use super::ledger::Entry;
use super::mounts::Mounted;
use super::side::Trouble;
use crate::cli::error::CliError;
use crate::types::secret::SecretBytes;

/// Bytes of the password that a user has until somebody sets another.
const PASSWORD_BYTES: usize = 32;

/// What can be read of a method.
struct Method {
    kind: &'static str,
    /// The path of its own settings, and a secret in them that is never answered.
    config: Option<(&'static str, &'static str)>,
    /// Lists of what it has, each with the name of its entries.
    lists: &'static [(&'static str, &'static str)],
}

const METHODS: &[Method] = &[
    Method { kind: "approle", config: None, lists: &[("role", "approle role")] },
    Method { kind: "cert", config: None, lists: &[("certs", "cert role")] },
    Method { kind: "userpass", config: None, lists: &[("users", "user")] },
    Method { kind: "token", config: None, lists: &[("roles", "token role")] },
    Method {
        kind: "jwt",
        config: Some(("config", "oidc_client_secret")),
        lists: &[("role", "jwt role")],
    },
    Method {
        kind: "oidc",
        config: Some(("config", "oidc_client_secret")),
        lists: &[("role", "oidc role")],
    },
    Method {
        kind: "kubernetes",
        config: Some(("config", "token_reviewer_jwt")),
        lists: &[("role", "kubernetes role")],
    },
    Method {
        kind: "ldap",
        config: Some(("config", "bindpass")),
        lists: &[("groups", "ldap group"), ("users", "ldap user")],
    },
];

/// Whether this program knows what to read of such a method.
pub(super) fn is_known(kind: &str) -> bool {
    METHODS.iter().any(|method| method.kind == kind)
}

/// Copies or compares what the method at `mounted` has.
pub(super) async fn contents(ctx: &mut Context<'_>, mounted: &Mounted) -> Result<(), CliError> {
    let Some(method) = METHODS.iter().find(|method| method.kind == mounted.kind) else {
        return Ok(());
    };
    let base = format!("auth/{}", mounted.path);
    if let Some((config, secret)) = method.config {
        settings(ctx, &format!("{base}/{config}"), secret).await?;
    }
    for (list, kind) in method.lists {
        for name in ctx.names(kind, &format!("{base}/{list}")).await? {
            if !name.ends_with('/') {
                one(ctx, method.kind, kind, &format!("{base}/{list}/{name}")).await?;
            }
        }
    }
    if method.kind == "cert" {
        for name in ctx.names("revocation list", &format!("{base}/crls")).await? {
            ctx.leave(Entry::left(
                "revocation list",
                format!("{base}/crls/{name}"),
                "lists are not answered in the form in which they are written",
                "write it here from its file, or by the URL where it is",
            ));
        }
    }
    Ok(())
}

async fn settings(ctx: &mut Context<'_>, path: &str, secret: &str) -> Result<(), CliError> {
    let Some(data) = ctx.there("auth settings", path).await? else { return Ok(()) };
    let fields = written(&data, &[]);
    if fields.is_empty() {
        return Ok(());
    }
    if ctx.settle("auth settings", path, &fields, Map::new()).await? {
        ctx.leave(Entry::left(
            "credential",
            path,
            format!("{secret} cannot be read out, if it is set"),
            format!("leasehold write {path} {secret}=-"),
        ));
    }
    Ok(())
}

async fn one(
    ctx: &mut Context<'_>,
    method: &str,
    kind: &'static str,
    path: &str,
) -> Result<(), CliError> {
    let Some(data) = ctx.there(kind, path).await? else { return Ok(()) };
    let fields = written(&data, &["name", "role_type", "local_secret_ids"]);
    let mut added = Map::new();
    match method {
        "userpass" => {
            // Nobody knows it, not even we: the name is taken, and cannot be logged in by.
            let password = SecretBytes::random(PASSWORD_BYTES).map_err(|error| {
                CliError::local(error.to_string(), "the system has no randomness to give")
            })?;
            let text = data_encoding::BASE64.encode(password.expose());
            added.insert("password".to_owned(), Value::String(text));
        }
        // Tells apart the two methods that share one set of roles.
        "jwt" | "oidc" => {
            if let Some(kind) = data.get("role_type") {
                added.insert("role_type".to_owned(), kind.clone());
            }
        }
        _ => {}
    }
    let there = ctx.settle(kind, path, &fields, added).await?;
    match method {
        "userpass" if there => ctx.leave(Entry::left(
            "credential",
            path,
            "passwords cannot be read out",
            format!("leasehold write {path}/password password=-"),
        )),
        "approle" if there => approle(ctx, path).await?,
        _ => {}
    }
    Ok(())
}

/// The role ID comes along; secret IDs are known to those who hold them only.
async fn approle(ctx: &mut Context<'_>, path: &str) -> Result<(), CliError> {
    let at = format!("{path}/role-id");
    if let Some(id) = ctx.there("role id", &at).await?.and_then(|data| data.get("role_id").cloned())
    {
        let mut fields = Map::new();
        fields.insert("role_id".to_owned(), id.clone());
        // A new role has an ID of its own, which is not one that somebody chose.
        let fresh = match ctx.target.read(&at).await {
            Ok(found) => found.is_none_or(|found| found.get("role_id") != Some(&id)),
            Err(Trouble::Stop(error)) => return Err(error),
            Err(Trouble::Refused { .. }) => true,
        };
        if fresh && ctx.mode == super::copy::Mode::Copy {
            match ctx.target.write(&at, json!({ "role_id": id })).await {
                Ok(_) => ctx.ledger.add(Entry::new("role id", &at, super::ledger::Outcome::Copied)),
                Err(trouble) => ctx.refused("role id", &at, trouble)?,
            }
        } else {
            ctx.settle("role id", &at, &fields, Map::new()).await?;
        }
    }
    let ids = ctx.names("secret id", &format!("{path}/secret-id")).await?;
    if !ids.is_empty() {
        ctx.leave(Entry::left(
            "secret id",
            path,
            format!("{} secret IDs cannot be read out", ids.len()),
            format!("leasehold write -force {path}/secret-id, for each who needs one"),
        ));
    }
    Ok(())
}
