//! What an entity is, and what of it policies can ask.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::policy::template::{AliasValues, TemplateValues};
use crate::types::id::{EntityId, MountAccessor};
use crate::types::time::Timestamp;

/// A name within an auth mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// A keyed hash of the mount and the name, so the same wherever and whenever it comes.
    pub id: String,
    /// The mount.
    pub mount_accessor: MountAccessor,
    /// The name, as the mount makes it.
    pub name: String,
    /// What the mount noted about it.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// What administrators noted about it.
    #[serde(default)]
    pub custom_metadata: BTreeMap<String, String>,
    /// When it was stored.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
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
    /// The names that it stands for, at most one of each mount.
    #[serde(default)]
    pub aliases: Vec<Alias>,
    /// The ids of the entities that were merged into it: what was issued to them is its own.
    #[serde(default)]
    pub merged_from: Vec<EntityId>,
    /// When it was stored.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// The alias (by its id) that it was found by, where it came by one.
    #[serde(skip)]
    pub via: Option<String>,
    /// What stands for whoever comes by that alias: the same for as long as the alias is not taken
    /// from its entity, and never again afterwards.
    #[serde(skip)]
    pub stand_in: String,
}

impl Entity {
    /// The id, and those of the entities that were merged into it.
    pub fn ids(&self) -> Vec<EntityId> {
        let own = std::iter::once(&self.id);
        own.chain(&self.merged_from).cloned().collect()
    }

    /// Whether `id` means this entity.
    pub fn is(&self, id: &EntityId) -> bool {
        self.id == *id || self.merged_from.contains(id)
    }

    /// One of its aliases.
    pub fn alias(&self, id: &str) -> Option<&Alias> {
        self.aliases.iter().find(|alias| alias.id == id)
    }

    /// Its alias of a mount.
    pub fn alias_at(&self, mount: &MountAccessor) -> Option<&Alias> {
        self.aliases.iter().find(|alias| alias.mount_accessor == *mount)
    }

    /// What policies' templates can ask about it. Its groups are the caller's to fill in.
    pub fn template_values(&self) -> TemplateValues {
        let aliases = self.aliases.iter().map(|alias| {
            let values = AliasValues {
                id: alias.id.clone(),
                name: alias.name.clone(),
                metadata: alias.metadata.clone(),
                custom_metadata: alias.custom_metadata.clone(),
            };
            (alias.mount_accessor.to_string(), values)
        });
        TemplateValues {
            entity_id: Some(self.id.to_string()),
            entity_name: Some(self.name.clone()),
            entity_metadata: self.metadata.clone(),
            aliases: aliases.collect(),
            groups: Vec::new(),
        }
    }

    pub(super) fn labels(&self) -> Vec<String> {
        vec![name_label(&self.name)]
    }
}

/// Names are one however they are capitalised.
pub(super) fn name_label(name: &str) -> String {
    format!("name:{}", name.to_lowercase())
}

/// The name of an entity that nobody has named.
pub(super) fn default_name(id: &EntityId) -> String {
    format!("entity_{}", id.as_str().replace('-', ""))
}

/// Whether a name is kept for entities that nobody has named.
pub(super) fn is_default_name(name: &str) -> bool {
    let hex = name.to_lowercase();
    hex.strip_prefix("entity_")
        .is_some_and(|hex| hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
