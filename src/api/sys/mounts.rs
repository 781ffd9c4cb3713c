//! `sys/mounts`, `sys/auth` and `sys/remount`.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use crate::core::acl::permit::Permit;
use crate::core::context::{SystemContext, SystemRoutes};
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::lease::Selector;
use crate::core::lockout::LockoutConfig;
use crate::core::mount::{MountClass, MountConfig, MountEntry, Mounted, NewMount};
use crate::core::operation::Operation;
use crate::core::reply::{Reply, Shape};
use crate::core::route::{Answer, FieldKind, FieldSpec, RouteSpec, field, route};
use crate::core::token::{RoleTokenType, TokenSelector};
use crate::types::path::ApiPath;

use super::mount_headers;

/// The table.
pub struct MountRoutes;

const READ: &[Operation] = &[Operation::Read];
const WRITE: &[Operation] = &[Operation::Update];
const ALL: &[Operation] = &[Operation::Delete, Operation::Read, Operation::Update];
const READ_WRITE: &[Operation] = &[Operation::Read, Operation::Update];

const TUNE_FIELDS: &[FieldSpec] = &[
    field("default_lease_ttl", FieldKind::Duration, "Lifetime of what asks for none."),
    field("max_lease_ttl", FieldKind::Duration, "Longest lifetime."),
    field("description", FieldKind::Text, "For people."),
    field("listing_visibility", FieldKind::Text, "`hidden`, or `unauth` to be listed to anybody."),
    field("audit_non_hmac_request_keys", FieldKind::List, "Request fields audited in clear."),
    field("audit_non_hmac_response_keys", FieldKind::List, "Response fields audited in clear."),
    field("passthrough_request_headers", FieldKind::List, "Kept, without effect."),
    field("allowed_response_headers", FieldKind::List, "Kept, without effect."),
    field("token_type", FieldKind::Text, "Kind of token an auth mount makes."),
    field("options", FieldKind::Map, "For the engine."),
    field(
        "user_lockout_config",
        FieldKind::Map,
        "When an auth mount locks an identity: lockout_threshold, lockout_duration, \
         lockout_counter_reset, lockout_disable.",
    ),
];
const ENABLE_FIELDS: &[FieldSpec] = &[
    field("type", FieldKind::Text, "What to mount: `kv`, `database`, `cert` and so on."),
    field("description", FieldKind::Text, "For people."),
    field("config", FieldKind::Map, "What can also be tuned later."),
    field("options", FieldKind::Map, "For the engine, such as `version` for kv."),
    field("local", FieldKind::Boolean, "Accepted for compatibility."),
    field("seal_wrap", FieldKind::Boolean, "Accepted for compatibility: everything is sealed."),
    field("external_entropy_access", FieldKind::Boolean, "Accepted for compatibility."),
    field("plugin_name", FieldKind::Text, "Accepted for compatibility."),
];

pub(super) const CONFIG_SHOWN: &[FieldSpec] = &[
    field("audit_non_hmac_request_keys", FieldKind::List, "Audited in clear.").if_any(),
    field("audit_non_hmac_response_keys", FieldKind::List, "Audited in clear.").if_any(),
    field("passthrough_request_headers", FieldKind::List, "Without effect.").if_any(),
    field("allowed_response_headers", FieldKind::List, "Without effect.").if_any(),
    field("default_lease_ttl", FieldKind::Duration, "Lifetime of what asks for none."),
    field("force_no_cache", FieldKind::Boolean, "Always false."),
    field("listing_visibility", FieldKind::Text, "`hidden`, `unauth`, or empty."),
    field("max_lease_ttl", FieldKind::Duration, "Longest lifetime."),
    field("token_type", FieldKind::Text, "Kind of token an auth mount makes.").if_any(),
];
pub(super) const STRINGS: FieldKind =
    FieldKind::Object(&[field("*", FieldKind::Text, "One option.")]);
