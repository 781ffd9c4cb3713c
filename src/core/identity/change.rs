//! What administrators do with entities and aliases. Each change is one commit of all the rows that it
//! touches, each conditional upon what was read, so that of two at once one starts over and no crash
//! leaves half of one.

use std::collections::BTreeMap;

use crate::core::error::CoreError;
use crate::core::mfa;
use crate::core::records::{Batch, Precondition, kinds};
use crate::core::view::{Entry, PutOptions};
use crate::storage::{Change, StorageError};
use crate::types::id::{EntityId, MountAccessor, NamespaceId, random_uuid};

use super::entity::{Alias, Entity, is_default_name, name_label};
use super::{ATTEMPTS, IdentityStore, Link, Merged, merged_name, new_entity};

/// Most aliases of one entity.
const ALIASES_MAX: usize = 64;
/// Most entities that were merged into one, over all its life.
const MERGED_MAX: usize = 128;

/// Makes a change out of what is stored now, and starts over when that was changed meanwhile.
macro_rules! changing {
    ($store:expr, $draft:ident => $edit:expr) => {{
        for _ in 0..ATTEMPTS {
            let mut draft = Draft::new($store);
            let $draft = &mut draft;
            let made = async { $edit }.await;
            let outcome: Result<_, CoreError> = match made {
                Ok(result) => draft.commit().await.map(|()| result),
                Err(error) => Err(error),
            };
            match outcome {
                Err(CoreError::Storage(StorageError::Conflict)) => {}
                outcome => return outcome,
            }
        }
        Err(StorageError::Busy.into())
    }};
}

/// What is to be changed of an entity; `None` leaves it.
#[derive(Clone, Debug, Default)]
pub struct EntityEdit {
    /// Its name.
    pub name: Option<String>,
    /// What administrators note.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Its policies.
    pub policies: Option<Vec<String>>,
    /// Whether it is refused everywhere.
    pub disabled: Option<bool>,
}

impl EntityEdit {
    /// Changes `entity`. Whether its name was changed.
    fn apply(&self, entity: &mut Entity) -> Result<bool, CoreError> {
        if let Some(disabled) = self.disabled {
            entity.disabled = disabled;
        }
        if let Some(metadata) = &self.metadata {
            entity.metadata.clone_from(metadata);
        }
        if let Some(policies) = &self.policies {
            entity.policies.clone_from(policies);
        }
        let Some(name) = self.name.as_ref().filter(|name| **name != entity.name) else {
            return Ok(false);
        };
        if is_default_name(name) {
            let problem = "is of the form that entities without a name of their own have";
            return Err(CoreError::field("name", problem));
        }
        entity.name.clone_from(name);
        Ok(true)
    }
}

/// An alias as an administrator wants it.
#[derive(Clone, Debug)]
pub struct AliasEdit {
    /// The mount.
    pub mount_accessor: MountAccessor,
    /// The name.
    pub name: String,
    /// What administrators note; `None` leaves it.
    pub custom_metadata: Option<BTreeMap<String, String>>,
    /// The entity it is to be of; `None` leaves it where it is, or gives it one of its own.
    pub canonical: Option<EntityId>,
}

/// A merge of entities.
#[derive(Clone, Debug)]
pub struct Merge {
    /// Those that go.
    pub from: Vec<EntityId>,
    /// The one that takes what they have.
    pub to: EntityId,
    /// Where two have an alias of the same mount: the ids of those that stay.
    pub keep: Vec<String>,
    /// Where two have a shared secret for one MFA method, that of the one that stays is kept.
    pub force: bool,
}

impl IdentityStore {
    /// Makes an entity without an alias.
    ///
    /// # Errors
    /// `Field` when the name is taken.
    pub async fn create(&self, edit: &EntityEdit) -> Result<Entity, CoreError> {
        let mut entity = new_entity(EntityId::new(random_uuid()?), self.clock.now());
        edit.apply(&mut entity)?;
        let mut draft = Draft::new(self);
        draft.insert(entity.clone());
        draft.claim_name(&entity.name);
        draft.commit().await?;
        Ok(entity)
    }

    /// Changes a stored entity.
    ///
    /// # Errors
    /// `NotFound`, or `Field` when the name is taken.
    pub async fn update(&self, id: &EntityId, edit: &EntityEdit) -> Result<Entity, CoreError> {
        changing!(self, draft => {
            let id = draft.load(id).await?.ok_or(CoreError::NotFound)?;
            let entity = draft.entity(&id)?;
            let renamed = edit.apply(entity)?;
            let entity = entity.clone();
            if renamed {
                draft.claim_name(&entity.name);
            }
            Ok(entity)
        })
    }

