//! Transactions on a target, fenced against their own ghosts.
//!
//! A transaction is sent in two messages: everything up to its last statement, and then, once all
//! of that has succeeded, `COMMIT`. Whoever gives up before the second message knows that nothing
//! will ever happen. Whoever loses the connection after it does not know, and neither would a
//! revocation that looks for the user too early; so each transaction first takes an advisory lock
//! on the user's name, and a revocation waits for that lock before it believes what it sees.

use std::time::Duration;

use futures_util::TryStreamExt;
use tokio_postgres::error::{ErrorPosition, SqlState};
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use zeroize::Zeroizing;

use super::failure::{classify, classify_statement, unavailable};
use super::pool::{Lent, Pool};
use crate::engines::database::driver::DriverError;
use crate::engines::database::sql::quote_literal;

/// Longest wait for the answer to one message.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Most rows kept of one message; no question of ours has as many answers.
const ROWS_MAX: usize = 10_000;
/// Most tries of a transaction that others' transactions got in the way of.
pub(super) const TRIES_MAX: u32 = 8;
/// The same limits on the target's side, shorter, so that it gives up before we do. The last is for
/// a broker that stops in the middle (a paused machine, a lost network): its transaction would keep
/// the lock of the name from others that revoke, and what it creates could be committed long after
/// they have taken it for dead.
const LIMITS: [&str; 3] = [
    "SET LOCAL statement_timeout = '20s'",
    "SET LOCAL lock_timeout = '10s'",
    "SET LOCAL idle_in_transaction_session_timeout = '10s'",
];
/// Undoes what operators' statements may have set, then restores what a session starts with.
const COMMIT: &str = "COMMIT; RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; \
     SET standard_conforming_strings = on";
/// Our own statements must not find anybody's functions or operators before PostgreSQL's.
pub(super) const OWN_PATH: &str = "SET LOCAL search_path = pg_catalog, pg_temp";

/// What is done, as errors name it, and the secret that they must not repeat.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    pub step: &'static str,
    pub secret: Option<&'a str>,
}

impl Work<'_> {
    pub(super) fn new(step: &'static str) -> Self {
        Self { step, secret: None }
    }
}

/// A transaction whose statements have all succeeded.
pub(super) struct Open<'a> {
    lent: Lent<'a>,
    step: &'static str,
    rows: Vec<SimpleQueryRow>,
}

/// An error and the statement that it belongs to, counted from zero.
pub(super) struct Failed {
    pub index: usize,
    pub error: DriverError,
    pub missing_object: bool,
    /// Somebody else's transaction was in the way: nothing was done, and another try may succeed.
    pub contended: bool,
    /// Something may have been sent.
    pub begun: bool,
}

impl From<DriverError> for Failed {
    fn from(error: DriverError) -> Self {
        Self { index: 0, error, missing_object: false, contended: false, begun: true }
    }
}

/// Begins a transaction on a pooled session, takes the lock of `name`, and runs `statements`.
pub(super) async fn begin<'a>(
    pool: &'a Pool,
    work: Work<'_>,
    name: &str,
    statements: &[Zeroizing<String>],
) -> Result<Open<'a>, Failed> {
    let (mut tries, mut fresh) = (0, false);
    loop {
        let lent = pool
            .take()
            .await
            .map_err(|error| Failed { begun: tries > 0, ..Failed::from(error) })?;
        tries += 1;
        match begin_on(lent, work, name, statements).await {
            Ok(open) => return Ok(open),
            // The session had died while idle: nothing was done, so a new one may try.
            Err((failed, true)) if failed.error.is_unavailable() && !fresh => {
                fresh = true;
                pool.forget_idle();
            }
            // Nothing was done, and whoever was in the way has come further by it.
            Err((failed, _)) if failed.contended && tries < TRIES_MAX => {}
            Err((failed, _)) => return Err(failed),
        }
    }
}

/// Whether somebody else's transaction was in the way. Of two that grant on one object at a time,
/// PostgreSQL fails one with an internal error ("tuple concurrently updated").
pub(super) fn is_contention(code: &SqlState) -> bool {
    [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED, SqlState::INTERNAL_ERROR]
        .contains(code)
}

/// As [`begin`] on a given session. The flag tells that it was an idle one and is closed.
pub(super) async fn begin_on<'a>(
    lent: Lent<'a>,
    work: Work<'_>,
    name: &str,
    statements: &[Zeroizing<String>],
) -> Result<Open<'a>, (Failed, bool)> {
    let lock = format!(
        "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended({}, 0))",
        quote_literal(name)
    );
    let mut all: Vec<&str> = vec!["BEGIN"];
    all.extend(LIMITS);
    all.push(&lock);
    let preamble = all.len();
    all.extend(statements.iter().map(|statement| statement.as_str()));
    match batch(lent.client(), work.step, &all).await {
        // The first row is that of the lock.
        Ok(mut rows) => Ok(Open { lent, step: work.step, rows: rows.split_off(1.min(rows.len())) }),
        Err(failure) => {
            let died_idle = lent.is_reused() && lent.client().is_closed();
            Err((failure.judge(work, preamble, statements.len()), died_idle))
        }
    }
}

