//! Groups: policies for many entities at once.
//!
//! All groups are kept in memory, because every caller's standing asks for them. Changes are
//! conditional upon one record that each of them counts up, so that what is checked over all groups
//! (names, aliases, circles) still holds when it is written, on whichever node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::core::error::CoreError;
use crate::core::records::{Batch, Precondition, Records, kinds};
use crate::core::view::{Entry, PutOptions, View};
use crate::storage::StorageError;
use crate::types::id::{EntityId, MountAccessor, NamespaceId, random_uuid};
use crate::types::time::{Clock, Timestamp};

use super::entity::Entity;
use super::snapshot::Snapshot;
use super::{ATTEMPTS, uuid_of};

/// Most groups.
pub const GROUPS_MAX: usize = 10_000;
/// Most entities that one group lists, and most groups.
pub const MEMBERS_MAX: usize = 4096;
/// How many groups can be nested into each other.
pub const NESTING_MAX: usize = 16;
/// What changes count up.
const TURN: &str = "turn";

/// Where a group's members come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupKind {
    /// A method says at log-in who is in it.
    External,
    /// It lists them.
    Internal,
}

impl GroupKind {
    /// Reads `internal` or `external`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "external" => Some(Self::External),
            "internal" => Some(Self::Internal),
            _ => None,
        }
    }

    /// `internal` or `external`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::External => "external",
            Self::Internal => "internal",
        }
    }
}

/// What an external group is called by a method.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupAlias {
    /// A keyed hash of the mount and the name.
    pub id: String,
    /// The mount.
    pub mount_accessor: MountAccessor,
    /// The name, as the method says it.
    pub name: String,
    /// When it was stored.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// A UUID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where its members come from.
    pub kind: GroupKind,
    /// The policies of its members.
    #[serde(default)]
    pub policies: Vec<String>,
    /// What administrators noted.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// The entities that it lists.
    #[serde(default)]
    pub member_entity_ids: BTreeSet<EntityId>,
    /// The groups whose members are its own, too.
    #[serde(default)]
    pub member_group_ids: BTreeSet<String>,
    /// What a method calls it; external groups only.
    #[serde(default)]
    pub alias: Option<GroupAlias>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// What is to be changed of a group; `None` leaves it.
#[derive(Clone, Debug, Default)]
pub struct GroupEdit {
    /// Its name.
    pub name: Option<String>,
    /// Where its members come from; can only be said when it is made.
    pub kind: Option<GroupKind>,
    /// Its policies.
    pub policies: Option<Vec<String>>,
    /// What administrators note.
    pub metadata: Option<BTreeMap<String, String>>,
    /// The entities it lists, by their own ids.
    pub member_entity_ids: Option<BTreeSet<EntityId>>,
    /// The groups it takes in.
    pub member_group_ids: Option<BTreeSet<String>>,
}

impl GroupEdit {
    fn apply(&self, group: &mut Group) -> Result<(), CoreError> {
        if self.kind.is_some_and(|kind| kind != group.kind) {
            return Err(CoreError::field("type", "of a group cannot be changed"));
        }
        if let Some(name) = &self.name {
            group.name.clone_from(name);
        }
        if let Some(policies) = &self.policies {
            group.policies.clone_from(policies);
        }
        if let Some(metadata) = &self.metadata {
            group.metadata.clone_from(metadata);
        }
        if let Some(members) = &self.member_entity_ids {
            if group.kind == GroupKind::External && !members.is_empty() {
                let problem = "of an external group are said by its method at log-in";
                return Err(CoreError::field("member_entity_ids", problem));
            }
            group.member_entity_ids.clone_from(members);
        }
        if let Some(members) = &self.member_group_ids {
            group.member_group_ids.clone_from(members);
        }
        for (field, count) in [
            ("member_entity_ids", group.member_entity_ids.len()),
            ("member_group_ids", group.member_group_ids.len()),
        ] {
            if count > MEMBERS_MAX {
                let problem = format!("has more than {MEMBERS_MAX} elements");
                return Err(CoreError::field(field, problem));
            }
        }
        Ok(())
    }
}

