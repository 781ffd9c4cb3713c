//! `sys/internal/counters/…` and `sys/version-history`: numbers about the installation.
//!
//! Only what is known is told. Who was active in which month is not recorded, so `activity` has no
//! data, and `config` says so, as servers do that do not count clients.

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use crate::core::acl::permit::Permit;
use crate::core::context::{SystemContext, SystemRoutes};
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::operation::Operation;
use crate::core::reply::Reply;
use crate::core::route::{Answer, FieldKind, FieldSpec, RouteSpec, field, route};
use crate::core::versions;

/// The table.
pub struct CounterRoutes;

const READ: &[Operation] = &[Operation::Read];
const LIST: &[Operation] = &[Operation::List];

const TOTAL: &[FieldSpec] = &[field("total", FieldKind::Integer, "How many.")];
const COUNTED: &str = "What was counted.";
const TOKENS: &[FieldSpec] = &[field(
    "counters",
    FieldKind::Object(&[field(
        "service_tokens",
        FieldKind::Object(TOTAL),
        "Tokens that are stored and have not expired.",
    )]),
    COUNTED,
)];
const ENTITIES: &[FieldSpec] = &[field(
    "counters",
    FieldKind::Object(&[field("entities", FieldKind::Object(TOTAL), "Stored entities.")]),
    COUNTED,
)];
const REQUESTS: &[FieldSpec] = &[field(
    "counters",
    FieldKind::Objects(&[
        field("start_time", FieldKind::Time, "When this node was started."),
        field("total", FieldKind::Integer, "Requests that it has begun to serve since."),
    ]),
    COUNTED,
)];
const CONFIG: &[FieldSpec] = &[
    field("default_report_months", FieldKind::Integer, "Always 0."),
    field("enabled", FieldKind::Text, "Always `disable`."),
    field("minimum_retention_months", FieldKind::Integer, "Always 0."),
    field("queries_available", FieldKind::Boolean, "Always false."),
    field("reporting_enabled", FieldKind::Boolean, "Always false."),
    field("retention_months", FieldKind::Integer, "Always 0."),
];
const PERIOD: &[FieldSpec] = &[
    field("start_time", FieldKind::Any, "Without effect."),
    field("end_time", FieldKind::Any, "Without effect."),
    field("limit_namespaces", FieldKind::Integer, "Without effect."),
];
const HISTORY: &[FieldSpec] = &[field(
    "key_info",
    FieldKind::Object(&[field(
        "*",
        FieldKind::Object(&[
            field("build_date", FieldKind::Time, "Always null.").or_null(),
            field("previous_version", FieldKind::Text, "The one before.").or_null(),
            field("timestamp_installed", FieldKind::Time, "When it was first unsealed."),
        ]),
        "One version.",
    )]),
    "Each version.",
)];

static ROUTES: &[RouteSpec] = &[
    route("counted-requests", "internal/counters/requests", "Requests of this node.", READ, &[])
        .reads(Answer::Data(REQUESTS)),
    route("counted-tokens", "internal/counters/tokens", "Tokens that there are.", READ, &[])
        .reads(Answer::Data(TOKENS)),
    route("counted-entities", "internal/counters/entities", "Stored entities.", READ, &[])
        .reads(Answer::Data(ENTITIES)),
    route("activity", "internal/counters/activity", "Active clients: no data.", READ, PERIOD)
        .reads(Answer::Maybe(&[])),
    route(
        "activity-monthly",
        "internal/counters/activity/monthly",
        "Active clients of this month: no data.",
        READ,
        &[],
    )
    .reads(Answer::Maybe(&[])),
    route("activity-config", "internal/counters/config", "That no clients are counted.", READ, &[])
        .reads(Answer::Data(CONFIG)),
    route("versions", "version-history", "Versions that have opened the store.", LIST, &[])
        .lists(Answer::Keys(HISTORY)),
];

#[async_trait]
impl SystemRoutes for CounterRoutes {
    fn prefix(&self) -> &'static str {
        "sys/"
    }

    fn routes(&self) -> &'static [RouteSpec] {
        ROUTES
    }

    async fn handle(
        &self,
        ctx: &SystemContext<'_>,
        _permit: &Permit,
        request: EngineRequest<'_>,
    ) -> Result<Reply, CoreError> {
        let core = ctx.core;
        let data = match request.route.name {
            "counted-requests" => json!({ "counters": [{
                "start_time": core.started_at.to_rfc3339(),
                "total": core.in_flight.entered(),
            }] }),
            "counted-tokens" => {
                let total = ctx.unsealed.tokens.count().await?;
                json!({ "counters": { "service_tokens": { "total": total } } })
            }
            "counted-entities" => {
                let total = ctx.unsealed.identity.count().await?;
                json!({ "counters": { "entities": { "total": total } } })
            }
            "activity-config" => json!({
                "default_report_months": 0,
                "enabled": "disable",
                "minimum_retention_months": 0,
                "queries_available": false,
                "reporting_enabled": false,
                "retention_months": 0,
            }),
            "versions" => history(ctx).await?,
            _ => return Ok(Reply::empty()),
        };
        Ok(Reply::data(data))
    }
}

async fn history(ctx: &SystemContext<'_>) -> Result<Value, CoreError> {
    let all = versions::history(ctx.unsealed).await?;
    let mut previous: Option<&str> = None;
    let (mut keys, mut info) = (Vec::new(), Map::new());
    for one in &all {
        let shown = json!({
            "build_date": null,
            "previous_version": previous,
            "timestamp_installed": one.since.to_rfc3339(),
        });
        keys.push(one.version.as_str());
        info.insert(one.version.clone(), shown);
        previous = Some(&one.version);
    }
    Ok(json!({ "keys": keys, "key_info": info }))
}
