//! `sys/policies/acl`, `sys/policy`, `sys/capabilities*` and `sys/explain`.

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use crate::core::acl::CheckRequest;
use crate::core::acl::permit::Permit;
use crate::core::context::{SystemContext, SystemRoutes};
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::explain::Supposed;
use crate::core::operation::Operation;
use crate::core::policies::StoredPolicy;
use crate::core::policy::PolicyName;
use crate::core::reply::{Reply, Shape};
use crate::core::route::{Answer, FieldKind, FieldSpec, Params, RouteSpec, field, route};
use crate::types::id::{Accessor, EntityId};
use crate::types::path::ApiPath;

/// The table.
pub struct PolicyRoutes;

const POLICY_FIELDS: &[FieldSpec] = &[
    field("policy", FieldKind::Text, "The policy in HCL or JSON, or that in base64."),
    field("rules", FieldKind::Text, "The same, as older clients call it."),
    field("cas", FieldKind::Integer, "Write only over this version; 0 when there must be none."),
];
const WRITE: &[Operation] = &[Operation::Update];
const READ_LIST: &[Operation] = &[Operation::Read, Operation::List];
const ALL: &[Operation] =
    &[Operation::Create, Operation::Delete, Operation::Read, Operation::Update];

const PATHS: FieldSpec = field("paths", FieldKind::List, "The paths asked about.");
const PATH: FieldSpec = field("path", FieldKind::List, "The same, as older clients call it.");

const BY_ENTITY_ALONE: &str = "judged by the policies of the entity, of its groups and \"default\": \
     what a role, a token or a group named at log-in adds is to be given as \"policies\"";

static ROUTES: &[RouteSpec] = &[
    route("acl-list", "policies/acl", "Names of all policies.", READ_LIST, &[])
        .reads(Answer::Keys(&[])),
    route("acl", "policies/acl/*name", "One policy.", ALL, POLICY_FIELDS)
        .reads(Answer::Data(ACL_SHOWN)),
    route("policy-list", "policy", "Names of all policies (older path).", READ_LIST, &[])
        .reads(Answer::Top(NAMES))
        .lists(Answer::Top(NAMES)),
    route("policy", "policy/*name", "One policy (older path).", ALL, POLICY_FIELDS)
        .reads(Answer::Top(POLICY_SHOWN)),
    route(
        "capabilities-self",
        "capabilities-self",
        "What the caller may do at paths.",
        WRITE,
        &[PATHS, PATH],
    )
    .writes(Answer::Top(CAPABILITIES)),
    route(
        "capabilities",
        "capabilities",
        "What a token may do at paths.",
        WRITE,
        &[PATHS, PATH, field("token", FieldKind::Secret, "The token asked about.")],
    )
    .writes(Answer::Top(CAPABILITIES)),
    route(
        "capabilities-accessor",
        "capabilities-accessor",
        "What the token behind an accessor may do at paths.",
        WRITE,
        &[PATHS, PATH, field("accessor", FieldKind::Text, "The accessor asked about.")],
    )
    .writes(Answer::Top(CAPABILITIES)),
    route(
        "explain",
        "explain",
        "Why an operation would be allowed or denied, and by which rule.",
        WRITE,
        &[
            field("path", FieldKind::Text, "The path asked about."),
            field("operation", FieldKind::Text, "create, read, update, patch, delete or list."),
            field("accessor", FieldKind::Text, "For the token with this accessor."),
            field("entity_id", FieldKind::Text, "For this entity, its groups and `default`."),
            field("policies", FieldKind::List, "For these policies, or with them as well."),
            field("no_default_policy", FieldKind::Boolean, "The entity, without `default`."),
            field("parameters", FieldKind::Map, "With these parameters in the request."),
        ],
    )
    .sudo()
    .writes(Answer::Data(EXPLANATION)),
    route("acl-details", "policies/detailed/acl", "All policies, whole.", &[Operation::List], &[])
        .lists(Answer::Keys(&[field(
            "key_info",
            FieldKind::Object(&[field("*", FieldKind::Object(ACL_SHOWN), "One policy.")]),
            "Each policy.",
        )])),
];

const CAS_REQUIRED: FieldSpec = field("cas_required", FieldKind::Boolean, "Always false.");
const MODIFIED: FieldSpec =
    field("modified", FieldKind::Time, "When it was last written.").or_null();
const NAME: FieldSpec = field("name", FieldKind::Text, "Its name.");
const VERSION: FieldSpec = field("version", FieldKind::Integer, "How often it was written.");
const ACL_SHOWN: &[FieldSpec] =
    &[CAS_REQUIRED, MODIFIED, NAME, field("policy", FieldKind::Text, "The policy."), VERSION];
const POLICY_SHOWN: &[FieldSpec] =
    &[CAS_REQUIRED, MODIFIED, NAME, field("rules", FieldKind::Text, "The policy."), VERSION];
