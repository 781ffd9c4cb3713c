//! Entities with their aliases, and groups. Ids are each server's own, so names tie them together.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::copy::{Context, Mode, Said, differing};
use super::ledger::{Entry, Outcome};
use super::mounts::Mounted;
use super::side::Trouble;
use crate::cli::error::CliError;
use crate::cli::meaning::{is_unset, same};

const ENTITY: &str = "entity";
const ALIAS: &str = "entity alias";
const GROUP: &str = "group";
const NOTES: &str = "custom_metadata";

/// What ties the two servers together.
pub(super) struct Ties<'m> {
    /// Auth mounts of the source.
    pub(super) there: &'m [Mounted],
    /// Auth mounts here.
    pub(super) here: &'m [Mounted],
}

impl Ties<'_> {
    /// The accessor here of the mount that has `accessor` at the source.
    fn accessor(&self, accessor: &str) -> Option<&str> {
        let path = &self.there.iter().find(|mount| mount.accessor == accessor)?.path;
        let mount = self.here.iter().find(|mount| mount.path == *path)?;
        Some(&mount.accessor)
    }
}

/// An alias of the source, as this server would know it.
struct Alias {
    name: String,
    /// `None` when its mount is not here.
    accessor: Option<String>,
    /// What administrators noted of it, which policies' templates read.
    notes: Value,
}

impl Alias {
    /// What writes it here for the entity `id`.
    fn written(&self, accessor: &str, id: Option<&str>) -> Value {
        let mut body = json!({ "name": self.name, "mount_accessor": accessor });
        if let Value::Object(fields) = &mut body {
            fields.extend(id.map(|id| ("canonical_id".to_owned(), json!(id))));
            // Said even when there are none: what is left out stays.
            let notes = if self.notes.is_object() { self.notes.clone() } else { json!({}) };
            fields.insert(NOTES.to_owned(), notes);
        }
        body
    }
}

/// Copies or compares all entities and groups.
pub(super) async fn contents(ctx: &mut Context<'_>, ties: &Ties<'_>) -> Result<(), CliError> {
    let mut ids: BTreeMap<String, Option<String>> = BTreeMap::new();
    for id in ctx.names(ENTITY, "identity/entity/id").await? {
        let path = format!("identity/entity/id/{id}");
        if let Some(data) = ctx.there(ENTITY, &path).await? {
            let here = entity(ctx, ties, &data).await?;
            ids.insert(id, here);
        }
    }
    let mut groups = Vec::new();
    for id in ctx.names(GROUP, "identity/group/id").await? {
        if let Some(data) = ctx.there(GROUP, &format!("identity/group/id/{id}")).await? {
            groups.push((id, data));
        }
    }
    // Twice: a group can be a member of one that comes before it.
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for (id, data) in &groups {
        if let Some(here) = group(ctx, ties, data, &ids, None).await? {
            known.insert(id.clone(), here);
        }
    }
    for (_, data) in &groups {
        if has_groups(data) {
            group(ctx, ties, data, &ids, Some(&known)).await?;
        }
    }
    Ok(())
}

/// One entity; its id here, if it is here.
async fn entity(
    ctx: &mut Context<'_>,
    ties: &Ties<'_>,
    data: &Value,
) -> Result<Option<String>, CliError> {
    let name = text(data, "name");
    let path = format!("identity/entity/name/{name}");
    let aliases: Vec<Alias> = data
        .get("aliases")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|alias| Alias {
            name: text(alias, "name"),
            accessor: ties.accessor(&text(alias, "mount_accessor")).map(str::to_owned),
            notes: alias.get(NOTES).cloned().unwrap_or_default(),
        })
        .collect();
    let fields = fields(data, &["policies", "metadata", "disabled"]);
    let found = match find(ctx, &name, &aliases).await {
        Ok(found) => found,
        Err(trouble) => return ctx.refused(ENTITY, &path, trouble).map(|()| None),
    };
    let Some(found) = found else {
        return match ctx.mode {
            Mode::Compare => {
                let outcome = Outcome::Different("is not here".to_owned());
                ctx.ledger.add(Entry::new(ENTITY, path, outcome));
                Ok(None)
            }
            Mode::DryRun => {
                ctx.ledger.add(Entry::new(ENTITY, path, Outcome::Copied));
                Ok(None)
            }
            Mode::Copy => match create(ctx, &name, &aliases).await {
                Ok(Some(id)) => {
                    update(ctx, &path, &id, fields).await?;
                    self::aliases(ctx, &path, &id, &aliases, &Value::Null).await?;
                    Ok(Some(id))
                }
                Ok(None) => {
                    ctx.leave(Entry::left(
                        ENTITY,
                        path,
                        "this server makes entities when they log in, and none of its aliases is \
                         of a method that is here",
                        "mount the method, and run it again",
                    ));
                    Ok(None)
                }
                Err(trouble) => ctx.refused(ENTITY, &path, trouble).map(|()| None),
            },
        };
    };
    let id = text(&found, "id");
    let names = differing(&fields, &found);
    let outcome = match ctx.mode {
        Mode::Compare if names.is_empty() => Outcome::Equal,
        Mode::Copy | Mode::DryRun if names.is_empty() => Outcome::InPlace,
        Mode::Copy if ctx.overwrite => {
            update(ctx, &path, &id, fields).await?;
            self::aliases(ctx, &path, &id, &aliases, &found).await?;
            return Ok(Some(id));
        }
        Mode::Copy => Outcome::Kept,
        Mode::DryRun if ctx.overwrite => Outcome::Copied,
        Mode::DryRun | Mode::Compare => Outcome::Different(format!("{} differs", names.join(", "))),
    };
    ctx.ledger.add(Entry::new(ENTITY, path.clone(), outcome));
    self::aliases(ctx, &path, &id, &aliases, &found).await?;
    Ok(Some(id))
}

