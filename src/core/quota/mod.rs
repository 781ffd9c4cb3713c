//! Quotas: how fast clients may ask, and how many leases may be out.
//!
//! They are stored, held compiled, and read anew when this node or another changes them. A rate limit
//! is judged in the one request path, once it is known who asks and before anything is done for it; the
//! refusal is audited as any other. Buckets are each node's own. A quota on leases is one of the caps
//! that a lease's intent is committed under, so no number of parallel requests gets past it.
//!
//! Of several rate limits that cover a path, the most specific one counts: an exact path before the
//! longest prefix, that before all of the server, and with a role before without.

pub(in crate::core) mod client;
mod pace;
mod pattern;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::types::id::NamespaceId;
use crate::types::path::ApiPath;
use crate::types::time::{Clock, Ttl};

use super::caller::{Caller, Via};
use super::error::CoreError;
use super::fields::Fields;
use super::mount::{MountClass, MountTable};
use super::name;
use super::peer::ConnectionInfo;
use super::records::{Precondition, Records, kinds};
use super::token::TokenStore;
use super::view::{Entry, View};
use pace::{Buckets, Pace};
use pattern::Pattern;

pub use pace::Allowance;

/// Most quotas of one kind.
pub const QUOTAS_MAX: usize = 256;
/// Most paths that are exempt by configuration.
pub const EXEMPT_PATHS_MAX: usize = 256;
/// Longest interval and longest block, in seconds.
pub const INTERVAL_SECS_MAX: u64 = 86_400;
/// Highest rate.
const RATE_MAX: f64 = 1_000_000.0;
/// Slowest pace: one request in a day.
const RATE_PER_DAY_MIN: f64 = 1.0;

const RATE_LIMITS: &str = "rate-limit/";
const LEASE_COUNTS: &str = "lease-count/";
const CONFIG: &str = "config";

/// What no rate limit ever slows: taking back and prolonging what is out, sealing, holding
/// revocations back or releasing them, and the quotas themselves, so that a mistaken one can be lifted.
const NEVER_LIMITED: &[&str] = &[
    "auth/token/renew",
    "auth/token/revoke",
    "sys/hold",
    "sys/leases/renew",
    "sys/leases/revoke",
    "sys/quotas/",
    "sys/renew",
    "sys/revoke",
    "sys/seal",
];

/// Who counts as one client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupBy {
    /// The identity; without one the token; without a token the certificate or the address.
    #[default]
    Client,
    /// The address.
    Ip,
    /// All together.
    None,
}

/// Whose leases are counted together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CountBy {
    /// Those of one identity, whatever it asked with; without one, those of whoever owns them.
    Entity,
    /// All of them.
    #[default]
    None,
}

/// A rate limit, as stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Where: a path, or a prefix that ends in a slash or `*`. Empty for everything.
    pub path: String,
    /// Only for callers who stand by this role; empty for all.
    pub role: String,
    /// Requests in an interval.
    pub rate: f64,
    /// The interval.
    pub interval: Ttl,
    /// How long a client is kept out that went too far; zero for no longer than it has to wait.
    pub block_interval: Ttl,
    /// Who counts as one client.
    pub group_by: GroupBy,
}

/// A quota on leases, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseCount {
    /// The mount, with its slash.
    pub path: String,
    /// Only leases of this role of the engine; empty for all.
    pub role: String,
    /// Most leases at a time, of each whom they are counted by.
    pub max_leases: u64,
    /// Whose leases are counted together.
    #[serde(default)]
    pub group_by: CountBy,
}

/// Settings of all rate limits, as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaConfig {
    /// Paths that no rate limit covers.
    pub rate_limit_exempt_paths: Vec<String>,
    /// Whether every answer under a rate limit says how much is left.
    pub enable_rate_limit_response_headers: bool,
}

struct Compiled {
    name: String,
    pattern: Pattern,
    pace: Pace,
    limit: RateLimit,
}

impl Compiled {
    /// Of several that cover a request, the greatest counts.
    fn rank(&self) -> ((u8, usize), bool, &str) {
        (self.pattern.specificity(), !self.limit.role.is_empty(), &self.name)
    }
}

#[derive(Default)]
struct InForce {
    rates: Vec<Arc<Compiled>>,
    counts: Vec<(String, LeaseCount)>,
    exempt: Vec<Pattern>,
    headers: bool,
}

/// The quotas of an unsealed server.
pub struct Quotas {
    view: View,
    mounts: Arc<MountTable>,
    clock: Arc<dyn Clock>,
    in_force: ArcSwap<InForce>,
    loading: tokio::sync::Mutex<()>,
    buckets: Buckets,
}