const NAMES: &[FieldSpec] = &[
    field("keys", FieldKind::List, "The names."),
    field("policies", FieldKind::List, "The same, as older clients call them."),
];
const CAPABILITIES: &[FieldSpec] = &[
    field("*", FieldKind::List, "What may be done at one path."),
    field("capabilities", FieldKind::List, "The same, when one path was asked about.").if_any(),
];
const RULE: &[FieldSpec] = &[
    field("capabilities", FieldKind::List, "What it grants."),
    field("path", FieldKind::Text, "Its path."),
    field("policies", FieldKind::List, "The policies that have it."),
];
const EXPLANATION: &[FieldSpec] = &[
    field("allowed", FieldKind::Boolean, "The decision."),
    field("matched", FieldKind::Object(RULE), "The rule that decided.").or_null(),
    field("missing_capability", FieldKind::Text, "The capability that it lacks.").or_null(),
    field("operation", FieldKind::Text, "The operation asked about."),
    field("others", FieldKind::Objects(RULE), "Rules that match as well, best first."),
    field("path", FieldKind::Text, "The path asked about."),
    field("policies", FieldKind::List, "The policies that were asked."),
    field("reason", FieldKind::Text, "Why, in one sentence."),
    field("refused_parameter", FieldKind::Text, "The parameter that is refused.").or_null(),
    field("scopes", FieldKind::List, "What the caller is narrowed to.").or_null(),
    field("sudo", FieldKind::Boolean, "Whether root-protected paths are open here."),
    field(
        "unresolved_denials",
        FieldKind::Objects(&[
            field("applies", FieldKind::Boolean, "Whether it is why this is denied."),
            field("path", FieldKind::Text, "Its path, with the template."),
            field("policy", FieldKind::Text, "The policy that has it."),
        ]),
        "Denying rules whose template has no usable value.",
    ),
];

#[async_trait]
impl SystemRoutes for PolicyRoutes {
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
        match (route.name, PolicyName::parse(params.get("name"))) {
            ("acl" | "policy", Ok(name)) => {
                Ok(Some(ctx.unsealed.policies.get(&name).await?.is_some()))
            }
            _ => Ok(None),
        }
    }

    async fn handle(
        &self,
        ctx: &SystemContext<'_>,
        _permit: &Permit,
        request: EngineRequest<'_>,
    ) -> Result<Reply, CoreError> {
        match request.route.name {
            "acl-list" => Ok(Reply::keys(ctx.unsealed.policies.names().await?)),
            "policy-list" => {
                let names = ctx.unsealed.policies.names().await?;
                Ok(Reply::data(json!({ "keys": names, "policies": names }))
                    .shaped(Shape::EnvelopeAndTop))
            }
            // A trailing slash is the list, also below the pattern that takes the rest.
            "acl" | "policy" if request.params.get("name").is_empty() => match request.operation {
                Operation::Read | Operation::List => {
                    Ok(Reply::keys(ctx.unsealed.policies.names().await?))
                }
                Operation::Create | Operation::Delete | Operation::Patch | Operation::Update => {
                    Err(CoreError::Unsupported)
                }
            },
            "acl" | "policy" => policy(ctx, request).await,
            "explain" => explain(ctx, request).await,
            "acl-details" => details(ctx).await,
            _ => capabilities(ctx, request).await,
        }
    }
}

async fn policy(ctx: &SystemContext<'_>, request: EngineRequest<'_>) -> Result<Reply, CoreError> {
    let name = PolicyName::parse(request.params.get("name"))
        .map_err(|error| CoreError::field("name", error.to_string()))?;
    let policies = &ctx.unsealed.policies;
    match request.operation {
        Operation::Read | Operation::List => {
            let stored = match policies.get(&name).await? {
                None if name.is_root() => None,
                None => return Err(CoreError::NotFound),
                some => some,
            };
            Ok(rendered(&name, stored, request.route.name))
        }
        Operation::Create | Operation::Update | Operation::Patch => {
            let given = match request.fields.text("policy")? {
                Some(text) => text,
                None => request
                    .fields
                    .text("rules")?
                    .ok_or_else(|| CoreError::field("policy", "is required"))?,
            };
            let cas = request.fields.integer("cas")?;
            policies.set(&name, decoded(given), ctx.core.clock.now(), cas).await?;
            Ok(Reply::empty())
        }
        Operation::Delete => {
            policies.remove(&name).await?;
            Ok(Reply::empty())
        }
    }
}

/// Policy text may come in base64; no policy in clear is valid base64, since that has no braces.
pub(super) fn decoded(text: String) -> String {
    data_encoding::BASE64
        .decode(text.trim().as_bytes())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .unwrap_or(text)
}

async fn details(ctx: &SystemContext<'_>) -> Result<Reply, CoreError> {
    let policies = &ctx.unsealed.policies;
    let (mut keys, mut info) = (Vec::new(), Map::new());
    for text in policies.names().await? {
        let name = PolicyName::parse(&text)
            .map_err(|_| CoreError::internal("a stored policy has a name that is none"))?;
        let stored = policies.get(&name).await?;
        // One that was deleted meanwhile is not there any more.
        if stored.is_some() || name.is_root() {
            let shown = rendered(&name, stored, "acl").data.unwrap_or_default();
            info.insert(text.clone(), Value::Object(shown));
            keys.push(text);
        }
    }
    Ok(Reply::data(json!({ "keys": keys, "key_info": info })))
}

