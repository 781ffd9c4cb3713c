//! `leasehold print`: what the other commands would use.

use super::error::CliError;
use super::session::Session;

/// Subcommands of `leasehold print`.
#[derive(Debug, clap::Subcommand)]
pub enum Print {
    /// Print the token that commands present, from the environment or the last log-in
    Token,
}

impl Print {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// When there is no token.
    pub fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        match self {
            Self::Token => {
                let token = session.client.token().map(|token| token.duplicate());
                let token = token
                    .ok_or_else(|| CliError::local("there is no token", "run: leasehold login"))?;
                session.output().raw(token.expose())
            }
        }
    }
}
