//! `leasehold secrets` and `leasehold auth`: what is mounted where.

use serde_json::{Map, Value, json};

use super::error::CliError;
use super::session::Session;
use super::table;
use super::values;

/// Subcommands of `leasehold secrets`.
#[derive(Debug, clap::Subcommand)]
pub enum Secrets {
    /// List secrets engines
    List(List),
    /// Mount a secrets engine
    Enable(Enable),
    /// Revoke everything a secrets engine issued, and unmount it
    Disable(At),
    /// Change a secrets engine's settings
    Tune(Tune),
    /// Move a secrets engine to another path
    Move(Move),
}

/// Subcommands of `leasehold auth`.
#[derive(Debug, clap::Subcommand)]
pub enum Auth {
    /// List auth methods
    List(List),
    /// Mount an auth method
    Enable(Enable),
    /// Revoke every token of an auth method, and unmount it
    Disable(At),
    /// Change an auth method's settings
    Tune(Tune),
    /// Move an auth method to another path
    Move(Move),
}

/// `move`
#[derive(Debug, clap::Args)]
pub struct Move {
    /// Where it is
    from: String,
    /// Where it goes
    to: String,
}

/// `list`
#[derive(Debug, clap::Args)]
pub struct List {
    /// Show lifetimes, options and ids too
    #[arg(long)]
    detailed: bool,
}

/// `enable`
#[derive(Debug, clap::Args)]
pub struct Enable {
    /// Type, such as kv-v2 or database
    r#type: String,
    /// Where to mount it [default: the type's name]
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Version of the kv engine
    #[arg(long, value_name = "NUMBER")]
    version: Option<u32>,
    #[command(flatten)]
    settings: Box<Settings>,
}

/// `disable`
#[derive(Debug, clap::Args)]
pub struct At {
    /// Where it is mounted
    path: String,
}

/// `tune`
#[derive(Debug, clap::Args)]
pub struct Tune {
    /// Where it is mounted
    path: String,
    #[command(flatten)]
    settings: Box<Settings>,
}

/// What can be set when mounting and later.
#[derive(Debug, clap::Args)]
pub struct Settings {
    /// Text for people
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Lifetime of what it issues unless asked otherwise
    #[arg(long, value_name = "DURATION")]
    default_lease_ttl: Option<String>,
    /// Longest lifetime of what it issues
    #[arg(long, value_name = "DURATION")]
    max_lease_ttl: Option<String>,
    /// unauth or hidden: who may see that it is there
    #[arg(long, value_name = "WHO")]
    listing_visibility: Option<String>,
    /// Request field that the audit shows in clear; may be given several times
    #[arg(long, value_name = "NAME")]
    audit_non_hmac_request_keys: Vec<String>,
    /// Response field that the audit shows in clear; may be given several times
    #[arg(long, value_name = "NAME")]
    audit_non_hmac_response_keys: Vec<String>,
    /// Request header for the engine; may be given several times
    #[arg(long, value_name = "NAME")]
    passthrough_request_headers: Vec<String>,
    /// Header that the engine may answer; may be given several times
    #[arg(long, value_name = "NAME")]
    allowed_response_headers: Vec<String>,
    /// Kind of token that an auth method makes: service, batch, default-service or default-batch
    #[arg(long, value_name = "TYPE")]
    token_type: Option<String>,
    /// Failed log-ins after which an auth method locks a name
    #[arg(long, value_name = "COUNT")]
    user_lockout_threshold: Option<u64>,
    /// How long the name stays locked
    #[arg(long, value_name = "DURATION")]
    user_lockout_duration: Option<String>,
    /// How long failures are remembered
    #[arg(long, value_name = "DURATION")]
    user_lockout_counter_reset_duration: Option<String>,
    /// Whether no name is locked
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
          require_equals = true)]
    user_lockout_disable: Option<bool>,
    /// Option of the engine, key=value; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    options: Vec<String>,
}

/// The two tables of mounts, which the server serves alike.
#[derive(Clone, Copy)]
struct Kind {
    api: &'static str,
    what: &'static str,
}

const SECRETS: Kind = Kind { api: "sys/mounts", what: "secrets engine" };
const AUTH: Kind = Kind { api: "sys/auth", what: "auth method" };

