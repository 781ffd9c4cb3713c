//! `leasehold lease`.

use std::time::Duration;

use serde_json::{Value, json};

use super::error::CliError;
use super::session::Session;
use super::table;
use crate::client::{Reply, Request, Verb};

/// Pause between two looks at a bulk revocation.
const LOOK_MILLIS: u64 = 300;

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
    /// List leases whose revocation keeps failing
    Overdue(Page),
    /// Count leases by mount
    Count,
    /// Extend a lease
    Renew(Renew),
    /// End leases and kill their credentials
    Revoke(Revoke),
    /// Show how far a bulk revocation is
    Operation {
        /// Its id, as `revoke -async` prints it
        id: String,
    },
    /// Forget leases whose credentials cannot be revoked: the credentials may live on
    Abandon(Abandon),
}

/// Which leases, by what they belong to.
#[derive(Debug, clap::Args)]
pub struct Belonging {
    /// Of this owner, by entity id
    #[arg(long, value_name = "ID", conflicts_with = "mount")]
    entity: Option<String>,
    /// Issued by this mount
    #[arg(long, value_name = "PATH")]
    mount: Option<String>,
    /// With -mount: issued by this role
    #[arg(long, value_name = "NAME", requires = "mount")]
    role: Option<String>,
}

/// Which part of a long list.
#[derive(Debug, clap::Args)]
pub struct Page {
    /// Most leases to show
    #[arg(long, value_name = "COUNT")]
    limit: Option<u32>,
    /// Where the part before ended
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
}

/// `leasehold lease list`
#[derive(Debug, clap::Args)]
pub struct List {
    /// Prefix of lease ids; one level is shown
    #[arg(conflicts_with_all = ["entity", "role", "mount"])]
    prefix: Option<String>,
    #[command(flatten)]
    belonging: Belonging,
    #[command(flatten)]
    page: Page,
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
    /// Lease id, or with -prefix the path below which all are revoked
    #[arg(conflicts_with_all = ["entity", "role", "mount"])]
    id: Option<String>,
    /// Revoke every lease below this path
    #[arg(long, requires = "id")]
    prefix: bool,
    #[command(flatten)]
    belonging: Belonging,
    /// Only show which leases would be revoked
    #[arg(long)]
    dry_run: bool,
    /// Do not wait until the credentials are dead
    #[arg(long = "async")]
    in_background: bool,
}

/// `leasehold lease abandon`
#[derive(Debug, clap::Args)]
pub struct Abandon {
    /// Lease id, or with -prefix the path below which all are forgotten
    id: String,
    /// Forget every lease below this path
    #[arg(long)]
    prefix: bool,
    /// With -prefix: only show which leases would be forgotten
    #[arg(long, requires = "prefix")]
    dry_run: bool,
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
            Self::Overdue(page) => search(session, page.body(json!({ "overdue": true }))).await,
            Self::Count => count(session).await,
            Self::Renew(command) => {
                let mut body = json!({ "lease_id": command.id });
                set(&mut body, "increment", command.increment);
                let reply = session.write("sys/leases/renew", body).await?;
                session.output().reply(&reply, "The lease is renewed.")
            }
            Self::Revoke(command) => command.run(session).await,
            Self::Operation { id } => {
                let reply = session.read(&format!("sys/leases/operations/{id}")).await?;
                session.output().reply(&reply, "")
            }
            Self::Abandon(command) => command.run(session).await,
        }
    }
}

impl Belonging {
    /// What the server selects by; `None` when nothing was said.
    fn body(self) -> Option<Value> {
        let mut body = json!({});
        set(&mut body, "entity_id", self.entity);
        set(&mut body, "mount", self.mount);
        set(&mut body, "role", self.role);
        body.as_object().is_some_and(|object| !object.is_empty()).then_some(body)
    }
}

impl Page {
    fn body(self, mut body: Value) -> Value {
        set(&mut body, "limit", self.limit);
        set(&mut body, "after", self.after);
        body
    }
}

fn set(body: &mut Value, name: &str, value: Option<impl Into<Value>>) {
    if let (Some(object), Some(value)) = (body.as_object_mut(), value) {
        object.insert(name.to_owned(), value.into());
    }
}

impl List {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        match (self.prefix, self.belonging.body()) {
            (_, Some(body)) => search(session, self.page.body(body)).await,
            (None, None) => Err(CliError::local(
                "no leases chosen",
                "give a prefix such as database/, or use -mount or -entity; lease count shows \
                 where there are any",
            )),
            (Some(prefix), None) => {
                let path = format!("sys/leases/lookup/{}", prefix.trim_start_matches('/'));
                let reply = session.send(Request::new(Verb::List, &path).retried()).await?;
                session.output().keys(&reply)
            }
        }
    }
}

async fn search(session: &mut Session<'_>, body: Value) -> Result<(), CliError> {
    let reply = session.write("sys/leases/search", body).await?;
    let data = reply.data();
    let rows: Vec<_> =
        data.get("leases").and_then(Value::as_array).into_iter().flatten().map(row).collect();
    let headers = ["Lease", "State", "TTL", "Role", "Tries", "Last Error"];
    session.output().rows(&headers, &rows, data)?;
    match data.get("next").and_then(Value::as_str) {
        Some(next) => session.output().note(&format!("There are more: -after={next}")),
        None => Ok(()),
    }
}

fn row(lease: &Value) -> Vec<String> {
    let text = |name: &str| match lease.get(name) {
        Some(value) if !value.is_null() => table::cell(value),
        Some(_) | None => String::new(),
    };
    let ttl = lease.get("ttl").and_then(Value::as_i64).map(table::duration).unwrap_or_default();
    vec![text("id"), text("state"), ttl, text("role"), text("attempts"), text("revoke_error")]
}

