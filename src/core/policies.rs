//! Stored policies, compiled once and put together for callers.

use std::sync::{Arc, Weak};

use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};

use crate::storage::StorageError;
use crate::types::id::NamespaceId;
use crate::types::secret::SecretBytes;
use crate::types::time::Timestamp;

use super::acl::{Acl, CompiledPolicy};
use super::error::CoreError;
use super::policy::template::TemplateValues;
use super::policy::{DEFAULT_POLICY, Policy, PolicyName};
use super::records::{Precondition, Records, kinds};
use super::view::View;

/// Policies kept compiled.
const COMPILED_MAX: usize = 1024;

/// A policy, as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredPolicy {
    /// As it was written.
    pub text: String,
    /// Counts its changes.
    pub version: u64,
    /// When it was last changed.
    pub modified_at: Timestamp,
}

/// The policies of an unsealed server.
pub struct PolicyStore {
    view: View,
    /// With the text that each is made of, or nothing for one that is not stored. Not with its revision:
    /// one that was removed and written anew begins with the first again.
    compiled: Cache<PolicyName, (Weak<SecretBytes>, Arc<CompiledPolicy>)>,
}

impl PolicyStore {
    /// The policies in `records`.
    pub fn new(records: Arc<Records>) -> Self {
        let view = View::new(records, NamespaceId::ROOT, kinds::POLICY, String::new());
        Self { view, compiled: Cache::new(COMPILED_MAX) }
    }

    /// One policy; `root` has no text, and `default` has ours until it is written.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get(&self, name: &PolicyName) -> Result<Option<StoredPolicy>, CoreError> {
        if let Some(entry) = self.view.get(name.as_str()).await? {
            return Ok(Some(entry.value));
        }
        Ok(unwritten(name))
    }

    /// Whether callers with that policy have it: it is `root`, stored, or has a text of ours.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn exists(&self, name: &PolicyName) -> Result<bool, CoreError> {
        let known = name.is_root() || unwritten(name).is_some();
        Ok(known || self.view.get_record_defaulted(name.as_str()).await?.is_some())
    }

    /// All names, sorted, `root` and `default` among them.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn names(&self) -> Result<Vec<String>, CoreError> {
        let mut names = self.view.list("").await?;
        names.extend(["default".to_owned(), "root".to_owned()]);
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Writes a policy. With `expected_version`, only over exactly that version (0: none yet).
    ///
    /// # Errors
    /// `Invalid` when it does not parse, is `root`, or the version is another.
    pub async fn set(
        &self,
        name: &PolicyName,
        text: String,
        now: Timestamp,
        expected_version: Option<u64>,
    ) -> Result<(), CoreError> {
        if name.is_root() {
            return Err(CoreError::invalid("cannot update \"root\" policy"));
        }
        Policy::parse(name, &text)
            .map_err(|error| CoreError::field("policy", error.to_string()))?;
        let present = self.view.get_fresh::<StoredPolicy>(name.as_str()).await?;
        let version = present.as_ref().map_or(0, |entry| entry.value.version);
        if expected_version.is_some_and(|expected| expected != version) {
            return Err(CoreError::field("cas", "does not match the present version"));
        }
        let precondition = match &present {
            Some(entry) => Precondition::Rev(entry.rev),
            None => Precondition::Absent,
        };
        let stored = StoredPolicy { text, version: version + 1, modified_at: now };
        match self.view.write(name.as_str(), &stored, precondition).await {
            Err(CoreError::Storage(StorageError::Conflict)) => {
                Err(CoreError::field("cas", "does not match the present version"))
            }
            other => other,
        }
    }

    /// Removes a policy.
    ///
    /// # Errors
    /// `Invalid` for `root` and `default`.
    pub async fn remove(&self, name: &PolicyName) -> Result<(), CoreError> {
        if name.is_root() || *name == PolicyName::default_policy() {
            return Err(CoreError::invalid(format!("cannot delete \"{}\" policy", name.as_str())));
        }
        self.view.remove(name.as_str()).await
    }

    /// What a caller with these policies may do. Names without a policy grant nothing.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn acl(&self, names: &[String], values: &TemplateValues) -> Result<Acl, CoreError> {
        let mut policies = Vec::with_capacity(names.len());
        for name in names {
            // A stored name that is no policy name can only be of a policy that never existed.
            let Ok(name) = PolicyName::parse(name) else { continue };
            policies.extend(self.compiled(&name).await?);
        }
        Ok(Acl::new(policies, values))
    }

    async fn compiled(&self, name: &PolicyName) -> Result<Option<Arc<CompiledPolicy>>, CoreError> {
        if name.is_root() {
            return Ok(Some(CompiledPolicy::root()));
        }
        let record = self.view.get_record_defaulted(name.as_str()).await?;
        let text = record.as_ref().map_or_else(Weak::new, |record| Arc::downgrade(&record.body));
        if let Some((known, compiled)) = self.compiled.get(name)
            && Weak::ptr_eq(&known, &text)
        {
            return Ok(Some(compiled));
        }
        let stored = record.as_ref().map(|record| record.decode()).transpose()?;
        let Some(stored) = stored.or_else(|| unwritten(name)) else { return Ok(None) };
        let compiled = CompiledPolicy::compile(name, &stored.text)
            .map_err(|_| CoreError::internal("a stored policy does not parse"))?;
        self.compiled.insert(name.clone(), (text, compiled.clone()));
        Ok(Some(compiled))
    }
}

/// What stands for a policy that nobody has written.
fn unwritten(name: &PolicyName) -> Option<StoredPolicy> {
    (*name == PolicyName::default_policy()).then(|| StoredPolicy {
        text: DEFAULT_POLICY.to_owned(),
        version: 0,
        modified_at: Timestamp::from_secs(0),
    })
}