    /// Deletes an entity. Its aliases are nobody's; when one of them comes again, it is an identity
    /// of its own that shares no id with this one. `further` adds to the commit what has to happen
    /// with it; it is given all ids under which something may have been issued.
    ///
    /// # Errors
    /// `NotFound`, and what `further` says.
    pub async fn delete<T>(
        &self,
        id: &EntityId,
        further: impl Fn(&mut Batch, Vec<EntityId>) -> Result<T, CoreError>,
    ) -> Result<T, CoreError> {
        changing!(self, draft => {
            let id = draft.load(id).await?.ok_or(CoreError::NotFound)?;
            let entity = draft.entity(&id)?.clone();
            for alias in &entity.aliases {
                draft.unlink(&alias.id).await?;
            }
            mfa::stage_removal(&self.records, &mut draft.batch, &id).await?;
            for merged in &entity.merged_from {
                let name = merged_name(merged);
                self.links().delete(&mut draft.batch, &name, Precondition::Any);
            }
            draft.remove(&id);
            further(&mut draft.batch, entity.ids())
        })
    }

    /// Stores an alias, gives it to another entity, or changes what is noted about it. Answers its id
    /// and its entity's. What was issued before stays with the entity that it was issued to.
    ///
    /// # Errors
    /// `Field` when there is no such entity, or it has an alias of that mount.
    pub async fn put_alias(&self, edit: &AliasEdit) -> Result<(String, EntityId), CoreError> {
        changing!(self, draft => draft.put_alias(edit).await)
    }

    /// Changes the alias of that id; with another mount or name it is another alias, of the same
    /// entity. Answers its id and its entity's.
    ///
    /// # Errors
    /// `NotFound`; as [`IdentityStore::put_alias`].
    pub async fn change_alias(
        &self,
        id: &str,
        edit: &AliasEdit,
    ) -> Result<(String, EntityId), CoreError> {
        changing!(self, draft => {
            let holder = draft.holder(id).await?.ok_or(CoreError::NotFound)?;
            let mut edit = edit.clone();
            edit.canonical = Some(edit.canonical.unwrap_or(holder));
            if self.alias_id(&edit.mount_accessor, &edit.name) != id {
                let known = draft.take_alias(id).await?.ok_or(CoreError::NotFound)?;
                edit.custom_metadata = edit.custom_metadata.or(Some(known.custom_metadata));
            }
            draft.put_alias(&edit).await
        })
    }

    /// Takes an alias from its entity, which stays. False when there is none of that id.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn delete_alias(&self, id: &str) -> Result<bool, CoreError> {
        changing!(self, draft => Ok(draft.take_alias(id).await?.is_some()))
    }

    /// Merges entities into one, which gets their aliases and all that was issued to them; what they
    /// themselves had (name, policies, metadata) goes.
    ///
    /// # Errors
    /// `Field` when one is not there, and `Invalid` when they cannot be one.
    pub async fn merge(&self, merge: &Merge) -> Result<(), CoreError> {
        changing!(self, draft => {
            let missing = |field| CoreError::field(field, "names an entity that is not there");
            let to = draft.load(&merge.to).await?;
            let to = to.ok_or_else(|| missing("to_entity_id"))?;
            for from in &merge.from {
                let from = draft.load(from).await?;
                let from = from.ok_or_else(|| missing("from_entity_ids"))?;
                if from == to {
                    let problem = "names the entity that the others are merged into";
                    return Err(CoreError::field("from_entity_ids", problem));
                }
                draft.merge(&from, &to, &merge.keep).await?;
                let batch = &mut draft.batch;
                mfa::stage_merge(&self.records, batch, &from, &to, merge.force).await?;
            }
            Ok(())
        })
    }
}

struct Row<T> {
    value: Option<T>,
    read: Precondition,
}

/// A change in the making: rows as they were read, and as they are to be.
struct Draft<'s> {
    store: &'s IdentityStore,
    entities: BTreeMap<EntityId, Row<Entity>>,
    links: BTreeMap<String, Row<Link>>,
    batch: Batch,
}

impl<'s> Draft<'s> {
    fn new(store: &'s IdentityStore) -> Self {
        Self { store, entities: BTreeMap::new(), links: BTreeMap::new(), batch: Batch::new() }
    }

    /// Reads an entity, by its id or that of one that was merged into it. Answers its own id.
    async fn load(&mut self, id: &EntityId) -> Result<Option<EntityId>, CoreError> {
        let Some(known) = self.store.get(id).await? else { return Ok(None) };
        let id = known.id.clone();
        if !self.entities.contains_key(&id) {
            let Some(found) = self.store.view().get_fresh::<Entity>(id.as_str()).await? else {
                return Err(StorageError::Conflict.into());
            };
            let read = Precondition::Rev(found.rev);
            self.entities.insert(id.clone(), Row { value: Some(found.value), read });
        }
        Ok(self.entities.get(&id).is_some_and(|row| row.value.is_some()).then_some(id))
    }

