//! How many credentials may be in the making on one target.
//!
//! A queue that is longer than its patience serves nobody: whoever gets a turn at last has been given up
//! by then, and its intent has to be taken back besides. So a request that finds the queue full is told
//! at once to come again, before anything is written, and what waits stays bounded: in memory, in the
//! store, and in the queue of the audit, where it would be in the way of everybody else.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::types::time::Ttl;

use super::super::error::CoreError;
use super::locked;

/// When to come again. Clients spread out by themselves: they got this answer at different times.
const RETRY_AFTER: Ttl = Ttl::from_secs(1);

/// How many are under way, by target.
#[derive(Default)]
pub(super) struct Makings(Mutex<HashMap<String, usize>>);

/// One of them, until it is dropped.
#[must_use = "its place is free again when this is dropped"]
pub(super) struct Making<'a> {
    all: &'a Makings,
    target: String,
}

impl Makings {
    /// Takes a place on `target`, where `max` have one.
    ///
    /// # Errors
    /// `Overloaded` when there is none.
    pub(super) fn begin(&self, target: &str, max: usize) -> Result<Making<'_>, CoreError> {
        let mut counts = locked(&self.0);
        let count = counts.entry(target.to_owned()).or_default();
        if *count >= max.max(1) {
            metrics::counter!("leasehold_leases_turned_away_total").increment(1);
            return Err(CoreError::Overloaded { retry_after: RETRY_AFTER });
        }
        *count += 1;
        Ok(Making { all: self, target: target.to_owned() })
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        let mut counts = locked(&self.all.0);
        match counts.get_mut(&self.target) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                counts.remove(&self.target);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_has_its_own_places_and_gets_them_back() {
        let makings = Makings::default();
        let full = |target| matches!(makings.begin(target, 2), Err(CoreError::Overloaded { .. }));
        let one = makings.begin("pg", 2).unwrap();
        let two = makings.begin("pg", 2).unwrap();
        assert!(full("pg"));
        assert!(!full("other"));
        drop(one);
        assert!(!full("pg"));
        drop(two);
        assert!(locked(&makings.0).is_empty(), "a target without any costs nothing");
    }
}
