//! `identity/`: the entities behind certificates and tokens, and their groups, for administrators.
//!
//! A name that comes for the first time is an entity of its own. Others are made by hand and given
//! several names, and several are merged into one, which then has all that was issued to them.
//! Deleting one makes its tokens worthless in the same commit that decides on revoking its leases.

mod alias;
mod entity;
mod group;

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::core::acl::permit::Permit;
use crate::core::context::{SystemContext, SystemRoutes};
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::operation::Operation;
use crate::core::reply::Reply;
use crate::core::route::{Answer, FieldKind, FieldSpec, Params, RouteSpec, field, route};
use crate::core::token::policy_names;
use crate::types::id::{EntityId, MountAccessor};

/// Most notes on one thing.
const METADATA_MAX: usize = 64;
/// Longest note, key and value together, in bytes.
const METADATA_BYTES_MAX: usize = 1024;
/// Longest alias that can be stored beforehand, in bytes.
const ALIAS_BYTES_MAX: usize = 2200;
/// Longest name of an entity or group, in bytes.
const NAME_BYTES_MAX: usize = 512;
/// Most entities that are named in one request.
const BATCH_MAX: usize = 100;

const ENTITY_FIELDS: &[FieldSpec] = &[
    field("name", FieldKind::Text, "Its name; one is made up when it is left out."),
    field("id", FieldKind::Text, "The entity to change instead of making one."),
    field("disabled", FieldKind::Boolean, "Refuse it everywhere."),
    field("metadata", FieldKind::Map, "Notes, for people and for policies' templates."),
    field("policies", FieldKind::List, "Policies it has however it comes."),
];

const ENTITY: &[FieldSpec] = &[
    field("aliases", FieldKind::Objects(ALIAS), "The names that it stands for."),
    field("creation_time", FieldKind::Time, "When it was stored."),
    field("direct_group_ids", FieldKind::List, "The groups that list it."),
    field("disabled", FieldKind::Boolean, "Whether it is refused everywhere."),
    field("group_ids", FieldKind::List, "All its groups but those that a log-in names."),
    field("id", FieldKind::Text, "Its id."),
    field("inherited_group_ids", FieldKind::List, "The groups that its groups are in."),
    field("last_update_time", FieldKind::Time, "When it was last changed."),
    field("merged_entity_ids", FieldKind::List, "The entities that were merged into it."),
    field("metadata", FieldKind::Map, "Notes."),
    field("name", FieldKind::Text, "Its name."),
    field("namespace_id", FieldKind::Text, "Always root."),
    field("policies", FieldKind::List, "Its policies."),
];

const MADE_ENTITY: &[FieldSpec] = &[
    field("aliases", FieldKind::List, "Null: it has none yet.").or_null(),
    field("id", FieldKind::Text, "Its id."),
    field("name", FieldKind::Text, "Its name."),
];

const ALIAS_FIELDS: &[FieldSpec] = &[
    field("name", FieldKind::Text, "The alias, as the auth mount makes it."),
    field("mount_accessor", FieldKind::Text, "The auth mount."),
    field("canonical_id", FieldKind::Text, "The entity; left out, it is one of its own."),
    field("entity_id", FieldKind::Text, "As canonical_id."),
    field("id", FieldKind::Text, "The alias to change instead of storing one."),
    field("custom_metadata", FieldKind::Map, "Notes, for people and for policies' templates."),
];

const ALIAS: &[FieldSpec] = &[
    field("canonical_id", FieldKind::Text, "Its entity."),
    field("creation_time", FieldKind::Time, "When it was stored."),
    field("custom_metadata", FieldKind::Map, "What administrators noted."),
    field("id", FieldKind::Text, "Its id."),
    field("last_update_time", FieldKind::Time, "When it was last changed."),
    field("local", FieldKind::Boolean, "Always false."),
    field("merged_from_canonical_ids", FieldKind::List, "Always null.").or_null(),
    field("metadata", FieldKind::Map, "What the method noted."),
    field("mount_accessor", FieldKind::Text, "Its mount."),
    field("mount_path", FieldKind::Text, "Where that is mounted."),
    field("mount_type", FieldKind::Text, "Of which kind that is."),
    field("name", FieldKind::Text, "Its name there."),
];