pub(super) const DESCRIPTION: FieldSpec = field("description", FieldKind::Text, "For people.");
const MOUNT_SHOWN: &[FieldSpec] = &[
    field("accessor", FieldKind::Text, "Its lasting handle."),
    field("config", FieldKind::Object(CONFIG_SHOWN), "What was tuned; zero for the default."),
    field("deprecation_status", FieldKind::Text, "supported."),
    DESCRIPTION,
    field("disabling", FieldKind::Boolean, "Whether it is about to go."),
    field("external_entropy_access", FieldKind::Boolean, "Always false."),
    field("local", FieldKind::Boolean, "Always false."),
    field("options", STRINGS, "For the engine.").or_null(),
    field("plugin_version", FieldKind::Text, "Always empty: it is built in."),
    field("running_plugin_version", FieldKind::Text, "Always empty."),
    field("running_sha256", FieldKind::Text, "Always empty."),
    field("seal_wrap", FieldKind::Boolean, "Always true: everything is sealed."),
    field("type", FieldKind::Text, "What is mounted."),
    field("uuid", FieldKind::Text, "Its id."),
    field("path", FieldKind::Text, "Where, with a slash at the end.").if_any(),
];
const MOUNTS_SHOWN: &[FieldSpec] =
    &[field("*", FieldKind::Object(MOUNT_SHOWN), "One mount, by its path.")];
const TUNE_SHOWN: &[FieldSpec] = &[
    field("passthrough_request_headers", FieldKind::List, "Without effect.").if_any(),
    field("allowed_response_headers", FieldKind::List, "Without effect.").if_any(),
    field("audit_non_hmac_request_keys", FieldKind::List, "Request fields audited in clear."),
    field("audit_non_hmac_response_keys", FieldKind::List, "Response fields audited in clear."),
    field("default_lease_ttl", FieldKind::Duration, "Lifetime of what asks for none."),
    DESCRIPTION,
    field("force_no_cache", FieldKind::Boolean, "Always false."),
    field("listing_visibility", FieldKind::Text, "`hidden`, `unauth`, or empty."),
    field("max_lease_ttl", FieldKind::Duration, "Longest lifetime."),
    field("options", STRINGS, "For the engine."),
    field("token_type", FieldKind::Text, "Kind of token an auth mount makes.").if_any(),
    field(
        "user_lockout_config",
        FieldKind::Object(&[
            field("lockout_counter_reset", FieldKind::Duration, "When failures are forgotten."),
            field("lockout_disable", FieldKind::Boolean, "Whether nobody is locked."),
            field("lockout_duration", FieldKind::Duration, "How long a lock lasts."),
            field("lockout_threshold", FieldKind::Integer, "How many failures lock."),
        ]),
        "When an auth mount locks an identity.",
    )
    .if_any(),
];
const MIGRATION: FieldSpec = field("migration_id", FieldKind::Text, "Ask for it by this.");

static ROUTES: &[RouteSpec] = &[
    route("mounts", "mounts", "All secrets engines.", READ, &[]).reads(Answer::Top(MOUNTS_SHOWN)),
    route("auths", "auth", "All auth methods.", READ, &[]).reads(Answer::Top(MOUNTS_SHOWN)),
    route(
        "tune-mount",
        "mounts/*path/tune",
        "What can be tuned on a secrets engine.",
        READ_WRITE,
        TUNE_FIELDS,
    )
    .reads(Answer::Top(TUNE_SHOWN)),
    route(
        "tune-auth",
        "auth/*path/tune",
        "What can be tuned on an auth method.",
        READ_WRITE,
        TUNE_FIELDS,
    )
    .sudo()
    .reads(Answer::Top(TUNE_SHOWN)),
    route("mount", "mounts/*path", "One secrets engine.", ALL, ENABLE_FIELDS)
        .reads(Answer::Data(MOUNT_SHOWN)),
    route("auth", "auth/*path", "One auth method.", ALL, ENABLE_FIELDS)
        .sudo()
        .reads(Answer::Data(MOUNT_SHOWN)),
    route(
        "remount",
        "remount",
        "Move a mount.",
        WRITE,
        &[
            field("from", FieldKind::Text, "Where it is."),
            field("to", FieldKind::Text, "Where it goes."),
        ],
    )
    .sudo()
    .writes(Answer::Top(&[MIGRATION])),
    route("remount-status", "remount/status/:id", "A finished move.", READ, &[]).reads(
        Answer::Data(&[
            MIGRATION,
            field(
                "migration_info",
                FieldKind::Object(&[
                    field("source_mount", FieldKind::Text, "Where it was."),
                    field("status", FieldKind::Text, "success."),
                    field("target_mount", FieldKind::Text, "Where it is."),
                ]),
                "What was moved.",
            ),
        ]),
    ),
];

