//! `identity/`: the entities behind certificates and tokens, for administrators.
//!
//! Every identity of an auth mount is an entity of its own; there are no groups, and entities are
//! neither merged nor made by hand. One that has not come yet can be stored beforehand, with
//! `entity-alias`, to give it policies.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::core::acl::permit::Permit;
use crate::core::context::{SystemContext, SystemRoutes};
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::identity::Entity;
use crate::core::operation::Operation;
use crate::core::reply::Reply;
use crate::core::route::{Answer, FieldKind, FieldSpec, Params, RouteSpec, field, route};
use crate::core::token::policy_names;
use crate::types::id::{EntityId, MountAccessor};

/// Most notes on one entity.
const METADATA_MAX: usize = 64;
/// Longest note, key and value together, in bytes.
const METADATA_BYTES_MAX: usize = 1024;
/// Longest alias that can be stored beforehand, in bytes.
const ALIAS_BYTES_MAX: usize = 2200;

const UPDATE_FIELDS: &[FieldSpec] = &[
    field("disabled", FieldKind::Boolean, "Refuse it everywhere."),
    field("metadata", FieldKind::Map, "Notes, for people and for policies' templates."),
    field("policies", FieldKind::List, "Policies it has however it comes."),
];

const ENTITY: &[FieldSpec] = &[
    field("aliases", FieldKind::Objects(ALIAS), "The names it comes by."),
    field("creation_time", FieldKind::Time, "When it was made."),
    field("direct_group_ids", FieldKind::List, "Groups that name it."),
    field("disabled", FieldKind::Boolean, "Whether it is refused everywhere."),
    field("group_ids", FieldKind::List, "All groups that it is in."),
    field("id", FieldKind::Text, "Its id."),
    field("inherited_group_ids", FieldKind::List, "Groups that it is in by way of others."),
    field("last_update_time", FieldKind::Time, "When it was last changed."),
    field("metadata", FieldKind::Map, "Notes, for people and for policies' templates."),
    field("name", FieldKind::Text, "Its name."),
    field("policies", FieldKind::List, "Policies it has however it comes."),
];
const ALIAS: &[FieldSpec] = &[
    field("canonical_id", FieldKind::Text, "The entity."),
    field("creation_time", FieldKind::Time, "When it was made."),
    field("custom_metadata", FieldKind::Map, "Always empty."),
    field("id", FieldKind::Text, "Its id."),
    field("last_update_time", FieldKind::Time, "When it was last changed."),
    field("local", FieldKind::Boolean, "Always false."),
    field("merged_from_canonical_ids", FieldKind::List, "Entities that were merged.").or_null(),
    field("metadata", FieldKind::Map, "What the auth method notes."),
    field("mount_accessor", FieldKind::Text, "The auth mount."),
    field("mount_path", FieldKind::Text, "Its path; empty when it is gone."),
    field("mount_type", FieldKind::Text, "Its kind; empty when it is gone."),
    field("name", FieldKind::Text, "The name, as the auth mount makes it."),
];

const READ_WRITE: &[Operation] = &[Operation::Read, Operation::Update];

static ROUTES: &[RouteSpec] = &[
    route("entities", "entity/id", "The ids of all entities.", &[Operation::List], &[]),
    route("entity", "entity/id/:id", "One entity.", READ_WRITE, UPDATE_FIELDS)
        .reads(Answer::Data(ENTITY)),
    route("entity-names", "entity/name", "The names of all entities.", &[Operation::List], &[]),
    route("entity-by-name", "entity/name/:name", "One entity.", READ_WRITE, UPDATE_FIELDS)
        .reads(Answer::Data(ENTITY)),
    route(
        "entity-alias",
        "entity-alias",
        "Store the entity of a name that has not come yet.",
        &[Operation::Update],
        &[
            field("name", FieldKind::Text, "The alias, as the auth mount makes it."),
            field("mount_accessor", FieldKind::Text, "The auth mount."),
        ],
    )
    .writes(Answer::Data(&[
        field("canonical_id", FieldKind::Text, "The entity."),
        field("id", FieldKind::Text, "The alias."),
    ])),
    route(
        "entity-lookup",
        "lookup/entity",
        "Find an entity.",
        &[Operation::Update],
        &[
            field("id", FieldKind::Text, "By its id."),
            field("name", FieldKind::Text, "By its name."),
            field("alias_name", FieldKind::Text, "By its alias, with alias_mount_accessor."),
            field("alias_mount_accessor", FieldKind::Text, "The alias's auth mount."),
        ],
    )
    .writes(Answer::Maybe(ENTITY)),
];

/// The table.
pub struct IdentityRoutes;

#[async_trait]
impl SystemRoutes for IdentityRoutes {
    fn prefix(&self) -> &'static str {
        "identity/"
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
        let identity = &ctx.unsealed.identity;
        Ok(match route.name {
            "entity" => Some(identity.get(&EntityId::new(params.get("id"))).await?.is_some()),
            "entity-by-name" => Some(identity.by_name(params.get("name")).await?.is_some()),
            _ => None,
        })
    }

    async fn handle(
        &self,
        ctx: &SystemContext<'_>,
        _permit: &Permit,
        request: EngineRequest<'_>,
    ) -> Result<Reply, CoreError> {
        let identity = &ctx.unsealed.identity;
        let fields = &request.fields;
        match request.route.name {
            "entities" => Reply::listing(identity.ids().await?),
            "entity-names" => {
                let mut names: Vec<_> =
                    identity.all().await?.into_iter().map(|entity| entity.name).collect();
                names.sort_unstable();
                Reply::listing(names)
            }
            "entity" => {
                let id = EntityId::new(request.params.get("id"));
                serve(ctx, request.operation, &id, fields).await
            }
            "entity-by-name" => {
                let found = identity.by_name(request.params.get("name")).await?;
                let id = found.ok_or(CoreError::NotFound)?.id.clone();
                serve(ctx, request.operation, &id, fields).await
            }
            "entity-alias" => store_alias(ctx, fields).await,
            "entity-lookup" => look_up(ctx, fields).await,
            _ => Err(CoreError::NotFound),
        }
    }
}