const MADE_ALIAS: &[FieldSpec] = &[
    field("canonical_id", FieldKind::Text, "Its entity."),
    field("id", FieldKind::Text, "Its id."),
];

const GROUP_FIELDS: &[FieldSpec] = &[
    field("name", FieldKind::Text, "Its name; one is made up when it is left out."),
    field("id", FieldKind::Text, "The group to change instead of making one."),
    field("type", FieldKind::Text, "internal (default) or external; only when it is made."),
    field("metadata", FieldKind::Map, "Notes, for people and for policies' templates."),
    field("policies", FieldKind::List, "The policies of its members."),
    field("member_entity_ids", FieldKind::List, "The entities in it; internal groups only."),
    field("member_group_ids", FieldKind::List, "The groups whose members are its own, too."),
];

const GROUP: &[FieldSpec] = &[
    field("alias", FieldKind::Map, "What a method calls it; empty when none does."),
    field("creation_time", FieldKind::Time, "When it was made."),
    field("id", FieldKind::Text, "Its id."),
    field("last_update_time", FieldKind::Time, "When it was last changed."),
    field("member_entity_ids", FieldKind::List, "The entities that it lists."),
    field("member_group_ids", FieldKind::List, "The groups in it."),
    field("metadata", FieldKind::Map, "Notes."),
    field("name", FieldKind::Text, "Its name."),
    field("namespace_id", FieldKind::Text, "Always root."),
    field("parent_group_ids", FieldKind::List, "The groups that it is in."),
    field("policies", FieldKind::List, "The policies of its members."),
    field("type", FieldKind::Text, "internal or external."),
];

const MADE_GROUP: &[FieldSpec] =
    &[field("id", FieldKind::Text, "Its id."), field("name", FieldKind::Text, "Its name.")];

const GROUP_ALIAS_FIELDS: &[FieldSpec] = &[
    field("name", FieldKind::Text, "What the auth mount calls the group."),
    field("mount_accessor", FieldKind::Text, "The auth mount."),
    field("canonical_id", FieldKind::Text, "The external group."),
    field("id", FieldKind::Text, "The alias to change instead of storing one."),
];

const LOOKUP_FIELDS: &[FieldSpec] = &[
    field("id", FieldKind::Text, "By its id."),
    field("name", FieldKind::Text, "By its name."),
    field("alias_id", FieldKind::Text, "By the id of its alias."),
    field("alias_name", FieldKind::Text, "By its alias, with alias_mount_accessor."),
    field("alias_mount_accessor", FieldKind::Text, "The alias's auth mount."),
];

const MERGE_FIELDS: &[FieldSpec] = &[
    field("from_entity_ids", FieldKind::List, "The entities that go."),
    field("to_entity_id", FieldKind::Text, "The one that takes what they have."),
    field(
        "conflicting_alias_ids_to_keep",
        FieldKind::List,
        "Of aliases of the same mount, the ids of those that stay; the others are nobody's.",
    ),
    field("force", FieldKind::Boolean, "Of two MFA secrets, keep that of the one that stays."),
];

const LIST: &[Operation] = &[Operation::List];
const WRITE: &[Operation] = &[Operation::Update];
const READ_WRITE_DELETE: &[Operation] = &[Operation::Delete, Operation::Read, Operation::Update];
const ALL: &[Operation] =
    &[Operation::Create, Operation::Delete, Operation::Read, Operation::Update];

