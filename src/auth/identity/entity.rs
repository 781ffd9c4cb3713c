//! Entities.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::core::context::SystemContext;
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::identity::{Entity, EntityEdit, Group, Merge};
use crate::core::lease::Selector;
use crate::core::operation::Operation;
use crate::core::reply::Reply;
use crate::types::id::EntityId;

use super::{alias, ids_of, metadata_of, name_of, policies_of};

fn edit_of(fields: &Fields) -> Result<EntityEdit, CoreError> {
    Ok(EntityEdit {
        name: name_of(fields)?,
        metadata: metadata_of(fields, "metadata")?,
        policies: policies_of(fields)?,
        disabled: fields.boolean("disabled")?,
    })
}

/// Changes the entity that the request names, by id or name, or else makes one.
pub(super) async fn make(ctx: &SystemContext<'_>, fields: &Fields) -> Result<Reply, CoreError> {
    let identity = &ctx.unsealed.identity;
    let edit = edit_of(fields)?;
    let known = match (fields.text("id")?.filter(|id| !id.is_empty()), &edit.name) {
        (Some(id), _) => {
            let missing = || CoreError::field("id", "is not the id of an entity");
            Some(identity.get(&EntityId::new(id)).await?.ok_or_else(missing)?)
        }
        (None, Some(name)) => identity.by_name(name).await?,
        (None, None) => None,
    };
    put(ctx, known.map(|entity| entity.id.clone()), edit).await
}

async fn put(
    ctx: &SystemContext<'_>,
    known: Option<EntityId>,
    edit: EntityEdit,
) -> Result<Reply, CoreError> {
    let identity = &ctx.unsealed.identity;
    match known {
        Some(id) => identity.update(&id, &edit).await.map(|_| Reply::empty()),
        None => {
            let made = identity.create(&edit).await?;
            Ok(Reply::data(json!({ "aliases": null, "id": made.id, "name": made.name })))
        }
    }
}

pub(super) async fn ids(ctx: &SystemContext<'_>) -> Result<Reply, CoreError> {
    let all = ctx.unsealed.identity.all().await?;
    Reply::listing(all.into_iter().map(|entity| entity.id.to_string()).collect())
}

pub(super) async fn names(ctx: &SystemContext<'_>) -> Result<Reply, CoreError> {
    let all = ctx.unsealed.identity.all().await?;
    let mut names: Vec<_> = all.into_iter().map(|entity| entity.name).collect();
    names.sort_unstable();
    Reply::listing(names)
}

pub(super) async fn serve(
    ctx: &SystemContext<'_>,
    operation: Operation,
    id: &EntityId,
    fields: &Fields,
) -> Result<Reply, CoreError> {
    let identity = &ctx.unsealed.identity;
    match operation {
        Operation::Read => {
            let entity = identity.get(id).await?.ok_or(CoreError::NotFound)?;
            shown(ctx, &entity).await.map(Reply::data)
        }
        Operation::Delete => match delete(ctx, id).await {
            Err(CoreError::NotFound) => Ok(Reply::empty()),
            done => done.map(|()| Reply::empty()),
        },
        Operation::Create | Operation::List | Operation::Patch | Operation::Update => {
            identity.update(id, &edit_of(fields)?).await.map(|_| Reply::empty())
        }
    }
}

pub(super) async fn by_name(
    ctx: &SystemContext<'_>,
    request: &EngineRequest<'_>,
) -> Result<Reply, CoreError> {
    let name = request.params.get("name");
    let known = ctx.unsealed.identity.by_name(name).await?.map(|entity| entity.id.clone());
    match (request.operation, known) {
        (Operation::Read | Operation::Delete, Some(id)) => {
            serve(ctx, request.operation, &id, &request.fields).await
        }
        (Operation::Read, None) => Err(CoreError::NotFound),
        (Operation::Delete, None) => Ok(Reply::empty()),
        (_, known) => {
            let mut edit = edit_of(&request.fields)?;
            if known.is_none() {
                let named = Fields::new([("name".to_owned(), json!(name))].into_iter().collect());
                edit.name = name_of(&named)?;
            }
            put(ctx, known, edit).await
        }
    }
}

/// Deletes an entity: its tokens count no more, and the revocation of its leases is decided on, in one
/// commit.
async fn delete(ctx: &SystemContext<'_>, id: &EntityId) -> Result<(), CoreError> {
    let leases = &ctx.unsealed.leases;
    let decided = ctx
        .unsealed
        .identity
        .delete(id, |batch, ids| leases.decide_on(batch, Selector::Entities(ids)))
        .await?;
    // Before the leases are marked, which can take a while.
    ctx.unsealed.callers.forget();
    leases.carry_out(decided).await.map(|_| ())
}

pub(super) async fn batch_delete(
    ctx: &SystemContext<'_>,
    fields: &Fields,
) -> Result<Reply, CoreError> {
    for id in ids_of(fields, "entity_ids")? {
        match delete(ctx, &id).await {
            Ok(()) | Err(CoreError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Reply::empty())
}

pub(super) async fn merge(ctx: &SystemContext<'_>, fields: &Fields) -> Result<Reply, CoreError> {
    let merge = Merge {
        from: ids_of(fields, "from_entity_ids")?,
        to: EntityId::new(fields.required_text("to_entity_id")?),
        keep: fields.list("conflicting_alias_ids_to_keep")?.unwrap_or_default(),
        force: fields.boolean("force")?.unwrap_or(false),
    };
    ctx.unsealed.identity.merge(&merge).await?;
    Ok(Reply::empty())
}

pub(super) async fn look_up(ctx: &SystemContext<'_>, fields: &Fields) -> Result<Reply, CoreError> {
    let identity = &ctx.unsealed.identity;
    let alias = alias::looked_up(fields, |mount, name| identity.alias_id(mount, name))?;
    let found = match (fields.text("id")?, fields.text("name")?, alias) {
        (Some(id), ..) => identity.get(&EntityId::new(id)).await?,
        (None, Some(name), _) => identity.by_name(&name).await?,
        (None, None, Some(alias)) => identity.by_alias(&alias).await?,
        (None, None, None) => {
            let problem = "is required, or name, alias_id, or alias_name with alias_mount_accessor";
            return Err(CoreError::field("id", problem));
        }
    };
    match found {
        Some(entity) => shown(ctx, &entity).await.map(Reply::data),
        None => Ok(Reply::empty()),
    }
}

async fn shown(ctx: &SystemContext<'_>, entity: &Entity) -> Result<Value, CoreError> {
    let memberships = ctx.unsealed.identity.groups().memberships(entity, &[]).await?;
    let ids = |groups: &[Arc<Group>]| -> Vec<String> {
        groups.iter().map(|group| group.id.clone()).collect()
    };
    let all: Vec<_> = memberships.all().map(|group| group.id.clone()).collect();
    let aliases: Vec<_> =
        entity.aliases.iter().map(|known| alias::shown(ctx, &entity.id, known)).collect();
    Ok(json!({
        "aliases": aliases,
        "creation_time": entity.created_at.to_rfc3339(),
        "direct_group_ids": ids(&memberships.direct),
        "disabled": entity.disabled,
        "group_ids": all,
        "id": entity.id,
        "inherited_group_ids": ids(&memberships.inherited),
        "last_update_time": entity.updated_at.to_rfc3339(),
        "merged_entity_ids": entity.merged_from,
        "metadata": entity.metadata,
        "name": entity.name,
        "namespace_id": "root",
        "policies": entity.policies,
    }))
}
