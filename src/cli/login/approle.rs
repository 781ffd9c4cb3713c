//! With a role ID and a secret ID.

use serde_json::Value;

use super::{Attempt, LoggedIn, Method};
use crate::cli::error::CliError;
use crate::cli::session::Session;

/// `-method=approle`
pub(super) struct Approle;

#[async_trait::async_trait(?Send)]
impl Method for Approle {
    fn name(&self) -> &'static str {
        "approle"
    }

    fn about(&self) -> &'static str {
        "A role ID and a secret ID: role_id=ID secret_id=@FILE"
    }

    async fn log_in(
        &self,
        session: &mut Session<'_>,
        mut attempt: Attempt,
    ) -> Result<LoggedIn, CliError> {
        let Some(role) = attempt.take("role_id")? else {
            return Err(CliError::local(
                "there is no role ID",
                "give one: leasehold login -method=approle role_id=ID",
            ));
        };
        attempt.values.insert("role_id".to_owned(), Value::String(role));
        // Some roles need none: only a person is asked, and `secret_id=` says that there is none.
        if !attempt.values.contains_key("secret_id") && session.process.stdin_is_terminal {
            let secret = session.secret(None, "Secret ID (will not be shown): ")?;
            let secret = Value::String(secret.expose().to_owned());
            attempt.values.insert("secret_id".to_owned(), secret);
        }
        attempt.post(session, "login").await
    }
}
