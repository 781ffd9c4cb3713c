//! Methods, and the enforcements that demand them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::core::error::CoreError;
use crate::core::identity::{Entity, Standing};
use crate::core::mount::MountEntry;
use crate::core::records::{Batch, Precondition};
use crate::core::view::{Entry, PutOptions, View};
use crate::crypto::otp::TotpParameters;
use crate::storage::{RowKey, StorageError};
use crate::types::id::EntityId;

use super::{ATTEMPTS, Mfa};

/// Most methods, and most enforcements.
const COUNT_MAX: usize = 256;
const METHODS: &str = "method/";
const ENFORCEMENTS: &str = "enforcement/";
/// What changes are conditional upon, so that they are made one after the other over all nodes.
const TURN: &str = "turn";

/// How one-time passwords are made and checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Method {
    /// A UUID.
    pub id: String,
    /// Name for people; empty for none.
    pub name: String,
    /// Who the codes are for, as apps show it.
    pub issuer: String,
    /// How codes are made.
    pub parameters: TotpParameters,
    /// Bytes of a new shared secret.
    pub key_bytes: usize,
    /// Width of the barcode of a new shared secret in pixels; zero for none.
    pub barcode_pixels: u32,
    /// Wrong codes after which a shared secret is locked.
    pub attempts_max: u64,
}

/// Whom methods are demanded of: of a log-in that meets any of the conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforcement {
    /// Its name.
    pub name: String,
    /// A UUID.
    pub id: String,
    /// The methods, one of which has to be proven.
    pub methods: Vec<String>,
    /// Log-ins by these mounts.
    pub accessors: BTreeSet<String>,
    /// Log-ins by mounts of these kinds.
    pub kinds: BTreeSet<String>,
    /// Members of these groups, by their ids.
    pub groups: BTreeSet<String>,
    /// These entities.
    pub entities: BTreeSet<EntityId>,
    /// Whoever would get one of these policies.
    pub policies: BTreeSet<String>,
}

impl Enforcement {
    pub(super) fn covers(&self, asks: &Asks<'_>) -> bool {
        self.accessors.contains(asks.mount.accessor.as_str())
            || self.kinds.contains(&asks.mount.kind)
            || asks.standing.groups.iter().any(|group| self.groups.contains(&group.id))
            || asks.entity.ids().iter().any(|id| self.entities.contains(id))
            || asks.token_policies.iter().any(|policy| self.policies.contains(policy))
            || asks.standing.policies.iter().any(|policy| self.policies.contains(policy))
    }

    /// Whether it says of whom anything is demanded.
    fn has_conditions(&self) -> bool {
        !self.accessors.is_empty()
            || !self.kinds.is_empty()
            || !self.groups.is_empty()
            || !self.entities.is_empty()
            || !self.policies.is_empty()
    }
}

/// Who wants to be let in.
pub struct Asks<'a> {
    /// By which mount.
    pub mount: &'a MountEntry,
    /// As whom.
    pub entity: &'a Entity,
    /// With what by entity and groups.
    pub standing: &'a Standing,
    /// With what by the role.
    pub token_policies: &'a [String],
}

/// All methods and enforcements.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Methods by id.
    pub methods: BTreeMap<String, Method>,
    /// Enforcements by name.
    pub enforcements: BTreeMap<String, Enforcement>,
}

impl Settings {
    /// Removes a method. Answers whether it was there.
    fn remove_method(&mut self, id: &str) -> Result<bool, CoreError> {
        let demands = |one: &&Enforcement| one.methods.iter().any(|method| method == id);
        if let Some(enforcement) = self.enforcements.values().find(demands) {
            return Err(CoreError::invalid(format!(
                "the login enforcement {:?} demands the method",
                enforcement.name
            )));
        }
        Ok(self.methods.remove(id).is_some())
    }

    /// What has to hold over all of them.
    fn check(&self) -> Result<(), CoreError> {
        if self.methods.len() > COUNT_MAX || self.enforcements.len() > COUNT_MAX {
            let problem = format!("there cannot be more than {COUNT_MAX} of them");
            return Err(CoreError::invalid(problem));
        }
        let mut names = BTreeSet::new();
        for name in self.methods.values().map(|method| &method.name) {
            // A code is shown for an id or a name: it must be clear for whose.
            if !name.is_empty() && (!names.insert(name) || self.methods.contains_key(name)) {
                return Err(CoreError::field("method_name", "is another method's"));
            }
        }
        for enforcement in self.enforcements.values() {
            if enforcement.methods.is_empty() {
                return Err(CoreError::field("mfa_method_ids", "is required"));
            }
            let missing = |id: &&String| !self.methods.contains_key(*id);
            if let Some(id) = enforcement.methods.iter().find(missing) {
                let problem = format!("has {id:?}, which is not the id of a method");
                return Err(CoreError::field("mfa_method_ids", problem));
            }
            if !enforcement.has_conditions() {
                return Err(CoreError::invalid(
                    "one of auth_method_accessors, auth_method_types, identity_group_ids, \
                     identity_entity_ids and policies must say of whom the methods are demanded",
                ));
            }
        }
        Ok(())
    }
}

