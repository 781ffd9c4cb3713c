//! Keys for one-time passwords by time: each stays where it is, and is listed.

use serde_json::Value;

use super::copy::Context;
use super::ledger::Entry;
use crate::cli::error::CliError;

const KEY: &str = "totp key";
/// What a key is written with, beside its secret.
const SETTINGS: &[&str] = &["issuer", "account_name", "algorithm", "digits", "period"];

/// Lists the keys of the engine at `mount` that nobody has brought here yet.
pub(super) async fn keys(ctx: &mut Context<'_>, mount: &str) -> Result<(), CliError> {
    for name in ctx.names(KEY, &format!("{mount}/keys")).await? {
        let path = format!("{mount}/keys/{name}");
        let Some(data) = ctx.there(KEY, &path).await? else { continue };
        match ctx.target.read(&path).await {
            Ok(Some(_)) => {}
            Ok(None) => {
                let next = format!(
                    "enrol again, or from where the secret came: {}",
                    command(&path, &data)
                );
                ctx.leave(Entry::left(KEY, path, "its secret cannot be read out", next));
            }
            Err(trouble) => ctx.refused(KEY, &path, trouble)?,
        }
    }
    Ok(())
}

/// What writes the key here, as somebody would type it.
fn command(path: &str, data: &Value) -> String {
    let plain =
        |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@".contains(&b));
    let mut command = format!("leasehold write {path} key=-");
    for name in SETTINGS {
        let Some(value) = data.get(*name).filter(|value| !value.is_null()) else { continue };
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let text = if plain(&text) { text } else { "…".to_owned() };
        command.push_str(&format!(" {name}={text}"));
    }
    command
}