impl Quotas {
    /// The quotas in `records`; none is in force before [`Quotas::load`].
    pub fn new(records: Arc<Records>, mounts: Arc<MountTable>, clock: Arc<dyn Clock>) -> Self {
        Self {
            view: View::new(records, NamespaceId::ROOT, kinds::QUOTA, String::new()),
            mounts,
            clock,
            in_force: ArcSwap::default(),
            loading: tokio::sync::Mutex::new(()),
            buckets: Buckets::default(),
        }
    }

    /// Puts in force what is stored: after unseal, and when this node or another changed it.
    ///
    /// # Errors
    /// When the store fails; what was in force stays so.
    pub async fn load(&self) -> Result<(), CoreError> {
        let _one_at_a_time = self.loading.lock().await;
        let mut next = InForce::default();
        for (record, entry) in self.view.entries::<RateLimit>(RATE_LIMITS).await? {
            let limit = entry.value;
            let pattern = Pattern::parse(&limit.path)?;
            let pace = Pace::new(limit.rate, limit.interval, limit.block_interval);
            let name = record.strip_prefix(RATE_LIMITS).unwrap_or(&record).to_owned();
            next.rates.push(Arc::new(Compiled { name, pattern, pace, limit }));
        }
        for (record, entry) in self.view.entries::<LeaseCount>(LEASE_COUNTS).await? {
            let name = record.strip_prefix(LEASE_COUNTS).unwrap_or(&record).to_owned();
            next.counts.push((name, entry.value));
        }
        let config = self.config().await?;
        for path in &config.rate_limit_exempt_paths {
            next.exempt.push(Pattern::parse(path)?);
        }
        next.headers = config.enable_rate_limit_response_headers;
        self.in_force.store(Arc::new(next));
        Ok(())
    }

    /// Counts a request against the rate limit that covers it. `caller` is nobody for a path that is
    /// open to everybody, and for somebody who could not say who they are. What is left goes to
    /// `allowance`.
    ///
    /// # Errors
    /// `TooMany` when the client has used up what it may.
    pub async fn admit(
        &self,
        tokens: &TokenStore,
        path: &ApiPath,
        caller: Option<&Caller>,
        connection: &ConnectionInfo,
        allowance: &mut Option<Allowance>,
    ) -> Result<(), CoreError> {
        let in_force = self.in_force.load_full();
        let Some(quota) = in_force.covering(path, caller) else { return Ok(()) };
        let client = match quota.limit.group_by {
            GroupBy::Client => client::of(tokens, caller, connection).await?,
            GroupBy::Ip => client::address(connection),
            GroupBy::None => String::new(),
        };
        let now = self.clock.monotonic();
        let (left, refused) =
            self.buckets.take(&quota.name, &quota.pace, &client, now, in_force.headers);
        *allowance = Some(left);
        let Some(retry_after) = refused else { return Ok(()) };
        rejected(&quota.name, "rate-limit");
        Err(CoreError::TooMany {
            message: format!("request path \"{path}\": rate limit quota exceeded"),
            retry_after,
        })
    }

    /// The quotas on leases of `role` of the mount at `mount`.
    pub fn lease_counts(&self, mount: &str, role: &str) -> Vec<(String, LeaseCount)> {
        let in_force = self.in_force.load();
        let covering = in_force.counts.iter().filter(|(_, quota)| {
            quota.path == mount && (quota.role.is_empty() || quota.role == role)
        });
        covering.cloned().collect()
    }

