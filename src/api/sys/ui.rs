//! `sys/config/ui/headers`, and what consoles and command lines ask below `sys/internal/ui`.

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use crate::core::acl::permit::Permit;
use crate::core::caller::Via;
use crate::core::context::{SystemContext, SystemRoutes};
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::mount::{MountClass, Mounted};
use crate::core::operation::Operation;
use crate::core::reply::Reply;
use crate::core::route::{Answer, FieldKind, FieldSpec, RouteSpec, field, route};
use crate::core::ui_headers::HeaderLabel;
use crate::types::path::ApiPath;

use super::mounts::{CONFIG_SHOWN, DESCRIPTION, STRINGS, rendered, shown_path};

/// The table.
pub struct UiRoutes;

const READ: &[Operation] = &[Operation::Read];
const LIST: &[Operation] = &[Operation::List];

const VALUE: FieldSpec = field("value", FieldKind::Text, "The first of its values.");
const VALUES: FieldSpec = field("values", FieldKind::List, "Its values, each sent by itself.");
const CAPABILITIES: &[FieldSpec] = &[field(
    "*",
    FieldKind::Object(&[field("capabilities", FieldKind::List, "What may be done there.")]),
    "One path.",
)];

/// A mount as `sys/mounts` shows it; to nobody in particular, what is for all.
const MOUNT_SEEN: &[FieldSpec] = &[
    field("accessor", FieldKind::Text, "Its lasting handle.").if_any(),
    field("config", FieldKind::Object(CONFIG_SHOWN), "What was tuned.").if_any(),
    field("deprecation_status", FieldKind::Text, "supported.").if_any(),
    DESCRIPTION,
    field("disabling", FieldKind::Boolean, "Whether it is about to go.").if_any(),
    field("external_entropy_access", FieldKind::Boolean, "Always false.").if_any(),
    field("local", FieldKind::Boolean, "Always false.").if_any(),
    field("options", STRINGS, "For the engine.").or_null(),
    field("plugin_version", FieldKind::Text, "Always empty: it is built in.").if_any(),
    field("running_plugin_version", FieldKind::Text, "Always empty.").if_any(),
    field("running_sha256", FieldKind::Text, "Always empty.").if_any(),
    field("seal_wrap", FieldKind::Boolean, "Always true: everything is sealed.").if_any(),
    field("type", FieldKind::Text, "What is mounted."),
    field("uuid", FieldKind::Text, "Its id.").if_any(),
    field("path", FieldKind::Text, "Where, with a slash at the end.").if_any(),
];
const MOUNTS_SEEN: &[FieldSpec] =
    &[field("*", FieldKind::Object(MOUNT_SEEN), "One mount, by its path.")];

static ROUTES: &[RouteSpec] = &[
    route("ui-mounts", "internal/ui/mounts", "Mounts the caller can see.", READ, &[])
        .anybody()
        .reads(Answer::Data(&[
            field("auth", FieldKind::Object(MOUNTS_SEEN), "Auth methods."),
            field("secret", FieldKind::Object(MOUNTS_SEEN), "Secrets engines."),
        ])),
    route("ui-mount", "internal/ui/mounts/*path", "The mount that serves a path.", READ, &[])
        .anybody()
        .reads(Answer::Data(MOUNT_SEEN)),
    route("ui-headers", "config/ui/headers", "Headers that browsers are answered with.", LIST, &[])
        .sudo(),
    route(
        "ui-header",
        "config/ui/headers/:header",
        "One header that browsers are answered with.",
        &[Operation::Delete, Operation::Read, Operation::Update],
        &[VALUES, field("multivalue", FieldKind::Boolean, "Answer all its values.").in_query()],
    )
    .sudo()
    .reads(Answer::Data(&[VALUE.if_any(), VALUES.if_any()])),
    route("resultant-acl", "internal/ui/resultant-acl", "What the caller may do.", READ, &[])
        .reads(Answer::Data(&[
            field("root", FieldKind::Boolean, "Whether that is everything."),
            field("exact_paths", FieldKind::Object(CAPABILITIES), "At these paths.").if_any(),
            field("glob_paths", FieldKind::Object(CAPABILITIES), "At all that begin so.").if_any(),
        ])),
    route("ui-namespaces", "internal/ui/namespaces", "The namespaces below the root.", READ, &[])
        .reads(Answer::Data(&[field("keys", FieldKind::List, "Always empty.")])),
    route("ui-version", "internal/ui/version", "The version of the server.", READ, &[])
        .reads(Answer::Data(&[field("version", FieldKind::Text, "Of the server.")])),
];

