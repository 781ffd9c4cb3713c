//! `leasehold quota`.

use serde_json::{Map, Value};

use super::error::CliError;
use super::session::Session;

/// Subcommands of `leasehold quota`.
#[derive(Debug, clap::Subcommand)]
pub enum Quota {
    /// How fast clients may ask
    #[command(subcommand)]
    RateLimit(RateLimit),
    /// How many leases there may be
    #[command(subcommand)]
    LeaseCount(LeaseCount),
}

/// Subcommands of `leasehold quota rate-limit`.
#[derive(Debug, clap::Subcommand)]
pub enum RateLimit {
    /// List the rate limits
    List,
    /// Show a rate limit
    Read(Named),
    /// Make a rate limit, or change what is given
    Create(Rate),
    /// Remove a rate limit
    Delete(Named),
}

/// Subcommands of `leasehold quota lease-count`.
#[derive(Debug, clap::Subcommand)]
pub enum LeaseCount {
    /// List the quotas on leases
    List,
    /// Show a quota on leases, and how many there are
    Read(Named),
    /// Make a quota on leases, or change what is given
    Create(Count),
    /// Remove a quota on leases
    Delete(Named),
}

/// A quota by its name.
#[derive(Debug, clap::Args)]
pub struct Named {
    /// Its name
    name: String,
}

/// `leasehold quota rate-limit create`
#[derive(Debug, clap::Args)]
pub struct Rate {
    /// Its name
    name: String,
    /// A mount, a path, or a prefix that ends in *; everything when it is left out
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Only callers who stand by this role
    #[arg(long, value_name = "NAME")]
    role: Option<String>,
    /// Requests in an interval
    #[arg(long, value_name = "NUMBER")]
    rate: Option<String>,
    /// The interval [default: 1s]
    #[arg(long, value_name = "DURATION")]
    interval: Option<String>,
    /// How long a client is kept out that went too far
    #[arg(long, value_name = "DURATION")]
    block_interval: Option<String>,
    /// Who is one client: client, ip or none
    #[arg(long, value_name = "WHO")]
    group_by: Option<String>,
}

/// `leasehold quota lease-count create`
#[derive(Debug, clap::Args)]
pub struct Count {
    /// Its name
    name: String,
    /// The mount of a secrets engine
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Only leases of this role of the engine
    #[arg(long, value_name = "NAME")]
    role: Option<String>,
    /// Most leases at a time
    #[arg(long, value_name = "NUMBER")]
    max_leases: Option<u64>,
    /// Whom they are counted by: none, or entity for each identity
    #[arg(long, value_name = "WHO")]
    group_by: Option<String>,
}

const RATE_LIMITS: &str = "sys/quotas/rate-limit";
const LEASE_COUNTS: &str = "sys/quotas/lease-count";

impl Quota {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        match self {
            Self::RateLimit(RateLimit::List) => list(session, RATE_LIMITS).await,
            Self::RateLimit(RateLimit::Read(one)) => read(session, RATE_LIMITS, &one).await,
            Self::RateLimit(RateLimit::Delete(one)) => delete(session, RATE_LIMITS, &one).await,
            Self::RateLimit(RateLimit::Create(rate)) => {
                let given = [
                    ("path", rate.path),
                    ("role", rate.role),
                    ("rate", rate.rate),
                    ("interval", rate.interval),
                    ("block_interval", rate.block_interval),
                    ("group_by", rate.group_by),
                ];
                create(session, RATE_LIMITS, &rate.name, given).await
            }
            Self::LeaseCount(LeaseCount::List) => list(session, LEASE_COUNTS).await,
            Self::LeaseCount(LeaseCount::Read(one)) => read(session, LEASE_COUNTS, &one).await,
            Self::LeaseCount(LeaseCount::Delete(one)) => delete(session, LEASE_COUNTS, &one).await,
            Self::LeaseCount(LeaseCount::Create(count)) => {
                let given = [
                    ("path", count.path),
                    ("role", count.role),
                    ("max_leases", count.max_leases.map(|most| most.to_string())),
                    ("group_by", count.group_by),
                ];
                create(session, LEASE_COUNTS, &count.name, given).await
            }
        }
    }
}

async fn list(session: &mut Session<'_>, at: &str) -> Result<(), CliError> {
    let reply = session.list(at).await?;
    session.output().keys(&reply)
}

async fn read(session: &mut Session<'_>, at: &str, one: &Named) -> Result<(), CliError> {
    let reply = session.read(&format!("{at}/{}", one.name)).await?;
    session.output().reply(&reply, "")
}

async fn create<const N: usize>(
    session: &mut Session<'_>,
    at: &str,
    name: &str,
    given: [(&str, Option<String>); N],
) -> Result<(), CliError> {
    let given = given.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let body: Map<String, Value> =
        given.map(|(name, value)| (name.to_owned(), Value::String(value))).collect();
    let reply = session.write(&format!("{at}/{name}"), Value::Object(body)).await?;
    session.output().reply(&reply, &format!("The quota {name} is in force."))
}

async fn delete(session: &mut Session<'_>, at: &str, one: &Named) -> Result<(), CliError> {
    let reply = session.delete(&format!("{at}/{}", one.name)).await?;
    session.output().reply(&reply, &format!("The quota {} is gone.", one.name))
}