#[async_trait]
impl SystemRoutes for MountRoutes {
    fn prefix(&self) -> &'static str {
        "sys/"
    }

    fn routes(&self) -> &'static [RouteSpec] {
        ROUTES
    }

    async fn handle(
        &self,
        ctx: &SystemContext<'_>,
        permit: &Permit,
        request: EngineRequest<'_>,
    ) -> Result<Reply, CoreError> {
        match request.route.name {
            "mounts" => Ok(listing(ctx, MountClass::Secret)),
            "auths" => Ok(listing(ctx, MountClass::Auth)),
            "mount" => mount(ctx, MountClass::Secret, request).await,
            "auth" => mount(ctx, MountClass::Auth, request).await,
            "tune-mount" => tune(ctx, MountClass::Secret, permit, request).await,
            "tune-auth" => tune(ctx, MountClass::Auth, permit, request).await,
            "remount" => remount(ctx, &request.fields).await,
            _ => remount_status(ctx, request.params.get("id")),
        }
    }
}

fn full_path(class: MountClass, path: &str) -> Result<String, CoreError> {
    let path = ApiPath::parse(path)?.to_dir();
    Ok(match class {
        MountClass::Auth => format!("auth/{path}"),
        MountClass::Secret => path.as_str().to_owned(),
    })
}

/// The path as the listings of its class show it.
pub(super) fn shown_path(entry: &MountEntry) -> &str {
    match entry.class {
        MountClass::Auth => entry.path.strip_prefix("auth/").unwrap_or(&entry.path),
        MountClass::Secret => &entry.path,
    }
}

pub(super) fn rendered(mounted: &Mounted) -> Value {
    let entry = &mounted.entry;
    let mut config = json!({
        "default_lease_ttl": entry.config.default_lease_ttl.as_secs(),
        "max_lease_ttl": entry.config.max_lease_ttl.as_secs(),
        "force_no_cache": false,
        "listing_visibility": entry.config.listing_visibility,
    });
    show_lists(&mut config, &entry.config);
    show_token_type(&mut config, entry);
    json!({
        "accessor": entry.accessor,
        "config": config,
        "deprecation_status": "supported",
        "description": entry.description,
        "disabling": entry.disabling,
        "external_entropy_access": false,
        "local": false,
        "options": if entry.options.is_empty() { Value::Null } else { json!(entry.options) },
        "plugin_version": "",
        "running_plugin_version": "",
        "running_sha256": "",
        "seal_wrap": true,
        "type": entry.kind,
        "uuid": entry.uuid,
    })
}

/// Lists of names are shown where they are set, as stock servers show them.
fn show_lists(shown: &mut Value, config: &MountConfig) {
    let lists = [
        ("audit_non_hmac_request_keys", &config.audit_non_hmac_request_keys),
        ("audit_non_hmac_response_keys", &config.audit_non_hmac_response_keys),
        ("passthrough_request_headers", &config.passthrough_request_headers),
        ("allowed_response_headers", &config.allowed_response_headers),
    ];
    if let Value::Object(shown) = shown {
        for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            shown.insert(name.into(), json!(list));
        }
    }
}

