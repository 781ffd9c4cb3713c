//! The database part: a credential that lives as long as its lease and no longer.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::did_not_hold;
use super::story::Story;
use crate::cli::dev::Broker;
use crate::cli::error::{CliError, with_causes};
use crate::cli::throwaway_postgres::{SUPERUSER, ThrowawayPostgres};
use crate::client::{Client, ClientError};
use crate::server::postgres_login::PostgresLogin;
use crate::types::secret::SecretString;
use crate::types::time::{Clock, SystemClock};

const LEASE_SECS: u64 = 4;
/// How long after its end a lease's credential may take to be refused, in seconds.
const GRACE_SECS: u64 = 15;
const LOOK_MILLIS: u64 = 250;

const CREATION: &str =
    "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'";

/// The PostgreSQL server that credentials are leased on.
pub(super) struct Target {
    url: String,
    username: String,
    password: SecretString,
    what: String,
    // Stopped with the target.
    _private: Option<ThrowawayPostgres>,
}

impl Target {
    /// The server at `url`, or a private one; or why there is none.
    pub(super) async fn find(url: Option<&str>) -> Result<Result<Self, String>, CliError> {
        if let Some(url) = url {
            return split(url).map(Ok);
        }
        Ok(match ThrowawayPostgres::start().await {
            Ok(private) => Ok(Self {
                url: format!(
                    "postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/postgres\
                     ?sslmode=disable",
                    private.port()
                ),
                username: SUPERUSER.to_owned(),
                password: private.password().duplicate(),
                what: format!("a private PostgreSQL on port {}", private.port()),
                _private: Some(private),
            }),
            Err(error) => Err(with_causes(&error)),
        })
    }

    /// Leases a credential, uses it, waits for the lease to end, and tries it again.
    pub(super) async fn play(self, broker: &Broker, story: &mut Story<'_>) -> Result<(), CliError> {
        let admin = broker.client("admin")?;
        story.outcome(self.configure(&admin).await, |()| format!("connected to {}", self.what))?;
        let login = PostgresLogin::new(&self.url, &self.username, &self.password)
            .map_err(|error| CliError::local(error.to_string(), "check the URL"))?;

        let workload = broker.client("workload")?;
        let leased = workload.read("database/creds/demo").await.map_err(CliError::from);
        let leased = story.outcome(leased, |reply| {
            let secs = reply.body.get("lease_duration").and_then(Value::as_u64).unwrap_or(0);
            format!("user {} leased for {secs} s", reply.text("username").unwrap_or("(none)"))
        })?;
        let id = leased.body.get("lease_id").and_then(Value::as_str).unwrap_or_default();
        let user = leased.text("username").ok_or(CliError::Answer("username"))?;
        let password = leased.text("password").ok_or(CliError::Answer("password"))?;
        let password = SecretString::new(password.to_owned());
        let logged_in = match accepts(&login, user, &password).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(did_not_hold("PostgreSQL refuses the leased credential".to_owned())),
            Err(error) => Err(error),
        };
        story.outcome(logged_in, |()| "it logs in".to_owned())?;

        let ended = wait_for_end(&admin, id, &login, user, &password, story).await;
        story.waited()?;
        story.outcome(ended, |()| {
            "the lease ended: the same login is refused, the user is gone".to_owned()
        })
    }

    async fn configure(&self, admin: &Client) -> Result<(), CliError> {
        let config = json!({
            "plugin_name": "postgresql-database-plugin",
            "connection_url": self.url,
            "username": self.username,
            "password": self.password.expose(),
            "allowed_roles": ["demo"],
        });
        admin.write("database/config/demo", config).await?;
        let role = json!({
            "db_name": "demo",
            "creation_statements": [CREATION],
            "default_ttl": format!("{LEASE_SECS}s"),
            "max_ttl": "1m",
        });
        admin.write("database/roles/demo", role).await?;
        Ok(())
    }
}

async fn accepts(
    login: &PostgresLogin,
    user: &str,
    password: &SecretString,
) -> Result<bool, CliError> {
    login.accepts(user, password).await.map_err(|error| {
        CliError::local(with_causes(&error), "check that the PostgreSQL server is reachable")
    })
}

async fn wait_for_end(
    admin: &Client,
    lease: &str,
    login: &PostgresLogin,
    user: &str,
    password: &SecretString,
    story: &mut Story<'_>,
) -> Result<(), CliError> {
    let start = SystemClock.monotonic();
    let mut shown = None;
    loop {
        let gone = match admin.write("sys/leases/lookup", json!({ "lease_id": lease })).await {
            Ok(_) => false,
            Err(ClientError::Refused(refusal)) if refusal.status == 400 => true,
            Err(error) => return Err(error.into()),
        };
        if gone {
            return match accepts(login, user, password).await? {
                false => Ok(()),
                true => Err(did_not_hold("the lease is gone and its login works".to_owned())),
            };
        }
        let elapsed = SystemClock.monotonic().saturating_sub(start).as_secs();
        if elapsed > LEASE_SECS + GRACE_SECS {
            return Err(did_not_hold(format!("the lease is still there after {elapsed} s")));
        }
        let left = LEASE_SECS.saturating_sub(elapsed);
        if shown.replace(left) != Some(left) {
            story.waiting(&format!("waiting for the lease to end: {left} s"))?;
        }
        tokio::time::sleep(Duration::from_millis(LOOK_MILLIS)).await;
    }
}

/// Takes the administrator's name and password out of a URL, as the database engine wants it.
fn split(url: &str) -> Result<Target, CliError> {
    let wrong = || {
        CliError::local(
            "the URL of -postgres cannot be used",
            "write postgres://user:password@host:port/database, with sslmode=disable, require or \
             verify-full as the server needs",
        )
    };
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    if !matches!(scheme, "postgres" | "postgresql") {
        return Err(wrong());
    }
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(authority_end);
    let (user, host) = authority.rsplit_once('@').ok_or_else(wrong)?;
    let (name, password) = user.split_once(':').ok_or_else(wrong)?;
    let decoded = |text: &str| {
        percent_decode_str(text)
            .decode_utf8()
            .map(std::borrow::Cow::into_owned)
            .map_err(|_| wrong())
    };
    Ok(Target {
        url: format!("postgresql://{{{{username}}}}:{{{{password}}}}@{host}{tail}"),
        username: decoded(name)?,
        password: SecretString::new(decoded(password)?),
        what: format!("PostgreSQL at {host}"),
        _private: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gives_up_its_user_and_keeps_the_rest() {
        let target =
            split("postgres://ad%40min:p%3A%2Fw@db.internal:5433/app?sslmode=require").unwrap();
        assert_eq!(
            target.url,
            "postgresql://{{username}}:{{password}}@db.internal:5433/app?sslmode=require"
        );
        assert_eq!((target.username.as_str(), target.password.expose()), ("ad@min", "p:/w"));
        assert_eq!(target.what, "PostgreSQL at db.internal:5433");
    }

    #[test]
    fn a_url_without_a_user_and_password_is_refused() {
        for url in ["postgres://host/db", "postgres://user@host/db", "mysql://u:p@h/db", "h:5432"] {
            assert!(split(url).is_err(), "{url}");
        }
    }
}
