//! `leasehold operator`: the seal, its keys and shares.

mod ceremony;
mod generate_root;
mod hold;
mod init;
mod rekey;
mod rotate;
mod status;

use serde_json::json;

use super::Finish;
use super::error::CliError;
use super::session::Session;

pub use status::status;

/// Subcommands of `leasehold operator`.
#[derive(Debug, clap::Subcommand)]
pub enum Operator {
    /// Create the root key, its shares and the first root token
    Init(init::Init),
    /// Provide one share of the unseal key
    Unseal(Unseal),
    /// Forget all keys until the next unsealing
    Seal,
    /// Ask a node to hand over, which a server without a leader refuses
    StepDown,
    /// Show whether the server is initialized and sealed
    Status,
    /// Show the current encryption key term and the progress of re-wrapping
    KeyStatus,
    /// Start a new encryption key term and re-wrap what the old ones protect
    Rotate(rotate::Rotate),
    /// Replace the unseal shares
    Rekey(rekey::Rekey),
    /// Make a new root token with a quorum of shares
    GenerateRoot(generate_root::GenerateRoot),
    /// See or end the hold that keeps an old store from revoking or rotating anything
    #[command(subcommand)]
    Hold(hold::Hold),
}

/// `leasehold operator unseal`
#[derive(Debug, clap::Args)]
pub struct Unseal {
    /// The share, in base64 or hexadecimal; asked for unseen when absent, - for standard input
    key: Option<String>,
    /// Forget the shares provided so far
    #[arg(long)]
    reset: bool,
}

impl Operator {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn run(self, session: &mut Session<'_>) -> Result<Finish, CliError> {
        match self {
            Self::Init(command) => command.run(session).await?,
            Self::Unseal(command) => command.run(session).await?,
            Self::Seal => {
                let reply = session.write("sys/seal", json!({})).await?;
                session.output().reply(&reply, "The server is sealed.")?;
            }
            Self::StepDown => {
                let reply = session.write("sys/step-down", json!({})).await?;
                session.output().reply(&reply, "The node has stepped down.")?;
            }
            Self::Status => return status(session).await,
            Self::KeyStatus => {
                let reply = session.read("sys/key-status").await?;
                session.output().reply(&reply, "")?;
            }
            Self::Rotate(command) => command.run(session).await?,
            Self::Rekey(command) => command.run(session).await?,
            Self::GenerateRoot(command) => command.run(session).await?,
            Self::Hold(command) => command.run(session).await?,
        }
        Ok(Finish::Done)
    }
}

impl Unseal {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let body = if self.reset {
            json!({ "reset": true })
        } else {
            let key = session.secret(self.key.as_deref(), "Unseal key (will not be shown): ")?;
            json!({ "key": key.expose() })
        };
        let reply = session.write("sys/unseal", body).await?;
        status::print(session, &reply)
    }
}
