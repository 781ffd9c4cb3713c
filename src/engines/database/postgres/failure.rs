//! What PostgreSQL's errors mean to the caller.

use std::error::Error;

use tokio_postgres::error::SqlState;

use super::transaction::is_contention;
use crate::engines::database::driver::DriverError;

/// Longest message passed on, in characters.
const MESSAGE_CHARS_MAX: usize = 300;

pub(super) fn unavailable(
    step: &'static str,
    source: impl Error + Send + Sync + 'static,
) -> DriverError {
    DriverError::Unavailable { step, source: Some(Box::new(source)) }
}

/// Sorts an error: what a retry may cure is `Unavailable`, the rest is `Refused` with PostgreSQL's
/// own message, from which `secret` is cut. Statement, detail and context are left out, because
/// they may quote values.
pub(super) fn classify(
    step: &'static str,
    error: tokio_postgres::Error,
    secret: Option<&str>,
) -> DriverError {
    match error.as_db_error().is_some_and(|refusal| !is_passing(refusal.code())) {
        true => refused(step.to_owned(), &error, secret),
        false => unavailable(step, error),
    }
}

/// As [`classify`] for the statement at `index` of `count`.
pub(super) fn classify_statement(
    step: &'static str,
    (index, count): (usize, usize),
    error: tokio_postgres::Error,
    secret: Option<&str>,
) -> DriverError {
    match error.as_db_error().is_some_and(|refusal| !is_passing(refusal.code())) {
        true => refused(format!("{step}, statement {} of {count}", index + 1), &error, secret),
        false => unavailable(step, error),
    }
}

fn refused(step: String, error: &tokio_postgres::Error, secret: Option<&str>) -> DriverError {
    let (code, message) = match error.as_db_error() {
        Some(refusal) => (refusal.code().code(), refusal.message()),
        None => ("", ""),
    };
    let mut message = message.to_owned();
    if let Some(secret) = secret.filter(|secret| !secret.is_empty()) {
        message = message.replace(secret, "<password>");
    }
    message = message.chars().take(MESSAGE_CHARS_MAX).collect();
    // A token near a syntax error may hold any part of the verifier.
    if message.contains("SCRAM-SHA-256$") {
        message = "a statement that sets the password is not understood".to_owned();
    }
    DriverError::Refused { step, message, code: code.to_owned(), advice: advice(error.code()) }
}

fn advice(code: Option<&SqlState>) -> &'static str {
    match code {
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
            "; the configured user needs CREATEROLE, and on what it grants the grant option"
        }
        Some(code) if *code == SqlState::DEPENDENT_OBJECTS_STILL_EXIST => {
            "; leave revocation_statements empty to have owned objects handed over and privileges \
             dropped in every database"
        }
        Some(_) | None => "",
    }
}

/// Whether the same statement may succeed later: connection trouble, shutdown and start-up, lack
/// of resources, locks, time limits, deadlocks, others in the way.
fn is_passing(code: &SqlState) -> bool {
    let class = code.code().get(..2).unwrap_or_default();
    matches!(class, "08" | "40" | "53" | "57" | "58")
        || is_contention(code)
        || *code == SqlState::LOCK_NOT_AVAILABLE
        || *code == SqlState::OBJECT_IN_USE
}