impl Secrets {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        match self {
            Self::List(command) => command.run(session, SECRETS).await,
            Self::Enable(command) => command.run(session, SECRETS).await,
            Self::Disable(command) => command.run(session, SECRETS).await,
            Self::Tune(command) => command.run(session, SECRETS).await,
            Self::Move(command) => command.run(session, SECRETS).await,
        }
    }
}

impl Auth {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        match self {
            Self::List(command) => command.run(session, AUTH).await,
            Self::Enable(command) => command.run(session, AUTH).await,
            Self::Disable(command) => command.run(session, AUTH).await,
            Self::Tune(command) => command.run(session, AUTH).await,
            Self::Move(command) => command.run(session, AUTH).await,
        }
    }
}

impl Move {
    async fn run(self, session: &mut Session<'_>, kind: Kind) -> Result<(), CliError> {
        let place = |path: &str| {
            let path = path.trim_matches('/');
            match kind.api {
                // The server names auth methods with auth/, people often do not.
                "sys/auth" => format!("auth/{}/", path.strip_prefix("auth/").unwrap_or(path)),
                _ => format!("{path}/"),
            }
        };
        let (from, to) = (place(&self.from), place(&self.to));
        let reply = session.write("sys/remount", json!({ "from": from, "to": to })).await?;
        let done = format!("Moved the {} from {from} to {to}", kind.what);
        if session.output().is_document() || session.output().wants_field() {
            session.output().reply(&reply, &done)
        } else {
            session.output().success(&done)
        }
    }
}

impl List {
    async fn run(self, session: &mut Session<'_>, kind: Kind) -> Result<(), CliError> {
        let reply = session.read(kind.api).await?;
        let data = reply.data();
        let mut headers = vec!["Path", "Type", "Accessor", "Description"];
        if self.detailed {
            headers.extend(["Default TTL", "Max TTL", "Options", "UUID"]);
        }
        let rows: Vec<_> = data
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, mount)| mount.get("type").is_some())
            .map(|(path, mount)| row(path, mount, self.detailed))
            .collect();
        session.output().rows(&headers, &rows, data)
    }
}

fn row(path: &str, mount: &Value, detailed: bool) -> Vec<String> {
    let text = |pointer: &str| mount.pointer(pointer).map(table::cell).unwrap_or_default();
    let mut row = vec![path.to_owned(), text("/type"), text("/accessor"), text("/description")];
    if detailed {
        for pointer in ["/config/default_lease_ttl", "/config/max_lease_ttl"] {
            row.push(match mount.pointer(pointer).and_then(Value::as_i64) {
                None | Some(0) => "system".to_owned(),
                Some(secs) => table::duration(secs),
            });
        }
        row.extend([text("/options"), text("/uuid")]);
    }
    row
}

impl Enable {
    fn body(&self) -> Result<(String, Value), CliError> {
        let (kind, version) = match self.r#type.as_str() {
            "kv-v1" => ("kv", Some(1)),
            "kv-v2" => ("kv", Some(2)),
            other => (other, self.version),
        };
        let mut body = self.settings.mount_body()?;
        body.insert("type".to_owned(), json!(kind));
        if let Some(version) = version {
            let options = body.entry("options").or_insert(json!({}));
            if let Some(options) = options.as_object_mut() {
                options.insert("version".to_owned(), json!(version.to_string()));
            }
        }
        let path = self.path.as_deref().unwrap_or(kind).trim_matches('/').to_owned();
        Ok((path, Value::Object(body)))
    }

    async fn run(self, session: &mut Session<'_>, kind: Kind) -> Result<(), CliError> {
        let (path, body) = self.body()?;
        let reply = session.write(&format!("{}/{path}", kind.api), body).await?;
        let done = format!("Enabled the {} {} at: {path}/", self.r#type, kind.what);
        session.output().reply(&reply, &done)
    }
}

impl At {
    async fn run(self, session: &mut Session<'_>, kind: Kind) -> Result<(), CliError> {
        let path = self.path.trim_matches('/');
        let reply = session.delete(&format!("{}/{path}", kind.api)).await?;
        let done = format!("Disabled the {} (if it existed) at: {path}/", kind.what);
        session.output().reply(&reply, &done)
    }
}

