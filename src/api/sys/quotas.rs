//! `sys/quotas`.

use async_trait::async_trait;
use serde_json::json;

use crate::core::acl::permit::Permit;
use crate::core::context::{SystemContext, SystemRoutes};
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::operation::Operation::{self, Create, Delete, List, Read, Update};
use crate::core::quota::{LeaseCount, RateLimit};
use crate::core::reply::Reply;
use crate::core::route::FieldKind::{Boolean, Duration, Integer, List as ListOf, Number, Text};
use crate::core::route::{Answer, FieldSpec, Params, RouteSpec, field, route};

/// The table.
pub struct QuotaRoutes;

const CONFIG: &str = "quota-config";
const RATE_LIMITS: &str = "rate-limit-list";
const RATE_LIMIT: &str = "rate-limit";
const LEASE_COUNTS: &str = "lease-count-list";
const LEASE_COUNT: &str = "lease-count";

const INHERITABLE: FieldSpec =
    field("inheritable", Boolean, "Accepted without effect: there is one namespace.");
const KIND: FieldSpec = field("type", Text, "Accepted without effect: the path says it.");

const RATE_FIELDS: &[FieldSpec] = &[
    field("path", Text, "A mount, a path, or a prefix that ends in *; empty for everything."),
    field("role", Text, "Only callers who stand by this role."),
    field("rate", Number, "Requests in an interval; above zero."),
    field("interval", Duration, "The interval (default 1s)."),
    field("block_interval", Duration, "How long a client is kept out that went too far."),
    field("group_by", Text, "Who is one client: client (default), ip or none."),
    INHERITABLE,
    KIND,
];
const COUNT_FIELDS: &[FieldSpec] = &[
    field("path", Text, "The mount of a secrets engine."),
    field("role", Text, "Only leases of this role of the engine."),
    field("max_leases", Integer, "Most leases at a time."),
    field(
        "group_by",
        Text,
        "Whom they are counted by: none (default), or entity for each identity.",
    ),
    INHERITABLE,
    KIND,
];
const CONFIG_FIELDS: &[FieldSpec] = &[
    field("rate_limit_exempt_paths", ListOf, "Paths that no rate limit covers."),
    field("enable_rate_limit_response_headers", Boolean, "Say with each answer what is left."),
    field("enable_rate_limit_audit_logging", Boolean, "Always on: every refusal is audited."),
];
const ALL: &[Operation] = &[Create, Delete, Read, Update];

static ROUTES: &[RouteSpec] = &[
    route(CONFIG, "quotas/config", "Settings of all rate limits.", &[Read, Update], CONFIG_FIELDS)
        .reads(Answer::Data(CONFIG_FIELDS)),
    route(RATE_LIMITS, "quotas/rate-limit", "Names of the rate limits.", &[List], &[]),
    route(RATE_LIMIT, "quotas/rate-limit/:name", "How fast clients may ask.", ALL, RATE_FIELDS)
        .reads(Answer::Data(RATE_SHOWN)),
    route(LEASE_COUNTS, "quotas/lease-count", "Names of the quotas on leases.", &[List], &[]),
    route(LEASE_COUNT, "quotas/lease-count/:name", "How many leases may be.", ALL, COUNT_FIELDS)
        .reads(Answer::Data(COUNT_SHOWN)),
];

const RATE_SHOWN: &[FieldSpec] = &[
    field("block_interval", Duration, "How long a client is kept out that went too far."),
    field("group_by", Text, "Who is one client."),
    field("inheritable", Boolean, "Always true."),
    field("interval", Duration, "The interval."),
    field("name", Text, "Its name."),
    field("path", Text, "What it is for; empty for everything."),
    field("rate", Number, "Requests in an interval."),
    field("role", Text, "The role that it is for; empty for all."),
    field("type", Text, "rate-limit."),
];
const COUNT_SHOWN: &[FieldSpec] = &[
    field("counter", Integer, "How many leases there are, whoever has them."),
    field("group_by", Text, "Whom they are counted by."),
    field("inheritable", Boolean, "Always true."),
    field("max_leases", Integer, "Most leases at a time."),
    field("name", Text, "Its name."),
    field("path", Text, "The mount."),
    field("role", Text, "The role that it is for; empty for all."),
    field("type", Text, "lease-count."),
];

