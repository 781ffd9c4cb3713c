//! What every ceremony with shares has in common.

use serde_json::Value;

use crate::cli::error::CliError;
use crate::cli::session::Session;
use crate::client::{Request, Verb};

/// The nonce of the attempt at `path`: the one given, or the one that the server tells us.
pub(super) async fn nonce(
    session: &Session<'_>,
    path: &str,
    given: Option<&str>,
    not_started: fn() -> CliError,
) -> Result<String, CliError> {
    if let Some(nonce) = given {
        return Ok(nonce.to_owned());
    }
    let reply = session.read(path).await?;
    if reply.data().get("started").and_then(Value::as_bool) != Some(true) {
        return Err(not_started());
    }
    match reply.text("nonce") {
        Some(nonce) if !nonce.is_empty() => Ok(nonce.to_owned()),
        // Who knows the nonce can cancel, so not everybody is told.
        Some(_) | None => Err(CliError::local(
            "the server does not tell you the nonce",
            "ask whoever started this for it, and give it as -nonce=NONCE",
        )),
    }
}

/// Gives the attempt at `path` up.
pub(super) async fn cancel(
    session: &mut Session<'_>,
    path: &str,
    nonce: Option<&str>,
    done: &str,
) -> Result<(), CliError> {
    let mut request = Request::new(Verb::Delete, path);
    if let Some(nonce) = nonce {
        request = request.query("nonce", nonce);
    }
    let reply = session.send(request).await?;
    session.output().reply(&reply, done)
}