impl Mfa {
    /// All methods and enforcements.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn settings(&self) -> Result<Arc<Settings>, CoreError> {
        self.settings
            .get(async {
                let methods = self.view(METHODS).entries::<Method>("").await?;
                let enforcements = self.view(ENFORCEMENTS).entries::<Enforcement>("").await?;
                Ok(Settings { methods: values(&methods), enforcements: values(&enforcements) })
            })
            .await
    }

    /// Makes a change out of all methods and enforcements as they are stored now, and starts over when
    /// one of them was changed meanwhile.
    ///
    /// # Errors
    /// What `edit` says; `Field` when an enforcement would name a method that there is not, or two
    /// methods have one name; `Invalid` when an enforcement covers nobody, or there are too many.
    pub async fn change<T>(
        &self,
        edit: impl Fn(&mut Settings) -> Result<T, CoreError>,
    ) -> Result<T, CoreError> {
        for _ in 0..ATTEMPTS {
            // Read first: whatever is changed after this makes the commit fail.
            let turn = self.view("").get_fresh::<u64>(TURN).await?;
            let methods = self.view(METHODS).entries::<Method>("").await?;
            let enforcements = self.view(ENFORCEMENTS).entries::<Enforcement>("").await?;
            let mut all =
                Settings { methods: values(&methods), enforcements: values(&enforcements) };
            let result = edit(&mut all)?;
            all.check()?;
            let mut batch = Batch::new();
            stage(&self.view(METHODS), &mut batch, &methods, &all.methods)?;
            stage(&self.view(ENFORCEMENTS), &mut batch, &enforcements, &all.enforcements)?;
            if batch.is_empty() {
                return Ok(result);
            }
            let next = turn.as_ref().map_or(0, |turn| turn.value).wrapping_add(1);
            let (expected, options) = (Entry::expected(turn.as_ref()), PutOptions::default());
            self.view("").put(&mut batch, TURN, &next, expected, options)?;
            let outcome = self.view("").commit(&batch).await;
            // Also after a failure: the outcome of a broken connection is unknown.
            self.settings.forget();
            match outcome {
                Ok(()) => return Ok(result),
                Err(CoreError::Storage(StorageError::Conflict)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StorageError::Busy.into())
    }

    /// Removes a method, and all shared secrets for it. Answers whether it was there; one that was not
    /// may be one whose removal broke off, of which the rest is removed now.
    ///
    /// # Errors
    /// `Invalid` while an enforcement demands it: without it that would let in nobody, or anybody.
    pub async fn delete_method(&self, id: &str) -> Result<bool, CoreError> {
        let was_there = self.change(|all| all.remove_method(id)).await?;
        self.forget_secrets(id).await?;
        Ok(was_there)
    }

    /// The row that changes with every change of methods and enforcements, and with nothing else.
    pub fn turn_row(&self) -> RowKey {
        self.records.key(&self.view("").full_name(TURN))
    }

    /// The row that must be there when something is stored for a method.
    pub(super) fn method_row(&self, id: &str) -> RowKey {
        self.records.key(&self.view(METHODS).full_name(id))
    }
}

fn values<T: Clone>(entries: &[(String, Entry<T>)]) -> BTreeMap<String, T> {
    entries.iter().map(|(name, entry)| (name.clone(), entry.value.clone())).collect()
}

/// Adds what makes `after` out of `before` to `batch`.
fn stage<T: Serialize + DeserializeOwned + PartialEq>(
    view: &View,
    batch: &mut Batch,
    before: &[(String, Entry<T>)],
    after: &BTreeMap<String, T>,
) -> Result<(), CoreError> {
    for (name, value) in after {
        let known = before.iter().find(|(known, _)| known == name).map(|(_, entry)| entry);
        if known.is_none_or(|known| known.value != *value) {
            let expected = Entry::expected(known);
            view.put(batch, name, value, expected, PutOptions::default())?;
        }
    }
    for (name, entry) in before.iter().filter(|(name, _)| !after.contains_key(name)) {
        view.delete(batch, name, Precondition::Rev(entry.rev));
    }
    Ok(())
}
