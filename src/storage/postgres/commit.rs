//! Batches, as transactions.
//!
//! READ COMMITTED, with the locks spelled out. A transaction goes through three stages, each one
//! flight of pipelined statements:
//!
//! 1. Locks, always in the same order over all transactions: first the whole table, for who raises the
//!    floor of key terms, then the advisory locks of the labels that are counted, then the rows, by key. A row that changes is locked against other changes, one
//!    that is deleted or guards its children also against [`Change::RequireRow`], which in turn takes
//!    the weakest lock: many children can be put under one directory at once.
//! 2. Changes. What each of them expects is judged by the revisions that the locks returned, new rows
//!    by the primary key. Statements see what was committed before they began, so whatever is counted
//!    or looked for under a lock of stage 1 is complete. Between two conditions that depend on the
//!    order, changes are made by key, again for the sake of locks: those of new rows. The floor of key
//!    terms is read behind the writes: either they waited for the one who raises it, or that one waits
//!    for this transaction and finds the rows.
//! 3. The commit's number, and the word to other nodes, which PostgreSQL passes on if and when the
//!    transaction commits.
//!
//! PostgreSQL may still find a deadlock and undo one side; that one is simply run again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use deadpool_postgres::{Client, Transaction};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{IsolationLevel, Statement};

use super::super::row::{
    check_next_rev, count_from_sql, count_to_sql, labels_from_bytes, labels_to_bytes, rev_to_sql,
};
use super::read::{COUNT_LABELLED, key_to_sql};
use super::{Change, Kind, Row, RowKey, StorageError, failed, listen};
use crate::crypto::blind::Tag;
use crate::crypto::envelope::SealedRecord;
use crate::storage::{Expect, TERM_FLOOR};
use crate::types::id::NamespaceId;

/// Why an operation failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The batch's own fault, or a precondition.
    Refused(StorageError),
    /// PostgreSQL's, or the way there.
    Postgres(tokio_postgres::Error),
}

impl Failure {
    /// Whether PostgreSQL undid the transaction to let another one pass.
    pub fn is_undone(&self) -> bool {
        match self {
            Self::Refused(_) => false,
            Self::Postgres(error) => matches!(
                error.code(),
                Some(&SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED)
            ),
        }
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::Refused(error)
    }
}

impl From<Failure> for StorageError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(error) => error,
            Failure::Postgres(error) => failed(error),
        }
    }
}

/// Waits for every transaction that writes rows, and makes later ones wait.
const LOCK_TABLE: &str = "LOCK TABLE record IN SHARE ROW EXCLUSIVE MODE";
const LOCK_LABEL: &str = "SELECT pg_advisory_xact_lock($1)";
const KEEP_ROW: &str = "SELECT rev, labels FROM record \
     WHERE namespace = $1 AND kind = $2 AND name = $3 FOR KEY SHARE";
const CHANGE_ROW: &str = "SELECT rev, labels FROM record \
     WHERE namespace = $1 AND kind = $2 AND name = $3 FOR NO KEY UPDATE";
const REMOVE_ROW: &str = "SELECT rev, labels FROM record \
     WHERE namespace = $1 AND kind = $2 AND name = $3 FOR UPDATE";
const INSERT: &str = "INSERT INTO record \
     (namespace, kind, name, parent, rev, due_at, term, labels, sealed) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING";
const UPDATE: &str = "UPDATE record SET parent = $4, rev = $5, due_at = $6, term = $7, \
     labels = $8, sealed = $9, claimed_by = NULL, claimed_until = NULL \
     WHERE namespace = $1 AND kind = $2 AND name = $3";
const DELETE: &str = "DELETE FROM record WHERE namespace = $1 AND kind = $2 AND name = $3";
const RESEAL: &str = "UPDATE record SET term = $5, sealed = $6 \
     WHERE namespace = $1 AND kind = $2 AND name = $3 AND rev = $4";
const INSERT_LABEL: &str = "INSERT INTO label (namespace, kind, name, tag) \
     VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
/// One at a time: with a list of tags, the planner may read all labels of the kind.
const DELETE_LABEL: &str =
    "DELETE FROM label WHERE namespace = $1 AND kind = $2 AND name = $3 AND tag = $4";
