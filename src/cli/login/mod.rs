//! `leasehold login`: proves who we are, and keeps the token that comes of it.
//!
//! Each way to log in is a [`Method`] in a file of its own and a line in [`METHODS`].

mod approle;
mod browser;
mod certificate;
mod password;
mod presented;
mod second_factor;
mod token;

use clap::builder::{PossibleValue, PossibleValuesParser};
use serde_json::{Map, Value, json};

use super::error::CliError;
use super::session::Session;
use super::values;
use crate::client::Reply;
use crate::types::secret::SecretString;

use approle::Approle;
use browser::Browser;
use certificate::Certificate;
use password::Password;
use presented::Presented;
use token::Token;

/// Every way to log in.
static METHODS: &[&dyn Method] = &[
    &Approle,
    &Certificate,
    &Token,
    &Password { name: "userpass" },
    &Password { name: "ldap" },
    &Browser,
    &Presented { name: "jwt", about: "A token of an issuer: role=NAME jwt=@FILE" },
    &Presented { name: "kubernetes", about: "The token of a service account: role=NAME jwt=@FILE" },
];

/// A way to prove who one is.
#[async_trait::async_trait(?Send)]
trait Method: Sync {
    /// What `-method` calls it, and where its mount is unless `-path` says otherwise.
    fn name(&self) -> &'static str;

    /// What it is, and the values it takes, in one line.
    fn about(&self) -> &'static str;

    /// Asks the server for a token.
    ///
    /// # Errors
    /// Values that are missing, or as the server answers.
    async fn log_in(
        &self,
        session: &mut Session<'_>,
        attempt: Attempt,
    ) -> Result<LoggedIn, CliError>;
}

/// What a log-in is made with.
struct Attempt {
    /// The mount, such as `auth/userpass`.
    mount: String,
    /// The values given, without the line break that ends a file or a pipe.
    values: Map<String, Value>,
    /// What was given alone, without a name.
    alone: Option<String>,
    /// The codes of a second factor: `METHOD:CODE`, or the code alone.
    codes: Vec<String>,
}

impl Attempt {
    /// Takes one text value out of those given; `None` when it is not there.
    ///
    /// # Errors
    /// A value that was given twice, or is not text.
    fn take(&mut self, name: &str) -> Result<Option<String>, CliError> {
        match self.values.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(CliError::local(
                format!("{name} is not one text"),
                format!("give {name}=VALUE, {name}=@FILE or {name}=- once"),
            )),
        }
    }

    /// Writes the values that are left to `path` below the mount.
    ///
    /// # Errors
    /// As the server answers.
    async fn post(self, session: &mut Session<'_>, path: &str) -> Result<LoggedIn, CliError> {
        // What proves who we are is in the request; an old token would only be in the way.
        session.client.set_token(None);
        let reply =
            session.write(&format!("{}/{path}", self.mount), Value::Object(self.values)).await?;
        LoggedIn::by(second_factor::show(session, reply, &self.codes).await?)
    }
}

/// What a log-in led to.
struct LoggedIn {
    reply: Reply,
    /// None when the answer came wrapped.
    token: Option<SecretString>,
}

impl LoggedIn {
    /// The token of an answer to a log-in, unless it is wrapped.
    ///
    /// # Errors
    /// An answer that holds neither.
    fn by(reply: Reply) -> Result<Self, CliError> {
        if reply.body.get("wrap_info").is_some_and(Value::is_object) {
            return Ok(Self { reply, token: None });
        }
        let token = reply
            .body
            .pointer("/auth/client_token")
            .and_then(Value::as_str)
            .map(|token| SecretString::new(token.to_owned()))
            .ok_or(CliError::Answer("token"))?;
        Ok(Self { reply, token: Some(token) })
    }
}

/// `leasehold login`
#[derive(Debug, clap::Args)]
pub struct Login {
    /// How to log in [default: token when one is given, else cert]
    #[arg(long, value_parser = method_names(), value_name = "METHOD")]
    method: Option<String>,
    /// Where the method is mounted, below auth/ [default: the method's name]
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// The code of a second factor, should one be demanded; without it, it is asked for. METHOD is
    /// the name or id of the method, and can be left out
    #[arg(long, value_name = "[METHOD:]CODE")]
    mfa: Vec<String>,
    /// Do not keep the token in ~/.leasehold-token
    #[arg(long)]
    no_store: bool,
    /// Print nothing; the token is only kept
    #[arg(long, conflicts_with_all = ["no_store", "token_only"])]
    no_print: bool,
    /// Print the token alone, and do not keep it
    #[arg(long)]
    token_only: bool,
    /// What the method takes; a password or token that is not given is asked for unseen. Values are
    /// read from @FILE, or from standard input by -
    #[arg(value_name = "KEY=VALUE|TOKEN")]
    args: Vec<String>,
}