    /// Names of the rate limits, sorted.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn rate_limits(&self) -> Result<Vec<String>, CoreError> {
        self.view.list(RATE_LIMITS).await
    }

    /// One rate limit.
    ///
    /// # Errors
    /// When the name is none, or the store fails.
    pub async fn rate_limit(&self, name: &str) -> Result<Option<RateLimit>, CoreError> {
        name::check(name)?;
        Ok(self.view.get(&format!("{RATE_LIMITS}{name}")).await?.map(|entry| entry.value))
    }

    /// Makes or changes a rate limit; what `fields` leave out stays.
    ///
    /// # Errors
    /// `Invalid`, naming the field.
    pub async fn set_rate_limit(&self, name: &str, fields: &Fields) -> Result<(), CoreError> {
        name::check(name)?;
        let record = format!("{RATE_LIMITS}{name}");
        let before = self.view.get_fresh::<RateLimit>(&record).await?;
        let precondition = self.precondition(before.as_ref().map(|b| b.rev), RATE_LIMITS).await?;
        let before = before.map(|entry| entry.value);
        let rate = match (rate(fields)?, &before) {
            (Some(rate), _) => rate,
            (None, Some(before)) => before.rate,
            (None, None) => return Err(CoreError::field("rate", "is required")),
        };
        let kept = before.unwrap_or(RateLimit {
            path: String::new(),
            role: String::new(),
            rate,
            interval: Ttl::from_secs(1),
            block_interval: Ttl::ZERO,
            group_by: GroupBy::default(),
        });
        let limit = RateLimit {
            path: self.path(fields)?.unwrap_or(kept.path),
            role: fields.text("role")?.unwrap_or(kept.role),
            rate,
            interval: interval(fields, "interval", 1)?.unwrap_or(kept.interval),
            block_interval: interval(fields, "block_interval", 0)?.unwrap_or(kept.block_interval),
            group_by: group_by(fields)?.unwrap_or(kept.group_by),
        };
        if limit.rate * (INTERVAL_SECS_MAX as f64)
            < RATE_PER_DAY_MIN * limit.interval.as_secs() as f64
        {
            return Err(CoreError::field("rate", "allows less than one request in a day"));
        }
        self.view.write(&record, &limit, precondition).await?;
        self.load().await
    }

    /// Names of the quotas on leases, sorted.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn lease_count_names(&self) -> Result<Vec<String>, CoreError> {
        self.view.list(LEASE_COUNTS).await
    }

    /// One quota on leases.
    ///
    /// # Errors
    /// When the name is none, or the store fails.
    pub async fn lease_count(&self, name: &str) -> Result<Option<LeaseCount>, CoreError> {
        name::check(name)?;
        Ok(self.view.get(&format!("{LEASE_COUNTS}{name}")).await?.map(|entry| entry.value))
    }

    /// Makes or changes a quota on leases; what `fields` leave out stays.
    ///
    /// # Errors
    /// `Invalid`, naming the field.
    pub async fn set_lease_count(&self, name: &str, fields: &Fields) -> Result<(), CoreError> {
        name::check(name)?;
        let record = format!("{LEASE_COUNTS}{name}");
        let before = self.view.get_fresh::<LeaseCount>(&record).await?;
        let precondition = self.precondition(before.as_ref().map(|b| b.rev), LEASE_COUNTS).await?;
        let before = before.map(|entry| entry.value);
        let max_leases = match (fields.integer("max_leases")?, &before) {
            (Some(0), _) => return Err(CoreError::field("max_leases", "must be 1 or more")),
            (Some(max), _) => max,
            (None, Some(before)) => before.max_leases,
            (None, None) => return Err(CoreError::field("max_leases", "is required")),
        };
        let path = match (self.path(fields)?, &before) {
            (Some(path), _) => path,
            (None, Some(before)) => before.path.clone(),
            (None, None) => return Err(CoreError::field("path", "is required")),
        };
        let mounted = self.mounts.at(&path);
        if mounted.is_none_or(|mounted| mounted.entry.class != MountClass::Secret) {
            return Err(CoreError::field("path", "must be that of a mounted secrets engine"));
        }
        let (role, kept) = before.map(|before| (before.role, before.group_by)).unwrap_or_default();
        let quota = LeaseCount {
            path,
            role: fields.text("role")?.unwrap_or(role),
            max_leases,
            group_by: count_by(fields)?.unwrap_or(kept),
        };
        self.view.write(&record, &quota, precondition).await?;
        self.load().await
    }

    /// Removes a rate limit.
    ///
    /// # Errors
    /// When the name is none, or the store fails.
    pub async fn remove_rate_limit(&self, name: &str) -> Result<(), CoreError> {
        name::check(name)?;
        self.view.remove(&format!("{RATE_LIMITS}{name}")).await?;
        self.load().await
    }

    /// Removes a quota on leases.
    ///
    /// # Errors
    /// When the name is none, or the store fails.
    pub async fn remove_lease_count(&self, name: &str) -> Result<(), CoreError> {
        name::check(name)?;
        self.view.remove(&format!("{LEASE_COUNTS}{name}")).await?;
        self.load().await
    }

    /// Settings of all rate limits.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn config(&self) -> Result<QuotaConfig, CoreError> {
        let config = self.view.get_fresh::<QuotaConfig>(CONFIG).await?;
        Ok(config.map(|entry| entry.value).unwrap_or_default())
    }

    /// Changes them; what `fields` leave out stays.
    ///
    /// # Errors
    /// `Invalid`, naming the field.
    pub async fn set_config(&self, fields: &Fields) -> Result<(), CoreError> {
        let before = self.view.get_fresh::<QuotaConfig>(CONFIG).await?;
        let precondition = Entry::expected(before.as_ref());
        let mut config = before.map(|entry| entry.value).unwrap_or_default();
        if let Some(paths) = fields.list("rate_limit_exempt_paths")? {
            let field = |problem| CoreError::field("rate_limit_exempt_paths", problem);
            if paths.len() > EXEMPT_PATHS_MAX {
                return Err(field("has more than 256 paths".to_owned()));
            }
            for path in &paths {
                match Pattern::parse(path) {
                    Ok(Pattern::All) => return Err(field("has an empty path".to_owned())),
                    Ok(_) => {}
                    Err(error) => return Err(field(format!("has a path that is none: {error}"))),
                }
            }
            config.rate_limit_exempt_paths = paths;
        }
        if let Some(headers) = fields.boolean("enable_rate_limit_response_headers")? {
            config.enable_rate_limit_response_headers = headers;
        }
        self.view.write(CONFIG, &config, precondition).await?;
        self.load().await
    }

    /// What a write expects to find; refuses one more than there may be.
    async fn precondition(&self, rev: Option<u64>, dir: &str) -> Result<Precondition, CoreError> {
        match rev {
            Some(rev) => Ok(Precondition::Rev(rev)),
            None if self.view.list(dir).await?.len() >= QUOTAS_MAX => {
                Err(CoreError::invalid("there are 256 quotas of that kind, which is the most"))
            }
            None => Ok(Precondition::Absent),
        }
    }

    /// The path in `fields`, in its one spelling: a mount ends in a slash.
    fn path(&self, fields: &Fields) -> Result<Option<String>, CoreError> {
        let Some(path) = fields.text("path")? else { return Ok(None) };
        Pattern::parse(&path).map_err(|error| CoreError::field("path", error.to_string()))?;
        let dir = format!("{path}/");
        Ok(Some(if self.mounts.at(&dir).is_some() { dir } else { path }))
    }
}

