//! A named part of the store: one kind of record below one prefix. What engines are given, and what
//! the core's own tables are made of.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::storage::{Kind, PAGE_ROWS_MAX};
use crate::types::id::NamespaceId;
use crate::types::time::Timestamp;

use super::error::CoreError;
use super::records::{Batch, FullName, Precondition, Record, Records, encode};

/// A part of the store. Names are relative to it and cannot leave it.
#[derive(Clone)]
pub struct View {
    records: Arc<Records>,
    namespace: NamespaceId,
    kind: Kind,
    base: String,
}

/// A value with the revision it was read at.
#[derive(Clone, Debug)]
pub struct Entry<T> {
    /// The value.
    pub value: T,
    /// Its revision, for conditional changes.
    pub rev: u64,
    /// When it is due.
    pub due_at: Option<Timestamp>,
}

impl<T> Entry<T> {
    /// What a change expects to find, after what was read: that revision, or nothing.
    pub fn expected(read: Option<&Self>) -> Precondition {
        read.map_or(Precondition::Absent, |entry| Precondition::Rev(entry.rev))
    }
}

/// How a value is put, beside its name and body.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// When a reconciler has to look at it.
    pub due_at: Option<Timestamp>,
    /// What else it can be found by.
    pub labels: Vec<String>,
}

impl View {
    /// The part of `kind` below `base`, which is empty or ends in a slash.
    pub fn new(records: Arc<Records>, namespace: NamespaceId, kind: Kind, base: String) -> Self {
        debug_assert!(base.is_empty() || base.ends_with('/'));
        Self { records, namespace, kind, base }
    }

    /// The records below, for commits that span several views.
    pub fn records(&self) -> &Arc<Records> {
        &self.records
    }

    /// The whole name of a record of this view.
    pub fn full_name(&self, name: &str) -> FullName {
        FullName {
            namespace: self.namespace,
            kind: self.kind,
            name: format!("{}{name}", self.base),
        }
    }

    /// One value.
    ///
    /// # Errors
    /// When the store fails, or the value does not parse.
    pub async fn get<T: DeserializeOwned>(
        &self,
        name: &str,
    ) -> Result<Option<Entry<T>>, CoreError> {
        self.get_record(name).await?.as_ref().map(entry).transpose()
    }

    /// One value, or its default where it is not there, as by [`Records::get_defaulted`].
    ///
    /// # Errors
    /// As [`View::get`].
    pub async fn get_defaulted<T: DeserializeOwned + Default>(
        &self,
        name: &str,
    ) -> Result<T, CoreError> {
        self.get_record_defaulted(name).await?.map_or_else(|| Ok(T::default()), |it| it.decode())
    }

