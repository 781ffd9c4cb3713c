//! `leasehold operator rotate`: a new key term, followed until the old one is gone.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::error::CliError;
use crate::cli::session::Session;
use crate::client::{Reply, Request, Verb};

/// Pause between two looks at the progress.
const LOOK_MILLIS: u64 = 500;

/// `leasehold operator rotate`
#[derive(Debug, clap::Args)]
pub struct Rotate {
    /// Do not wait until everything is re-wrapped
    #[arg(long)]
    detach: bool,
    /// Cipher of the new term: aes256-gcm or chacha20-poly1305 [default: as before]
    #[arg(long, value_name = "NAME")]
    suite: Option<String>,
}

impl Rotate {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let body = match &self.suite {
            Some(suite) => json!({ "suite": suite }),
            None => json!({}),
        };
        session.write("sys/rotate", body).await?;
        let mut reply = key_status(session).await?;
        let total = pending(&reply);
        let mut left = if self.detach { 0 } else { total };
        while left > 0 {
            let line = format!("re-wrapping: {left} keys left of {}", total.max(left));
            session.output().progress(&line)?;
            tokio::time::sleep(Duration::from_millis(LOOK_MILLIS)).await;
            reply = key_status(session).await?;
            left = pending(&reply);
        }
        if !self.detach && total > 0 {
            session.output().progress("re-wrapping: done")?;
            session.output().end_progress()?;
        }
        session.output().reply(&reply, "A new key term has begun.")
    }
}

async fn key_status(session: &Session<'_>) -> Result<Reply, CliError> {
    session.send(Request::new(Verb::Read, "sys/key-status").retried()).await
}

fn pending(reply: &Reply) -> u64 {
    reply.data().pointer("/rewrap/pending").and_then(Value::as_u64).unwrap_or(0)
}