/// All groups, and who is in which.
#[derive(Default)]
struct Index {
    groups: BTreeMap<String, Arc<Group>>,
    by_member: HashMap<EntityId, Vec<String>>,
    parents: HashMap<String, Vec<String>>,
    by_alias: HashMap<String, String>,
}

impl Index {
    fn new(groups: impl IntoIterator<Item = Group>) -> Self {
        let mut index = Self::default();
        for group in groups {
            for member in &group.member_entity_ids {
                index.by_member.entry(member.clone()).or_default().push(group.id.clone());
            }
            for member in &group.member_group_ids {
                index.parents.entry(member.clone()).or_default().push(group.id.clone());
            }
            if let Some(alias) = &group.alias {
                index.by_alias.insert(alias.id.clone(), group.id.clone());
            }
            index.groups.insert(group.id.clone(), Arc::new(group));
        }
        index
    }
}

/// The groups that somebody is in, sorted by id.
#[derive(Debug, Default)]
pub struct Memberships {
    /// Those that list the entity, or that its log-in named.
    pub direct: Vec<Arc<Group>>,
    /// Those that these are in.
    pub inherited: Vec<Arc<Group>>,
}

impl Memberships {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.direct.iter().chain(&self.inherited)
    }
}

/// The groups of an unsealed server.
pub struct Groups {
    records: Arc<Records>,
    clock: Arc<dyn Clock>,
    index: Snapshot<Index>,
}

impl Groups {
    pub(super) fn new(records: Arc<Records>, clock: Arc<dyn Clock>) -> Self {
        Self { records, clock, index: Snapshot::default() }
    }

    /// Another node has changed a group.
    pub fn forget(&self) {
        self.index.forget();
    }

    /// The id of what a method of a mount calls a group, stored or not.
    pub fn alias_id(&self, mount: &MountAccessor, name: &str) -> String {
        // No accessor holds a line break, so two pairs never make one text.
        let text = format!("alias\n{mount}\n{name}");
        uuid_of(self.records.label_tag(NamespaceId::ROOT, kinds::GROUP, &text).as_bytes())
    }

