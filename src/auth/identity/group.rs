//! Groups, and what auth mounts call them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::core::context::SystemContext;
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::identity::{Group, GroupAlias, GroupEdit, GroupKind};
use crate::core::operation::Operation;
use crate::core::reply::Reply;
use crate::types::id::EntityId;

use super::alias::looked_up;
use super::{alias_of, metadata_of, mount_of, name_of, policies_of};

async fn edit_of(ctx: &SystemContext<'_>, fields: &Fields) -> Result<GroupEdit, CoreError> {
    let kind = match fields.text("type")?.filter(|kind| !kind.is_empty()) {
        Some(kind) => {
            let unknown = || CoreError::field("type", "must be internal or external");
            Some(GroupKind::parse(&kind).ok_or_else(unknown)?)
        }
        None => None,
    };
    let member_entity_ids = match fields.list("member_entity_ids")? {
        Some(ids) => Some(entities(ctx, ids).await?),
        None => None,
    };
    Ok(GroupEdit {
        name: name_of(fields)?,
        kind,
        policies: policies_of(fields)?,
        metadata: metadata_of(fields, "metadata")?,
        member_entity_ids,
        member_group_ids: fields.list("member_group_ids")?.map(|ids| ids.into_iter().collect()),
    })
}

/// The entities' own ids, each of which must be there.
async fn entities(
    ctx: &SystemContext<'_>,
    ids: Vec<String>,
) -> Result<BTreeSet<EntityId>, CoreError> {
    let mut members = BTreeSet::new();
    for id in ids {
        let found = ctx.unsealed.identity.get(&EntityId::new(id)).await?;
        let problem = "names an entity that is not there";
        let entity = found.ok_or_else(|| CoreError::field("member_entity_ids", problem))?;
        members.insert(entity.id.clone());
    }
    Ok(members)
}

/// Changes the group that the request names, by id or name, or else makes one.
pub(super) async fn make(ctx: &SystemContext<'_>, fields: &Fields) -> Result<Reply, CoreError> {
    let groups = ctx.unsealed.identity.groups();
    let edit = edit_of(ctx, fields).await?;
    let known = match (fields.text("id")?.filter(|id| !id.is_empty()), &edit.name) {
        (Some(id), _) => {
            let missing = || CoreError::field("id", "is not the id of a group");
            Some(groups.get(&id).await?.ok_or_else(missing)?)
        }
        (None, Some(name)) => groups.by_name(name).await?,
        (None, None) => None,
    };
    put(ctx, known.map(|group| group.id.clone()), edit).await
}

async fn put(
    ctx: &SystemContext<'_>,
    known: Option<String>,
    edit: GroupEdit,
) -> Result<Reply, CoreError> {
    let groups = ctx.unsealed.identity.groups();
    let group = match known {
        Some(id) => groups.update(&id, &edit).await?,
        None => groups.create(&edit).await?,
    };
    Ok(Reply::data(json!({ "id": group.id, "name": group.name })))
}

pub(super) async fn ids(ctx: &SystemContext<'_>) -> Result<Reply, CoreError> {
    let all = ctx.unsealed.identity.groups().all().await?;
    Reply::listing(all.iter().map(|group| group.id.clone()).collect())
}

pub(super) async fn names(ctx: &SystemContext<'_>) -> Result<Reply, CoreError> {
    let all = ctx.unsealed.identity.groups().all().await?;
    let mut names: Vec<_> = all.iter().map(|group| group.name.clone()).collect();
    names.sort_unstable();
    Reply::listing(names)
}

pub(super) async fn serve(
    ctx: &SystemContext<'_>,
    operation: Operation,
    id: &str,
    fields: &Fields,
) -> Result<Reply, CoreError> {
    let groups = ctx.unsealed.identity.groups();
    match operation {
        Operation::Read => {
            let group = groups.get(id).await?.ok_or(CoreError::NotFound)?;
            shown(ctx, &group).await.map(Reply::data)
        }
        Operation::Delete => groups.delete(id).await.map(|()| Reply::empty()),
        Operation::Create | Operation::List | Operation::Patch | Operation::Update => {
            put(ctx, Some(id.to_owned()), edit_of(ctx, fields).await?).await
        }
    }
}

pub(super) async fn by_name(
    ctx: &SystemContext<'_>,
    request: &EngineRequest<'_>,
) -> Result<Reply, CoreError> {
    let name = request.params.get("name");
    let known = ctx.unsealed.identity.groups().by_name(name).await?;
    let known = known.map(|group| group.id.clone());
    match (request.operation, known) {
        (Operation::Read | Operation::Delete, Some(id)) => {
            serve(ctx, request.operation, &id, &request.fields).await
        }
        (Operation::Read, None) => Err(CoreError::NotFound),
        (Operation::Delete, None) => Ok(Reply::empty()),
        (_, known) => {
            let mut edit = edit_of(ctx, &request.fields).await?;
            if known.is_none() {
                let named = Fields::new([("name".to_owned(), json!(name))].into_iter().collect());
                edit.name = name_of(&named)?;
            }
            put(ctx, known, edit).await
        }
    }
}