impl Open<'_> {
    /// What the statements of [`begin`] returned.
    pub(super) fn rows(&self) -> &[SimpleQueryRow] {
        &self.rows
    }

    /// Runs further statements and makes all durable, in one message. For what may as well happen
    /// later, unseen: taking something away.
    pub(super) async fn finish(self, statements: &[Zeroizing<String>]) -> Result<(), Failed> {
        let count = statements.len();
        let mut all: Vec<&str> = statements.iter().map(|statement| statement.as_str()).collect();
        all.push(COMMIT);
        self.send(&all, count).await
    }

    /// Makes it all durable.
    pub(super) async fn commit(self) -> Result<(), DriverError> {
        self.send(&[COMMIT], 0).await.map_err(|failed| failed.error)
    }

    /// Sends the last message, in which `count` statements come before the commit.
    async fn send(self, all: &[&str], count: usize) -> Result<(), Failed> {
        match batch(self.lent.client(), self.step, all).await {
            Ok(_) => {
                self.lent.give_back();
                Ok(())
            }
            // Committed; only the session could not be cleaned, so it is closed.
            Err(Failure::Database { completed, .. }) if completed > count => Ok(()),
            Err(failure) => Err(failure.judge(Work::new(self.step), 0, count)),
        }
    }
}

/// Runs one statement of ours in a transaction of its own and gives its rows.
pub(super) async fn ask(
    lent: &Lent<'_>,
    step: &'static str,
    sql: &str,
) -> Result<Vec<SimpleQueryRow>, DriverError> {
    let [statement, lock, idle] = LIMITS;
    let all = ["BEGIN", statement, lock, idle, OWN_PATH, sql, "COMMIT"];
    batch(lent.client(), step, &all)
        .await
        .map_err(|failure| failure.judge(Work::new(step), 5, 1).error)
}

enum Failure {
    TimedOut(tokio::time::error::Elapsed),
    Database { completed: usize, error: tokio_postgres::Error },
}

impl Failure {
    fn judge(self, work: Work<'_>, preamble: usize, count: usize) -> Failed {
        match self {
            Self::TimedOut(error) => unavailable(work.step, error).into(),
            Self::Database { completed, error } => {
                let missing_object = error.code() == Some(&SqlState::UNDEFINED_OBJECT);
                let contended = error.code().is_some_and(is_contention);
                let index = completed.saturating_sub(preamble);
                let error = if count > 1 && completed >= preamble {
                    classify_statement(work.step, (index, count), error, work.secret)
                } else {
                    classify(work.step, error, work.secret)
                };
                Failed { index, error, missing_object, contended, begun: true }
            }
        }
    }
}

/// Sends statements as one message. PostgreSQL stops at the first that fails.
async fn batch(
    client: &Client,
    step: &'static str,
    statements: &[&str],
) -> Result<Vec<SimpleQueryRow>, Failure> {
    // On a line of its own, so that a comment at the end of a statement does not hide it.
    let text = Zeroizing::new(statements.join("\n;\n"));
    let mut completed = 0;
    let mut rows = Vec::new();
    let answers = async {
        let mut stream = std::pin::pin!(client.simple_query_raw(&text).await?);
        while let Some(message) = stream.try_next().await? {
            if let SimpleQueryMessage::CommandComplete(_) = message {
                completed += 1;
            } else if let SimpleQueryMessage::Row(row) = message
                && rows.len() < ROWS_MAX
            {
                rows.push(row);
            }
        }
        Ok(())
    };
    let outcome: Result<(), tokio_postgres::Error> =
        match tokio::time::timeout(ANSWER_TIMEOUT, answers).await {
            Ok(outcome) => outcome,
            Err(error) => return Err(Failure::TimedOut(error)),
        };
    match outcome {
        Ok(()) => Ok(rows),
        Err(error) => {
            tracing::debug!(step, "a statement on a database target failed");
            let completed = position(&error, statements).unwrap_or(completed);
            Err(Failure::Database { completed, error })
        }
    }
}

/// Which statement an error points into. All are parsed before the first is run, so that a syntax
/// error in the last is reported before anything has completed.
fn position(error: &tokio_postgres::Error, statements: &[&str]) -> Option<usize> {
    let refusal = error.as_db_error()?;
    if *refusal.code() != SqlState::SYNTAX_ERROR {
        return None;
    }
    let Some(ErrorPosition::Original(position)) = refusal.position() else { return None };
    let mut left = usize::try_from(*position).ok()?;
    for (index, statement) in statements.iter().enumerate() {
        let length = statement.chars().count() + "\n;\n".len();
        if left <= length {
            return Some(index);
        }
        left -= length;
    }
    None
}