    /// The ids of the aliases of groups among those that a method names.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn named(
        &self,
        mount: &MountAccessor,
        names: &[String],
    ) -> Result<Vec<String>, CoreError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let index = self.index().await?;
        let ids: BTreeSet<_> = names.iter().map(|name| self.alias_id(mount, name)).collect();
        Ok(ids.into_iter().filter(|id| index.by_alias.contains_key(id)).collect())
    }

    /// The groups that an entity is in, with those that its log-in named by the ids of their aliases.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn memberships(
        &self,
        entity: &Entity,
        external: &[String],
    ) -> Result<Memberships, CoreError> {
        let index = self.index().await?;
        if index.groups.is_empty() {
            return Ok(Memberships::default());
        }
        let ids = entity.ids();
        let listed = ids.iter().filter_map(|id| index.by_member.get(id)).flatten();
        let named = external.iter().filter_map(|alias| index.by_alias.get(alias));
        let direct: BTreeSet<&String> = listed.chain(named).collect();
        let mut seen = direct.clone();
        let mut pending: Vec<&String> = direct.iter().copied().collect();
        while let Some(group) = pending.pop() {
            for parent in index.parents.get(group).into_iter().flatten() {
                if seen.insert(parent) {
                    pending.push(parent);
                }
            }
        }
        let groups = |ids: &mut dyn Iterator<Item = &String>| {
            ids.filter_map(|id| index.groups.get(id).cloned()).collect()
        };
        Ok(Memberships {
            direct: groups(&mut direct.iter().copied()),
            inherited: groups(&mut seen.difference(&direct).copied()),
        })
    }

    /// All groups, sorted by id.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn all(&self) -> Result<Vec<Arc<Group>>, CoreError> {
        Ok(self.index().await?.groups.values().cloned().collect())
    }

    /// A group, by its id.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get(&self, id: &str) -> Result<Option<Arc<Group>>, CoreError> {
        Ok(self.index().await?.groups.get(id).cloned())
    }

    /// A group, by its name.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn by_name(&self, name: &str) -> Result<Option<Arc<Group>>, CoreError> {
        let (index, name) = (self.index().await?, name.to_lowercase());
        Ok(index.groups.values().find(|group| group.name.to_lowercase() == name).cloned())
    }

    /// A group, by the id of its alias.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn by_alias(&self, alias_id: &str) -> Result<Option<Arc<Group>>, CoreError> {
        let index = self.index().await?;
        let id = index.by_alias.get(alias_id);
        Ok(id.and_then(|id| index.groups.get(id)).cloned())
    }

    /// The ids of the groups that directly take in the group of that id.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn parents(&self, id: &str) -> Result<Vec<String>, CoreError> {
        Ok(self.index().await?.parents.get(id).cloned().unwrap_or_default())
    }

    /// Makes a group.
    ///
    /// # Errors
    /// `Field` or `Invalid`, saying what it cannot be.
    pub async fn create(&self, edit: &GroupEdit) -> Result<Group, CoreError> {
        let id = random_uuid()?;
        self.changing(|all, now| {
            let mut group = Group {
                name: format!("group_{}", id.get(..8).unwrap_or_default()),
                id: id.clone(),
                kind: edit.kind.unwrap_or(GroupKind::Internal),
                policies: Vec::new(),
                metadata: BTreeMap::new(),
                member_entity_ids: BTreeSet::new(),
                member_group_ids: BTreeSet::new(),
                alias: None,
                created_at: now,
                updated_at: now,
            };
            edit.apply(&mut group)?;
            all.insert(id.clone(), group.clone());
            Ok(group)
        })
        .await
    }

    /// Changes a group.
    ///
    /// # Errors
    /// `NotFound`; as [`Groups::create`].
    pub async fn update(&self, id: &str, edit: &GroupEdit) -> Result<Group, CoreError> {
        self.changing(|all, now| {
            let group = all.get_mut(id).ok_or(CoreError::NotFound)?;
            edit.apply(group)?;
            group.updated_at = now;
            Ok(group.clone())
        })
        .await
    }

    /// Deletes a group, its alias with it, and takes it out of those it is in. One that is not there
    /// is no error.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn delete(&self, id: &str) -> Result<(), CoreError> {
        self.changing(|all, now| {
            all.remove(id);
            for group in all.values_mut() {
                if group.member_group_ids.remove(id) {
                    group.updated_at = now;
                }
            }
            Ok(())
        })
        .await
    }

    /// Gives a name of a mount to an external group, instead of the one that it has. Answers the id of
    /// the alias.
    ///
    /// # Errors
    /// `Field` when there is no such group or it is internal, `Invalid` when the name is another's.
    pub async fn put_alias(
        &self,
        group: &str,
        mount: &MountAccessor,
        name: &str,
    ) -> Result<String, CoreError> {
        let id = self.alias_id(mount, name);
        self.changing(|all, now| {
            let missing = || CoreError::field("canonical_id", "is not the id of a group");
            let group = all.get_mut(group).ok_or_else(missing)?;
            if group.kind == GroupKind::Internal {
                let problem = "is an internal group, which has no alias";
                return Err(CoreError::field("canonical_id", problem));
            }
            let created_at = group.alias.as_ref().map_or(now, |alias| alias.created_at);
            group.alias = Some(GroupAlias {
                id: id.clone(),
                mount_accessor: mount.clone(),
                name: name.to_owned(),
                created_at,
                updated_at: now,
            });
            Ok(id.clone())
        })
        .await
    }

    /// Takes an alias from its group. One that is not there is no error.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn delete_alias(&self, alias_id: &str) -> Result<(), CoreError> {
        self.changing(|all, now| {
            for group in all.values_mut() {
                if group.alias.as_ref().is_some_and(|alias| alias.id == alias_id) {
                    group.alias = None;
                    group.updated_at = now;
                }
            }
            Ok(())
        })
        .await
    }

    /// Makes a change out of all groups as they are stored now, and starts over when one of them was
    /// changed meanwhile.
    async fn changing<T>(
        &self,
        edit: impl Fn(&mut BTreeMap<String, Group>, Timestamp) -> Result<T, CoreError>,
    ) -> Result<T, CoreError> {
        for _ in 0..ATTEMPTS {
            // Read first: whatever is changed after this makes the commit fail.
            let turn = self.turns().get_fresh::<u64>(TURN).await?;
            let stored: BTreeMap<String, Entry<Group>> =
                self.view().entries::<Group>("").await?.into_iter().collect();
            let before = stored.iter().map(|(id, entry)| (id.clone(), entry.value.clone()));
            let mut all: BTreeMap<String, Group> = before.collect();
            let result = edit(&mut all, self.clock.now())?;
            check(&all)?;
            let mut batch = Batch::new();
            for (id, group) in &all {
                let known = stored.get(id);
                if known.is_none_or(|known| known.value != *group) {
                    let expected = Entry::expected(known);
                    self.view().put(&mut batch, id, group, expected, PutOptions::default())?;
                }
            }
            for (id, entry) in stored.iter().filter(|(id, _)| !all.contains_key(*id)) {
                self.view().delete(&mut batch, id, Precondition::Rev(entry.rev));
            }
            if batch.is_empty() {
                return Ok(result);
            }
            let next = turn.as_ref().map_or(0, |turn| turn.value).wrapping_add(1);
            let expected = Entry::expected(turn.as_ref());
            self.turns().put(&mut batch, TURN, &next, expected, PutOptions::default())?;
            let outcome = self.view().commit(&batch).await;
            // Also after a failure: the outcome of a broken connection is unknown.
            self.index.forget();
            match outcome {
                Ok(()) => return Ok(result),
                Err(CoreError::Storage(StorageError::Conflict)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StorageError::Busy.into())
    }

    async fn index(&self) -> Result<Arc<Index>, CoreError> {
        self.index
            .get(async {
                let entries = self.view().entries::<Group>("").await?;
                Ok(Index::new(entries.into_iter().map(|(_, entry)| entry.value)))
            })
            .await
    }

    fn view(&self) -> View {
        View::new(self.records.clone(), NamespaceId::ROOT, kinds::GROUP, String::new())
    }

    fn turns(&self) -> View {
        View::new(self.records.clone(), NamespaceId::ROOT, kinds::GROUP_TURN, String::new())
    }
}

/// What has to hold over all groups.
fn check(all: &BTreeMap<String, Group>) -> Result<(), CoreError> {
    if all.len() > GROUPS_MAX {
        return Err(CoreError::invalid(format!("there cannot be more than {GROUPS_MAX} groups")));
    }
    let (mut names, mut aliases) = (BTreeSet::new(), BTreeSet::new());
    for group in all.values() {
        if !names.insert(group.name.to_lowercase()) {
            return Err(CoreError::field("name", "is taken by another group"));
        }
        if group.alias.as_ref().is_some_and(|alias| !aliases.insert(&alias.id)) {
            return Err(CoreError::invalid("another group has that alias"));
        }
        if group.member_group_ids.iter().any(|member| !all.contains_key(member)) {
            let problem = "names a group that is not there";
            return Err(CoreError::field("member_group_ids", problem));
        }
    }
    let mut depths = HashMap::new();
    let mut open = Vec::new();
    for id in all.keys() {
        depth(all, id, &mut depths, &mut open)?;
    }
    Ok(())
}

/// How deep groups are nested below a group, itself counted.
fn depth<'g>(
    all: &'g BTreeMap<String, Group>,
    id: &'g str,
    known: &mut HashMap<&'g str, usize>,
    open: &mut Vec<&'g str>,
) -> Result<usize, CoreError> {
    if let Some(depth) = known.get(id) {
        return Ok(*depth);
    }
    if open.contains(&id) {
        return Err(CoreError::field("member_group_ids", "would make a group a member of itself"));
    }
    let too_deep = || {
        let problem = format!("would nest groups deeper than {NESTING_MAX}");
        CoreError::field("member_group_ids", problem)
    };
    // Before going on, so that no chain is followed further than it may be long.
    if open.len() >= NESTING_MAX {
        return Err(too_deep());
    }
    open.push(id);
    let mut deepest = 0;
    for member in all.get(id).into_iter().flat_map(|group| &group.member_group_ids) {
        deepest = deepest.max(depth(all, member, known, open)?);
    }
    open.pop();
    if deepest >= NESTING_MAX {
        return Err(too_deep());
    }
    known.insert(id, deepest + 1);
    Ok(deepest + 1)
}
