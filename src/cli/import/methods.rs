//! Auth methods: their settings, roles, users and groups.

use serde_json::{Map, Value};

use super::copy::{Context, Said};
use super::ledger::Entry;
use super::mounts::Mounted;
use crate::cli::error::CliError;
use crate::cli::meaning::is_unset;
use crate::types::secret::SecretBytes;

/// Bytes of the password that a user has until somebody sets another.
const PASSWORD_BYTES: usize = 32;

/// What can be read of a method.
struct Method {
    kind: &'static str,
    /// A secret in its settings that is never answered, if it has settings.
    config: Option<Config>,
    /// Lists of what it has, each with the name of its entries.
    lists: &'static [(&'static str, &'static str)],
}

/// What answers say beside the settings of a method: how it is, and where in a namespace.
const NO_SETTINGS: &[&str] = &["status", "namespace_in_state", "token_reviewer_jwt_set"];

/// The settings of a method.
#[derive(Clone, Copy)]
struct Config {
    /// A secret among them that is never answered.
    secret: &'static str,
    /// Whether a write that leaves out a setting unsets it.
    whole: bool,
    /// A setting that this server takes only together with the secret.
    account: Option<&'static str>,
}

const METHODS: &[Method] = &[
    Method { kind: "approle", config: None, lists: &[("role", "approle role")] },
    Method { kind: "cert", config: None, lists: &[("certs", "cert role")] },
    Method { kind: "userpass", config: None, lists: &[("users", "user")] },
    Method { kind: "token", config: None, lists: &[("roles", "token role")] },
    Method {
        kind: "jwt",
        config: Some(Config { secret: "oidc_client_secret", whole: true, account: None }),
        lists: &[("role", "jwt role")],
    },
    Method {
        kind: "oidc",
        config: Some(Config { secret: "oidc_client_secret", whole: true, account: None }),
        lists: &[("role", "oidc role")],
    },
    Method {
        kind: "kubernetes",
        config: Some(Config { secret: "token_reviewer_jwt", whole: true, account: None }),
        lists: &[("role", "kubernetes role")],
    },
    Method {
        kind: "ldap",
        config: Some(Config { secret: "bindpass", whole: false, account: Some("binddn") }),
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
    if let Some(config) = method.config {
        settings(ctx, &format!("{base}/config"), config).await?;
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

async fn settings(ctx: &mut Context<'_>, path: &str, config: Config) -> Result<(), CliError> {
    let Some(data) = ctx.there("auth settings", path).await? else { return Ok(()) };
    let mut said = Said::of(&data, NO_SETTINGS);
    if said.set.is_empty() {
        return Ok(());
    }
    let mut account = String::new();
    if let Some(name) = config.account
        && let Some(value) = said.set.get(name).and_then(Value::as_str).map(str::to_owned)
    {
        let found = match ctx.target.read(path).await {
            Ok(found) => found.unwrap_or_default(),
            Err(trouble) => return ctx.refused("auth settings", path, trouble),
        };
        // Compared from when somebody has brought both.
        if found.get(name).is_none_or(|value| is_unset(name, value)) {
            said.set.remove(name);
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"=,._- ".contains(&b);
            let value = if value.bytes().all(is_plain) { value } else { "…".to_owned() };
            account = format!("{name}=\"{value}\" ");
        }
    }
    if ctx.settle("auth settings", path, &said, Map::new()).await? {
        let secret = config.secret;
        let next = if config.whole {
            format!(
                "if it is: leasehold write {path} with {secret} and all that leasehold read {path} \
                 shows, since what a write leaves out is unset"
            )
        } else {
            format!("if it is: leasehold write {path} {account}{secret}=-")
        };
        let reason = format!("{secret} cannot be read out, if it is set");
        ctx.leave(Entry::left("credential", path, reason, next));
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
    let mut dropped = vec!["name", "role_type", "local_secret_ids"];
    // The one way in which codes come back here.
    if data.get("callback_mode").and_then(Value::as_str) == Some("client") {
        dropped.push("callback_mode");
    }
    let said = Said::of(&data, &dropped);
    let mut added = Map::new();
    let mut role_id = Map::new();
    match method {
        "userpass" => {
            // Nobody knows it, not even we: the name is taken, and cannot be logged in by.
            let password = SecretBytes::random(PASSWORD_BYTES).map_err(|error| {
                CliError::local(error.to_string(), "the system has no randomness to give")
            })?;
            let text = data_encoding::BASE64.encode(password.expose());
            added.insert("password".to_owned(), Value::String(text));
        }
        // Given with the role, so that there is none with an ID that nobody knows.
        "approle" => {
            let found = ctx.there("role id", &format!("{path}/role-id")).await?;
            let id = found.as_ref().and_then(|found| found.get("role_id"));
            role_id.extend(id.map(|id| ("role_id".to_owned(), id.clone())));
            added.extend(role_id.clone());
        }
        // Tells apart the two methods that share one set of roles.
        "jwt" | "oidc" => {
            if let Some(kind) = data.get("role_type") {
                added.insert("role_type".to_owned(), kind.clone());
            }
        }
        _ => {}
    }
    let there = ctx.settle(kind, path, &said, added).await?;
    match method {
        "userpass" if there => ctx.leave(Entry::left(
            "credential",
            path,
            "passwords cannot be read out",
            format!("leasehold write {path}/password password=-"),
        )),
        "approle" if there => approle(ctx, path, role_id).await?,
        _ => {}
    }
    Ok(())
}

/// The role ID comes along; secret IDs are known to those who hold them only.
async fn approle(
    ctx: &mut Context<'_>,
    path: &str,
    role_id: Map<String, Value>,
) -> Result<(), CliError> {
    if !role_id.is_empty() {
        let at = format!("{path}/role-id");
        ctx.settle("role id", &at, &Said::only(role_id), Map::new()).await?;
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
