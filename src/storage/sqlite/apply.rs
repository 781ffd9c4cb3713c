//! Changes, as SQL, inside a transaction that somebody else began.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::row::{check_next_rev, labels_from_bytes, labels_to_bytes, rev_to_sql};
use super::{Change, Kind, Row, RowKey, StorageError, read};
use crate::crypto::blind::Tag;
use crate::crypto::envelope::SealedRecord;
use crate::storage::{Expect, TERM_FLOOR};

/// Why a batch was not applied.
#[derive(Debug)]
pub(super) enum ApplyError {
    /// The batch's own fault, or a precondition.
    Refused(StorageError),
    /// SQLite's.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for ApplyError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<StorageError> for ApplyError {
    fn from(error: StorageError) -> Self {
        Self::Refused(error)
    }
}

type Applied = Result<(), ApplyError>;

const INSERT: &str = "INSERT INTO record \
     (namespace, kind, name, parent, rev, due_at, term, labels, sealed) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING";
const PRESENT: &str = "SELECT rowid, parent, due_at, term, labels FROM record \
     WHERE namespace = ?1 AND kind = ?2 AND name = ?3 AND rev = ?4";
const UPDATE_BODY: &str = "UPDATE record SET rev = ?2, labels = ?3, sealed = ?4 WHERE rowid = ?1";
const UPDATE_ALL: &str = "UPDATE record SET rev = ?2, labels = ?3, sealed = ?4, parent = ?5, \
     due_at = ?6, term = ?7 WHERE rowid = ?1";
const DELETE: &str = "DELETE FROM record \
     WHERE namespace = ?1 AND kind = ?2 AND name = ?3 AND rev = ?4 RETURNING labels";
const RESEAL: &str = "UPDATE record SET term = ?5, sealed = ?6 \
     WHERE namespace = ?1 AND kind = ?2 AND name = ?3 AND rev = ?4";
const EXISTS: &str = "SELECT EXISTS \
     (SELECT 1 FROM record WHERE namespace = ?1 AND kind = ?2 AND name = ?3)";
const HAS_CHILD: &str = "SELECT EXISTS \
     (SELECT 1 FROM record WHERE kind = ?1 AND namespace = ?2 AND parent = ?3)";
const INSERT_LABEL: &str = "INSERT INTO label (namespace, kind, tag, name) \
     VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
const DELETE_LABEL: &str =
    "DELETE FROM label WHERE namespace = ?1 AND kind = ?2 AND tag = ?3 AND name = ?4";
const PUT_META: &str = "INSERT INTO meta (name, value) VALUES (?1, ?2) \
     ON CONFLICT (name) DO UPDATE SET value = excluded.value";
const DELETE_META: &str = "DELETE FROM meta WHERE name = ?1";

/// The lowest term that a row may be sealed under, as far as one transaction knows it.
#[derive(Default)]
pub(super) struct Floor(Option<u32>);

impl Floor {
    fn of(&mut self, db: &Connection) -> Result<u32, ApplyError> {
        match self.0 {
            Some(floor) => Ok(floor),
            None => Ok(*self.0.insert(term_floor(db)?)),
        }
    }

    /// Forgets it: it may have been changed, or a change of it undone.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }
}

/// The changes in order, until one is refused.
pub(super) fn batch(db: &Connection, changes: &[Change], known: &mut Floor) -> Applied {
    changes.iter().try_for_each(|change| match change {
        Change::Put { row, expect } => {
            check_next_rev(row, *expect)?;
            require(row.sealed.term() >= known.of(db)?)?;
            match expect {
                Expect::Absent => insert(db, row),
                Expect::Rev(rev) => update(db, row, *rev),
            }
        }
        Change::Delete { key, rev } => delete(db, *key, *rev),
        Change::RequireRow { key } => {
            let there: bool = db
                .prepare_cached(EXISTS)?
                .query_row(params![key.namespace.0, key.kind.0, key.name.as_bytes()], |row| {
                    row.get(0)
                })?;
            require(there)
        }
        Change::RequireChildless { guard, kind, parent } => {
            let child: bool = db
                .prepare_cached(HAS_CHILD)?
                .query_row(params![kind.0, guard.namespace.0, parent.as_bytes()], |row| {
                    row.get(0)
                })?;
            require(!child)
        }
        Change::RequireFewer { namespace, kind, label, max } => {
            if read::count_labelled(db, *namespace, *kind, *label, *max)? < *max {
                Ok(())
            } else {
                Err(StorageError::Limit.into())
            }
        }
        Change::PutMeta { name, value, expect } => {
            known.forget();
            put_meta(db, name, value.as_deref(), expect.as_ref().map(Option::as_deref))
        }
        Change::RaiseTermFloor { term } => {
            require(read::count_wrapped_below(db, *term)? == 0)?;
            let floor = known.of(db)?.max(*term);
            known.forget();
            put_meta(db, TERM_FLOOR, Some(&floor.to_be_bytes()), None)
        }
    })
}

