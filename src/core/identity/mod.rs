//! Identities: the entities that own leases and that policies speak of, and their groups.
//!
//! A name of an auth mount (an alias) that comes for the first time is an entity of its own. Its id is
//! a keyed hash of the two, so a request by certificate knows its entity without a write; the entity
//! is stored when something is issued to it, or when an administrator says something about it. From
//! then on a link leads from the alias to its entity, which may be another by then: entities are also
//! made by hand, have several aliases, and are merged. What was issued to an entity carries its id for
//! good. So the id of one that was merged away leads to the one that took it, and the id of one that
//! was deleted never comes again: an alias that loses its entity is counted on, and the next entity of
//! its own is of the next generation.

mod change;
mod entity;
mod group;
mod snapshot;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::storage::{RowKey, StorageError};
use crate::types::id::{EntityId, MountAccessor, NamespaceId};
use crate::types::time::{Clock, Timestamp, Ttl};

use super::engine::Grant;
use super::error::CoreError;
use super::policy::template::GroupValues;
use super::records::{Batch, Precondition, Records, kinds};
use super::view::{Entry, PutOptions, View};

pub use change::{AliasEdit, EntityEdit, Merge};
pub use entity::{Alias, Entity};
pub use group::{Group, GroupAlias, GroupEdit, GroupKind, Groups, Memberships};
pub(in crate::core) use snapshot::Snapshot;

use entity::{default_name, name_label};

/// How often a change is tried again when the same entity is changed elsewhere meanwhile.
const ATTEMPTS: usize = 16;
/// How many merges are followed from one id, should they happen at this very moment.
const MERGES_FOLLOWED: usize = 8;

/// What leads from an alias to its entity.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Link {
    /// The entity; `None` when it was taken from one, and the next is one of its own.
    entity: Option<EntityId>,
    /// How often it was taken from an entity.
    generation: u64,
}

/// What leads from the id of an entity that was merged away to the one that took it.
#[derive(Serialize, Deserialize)]
struct Merged {
    into: EntityId,
}

/// What an identity has by its entity and its groups.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Policies, each once: the entity's own, then those of its groups.
    pub policies: Vec<String>,
    /// Its groups, for policies' templates.
    pub groups: Vec<GroupValues>,
}

/// The identities of an unsealed server.
pub struct IdentityStore {
    records: Arc<Records>,
    clock: Arc<dyn Clock>,
    groups: Groups,
}

impl IdentityStore {
    /// The identities in `records`.
    pub fn new(records: Arc<Records>, clock: Arc<dyn Clock>) -> Self {
        let groups = Groups::new(records.clone(), clock.clone());
        Self { records, clock, groups }
    }

    /// The groups.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// The id of an alias of a mount, stored or not.
    pub fn alias_id(&self, mount: &MountAccessor, alias: &str) -> String {
        self.derived(mount, alias, 0).as_str().to_owned()
    }

    /// The id of the entity that an alias is on its own.
    fn derived(&self, mount: &MountAccessor, alias: &str, generation: u64) -> EntityId {
        // No accessor holds a line break and the first line is ours, so no two make one text.
        let text = match generation {
            0 => format!("entity\n{mount}\n{alias}"),
            nth => format!("entity {nth}\n{mount}\n{alias}"),
        };
        let tag = self.records.label_tag(NamespaceId::ROOT, kinds::ENTITY, &text);
        EntityId::new(uuid_of(tag.as_bytes()))
    }

