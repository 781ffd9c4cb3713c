//! A batch, as changes of rows with the directories that it needs or empties, in one durable commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use tokio::runtime::Handle;

use crate::crypto::blind::Tag;
use crate::storage::{Change, Committed, Expect, Invalidation, Row, RowKey, StorageError};
use crate::types::secret::SecretBytes;
use crate::types::time::Timestamp;

use super::super::error::CoreError;
use super::super::failpoint::fail_point;
use super::super::outliving::seen_through;
use super::{Action, Batch, FullName, Precondition, Record, Records, dir_of, parent_of};

/// How often a commit is tried again when only directories, not the caller's own expectations, were
/// changed by somebody else meanwhile.
const COMMIT_ATTEMPTS: usize = 24;

/// What becomes of a row that a commit is about, once it has happened.
pub(super) enum After {
    /// It says this, if anybody still waits: what outlives whoever asked holds nothing in clear.
    Is(Weak<Record>),
    /// It is gone, or new.
    Changed,
    /// It had to be there.
    Needed,
}

#[derive(Default)]
pub(super) struct Plan {
    pub(super) changes: Vec<Change>,
    pub(super) touched: Vec<(RowKey, After)>,
    /// What [`After::Is`] speaks of.
    says: Vec<Arc<Record>>,
    pub(super) kept: BTreeSet<FullName>,
    pub(super) removed: BTreeMap<FullName, BTreeSet<Tag>>,
    /// Directories that lose children and keep others, as far as is known beforehand.
    pub(super) left: Vec<FullName>,
}

impl Records {
    /// Applies a batch in one durable commit, with the directories it needs or empties.
    ///
    /// # Errors
    /// `Storage(Conflict)` when a precondition does not hold; nothing has changed then.
    pub async fn commit(&self, batch: &Batch) -> Result<Committed, CoreError> {
        let mut fresh = false;
        for _ in 0..COMMIT_ATTEMPTS {
            let plan = self.plan(batch, fresh).await?;
            if plan.changes.is_empty() {
                return Ok(Committed { sequence: self.storage.sequence().await? });
            }
            // What the plan says stays here meanwhile.
            match self.apply(plan.changes, plan.touched).await {
                Ok(committed) => {
                    self.prune_emptied(plan.left).await;
                    return Ok(committed);
                }
                Err(StorageError::Conflict) => {
                    // Perhaps another node has destroyed the term that this was sealed under.
                    self.renew_keyring().await?;
                    self.recheck(batch).await?;
                }
                Err(error) => return Err(error.into()),
            }
            fresh = true;
        }
        Err(StorageError::Busy.into())
    }

    pub(super) async fn apply(
        &self,
        changes: Vec<Change>,
        touched: Vec<(RowKey, After)>,
    ) -> Result<Committed, StorageError> {
        let (storage, cache, late) = (self.storage.clone(), self.cache.clone(), self.late.clone());
        let work = async move {
            let noted: Vec<u64> = touched.iter().map(|(key, _)| cache.epoch(key)).collect();
            fail_point("records.before_commit");
            let result = storage.commit(changes).await;
            fail_point("records.after_commit");
            if let Some(late) = late.get() {
                let keys = touched.iter().map(|(key, _)| *key).collect();
                // Nobody listens while it is sealed; whoever begins to forgets everything.
                let _ = late.send(Invalidation::Rows(keys));
            }
            for ((key, after), noted) in touched.into_iter().zip(noted) {
                match after {
                    // The outcome of a broken connection is unknown.
                    _ if result.is_err() => cache.remove(key),
                    After::Is(record) => match record.upgrade() {
                        Some(record) => cache.replace_if(key, Record::clone(&record), noted),
                        None => cache.remove(key),
                    },
                    After::Changed => cache.remove(key),
                    After::Needed => {}
                }
            }
            result
        };
        // Whoever asked may be gone before the store has answered, such as a task that is ended: what
        // was committed, such as the end of a token, counts on this node all the same.
        let go_on = |rest| {
            if let Ok(runtime) = Handle::try_current() {
                runtime.spawn(rest);
            }
        };
        seen_through(work, go_on).await.inspect(|committed| {
            self.sequence.fetch_max(committed.sequence, Ordering::AcqRel);
        })
    }

