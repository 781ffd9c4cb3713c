//! Identities: the entities that own leases and that policies speak of.
//!
//! An entity stands for one name of one auth mount. Its id is a keyed hash of the two, so a request
//! by certificate knows its entity without a look-up and without a write; the entity is stored when
//! something is issued to it, or when an administrator says something about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::storage::StorageError;
use crate::types::id::{EntityId, MountAccessor, NamespaceId};
use crate::types::time::{Clock, Timestamp};

use super::engine::Grant;
use super::error::CoreError;
use super::policy::template::{AliasValues, TemplateValues};
use super::records::{Batch, Precondition, Records, kinds};
use super::view::{PutOptions, View};

/// How often a change is tried again when the same entity is changed elsewhere meanwhile.
const ATTEMPTS: usize = 16;

/// A name within an auth mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// The mount.
    pub mount_accessor: MountAccessor,
    /// The name, as the mount makes it.
    pub name: String,
    /// What the mount noted about it.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

/// An identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entity {
    /// A UUID.
    pub id: EntityId,
    /// Name for people and policies.
    pub name: String,
    /// What administrators noted.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Policies it has however it comes.
    #[serde(default)]
    pub policies: Vec<String>,
    /// Whether it is refused everywhere.
    #[serde(default)]
    pub disabled: bool,
    /// The name that it stands for.
    pub alias: Alias,
    /// When it was stored.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Entity {
    /// What policies' templates can ask about it.
    pub fn template_values(&self) -> TemplateValues {
        let alias = AliasValues {
            id: self.id.to_string(),
            name: self.alias.name.clone(),
            metadata: self.alias.metadata.clone(),
            custom_metadata: BTreeMap::new(),
        };
        TemplateValues {
            entity_id: Some(self.id.to_string()),
            entity_name: Some(self.name.clone()),
            entity_metadata: self.metadata.clone(),
            aliases: BTreeMap::from([(self.alias.mount_accessor.to_string(), alias)]),
            groups: Vec::new(),
        }
    }

    fn labels(&self) -> Vec<String> {
        vec![name_label(&self.name), format!("mount:{}", self.alias.mount_accessor)]
    }
}

/// The identities of an unsealed server.
pub struct IdentityStore {
    records: Arc<Records>,
    clock: Arc<dyn Clock>,
}

impl IdentityStore {
    /// The identities in `records`.
    pub fn new(records: Arc<Records>, clock: Arc<dyn Clock>) -> Self {
        Self { records, clock }
    }

    /// The id of the entity that stands for `alias` of a mount, stored or not.
    pub fn id_of(&self, mount: &MountAccessor, alias: &str) -> EntityId {
        // No accessor holds a line break, so two pairs never make one text.
        let text = format!("entity\n{mount}\n{alias}");
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
        let id = self.id_of(mount, alias);
        let alias = Alias {
            mount_accessor: mount.clone(),
            name: alias.to_owned(),
            metadata: metadata.clone(),
        };
        if let Some(found) = self.view().get::<Entity>(id.as_str()).await? {
            // What the method says now counts, not what it said when the entity was stored.
            return Ok(Arc::new(Entity { alias, ..found.value }));
        }
        let now = self.clock.now();
        Ok(Arc::new(Entity {
            name: default_name(&id),
            id,
            metadata: BTreeMap::new(),
            policies: Vec::new(),
            disabled: false,
            alias,
            created_at: now,
            updated_at: now,
        }))
    }

    /// A stored entity.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get(&self, id: &EntityId) -> Result<Option<Arc<Entity>>, CoreError> {
        if id.as_str().is_empty() || id.as_str().contains('/') {
            return Ok(None);
        }
        Ok(self.view().get::<Entity>(id.as_str()).await?.map(|found| Arc::new(found.value)))
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

    /// The ids of all stored entities, sorted.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn ids(&self) -> Result<Vec<String>, CoreError> {
        self.view().list("").await
    }

    /// All stored entities, sorted by id.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn all(&self) -> Result<Vec<Entity>, CoreError> {
        let entries = self.view().entries::<Entity>("").await?;
        Ok(entries.into_iter().map(|(_, entry)| entry.value).collect())
    }

    /// Sees to it that `entity` is stored, so that something can be issued to it. Costs one look
    /// into the cache when it is. Policies and metadata that were stored meanwhile stay.
    ///
    /// # Errors
    /// When the store fails, or `Denied` when the entity was disabled meanwhile.
    pub async fn ensure(&self, entity: &Entity) -> Result<(), CoreError> {
        for _ in 0..ATTEMPTS {
            let (stored, precondition) = match self.view().get::<Entity>(entity.id.as_str()).await?
            {
                Some(found) if found.value.disabled => {
                    return Err(CoreError::denied(format!("entity {} is disabled", entity.id)));
                }
                Some(found) if found.value.alias == entity.alias => return Ok(()),
                Some(found) => {
                    let stored = Entity { alias: entity.alias.clone(), ..found.value };
                    (stored, Precondition::Rev(found.rev))
                }
                None => (entity.clone(), Precondition::Absent),
            };
            match self.write(&stored, precondition).await {
                // Somebody else stored it first, perhaps with other words: look again.
                Err(CoreError::Storage(StorageError::Conflict)) => {}
                other => return other,
            }
        }
        Err(StorageError::Busy.into())
    }

    /// Changes a stored entity. What may be changed is metadata, policies and `disabled`.
    ///
    /// # Errors
    /// `NotFound`, or what `edit` refuses.
    pub async fn update(
        &self,
        id: &EntityId,
        edit: impl Fn(&mut Entity) -> Result<(), CoreError> + Send + Sync,
    ) -> Result<Entity, CoreError> {
        for _ in 0..ATTEMPTS {
            let found = self.view().get_fresh::<Entity>(id.as_str()).await?;
            let found = found.ok_or(CoreError::NotFound)?;
            let mut entity = found.value;
            edit(&mut entity)?;
            entity.updated_at = self.clock.now();
            match self.write(&entity, Precondition::Rev(found.rev)).await {
                Ok(()) => return Ok(entity),
                Err(CoreError::Storage(StorageError::Conflict)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StorageError::Busy.into())
    }

    async fn write(&self, entity: &Entity, precondition: Precondition) -> Result<(), CoreError> {
        let mut batch = Batch::new();
        let options = PutOptions { due_at: None, labels: entity.labels() };
        self.view().put(&mut batch, entity.id.as_str(), entity, precondition, options)?;
        self.view().commit(&batch).await
    }

    fn view(&self) -> View {
        View::new(self.records.clone(), NamespaceId::ROOT, kinds::ENTITY, String::new())
    }
}

fn name_label(name: &str) -> String {
    format!("name:{name}")
}

fn default_name(id: &EntityId) -> String {
    format!("entity_{}", id.as_str().replace('-', ""))
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
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_of_version_eight() {
        let id = uuid_of(&[0xff; 32]);
        assert_eq!(id, "ffffffff-ffff-8fff-bfff-ffffffffffff");
        assert_eq!(uuid_of(&[0; 32]), "00000000-0000-8000-8000-000000000000");
    }
}
