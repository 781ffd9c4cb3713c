//! `leasehold demo`: the main job, end to end, on this machine, in under a minute.

mod database;
mod story;

use std::path::Path;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::ca::{Authority, Subject, TRUST_DOMAIN};
use super::dev::{Broker, Storage};
use super::error::CliError;
use super::session::Process;
use crate::client::{Client, ClientError};
use crate::server::audit_verify;
use crate::types::secret::SecretString;
use crate::types::time::{Clock, SystemClock, Ttl};
use database::Target;
use story::Story;

/// What the cron job may read, and nothing else.
const REPORT: &str = "secret/data/reports/nightly";

/// `leasehold demo`
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// A PostgreSQL server to lease credentials on, as postgres://user:password@host/database; a
    /// private one is started when PostgreSQL is installed
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
}

impl Demo {
    /// Plays the main job and says how each step went.
    ///
    /// # Errors
    /// The first step that did not hold.
    pub fn run(self, process: &mut Process) -> Result<(), CliError> {
        super::multi_threaded()?.block_on(self.play(process))
    }

    async fn play(self, process: &mut Process) -> Result<(), CliError> {
        let dir = tempfile::Builder::new()
            .prefix("leasehold-demo-")
            .tempdir()
            .map_err(CliError::system("cannot make a temporary directory"))?;
        let mut story = Story::new(&mut process.output);

        story.begin(
            "start a broker: embedded SQLite, its own throw-away CA, 2 of 3 unseal shares",
        )?;
        let (_hangup, never) = watch::channel(0);
        let started = Broker::start(dir.path(), "127.0.0.1:0", Some(Storage::Sqlite), never).await;
        let broker =
            story.outcome(started, |broker| format!("unsealed at {}", broker.address()))?;
        let told = self.tell(&broker, &mut story).await;
        let stopped = broker.stop().await;
        told?;

        story.begin("the audit: every act and every refusal in one hash chain")?;
        story.outcome(stopped.and_then(|()| verified(dir.path())), |entries| {
            format!("{entries} entries verify, none edited, removed or moved")
        })?;
        story.end()
    }

    async fn tell(&self, broker: &Broker, story: &mut Story<'_>) -> Result<(), CliError> {
        story.begin("a workload fetches a secret with nothing but its certificate")?;
        let workload = broker.client("workload")?;
        let read = workload.read("secret/data/hello").await.map_err(CliError::from);
        story.outcome(read, |reply| {
            let greeting = reply.data().pointer("/data/greeting").and_then(Value::as_str);
            format!("no login, no token: greeting = {}", greeting.unwrap_or("(none)"))
        })?;

        story.begin("a cron job asks for a token: one path, one minute")?;
        let asked = cron_token(broker).await;
        let cron = story.outcome(asked, |(_, ttl)| {
            format!("it may read {REPORT} for {ttl} s, and that is all")
        })?;
        let read = cron.0.read(REPORT).await.map_err(CliError::from);
        story.outcome(read, |_| format!("it reads {REPORT}"))?;
        let refused = must_be_refused(&cron.0, "secret/data/hello").await;
        story.outcome(refused, |said| format!("it asks for secret/data/hello: {said}"))?;

        story.begin("lease a PostgreSQL credential, use it, and let the lease end")?;
        match Target::find(self.postgres.as_deref()).await? {
            Ok(target) => target.play(broker, story).await,
            Err(reason) => {
                story.skipped(&format!("{reason}; install PostgreSQL, or give -postgres URL"))
            }
        }
    }
}

/// A client with the narrow token, and the token's lifetime in seconds.
async fn cron_token(broker: &Broker) -> Result<(Client, u64), CliError> {
    let mut admin = broker.client("admin")?;
    let report = json!({ "data": { "source": "warehouse" } });
    admin.write(REPORT, report).await?;
    admin.set_token(None);

    let subject = Subject {
        uri: Some(format!("spiffe://{TRUST_DOMAIN}/workload/nightly-report")),
        ..Subject::default()
    };
    Authority::load(broker.dir())?
        .client(&subject, Ttl::from_secs(3600), SystemClock.now())?
        .save(broker.dir(), "cron")?;
    let mut cron = broker.client("cron")?;
    let wanted = json!({ "scopes": [format!("read:{REPORT}")], "ttl": "60s", "renewable": false });
    let reply = cron.write("auth/token/create", wanted).await?;
    let auth = |name: &str| reply.body.get("auth").and_then(|auth| auth.get(name));
    let token = auth("client_token").and_then(Value::as_str).ok_or(CliError::Answer("token"))?;
    let ttl = auth("lease_duration").and_then(Value::as_u64).unwrap_or(u64::MAX);
    if ttl > 60 {
        return Err(did_not_hold(format!("the token lives {ttl} s")));
    }
    cron.set_token(Some(SecretString::new(token.to_owned())));
    Ok((cron, ttl))
}

/// What the server said when it refused.
async fn must_be_refused(client: &Client, path: &str) -> Result<String, CliError> {
    match client.read(path).await {
        Err(ClientError::Refused(refusal)) if refusal.status == 403 => Ok(refusal.to_string()),
        Err(error) => Err(error.into()),
        Ok(_) => Err(did_not_hold(format!("{path} could be read"))),
    }
}

fn did_not_hold(what: String) -> CliError {
    CliError::local(what, "this must not happen: please report it")
}

fn verified(dir: &Path) -> Result<u64, CliError> {
    let log = dir.join("audit.log");
    let report = audit_verify::verify(&[log])
        .map_err(|error| CliError::system("cannot read the audit log")(error.source))?;
    if report.is_intact() && report.lines > 0 {
        Ok(report.lines)
    } else {
        Err(did_not_hold(format!("the audit chain has {} problems", report.problems_total)))
    }
}