    /// The record of one value that has a default, without parsing its body.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get_record_defaulted(&self, name: &str) -> Result<Option<Record>, CoreError> {
        Ok(value(self.records.get_defaulted(&self.full_name(name)).await?))
    }

    /// One value, from the store even when it is cached. For checks that guard a write on another node.
    ///
    /// # Errors
    /// As [`View::get`].
    pub async fn get_fresh<T: DeserializeOwned>(
        &self,
        name: &str,
    ) -> Result<Option<Entry<T>>, CoreError> {
        let record = self.records.get_fresh(&self.full_name(name)).await?;
        value(record).as_ref().map(entry).transpose()
    }

    /// One record as it is stored, without parsing its body.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get_record(&self, name: &str) -> Result<Option<Record>, CoreError> {
        Ok(value(self.records.get(&self.full_name(name)).await?))
    }

    /// The names directly below `dir` (empty, or ending in a slash), sorted; directories end in a slash.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self, dir: &str) -> Result<Vec<String>, CoreError> {
        self.records.names(self.namespace, self.kind, &self.full_name(dir).name).await
    }

    /// All values directly below `dir`, with their names relative to the view, sorted by name.
    ///
    /// # Errors
    /// As [`View::get`].
    pub async fn entries<T: DeserializeOwned>(
        &self,
        dir: &str,
    ) -> Result<Vec<(String, Entry<T>)>, CoreError> {
        let mut entries = Vec::new();
        let mut after = None;
        loop {
            let (records, next) = self
                .records
                .page(self.namespace, self.kind, &self.full_name(dir).name, after, PAGE_ROWS_MAX)
                .await?;
            for record in records.iter().filter(|record| !record.is_dir()) {
                entries.push((self.relative(record).to_owned(), entry(record)?));
            }
            after = next;
            if after.is_none() {
                entries.sort_by(|(a, _), (b, _)| a.cmp(b));
                return Ok(entries);
            }
        }
    }

    /// The name of `record` relative to this view.
    pub fn relative<'r>(&self, record: &'r Record) -> &'r str {
        record.name.strip_prefix(self.base.as_str()).unwrap_or(&record.name)
    }

    /// Adds a write to `batch`.
    ///
    /// # Errors
    /// When the value has no JSON form.
    pub fn put<T: Serialize>(
        &self,
        batch: &mut Batch,
        name: &str,
        value: &T,
        precondition: Precondition,
        options: PutOptions,
    ) -> Result<(), CoreError> {
        let body = encode(value)?;
        batch.put(self.full_name(name), precondition, body, options.due_at, options.labels);
        Ok(())
    }

    /// Adds a removal to `batch`.
    pub fn delete(&self, batch: &mut Batch, name: &str, precondition: Precondition) {
        batch.delete(self.full_name(name), precondition);
    }

    /// Writes one value on its own.
    ///
    /// # Errors
    /// `Storage(Conflict)` when the precondition does not hold.
    pub async fn write<T: Serialize>(
        &self,
        name: &str,
        value: &T,
        precondition: Precondition,
    ) -> Result<(), CoreError> {
        let mut batch = Batch::new();
        self.put(&mut batch, name, value, precondition, PutOptions::default())?;
        self.records.commit(&batch).await.map(|_| ())
    }

    /// Removes one value on its own; one that is not there is no error.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn remove(&self, name: &str) -> Result<(), CoreError> {
        let mut batch = Batch::new();
        self.delete(&mut batch, name, Precondition::Any);
        self.records.commit(&batch).await.map(|_| ())
    }

    /// Applies `batch` in one durable commit.
    ///
    /// # Errors
    /// `Storage(Conflict)` when a precondition does not hold; nothing has changed then.
    pub async fn commit(&self, batch: &Batch) -> Result<(), CoreError> {
        self.records.commit(batch).await.map(|_| ())
    }

    /// Removes everything below `dir`, page by page. Safe to call again after an interruption.
    ///
    /// # Errors
    /// When the store fails; what was removed by then stays removed.
    pub async fn remove_tree(&self, dir: &str) -> Result<(), CoreError> {
        let mut pending = vec![self.full_name(dir).name];
        while let Some(top) = pending.pop() {
            let (records, _) =
                self.records.page(self.namespace, self.kind, &top, None, PAGE_ROWS_MAX).await?;
            if records.is_empty() {
                continue;
            }
            // Directories go when their last child does, so only their contents are asked for.
            pending.push(top);
            let mut batch = Batch::new();
            for record in records {
                if record.is_dir() {
                    pending.push(record.name.to_string());
                } else {
                    let at = FullName {
                        namespace: self.namespace,
                        kind: self.kind,
                        name: record.name.to_string(),
                    };
                    batch.delete(at, Precondition::Any);
                }
            }
            if !batch.is_empty() {
                self.records.commit(&batch).await?;
            }
        }
        Ok(())
    }
}

/// Nothing where a directory is: it has no value, and whoever asks may have brought its name.
fn value(record: Option<Record>) -> Option<Record> {
    record.filter(|record| !record.is_dir())
}

fn entry<T: DeserializeOwned>(record: &Record) -> Result<Entry<T>, CoreError> {
    Ok(Entry { value: record.decode()?, rev: record.rev, due_at: record.due_at })
}
