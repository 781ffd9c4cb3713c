//! `leasehold operator hold`: nothing is revoked while a store may be an old copy.

use serde_json::json;

use crate::cli::error::CliError;
use crate::cli::session::Session;

/// Subcommands of `leasehold operator hold`.
#[derive(Debug, clap::Subcommand)]
pub enum Hold {
    /// Show whether revocations are held, and why
    Status,
    /// Let revocations go on: the store is the right one
    Release,
}

impl Hold {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        match self {
            Self::Status => {
                let reply = session.read("sys/hold").await?;
                session.output().reply(&reply, "Nothing is held.")
            }
            Self::Release => {
                let reply = session.write("sys/hold/release", json!({})).await?;
                session.output().reply(&reply, "The hold is released.")
            }
        }
    }
}
