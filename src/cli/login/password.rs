//! With a user name and a password.

use serde_json::Value;

use super::{Attempt, LoggedIn, Method};
use crate::cli::error::CliError;
use crate::cli::session::Session;

/// `-method=userpass`, and whatever else takes a password at `login/:username`.
pub(super) struct Password {
    /// The method's name.
    pub(super) name: &'static str,
}

#[async_trait::async_trait(?Send)]
impl Method for Password {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        "A user name and a password: username=NAME, and password=@FILE unless it is to be asked for"
    }

    async fn log_in(
        &self,
        session: &mut Session<'_>,
        mut attempt: Attempt,
    ) -> Result<LoggedIn, CliError> {
        let name = attempt.take("username")?.unwrap_or_default();
        if name.is_empty() || name.contains('/') {
            return Err(CliError::local(
                "there is no user name",
                format!("give one: leasehold login -method={} username=NAME", self.name),
            ));
        }
        let password = match attempt.take("password")? {
            Some(given) => given,
            None => session.secret(None, "Password: ")?.expose().to_owned(),
        };
        attempt.values.insert("password".to_owned(), Value::String(password));
        attempt.post(session, &format!("login/{name}")).await
    }
}