async fn serve(
    ctx: &SystemContext<'_>,
    operation: Operation,
    id: &EntityId,
    fields: &Fields,
) -> Result<Reply, CoreError> {
    let identity = &ctx.unsealed.identity;
    if operation == Operation::Read {
        let entity = identity.get(id).await?.ok_or(CoreError::NotFound)?;
        return Ok(Reply::data(shown(ctx, &entity)));
    }
    let disabled = fields.boolean("disabled")?;
    let metadata = fields.string_map("metadata")?;
    if metadata.as_ref().is_some_and(too_much) {
        let problem = "has more than 64 elements, or one beyond 1024 bytes";
        return Err(CoreError::field("metadata", problem));
    }
    let policies = match fields.list("policies")? {
        Some(list) => Some(policy_names("policies", &list)?),
        None => None,
    };
    if policies.iter().flatten().any(|policy| policy == "root") {
        return Err(CoreError::field("policies", "must not contain the root policy"));
    }
    identity
        .update(id, |entity| {
            if let Some(disabled) = disabled {
                entity.disabled = disabled;
            }
            if let Some(metadata) = &metadata {
                entity.metadata.clone_from(metadata);
            }
            if let Some(policies) = &policies {
                entity.policies.clone_from(policies);
            }
            Ok(())
        })
        .await?;
    Ok(Reply::empty())
}

async fn store_alias(ctx: &SystemContext<'_>, fields: &Fields) -> Result<Reply, CoreError> {
    let name = fields.required_text("name")?;
    let mount = MountAccessor::new(fields.required_text("mount_accessor")?);
    if name.len() > ALIAS_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(CoreError::field("name", "is too long or has a control character"));
    }
    let mounted = ctx.unsealed.mounts.by_accessor(&mount);
    if mounted.is_none_or(|mounted| mounted.method().is_err()) {
        return Err(CoreError::field("mount_accessor", "names no auth mount"));
    }
    let entity = ctx.unsealed.identity.resolve_alias(&mount, &name, &BTreeMap::new()).await?;
    if ctx.unsealed.identity.get(&entity.id).await?.is_none() {
        ctx.unsealed.identity.ensure(&entity).await?;
    }
    Ok(Reply::data(json!({ "id": entity.id, "canonical_id": entity.id })))
}

async fn look_up(ctx: &SystemContext<'_>, fields: &Fields) -> Result<Reply, CoreError> {
    let identity = &ctx.unsealed.identity;
    let alias = (fields.text("alias_name")?, fields.text("alias_mount_accessor")?);
    let found = match (fields.text("id")?, fields.text("name")?, alias) {
        (Some(id), _, _) => identity.get(&EntityId::new(id)).await?,
        (None, Some(name), _) => identity.by_name(&name).await?,
        (None, None, (Some(alias), Some(mount))) => {
            identity.get(&identity.id_of(&MountAccessor::new(mount), &alias)).await?
        }
        (None, None, (_, _)) => {
            let problem = "is required, or name, or alias_name with alias_mount_accessor";
            return Err(CoreError::field("id", problem));
        }
    };
    Ok(found.map_or_else(Reply::empty, |entity| Reply::data(shown(ctx, &entity))))
}

fn too_much(metadata: &BTreeMap<String, String>) -> bool {
    metadata.len() > METADATA_MAX
        || metadata.iter().any(|(key, value)| key.len() + value.len() > METADATA_BYTES_MAX)
}

fn shown(ctx: &SystemContext<'_>, entity: &Entity) -> Value {
    let alias = &entity.alias;
    // The mount may be gone by now.
    let mounted = ctx.unsealed.mounts.by_accessor(&alias.mount_accessor);
    let mount = mounted.as_ref().map(|mounted| &mounted.entry);
    json!({
        "aliases": [{
            "canonical_id": entity.id,
            "creation_time": entity.created_at.to_rfc3339(),
            "custom_metadata": {},
            "id": entity.id,
            "last_update_time": entity.updated_at.to_rfc3339(),
            "local": false,
            "merged_from_canonical_ids": null,
            "metadata": alias.metadata,
            "mount_accessor": alias.mount_accessor,
            "mount_path": mount.map(|entry| entry.path.as_str()).unwrap_or_default(),
            "mount_type": mount.map(|entry| entry.kind.as_str()).unwrap_or_default(),
            "name": alias.name,
        }],
        "creation_time": entity.created_at.to_rfc3339(),
        "direct_group_ids": [],
        "disabled": entity.disabled,
        "group_ids": [],
        "id": entity.id,
        "inherited_group_ids": [],
        "last_update_time": entity.updated_at.to_rfc3339(),
        "metadata": entity.metadata,
        "name": entity.name,
        "policies": entity.policies,
    })
}