    /// After a conflict: fails when one of the caller's own preconditions no longer holds.
    async fn recheck(&self, batch: &Batch) -> Result<(), CoreError> {
        if batch.steps.is_empty() {
            return Err(StorageError::Conflict.into());
        }
        for step in &batch.steps {
            let holds = match step.precondition {
                Precondition::Any => true,
                Precondition::Absent => self.get_fresh(&step.at).await?.is_none(),
                Precondition::Rev(rev) => {
                    self.get_fresh(&step.at).await?.is_some_and(|record| record.rev == rev)
                }
            };
            if !holds {
                return Err(StorageError::Conflict.into());
            }
        }
        for change in &batch.further {
            let holds = match change {
                Change::PutMeta { name, expect: Some(expected), .. } => {
                    self.storage.meta(name).await? == *expected
                }
                Change::RequireRow { key } => self.storage.get(*key).await?.is_some(),
                Change::PutMeta { expect: None, .. }
                | Change::Put { .. }
                | Change::Delete { .. }
                | Change::RequireChildless { .. }
                | Change::RequireFewer { .. }
                | Change::RaiseTermFloor { .. } => true,
            };
            if !holds {
                return Err(StorageError::Conflict.into());
            }
        }
        Ok(())
    }

    async fn plan(&self, batch: &Batch, fresh: bool) -> Result<Plan, CoreError> {
        let mut plan = Plan::default();
        for step in &batch.steps {
            let key = self.key(&step.at);
            let rev = match step.precondition {
                Precondition::Absent => None,
                Precondition::Rev(rev) => Some(rev),
                Precondition::Any => self.rev(&step.at, fresh).await?,
            };
            match (&step.action, rev) {
                (Action::Put { body, due_at, labels }, _) => {
                    let expect = rev.map_or(Expect::Absent, Expect::Rev);
                    let row =
                        self.row(&step.at, key, rev.map_or(1, |r| r + 1), body, *due_at, labels)?;
                    let after = if rev.is_none() {
                        self.plan_dirs(&mut plan, &step.at, fresh).await?;
                        After::Changed
                    } else {
                        let name = step.at.name.as_str().into();
                        let body = Arc::clone(body);
                        let says = Arc::new(Record { name, rev: row.rev, due_at: *due_at, body });
                        let after = After::Is(Arc::downgrade(&says));
                        plan.says.push(says);
                        after
                    };
                    plan.changes.push(Change::Put { row, expect });
                    plan.touched.push((key, after));
                }
                (Action::Delete, Some(rev)) => {
                    plan.changes.push(Change::Delete { key, rev });
                    plan.touched.push((key, After::Changed));
                    plan.removed.entry(parent_of(&step.at)).or_default().insert(key.name);
                }
                (Action::Delete, None) => {}
            }
        }
        self.plan_pruning(&mut plan).await?;
        plan.changes.extend(batch.further.iter().cloned());
        Ok(plan)
    }

    async fn rev(&self, at: &FullName, fresh: bool) -> Result<Option<u64>, CoreError> {
        let record = if fresh { self.get_fresh(at).await? } else { self.get(at).await? };
        Ok(record.map(|record| record.rev))
    }

    fn row(
        &self,
        at: &FullName,
        key: RowKey,
        rev: u64,
        body: &SecretBytes,
        due_at: Option<Timestamp>,
        labels: &[String],
    ) -> Result<Row, CoreError> {
        let parent = self.parent_tag(at.namespace, at.kind, dir_of(&at.name));
        let labels: BTreeSet<Tag> =
            labels.iter().map(|label| self.label_tag(at.namespace, at.kind, label)).collect();
        let sealed = self.seal(key, parent, rev, &at.name, body.expose())?;
        Ok(Row { key, parent, rev, due_at, labels: labels.into_iter().collect(), sealed })
    }

