//! The questions, as SQL. Each is answered by an index; a test asks SQLite for its plans.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::row::{RawRow, Rows, count_from_sql, count_to_sql, limit_to_sql, page_limit};
use super::{Kind, KindCount, Page, Row, RowKey, StorageError, failed};
use crate::crypto::blind::Tag;
use crate::types::id::NamespaceId;
use crate::types::time::Timestamp;

/// Columns of a row in the order that [`raw`] reads.
macro_rules! select_row {
    ($($rest:literal),+) => {
        concat!(
            "SELECT r.namespace, r.kind, r.name, r.parent, r.rev, r.due_at, r.labels, r.sealed ",
            $($rest),+
        )
    };
}

pub(super) const GET: &str =
    select_row!("FROM record r WHERE r.namespace = ?1 AND r.kind = ?2 AND r.name = ?3");
pub(super) const LIST: &str = select_row!(
    "FROM record r WHERE r.kind = ?1 AND r.namespace = ?2 AND r.parent = ?3 AND r.name > ?4 ",
    "ORDER BY r.name LIMIT ?5"
);
pub(super) const LABELLED: &str = select_row!(
    "FROM label l CROSS JOIN record r ",
    "ON r.namespace = l.namespace AND r.kind = l.kind AND r.name = l.name ",
    "WHERE l.kind = ?1 AND l.namespace = ?2 AND l.tag = ?3 AND l.name > ?4 ",
    "ORDER BY l.name LIMIT ?5"
);
pub(super) const COUNT_LABELLED: &str = "SELECT count(*) FROM (SELECT 1 FROM label \
     WHERE namespace = ?1 AND kind = ?2 AND tag = ?3 LIMIT ?4)";
pub(super) const DUE: &str =
    select_row!("FROM record r WHERE r.kind = ?1 AND r.due_at <= ?2 ORDER BY r.due_at");
pub(super) const NEXT_DUE: &str =
    "SELECT min(due_at) FROM record WHERE kind = ?1 AND due_at IS NOT NULL";
pub(super) const COUNT_KIND: &str = "SELECT count(*) FROM record WHERE kind = ?1";
pub(super) const COUNT_DUE: &str = "SELECT count(*) FROM record WHERE kind = ?1 AND due_at <= ?2";
/// Walks the primary key, since that is the order asked for; `+` keeps the index on `term` out of it.
pub(super) const WRAPPED_BELOW: &str = select_row!(
    "FROM record r WHERE (r.namespace, r.kind, r.name) > (?1, ?2, ?3) AND +r.term < ?4 ",
    "ORDER BY r.namespace, r.kind, r.name LIMIT ?5"
);
pub(super) const ANY_WRAPPED_BELOW: &str = "SELECT EXISTS (SELECT 1 FROM record WHERE term < ?1)";
pub(super) const COUNT_WRAPPED_BELOW: &str = "SELECT count(*) FROM record WHERE term < ?1";
/// By the index that [`GET`] goes by: what one finds, the other does.
pub(super) const NAMES: &str = "SELECT name FROM record \
     INDEXED BY sqlite_autoindex_record_1 WHERE namespace = ?1 AND kind = ?2";
pub(super) const META: &str = "SELECT value FROM meta WHERE name = ?1";
pub(super) const SEQUENCE: &str = "SELECT value FROM sequence WHERE id = 1";

pub(super) fn get(db: &Connection, key: RowKey) -> Result<Option<Row>, StorageError> {
    let mut statement = db.prepare_cached(GET).map_err(failed)?;
    let mut rows = statement
        .query(params![key.namespace.0, key.kind.0, key.name.as_bytes()])
        .map_err(failed)?;
    rows.next().map_err(failed)?.map(|row| raw(row).map_err(failed)?.parse()).transpose()
}

