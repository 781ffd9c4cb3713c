//! `sys/host-info`, `sys/in-flight-req`, `sys/ha-status`, `sys/loggers`, `sys/config/state/sanitized`:
//! the running server itself. Each speaks of the node that answers.

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use crate::core::acl::permit::Permit;
use crate::core::context::{SystemContext, SystemRoutes};
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::operation::Operation;
use crate::core::reply::{Reply, Shape};
use crate::core::route::{Answer, FieldKind, FieldSpec, RouteSpec, field, route};

/// The table.
pub struct ServerRoutes;

const READ: &[Operation] = &[Operation::Read];
const ALL: &[Operation] = &[Operation::Delete, Operation::Read, Operation::Update];

const LEVEL: &[FieldSpec] =
    &[field("level", FieldKind::Text, "`trace`, `debug`, `info`, `warn`, `error` or `off`.")];
const NUMBERS: &[FieldSpec] = &[field("*", FieldKind::Integer, "In bytes.")];
const HOST: &[FieldSpec] = &[
    field("timestamp", FieldKind::Time, "When it was looked at."),
    field(
        "host",
        FieldKind::Object(&[
            field("hostname", FieldKind::Text, "Its name."),
            field("kernelArch", FieldKind::Text, "Kind of processor."),
            field("kernelVersion", FieldKind::Text, "Release of the kernel."),
            field("load", FieldKind::Any, "Over one, five and fifteen minutes."),
            field("os", FieldKind::Text, "linux."),
            field("procs", FieldKind::Integer, "How many processes."),
            field("uptime", FieldKind::Integer, "Seconds."),
        ]),
        "What it is.",
    ),
    field("memory", FieldKind::Object(NUMBERS), "In bytes."),
    field(
        "cpu",
        FieldKind::Objects(&[
            field("cpu", FieldKind::Integer, "Its number.").or_null(),
            field("modelName", FieldKind::Text, "What it is.").or_null().if_any(),
        ]),
        "Each processor.",
    ),
    field(
        "cpu_times",
        FieldKind::Objects(&[field("*", FieldKind::Any, "`cpu`, or seconds.")]),
        "What each has spent its time with, in seconds.",
    ),
    field("disk", FieldKind::Objects(NUMBERS), "The data directory's file system, in bytes."),
];
const LEVELS: &[FieldSpec] = &[field("*", FieldKind::Text, "The level of each module.")];
const REQUESTS: &[FieldSpec] = &[field(
    "*",
    FieldKind::Object(&[
        field("client_remote_address", FieldKind::Text, "Where it comes from."),
        field("request_method", FieldKind::Text, "What it asks for."),
        field("request_path", FieldKind::Text, "Where."),
        field("start_time", FieldKind::Time, "When it came."),
    ]),
    "A request, by its id.",
)];
const NODES: &[FieldSpec] = &[field(
    "nodes",
    FieldKind::Objects(&[
        field("active_node", FieldKind::Boolean, "Always true: every node serves."),
        field("api_address", FieldKind::Text, "Empty."),
        field("cluster_address", FieldKind::Text, "Empty."),
        field("hostname", FieldKind::Text, "The machine's name.").or_null(),
        field("last_echo", FieldKind::Time, "Always null.").or_null(),
        field("version", FieldKind::Text, "Of the server."),
    ]),
    "The node that answers.",
)];
const KIND: FieldSpec = field("type", FieldKind::Text, "Its kind.");
const STATE: &[FieldSpec] = &[
    field("audit", FieldKind::Objects(&[KIND]), "The audit's sinks."),
    field("cluster_name", FieldKind::Text, "As clients see it."),
    field(
        "node_name",
        FieldKind::Text,
        "What tells it from others that share the store; empty for the default.",
    ),
    field("default_lease_ttl", FieldKind::Duration, "Of what asks for none."),
    field("disable_mlock", FieldKind::Boolean, "Whether memory may be swapped out."),
    field("enable_ui", FieldKind::Boolean, "Always false."),
    field(
        "listeners",
        FieldKind::Objects(&[
            KIND,
            field(
                "config",
                FieldKind::Object(&[
                    field("address", FieldKind::Text, "Where it listens."),
                    field("client_certificate", FieldKind::Text, "required or optional."),
                    field("name", FieldKind::Text, "Its name."),
                    field("tls_disable", FieldKind::Boolean, "Always false."),
                ]),
                "Its settings.",
            ),
        ]),
        "Where it listens.",
    ),
    field("log_format", FieldKind::Text, "How it logs."),
    field("log_level", FieldKind::Text, "What it logs."),
    field("max_lease_ttl", FieldKind::Duration, "Longest lifetime."),
    field("max_request_duration", FieldKind::Integer, "Seconds."),
    field("max_request_size", FieldKind::Integer, "Bytes."),
    field(
        "seals",
        FieldKind::Objects(&[KIND, field("disabled", FieldKind::Boolean, "Always false.")]),
        "How it is unsealed.",
    ),
    field("storage", FieldKind::Object(&[KIND]), "What kind of store it has."),
    field(
        "telemetry",
        FieldKind::Object(&[field(
            "unauthenticated_metrics",
            FieldKind::Boolean,
            "Whether anybody may read the metrics.",
        )]),
        "Who may read the metrics.",
    ),
];