const FIND_CHILD: &str =
    "SELECT 1 FROM record WHERE kind = $1 AND namespace = $2 AND parent = $3 LIMIT 1";
const SET_META: &str = "INSERT INTO meta (name, value) VALUES ($1, $2) \
     ON CONFLICT (name) DO UPDATE SET value = excluded.value";
const INSERT_META: &str = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const REPLACE_META: &str = "UPDATE meta SET value = $2 WHERE name = $1 AND value = $3";
const DELETE_META: &str = "DELETE FROM meta WHERE name = $1";
const DELETE_META_IF: &str = "DELETE FROM meta WHERE name = $1 AND value = $2";
const FIND_META: &str = "SELECT 1 FROM meta WHERE name = $1";
const FIND_WRAPPED_BELOW: &str = "SELECT 1 FROM record WHERE term < $1 LIMIT 1";
const RAISE_META: &str = "INSERT INTO meta (name, value) VALUES ($1, $2) \
     ON CONFLICT (name) DO UPDATE SET value = greatest(meta.value, excluded.value)";
const FIND_META_ABOVE: &str = "SELECT 1 FROM meta WHERE name = $1 AND value > $2";
const NEXT_SEQUENCE: &str = "SELECT nextval('commit_sequence')";
const NOTIFY: &str = "SELECT pg_notify($1, $2)";

/// Applies a batch; returns the commit's number.
pub(super) async fn commit(
    client: &mut Client,
    node: u64,
    batch: &[Change],
) -> Result<u64, Failure> {
    let transaction =
        client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start().await?;
    let present = lock(&transaction, batch).await?;
    let mut plan = Plan { steps: Vec::new(), present, lowest_term: None };
    for change in in_lock_order(batch) {
        plan.add(change)?;
    }
    plan.check_terms();
    let mut steps = plan.steps;
    steps.push(Step::new(NEXT_SEQUENCE, vec![], Check::Number));
    for payload in listen::payloads(node, batch) {
        steps.push(Step::new(NOTIFY, vec![value(listen::CHANNEL), value(payload)], Check::Row));
    }
    let sequence = run(&transaction, &steps).await?.into_iter().flatten().next();
    transaction.commit().await?;
    sequence.ok_or_else(|| StorageError::Corrupt("the sequence gave no number".to_owned()).into())
}

/// Replaces sealed bytes of rows that did not change meanwhile. `rows` are in the order of keys.
pub(super) async fn reseal(
    client: &mut Client,
    rows: &[(RowKey, u64, SealedRecord)],
) -> Result<(), Failure> {
    let transaction =
        client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start().await?;
    let mut steps = Vec::with_capacity(rows.len());
    for (key, rev, sealed) in rows {
        let mut params = key_params(key);
        params.push(value(rev_to_sql(*rev)?));
        params.push(value(i64::from(sealed.term())));
        params.push(value(sealed.as_bytes().to_vec()));
        steps.push(Step::new(RESEAL, params, Check::Nothing));
    }
    steps.extend(rows.iter().map(|(_, _, sealed)| sealed.term()).min().map(not_below_floor));
    run(&transaction, &steps).await?;
    Ok(transaction.commit().await?)
}

/// Why a row is locked; the later, the stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hold {
    Keep,
    Change,
    Remove,
}

/// What stage 1 found.
struct Present {
    rev: u64,
    labels: Vec<Tag>,
}

