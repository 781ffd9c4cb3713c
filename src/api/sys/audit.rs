//! `sys/audit` and `sys/audit-hash`: where the audit goes, and how to search it. Sinks come and go by
//! the configuration alone: whoever holds a token cannot make the server write files, or stop
//! recording. Clients that declare what should be there are told whether it is.

use async_trait::async_trait;
use serde_json::{Map, json};

use crate::core::acl::permit::Permit;
use crate::core::audit::broker::SinkStatus;
use crate::core::audit::redact::Redaction;
use crate::core::context::{SystemContext, SystemRoutes};
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
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
        "audit-sink",
        "audit/*path",
        "Whether the configuration has that sink; it cannot be added or taken away here.",
        &[Operation::Delete, Operation::Update],
        &[
            field("type", FieldKind::Text, "Only `file`."),
            field("description", FieldKind::Text, "Accepted for compatibility."),
            field("options", FieldKind::Map, "`file_path`, as the configuration says it."),
            field("local", FieldKind::Boolean, "Accepted for compatibility."),
        ],
    )
    .sudo(),
    route(
        "audit-hash",
        "audit-hash/*path",
        "What a text looks like in the audit.",
        &[Operation::Update],
        &[field("input", FieldKind::Secret, "The text.")],
    )
    .writes(Answer::Top(&[field("hash", FieldKind::Text, "hmac-sha256: and the hash.")])),
];

const OPTIONS: &[FieldSpec] = &[field("file_path", FieldKind::Text, "Where the log is.")];
const SINK: &[FieldSpec] = &[
    field("description", FieldKind::Text, "Always empty."),
    field("healthy", FieldKind::Boolean, "Whether it takes entries."),
    field("last_entry", FieldKind::Integer, "The number of its last entry.").or_null(),
    field("local", FieldKind::Boolean, "Always false."),
    field("options", FieldKind::Object(OPTIONS), "As the configuration says."),
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
        if path.is_empty() {
            return Err(CoreError::Unsupported);
        }
        let sink = sinks.iter().find(|sink| sink.name == path.trim_end_matches('/'));
        if request.route.name == "audit-sink" {
            return if request.operation == Operation::Delete {
                removed(sink)
            } else {
                declared(sink, &request.fields)
            };
        }
        if sink.is_none() {
            return Err(CoreError::invalid("there is no audit sink of that name"));
        }
        let input = request.fields.secret("input")?;
        let input = input.ok_or_else(|| CoreError::field("input", "is required"))?;
        // One key serves every sink, so the name decides nothing but whether there is one.
        let hash = Redaction::new(&ctx.unsealed.audit_key).text(input.expose());
        Ok(Reply::data(json!({ "hash": hash })).shaped(Shape::EnvelopeAndTop))
    }
}

/// Done already, or refused: the configuration decides.
fn declared(sink: Option<&SinkStatus>, fields: &Fields) -> Result<Reply, CoreError> {
    if fields.required_text("type")? != "file" {
        return Err(CoreError::field("type", "must be \"file\""));
    }
    let Some(sink) = sink else {
        return Err(CoreError::invalid(
            "the configuration has no audit sink of that name, and sinks cannot be added here: add \
             an [[audit]] section with that name, and start the server again",
        ));
    };
    let options = fields.string_map("options")?.unwrap_or_default();
    let file = options.get("file_path").or_else(|| options.get("path"));
    if file.is_some_and(|file| *file != sink.target) {
        return Err(CoreError::field("options", "names another file than the configuration"));
    }
    Ok(Reply::empty())
}

fn removed(sink: Option<&SinkStatus>) -> Result<Reply, CoreError> {
    match sink {
        None => Ok(Reply::empty()),
        Some(_) => Err(CoreError::invalid(
            "an audit sink cannot be taken away here: remove its [[audit]] section from the \
             configuration, and start the server again",
        )),
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
            "options": { "file_path": sink.target },
            "healthy": sink.healthy,
            "pending": sink.pending,
            "last_entry": sink.head.map(|head| head.seq),
        });
        data.insert(path, shown);
    }
    Reply::data(data.into()).shaped(Shape::EnvelopeAndTop)
}
