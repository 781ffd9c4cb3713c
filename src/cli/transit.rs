//! `leasehold transit`: keys of one's own, brought into the engine.

use data_encoding::BASE64;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::error::CliError;
use super::session::Session;
use super::values;
use crate::server::key_text;
use crate::types::secret::SecretBytes;

/// Subcommands of `leasehold transit`.
#[derive(Debug, clap::Subcommand)]
pub enum Transit {
    /// Bring in a key; it is wrapped here, under the mount's wrapping key
    Import(Import),
    /// Bring in a further version of a key that was brought in
    ImportVersion(Import),
}

/// `leasehold transit import`
#[derive(Debug, clap::Args)]
pub struct Import {
    /// Path of the key, such as transit/keys/orders
    path: String,
    /// The key in base64, @file, or - for standard input; asked for unseen when absent
    key: Option<String>,
    /// What else the key is made with, such as type=aes256-gcm96
    #[arg(value_name = "KEY=VALUE")]
    values: Vec<String>,
}

impl Transit {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// A key that is not base64, or as the server answers.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        match self {
            Self::Import(command) => command.run(session, "import").await,
            Self::ImportVersion(command) => command.run(session, "import_version").await,
        }
    }
}

impl Import {
    async fn run(self, session: &mut Session<'_>, what: &str) -> Result<(), CliError> {
        let path = self.path.trim_matches('/');
        let (mount, name) = path.split_once("/keys/").ok_or_else(|| {
            CliError::local(
                format!("\"{path}\" is not the path of a key"),
                "name it by its path, such as transit/keys/orders",
            )
        })?;
        let key = self.key(session)?;
        let wrapping = session.client.read(&format!("{mount}/wrapping_key")).await?;
        let public = wrapping.text("public_key").ok_or(CliError::Answer("public key"))?;
        let wrapped = key_text::wrapped(public, &key).map_err(|problem| {
            CliError::local(problem, "check that the path is one of a transit mount")
        })?;
        let mut body: Map<String, Value> = values::plain(&self.values)?
            .into_iter()
            .map(|(name, value)| (name, Value::String(value)))
            .collect();
        body.insert("ciphertext".into(), Value::String(wrapped));
        body.insert("hash_function".into(), "SHA256".into());
        let to = format!("{mount}/keys/{name}/{what}");
        let reply = session.write(&to, Value::Object(body)).await?;
        session.output().reply(&reply, &format!("The key is at {path}."))
    }

    fn key(&self, session: &mut Session<'_>) -> Result<SecretBytes, CliError> {
        let given = match self.key.as_deref() {
            Some(file) if file.starts_with('@') => {
                Some(values::text(file, session.process.stdin.as_mut())?)
            }
            other => other.map(str::to_owned),
        };
        let given = given.map(Zeroizing::new);
        let text = session.secret(given.as_ref().map(|text| text.as_str()), "Key in base64: ")?;
        let key = BASE64.decode(text.expose().as_bytes()).map_err(|_| {
            CliError::local("the key is not base64", "encode it: base64 -w0 key.der")
        })?;
        Ok(SecretBytes::new(key))
    }
}
