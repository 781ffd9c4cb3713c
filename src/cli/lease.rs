//! `leasehold lease`.

use serde_json::{Map, Value, json};

use super::error::CliError;
use super::session::Session;
use super::table;
use crate::client::{Reply, Request, Verb};

/// Subcommands of `leasehold lease`.
#[derive(Debug, clap::Subcommand)]
pub enum Lease {
    /// Show a lease
    Lookup {
        /// Lease id
        id: String,
    },
    /// List leases below a prefix, or by owner, role or mount
    List(List),
    /// Extend a lease
    Renew(Renew),
    /// End a lease and kill its credential
    Revoke(Revoke),
    /// List leases whose revocation keeps failing
    Overdue,
    /// Forget a lease whose credential cannot be revoked: the credential may live on
    Abandon(Abandon),
}

/// `leasehold lease list`
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub struct List {
    /// Prefix of lease ids, one level shown
    #[arg(conflicts_with_all = ["entity", "role", "mount"])]
    prefix: Option<String>,
    /// Of this owner, by entity id
    #[arg(long, value_name = "ID")]
    entity: Option<String>,
    /// Issued by this role; with -mount
    #[arg(long, value_name = "NAME", requires = "mount")]
    role: Option<String>,
    /// Issued by this mount
    #[arg(long, value_name = "PATH")]
    mount: Option<String>,
}

/// `leasehold lease renew`
#[derive(Debug, clap::Args)]
pub struct Renew {
    /// Lease id
    id: String,
    /// How much longer from now, if the limits allow
    #[arg(long, short, value_name = "DURATION")]
    increment: Option<String>,
}

/// `leasehold lease revoke`
#[derive(Debug, clap::Args)]
pub struct Revoke {
    /// Lease id, or with -prefix the start of many
    id: String,
    /// Revoke every lease below this path
    #[arg(long)]
    prefix: bool,
    /// With -prefix: only show what would be revoked
    #[arg(long, requires = "prefix")]
    dry_run: bool,
    /// Do not wait until the credential is dead
    #[arg(long = "async")]
    in_background: bool,
}

/// `leasehold lease abandon`
#[derive(Debug, clap::Args)]
pub struct Abandon {
    /// Lease id
    id: String,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

impl Lease {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        match self {
            Self::Lookup { id } => {
                let reply = session.write("sys/leases/lookup", json!({ "lease_id": id })).await?;
                session.output().reply(&reply, "")
            }
            Self::List(command) => command.run(session).await,
            Self::Renew(command) => {
                let mut body = Map::new();
                body.insert("lease_id".to_owned(), json!(command.id));
                if let Some(increment) = command.increment {
                    body.insert("increment".to_owned(), json!(increment));
                }
                let reply = session.write("sys/leases/renew", Value::Object(body)).await?;
                session.output().reply(&reply, "The lease is renewed.")
            }
            Self::Revoke(command) => command.run(session).await,
            Self::Overdue => {
                let request =
                    Request::new(Verb::Read, "sys/leases").query("type", "irrevocable").retried();
                let reply = session.send(request).await?;
                leases(session, &reply)
            }
            Self::Abandon(command) => {
                let body = json!({ "lease_id": command.id, "reason": command.reason });
                let reply = session.write("sys/leases/abandon", body).await?;
                let done = "The lease is forgotten; its credential may still work.";
                session.output().reply(&reply, done)
            }
        }
    }
}

impl List {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        if let Some(prefix) = &self.prefix {
            let path = format!("sys/leases/lookup/{}", prefix.trim_start_matches('/'));
            let reply = session.send(Request::new(Verb::List, &path).retried()).await?;
            return session.output().keys(&reply);
        }
        let mut request = Request::new(Verb::Read, "sys/leases").retried();
        for (name, value) in
            [("entity", &self.entity), ("role", &self.role), ("mount", &self.mount)]
        {
            if let Some(value) = value {
                request = request.query(name, value);
            }
        }
        let reply = session.send(request).await?;
        leases(session, &reply)
    }
}

fn leases(session: &mut Session<'_>, reply: &Reply) -> Result<(), CliError> {
    let rows: Vec<_> = reply
        .data()
        .get("leases")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|lease| {
            let text = |name: &str| lease.get(name).map(table::cell).unwrap_or_default();
            let id = lease.as_str().map_or_else(|| text("lease_id"), str::to_owned);
            vec![id, text("state"), text("expire_time"), text("error")]
        })
        .collect();
    session.output().rows(&["Lease", "State", "Expires", "Last Error"], &rows, reply.data())
}

impl Revoke {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let sync = !self.in_background;
        let reply = if self.prefix {
            let path = format!("sys/leases/revoke-prefix/{}", self.id.trim_start_matches('/'));
            session.write(&path, json!({ "sync": sync, "dry_run": self.dry_run })).await?
        } else {
            session.write("sys/leases/revoke", json!({ "lease_id": self.id, "sync": sync })).await?
        };
        let done = match (self.prefix, sync) {
            (false, true) => format!("Revoked the lease (if it existed): {}", self.id),
            (true, true) => format!("Revoked all leases below: {}", self.id),
            (_, false) => "Revocation has begun and goes on until it is done.".to_owned(),
        };
        session.output().reply(&reply, &done)
    }
}
