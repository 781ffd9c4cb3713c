//! Directories go with their last child.

use std::collections::BTreeSet;

use crate::crypto::blind::Tag;
use crate::storage::{Change, StorageError};

use super::super::error::CoreError;
use super::commit::{After, Plan};
use super::{FullName, Records, depth, parent_of};

/// Rows looked at first to find out whether a directory has other children than those that go.
const PRUNING_GLANCE: usize = 8;

impl Records {
    /// Removes those of `dirs` that have no child any more. Two commits that each take one of the last
    /// two children both leave the directory to the other; whoever comes last finds it empty here.
    pub(super) async fn prune_emptied(&self, mut dirs: Vec<FullName>) {
        while let Some(dir) = dirs.pop() {
            let mut plan = Plan::default();
            plan.removed.entry(dir).or_default();
            let pruned = match self.plan_pruning(&mut plan).await {
                Ok(()) if plan.changes.is_empty() => continue,
                Ok(()) => self.apply(plan.changes, plan.touched).await.map_err(CoreError::from),
                Err(error) => Err(error),
            };
            match pruned {
                Ok(_) => dirs.extend(plan.left),
                // It has a child again, or somebody else has removed it.
                Err(CoreError::Storage(StorageError::Conflict)) => {}
                // Nothing is lost but a row that says nothing.
                Err(error) => tracing::debug!(%error, "an empty directory stays for now"),
            }
        }
    }

    /// Removes the directories that the batch leaves without children, from the deepest up.
    pub(super) async fn plan_pruning(&self, plan: &mut Plan) -> Result<(), CoreError> {
        loop {
            // The deepest first, so that an emptied child counts as removed in its parent.
            let Some(dir) = plan.removed.keys().max_by_key(|dir| depth(&dir.name)).cloned() else {
                return Ok(());
            };
            let gone = plan.removed.remove(&dir).unwrap_or_default();
            if dir.name.is_empty() || plan.kept.contains(&dir) {
                continue;
            }
            let parent = self.parent_tag(dir.namespace, dir.kind, &dir.name);
            if self.has_others(&dir, parent, &gone).await? {
                plan.left.push(dir);
                continue;
            }
            let key = self.key(&dir);
            plan.changes.push(Change::RequireChildless { guard: key, kind: dir.kind, parent });
            // Directories are never rewritten, so their revision is always the first.
            plan.changes.push(Change::Delete { key, rev: 1 });
            plan.touched.push((key, After::Changed));
            plan.removed.entry(parent_of(&dir)).or_default().insert(key.name);
        }
    }

    /// Whether anything but `gone` is listed under `dir`.
    async fn has_others(
        &self,
        dir: &FullName,
        parent: Tag,
        gone: &BTreeSet<Tag>,
    ) -> Result<bool, CoreError> {
        let enough = gone.len().saturating_add(1);
        // A few are enough to find another one in a directory of many, of which few go.
        for limit in [PRUNING_GLANCE.min(enough), enough] {
            let page = self.storage.list(dir.namespace, dir.kind, parent, None, limit).await?;
            if page.rows.iter().any(|row| !gone.contains(&row.key.name)) {
                return Ok(true);
            }
            if page.next.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