    /// The entity behind a grant of a mount: the stored one, or what would be stored.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn resolve(
        &self,
        mount: &MountAccessor,
        grant: &Grant,
    ) -> Result<Arc<Entity>, CoreError> {
        self.resolve_alias(mount, &grant.alias, &grant.alias_metadata).await
    }

    /// The entity that stands for `alias` of a mount: the stored one, or what would be stored.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn resolve_alias(
        &self,
        mount: &MountAccessor,
        alias: &str,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Arc<Entity>, CoreError> {
        // A link and its entity are written together and read one after the other: what does not fit
        // is looked at once more, past the cache.
        for fresh in [false, true] {
            if let Some(entity) = self.resolve_once(mount, alias, metadata, fresh).await? {
                return Ok(Arc::new(entity));
            }
        }
        Err(moving())
    }

    async fn resolve_once(
        &self,
        mount: &MountAccessor,
        alias: &str,
        metadata: &BTreeMap<String, String>,
        fresh: bool,
    ) -> Result<Option<Entity>, CoreError> {
        let alias_id = self.alias_id(mount, alias);
        let links = self.links();
        let link = match fresh {
            true => links.get_fresh::<Link>(&alias_id).await?,
            false => links.get::<Link>(&alias_id).await?,
        };
        let (linked, generation) = match link.map(|link| link.value) {
            Some(link) => (link.entity, link.generation),
            None => (None, 0),
        };
        let own = self.derived(mount, alias, generation);
        let stand_in = own.to_string();
        let Some(id) = linked else {
            let now = self.clock.now();
            let alias = Alias {
                id: alias_id.clone(),
                mount_accessor: mount.clone(),
                name: alias.to_owned(),
                metadata: metadata.clone(),
                custom_metadata: BTreeMap::new(),
                created_at: now,
                updated_at: now,
            };
            let (aliases, via) = (vec![alias], Some(alias_id));
            return Ok(Some(Entity { aliases, via, stand_in, ..new_entity(own, now) }));
        };
        let found = match fresh {
            true => self.view().get_fresh::<Entity>(id.as_str()).await?,
            false => self.row(&id).await?,
        };
        let Some(found) = found else { return Ok(None) };
        let mut entity = found.value;
        let Some(known) = entity.aliases.iter_mut().find(|known| known.id == alias_id) else {
            return Ok(None);
        };
        // What the method says now counts, not what it said when the entity was stored.
        known.metadata.clone_from(metadata);
        entity.via = Some(alias_id);
        entity.stand_in = stand_in;
        Ok(Some(entity))
    }

    /// How many entities are stored.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn count(&self) -> Result<u64, CoreError> {
        Ok(self.records.storage().count(kinds::ENTITY, self.clock.now()).await?.total)
    }

    /// A stored entity, by its id or that of one that was merged into it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get(&self, id: &EntityId) -> Result<Option<Arc<Entity>>, CoreError> {
        let mut id = id.clone();
        for _ in 0..MERGES_FOLLOWED {
            if !is_one_segment(id.as_str()) {
                return Ok(None);
            }
            if let Some(found) = self.row(&id).await? {
                return Ok(Some(Arc::new(found.value)));
            }
            match self.links().get::<Merged>(&merged_name(&id)).await? {
                Some(merged) => id = merged.value.into,
                None => return Ok(None),
            }
        }
        Err(StorageError::Busy.into())
    }

    /// A stored entity, by its name.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn by_name(&self, name: &str) -> Result<Option<Arc<Entity>>, CoreError> {
        let (records, _) = self
            .records
            .labelled(NamespaceId::ROOT, kinds::ENTITY, &name_label(name), None, 1)
            .await?;
        records.first().map(|record| record.decode().map(Arc::new)).transpose()
    }

    /// The stored entity that has the alias of that id.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn by_alias(&self, alias_id: &str) -> Result<Option<Arc<Entity>>, CoreError> {
        if !is_one_segment(alias_id) {
            return Ok(None);
        }
        let link = self.links().get::<Link>(alias_id).await?;
        let Some(id) = link.and_then(|link| link.value.entity) else { return Ok(None) };
        let found = self.row(&id).await?.map(|found| Arc::new(found.value));
        Ok(found.filter(|entity| entity.alias(alias_id).is_some()))
    }

    /// All stored entities, sorted by id.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn all(&self) -> Result<Vec<Entity>, CoreError> {
        let entries = self.view().entries::<Entity>("").await?;
        Ok(entries.into_iter().map(|(_, entry)| entry.value).collect())
    }

    /// What an entity has by itself and by its groups: those that list it, those that its log-in
    /// named (by the ids of their aliases), and all that these are in.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn standing(
        &self,
        entity: &Entity,
        external: &[String],
    ) -> Result<Standing, CoreError> {
        let memberships = self.groups.memberships(entity, external).await?;
        let mut standing = Standing { policies: entity.policies.clone(), ..Standing::default() };
        for group in memberships.all() {
            for policy in &group.policies {
                if !standing.policies.contains(policy) {
                    standing.policies.push(policy.clone());
                }
            }
            standing.groups.push(GroupValues {
                id: group.id.clone(),
                name: group.name.clone(),
                metadata: group.metadata.clone(),
            });
        }
        Ok(standing)
    }

    /// The row that must be there when something is issued to the entity of that id: it goes when the
    /// entity is deleted or merged into another.
    pub fn row_key(&self, id: &EntityId) -> RowKey {
        self.records.key(&self.view().full_name(id.as_str()))
    }

    /// Sees to it that `entity` is stored, so that something can be issued to it. Costs one look
    /// into the cache when it is. Policies and metadata that were stored meanwhile stay.
    ///
    /// # Errors
    /// When the store fails, `Denied` when the entity was disabled meanwhile, `Overloaded` when its
    /// alias was given to another one or it was merged or deleted.
    pub async fn ensure(&self, entity: &Entity) -> Result<(), CoreError> {
        for attempt in 0..ATTEMPTS {
            let mut batch = Batch::new();
            // What the cache said was of no use when there is a second look.
            let row = match attempt {
                0 => self.row(&entity.id).await?,
                _ => self.view().get_fresh(entity.id.as_str()).await?,
            };
            match (row, &entity.via) {
                (Some(found), _) if found.value.disabled => {
                    return Err(CoreError::denied(format!("entity {} is disabled", entity.id)));
                }
                (Some(found), Some(via)) => {
                    let mut stored = found.value;
                    let Some(now) = entity.alias(via) else { return Err(moving()) };
                    let known = stored.aliases.iter_mut().find(|alias| alias.id == *via);
                    let Some(known) = known else { return Err(moving()) };
                    if known.metadata == now.metadata {
                        return Ok(());
                    }
                    known.metadata.clone_from(&now.metadata);
                    known.updated_at = self.clock.now();
                    self.put(&mut batch, &stored, Precondition::Rev(found.rev))?;
                }
                (Some(_), None) => return Ok(()),
                (None, Some(via)) => match self.stage_own(&mut batch, entity, via).await? {
                    Staged::Ready => {}
                    // Another request of the same caller was faster.
                    Staged::Stored => continue,
                },
                (None, None) => return Err(moving()),
            }
            match self.view().commit(&batch).await {
                // Somebody else stored it first, perhaps with other words: look again.
                Err(CoreError::Storage(StorageError::Conflict)) => {}
                other => return other,
            }
        }
        Err(StorageError::Busy.into())
    }

    /// Adds an entity that an alias is on its own to `batch`, if it still is and nobody has stored it.
    async fn stage_own(
        &self,
        batch: &mut Batch,
        entity: &Entity,
        via: &str,
    ) -> Result<Staged, CoreError> {
        let alias = entity.alias(via).ok_or_else(moving)?;
        let link = self.links().get_fresh::<Link>(via).await?;
        let generation = match &link {
            Some(Entry { value: Link { entity: Some(id), .. }, .. }) if *id == entity.id => {
                return Ok(Staged::Stored);
            }
            Some(Entry { value: Link { entity: Some(_), .. }, .. }) => return Err(moving()),
            Some(free) => free.value.generation,
            None => 0,
        };
        if self.derived(&alias.mount_accessor, &alias.name, generation) != entity.id {
            return Err(moving());
        }
        let taken = Link { entity: Some(entity.id.clone()), generation };
        let expected = Entry::expected(link.as_ref());
        self.links().put(batch, via, &taken, expected, PutOptions::default())?;
        self.put(batch, entity, Precondition::Absent)?;
        Ok(Staged::Ready)
    }

    async fn row(&self, id: &EntityId) -> Result<Option<Entry<Entity>>, CoreError> {
        self.view().get(id.as_str()).await
    }

    fn put(
        &self,
        batch: &mut Batch,
        entity: &Entity,
        precondition: Precondition,
    ) -> Result<(), CoreError> {
        let options = PutOptions { due_at: None, labels: entity.labels() };
        self.view().put(batch, entity.id.as_str(), entity, precondition, options)
    }

    fn view(&self) -> View {
        View::new(self.records.clone(), NamespaceId::ROOT, kinds::ENTITY, String::new())
    }

    fn links(&self) -> View {
        View::new(self.records.clone(), NamespaceId::ROOT, kinds::ALIAS, String::new())
    }
}

