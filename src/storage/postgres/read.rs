//! The questions, as SQL.

use deadpool_postgres::Client;
use tokio_postgres::types::ToSql;

use super::super::row::{RawRow, Rows, count_from_sql, count_to_sql, limit_to_sql, page_limit};
use super::commit::Failure;
use super::{Kind, KindCount, Page, Row, RowKey};
use crate::crypto::blind::Tag;
use crate::types::id::NamespaceId;
use crate::types::time::Timestamp;

/// Columns of a row in the order that [`raw`] reads.
macro_rules! row_columns {
    () => {
        "r.namespace, r.kind, r.name, r.parent, r.rev, r.due_at, r.labels, r.sealed"
    };
}
macro_rules! select_row {
    ($($rest:literal),+) => {
        concat!("SELECT ", row_columns!(), " ", $($rest),+)
    };
}

const GET: &str =
    select_row!("FROM record r WHERE r.namespace = $1 AND r.kind = $2 AND r.name = $3");
pub(super) const LIST: &str = select_row!(
    "FROM record r WHERE r.namespace = $1 AND r.kind = $2 AND r.parent = $3 AND r.name > $4 ",
    "ORDER BY r.name LIMIT $5"
);
/// The page is cut before the join, whatever the planner thinks of the tables' sizes.
pub(super) const LABELLED: &str = select_row!(
    "FROM (SELECT namespace, kind, name FROM label ",
    "WHERE namespace = $1 AND kind = $2 AND tag = $3 AND name > $4 ORDER BY name LIMIT $5) l ",
    "JOIN record r ON r.namespace = l.namespace AND r.kind = l.kind AND r.name = l.name ",
    "ORDER BY r.name"
);
pub(super) const COUNT_LABELLED: &str = "SELECT count(*) FROM (SELECT 1 FROM label \
     WHERE namespace = $1 AND kind = $2 AND tag = $3 LIMIT $4) AS counted";
const DUE: &str =
    select_row!("FROM record r WHERE r.kind = $1 AND r.due_at <= $2 ORDER BY r.due_at LIMIT $3");
const NEXT_DUE: &str = "SELECT min(due_at) FROM record WHERE kind = $1 AND due_at IS NOT NULL";
const COUNT: &str = "SELECT (SELECT count(*) FROM record WHERE kind = $1), \
     (SELECT count(*) FROM record WHERE kind = $1 AND due_at <= $2)";
/// Rows that another node is claiming at this moment are passed over, not waited for. The lock is the
/// weakest that excludes others, since a claim does not disturb who only needs the row to stay.
const CLAIM: &str = concat!(
    "WITH picked AS (SELECT namespace, kind, name FROM record ",
    "WHERE kind = $1 AND due_at <= $2 AND (claimed_until IS NULL OR claimed_until <= $2) ",
    "ORDER BY due_at LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED) ",
    "UPDATE record r SET claimed_by = $4, claimed_until = $5 FROM picked p ",
    "WHERE r.namespace = p.namespace AND r.kind = p.kind AND r.name = p.name RETURNING ",
    row_columns!()
);
const WRAPPED_BELOW: &str = select_row!(
    "FROM record r WHERE (r.namespace, r.kind, r.name) > ($1, $2, $3) AND r.term < $4 ",
    "ORDER BY r.namespace, r.kind, r.name LIMIT $5"
);
const COUNT_WRAPPED_BELOW: &str = "SELECT count(*) FROM record WHERE term < $1";
const META: &str = "SELECT value FROM meta WHERE name = $1";
const SEQUENCE: &str = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM commit_sequence";

type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

async fn query(
    client: &Client,
    sql: &str,
    params: Params<'_>,
) -> Result<Vec<tokio_postgres::Row>, tokio_postgres::Error> {
    let statement = client.prepare_cached(sql).await?;
    client.query(&statement, params).await
}

async fn number(client: &Client, sql: &str, params: Params<'_>) -> Result<u64, Failure> {
    let statement = client.prepare_cached(sql).await?;
    Ok(count_from_sql(client.query_one(&statement, params).await?.try_get(0)?))
}

pub(super) async fn get(client: &Client, key: RowKey) -> Result<Option<Row>, Failure> {
    let (namespace, kind, name) = key_to_sql(&key);
    let rows = query(client, GET, &[&namespace, &kind, &name]).await?;
    match rows.first() {
        Some(row) => Ok(Some(raw(row)?.parse()?)),
        None => Ok(None),
    }
}