impl Tune {
    async fn run(self, session: &mut Session<'_>, kind: Kind) -> Result<(), CliError> {
        let path = self.path.trim_matches('/');
        let body = self.settings.tune_body()?;
        if body.is_empty() {
            let reply = session.read(&format!("{}/{path}/tune", kind.api)).await?;
            return session.output().reply(&reply, "");
        }
        let target = format!("{}/{path}/tune", kind.api);
        let reply = session.write(&target, Value::Object(body)).await?;
        session.output().reply(&reply, &format!("Tuned the {} at: {path}/", kind.what))
    }
}

impl Settings {
    /// Tuning takes everything at the top level.
    fn tune_body(&self) -> Result<Map<String, Value>, CliError> {
        let mut body = Map::new();
        for (name, text) in [
            ("description", &self.description),
            ("default_lease_ttl", &self.default_lease_ttl),
            ("max_lease_ttl", &self.max_lease_ttl),
            ("listing_visibility", &self.listing_visibility),
            ("token_type", &self.token_type),
        ] {
            if let Some(text) = text {
                body.insert(name.to_owned(), json!(text));
            }
        }
        for (name, list) in [
            ("audit_non_hmac_request_keys", &self.audit_non_hmac_request_keys),
            ("audit_non_hmac_response_keys", &self.audit_non_hmac_response_keys),
            ("passthrough_request_headers", &self.passthrough_request_headers),
            ("allowed_response_headers", &self.allowed_response_headers),
        ] {
            // One empty name takes all away, as a list cannot be empty on a command line.
            let names: Vec<&String> = list.iter().filter(|name| !name.is_empty()).collect();
            if !list.is_empty() {
                body.insert(name.to_owned(), json!(names));
            }
        }
        let lockout = self.lockout();
        if !lockout.is_empty() {
            body.insert("user_lockout_config".to_owned(), Value::Object(lockout));
        }
        let options: Map<String, Value> = values::plain(&self.options)?
            .into_iter()
            .map(|(key, value)| (key, Value::String(value)))
            .collect();
        if !options.is_empty() {
            body.insert("options".to_owned(), Value::Object(options));
        }
        Ok(body)
    }

    /// When an auth method locks a name.
    fn lockout(&self) -> Map<String, Value> {
        let duration = |text: &Option<String>| text.as_ref().map(|text| json!(text));
        let all = [
            ("lockout_threshold", self.user_lockout_threshold.map(Value::from)),
            ("lockout_duration", duration(&self.user_lockout_duration)),
            ("lockout_counter_reset", duration(&self.user_lockout_counter_reset_duration)),
            ("lockout_disable", self.user_lockout_disable.map(Value::from)),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }

    /// Mounting takes all but the description and options below `config`.
    fn mount_body(&self) -> Result<Map<String, Value>, CliError> {
        let (outer, config): (Map<_, _>, Map<_, _>) = self
            .tune_body()?
            .into_iter()
            .partition(|(name, _)| name == "description" || name == "options");
        let mut body = outer;
        if !config.is_empty() {
            body.insert("config".to_owned(), Value::Object(config));
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        enable: Enable,
    }

    fn body(args: &[&str]) -> (String, Value) {
        Line::try_parse_from([&["x"], args].concat()).unwrap().enable.body().unwrap()
    }

    #[test]
    fn the_versioned_kv_names_are_understood() {
        assert_eq!(
            body(&["kv-v2", "--path=team/secret/"]),
            ("team/secret".to_owned(), json!({"type": "kv", "options": {"version": "2"}}))
        );
        assert_eq!(body(&["kv"]), ("kv".to_owned(), json!({"type": "kv"})));
    }

    #[test]
    fn lifetimes_are_configuration_and_the_description_is_not() {
        assert_eq!(
            body(&["database", "--max-lease-ttl=1h", "--description=d", "--options=a=b"]).1,
            json!({"type": "database", "description": "d", "options": {"a": "b"},
                   "config": {"max_lease_ttl": "1h"}})
        );
        let lockout = ["userpass", "--user-lockout-threshold=3", "--user-lockout-disable"];
        assert_eq!(
            body(&lockout).1,
            json!({"type": "userpass", "config": {
                "user_lockout_config": {"lockout_threshold": 3, "lockout_disable": true}}})
        );
        let keys = ["kv", "--audit-non-hmac-request-keys=a", "--audit-non-hmac-request-keys=b"];
        assert_eq!(
            body(&[&keys[..], &["--allowed-response-headers="]].concat()).1,
            json!({"type": "kv", "config": {
                "audit_non_hmac_request_keys": ["a", "b"], "allowed_response_headers": []}})
        );
    }
}
