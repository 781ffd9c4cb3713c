//! `leasehold operator rekey`: new shares, proven before the old ones stop working.

use serde_json::{Value, json};

use super::ceremony;
use super::init::print_shares;
use crate::cli::error::CliError;
use crate::cli::session::Session;
use crate::client::Reply;

/// `leasehold operator rekey`
#[derive(Debug, clap::Args)]
pub struct Rekey {
    /// A share of the current key, or with -verify of the new one; asked for unseen when absent
    key: Option<String>,
    /// Start
    #[arg(long)]
    init: bool,
    /// Stop, and keep the current shares
    #[arg(long, conflicts_with = "init")]
    cancel: bool,
    /// Show how far it is
    #[arg(long, conflicts_with_all = ["init", "cancel"])]
    status: bool,
    /// With -init: ask for a quorum of the new shares before they replace the old. Alone: provide
    /// one
    #[arg(long)]
    verify: bool,
    /// With -init: how many new shares
    #[arg(long, short = 'n', default_value_t = 5, value_name = "COUNT")]
    key_shares: u8,
    /// With -init: how many of them unseal
    #[arg(long, short = 't', default_value_t = 3, value_name = "COUNT")]
    key_threshold: u8,
    /// The operation's nonce, so that a share cannot end up in another one [default: the server's]
    #[arg(long, value_name = "NONCE")]
    nonce: Option<String>,
}

impl Rekey {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        // The verification has a path of its own for everything but starting.
        let path = if self.verify && !self.init { "sys/rekey/verify" } else { "sys/rekey/init" };
        if self.init {
            let body = json!({
                "secret_shares": self.key_shares,
                "secret_threshold": self.key_threshold,
                "require_verification": self.verify,
            });
            let reply = session.write(path, body).await?;
            session.output().object(reply.data())?;
            return session
                .output()
                .note("Each holder of a current share now runs: leasehold operator rekey");
        }
        if self.cancel {
            let done = "Rekeying is cancelled.";
            return ceremony::cancel(session, path, self.nonce.as_deref(), done).await;
        }
        if self.status {
            let reply = session.read(path).await?;
            return session.output().object(reply.data());
        }
        self.provide(session, path).await
    }

    async fn provide(&self, session: &mut Session<'_>, path: &str) -> Result<(), CliError> {
        let given = self.nonce.as_deref();
        let nonce = ceremony::nonce(session, path, given, || {
            CliError::local("no rekeying is in progress", "run: leasehold operator rekey -init")
        })
        .await?;
        let key = session.secret(self.key.as_deref(), "Unseal key (will not be shown): ")?;
        let target = if self.verify { "sys/rekey/verify" } else { "sys/rekey/update" };
        let body = json!({ "key": key.expose(), "nonce": nonce });
        let reply = session.write(target, body).await?;
        if reply.data().get("complete").and_then(Value::as_bool) != Some(true)
            || session.output().is_document()
            || session.output().wants_field()
        {
            return session.output().object(reply.data());
        }
        if self.verify {
            return session.output().success("The new shares are proven and in force.");
        }
        self.finished(session, &reply)
    }

    fn finished(&self, session: &mut Session<'_>, reply: &Reply) -> Result<(), CliError> {
        print_shares(session, reply.data().get("keys_base64"))?;
        let unproven =
            reply.data().get("verification_required").and_then(Value::as_bool) == Some(true);
        if unproven {
            let nonce = reply.text("verification_nonce").unwrap_or_default().to_owned();
            session.output().line(&format!("\nVerification Nonce: {nonce}"))?;
            session.output().note(
                "\nThe current shares stay in force until a quorum of the new ones is proven. \
                 Each holder of a new share now runs: leasehold operator rekey -verify",
            )
        } else {
            session.output().note("\nThese are shown this once. The shares before them are void.")
        }
    }
}