impl InForce {
    /// The most specific rate limit that covers the request.
    fn covering(&self, path: &ApiPath, caller: Option<&Caller>) -> Option<Arc<Compiled>> {
        if self.rates.is_empty() || NEVER_LIMITED.iter().any(|p| path.as_str().starts_with(p)) {
            return None;
        }
        let covering = self.rates.iter().filter(|quota| {
            quota.pattern.covers(path) && (quota.limit.role.is_empty() || stands_by(caller, quota))
        });
        let found = covering.max_by(|one, other| one.rank().cmp(&other.rank()))?;
        let exempt = self.exempt.iter().any(|pattern| pattern.covers(path));
        (!exempt).then(|| found.clone())
    }
}

/// Whether the caller stands by the role of the quota.
fn stands_by(caller: Option<&Caller>, quota: &Compiled) -> bool {
    let role = Some(quota.limit.role.as_str());
    match caller.map(|caller| &caller.via) {
        Some(Via::Certificate { grant, .. }) => role == Some(grant.role.as_str()),
        Some(Via::Token(token)) => {
            role == token.entry.role.as_deref() || role == token.entry.auth_role.as_deref()
        }
        Some(Via::Nobody) | None => false,
    }
}

/// Counts a refusal by a quota.
pub(in crate::core) fn rejected(quota: &str, kind: &'static str) {
    let quota = quota.to_owned();
    metrics::counter!("leasehold_quota_rejected_total", "quota" => quota, "type" => kind)
        .increment(1);
}

fn rate(fields: &Fields) -> Result<Option<f64>, CoreError> {
    let Some(value) = fields.get("rate") else { return Ok(None) };
    let rate: Option<f64> = match value {
        Value::Number(number) => number.to_string().parse().ok(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    match rate {
        Some(rate) if rate > 0.0 && rate <= RATE_MAX => Ok(Some(rate)),
        Some(_) | None => {
            Err(CoreError::field("rate", "must be a number above zero, and at most a million"))
        }
    }
}

fn interval(fields: &Fields, field: &str, min: u64) -> Result<Option<Ttl>, CoreError> {
    match fields.duration(field)? {
        Some(ttl) if !(min..=INTERVAL_SECS_MAX).contains(&ttl.as_secs()) => {
            Err(CoreError::field(field, format!("must be {min} seconds to one day")))
        }
        given => Ok(given),
    }
}

fn group_by(fields: &Fields) -> Result<Option<GroupBy>, CoreError> {
    match fields.text("group_by")?.as_deref() {
        None => Ok(None),
        Some("" | "client") => Ok(Some(GroupBy::Client)),
        Some("ip") => Ok(Some(GroupBy::Ip)),
        Some("none") => Ok(Some(GroupBy::None)),
        Some(_) => Err(CoreError::field("group_by", "must be client, ip or none")),
    }
}

fn count_by(fields: &Fields) -> Result<Option<CountBy>, CoreError> {
    match fields.text("group_by")?.as_deref() {
        None => Ok(None),
        Some("" | "none") => Ok(Some(CountBy::None)),
        Some("entity") => Ok(Some(CountBy::Entity)),
        Some(_) => Err(CoreError::field("group_by", "must be none or entity")),
    }
}
