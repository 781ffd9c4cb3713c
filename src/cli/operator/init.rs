//! `leasehold operator init`.

use serde_json::{Value, json};

use crate::cli::error::CliError;
use crate::cli::session::Session;

/// `leasehold operator init`
#[derive(Debug, clap::Args)]
pub struct Init {
    /// How many shares the unseal key is split into
    #[arg(long, short = 'n', default_value_t = 5, value_name = "COUNT")]
    key_shares: u8,
    /// How many of them unseal
    #[arg(long, short = 't', default_value_t = 3, value_name = "COUNT")]
    key_threshold: u8,
    /// Cipher: aes256-gcm or chacha20-poly1305 [default: aes256-gcm]
    #[arg(long, value_name = "NAME")]
    suite: Option<String>,
    /// Only show whether the server is initialized
    #[arg(long)]
    status: bool,
}

impl Init {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        if self.status {
            let reply = session.read("sys/init").await?;
            return session.output().object(reply.data());
        }
        let mut body = json!({
            "secret_shares": self.key_shares,
            "secret_threshold": self.key_threshold,
        });
        if let (Some(suite), Some(object)) = (&self.suite, body.as_object_mut()) {
            object.insert("suite".to_owned(), json!(suite));
        }
        let reply = session.write("sys/init", body).await?;
        let data = reply.data();
        if session.output().is_document() || session.output().wants_field() {
            return session.output().object(&json!({
                "unseal_keys_b64": data.get("keys_base64"),
                "unseal_keys_hex": data.get("keys"),
                "unseal_shares": self.key_shares,
                "unseal_threshold": self.key_threshold,
                "root_token": data.get("root_token"),
            }));
        }
        print_shares(session, data.get("keys_base64"))?;
        let token = reply.text("root_token").ok_or(CliError::Answer("root token"))?.to_owned();
        session.output().line(&format!("\nInitial Root Token: {token}"))?;
        session.output().note(&format!(
            "\nThese are shown this once. Give every share to another person. Any {} of the {} \
             unseal the server; with fewer, what it holds is lost for ever.",
            self.key_threshold, self.key_shares
        ))
    }
}

pub(super) fn print_shares(
    session: &mut Session<'_>,
    shares: Option<&Value>,
) -> Result<(), CliError> {
    let shares = shares.and_then(Value::as_array).ok_or(CliError::Answer("unseal shares"))?;
    for (index, share) in shares.iter().filter_map(Value::as_str).enumerate() {
        session.output().line(&format!("Unseal Key {}: {share}", index + 1))?;
    }
    Ok(())
}