pub(super) async fn page(
    client: &Client,
    sql: &str,
    namespace: NamespaceId,
    kind: Kind,
    under: Tag,
    after: Option<Tag>,
    limit: usize,
) -> Result<Page, Failure> {
    let limit = page_limit(limit);
    // No tag is empty, so the empty string is before them all.
    let after = after.as_ref().map_or(&[][..], |tag| tag.as_bytes().as_slice());
    let found = query(
        client,
        sql,
        &[
            &i64::from(namespace.0),
            &i32::from(kind.0),
            &under.as_bytes().as_slice(),
            &after,
            &limit_to_sql(limit + 1),
        ],
    )
    .await?;
    let mut rows = Rows::default();
    for row in found.iter().take(limit) {
        rows.add(raw(row)?);
    }
    Ok(rows.into_page(found.len() > limit))
}

pub(super) async fn count_labelled(
    client: &Client,
    namespace: NamespaceId,
    kind: Kind,
    label: Tag,
    max: u64,
) -> Result<u64, Failure> {
    let (namespace, kind) = (i64::from(namespace.0), i32::from(kind.0));
    let label = label.as_bytes().as_slice();
    number(client, COUNT_LABELLED, &[&namespace, &kind, &label, &count_to_sql(max)]).await
}

pub(super) async fn due(
    client: &Client,
    kind: Kind,
    until: Timestamp,
    limit: usize,
) -> Result<Vec<Row>, Failure> {
    let limit = limit_to_sql(page_limit(limit));
    collect(&query(client, DUE, &[&i32::from(kind.0), &until.as_millis(), &limit]).await?)
}

pub(super) async fn next_due(client: &Client, kind: Kind) -> Result<Option<Timestamp>, Failure> {
    let statement = client.prepare_cached(NEXT_DUE).await?;
    let due: Option<i64> = client.query_one(&statement, &[&i32::from(kind.0)]).await?.try_get(0)?;
    Ok(due.map(Timestamp::from_millis))
}

pub(super) async fn claim(
    client: &Client,
    kind: Kind,
    now: Timestamp,
    node: u64,
    until: Timestamp,
    limit: usize,
) -> Result<Vec<Row>, Failure> {
    let claimed = query(
        client,
        CLAIM,
        &[
            &i32::from(kind.0),
            &now.as_millis(),
            &limit_to_sql(page_limit(limit)),
            &node.cast_signed(),
            &until.as_millis(),
        ],
    )
    .await?;
    let mut rows = collect(&claimed)?;
    // An UPDATE returns rows in the order that it came by them.
    rows.sort_by_key(|row| row.due_at);
    Ok(rows)
}

pub(super) async fn count(
    client: &Client,
    kind: Kind,
    until: Timestamp,
) -> Result<KindCount, Failure> {
    let statement = client.prepare_cached(COUNT).await?;
    let row = client.query_one(&statement, &[&i32::from(kind.0), &until.as_millis()]).await?;
    Ok(KindCount {
        total: count_from_sql(row.try_get(0)?),
        due: count_from_sql(row.try_get(1)?),
        earliest: next_due(client, kind).await?,
    })
}

pub(super) async fn wrapped_below(
    client: &Client,
    term: u32,
    after: Option<RowKey>,
    limit: usize,
) -> Result<Vec<Row>, Failure> {
    let (namespace, kind, name) = after.as_ref().map_or((-1, 0, &[][..]), key_to_sql);
    let limit = limit_to_sql(page_limit(limit));
    let term = i64::from(term);
    let found = query(client, WRAPPED_BELOW, &[&namespace, &kind, &name, &term, &limit]).await?;
    collect(&found)
}

pub(super) async fn count_wrapped_below(client: &Client, term: u32) -> Result<u64, Failure> {
    number(client, COUNT_WRAPPED_BELOW, &[&i64::from(term)]).await
}

pub(super) async fn meta(client: &Client, name: &str) -> Result<Option<Vec<u8>>, Failure> {
    let rows = query(client, META, &[&name]).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
}

pub(super) async fn sequence(client: &Client) -> Result<u64, Failure> {
    number(client, SEQUENCE, &[]).await
}

/// A key as the columns have it.
pub(super) fn key_to_sql(key: &RowKey) -> (i64, i32, &[u8]) {
    (i64::from(key.namespace.0), i32::from(key.kind.0), key.name.as_bytes())
}

fn collect(found: &[tokio_postgres::Row]) -> Result<Vec<Row>, Failure> {
    let mut rows = Rows::default();
    for row in found {
        rows.add(raw(row)?);
    }
    Ok(rows.into_vec())
}

fn raw(row: &tokio_postgres::Row) -> Result<RawRow<'_>, tokio_postgres::Error> {
    Ok(RawRow {
        namespace: row.try_get(0)?,
        kind: row.try_get::<_, i32>(1)?.into(),
        name: row.try_get(2)?,
        parent: row.try_get(3)?,
        rev: row.try_get(4)?,
        due_at: row.try_get(5)?,
        labels: row.try_get(6)?,
        sealed: row.try_get(7)?,
    })
}