/// Only auth mounts make tokens.
fn show_token_type(config: &mut Value, entry: &MountEntry) {
    if let (MountClass::Auth, Value::Object(config)) = (entry.class, config) {
        config.insert("token_type".into(), json!(entry.config.token_type.as_str()));
    }
}

/// What the server itself serves, listed as stock servers list it.
fn own(class: MountClass) -> Vec<(&'static str, Value)> {
    let entry = |kind: &str, description: &str| {
        let mut config = json!({
            "default_lease_ttl": 0,
            "max_lease_ttl": 0,
            "force_no_cache": false,
            "listing_visibility": "",
        });
        if let (MountClass::Auth, Value::Object(config)) = (class, &mut config) {
            config.insert("token_type".into(), json!(RoleTokenType::default().as_str()));
        }
        json!({
            "accessor": format!("{kind}_server"),
            "config": config,
            "deprecation_status": "supported",
            "description": description,
            "disabling": false,
            "external_entropy_access": false,
            "local": false,
            "options": null,
            "plugin_version": "",
            "running_plugin_version": "",
            "running_sha256": "",
            "seal_wrap": true,
            "type": kind,
            "uuid": format!("{kind}-server"),
        })
    };
    match class {
        MountClass::Auth => vec![("token/", entry("token", "token based credentials"))],
        MountClass::Secret => vec![
            ("identity/", entry("identity", "identity store")),
            ("sys/", entry("system", "system endpoints used for control, policy and debugging")),
        ],
    }
}

fn listing(ctx: &SystemContext<'_>, class: MountClass) -> Reply {
    let mut data = Map::new();
    for mounted in ctx.unsealed.mounts.all().iter().filter(|m| m.entry.class == class) {
        data.insert(shown_path(&mounted.entry).to_owned(), rendered(mounted));
    }
    data.extend(own(class).into_iter().map(|(path, value)| (path.to_owned(), value)));
    Reply::data(Value::Object(data)).shaped(Shape::EnvelopeAndTop)
}

async fn mount(
    ctx: &SystemContext<'_>,
    class: MountClass,
    request: EngineRequest<'_>,
) -> Result<Reply, CoreError> {
    let path = full_path(class, request.params.get("path"))?;
    let none = || CoreError::invalid(format!("no mount at \"{path}\""));
    match request.operation {
        Operation::Delete => disable(ctx, class, &path).await,
        Operation::Read => {
            let mounted = mounted_at(ctx, class, &path).ok_or_else(none)?;
            Ok(Reply::data(rendered(&mounted)))
        }
        Operation::Create | Operation::Update => enable(ctx, class, &request).await,
        Operation::List | Operation::Patch => Err(CoreError::Unsupported),
    }
}

async fn enable(
    ctx: &SystemContext<'_>,
    class: MountClass,
    request: &EngineRequest<'_>,
) -> Result<Reply, CoreError> {
    let fields = &request.fields;
    let mut warnings = Vec::new();
    let config = match fields.object("config")? {
        Some(map) => {
            warnings.extend(map.keys().filter(|name| !is_setting(name)).map(|name| {
                format!("the setting \"config.{name}\" is not known here and was ignored")
            }));
            let fields = Fields::new(map.clone());
            warnings.extend(mount_headers::warnings(&fields));
            tuned(class, MountConfig::default(), &fields)?
        }
        None => MountConfig::default(),
    };
    let mut kind = fields.required_text("type")?;
    let mut options = fields.string_map("options")?.unwrap_or_default();
    // Older clients ask for `kv-v2` where newer ones say `kv` with a version.
    if let Some(version) = kind.strip_prefix("kv-v") {
        options.insert("version".into(), version.to_owned());
        kind = "kv".into();
    }
    ctx.unsealed
        .mounts
        .enable(NewMount {
            path: request.params.get("path").to_owned(),
            class,
            kind,
            description: fields.text("description")?.unwrap_or_default(),
            options,
            config,
        })
        .await?;
    Ok(Reply { warnings, ..Reply::empty() })
}