fn term_floor(db: &Connection) -> Result<u32, ApplyError> {
    let Some(value) = read::meta(db, TERM_FLOOR)? else { return Ok(0) };
    let bytes = value.try_into().map_err(|_| StorageError::Corrupt(TERM_FLOOR.to_owned()))?;
    Ok(u32::from_be_bytes(bytes))
}

/// Replaces sealed bytes of rows that did not change meanwhile.
pub(super) fn reseal(
    db: &Connection,
    rows: &[(RowKey, u64, SealedRecord)],
    known: &mut Floor,
) -> Applied {
    let mut statement = db.prepare_cached(RESEAL)?;
    let floor = known.of(db)?;
    for (key, rev, sealed) in rows {
        require(sealed.term() >= floor)?;
        statement.execute(params![
            key.namespace.0,
            key.kind.0,
            key.name.as_bytes(),
            rev_to_sql(*rev)?,
            sealed.term(),
            sealed.as_bytes(),
        ])?;
    }
    Ok(())
}

fn require(holds: bool) -> Applied {
    if holds { Ok(()) } else { Err(StorageError::Conflict.into()) }
}

fn insert(db: &Connection, row: &Row) -> Applied {
    let inserted = db.prepare_cached(INSERT)?.execute(params![
        row.key.namespace.0,
        row.key.kind.0,
        row.key.name.as_bytes(),
        row.parent.as_bytes(),
        rev_to_sql(row.rev)?,
        row.due_at.map(|at| at.as_millis()),
        row.sealed.term(),
        labels_to_bytes(&row.labels),
        row.sealed.as_bytes(),
    ])?;
    require(inserted == 1)?;
    each_label(db, INSERT_LABEL, row.key, row.labels.iter())
}

/// What of a row has an index.
struct Present {
    rowid: i64,
    parent: [u8; 16],
    due_at: Option<i64>,
    term: u32,
    labels: Vec<u8>,
}

fn update(db: &Connection, row: &Row, rev: u64) -> Applied {
    let key = row.key;
    let present = db
        .prepare_cached(PRESENT)?
        .query_row(
            params![key.namespace.0, key.kind.0, key.name.as_bytes(), rev_to_sql(rev)?],
            |found| {
                Ok(Present {
                    rowid: found.get(0)?,
                    parent: found.get(1)?,
                    due_at: found.get(2)?,
                    term: found.get(3)?,
                    labels: found.get(4)?,
                })
            },
        )
        .optional()?
        .ok_or(StorageError::Conflict)?;
    let due_at = row.due_at.map(|at| at.as_millis());
    let labels = labels_to_bytes(&row.labels);
    let (rowid, rev) = (present.rowid, rev_to_sql(row.rev)?);
    let (term, sealed) = (row.sealed.term(), row.sealed.as_bytes());
    // SQLite rewrites the entries of every index whose columns are named, changed or not.
    if present.parent == *row.parent.as_bytes() && present.due_at == due_at && present.term == term
    {
        db.prepare_cached(UPDATE_BODY)?.execute(params![rowid, rev, labels, sealed])?;
    } else {
        let parent = row.parent.as_bytes();
        db.prepare_cached(UPDATE_ALL)?
            .execute(params![rowid, rev, labels, sealed, parent, due_at, term])?;
    }
    if present.labels != labels {
        let before = parse_labels(&present.labels)?;
        let dropped = before.iter().filter(|label| !row.labels.contains(label));
        each_label(db, DELETE_LABEL, key, dropped)?;
        let added = row.labels.iter().filter(|label| !before.contains(label));
        each_label(db, INSERT_LABEL, key, added)?;
    }
    Ok(())
}

fn delete(db: &Connection, key: RowKey, rev: u64) -> Applied {
    let labels: Vec<u8> = db
        .prepare_cached(DELETE)?
        .query_row(
            params![key.namespace.0, key.kind.0, key.name.as_bytes(), rev_to_sql(rev)?],
            |row| row.get(0),
        )
        .optional()?
        .ok_or(StorageError::Conflict)?;
    each_label(db, DELETE_LABEL, key, parse_labels(&labels)?.iter())
}

fn parse_labels(bytes: &[u8]) -> Result<Vec<Tag>, ApplyError> {
    labels_from_bytes(bytes)
        .ok_or_else(|| StorageError::Corrupt("the labels of a record".to_owned()).into())
}

fn each_label<'a>(
    db: &Connection,
    statement: &str,
    key: RowKey,
    labels: impl Iterator<Item = &'a Tag>,
) -> Applied {
    let mut statement = db.prepare_cached(statement)?;
    let (namespace, Kind(kind)) = (key.namespace.0, key.kind);
    for label in labels {
        statement.execute(params![namespace, kind, label.as_bytes(), key.name.as_bytes()])?;
    }
    Ok(())
}

fn put_meta(
    db: &Connection,
    name: &str,
    value: Option<&[u8]>,
    expect: Option<Option<&[u8]>>,
) -> Applied {
    if let Some(expected) = expect {
        require(read::meta(db, name)?.as_deref() == expected)?;
    }
    match value {
        Some(value) => db.prepare_cached(PUT_META)?.execute(params![name, value])?,
        None => db.prepare_cached(DELETE_META)?.execute([name])?,
    };
    Ok(())
}