/// Stage 1.
async fn lock(
    transaction: &Transaction<'_>,
    batch: &[Change],
) -> Result<HashMap<RowKey, Present>, Failure> {
    let mut table = None;
    let mut labels = BTreeSet::new();
    let mut rows = BTreeMap::new();
    for change in batch {
        let (key, hold) = match change {
            Change::Put { row, expect: Expect::Rev(_) } => (row.key, Hold::Change),
            Change::Delete { key, .. } => (*key, Hold::Remove),
            Change::RequireRow { key } => (*key, Hold::Keep),
            Change::RequireChildless { guard, .. } => (*guard, Hold::Remove),
            Change::RequireFewer { namespace, kind, label, .. } => {
                labels.insert(label_lock(*namespace, *kind, *label));
                continue;
            }
            Change::RaiseTermFloor { .. } => {
                table = Some(Step::new(LOCK_TABLE, vec![], Check::Nothing));
                continue;
            }
            Change::Put { expect: Expect::Absent, .. } | Change::PutMeta { .. } => continue,
        };
        let held = rows.entry(key).or_insert(hold);
        *held = hold.max(*held);
    }
    let labels =
        labels.into_iter().map(|label| Step::new(LOCK_LABEL, vec![value(label)], Check::Row));
    let locks = rows.iter().map(|(key, hold)| {
        let sql = match hold {
            Hold::Keep => KEEP_ROW,
            Hold::Change => CHANGE_ROW,
            Hold::Remove => REMOVE_ROW,
        };
        Step::new(sql, key_params(key), Check::Row)
    });
    let steps: Vec<Step> = table.into_iter().chain(labels).chain(locks).collect();
    let answers = fly(transaction, &steps).await?;
    let mut present = HashMap::with_capacity(rows.len());
    // The answers of the other locks come first, and say nothing.
    for (key, answer) in rows.into_keys().rev().zip(answers.into_iter().rev()) {
        if let Some(row) = answer.rows.first() {
            let labels = labels_from_bytes(row.try_get(1)?)
                .ok_or_else(|| StorageError::Corrupt("the labels of a record".to_owned()))?;
            present.insert(key, Present { rev: count_from_sql(row.try_get(0)?), labels });
        }
    }
    Ok(present)
}

/// The advisory lock of a label. Two labels that share one only wait for each other.
fn label_lock(namespace: NamespaceId, kind: Kind, label: Tag) -> i64 {
    let (half, rest) = label.as_bytes().split_at(8);
    let fold = |bytes: &[u8]| bytes.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    let place = u64::from(namespace.0) << 16 | u64::from(kind.0);
    (fold(half) ^ fold(rest) ^ place).cast_signed()
}

/// The batch with its changes in the order of keys, as far as conditions between them allow.
fn in_lock_order(batch: &[Change]) -> Vec<&Change> {
    let key = |change: &Change| match change {
        Change::Put { row, .. } => Some(row.key),
        Change::Delete { key, .. } | Change::RequireRow { key } => Some(*key),
        Change::RequireChildless { .. }
        | Change::RequireFewer { .. }
        | Change::PutMeta { .. }
        | Change::RaiseTermFloor { .. } => None,
    };
    let mut changes: Vec<&Change> = batch.iter().collect();
    for free in changes.split_mut(|change| key(change).is_none()) {
        // Stable: changes of the same row stay in their order.
        free.sort_by_key(|change| key(change));
    }
    changes
}

/// Stage 2: statements, and what the rows will look like after them.
struct Plan {
    steps: Vec<Step>,
    present: HashMap<RowKey, Present>,
    /// Of the rows that were put since terms were last checked.
    lowest_term: Option<u32>,
}

impl Plan {
    fn add(&mut self, change: &Change) -> Result<(), Failure> {
        match change {
            Change::Put { row, expect } => {
                check_next_rev(row, *expect)?;
                self.put(row, *expect)
            }
            Change::Delete { key, rev } => {
                let present = self.take(*key, *rev)?;
                self.steps.push(Step::new(DELETE, key_params(key), Check::One));
                self.labels(DELETE_LABEL, key, present.labels);
                Ok(())
            }
            Change::RequireRow { key } if self.present.contains_key(key) => Ok(()),
            Change::RequireRow { .. } => Err(StorageError::Conflict.into()),
            Change::RequireChildless { guard, kind, parent } => {
                let (namespace, kind) = (i64::from(guard.namespace.0), i32::from(kind.0));
                let params = vec![value(kind), value(namespace), tag_value(parent)];
                self.steps.push(Step::new(FIND_CHILD, params, Check::NoRow));
                Ok(())
            }
            Change::RequireFewer { namespace, kind, label, max } => {
                let (namespace, kind) = (i64::from(namespace.0), i32::from(kind.0));
                let limit = value(count_to_sql(*max));
                let params = vec![value(namespace), value(kind), tag_value(label), limit];
                self.steps.push(Step::new(COUNT_LABELLED, params, Check::Fewer(*max)));
                Ok(())
            }
            Change::PutMeta { name, value: new, expect } => {
                self.steps.push(put_meta(name, new.as_ref(), expect.as_ref().map(Option::as_ref)));
                Ok(())
            }
            Change::RaiseTermFloor { term } => {
                self.check_terms();
                let below = vec![value(i64::from(*term))];
                self.steps.push(Step::new(FIND_WRAPPED_BELOW, below, Check::NoRow));
                let floor = vec![value(TERM_FLOOR), value(term.to_be_bytes().to_vec())];
                self.steps.push(Step::new(RAISE_META, floor, Check::One));
                Ok(())
            }
        }
    }