/// Whether a mount has a setting of that name, or clients of stock servers send it with every mount.
fn is_setting(name: &str) -> bool {
    const ACCEPTED: [&str; 2] = ["force_no_cache", "plugin_version"];
    TUNE_FIELDS.iter().any(|field| field.name == name) || ACCEPTED.contains(&name)
}

/// A mount of that class. `sys/mounts/auth/x` names none, or it would be a way to an auth mount around
/// the sudo that `sys/auth/x` asks for.
fn mounted_at(ctx: &SystemContext<'_>, class: MountClass, path: &str) -> Option<Arc<Mounted>> {
    ctx.unsealed.mounts.at(path).filter(|mounted| mounted.entry.class == class)
}

/// Stops issuing, revokes what is out, and only when all of it is dead removes the mount and wipes its
/// records. A mount whose target is gone for good is freed with `sys/leases/revoke-force` first.
async fn disable(
    ctx: &SystemContext<'_>,
    class: MountClass,
    path: &str,
) -> Result<Reply, CoreError> {
    let mounts = &ctx.unsealed.mounts;
    if path == "cubbyhole/" {
        return Err(CoreError::invalid("the cubbyhole cannot be disabled"));
    }
    let Some(mounted) = mounted_at(ctx, class, path) else { return Ok(Reply::empty()) };
    mounts
        .tune(path, |entry| {
            entry.disabling = true;
            Ok(())
        })
        .await?;
    let leases = &ctx.unsealed.leases;
    let selector = Selector::Mount(mounted.entry.accessor.clone());
    let (total, _) = leases.selected(&selector, 0).await?;
    if total > 0 {
        super::leases::revoke_and_wait(ctx, selector).await?;
    }
    if mounted.entry.class == MountClass::Auth {
        let selector = TokenSelector::Mount(mounted.entry.accessor.clone());
        ctx.unsealed.tokens.revoke_all(&selector).await?;
    }
    mounts.remove(path).await?;
    Ok(Reply::empty())
}

async fn tune(
    ctx: &SystemContext<'_>,
    class: MountClass,
    permit: &Permit,
    request: EngineRequest<'_>,
) -> Result<Reply, CoreError> {
    let path = full_path(class, request.params.get("path"))?;
    let mounts = &ctx.unsealed.mounts;
    let mounted =
        mounts.at(&path).ok_or_else(|| CoreError::invalid(format!("no mount at \"{path}\"")))?;
    // Stock command lines tune auth methods at `sys/mounts/auth/x/tune`: that needs what
    // `sys/auth/x/tune` needs.
    let class = mounted.entry.class;
    if class == MountClass::Auth && !permit.sudo() {
        return Err(CoreError::denied("tuning an auth method needs the sudo capability"));
    }
    if request.operation == Operation::Read {
        let config = &mounted.entry.config;
        let lockout = &config.user_lockout_config;
        let lockout = json!({
            "lockout_counter_reset": lockout.counter_reset.as_secs(),
            "lockout_disable": lockout.disabled,
            "lockout_duration": lockout.duration.as_secs(),
            "lockout_threshold": lockout.threshold,
        });
        let mut shown = json!({
            "default_lease_ttl": mounted.facts.default_ttl.as_secs(),
            "max_lease_ttl": mounted.facts.max_ttl.as_secs(),
            "description": mounted.entry.description,
            "force_no_cache": false,
            "listing_visibility": config.listing_visibility,
            "audit_non_hmac_request_keys": config.audit_non_hmac_request_keys,
            "audit_non_hmac_response_keys": config.audit_non_hmac_response_keys,
            "options": mounted.entry.options,
        });
        show_lists(&mut shown, config);
        show_token_type(&mut shown, &mounted.entry);
        if let (MountClass::Auth, Some(shown)) = (class, shown.as_object_mut()) {
            shown.insert("user_lockout_config".into(), lockout);
        }
        return Ok(Reply::data(shown).shaped(Shape::EnvelopeAndTop));
    }
    let fields = &request.fields;
    let config = tuned(class, mounted.entry.config.clone(), fields)?;
    let description = fields.text("description")?;
    let options = fields.string_map("options")?;
    mounts
        .tune(&path, |entry| {
            entry.config = config;
            if let Some(description) = description {
                entry.description = description;
            }
            entry.options.extend(options.unwrap_or_default());
            Ok(())
        })
        .await?;
    Ok(Reply { warnings: mount_headers::warnings(fields), ..Reply::empty() })
}

