//! `leasehold token`.

use serde_json::{Map, Value, json};

use super::error::CliError;
use super::session::Session;
use super::values;

/// Subcommands of `leasehold token`.
#[derive(Debug, clap::Subcommand)]
pub enum Token {
    /// Make a token, no more powerful than the caller
    Create(Box<Create>),
    /// Show a token's properties
    Lookup(Named),
    /// Extend a token's life
    Renew(Renew),
    /// End a token, and with it what hangs on it
    Revoke(Revoke),
    /// Show what a token may do with a path
    Capabilities(Capabilities),
}

/// `leasehold token create`
#[derive(Debug, clap::Args)]
pub struct Create {
    /// Policy, a subset of the caller's; may be given several times
    #[arg(long, value_name = "NAME")]
    policy: Vec<String>,
    /// What the token is narrowed to, such as read:secret/data/reports/*; may be given several
    /// times
    #[arg(long, value_name = "CAPABILITY:PATH")]
    scope: Vec<String>,
    /// How long it lives, such as 90s or 1h
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// How long it lives at the very most, renewals included
    #[arg(long, value_name = "DURATION")]
    explicit_max_ttl: Option<String>,
    /// Lives for this long again at every renewal, without an end
    #[arg(long, value_name = "DURATION")]
    period: Option<String>,
    /// How many requests it is good for; 0: any number
    #[arg(long, value_name = "COUNT")]
    use_limit: Option<u64>,
    /// Does not die with its creator
    #[arg(long)]
    orphan: bool,
    /// Without the policy named default
    #[arg(long)]
    no_default_policy: bool,
    /// Whether it can be renewed
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
          require_equals = true)]
    renewable: Option<bool>,
    /// service or batch
    #[arg(long, value_name = "TYPE")]
    r#type: Option<String>,
    /// Name shown in the audit
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,
    /// Metadata for the audit, key=value; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    metadata: Vec<String>,
    /// Token role to create it by
    #[arg(long, value_name = "NAME")]
    role: Option<String>,
}

/// One token: the caller's own unless named.
#[derive(Debug, clap::Args)]
pub struct Named {
    /// The token, or with -accessor its accessor; - for standard input [default: the caller's]
    token: Option<String>,
    /// What is named is an accessor
    #[arg(long)]
    accessor: bool,
}

/// `leasehold token renew`
#[derive(Debug, clap::Args)]
pub struct Renew {
    #[command(flatten)]
    named: Named,
    /// How much longer from now, if the limits allow
    #[arg(long, short, value_name = "DURATION")]
    increment: Option<String>,
}

/// What ends with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum RevokeMode {
    /// The token alone; its children become orphans.
    Orphan,
}

/// `leasehold token revoke`
#[derive(Debug, clap::Args)]
pub struct Revoke {
    #[command(flatten)]
    named: Named,
    /// The caller's own token
    #[arg(long = "self", conflicts_with_all = ["token", "accessor"])]
    own: bool,
    /// Spare the token's children
    #[arg(long, value_enum, conflicts_with = "accessor")]
    mode: Option<RevokeMode>,
}

/// `leasehold token capabilities`
#[derive(Debug, clap::Args)]
pub struct Capabilities {
    /// The path, after the token when it is not the caller's own
    #[arg(value_name = "[TOKEN] PATH", num_args = 1..=2, required = true)]
    args: Vec<String>,
    /// What is named is an accessor
    #[arg(long)]
    accessor: bool,
}

impl Token {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        match self {
            Self::Create(command) => command.run(session).await,
            Self::Lookup(command) => command.run(session).await,
            Self::Renew(command) => command.run(session).await,
            Self::Revoke(command) => command.run(session).await,
            Self::Capabilities(command) => command.run(session).await,
        }
    }
}

impl Create {
    fn body(&self) -> Result<Value, CliError> {
        let mut body = Map::new();
        let mut put = |name: &str, value: Value| {
            body.insert(name.to_owned(), value);
        };
        for (name, list) in [("policies", &self.policy), ("scopes", &self.scope)] {
            if !list.is_empty() {
                put(name, json!(list));
            }
        }
        for (name, text) in [
            ("ttl", &self.ttl),
            ("explicit_max_ttl", &self.explicit_max_ttl),
            ("period", &self.period),
            ("type", &self.r#type),
            ("display_name", &self.display_name),
        ] {
            if let Some(text) = text {
                put(name, json!(text));
            }
        }
        for (name, set) in
            [("no_parent", self.orphan), ("no_default_policy", self.no_default_policy)]
        {
            if set {
                put(name, json!(true));
            }
        }
        if let Some(count) = self.use_limit {
            put("num_uses", json!(count));
        }
        if let Some(renewable) = self.renewable {
            put("renewable", json!(renewable));
        }
        let meta: Map<String, Value> = values::plain(&self.metadata)?
            .into_iter()
            .map(|(key, value)| (key, Value::String(value)))
            .collect();
        if !meta.is_empty() {
            put("meta", Value::Object(meta));
        }
        Ok(Value::Object(body))
    }

    async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let path = match &self.role {
            Some(role) => format!("auth/token/create/{role}"),
            None => "auth/token/create".to_owned(),
        };
        let reply = session.write(&path, self.body()?).await?;
        session.output().reply(&reply, "")
    }
}