/// The entity here: by one of its aliases, which is who it is, else by its name.
async fn find(ctx: &Context<'_>, name: &str, aliases: &[Alias]) -> Result<Option<Value>, Trouble> {
    for alias in aliases {
        let Some(accessor) = &alias.accessor else { continue };
        let body = json!({ "alias_name": alias.name, "alias_mount_accessor": accessor });
        let found = look_up(ctx, "identity/lookup/entity", body).await?;
        if found.is_some() {
            return Ok(found);
        }
    }
    look_up(ctx, "identity/lookup/entity", json!({ "name": name })).await
}

async fn look_up(ctx: &Context<'_>, path: &str, body: Value) -> Result<Option<Value>, Trouble> {
    match ctx.target.write(path, body).await {
        Ok((_, data)) => Ok(Some(data).filter(|data| data.get("id").is_some())),
        Err(Trouble::Refused { status: 404, .. }) => Ok(None),
        Err(trouble) => Err(trouble),
    }
}

/// Makes the entity by its name, or where a server has none that never logged in, by its aliases.
async fn create(
    ctx: &Context<'_>,
    name: &str,
    aliases: &[Alias],
) -> Result<Option<String>, Trouble> {
    match ctx.target.write("identity/entity", json!({ "name": name })).await {
        Ok(_) => {}
        Err(Trouble::Refused { status: 404 | 405, .. }) => {
            let first = aliases.iter().find_map(|alias| Some((alias, alias.accessor.as_ref()?)));
            let Some((alias, accessor)) = first else { return Ok(None) };
            let body = alias.written(accessor, None);
            ctx.target.write("identity/entity-alias", body).await?;
        }
        Err(trouble) => return Err(trouble),
    }
    Ok(find(ctx, name, aliases).await?.map(|found| text(&found, "id")))
}

async fn update(
    ctx: &mut Context<'_>,
    path: &str,
    id: &str,
    fields: Map<String, Value>,
) -> Result<(), CliError> {
    match ctx.target.write(&format!("identity/entity/id/{id}"), Value::Object(fields)).await {
        Ok(_) => {
            ctx.ledger.add(Entry::new(ENTITY, path, Outcome::Copied));
            Ok(())
        }
        Err(trouble) => ctx.refused(ENTITY, path, trouble),
    }
}

/// Brings the aliases to the entity `id`, or compares them with those of `found`.
async fn aliases(
    ctx: &mut Context<'_>,
    path: &str,
    id: &str,
    aliases: &[Alias],
    found: &Value,
) -> Result<(), CliError> {
    let known = |alias: &Alias| {
        let mut all = found.get("aliases").and_then(Value::as_array).into_iter().flatten();
        all.find(|one| {
            text(one, "name") == alias.name && Some(text(one, "mount_accessor")) == alias.accessor
        })
    };
    for alias in aliases {
        let at = format!("{path} {}", alias.name);
        let Some(accessor) = &alias.accessor else {
            ctx.leave(Entry::left(
                ALIAS,
                at,
                "its auth method is not here",
                "mount the method, and run it again",
            ));
            continue;
        };
        let known = known(alias);
        let notes = known.map(|known| known.get(NOTES).unwrap_or(&Value::Null));
        let is_same = notes.map(|notes| same(NOTES, &alias.notes, notes));
        // As long as nothing is noted here, it is nobody's choice.
        let is_kept = notes.is_some_and(|notes| !is_unset(NOTES, notes)) && !ctx.overwrite;
        let differs = || Outcome::Different(format!("{NOTES} differs"));
        let outcome = match (ctx.mode, is_same) {
            (Mode::Compare, Some(true)) => Outcome::Equal,
            (Mode::Compare, Some(false)) => differs(),
            (Mode::Compare, None) => Outcome::Different("is not an alias of it here".to_owned()),
            (Mode::Copy | Mode::DryRun, Some(true)) => Outcome::InPlace,
            (Mode::Copy, Some(false)) if is_kept => Outcome::Kept,
            (Mode::DryRun, Some(false)) if is_kept => differs(),
            (Mode::DryRun, _) => Outcome::Copied,
            (Mode::Copy, _) => {
                let body = alias.written(accessor, Some(id));
                match ctx.target.write("identity/entity-alias", body).await {
                    Ok(_) => Outcome::Copied,
                    Err(trouble) => {
                        ctx.refused(ALIAS, &at, trouble)?;
                        continue;
                    }
                }
            }
        };
        ctx.ledger.add(Entry::new(ALIAS, at, outcome));
    }
    Ok(())
}