/// Gives `each` every name of a kind, as far as it wants more; whether that was all of them.
pub(super) fn names(
    db: &Connection,
    namespace: NamespaceId,
    kind: Kind,
    mut each: impl FnMut(Tag) -> bool,
) -> rusqlite::Result<bool> {
    let mut statement = db.prepare(NAMES)?;
    let mut rows = statement.query(params![namespace.0, kind.0])?;
    while let Some(row) = rows.next()? {
        // No name that is asked for has another length.
        let Ok(name) = row.get(0) else { continue };
        if !each(Tag::from_bytes(name)) {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn list(
    db: &Connection,
    namespace: NamespaceId,
    kind: Kind,
    parent: Tag,
    after: Option<Tag>,
    limit: usize,
) -> Result<Page, StorageError> {
    page(db, LIST, namespace, kind, parent, after, limit).map_err(failed)
}

pub(super) fn labelled(
    db: &Connection,
    namespace: NamespaceId,
    kind: Kind,
    label: Tag,
    after: Option<Tag>,
    limit: usize,
) -> Result<Page, StorageError> {
    page(db, LABELLED, namespace, kind, label, after, limit).map_err(failed)
}

fn page(
    db: &Connection,
    query: &str,
    namespace: NamespaceId,
    kind: Kind,
    under: Tag,
    after: Option<Tag>,
    limit: usize,
) -> rusqlite::Result<Page> {
    let limit = page_limit(limit);
    // No tag is empty, so the empty string is before them all.
    let after = after.as_ref().map_or(&[][..], |tag| tag.as_bytes().as_slice());
    let mut statement = db.prepare_cached(query)?;
    let mut found = statement.query(params![
        kind.0,
        namespace.0,
        under.as_bytes(),
        after,
        limit_to_sql(limit + 1)
    ])?;
    let mut rows = Rows::default();
    while let Some(row) = found.next()? {
        if rows.seen() == limit {
            return Ok(rows.into_page(true));
        }
        rows.add(raw(row)?);
    }
    Ok(rows.into_page(false))
}

pub(super) fn count_labelled(
    db: &Connection,
    namespace: NamespaceId,
    kind: Kind,
    label: Tag,
    max: u64,
) -> rusqlite::Result<u64> {
    db.prepare_cached(COUNT_LABELLED)?
        .query_row(params![namespace.0, kind.0, label.as_bytes(), count_to_sql(max)], |row| {
            row.get(0)
        })
        .map(count_from_sql)
}

/// Due rows, earliest first, of those that `wanted` accepts by their key.
pub(super) fn due(
    db: &Connection,
    kind: Kind,
    until: Timestamp,
    limit: usize,
    wanted: impl Fn(&RowKey) -> bool,
) -> Result<Vec<Row>, StorageError> {
    let limit = page_limit(limit);
    let mut statement = db.prepare_cached(DUE).map_err(failed)?;
    let mut found = statement.query(params![kind.0, until.as_millis()]).map_err(failed)?;
    let mut rows = Rows::default();
    while rows.seen() < limit
        && let Some(row) = found.next().map_err(failed)?
    {
        let raw = raw(row).map_err(failed)?;
        // A key that is itself damaged goes on to `add`, which reports it.
        if raw.key().map_or(true, |key| wanted(&key)) {
            rows.add(raw);
        }
    }
    Ok(rows.into_vec())
}

pub(super) fn next_due(db: &Connection, kind: Kind) -> rusqlite::Result<Option<Timestamp>> {
    db.prepare_cached(NEXT_DUE)?
        .query_row([kind.0], |row| row.get::<_, Option<i64>>(0))
        .map(|due| due.map(Timestamp::from_millis))
}

pub(super) fn count(db: &Connection, kind: Kind, until: Timestamp) -> rusqlite::Result<KindCount> {
    let total = db.prepare_cached(COUNT_KIND)?.query_row([kind.0], |row| row.get(0))?;
    let due = db
        .prepare_cached(COUNT_DUE)?
        .query_row(params![kind.0, until.as_millis()], |row| row.get(0))?;
    Ok(KindCount {
        total: count_from_sql(total),
        due: count_from_sql(due),
        earliest: next_due(db, kind)?,
    })
}

pub(super) fn wrapped_below(
    db: &Connection,
    term: u32,
    after: Option<RowKey>,
    limit: usize,
) -> Result<Vec<Row>, StorageError> {
    let any: bool = db
        .prepare_cached(ANY_WRAPPED_BELOW)
        .and_then(|mut statement| statement.query_row([term], |row| row.get(0)))
        .map_err(failed)?;
    if !any {
        return Ok(Vec::new());
    }
    let (namespace, kind, name) = match &after {
        Some(key) => (i64::from(key.namespace.0), key.kind.0, key.name.as_bytes().as_slice()),
        None => (-1, 0, &[][..]),
    };
    let mut statement = db.prepare_cached(WRAPPED_BELOW).map_err(failed)?;
    let mut found = statement
        .query(params![namespace, kind, name, term, limit_to_sql(page_limit(limit))])
        .map_err(failed)?;
    let mut rows = Rows::default();
    while let Some(row) = found.next().map_err(failed)? {
        rows.add(raw(row).map_err(failed)?);
    }
    Ok(rows.into_vec())
}

pub(super) fn count_wrapped_below(db: &Connection, term: u32) -> rusqlite::Result<u64> {
    db.prepare_cached(COUNT_WRAPPED_BELOW)?.query_row([term], |row| row.get(0)).map(count_from_sql)
}

pub(super) fn meta(db: &Connection, name: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    db.prepare_cached(META)?.query_row([name], |row| row.get(0)).optional()
}

pub(super) fn sequence(db: &Connection) -> rusqlite::Result<u64> {
    db.prepare_cached(SEQUENCE)?.query_row([], |row| row.get(0)).map(count_from_sql)
}

fn raw<'a>(row: &'a rusqlite::Row<'_>) -> rusqlite::Result<RawRow<'a>> {
    let blob =
        |column: usize| -> rusqlite::Result<&'a [u8]> { Ok(row.get_ref(column)?.as_blob()?) };
    Ok(RawRow {
        namespace: row.get(0)?,
        kind: row.get(1)?,
        name: blob(2)?,
        parent: blob(3)?,
        rev: row.get(4)?,
        due_at: row.get(5)?,
        labels: blob(6)?,
        sealed: blob(7)?,
    })
}
