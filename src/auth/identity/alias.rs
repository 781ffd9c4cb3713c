//! The names that entities have in auth mounts.

use serde_json::{Value, json};

use crate::core::context::SystemContext;
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::identity::{Alias, AliasEdit};
use crate::core::operation::Operation;
use crate::core::reply::Reply;
use crate::types::id::{EntityId, MountAccessor};

use super::{alias_of, metadata_of, mount_of};

fn canonical_of(fields: &Fields) -> Result<Option<EntityId>, CoreError> {
    for name in ["canonical_id", "entity_id"] {
        if let Some(id) = fields.text(name)?.filter(|id| !id.is_empty()) {
            return Ok(Some(EntityId::new(id)));
        }
    }
    Ok(None)
}

/// Stores an alias, or changes the one that the request names.
pub(super) async fn make(ctx: &SystemContext<'_>, fields: &Fields) -> Result<Reply, CoreError> {
    if let Some(id) = fields.text("id")?.filter(|id| !id.is_empty()) {
        return change(ctx, &id, fields).await;
    }
    let (mount_accessor, name) = alias_of(ctx, fields)?;
    let edit = AliasEdit {
        mount_accessor,
        name,
        custom_metadata: metadata_of(fields, "custom_metadata")?,
        canonical: canonical_of(fields)?,
    };
    let (id, entity) = ctx.unsealed.identity.put_alias(&edit).await?;
    Ok(Reply::data(json!({ "canonical_id": entity, "id": id })))
}

async fn change(ctx: &SystemContext<'_>, id: &str, fields: &Fields) -> Result<Reply, CoreError> {
    let identity = &ctx.unsealed.identity;
    let entity = identity.by_alias(id).await?.ok_or(CoreError::NotFound)?;
    let known = entity.alias(id).ok_or(CoreError::NotFound)?;
    let mut whole = fields.only(&["name", "mount_accessor"]).into_map();
    whole.entry("name").or_insert_with(|| json!(known.name));
    whole.entry("mount_accessor").or_insert_with(|| json!(known.mount_accessor));
    let (mount_accessor, name) = alias_of(ctx, &Fields::new(whole))?;
    let edit = AliasEdit {
        mount_accessor,
        name,
        custom_metadata: metadata_of(fields, "custom_metadata")?,
        canonical: canonical_of(fields)?,
    };
    let (id, entity) = identity.change_alias(id, &edit).await?;
    Ok(Reply::data(json!({ "canonical_id": entity, "id": id })))
}

pub(super) async fn ids(ctx: &SystemContext<'_>) -> Result<Reply, CoreError> {
    let all = ctx.unsealed.identity.all().await?;
    let mut ids: Vec<_> =
        all.into_iter().flat_map(|entity| entity.aliases).map(|alias| alias.id).collect();
    ids.sort_unstable();
    Reply::listing(ids)
}

pub(super) async fn serve(
    ctx: &SystemContext<'_>,
    request: &EngineRequest<'_>,
) -> Result<Reply, CoreError> {
    let (identity, id) = (&ctx.unsealed.identity, request.params.get("id"));
    match request.operation {
        Operation::Read => {
            let entity = identity.by_alias(id).await?.ok_or(CoreError::NotFound)?;
            let known = entity.alias(id).ok_or(CoreError::NotFound)?;
            Ok(Reply::data(shown(ctx, &entity.id, known)))
        }
        Operation::Delete => identity.delete_alias(id).await.map(|_| Reply::empty()),
        Operation::Create | Operation::List | Operation::Patch | Operation::Update => {
            change(ctx, id, &request.fields).await
        }
    }
}

pub(super) fn shown(ctx: &SystemContext<'_>, entity: &EntityId, alias: &Alias) -> Value {
    let (path, kind) = mount_of(ctx, &alias.mount_accessor);
    json!({
        "canonical_id": entity,
        "creation_time": alias.created_at.to_rfc3339(),
        "custom_metadata": alias.custom_metadata,
        "id": alias.id,
        "last_update_time": alias.updated_at.to_rfc3339(),
        "local": false,
        "merged_from_canonical_ids": null,
        "metadata": alias.metadata,
        "mount_accessor": alias.mount_accessor,
        "mount_path": path,
        "mount_type": kind,
        "name": alias.name,
    })
}

/// The id of the alias that a look-up names.
pub(super) fn looked_up(
    fields: &Fields,
    id_of: impl Fn(&MountAccessor, &str) -> String,
) -> Result<Option<String>, CoreError> {
    if let Some(id) = fields.text("alias_id")? {
        return Ok(Some(id));
    }
    let alias = (fields.text("alias_mount_accessor")?, fields.text("alias_name")?);
    let (Some(mount), Some(name)) = alias else { return Ok(None) };
    Ok(Some(id_of(&MountAccessor::new(mount), &name)))
}
