//! Codes: given, and checked at most once each.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::key::{self, KeyRecord};
use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::records::Precondition;
use crate::core::reply::Reply;
use crate::core::view::Entry;
use crate::types::time::{Timestamp, Ttl};

/// Wrong codes in a row that cost nothing: people mistype.
const FREE_FAILURES: u32 = 5;
/// Wait after the first wrong code beyond those; it doubles with each further one.
const WAIT_FIRST: Ttl = Ttl::from_secs(30);
/// Longest wait. With six digits and three steps that count, somebody who guesses for a year on end has
/// one chance in ten.
const WAIT_MAX: Ttl = Ttl::from_secs(15 * 60);
/// After so long without a wrong code, those before are forgotten.
const FORGOTTEN_AFTER: Ttl = Ttl::from_secs(24 * 3600);
/// How often a check is tried while others check codes of the same key.
const ATTEMPTS: usize = 16;

/// What was accepted and refused of one key, as stored below `guards/`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Guard {
    /// The latest time step whose code was accepted.
    accepted: Option<u64>,
    /// Wrong codes since then.
    failures: u32,
    failed_at: Timestamp,
}

impl Guard {
    /// When the next code is looked at.
    fn open_at(&self) -> Timestamp {
        let Some(beyond) = self.failures.checked_sub(FREE_FAILURES) else {
            return Timestamp::default();
        };
        let doubled = WAIT_FIRST.as_secs().saturating_mul(1 << beyond.min(16));
        self.failed_at.plus(Ttl::from_secs(doubled.min(WAIT_MAX.as_secs())))
    }

    /// Refuses to look at a code before its time.
    fn admit(&self, now: Timestamp) -> Result<(), CoreError> {
        let open_at = self.open_at();
        if now >= open_at {
            return Ok(());
        }
        let wait = open_at.remaining(now).as_secs().saturating_add(1);
        Err(CoreError::TooMany {
            message: "too many wrong codes for this key; it is locked for a while".into(),
            retry_after: Ttl::from_secs(wait),
        })
    }

    /// What becomes of it with a code of `step`, or of none.
    fn judge(&self, step: Option<u64>, now: Timestamp) -> (Self, Verdict) {
        match step {
            Some(step) if self.accepted.is_none_or(|accepted| step > accepted) => {
                let next = Self { accepted: Some(step), failures: 0, failed_at: self.failed_at };
                (next, Verdict::Valid)
            }
            wrong => {
                let old = now >= self.failed_at.plus(FORGOTTEN_AFTER);
                let before = if old { 0 } else { self.failures };
                let next = Self {
                    accepted: self.accepted,
                    failures: before.saturating_add(1),
                    failed_at: now,
                };
                (next, if wrong.is_some() { Verdict::Used } else { Verdict::Wrong })
            }
        }
    }
}

/// What a code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Valid,
    Used,
    Wrong,
}

/// The name of the record of what was accepted and refused of a key.
pub(super) fn guard_name(name: &str) -> String {
    format!("guards/{name}")
}

pub(super) async fn read(ctx: &EngineContext<'_>, name: &str) -> Result<Reply, CoreError> {
    let record = key::load(ctx, name).await?;
    let step = record.parameters.step_at(ctx.clock.now());
    let code = record.parameters.code(&record.key()?, step);
    Ok(Reply::data(json!({ "code": code.expose() })))
}

pub(super) async fn check(
    ctx: &EngineContext<'_>,
    name: &str,
    fields: &Fields,
) -> Result<Reply, CoreError> {
    let code = fields.secret("code")?;
    let code = code.ok_or_else(|| CoreError::field("code", "is required"))?;
    let guard = guard_name(name);
    for _ in 0..ATTEMPTS {
        // Both from the store: another node may have replaced the key, or accepted the code just now.
        // The guard first, which comes and goes with its key: a verdict by a key that was replaced
        // since does not fit the guard of the next one.
        let before: Option<Entry<Guard>> = ctx.view.get_fresh(&guard).await?;
        let before = before.ok_or(CoreError::NotFound)?;
        let record: Option<Entry<KeyRecord>> = ctx.view.get_fresh(&key::record_name(name)).await?;
        let record = record.ok_or(CoreError::NotFound)?.value;
        let now = ctx.clock.now();
        before.value.admit(now)?;
        let step = record.parameters.verify(&record.key()?, code.expose(), now);
        let (after, verdict) = before.value.judge(step, now);
        match ctx.view.write(&guard, &after, Precondition::Rev(before.rev)).await {
            // Nothing is answered before it is written, so that no guess is free.
            Ok(()) => return answer(verdict),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error),
        }
    }
    Err(CoreError::Overloaded { retry_after: Ttl::from_secs(1) })
}

fn answer(verdict: Verdict) -> Result<Reply, CoreError> {
    match verdict {
        Verdict::Valid => Ok(Reply::data(json!({ "valid": true }))),
        Verdict::Wrong => Ok(Reply::data(json!({ "valid": false }))),
        Verdict::Used => {
            Err(CoreError::invalid("code already used; wait until the next time period"))
        }
    }
}

pub(super) async fn unlock(ctx: &EngineContext<'_>, name: &str) -> Result<Reply, CoreError> {
    key::load(ctx, name).await?;
    for _ in 0..ATTEMPTS {
        let Some(entry) = ctx.view.get_fresh::<Guard>(&guard_name(name)).await? else { break };
        // What was accepted stays used.
        let open = Guard { failures: 0, ..entry.value };
        match ctx.view.write(&guard_name(name), &open, Precondition::Rev(entry.rev)).await {
            Ok(()) => break,
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Reply::empty())
}