/// What became of an entity that was to be stored.
enum Staged {
    Ready,
    /// It has been stored meanwhile.
    Stored,
}

/// An entity that has nothing yet.
fn new_entity(id: EntityId, now: Timestamp) -> Entity {
    Entity {
        name: default_name(&id),
        id,
        metadata: BTreeMap::new(),
        policies: Vec::new(),
        disabled: false,
        aliases: Vec::new(),
        merged_from: Vec::new(),
        created_at: now,
        updated_at: now,
        via: None,
        stand_in: String::new(),
    }
}

/// The answer to whoever is caught by a merge or a move of its alias: a moment later it is somebody
/// else, or nobody.
fn moving() -> CoreError {
    CoreError::Overloaded { retry_after: Ttl::from_secs(1) }
}

fn merged_name(id: &EntityId) -> String {
    format!("merged/{id}")
}

fn is_one_segment(text: &str) -> bool {
    !text.is_empty() && !text.contains('/')
}

/// A UUID of version 8 (RFC 9562 §5.8: made in a way of one's own) out of a keyed hash.
fn uuid_of(hash: &[u8]) -> String {
    let bits = hash.iter().take(16).fold(0u128, |bits, byte| bits << 8 | u128::from(*byte));
    let bits = bits & !(0xf << 76) & !(0b11 << 62) | 8 << 76 | 0b10 << 62;
    let hex = format!("{bits:032x}");
    let mut text = String::with_capacity(36);
    for (position, digit) in hex.chars().enumerate() {
        if matches!(position, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
