//! Moves the data keys of old rows to the active term, then has the old terms destroyed.
//!
//! What is left to do is read from the store (each row names its term), so a run that is broken off
//! goes on wherever it is started again, on any node; two at once do the same work twice and no harm.

use std::sync::Arc;

use crate::storage::{Row, RowKey};

use super::context::{Core, Phase, Unsealed};
use super::error::CoreError;
use super::failpoint::fail_point;
use super::records::Records;

/// Rows moved at a time: enough to share a commit, few enough to leave room for requests.
const PAGE_ROWS: usize = 250;
/// Rounds over rows that were written under an old term meanwhile; the next run goes on.
const ROUNDS: usize = 8;

/// Re-wraps what is below the active term, and has the terms destroyed that nothing needs any more.
///
/// # Errors
/// When the store fails.
pub(super) async fn run(core: &Core, unsealed: &Arc<Unsealed>) -> Result<(), CoreError> {
    for _ in 0..ROUNDS {
        let keyring = unsealed.records.keyring();
        let term = keyring.active_term();
        if keyring.terms().len() == 1 {
            return Ok(());
        }
        let unreadable = round(core, unsealed, term).await?;
        if !is_current(core, unsealed) {
            return Ok(());
        }
        fail_point("rewrap.before_destroy");
        let pending = core.storage.count_wrapped_below(term).await?;
        if pending == 0 && core.destroy_terms_below(unsealed, term).await? {
            fail_point("rewrap.after_destroy");
            return Ok(());
        }
        if pending > 0 && pending <= unreadable {
            tracing::error!(rows = pending, "rows that do not open keep old key terms in use");
            metrics::gauge!("leasehold_rewrap_unreadable_rows").set(as_gauge(pending));
            return Ok(());
        }
    }
    Ok(())
}

/// Goes once over all rows below `term`; says how many could not be moved.
async fn round(core: &Core, unsealed: &Arc<Unsealed>, term: u32) -> Result<u64, CoreError> {
    let (mut after, mut unreadable) = (None::<RowKey>, 0);
    while is_current(core, unsealed) {
        let rows = core.storage.wrapped_below(term, after, PAGE_ROWS).await?;
        let Some(last) = rows.last() else { break };
        after = Some(last.key);
        unreadable += page(&unsealed.records, &rows).await?;
        fail_point("rewrap.page");
        metrics::counter!("leasehold_rewrapped_rows_total")
            .increment(u64::try_from(rows.len()).unwrap_or(u64::MAX));
        tokio::task::yield_now().await;
    }
    Ok(unreadable)
}

async fn page(records: &Records, rows: &[Row]) -> Result<u64, CoreError> {
    match records.rewrap(rows).await {
        Ok(()) => Ok(0),
        Err(error @ CoreError::Storage(_)) => Err(error),
        // One row that does not open must not keep the others from being moved.
        Err(_) => {
            let mut unreadable = 0;
            for row in rows {
                match records.rewrap(std::slice::from_ref(row)).await {
                    Ok(()) => {}
                    Err(error @ CoreError::Storage(_)) => return Err(error),
                    Err(_) => unreadable += 1,
                }
            }
            Ok(unreadable)
        }
    }
}

fn is_current(core: &Core, unsealed: &Arc<Unsealed>) -> bool {
    matches!(&*core.phase(), Phase::Unsealed(present) if Arc::ptr_eq(present, unsealed))
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn as_gauge(count: u64) -> f64 {
    count as f64
}
