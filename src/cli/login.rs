//! `leasehold login`: trades the client certificate for a token bound to it, or a password for a token.

use serde_json::{Map, Value, json};

use super::error::CliError;
use super::session::Session;
use super::values;
use crate::types::secret::SecretString;

/// How to prove who we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Method {
    /// With a role ID and a secret ID.
    Approle,
    /// With the client certificate of the connection.
    Cert,
    /// With a token that we have already.
    Token,
    /// With a user name and a password.
    Userpass,
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
    /// For cert: name=ROLE. For userpass: username=NAME, and password=@FILE or password=- unless it is
    /// to be asked for. For approle: role_id=ID secret_id=@FILE. For token: the token, or - for standard input
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
            Method::Approle | Method::Cert | Method::Userpass => {
                let (path, body) = self.request(session)?;
                // What proves who we are is in the request; an old token would only be in the way.
                session.client.set_token(None);
                let reply = session.write(&path, Value::Object(body)).await?;
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
            Method::Approle | Method::Cert | Method::Userpass => {
                session.output().reply(&reply, "Logged in")
            }
            Method::Token => {
                let name = reply.text("display_name").unwrap_or("token").to_owned();
                let policies = reply.data().get("policies").cloned().unwrap_or(json!([]));
                session.output().object(&json!({ "display_name": name, "policies": policies }))
            }
        }
    }

    /// Where to log in, and with what.
    fn request(&self, session: &mut Session<'_>) -> Result<(String, Map<String, Value>), CliError> {
        let mut body = values::parse(&self.args, session.process.stdin.as_mut())?;
        let mount =
            |default: &str| self.path.as_deref().unwrap_or(default).trim_matches('/').to_owned();
        // A file or a pipe ends with a line break that is not part of a secret.
        for value in body.values_mut() {
            if let Value::String(text) = value {
                text.truncate(text.trim_end_matches(['\r', '\n']).len());
            }
        }
        match self.method {
            Method::Approle => return Ok((format!("auth/{}/login", mount("approle")), body)),
            Method::Cert | Method::Token => {
                return Ok((format!("auth/{}/login", mount("cert")), body));
            }
            Method::Userpass => {}
        }
        let name = match body.remove("username") {
            Some(Value::String(name)) if !name.is_empty() && !name.contains('/') => name,
            _ => {
                return Err(CliError::local(
                    "there is no user name",
                    "give one: leasehold login -method=userpass username=NAME",
                ));
            }
        };
        let password = match body.remove("password") {
            Some(Value::String(given)) => given,
            Some(_) => {
                return Err(CliError::local(
                    "there is more than one password",
                    "give password=@FILE or password=- once",
                ));
            }
            None => session.secret(None, "Password: ")?.expose().to_owned(),
        };
        body.insert("password".to_owned(), Value::String(password));
        Ok((format!("auth/{}/login/{name}", mount("userpass")), body))
    }
}