/// One group; its id here, if it is here. With `groups`, its member groups too.
async fn group(
    ctx: &mut Context<'_>,
    ties: &Ties<'_>,
    data: &Value,
    entities: &BTreeMap<String, Option<String>>,
    groups: Option<&BTreeMap<String, String>>,
) -> Result<Option<String>, CliError> {
    let name = text(data, "name");
    let path = format!("identity/group/name/{name}");
    let is_external = text(data, "type") == "external";
    let mut fields = fields(data, &["type", "policies", "metadata"]);
    let members = |list: &str| -> Vec<String> {
        let all = data.get(list).and_then(Value::as_array);
        all.into_iter().flatten().filter_map(|id| id.as_str().map(str::to_owned)).collect()
    };
    if !is_external {
        let ids = members("member_entity_ids");
        let here: Vec<&String> = ids.iter().filter_map(|id| entities.get(id)?.as_ref()).collect();
        fields.insert("member_entity_ids".to_owned(), json!(here));
    }
    if let Some(groups) = groups {
        let ids = members("member_group_ids");
        let here: Vec<&String> = ids.iter().filter_map(|id| groups.get(id)).collect();
        fields.insert("member_group_ids".to_owned(), json!(here));
    }
    // The second time round, what the first one wrote is to be completed, not kept.
    let overwrite = ctx.overwrite;
    ctx.overwrite = overwrite || groups.is_some();
    let settled = ctx.settle(GROUP, &path, &Said::only(fields), Map::new()).await;
    ctx.overwrite = overwrite;
    if !settled? {
        return Ok(None);
    }
    let found = match ctx.target.read(&path).await {
        Ok(found) => found,
        Err(trouble) => return ctx.refused(GROUP, &path, trouble).map(|()| None),
    };
    let id = found.as_ref().map(|found| text(found, "id"));
    if let (true, None, Some(id), Some(alias)) = (is_external, groups, &id, data.get("alias")) {
        group_alias(ctx, ties, &path, id, alias, found.as_ref()).await?;
    }
    Ok(id)
}

async fn group_alias(
    ctx: &mut Context<'_>,
    ties: &Ties<'_>,
    path: &str,
    id: &str,
    alias: &Value,
    found: Option<&Value>,
) -> Result<(), CliError> {
    let name = text(alias, "name");
    if name.is_empty() {
        return Ok(());
    }
    let at = format!("{path} {name}");
    let accessor = ties.accessor(&text(alias, "mount_accessor"));
    let Some(accessor) = accessor.map(str::to_owned) else {
        let next = "mount the method, and run it again";
        ctx.leave(Entry::left("group alias", at, "its auth method is not here", next));
        return Ok(());
    };
    let here = found.and_then(|found| found.get("alias"));
    let there = here
        .is_some_and(|here| text(here, "name") == name && text(here, "mount_accessor") == accessor);
    let outcome = match ctx.mode {
        Mode::Compare if there => Outcome::Equal,
        Mode::Compare => Outcome::Different("is not its alias here".to_owned()),
        Mode::Copy | Mode::DryRun if there => Outcome::InPlace,
        Mode::DryRun => Outcome::Copied,
        Mode::Copy => {
            let body = json!({ "name": name, "mount_accessor": accessor, "canonical_id": id });
            match ctx.target.write("identity/group-alias", body).await {
                Ok(_) => Outcome::Copied,
                Err(trouble) => return ctx.refused("group alias", &at, trouble),
            }
        }
    };
    ctx.ledger.add(Entry::new("group alias", at, outcome));
    Ok(())
}

fn has_groups(data: &Value) -> bool {
    data.get("member_group_ids").and_then(Value::as_array).is_some_and(|ids| !ids.is_empty())
}

fn fields(data: &Value, names: &[&str]) -> Map<String, Value> {
    let all = names.iter().filter_map(|name| {
        let value = data.get(*name).filter(|value| !value.is_null())?;
        Some(((*name).to_owned(), value.clone()))
    });
    all.collect()
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}
