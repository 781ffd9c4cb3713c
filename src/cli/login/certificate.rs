//! With the client certificate of the connection.

use super::{Attempt, LoggedIn, Method};
use crate::cli::error::CliError;
use crate::cli::session::Session;

/// `-method=cert`
pub(super) struct Certificate;

#[async_trait::async_trait(?Send)]
impl Method for Certificate {
    fn name(&self) -> &'static str {
        "cert"
    }

    fn about(&self) -> &'static str {
        "The client certificate; name=ROLE when several roles are for it"
    }

    async fn log_in(
        &self,
        session: &mut Session<'_>,
        attempt: Attempt,
    ) -> Result<LoggedIn, CliError> {
        attempt.post(session, "login").await
    }
}