pub(super) async fn look_up(ctx: &SystemContext<'_>, fields: &Fields) -> Result<Reply, CoreError> {
    let groups = ctx.unsealed.identity.groups();
    let alias = looked_up(fields, |mount, name| groups.alias_id(mount, name))?;
    let found = match (fields.text("id")?, fields.text("name")?, alias) {
        (Some(id), ..) => groups.get(&id).await?,
        (None, Some(name), _) => groups.by_name(&name).await?,
        (None, None, Some(alias)) => groups.by_alias(&alias).await?,
        (None, None, None) => {
            let problem = "is required, or name, alias_id, or alias_name with alias_mount_accessor";
            return Err(CoreError::field("id", problem));
        }
    };
    match found {
        Some(group) => shown(ctx, &group).await.map(Reply::data),
        None => Ok(Reply::empty()),
    }
}

/// Says what a mount calls a group, or changes the alias that the request names.
pub(super) async fn make_alias(
    ctx: &SystemContext<'_>,
    fields: &Fields,
) -> Result<Reply, CoreError> {
    if let Some(id) = fields.text("id")?.filter(|id| !id.is_empty()) {
        return change_alias(ctx, &id, fields).await;
    }
    let (mount, name) = alias_of(ctx, fields)?;
    let group = fields.required_text("canonical_id")?;
    let id = ctx.unsealed.identity.groups().put_alias(&group, &mount, &name).await?;
    Ok(Reply::data(json!({ "canonical_id": group, "id": id })))
}

async fn change_alias(
    ctx: &SystemContext<'_>,
    id: &str,
    fields: &Fields,
) -> Result<Reply, CoreError> {
    let groups = ctx.unsealed.identity.groups();
    let group = groups.by_alias(id).await?.ok_or(CoreError::NotFound)?;
    let known = group.alias.as_ref().ok_or(CoreError::NotFound)?;
    let mut whole = fields.only(&["name", "mount_accessor"]).into_map();
    whole.entry("name").or_insert_with(|| json!(known.name));
    whole.entry("mount_accessor").or_insert_with(|| json!(known.mount_accessor));
    let (mount, name) = alias_of(ctx, &Fields::new(whole))?;
    let target = fields.text("canonical_id")?.filter(|id| !id.is_empty());
    let target = target.unwrap_or_else(|| group.id.clone());
    if target != group.id {
        return Err(CoreError::field("canonical_id", "is another group: delete the alias first"));
    }
    let id = groups.put_alias(&target, &mount, &name).await?;
    Ok(Reply::data(json!({ "canonical_id": target, "id": id })))
}

pub(super) async fn alias_ids(ctx: &SystemContext<'_>) -> Result<Reply, CoreError> {
    let all = ctx.unsealed.identity.groups().all().await?;
    let mut ids: Vec<_> =
        all.iter().filter_map(|group| group.alias.as_ref()).map(|alias| alias.id.clone()).collect();
    ids.sort_unstable();
    Reply::listing(ids)
}

pub(super) async fn serve_alias(
    ctx: &SystemContext<'_>,
    request: &EngineRequest<'_>,
) -> Result<Reply, CoreError> {
    let (groups, id) = (ctx.unsealed.identity.groups(), request.params.get("id"));
    match request.operation {
        Operation::Read => {
            let group = groups.by_alias(id).await?.ok_or(CoreError::NotFound)?;
            let alias = group.alias.as_ref().ok_or(CoreError::NotFound)?;
            Ok(Reply::data(shown_alias(ctx, &group.id, alias)))
        }
        Operation::Delete => groups.delete_alias(id).await.map(|()| Reply::empty()),
        Operation::Create | Operation::List | Operation::Patch | Operation::Update => {
            change_alias(ctx, id, &request.fields).await
        }
    }
}

async fn shown(ctx: &SystemContext<'_>, group: &Group) -> Result<Value, CoreError> {
    let identity = &ctx.unsealed.identity;
    // Some may have been merged into others, or deleted, since they were listed.
    let mut members = BTreeSet::new();
    for id in &group.member_entity_ids {
        members.extend(identity.get(id).await?.map(|entity| entity.id.clone()));
    }
    let alias = group.alias.as_ref().map(|alias| shown_alias(ctx, &group.id, alias));
    Ok(json!({
        "alias": alias.unwrap_or_else(|| json!({})),
        "creation_time": group.created_at.to_rfc3339(),
        "id": group.id,
        "last_update_time": group.updated_at.to_rfc3339(),
        "member_entity_ids": members,
        "member_group_ids": group.member_group_ids,
        "metadata": group.metadata,
        "name": group.name,
        "namespace_id": "root",
        "parent_group_ids": identity.groups().parents(&group.id).await?,
        "policies": group.policies,
        "type": group.kind.as_str(),
    }))
}

fn shown_alias(ctx: &SystemContext<'_>, group: &str, alias: &GroupAlias) -> Value {
    let (path, kind) = mount_of(ctx, &alias.mount_accessor);
    json!({
        "canonical_id": group,
        "creation_time": alias.created_at.to_rfc3339(),
        "custom_metadata": {},
        "id": alias.id,
        "last_update_time": alias.updated_at.to_rfc3339(),
        "local": false,
        "merged_from_canonical_ids": null,
        "metadata": {},
        "mount_accessor": alias.mount_accessor,
        "mount_path": path,
        "mount_type": kind,
        "name": alias.name,
    })
}
