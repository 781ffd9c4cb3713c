//! With a token that we have already: it is looked up, and kept when it is good.

use super::{Attempt, LoggedIn, Method};
use crate::cli::error::CliError;
use crate::cli::session::Session;

/// `-method=token`
pub(super) struct Token;

#[async_trait::async_trait(?Send)]
impl Method for Token {
    fn name(&self) -> &'static str {
        "token"
    }

    fn about(&self) -> &'static str {
        "A token: itself, - for standard input, or nothing to be asked for it"
    }

    async fn log_in(
        &self,
        session: &mut Session<'_>,
        mut attempt: Attempt,
    ) -> Result<LoggedIn, CliError> {
        let given = match attempt.alone.take() {
            Some(alone) => Some(alone),
            None => attempt.take("token")?,
        };
        let token = session.secret(given.as_deref(), "Token (will not be shown): ")?;
        session.client.set_token(Some(token.duplicate()));
        let reply = session.read("auth/token/lookup-self").await?;
        Ok(LoggedIn { reply, token: Some(token) })
    }
}