#[async_trait]
impl SystemRoutes for QuotaRoutes {
    fn prefix(&self) -> &'static str {
        "sys/"
    }

    fn routes(&self) -> &'static [RouteSpec] {
        ROUTES
    }

    async fn exists(
        &self,
        ctx: &SystemContext<'_>,
        route: &'static RouteSpec,
        params: &Params<'_>,
    ) -> Result<Option<bool>, CoreError> {
        let (quotas, name) = (&ctx.unsealed.quotas, params.get("name"));
        let exists = match route.name {
            RATE_LIMIT => quotas.rate_limit(name).await.map(|quota| quota.is_some()),
            LEASE_COUNT => quotas.lease_count(name).await.map(|quota| quota.is_some()),
            _ => return Ok(None),
        };
        match exists {
            Ok(exists) => Ok(Some(exists)),
            // A name that cannot be is refused when it is written, not while it is judged who may.
            Err(CoreError::Field(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn handle(
        &self,
        ctx: &SystemContext<'_>,
        _permit: &Permit,
        request: EngineRequest<'_>,
    ) -> Result<Reply, CoreError> {
        let quotas = &ctx.unsealed.quotas;
        let (name, fields) = (request.params.get("name"), &request.fields);
        match (request.route.name, request.operation) {
            (CONFIG, Read) => {
                let config = quotas.config().await?;
                Ok(Reply::data(json!({
                    "rate_limit_exempt_paths": config.rate_limit_exempt_paths,
                    "enable_rate_limit_response_headers": config.enable_rate_limit_response_headers,
                    "enable_rate_limit_audit_logging": true,
                })))
            }
            (CONFIG, Create | Update) => {
                let audited = fields.boolean("enable_rate_limit_audit_logging")?;
                quotas.set_config(fields).await?;
                Ok(match audited {
                    Some(false) => Reply::empty().warn("refusals are in the audit all the same"),
                    Some(true) | None => Reply::empty(),
                })
            }
            (RATE_LIMITS, List) => names(quotas.rate_limits().await?),
            (RATE_LIMIT, Read) => {
                let quota = quotas.rate_limit(name).await?.ok_or(CoreError::NotFound)?;
                Ok(rate_limit(name, &quota))
            }
            (RATE_LIMIT, Create | Update) => {
                quotas.set_rate_limit(name, fields).await.map(|()| Reply::empty())
            }
            (RATE_LIMIT, Delete) => quotas.remove_rate_limit(name).await.map(|()| Reply::empty()),
            (LEASE_COUNTS, List) => names(quotas.lease_count_names().await?),
            (LEASE_COUNT, Read) => {
                let quota = quotas.lease_count(name).await?.ok_or(CoreError::NotFound)?;
                let counter = ctx.unsealed.leases.count_under(&quota).await?;
                Ok(lease_count(name, &quota, counter))
            }
            (LEASE_COUNT, Create | Update) => {
                quotas.set_lease_count(name, fields).await.map(|()| Reply::empty())
            }
            (LEASE_COUNT, Delete) => quotas.remove_lease_count(name).await.map(|()| Reply::empty()),
            _ => Err(CoreError::Unsupported),
        }
    }
}

fn names(names: Vec<String>) -> Result<Reply, CoreError> {
    Reply::listing(names)
}

fn rate_limit(name: &str, quota: &RateLimit) -> Reply {
    Reply::data(json!({
        "name": name,
        "type": "rate-limit",
        "path": quota.path,
        "role": quota.role,
        "rate": quota.rate,
        "interval": quota.interval.as_secs(),
        "block_interval": quota.block_interval.as_secs(),
        "group_by": quota.group_by,
        "inheritable": true,
    }))
}

/// `counter` is how many leases there are.
fn lease_count(name: &str, quota: &LeaseCount, counter: u64) -> Reply {
    Reply::data(json!({
        "name": name,
        "type": "lease-count",
        "path": quota.path,
        "role": quota.role,
        "max_leases": quota.max_leases,
        "group_by": quota.group_by,
        "counter": counter,
        "inheritable": true,
    }))
}