    /// Puts the directories that a new record needs, from the deepest up to the first that exists.
    async fn plan_dirs(
        &self,
        plan: &mut Plan,
        at: &FullName,
        fresh: bool,
    ) -> Result<(), CoreError> {
        let mut dir = parent_of(at);
        while !dir.name.is_empty() {
            if !plan.kept.insert(dir.clone()) {
                return Ok(());
            }
            let key = self.key(&dir);
            if self.rev(&dir, fresh).await?.is_some() {
                plan.changes.push(Change::RequireRow { key });
                plan.touched.push((key, After::Needed));
                return Ok(());
            }
            let row = self.row(&dir, key, 1, &SecretBytes::new(Vec::new()), None, &[])?;
            plan.changes.push(Change::Put { row, expect: Expect::Absent });
            plan.touched.push((key, After::Changed));
            dir = parent_of(&dir);
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "failpoints"))]
mod tests {
    use super::super::*;
    use crate::core::scratch::Scratch;
    use crate::core::view::View;
    use crate::storage::fault::FaultyStorage;

    fn over(records: Arc<Records>) -> View {
        View::new(records, NamespaceId::ROOT, kinds::MOUNT_DATA, "m/".into())
    }

    #[tokio::test]
    async fn a_commit_whose_asker_is_gone_counts_all_the_same() {
        let scratch = Scratch::new();
        let counted = FaultyStorage::new(scratch.storage.clone());
        let view = over(scratch.reopened(counted.clone()));
        view.write("a", &1, Precondition::Absent).await.unwrap();
        let before = view.get::<u64>("a").await.unwrap().unwrap();
        assert_eq!(before.value, 1, "and it is in the cache");
        let done = counted.writes();
        let mut asked = Box::pin(view.write("a", &2, Precondition::Rev(before.rev)));
        while counted.writes() == done {
            assert!(futures_util::poll!(asked.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
        drop(asked);
        let elsewhere = over(scratch.records.clone());
        while elsewhere.get_fresh::<u64>("a").await.unwrap().unwrap().value == 1 {}
        // The store has answered by now, or is about to.
        for _ in 0..1000 {
            if view.get::<u64>("a").await.unwrap().unwrap().value == 2 {
                return;
            }
            elsewhere.get_fresh::<u64>("a").await.unwrap();
        }
        panic!("what was committed is not what is answered");
    }

    #[tokio::test]
    async fn what_was_read_and_is_written_again_needs_no_further_questions() {
        let scratch = Scratch::new();
        let counted = FaultyStorage::new(scratch.storage.clone());
        let view = over(scratch.reopened(counted.clone()));
        view.write("meta", &0, Precondition::Absent).await.unwrap();
        view.write("v/0", &0, Precondition::Absent).await.unwrap();
        view.get::<u64>("meta").await.unwrap().unwrap();
        // The directory of the other is known from here on.
        view.write("v/1", &1, Precondition::Absent).await.unwrap();
        let asked = counted.reads();
        for number in 2..9_u64 {
            let before = view.get::<u64>("meta").await.unwrap().unwrap();
            view.write("meta", &number, Precondition::Rev(before.rev)).await.unwrap();
            view.write(&format!("v/{number}"), &number, Precondition::Absent).await.unwrap();
            let after = view.get::<u64>("meta").await.unwrap().unwrap();
            assert_eq!((after.value, after.rev), (number, before.rev + 1));
        }
        assert_eq!(counted.reads(), asked);
        let stored = view.get_fresh::<u64>("meta").await.unwrap().unwrap();
        assert_eq!((stored.value, stored.rev), (8, 8));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nobody_reads_less_than_was_acknowledged_while_many_write() {
        let scratch = Scratch::new();
        let new = || over(scratch.records.clone());
        new().write("a", &0_u64, Precondition::Absent).await.unwrap();
        let acknowledged = Arc::new(std::sync::atomic::AtomicU64::new(1));
        let writers = (0..4).map(|_| {
            let (view, acknowledged) = (new(), acknowledged.clone());
            tokio::spawn(async move {
                for _ in 0..200 {
                    let least = acknowledged.load(Ordering::SeqCst);
                    let before = view.get::<u64>("a").await.unwrap().unwrap();
                    assert!(before.rev >= least, "{} after {least}", before.rev);
                    assert_eq!(before.value + 1, before.rev);
                    let next = Precondition::Rev(before.rev);
                    if view.write("a", &(before.value + 1), next).await.is_ok() {
                        acknowledged.fetch_max(before.rev + 1, Ordering::SeqCst);
                    }
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        let kept = new().get::<u64>("a").await.unwrap().unwrap();
        let stored = new().get_fresh::<u64>("a").await.unwrap().unwrap();
        assert!(stored.rev > 100);
        assert_eq!(kept.rev, stored.rev);
    }
}