static ROUTES: &[RouteSpec] = &[
    route("host-info", "host-info", "The machine that the server runs on.", READ, &[])
        .sudo()
        .reads(Answer::Data(HOST)),
    route("in-flight-req", "in-flight-req", "The requests that are being served.", READ, &[])
        .reads(Answer::Bare(REQUESTS)),
    route("ha-status", "ha-status", "The node that answers.", READ, &[]).reads(Answer::Top(NODES)),
    route("loggers", "loggers", "What is logged.", ALL, LEVEL).sudo().reads(Answer::Data(LEVELS)),
    route("logger", "loggers/:name", "What is logged of one module.", ALL, LEVEL)
        .sudo()
        .reads(Answer::Data(LEVELS)),
    route("config-state", "config/state/sanitized", "The configuration in effect.", READ, &[])
        .reads(Answer::Data(STATE)),
];

#[async_trait]
impl SystemRoutes for ServerRoutes {
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
        let process = ctx.core.process()?;
        match request.route.name {
            "host-info" => {
                let mut data = process.host();
                data.insert("timestamp".into(), json!(ctx.core.clock.now().to_rfc3339()));
                Ok(Reply::data(Value::Object(data)))
            }
            "in-flight-req" => Ok(in_flight(ctx)),
            "ha-status" => Ok(ha_status(&process.host())),
            "config-state" => Ok(Reply::data(Value::Object(process.configuration()))),
            _ => loggers(ctx, &request),
        }
    }
}

fn in_flight(ctx: &SystemContext<'_>) -> Reply {
    let mut data = Map::new();
    for one in ctx.core.in_flight.now() {
        let shown = json!({
            "start_time": one.received_at.to_rfc3339(),
            "client_remote_address": one.remote.to_string(),
            "request_path": format!("/v1/{}", one.path),
            "request_method": one.operation.as_str(),
        });
        data.insert(one.id.as_str().to_owned(), shown);
    }
    Reply::data(Value::Object(data)).shaped(Shape::Bare)
}

/// Nodes share the store and nothing else: each knows of itself alone, and serves everything.
fn ha_status(host: &Map<String, Value>) -> Reply {
    let name = host.get("host").and_then(|host| host.get("hostname"));
    let node = json!({
        "hostname": name,
        "api_address": "",
        "cluster_address": "",
        "active_node": true,
        "last_echo": null,
        "version": env!("CARGO_PKG_VERSION"),
    });
    Reply::data(json!({ "nodes": [node] })).shaped(Shape::EnvelopeAndTop)
}

fn loggers(ctx: &SystemContext<'_>, request: &EngineRequest<'_>) -> Result<Reply, CoreError> {
    let process = ctx.core.process()?;
    let name = Some(request.params.get("name")).filter(|name| !name.is_empty());
    match request.operation {
        Operation::Read | Operation::List => {
            let mut levels = process.log_levels();
            if let Some(name) = name {
                levels.retain(|module, _| module == name);
                if levels.is_empty() {
                    return Err(CoreError::NotFound);
                }
            }
            Ok(Reply::data(json!(levels)))
        }
        Operation::Delete => process.reset_log_level(name).map(|()| Reply::empty()),
        Operation::Create | Operation::Patch | Operation::Update => {
            let level = request.fields.required_text("level")?;
            process.set_log_level(name, &level).map(|()| Reply::empty())
        }
    }
}