async fn count(session: &mut Session<'_>) -> Result<(), CliError> {
    let reply = session.read("sys/leases/count").await?;
    let data = reply.data();
    let mut rows: Vec<_> = data
        .get("counts")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(mount, count)| vec![mount.clone(), table::cell(count)])
        .collect();
    rows.push(vec![
        "(all)".to_owned(),
        data.get("lease_count").map(table::cell).unwrap_or_default(),
    ]);
    session.output().rows(&["Mount", "Leases"], &rows, data)
}

impl Revoke {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let (path, mut body) = match (self.id, self.belonging.body()) {
            (None, Some(body)) => ("sys/leases/revoke-where".to_owned(), body),
            (Some(id), _) if self.prefix => {
                (format!("sys/leases/revoke-prefix/{}", below(&id)), json!({}))
            }
            (Some(_), _) if self.dry_run => {
                return Err(CliError::local(
                    "-dry-run is for many leases at once",
                    "use -prefix, -mount or -entity; see one lease with lease lookup",
                ));
            }
            (Some(id), _) => {
                let body = json!({ "lease_id": id, "sync": !self.in_background });
                let reply = session.write("sys/leases/revoke", body).await?;
                let done = format!("The credential is dead (if it existed): {id}");
                return session.output().reply(&reply, &done);
            }
            (None, None) => {
                return Err(CliError::local(
                    "no lease to revoke",
                    "name a lease, or use -prefix, -mount or -entity",
                ));
            }
        };
        if self.dry_run {
            set(&mut body, "dry_run", Some(true));
            return dry_run(session, &path, body).await;
        }
        let mut reply = session.write(&path, body).await?;
        if !self.in_background {
            reply = follow(session, reply, failing).await?;
        }
        session.output().reply(&reply, "")?;
        let failing = failing(&reply);
        if failing > 0 {
            return Err(CliError::Unfinished {
                what: format!("{failing} credentials are not dead yet"),
                next: "they are tried again until they are; see leasehold lease overdue".to_owned(),
            });
        }
        Ok(())
    }
}

/// A prefix as part of a path that is written to, which cannot end in a slash.
fn below(prefix: &str) -> &str {
    prefix.trim_matches('/')
}

/// Looks until no credential is pending but those that `let_be` counts.
async fn follow(
    session: &mut Session<'_>,
    mut reply: Reply,
    let_be: fn(&Reply) -> u64,
) -> Result<Reply, CliError> {
    let number = |reply: &Reply, name: &str| reply.data().get(name).and_then(Value::as_u64);
    let Some(id) = reply.text("operation_id").map(str::to_owned) else { return Ok(reply) };
    loop {
        let pending = number(&reply, "pending").unwrap_or(0);
        if pending <= let_be(&reply) {
            return Ok(reply);
        }
        let total = number(&reply, "total").unwrap_or(pending);
        session.output().progress(&format!("revoking: {pending} credentials left of {total}"))?;
        tokio::time::sleep(Duration::from_millis(LOOK_MILLIS)).await;
        let request = Request::new(Verb::Read, &format!("sys/leases/operations/{id}")).retried();
        reply = session.send(request).await?;
    }
}

fn failing(reply: &Reply) -> u64 {
    let failures = reply.data().get("failures").and_then(Value::as_array);
    failures.map_or(0, |failures| u64::try_from(failures.len()).unwrap_or(u64::MAX))
}

async fn dry_run(session: &mut Session<'_>, path: &str, body: Value) -> Result<(), CliError> {
    let reply = session.write(path, body).await?;
    let data = reply.data();
    let ids = data.get("lease_ids").and_then(Value::as_array);
    let rows: Vec<_> = ids.into_iter().flatten().map(|id| vec![table::cell(id)]).collect();
    session.output().rows(&["Lease"], &rows, data)?;
    let total = data.get("total").map(table::cell).unwrap_or_default();
    session.output().note(&format!("{total} leases; nothing was changed."))
}

impl Abandon {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        if !self.prefix {
            let reply = session.write("sys/leases/abandon", json!({ "lease_id": self.id })).await?;
            return session.output().reply(&reply, "The lease is forgotten.");
        }
        let path = format!("sys/leases/revoke-force/{}", below(&self.id));
        if self.dry_run {
            return dry_run(session, &path, json!({ "dry_run": true })).await;
        }
        let reply = session.write(&path, json!({ "sync": false })).await?;
        // What fails is given up, so none is left to be.
        let reply = follow(session, reply, |_| 0).await?;
        session.output().reply(&reply, "The leases are forgotten.")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        lease: Lease,
    }

    #[test]
    fn leases_are_chosen_in_one_way_at_a_time() {
        for args in [
            &["revoke", "id", "--mount=database"][..],
            &["revoke", "--prefix"],
            &["list", "p", "--entity=e"],
            &["list", "--role=r"],
            &["list", "--entity=e", "--mount=m"],
            &["abandon", "id", "--dry-run"],
        ] {
            assert!(Line::try_parse_from([&["x"], args].concat()).is_err(), "{args:?}");
        }
        for args in [
            &["list"][..],
            &["list", "database/"],
            &["list", "--mount=database", "--role=r", "--limit=5"],
            &["revoke", "--prefix", "database/", "--dry-run"],
            &["revoke", "--entity=e", "--async"],
        ] {
            assert!(Line::try_parse_from([&["x"], args].concat()).is_ok(), "{args:?}");
        }
    }

    #[test]
    fn a_lease_without_errors_shows_none() {
        let lease = json!({"id": "a/b", "state": "active", "ttl": 90, "role": "r",
            "attempts": 0, "revoke_error": ""});
        assert_eq!(row(&lease), ["a/b", "active", "1m30s", "r", "0", ""]);
    }
}