fn rendered(name: &PolicyName, stored: Option<StoredPolicy>, route: &str) -> Reply {
    let (text, version, modified) = match stored {
        Some(stored) => (stored.text, stored.version, Some(stored.modified_at.to_rfc3339())),
        None => (String::new(), 0, None),
    };
    let field = if route == "policy" { "rules" } else { "policy" };
    let mut data = Map::new();
    data.insert("name".into(), json!(name.as_str()));
    data.insert(field.into(), json!(text));
    data.insert("version".into(), json!(version));
    data.insert("modified".into(), json!(modified));
    data.insert("cas_required".into(), json!(false));
    let shape = if route == "policy" { Shape::EnvelopeAndTop } else { Shape::Envelope };
    Reply::data(Value::Object(data)).shaped(shape)
}

async fn capabilities(
    ctx: &SystemContext<'_>,
    request: EngineRequest<'_>,
) -> Result<Reply, CoreError> {
    let fields = &request.fields;
    let paths = match fields.list("paths")? {
        Some(paths) => paths,
        None => fields.list("path")?.unwrap_or_default(),
    };
    if paths.is_empty() {
        return Err(CoreError::field("paths", "is required"));
    }
    let caller = match request.route.name {
        "capabilities" => {
            let token = fields.secret("token")?;
            let token = token.ok_or_else(|| CoreError::field("token", "is required"))?;
            Some(ctx.core.caller_of_token(ctx.unsealed, token.expose()).await?)
        }
        "capabilities-accessor" => {
            let accessor = Accessor::new(fields.required_text("accessor")?);
            Some(ctx.core.caller_of_accessor(ctx.unsealed, &accessor).await?)
        }
        _ => None,
    };
    let acl = caller.as_ref().map_or(&ctx.caller.acl, |caller| &caller.acl);
    let mut data = Map::new();
    for path in &paths {
        let parsed = ApiPath::parse(path.trim_start_matches('/'))?;
        data.insert(path.clone(), json!(acl.capabilities(&parsed)));
    }
    if let [only] = paths.as_slice() {
        let same = data.get(only).cloned().unwrap_or_default();
        data.insert("capabilities".into(), same);
    }
    Ok(Reply::data(Value::Object(data)).shaped(Shape::EnvelopeAndTop))
}

async fn explain(ctx: &SystemContext<'_>, request: EngineRequest<'_>) -> Result<Reply, CoreError> {
    let fields = &request.fields;
    let path = ApiPath::parse(&fields.required_text("path")?)?;
    let operation = match fields.text("operation")?.as_deref() {
        None | Some("read") => Operation::Read,
        Some("create") => Operation::Create,
        Some("update") => Operation::Update,
        Some("patch") => Operation::Patch,
        Some("delete") => Operation::Delete,
        Some("list") => Operation::List,
        Some(_) => {
            return Err(CoreError::field(
                "operation",
                "must be create, read, update, patch, delete or list",
            ));
        }
    };
    let path = if operation == Operation::List { path.to_dir() } else { path };
    let check = CheckRequest {
        path: &path,
        operation,
        parameters: fields.object("parameters")?,
        wrap_ttl: None,
    };
    let (core, unsealed) = (ctx.core, ctx.unsealed);
    let entity = fields.text("entity_id")?.map(EntityId::new);
    let policies = fields.list("policies")?.unwrap_or_default();
    let mut warnings = Vec::new();
    let judged = match fields.text("accessor")? {
        Some(_) if entity.is_some() || !policies.is_empty() => {
            return Err(CoreError::field(
                "accessor",
                "says it all: \"entity_id\" and \"policies\" do not go with it",
            ));
        }
        Some(accessor) => {
            let accessor = Accessor::new(accessor);
            core.caller_of_accessor(unsealed, &accessor).await.map(|caller| Some(caller.acl))
        }
        None if entity.is_none() && policies.is_empty() => Ok(None),
        None => {
            if entity.is_some() && policies.is_empty() {
                warnings.push(BY_ENTITY_ALONE.to_owned());
            }
            let no_default_policy = fields.boolean("no_default_policy")?.unwrap_or(false);
            let who = Supposed { entity, policies, no_default_policy };
            unsealed.supposed(who).await.map(Some)
        }
    };
    let explanation = match judged {
        Ok(acl) => core.explain(unsealed, acl.as_ref().unwrap_or(&ctx.caller.acl), &check),
        Err(CoreError::Denied { reason }) => {
            core.explain_without_standing(unsealed, &check, reason)
        }
        Err(error) => return Err(error),
    };
    let value = serde_json::to_value(&explanation)
        .map_err(|_| CoreError::internal("an explanation could not be serialised"))?;
    let mut reply = Reply::data(value);
    reply.warnings = warnings;
    Ok(reply)
}