fn method_names() -> PossibleValuesParser {
    METHODS.iter().map(|method| PossibleValue::new(method.name()).help(method.about())).into()
}

impl Login {
    /// Logs in, prints the token and keeps it.
    ///
    /// # Errors
    /// As the server answers, or when the token cannot be kept.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let method = self.method();
        let attempt = self.attempt(session, method)?;
        let LoggedIn { reply, token } = method.log_in(session, attempt).await?;
        let Some(token) = token else { return session.output().reply(&reply, "") };
        if self.token_only {
            return session.output().raw(token.expose());
        }
        if !self.no_store {
            keep(session, &token)?;
        }
        if self.no_print {
            return Ok(());
        }
        let output = session.output();
        if output.is_document()
            || output.wants_field()
            || reply.body.get("auth").is_some_and(Value::is_object)
        {
            return output.reply(&reply, "Logged in");
        }
        let name = reply.text("display_name").unwrap_or("token").to_owned();
        let policies = reply.data().get("policies").cloned().unwrap_or(json!([]));
        output.object(&json!({ "display_name": name, "policies": policies }))
    }

    /// The method by its name, which clap has checked.
    fn method(&self) -> &'static dyn Method {
        let alone = self.args.first().is_some_and(|first| first == "-" || !is_value(first));
        let name = match &self.method {
            Some(name) => name.as_str(),
            None if alone => Token.name(),
            None => Certificate.name(),
        };
        METHODS.iter().find(|method| method.name() == name).copied().unwrap_or(&Certificate)
    }

    fn attempt(
        &self,
        session: &mut Session<'_>,
        method: &'static dyn Method,
    ) -> Result<Attempt, CliError> {
        let mount = self.path.as_deref().unwrap_or(method.name()).trim_matches('/');
        let mount = format!("auth/{mount}");
        if let [alone] = self.args.as_slice()
            && method.name() == Token.name()
        {
            return Ok(Attempt {
                mount,
                values: Map::new(),
                alone: Some(alone.clone()),
                codes: Vec::new(),
            });
        }
        let mut values = values::parse(&self.args, session.process.stdin.as_mut())?;
        // A file or a pipe ends with a line break that is not part of a secret.
        for value in values.values_mut() {
            if let Value::String(text) = value {
                text.truncate(text.trim_end_matches(['\r', '\n']).len());
            }
        }
        Ok(Attempt { mount, values, alone: None, codes: self.mfa.clone() })
    }
}

/// Whether an argument is `key=value` or `@file.json`, and not a token.
fn is_value(arg: &str) -> bool {
    arg.starts_with('@') || arg.contains('=')
}

fn keep(session: &mut Session<'_>, token: &SecretString) -> Result<(), CliError> {
    let Some(file) = &session.token_file else {
        return Err(CliError::local(
            "there is no home directory to keep the token in",
            "set HOME, or use -no-store and LEASEHOLD_TOKEN",
        ));
    };
    file.store(token)?;
    let shown = format!("The token is kept in {}.", file.path().display());
    session.output().note(&shown)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        login: Login,
    }

    fn chosen(args: &[&str]) -> &'static str {
        Line::try_parse_from([&["x"], args].concat()).unwrap().login.method().name()
    }

    #[test]
    fn a_token_alone_is_a_token_and_nothing_at_all_is_the_certificate() {
        assert_eq!(chosen(&[]), "cert");
        assert_eq!(chosen(&["name=web"]), "cert");
        assert_eq!(chosen(&["@role.json"]), "cert");
        assert_eq!(chosen(&["s.0123"]), "token");
        assert_eq!(chosen(&["-"]), "token");
        assert_eq!(chosen(&["--method=userpass", "username=a"]), "userpass");
        assert!(Line::try_parse_from(["x", "--method=nosuch"]).is_err());
    }

    #[test]
    fn no_two_methods_share_a_name() {
        let names: BTreeSet<&str> = METHODS.iter().map(|method| method.name()).collect();
        assert_eq!(names.len(), METHODS.len());
    }
}