static ROUTES: &[RouteSpec] = &[
    route("entity-make", "entity", "Make an entity, or change one.", WRITE, ENTITY_FIELDS)
        .writes(Answer::Maybe(MADE_ENTITY)),
    route("entity-merge", "entity/merge", "Merge entities into one.", WRITE, MERGE_FIELDS),
    route(
        "entity-batch-delete",
        "entity/batch-delete",
        "Delete entities, revoking what was issued to them.",
        WRITE,
        &[field("entity_ids", FieldKind::List, "Their ids.")],
    ),
    route("entities", "entity/id", "The ids of all entities.", LIST, &[]),
    route("entity", "entity/id/:id", "One entity.", READ_WRITE_DELETE, ENTITY_FIELDS)
        .reads(Answer::Data(ENTITY)),
    route("entity-names", "entity/name", "The names of all entities.", LIST, &[]),
    route("entity-by-name", "entity/name/:name", "One entity.", ALL, ENTITY_FIELDS)
        .reads(Answer::Data(ENTITY))
        .writes(Answer::Maybe(MADE_ENTITY)),
    route("alias-make", "entity-alias", "Store an alias, or change one.", WRITE, ALIAS_FIELDS)
        .writes(Answer::Data(MADE_ALIAS)),
    route("aliases", "entity-alias/id", "The ids of all aliases.", LIST, &[]),
    route("alias", "entity-alias/id/:id", "One alias.", READ_WRITE_DELETE, ALIAS_FIELDS)
        .reads(Answer::Data(ALIAS))
        .writes(Answer::Data(MADE_ALIAS)),
    route("group-make", "group", "Make a group, or change one.", WRITE, GROUP_FIELDS)
        .writes(Answer::Data(MADE_GROUP)),
    route("groups", "group/id", "The ids of all groups.", LIST, &[]),
    route("group", "group/id/:id", "One group.", READ_WRITE_DELETE, GROUP_FIELDS)
        .reads(Answer::Data(GROUP))
        .writes(Answer::Data(MADE_GROUP)),
    route("group-names", "group/name", "The names of all groups.", LIST, &[]),
    route("group-by-name", "group/name/:name", "One group.", ALL, GROUP_FIELDS)
        .reads(Answer::Data(GROUP))
        .writes(Answer::Data(MADE_GROUP)),
    route(
        "group-alias-make",
        "group-alias",
        "Say what an auth mount calls a group.",
        WRITE,
        GROUP_ALIAS_FIELDS,
    )
    .writes(Answer::Data(MADE_ALIAS)),
    route("group-aliases", "group-alias/id", "The ids of all groups' aliases.", LIST, &[]),
    route(
        "group-alias",
        "group-alias/id/:id",
        "What an auth mount calls a group.",
        READ_WRITE_DELETE,
        GROUP_ALIAS_FIELDS,
    )
    .reads(Answer::Data(ALIAS))
    .writes(Answer::Data(MADE_ALIAS)),
    route("entity-lookup", "lookup/entity", "Find an entity.", WRITE, LOOKUP_FIELDS)
        .writes(Answer::Maybe(ENTITY)),
    route("group-lookup", "lookup/group", "Find a group.", WRITE, LOOKUP_FIELDS)
        .writes(Answer::Maybe(GROUP)),
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
        let name = params.get("name");
        Ok(match route.name {
            "entity-by-name" => Some(identity.by_name(name).await?.is_some()),
            "group-by-name" => Some(identity.groups().by_name(name).await?.is_some()),
            _ => None,
        })
    }

    async fn handle(
        &self,
        ctx: &SystemContext<'_>,
        _permit: &Permit,
        request: EngineRequest<'_>,
    ) -> Result<Reply, CoreError> {
        let fields = &request.fields;
        match request.route.name {
            "entity-make" => entity::make(ctx, fields).await,
            "entity-merge" => entity::merge(ctx, fields).await,
            "entity-batch-delete" => entity::batch_delete(ctx, fields).await,
            "entities" => entity::ids(ctx).await,
            "entity" => {
                let id = EntityId::new(request.params.get("id"));
                entity::serve(ctx, request.operation, &id, fields).await
            }
            "entity-names" => entity::names(ctx).await,
            "entity-by-name" => entity::by_name(ctx, &request).await,
            "entity-lookup" => entity::look_up(ctx, fields).await,
            "alias-make" => alias::make(ctx, fields).await,
            "aliases" => alias::ids(ctx).await,
            "alias" => alias::serve(ctx, &request).await,
            "group-make" => group::make(ctx, fields).await,
            "groups" => group::ids(ctx).await,
            "group" => {
                let id = request.params.get("id");
                group::serve(ctx, request.operation, id, fields).await
            }
            "group-names" => group::names(ctx).await,
            "group-by-name" => group::by_name(ctx, &request).await,
            "group-lookup" => group::look_up(ctx, fields).await,
            "group-alias-make" => group::make_alias(ctx, fields).await,
            "group-aliases" => group::alias_ids(ctx).await,
            "group-alias" => group::serve_alias(ctx, &request).await,
            _ => Err(CoreError::NotFound),
        }
    }
}

