//! `sys/plugins/catalog`: what can be mounted. All of it is built in; nothing can be added.

use async_trait::async_trait;
use serde_json::json;

use crate::core::acl::permit::Permit;
use crate::core::context::{SystemContext, SystemRoutes};
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::mount::Registry;
use crate::core::operation::Operation;
use crate::core::reply::Reply;
use crate::core::route::{Answer, FieldKind, FieldSpec, RouteSpec, field, route};

/// The table.
pub struct PluginRoutes;

const READ_LIST: &[Operation] = &[Operation::List, Operation::Read];

const ALL: &[FieldSpec] = &[
    field("auth", FieldKind::List, "Auth methods."),
    field("database", FieldKind::List, "What the `database` engine connects to."),
    field("detailed", FieldKind::Objects(DETAILED), "All of them, each with its type."),
    field("secret", FieldKind::List, "Secrets engines."),
];
const DETAILED: &[FieldSpec] = &[
    field("builtin", FieldKind::Boolean, "Always true."),
    field("deprecation_status", FieldKind::Text, "Always `supported`."),
    field("name", FieldKind::Text, "Its name."),
    field("type", FieldKind::Text, "auth, database or secret."),
    field("version", FieldKind::Text, "Empty: that of the server."),
];
const ONE: &[FieldSpec] = &[
    field("args", FieldKind::List, "Empty."),
    field("builtin", FieldKind::Boolean, "Always true."),
    field("command", FieldKind::Text, "Empty."),
    field("deprecation_status", FieldKind::Text, "Always `supported`."),
    field("name", FieldKind::Text, "Its name."),
    field("sha256", FieldKind::Text, "Empty."),
    field("version", FieldKind::Text, "Empty: that of the server."),
];

static ROUTES: &[RouteSpec] = &[
    route("plugins", "plugins/catalog", "What can be mounted.", READ_LIST, &[])
        .sudo()
        .reads(Answer::Data(ALL))
        .lists(Answer::Data(ALL)),
    route("plugins-of", "plugins/catalog/:type", "Names of one type.", READ_LIST, &[])
        .sudo()
        .reads(Answer::Keys(&[])),
    route("plugin", "plugins/catalog/:type/:name", "One of them.", &[Operation::Read], &[])
        .sudo()
        .reads(Answer::Data(ONE)),
];

#[async_trait]
impl SystemRoutes for PluginRoutes {
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
        let registry = ctx.core.registry();
        if request.route.name == "plugins" {
            return Ok(catalog(registry));
        }
        let names = names(registry, request.params.get("type"))
            .ok_or_else(|| CoreError::field("type", "must be auth, database or secret"))?;
        if request.route.name == "plugins-of" {
            return Ok(Reply::keys(names.into_iter().map(str::to_owned).collect()));
        }
        let name = request.params.get("name");
        let name = names.into_iter().find(|one| *one == name).ok_or(CoreError::NotFound)?;
        Ok(Reply::data(json!({
            "args": [],
            "builtin": true,
            "command": "",
            "deprecation_status": "supported",
            "name": name,
            "sha256": "",
            "version": "",
        })))
    }
}

const TYPES: [&str; 3] = ["auth", "database", "secret"];

fn names(registry: &Registry, kind: &str) -> Option<Vec<&'static str>> {
    match kind {
        "auth" => Some(registry.methods.keys().copied().collect()),
        "database" => Some(registry.databases.to_vec()),
        "secret" => Some(registry.engines.keys().copied().collect()),
        _ => None,
    }
}

fn catalog(registry: &Registry) -> Reply {
    let of = |kind: &'static str| names(registry, kind).unwrap_or_default();
    let detailed: Vec<_> = TYPES
        .into_iter()
        .flat_map(|kind| of(kind).into_iter().map(move |name| (kind, name)))
        .map(|(kind, name)| {
            json!({
                "builtin": true,
                "deprecation_status": "supported",
                "name": name,
                "type": kind,
                "version": "",
            })
        })
        .collect();
    Reply::data(json!({
        "auth": of("auth"),
        "database": of("database"),
        "detailed": detailed,
        "secret": of("secret"),
    }))
}
