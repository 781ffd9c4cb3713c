//! `leasehold version-history`.

use serde_json::Value;

use super::error::CliError;
use super::session::Session;
use super::table;

/// Prints which versions have unsealed the server's store, and since when.
///
/// # Errors
/// As the server answers.
pub async fn history(session: &mut Session<'_>) -> Result<(), CliError> {
    let reply = session.list("sys/version-history").await?;
    let data = reply.data();
    let keys = data.get("keys").and_then(Value::as_array).ok_or(CliError::Answer("keys"))?;
    let rows: Vec<Vec<String>> = keys
        .iter()
        .filter_map(Value::as_str)
        .map(|version| {
            let info = data.get("key_info").and_then(|info| info.get(version));
            let since = info.and_then(|info| info.get("timestamp_installed"));
            vec![version.to_owned(), since.map(table::cell).unwrap_or_default()]
        })
        .collect();
    session.output().rows(&["Version", "Installation Time"], &rows, data)
}
