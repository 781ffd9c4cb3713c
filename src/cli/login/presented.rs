//! With a token that somebody else has signed: an issuer, or a cluster.

use super::{Attempt, LoggedIn, Method};
use crate::cli::error::CliError;
use crate::cli::session::Session;

/// `-method=jwt`, and those that take the same.
pub(super) struct Presented {
    /// What it is called.
    pub(super) name: &'static str,
    /// What it is, and the values it takes.
    pub(super) about: &'static str,
}

#[async_trait::async_trait(?Send)]
impl Method for Presented {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    async fn log_in(
        &self,
        session: &mut Session<'_>,
        mut attempt: Attempt,
    ) -> Result<LoggedIn, CliError> {
        let token = match attempt.take("jwt")? {
            Some(token) => token,
            None => session.secret(None, "Token (will not be shown): ")?.expose().to_owned(),
        };
        attempt.values.insert("jwt".to_owned(), token.trim().into());
        attempt.post(session, "login").await
    }
}