/// A name for an entity or group, when one is given.
fn name_of(fields: &Fields) -> Result<Option<String>, CoreError> {
    let Some(name) = fields.text("name")?.filter(|name| !name.is_empty()) else { return Ok(None) };
    let odd = |c: char| c.is_control() || c == '/';
    if name.len() > NAME_BYTES_MAX || name.contains(odd) || name.trim() != name {
        let problem = "is too long, has a slash or control character, or a space at an end";
        return Err(CoreError::field("name", problem));
    }
    Ok(Some(name))
}

fn metadata_of(fields: &Fields, name: &str) -> Result<Option<BTreeMap<String, String>>, CoreError> {
    let metadata = fields.string_map(name)?;
    let too_much = |metadata: &BTreeMap<String, String>| {
        metadata.len() > METADATA_MAX
            || metadata.iter().any(|(key, value)| key.len() + value.len() > METADATA_BYTES_MAX)
    };
    if metadata.as_ref().is_some_and(too_much) {
        let problem = "has more than 64 elements, or one beyond 1024 bytes";
        return Err(CoreError::field(name, problem));
    }
    Ok(metadata)
}

fn policies_of(fields: &Fields) -> Result<Option<Vec<String>>, CoreError> {
    let Some(list) = fields.list("policies")? else { return Ok(None) };
    let policies = policy_names("policies", &list)?;
    if policies.iter().any(|policy| policy == "root") {
        return Err(CoreError::field("policies", "must not contain the root policy"));
    }
    Ok(Some(policies))
}

/// The auth mount and the name in it that a request speaks of.
fn alias_of(
    ctx: &SystemContext<'_>,
    fields: &Fields,
) -> Result<(MountAccessor, String), CoreError> {
    let name = fields.required_text("name")?;
    let mount = MountAccessor::new(fields.required_text("mount_accessor")?);
    if name.len() > ALIAS_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(CoreError::field("name", "is too long or has a control character"));
    }
    let mounted = ctx.unsealed.mounts.by_accessor(&mount);
    if mounted.is_none_or(|mounted| mounted.method().is_err()) {
        return Err(CoreError::field("mount_accessor", "names no auth mount"));
    }
    Ok((mount, name))
}

/// Where the mount of an alias is and of which kind; it may be gone by now.
fn mount_of(ctx: &SystemContext<'_>, accessor: &MountAccessor) -> (String, String) {
    let mounted = ctx.unsealed.mounts.by_accessor(accessor);
    let entry = mounted.as_ref().map(|mounted| &mounted.entry);
    entry.map(|entry| (entry.path.clone(), entry.kind.clone())).unwrap_or_default()
}

/// The ids in a list of entities, of which there are not too many.
fn ids_of(fields: &Fields, name: &str) -> Result<Vec<EntityId>, CoreError> {
    let ids = fields.list(name)?.unwrap_or_default();
    if ids.is_empty() || ids.len() > BATCH_MAX {
        return Err(CoreError::field(name, format!("must have 1 to {BATCH_MAX} elements")));
    }
    Ok(ids.into_iter().map(EntityId::new).collect())
}
