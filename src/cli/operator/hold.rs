//! `leasehold operator hold`: nothing is revoked or rotated while a store may be an old copy.

use serde_json::json;

use crate::cli::error::CliError;
use crate::cli::session::Session;

/// Subcommands of `leasehold operator hold`.
#[derive(Debug, clap::Subcommand)]
pub enum Hold {
    /// Show whether revocations and rotations are held, and why
    Status,
    /// Hold all revocations and rotations until they are released
    Set {
        /// Why, for those who find it held
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
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
            Self::Set { reason } => {
                let reply = session.write("sys/hold", json!({ "reason": reason })).await?;
                session.output().reply(&reply, "Revocations and rotations are held.")
            }
            Self::Release => {
                let reply = session.delete("sys/hold").await?;
                session.output().reply(&reply, "The hold is released.")
            }
        }
    }
}