    /// An entity that was read.
    fn entity(&mut self, id: &EntityId) -> Result<&mut Entity, CoreError> {
        let row = self.entities.get_mut(id).and_then(|row| row.value.as_mut());
        row.ok_or_else(|| CoreError::internal("an entity was not read before it was changed"))
    }

    fn insert(&mut self, entity: Entity) {
        let read = Precondition::Absent;
        self.entities.insert(entity.id.clone(), Row { value: Some(entity), read });
    }

    fn remove(&mut self, id: &EntityId) {
        if let Some(row) = self.entities.get_mut(id) {
            row.value = None;
        }
    }

    /// Lets the commit fail when another entity has that name.
    fn claim_name(&mut self, name: &str) {
        let label = name_label(name);
        self.batch.also(Change::RequireFewer {
            namespace: NamespaceId::ROOT,
            kind: kinds::ENTITY,
            label: self.store.records.label_tag(NamespaceId::ROOT, kinds::ENTITY, &label),
            // Judged with this one counted.
            max: 2,
        });
    }

    /// The link of an alias, as read or as changed by now.
    async fn link(&mut self, alias_id: &str) -> Result<&mut Row<Link>, CoreError> {
        if !self.links.contains_key(alias_id) {
            let found = self.store.links().get_fresh::<Link>(alias_id).await?;
            let read = Entry::expected(found.as_ref());
            let row = Row { value: found.map(|entry| entry.value), read };
            self.links.insert(alias_id.to_owned(), row);
        }
        let row = self.links.get_mut(alias_id);
        row.ok_or_else(|| CoreError::internal("a link was not read before it was changed"))
    }

    /// The entity that has the alias of that id, read.
    async fn holder(&mut self, alias_id: &str) -> Result<Option<EntityId>, CoreError> {
        if !super::is_one_segment(alias_id) {
            return Ok(None);
        }
        let link = self.link(alias_id).await?;
        let Some(id) = link.value.as_ref().and_then(|link| link.entity.clone()) else {
            return Ok(None);
        };
        match self.load(&id).await? {
            Some(holder) if holder == id => Ok(Some(holder)),
            // Read at different moments.
            Some(_) | None => Err(StorageError::Conflict.into()),
        }
    }

    /// Makes an alias nobody's: the next entity of its own has another id.
    async fn unlink(&mut self, alias_id: &str) -> Result<(), CoreError> {
        let row = self.link(alias_id).await?;
        let generation = row.value.as_ref().map_or(0, |link| link.generation).saturating_add(1);
        row.value = Some(Link { entity: None, generation });
        Ok(())
    }

    async fn link_to(&mut self, alias_id: &str, entity: &EntityId) -> Result<(), CoreError> {
        let row = self.link(alias_id).await?;
        let generation = row.value.as_ref().map_or(0, |link| link.generation);
        row.value = Some(Link { entity: Some(entity.clone()), generation });
        Ok(())
    }

    /// Takes an alias from its entity.
    async fn take_alias(&mut self, alias_id: &str) -> Result<Option<Alias>, CoreError> {
        let Some(holder) = self.holder(alias_id).await? else { return Ok(None) };
        let now = self.store.clock.now();
        let entity = self.entity(&holder)?;
        let at = entity.aliases.iter().position(|alias| alias.id == alias_id);
        let at = at.ok_or(CoreError::Storage(StorageError::Conflict))?;
        let alias = entity.aliases.remove(at);
        entity.updated_at = now;
        self.unlink(alias_id).await?;
        Ok(Some(alias))
    }

    async fn put_alias(&mut self, edit: &AliasEdit) -> Result<(String, EntityId), CoreError> {
        let now = self.store.clock.now();
        let id = self.store.alias_id(&edit.mount_accessor, &edit.name);
        let holder = self.holder(&id).await?;
        let target = match &edit.canonical {
            Some(canonical) => {
                let missing = || CoreError::field("canonical_id", "is not the id of an entity");
                self.load(canonical).await?.ok_or_else(missing)?
            }
            None => match &holder {
                Some(holder) => holder.clone(),
                None => self.own(&id, edit).await?,
            },
        };
        if holder.as_ref() == Some(&target) {
            let entity = self.entity(&target)?;
            let known = entity.aliases.iter_mut().find(|alias| alias.id == id);
            let known = known.ok_or(CoreError::Storage(StorageError::Conflict))?;
            if let Some(custom_metadata) = &edit.custom_metadata {
                known.custom_metadata.clone_from(custom_metadata);
                known.updated_at = now;
            }
            return Ok((id, target));
        }
        let mut alias = match self.take_alias(&id).await? {
            Some(taken) => taken,
            None => Alias {
                id: id.clone(),
                mount_accessor: edit.mount_accessor.clone(),
                name: edit.name.clone(),
                metadata: BTreeMap::new(),
                custom_metadata: BTreeMap::new(),
                created_at: now,
                updated_at: now,
            },
        };
        if let Some(custom_metadata) = &edit.custom_metadata {
            alias.custom_metadata.clone_from(custom_metadata);
        }
        alias.updated_at = now;
        self.give_alias(alias, &target).await?;
        Ok((id, target))
    }

