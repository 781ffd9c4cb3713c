//! Databases and the roles on them.

use serde_json::{Map, Value};

use super::copy::{Context, Said, written};
use super::ledger::Entry;
use crate::cli::error::CliError;

const DATABASE: &str = "database";
const ROLE: &str = "database role";
const STATIC_ROLE: &str = "database static role";

/// Copies or compares what the engine at `mount` is configured with.
pub(super) async fn contents(ctx: &mut Context<'_>, mount: &str) -> Result<(), CliError> {
    for name in ctx.names(DATABASE, &format!("{mount}/config")).await? {
        connection(ctx, &format!("{mount}/config/{name}")).await?;
    }
    for name in ctx.names(ROLE, &format!("{mount}/roles")).await? {
        let path = format!("{mount}/roles/{name}");
        if let Some(data) = ctx.there(ROLE, &path).await? {
            ctx.settle(ROLE, &path, &Said::of(&data, &[]), Map::new()).await?;
        }
    }
    for name in ctx.names(STATIC_ROLE, &format!("{mount}/static-roles")).await? {
        let path = format!("{mount}/static-roles/{name}");
        let Some(data) = ctx.there(STATIC_ROLE, &path).await? else { continue };
        let command = command(&path, &data);
        ctx.leave(Entry::left(
            STATIC_ROLE,
            path,
            "this broker would set another password at once, and the source would not know it",
            format!("once nobody asks the source any more: delete it there, then {command}"),
        ));
    }
    Ok(())
}

/// What writes a static role here, as somebody would type it.
fn command(path: &str, data: &Value) -> String {
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let mut command = format!("leasehold write {path}");
    for (name, value) in written(data, &["last_vault_rotation", "ttl", "rotation_statements"]) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let value = if plain(&value) { value } else { "…".to_owned() };
        command.push_str(&format!(" {name}={value}"));
    }
    command
}

async fn connection(ctx: &mut Context<'_>, path: &str) -> Result<(), CliError> {
    let Some(data) = ctx.there(DATABASE, path).await? else { return Ok(()) };
    let mut fields = written(
        &data,
        &["connection_details", "root_credentials_rotate_statements", "verify_connection"],
    );
    if let Some(details) = data.get("connection_details") {
        fields.extend(written(details, &["password_authentication"]));
    }
    if let Some(statements) = data.get("root_credentials_rotate_statements")
        && statements.as_array().is_some_and(|statements| !statements.is_empty())
    {
        fields.insert("root_rotation_statements".to_owned(), statements.clone());
    }
    // Without the password nobody can connect yet.
    let mut added = Map::new();
    added.insert("verify_connection".to_owned(), Value::Bool(false));
    if ctx.settle(DATABASE, path, &Said::only(fields), added).await? {
        ctx.leave(Entry::left(
            "credential",
            path,
            "its password and private key cannot be read out",
            format!("leasehold write {path} password=- verify_connection=true"),
        ));
    }
    Ok(())
}
