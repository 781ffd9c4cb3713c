//! `leasehold login`: trades the client certificate for a token bound to it.

use serde_json::{Value, json};

use super::error::CliError;
use super::session::Session;
use super::values;
use crate::types::secret::SecretString;

/// How to prove who we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Method {
    /// With the client certificate of the connection.
    Cert,
    /// With a token that we have already.
    Token,
}

/// `leasehold login`
#[derive(Debug, clap::Args)]
pub struct Login {
    /// How to log in
    #[arg(long, value_enum, default_value = "cert")]
    method: Method,
    /// Where the method is mounted, below auth/ [default: the method's name]
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Do not keep the token in ~/.leasehold-token
    #[arg(long)]
    no_store: bool,
    /// Print the token alone, and do not keep it
    #[arg(long)]
    token_only: bool,
    /// For cert: name=ROLE. For token: the token, or - for standard input
    #[arg(value_name = "KEY=VALUE|TOKEN")]
    args: Vec<String>,
}

impl Login {
    /// Logs in, prints the token and keeps it.
    ///
    /// # Errors
    /// As the server answers, or when the token cannot be kept.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let (reply, token) = match self.method {
            Method::Cert => {
                let mount = self.path.as_deref().unwrap_or("cert").trim_matches('/').to_owned();
                let body = values::parse(&self.args, session.process.stdin.as_mut())?;
                // The certificate is the proof; an old token would only be in the way.
                session.client.set_token(None);
                let reply =
                    session.write(&format!("auth/{mount}/login"), Value::Object(body)).await?;
                if reply.body.get("wrap_info").is_some_and(Value::is_object) {
                    return session.output().reply(&reply, "");
                }
                let token = reply
                    .body
                    .pointer("/auth/client_token")
                    .and_then(Value::as_str)
                    .map(|token| SecretString::new(token.to_owned()))
                    .ok_or(CliError::Answer("token"))?;
                (reply, token)
            }
            Method::Token => {
                let given = self.args.first().map(String::as_str);
                let token = session.secret(given, "Token: ")?;
                session.client.set_token(Some(token.duplicate()));
                (session.read("auth/token/lookup-self").await?, token)
            }
        };
        if self.token_only {
            return session.output().raw(token.expose());
        }
        if !self.no_store {
            let Some(file) = &session.token_file else {
                return Err(CliError::local(
                    "there is no home directory to keep the token in",
                    "set HOME, or use -no-store and LEASEHOLD_TOKEN",
                ));
            };
            file.store(&token)?;
            let shown = format!("The token is kept in {}.", file.path().display());
            session.output().note(&shown)?;
        }
        if session.output().is_json() || session.output().wants_field() {
            return session.output().reply(&reply, "");
        }
        match self.method {
            Method::Cert => session.output().reply(&reply, "Logged in"),
            Method::Token => {
                let name = reply.text("display_name").unwrap_or("token").to_owned();
                let policies = reply.data().get("policies").cloned().unwrap_or(json!([]));
                session.output().object(&json!({ "display_name": name, "policies": policies }))
            }
        }
    }
}