    /// The entity that an alias is on its own, added.
    async fn own(&mut self, alias_id: &str, edit: &AliasEdit) -> Result<EntityId, CoreError> {
        let link = self.link(alias_id).await?;
        let generation = link.value.as_ref().map_or(0, |link| link.generation);
        let id = self.store.derived(&edit.mount_accessor, &edit.name, generation);
        self.insert(new_entity(id.clone(), self.store.clock.now()));
        Ok(id)
    }

    async fn give_alias(&mut self, alias: Alias, to: &EntityId) -> Result<(), CoreError> {
        let now = self.store.clock.now();
        let entity = self.entity(to)?;
        if let Some(other) = entity.alias_at(&alias.mount_accessor) {
            return Err(CoreError::invalid(format!(
                "the entity {to} has an alias of the mount {} already: {}",
                alias.mount_accessor, other.id
            )));
        }
        if entity.aliases.len() >= ALIASES_MAX {
            return Err(CoreError::invalid(format!(
                "the entity {to} has {ALIASES_MAX} aliases, which is as many as it may"
            )));
        }
        let id = alias.id.clone();
        entity.aliases.push(alias);
        entity.updated_at = now;
        self.link_to(&id, to).await
    }

    async fn merge(
        &mut self,
        from: &EntityId,
        to: &EntityId,
        keep: &[String],
    ) -> Result<(), CoreError> {
        let gone = self.entity(from)?.clone();
        if gone.disabled && !self.entity(to)?.disabled {
            return Err(CoreError::invalid(format!(
                "the entity {from} is disabled and {to} is not: merging would let it in again. Enable \
                 the one or disable the other first"
            )));
        }
        for alias in &gone.aliases {
            let other = self.entity(to)?.alias_at(&alias.mount_accessor).map(|own| own.id.clone());
            if let Some(other) = other {
                if keep.contains(&other) {
                    self.unlink(&alias.id).await?;
                    continue;
                }
                if !keep.contains(&alias.id) {
                    return Err(CoreError::invalid(format!(
                        "the aliases {} and {other} are of the same mount {}: name the one that is to \
                         stay in conflicting_alias_ids_to_keep",
                        alias.id, alias.mount_accessor
                    )));
                }
                self.take_alias(&other).await?;
            }
            self.give_alias(alias.clone(), to).await?;
        }
        let merged = Merged { into: to.clone() };
        for id in gone.ids() {
            let name = merged_name(&id);
            let links = self.store.links();
            let options = PutOptions::default();
            links.put(&mut self.batch, &name, &merged, Precondition::Any, options)?;
        }
        let entity = self.entity(to)?;
        entity.merged_from.extend(gone.ids());
        if entity.merged_from.len() > MERGED_MAX {
            return Err(CoreError::invalid(format!(
                "more than {MERGED_MAX} entities cannot be merged into one"
            )));
        }
        self.remove(from);
        Ok(())
    }

    /// Writes everything that was read, in one commit that fails when any of it was changed.
    async fn commit(mut self) -> Result<(), CoreError> {
        let view = self.store.view();
        for (id, row) in std::mem::take(&mut self.entities) {
            match (row.value, row.read) {
                (Some(mut entity), read) => {
                    entity.updated_at = self.store.clock.now();
                    self.store.put(&mut self.batch, &entity, read)?;
                }
                // Made and given up in the same change.
                (None, Precondition::Absent) => {}
                (None, read) => view.delete(&mut self.batch, id.as_str(), read),
            }
        }
        for (id, row) in std::mem::take(&mut self.links) {
            if let Some(link) = row.value {
                let options = PutOptions::default();
                self.store.links().put(&mut self.batch, &id, &link, row.read, options)?;
            }
        }
        match view.commit(&self.batch).await {
            Err(CoreError::Storage(StorageError::Limit)) => {
                Err(CoreError::field("name", "is taken by another entity"))
            }
            other => other,
        }
    }
}