fn tuned(
    class: MountClass,
    mut config: MountConfig,
    fields: &Fields,
) -> Result<MountConfig, CoreError> {
    if let Some(map) = fields.object("user_lockout_config")? {
        if class == MountClass::Secret {
            return Err(CoreError::field("user_lockout_config", "is for auth methods"));
        }
        lockout(&mut config.user_lockout_config, &Fields::new(map.clone()))?;
    }
    if let Some(ttl) = fields.duration("default_lease_ttl")? {
        config.default_lease_ttl = ttl;
    }
    if let Some(ttl) = fields.duration("max_lease_ttl")? {
        config.max_lease_ttl = ttl;
    }
    if let Some(keys) = fields.list("audit_non_hmac_request_keys")? {
        config.audit_non_hmac_request_keys = keys;
    }
    if let Some(keys) = fields.list("audit_non_hmac_response_keys")? {
        config.audit_non_hmac_response_keys = keys;
    }
    mount_headers::tune(&mut config, fields)?;
    if let Some(visibility) = fields.text("listing_visibility")? {
        config.listing_visibility = visibility;
    }
    if let Some(text) = fields.text("token_type")? {
        config.token_type = RoleTokenType::parse(&text).ok_or_else(|| {
            let problem = "must be service, batch, default-service or default-batch";
            CoreError::field("token_type", problem)
        })?;
    }
    Ok(config)
}

fn lockout(config: &mut LockoutConfig, fields: &Fields) -> Result<(), CoreError> {
    if let Some(threshold) = fields.integer("lockout_threshold")? {
        config.threshold = threshold;
    }
    if let Some(duration) = fields.duration("lockout_duration")? {
        config.duration = duration;
    }
    if let Some(reset) = fields.duration("lockout_counter_reset")? {
        config.counter_reset = reset;
    }
    if let Some(disabled) = fields.boolean("lockout_disable")? {
        config.disabled = disabled;
    }
    Ok(())
}

async fn remount(ctx: &SystemContext<'_>, fields: &Fields) -> Result<Reply, CoreError> {
    let from = ApiPath::parse(&fields.required_text("from")?)?.to_dir();
    let to = fields.required_text("to")?;
    // An auth mount is named with `auth/` on both sides.
    let to = match (from.as_str().starts_with("auth/"), to.strip_prefix("auth/")) {
        (true, Some(rest)) => rest.to_owned(),
        (false, None) => to,
        _ => return Err(CoreError::field("to", "must be of the same kind as \"from\"")),
    };
    let id = ctx.unsealed.mounts.rename(from.as_str(), &to).await?;
    Ok(Reply::data(json!({ "migration_id": id })).shaped(Shape::EnvelopeAndTop))
}

/// A move is done when it is answered, so those that are known have succeeded.
fn remount_status(ctx: &SystemContext<'_>, id: &str) -> Result<Reply, CoreError> {
    let mounts = ctx.unsealed.mounts.all();
    let mut moves =
        mounts.iter().filter_map(|mounted| Some((mounted, mounted.entry.moved.as_ref()?)));
    let (mounted, found) = moves.find(|(_, one)| one.id == id).ok_or(CoreError::NotFound)?;
    Ok(Reply::data(json!({
        "migration_id": id,
        "migration_info": {
            "source_mount": found.from.trim_end_matches('/'),
            "target_mount": mounted.entry.path.trim_end_matches('/'),
            "status": "success",
        },
    })))
}