#[async_trait]
impl SystemRoutes for UiRoutes {
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
        match request.route.name {
            "ui-headers" => {
                let table = ctx.unsealed.ui_headers.current();
                Reply::listing(table.iter().map(|(name, _)| name.to_owned()).collect())
            }
            "ui-header" => header(ctx, &request).await,
            "resultant-acl" => Ok(resultant_acl(ctx)),
            "ui-mounts" => Ok(visible(ctx)),
            "ui-mount" => ui_mount(ctx, request.params.get("path")),
            "ui-namespaces" => Ok(Reply::keys(Vec::new())),
            _ => Ok(Reply::data(json!({ "version": env!("CARGO_PKG_VERSION") }))),
        }
    }
}

async fn header(ctx: &SystemContext<'_>, request: &EngineRequest<'_>) -> Result<Reply, CoreError> {
    let headers = &ctx.unsealed.ui_headers;
    let name = HeaderLabel::parse(request.params.get("header"))?;
    match request.operation {
        Operation::Read | Operation::List => {
            let table = headers.current();
            let values = table.get(&name).ok_or(CoreError::NotFound)?;
            Ok(Reply::data(match request.fields.boolean("multivalue")? {
                Some(true) => json!({ "values": values }),
                Some(false) | None => json!({ "value": values.first() }),
            }))
        }
        Operation::Delete => headers.remove(&name).await.map(|()| Reply::empty()),
        Operation::Create | Operation::Patch | Operation::Update => {
            let values = request.fields.list("values")?.unwrap_or_default();
            headers.set(name, values).await.map(|()| Reply::empty())
        }
    }
}

/// What the caller's rules grant, for consoles that hide what would be refused. Conditions on
/// parameters are not told, and nothing is decided by it.
fn resultant_acl(ctx: &SystemContext<'_>) -> Reply {
    if ctx.caller.is_root() {
        return Reply::data(json!({ "root": true }));
    }
    let mut exact = Map::new();
    let mut glob = Map::new();
    for granted in ctx.caller.acl.granted() {
        let group = if granted.exact { &mut exact } else { &mut glob };
        group.insert(granted.path.to_owned(), json!({ "capabilities": granted.capabilities }));
    }
    Reply::data(json!({ "root": false, "exact_paths": exact, "glob_paths": glob }))
}

/// What the caller sees of a mount: who is nobody, what is for all.
fn seen(ctx: &SystemContext<'_>, mounted: &Mounted) -> Value {
    let whole = rendered(mounted);
    if !matches!(ctx.caller.via, Via::Nobody) {
        return whole;
    }
    let told = ["description", "options", "type"];
    let parts =
        told.iter().filter_map(|name| Some(((*name).to_owned(), whole.get(*name)?.clone())));
    Value::Object(parts.collect())
}

/// Whether the caller has any business with a mount: something below it, or it is listed to all.
pub(super) fn sees(ctx: &SystemContext<'_>, mounted: &Mounted) -> bool {
    mounted.entry.config.listing_visibility == "unauth"
        || ctx.caller.acl.reaches_below(&mounted.entry.path)
}

fn visible(ctx: &SystemContext<'_>) -> Reply {
    let mut auth = Map::new();
    let mut secret = Map::new();
    for mounted in ctx.unsealed.mounts.all().iter().filter(|mounted| sees(ctx, mounted)) {
        let group = match mounted.entry.class {
            MountClass::Auth => &mut auth,
            MountClass::Secret => &mut secret,
        };
        group.insert(shown_path(&mounted.entry).to_owned(), seen(ctx, mounted));
    }
    Reply::data(json!({ "auth": auth, "secret": secret }))
}

fn ui_mount(ctx: &SystemContext<'_>, path: &str) -> Result<Reply, CoreError> {
    let path = ApiPath::parse(path)?;
    // The same answer whether the mount is not there or not the caller's business.
    let (mounted, _) = ctx
        .unsealed
        .mounts
        .route(&path)
        .filter(|(mounted, _)| sees(ctx, mounted))
        .ok_or_else(|| CoreError::denied("no visible mount serves that path"))?;
    let mut reply = Reply::data(seen(ctx, &mounted));
    if let Some(data) = &mut reply.data {
        data.insert("path".into(), json!(mounted.entry.path));
    }
    Ok(reply)
}