    fn check_terms(&mut self) {
        self.steps.extend(self.lowest_term.take().map(not_below_floor));
    }

    fn put(&mut self, row: &Row, expect: Expect) -> Result<(), Failure> {
        let (sql, before) = match expect {
            Expect::Absent if self.present.contains_key(&row.key) => {
                return Err(StorageError::Conflict.into());
            }
            Expect::Absent => (INSERT, Vec::new()),
            Expect::Rev(rev) => (UPDATE, self.take(row.key, rev)?.labels),
        };
        let mut params = key_params(&row.key);
        params.push(tag_value(&row.parent));
        params.push(value(rev_to_sql(row.rev)?));
        params.push(value(row.due_at.map(|at| at.as_millis())));
        params.push(value(i64::from(row.sealed.term())));
        params.push(value(labels_to_bytes(&row.labels)));
        params.push(value(row.sealed.as_bytes().to_vec()));
        self.steps.push(Step::new(sql, params, Check::One));
        let term = row.sealed.term();
        self.lowest_term = Some(self.lowest_term.map_or(term, |lowest| lowest.min(term)));
        let missing = |label: &&Tag, from: &[Tag]| !from.contains(label);
        let dropped = before.iter().filter(|label| missing(label, &row.labels)).copied().collect();
        let added = row.labels.iter().filter(|label| missing(label, &before)).copied().collect();
        self.labels(DELETE_LABEL, &row.key, dropped);
        self.labels(INSERT_LABEL, &row.key, added);
        self.present.insert(row.key, Present { rev: row.rev, labels: row.labels.clone() });
        Ok(())
    }

    fn take(&mut self, key: RowKey, rev: u64) -> Result<Present, Failure> {
        match self.present.remove(&key) {
            Some(present) if present.rev == rev => Ok(present),
            Some(_) | None => Err(StorageError::Conflict.into()),
        }
    }

    fn labels(&mut self, sql: &'static str, key: &RowKey, labels: Vec<Tag>) {
        for label in labels {
            let mut params = key_params(key);
            params.push(tag_value(&label));
            self.steps.push(Step::new(sql, params, Check::Nothing));
        }
    }
}

/// Has to run behind the writes that it is about: see the module's text.
fn not_below_floor(term: u32) -> Step {
    // Big-endian numbers of one length compare as bytes do.
    let params = vec![value(TERM_FLOOR), value(term.to_be_bytes().to_vec())];
    Step::new(FIND_META_ABOVE, params, Check::NoRow)
}

fn put_meta(name: &'static str, new: Option<&Vec<u8>>, expect: Option<Option<&Vec<u8>>>) -> Step {
    let name = value(name);
    let bytes = |bytes: &Vec<u8>| value(bytes.clone());
    match (new, expect) {
        (Some(new), None) => Step::new(SET_META, vec![name, bytes(new)], Check::One),
        (Some(new), Some(None)) => Step::new(INSERT_META, vec![name, bytes(new)], Check::One),
        (Some(new), Some(Some(old))) => {
            Step::new(REPLACE_META, vec![name, bytes(new), bytes(old)], Check::One)
        }
        (None, None) => Step::new(DELETE_META, vec![name], Check::Nothing),
        (None, Some(None)) => Step::new(FIND_META, vec![name], Check::NoRow),
        (None, Some(Some(old))) => Step::new(DELETE_META_IF, vec![name, bytes(old)], Check::One),
    }
}

type Param = Box<dyn ToSql + Send + Sync>;

