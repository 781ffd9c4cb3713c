//! `sys/audit` and `sys/audit-hash`: where the audit goes, and how to search it. Sinks come and go by
//! the configuration alone: whoever holds a token cannot make the server write files.

use async_trait::async_trait;
use serde_json::{Map, json};

use crate::core::acl::permit::Permit;
use crate::core::audit::broker::SinkStatus;
use crate::core::audit::redact::Redaction;
use crate::core::context::{SystemContext, SystemRoutes};
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::operation::Operation;
use crate::core::reply::{Reply, Shape};
use crate::core::route::{Answer, FieldKind, FieldSpec, RouteSpec, field, route};

/// The table.
pub struct AuditRoutes;

static ROUTES: &[RouteSpec] = &[
    route("audit", "audit", "The sinks of the audit, and how they do.", &[Operation::Read], &[])
        .sudo()
        .reads(Answer::Top(&[field("*", FieldKind::Object(SINK), "One sink, by its path.")])),
    route(
        "audit-hash",
        "audit-hash/*path",
        "What a text looks like in the audit.",
        &[Operation::Update],
        &[field("input", FieldKind::Secret, "The text.")],
    )
    .writes(Answer::Top(&[field("hash", FieldKind::Text, "hmac-sha256: and the hash.")])),
];

const SINK: &[FieldSpec] = &[
    field("description", FieldKind::Text, "Always empty."),
    field("healthy", FieldKind::Boolean, "Whether it takes entries."),
    field("last_entry", FieldKind::Integer, "The number of its last entry.").or_null(),
    field("local", FieldKind::Boolean, "Always false."),
    field("options", FieldKind::Map, "Always empty: they are in the configuration."),
    field("path", FieldKind::Text, "Its name."),
    field("pending", FieldKind::Integer, "Entries that are not written yet."),
    field("type", FieldKind::Text, "Its kind."),
];

#[async_trait]
impl SystemRoutes for AuditRoutes {
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
        let sinks = ctx.core.audit.sinks();
        if request.route.name == "audit" {
            return Ok(listing(&sinks));
        }
        let path = request.params.get("path");
        if !sinks.iter().any(|sink| sink.name == path.trim_end_matches('/')) {
            return Err(CoreError::invalid("there is no audit sink of that name"));
        }
        let input = request.fields.secret("input")?;
        let input = input.ok_or_else(|| CoreError::field("input", "is required"))?;
        // One key serves every sink, so the name decides nothing but whether there is one.
        let hash = Redaction::new(&ctx.unsealed.audit_key).text(input.expose());
        Ok(Reply::data(json!({ "hash": hash })).shaped(Shape::EnvelopeAndTop))
    }
}

fn listing(sinks: &[SinkStatus]) -> Reply {
    let mut data = Map::new();
    for sink in sinks {
        let path = format!("{}/", sink.name);
        let shown = json!({
            "type": "file",
            "path": path,
            "description": "",
            "local": false,
            "options": {},
            "healthy": sink.healthy,
            "pending": sink.pending,
            "last_entry": sink.head.map(|head| head.seq),
        });
        data.insert(path, shown);
    }
    Reply::data(data.into()).shaped(Shape::EnvelopeAndTop)
}