impl Named {
    /// `lookup` becomes `lookup-self`, `lookup` or `lookup-accessor`, with its body.
    fn request(
        &self,
        session: &mut Session<'_>,
        verb: &str,
    ) -> Result<(String, Map<String, Value>), CliError> {
        let mut body = Map::new();
        let path = match (&self.token, self.accessor) {
            (None, false) => format!("auth/token/{verb}-self"),
            (None, true) => {
                return Err(CliError::local("no accessor given", "name it after the flags"));
            }
            (Some(name), accessor) => {
                let name = session.secret(Some(name), "Token: ")?;
                let key = if accessor { "accessor" } else { "token" };
                body.insert(key.to_owned(), json!(name.expose()));
                let suffix = if accessor { "-accessor" } else { "" };
                format!("auth/token/{verb}{suffix}")
            }
        };
        Ok((path, body))
    }

    async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let (path, body) = self.request(session, "lookup")?;
        let reply = if body.is_empty() {
            session.read(&path).await?
        } else {
            session.write(&path, Value::Object(body)).await?
        };
        session.output().reply(&reply, "")
    }
}

impl Renew {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let (path, mut body) = self.named.request(session, "renew")?;
        if let Some(increment) = self.increment {
            body.insert("increment".to_owned(), Value::String(increment));
        }
        let reply = session.write(&path, Value::Object(body)).await?;
        session.output().reply(&reply, "The token is renewed.")
    }
}

impl Revoke {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        if self.named.token.is_none() && !self.own {
            return Err(CliError::local(
                "no token to revoke",
                "name a token, or use -self for the caller's own",
            ));
        }
        if self.own && self.mode.is_some() {
            return Err(CliError::local("-self and -mode do not go together", "use one of them"));
        }
        let verb = if self.mode.is_some() { "revoke-orphan" } else { "revoke" };
        let (path, body) = self.named.request(session, verb)?;
        let reply = session.write(&path, Value::Object(body)).await?;
        session.output().reply(&reply, "The token is revoked (if it existed).")
    }
}

impl Capabilities {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let (token, path) = match self.args.as_slice() {
            [path] => (None, path.clone()),
            [token, path] => (Some(token.clone()), path.clone()),
            _ => return Err(CliError::local("no path given", "write: capabilities [TOKEN] PATH")),
        };
        let mut body = Map::new();
        body.insert("paths".to_owned(), json!([path]));
        let target = match (token, self.accessor) {
            (None, false) => "sys/capabilities-self",
            (None, true) => {
                return Err(CliError::local("no accessor given", "name it before the path"));
            }
            (Some(name), accessor) => {
                let name = session.secret(Some(&name), "Token: ")?;
                let key = if accessor { "accessor" } else { "token" };
                body.insert(key.to_owned(), json!(name.expose()));
                if accessor { "sys/capabilities-accessor" } else { "sys/capabilities" }
            }
        };
        let reply = session.write(target, Value::Object(body)).await?;
        let list = reply.data().get("capabilities").or_else(|| reply.data().get(&path));
        let list = list.cloned().unwrap_or(json!(["deny"]));
        if session.output().is_document() {
            return session.output().document(&list);
        }
        let names: Vec<&str> =
            list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        session.output().line(&names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        create: Create,
    }

    fn body(args: &[&str]) -> Value {
        Line::try_parse_from([&["x"], args].concat()).unwrap().create.body().unwrap()
    }

    #[test]
    fn a_cron_jobs_token_is_narrow_and_short() {
        assert_eq!(
            body(&["--scope=read:secret/data/reports/*", "--ttl=60s", "--renewable=false"]),
            json!({"scopes": ["read:secret/data/reports/*"], "ttl": "60s", "renewable": false})
        );
    }

    #[test]
    fn flags_take_the_names_that_the_server_knows() {
        assert_eq!(
            body(&[
                "--orphan",
                "--use-limit=3",
                "--metadata=job=nightly",
                "--policy=a",
                "--policy=b"
            ]),
            json!({"no_parent": true, "num_uses": 3, "meta": {"job": "nightly"},
                   "policies": ["a", "b"]})
        );
        assert_eq!(body(&[]), json!({}));
    }
}