fn value(value: impl ToSql + Send + Sync + 'static) -> Param {
    Box::new(value)
}

fn tag_value(tag: &Tag) -> Param {
    value(tag.as_bytes().to_vec())
}

fn key_params(key: &RowKey) -> Vec<Param> {
    let (namespace, kind, name) = key_to_sql(key);
    vec![value(namespace), value(kind), value(name.to_vec())]
}

/// What a statement has to come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// Changes rows or not.
    Nothing,
    /// Changes one row, else the batch is in conflict.
    One,
    /// Returns rows or not.
    Row,
    /// Returns no row, else the batch is in conflict.
    NoRow,
    /// Returns a number below this, else a limit is reached.
    Fewer(u64),
    /// Returns a number, the result of the flight.
    Number,
}

struct Step {
    sql: &'static str,
    params: Vec<Param>,
    check: Check,
}

struct Answer {
    rows: Vec<tokio_postgres::Row>,
    changed: u64,
}

impl Step {
    fn new(sql: &'static str, params: Vec<Param>, check: Check) -> Self {
        Self { sql, params, check }
    }

    async fn ask(
        &self,
        transaction: &Transaction<'_>,
        statement: &Statement,
    ) -> Result<Answer, tokio_postgres::Error> {
        let params: Vec<&(dyn ToSql + Sync)> =
            self.params.iter().map(|param| &**param as &(dyn ToSql + Sync)).collect();
        match self.check {
            Check::Nothing | Check::One => {
                let changed = transaction.execute(statement, &params).await?;
                Ok(Answer { rows: Vec::new(), changed })
            }
            Check::Row | Check::NoRow | Check::Fewer(_) | Check::Number => {
                Ok(Answer { rows: transaction.query(statement, &params).await?, changed: 0 })
            }
        }
    }

    /// Holds the answer against what was expected.
    fn judge(&self, answer: &Answer) -> Result<Option<u64>, Failure> {
        let number = || match answer.rows.first() {
            Some(row) => row.try_get(0).map(count_from_sql).map(Some),
            None => Ok(None),
        };
        match self.check {
            Check::Nothing | Check::Row => Ok(None),
            Check::One if answer.changed == 1 => Ok(None),
            Check::NoRow if answer.rows.is_empty() => Ok(None),
            Check::One | Check::NoRow => Err(StorageError::Conflict.into()),
            Check::Fewer(max) if number()?.is_some_and(|count| count < max) => Ok(None),
            Check::Fewer(_) => Err(StorageError::Limit.into()),
            Check::Number => Ok(number()?),
        }
    }
}

async fn run(transaction: &Transaction<'_>, steps: &[Step]) -> Result<Vec<Option<u64>>, Failure> {
    let answers = fly(transaction, steps).await?;
    steps.iter().zip(&answers).map(|(step, answer)| step.judge(answer)).collect()
}

/// Sends all statements at once, and returns their answers. The server runs them in this order.
async fn fly(
    transaction: &Transaction<'_>,
    steps: &[Step],
) -> Result<Vec<Answer>, tokio_postgres::Error> {
    let mut statements = Vec::with_capacity(steps.len());
    for step in steps {
        statements.push(transaction.prepare_cached(step.sql).await?);
    }
    type Flying<'a> =
        Pin<Box<dyn Future<Output = Result<Answer, tokio_postgres::Error>> + Send + 'a>>;
    enum Flight<'a> {
        Landed(Answer),
        Flying(Flying<'a>),
    }
    let mut flights = Vec::with_capacity(steps.len());
    for (step, statement) in steps.iter().zip(&statements) {
        let mut flying: Flying<'_> = Box::pin(step.ask(transaction, statement));
        // The driver sends a statement when its future is first polled.
        flights.push(match futures_util::poll!(flying.as_mut()) {
            Poll::Ready(answer) => Flight::Landed(answer?),
            Poll::Pending => Flight::Flying(flying),
        });
    }
    let mut answers = Vec::with_capacity(flights.len());
    for flight in flights {
        answers.push(match flight {
            Flight::Landed(answer) => answer,
            Flight::Flying(flying) => flying.await?,
        });
    }
    Ok(answers)
}
