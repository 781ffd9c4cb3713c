//! `leasehold operator generate-root`: a root token from a quorum of shares.

use data_encoding::BASE64_NOPAD;
use serde_json::{Value, json};

use super::ceremony;
use crate::cli::error::CliError;
use crate::cli::session::{Process, Session};
use crate::types::secret::SecretString;

const PATH: &str = "sys/generate-root/attempt";

/// `leasehold operator generate-root`
#[derive(Debug, clap::Args)]
pub struct GenerateRoot {
    /// A share of the unseal key; asked for unseen when absent, - for standard input
    key: Option<String>,
    /// Start; the server answers with a one-time password that decodes the token
    #[arg(long)]
    init: bool,
    /// Stop
    #[arg(long, conflicts_with = "init")]
    cancel: bool,
    /// Show how far it is
    #[arg(long, conflicts_with_all = ["init", "cancel"])]
    status: bool,
    /// Decode this encoded token with -otp, without asking the server
    #[arg(long, value_name = "ENCODED", requires = "otp")]
    decode: Option<String>,
    /// The one-time password of -init; - for standard input
    #[arg(long, value_name = "OTP")]
    otp: Option<String>,
    /// The operation's nonce, so that a share cannot end up in another one [default: the server's]
    #[arg(long, value_name = "NONCE")]
    nonce: Option<String>,
}

impl GenerateRoot {
    /// Whether no server is needed.
    pub fn is_offline(&self) -> bool {
        self.decode.is_some()
    }

    /// Decodes the token of `-decode` with the password of `-otp`.
    ///
    /// # Errors
    /// When the two do not fit.
    pub fn decode(&self, process: &mut Process) -> Result<(), CliError> {
        let otp = process.secret(self.otp.as_deref(), "One-time password: ")?;
        let token = decode(self.decode.as_deref().unwrap_or_default(), otp.expose())?;
        if process.output.is_document() {
            process.output.document(&json!({ "token": token.expose() }))
        } else {
            process.output.line(token.expose())
        }
    }

    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        if self.init {
            let body = match &self.otp {
                Some(_) => {
                    let otp = session.secret(self.otp.as_deref(), "One-time password: ")?;
                    json!({ "otp": otp.expose() })
                }
                None => json!({}),
            };
            let reply = session.write(PATH, body).await?;
            session.output().object(reply.data())?;
            return session.output().note(
                "Keep the otp. Each holder of a share now runs: leasehold operator generate-root",
            );
        }
        if self.cancel {
            let done = "Generating a root token is cancelled.";
            return ceremony::cancel(session, PATH, self.nonce.as_deref(), done).await;
        }
        if self.status {
            let reply = session.read(PATH).await?;
            return session.output().object(reply.data());
        }
        self.provide(session).await
    }

    async fn provide(&self, session: &mut Session<'_>) -> Result<(), CliError> {
        let given = self.nonce.as_deref();
        let nonce = ceremony::nonce(session, PATH, given, || {
            CliError::local(
                "no root token is being generated",
                "run: leasehold operator generate-root -init",
            )
        })
        .await?;
        let key = session.secret(self.key.as_deref(), "Unseal key (will not be shown): ")?;
        let body = json!({ "key": key.expose(), "nonce": nonce });
        let reply = session.write("sys/generate-root/update", body).await?;
        session.output().object(reply.data())?;
        if reply.data().get("complete").and_then(Value::as_bool) == Some(true) {
            session.output().note(
                "Decode it: leasehold operator generate-root -decode=ENCODED_TOKEN -otp=OTP",
            )?;
        }
        Ok(())
    }
}

/// The encoded token is base64 of the token's bytes XORed with the password's.
fn decode(encoded: &str, otp: &str) -> Result<SecretString, CliError> {
    let wrong = |what: &str| {
        CliError::local(what, "copy encoded_token and the otp of the same -init whole")
    };
    let bytes = BASE64_NOPAD
        .decode(encoded.trim().trim_end_matches('=').as_bytes())
        .map_err(|_| wrong("the encoded token is not base64"))?;
    if bytes.len() != otp.len() {
        return Err(wrong("the encoded token and the one-time password differ in length"));
    }
    let token = bytes.iter().zip(otp.bytes()).map(|(byte, pad)| byte ^ pad).collect();
    let token = String::from_utf8(token).ok().filter(|token| token.is_ascii());
    token.map(SecretString::new).ok_or_else(|| wrong("the one-time password does not fit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_undoes_the_servers_xor_and_refuses_the_wrong_password() {
        let (token, otp) = ("hvs.abcDEF123", "0123456789abc");
        let mixed: Vec<u8> = token.bytes().zip(otp.bytes()).map(|(a, b)| a ^ b).collect();
        let encoded = BASE64_NOPAD.encode(&mixed);
        assert_eq!(decode(&encoded, otp).unwrap().expose(), token);
        assert_eq!(decode(&format!("{encoded}=="), otp).unwrap().expose(), token);
        assert!(decode(&encoded, "short").unwrap_err().what().contains("length"));
        assert!(decode("***", otp).unwrap_err().what().contains("base64"));
        assert!(decode(&BASE64_NOPAD.encode(&[0xff; 13]), otp).is_err());
    }
}
