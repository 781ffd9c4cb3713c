//! Which targets are down: they are left alone for a while, then probed by a single try.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::types::time::{Timestamp, Ttl};

use super::locked;

/// Failures in a row after which a target counts as down.
const FAILURES_MAX: u32 = 3;
/// How long a target that is down is left alone at first; doubles with every failed probe.
const PAUSE_FIRST: Ttl = Ttl::from_secs(15);

/// How long a probe is waited for. Longer than any takes that is not cut off.
const PROBE_MAX: Ttl = Ttl::from_secs(120);

/// Whether a target may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is up, as far as is known; or this is the one try that finds out.
    Go,
    /// Somebody is finding out.
    Wait,
    /// It is down.
    Closed {
        /// Left alone until then.
        until: Timestamp,
    },
}

/// The targets that have failed lately.
#[derive(Default)]
pub(super) struct Breakers(Mutex<HashMap<String, Breaker>>);

#[derive(Clone, Copy, Default)]
struct Breaker {
    failures: u32,
    pause: Ttl,
    open: Option<Open>,
}

#[derive(Clone, Copy)]
struct Open {
    until: Timestamp,
    probing: bool,
}

impl Breakers {
    /// Asks before a try. After [`Admission::Go`], [`Breakers::note`] has to be told how it went; a
    /// probe that nobody tells of is given up after its time.
    pub(super) fn admit(&self, target: &str, now: Timestamp) -> Admission {
        let mut breakers = locked(&self.0);
        let Some(Breaker { open: Some(open), .. }) = breakers.get_mut(target) else {
            return Admission::Go;
        };
        match (now < open.until, open.probing) {
            (true, true) => Admission::Wait,
            (true, false) => Admission::Closed { until: open.until },
            (false, _) => {
                let until = now.plus(PROBE_MAX);
                *open = Open { until, probing: true };
                Admission::Go
            }
        }
    }

    /// Whether the target could be reached.
    pub(super) fn note(&self, target: &str, up: bool, now: Timestamp, pause_max: Ttl) {
        let mut breakers = locked(&self.0);
        if up {
            breakers.remove(target);
            return;
        }
        let breaker = breakers.entry(target.to_owned()).or_default();
        breaker.failures = breaker.failures.saturating_add(1);
        if breaker.failures < FAILURES_MAX {
            return;
        }
        // Tries that were under way together when it went down count as one.
        if breaker.open.is_none_or(|open| open.probing || open.until <= now) {
            let doubled = Ttl::from_secs(breaker.pause.as_secs().saturating_mul(2));
            breaker.pause = doubled.or(PAUSE_FIRST).limited_by(pause_max);
            breaker.open = Some(Open { until: now.plus(breaker.pause), probing: false });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Ttl = Ttl::from_secs(60);

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn down(breakers: &Breakers, times: u32, now: i64) {
        for _ in 0..times {
            breakers.note("db", false, at(now), MAX);
        }
    }

    #[test]
    fn a_target_is_down_after_failures_in_a_row_and_not_before() {
        let breakers = Breakers::default();
        down(&breakers, 2, 0);
        breakers.note("db", true, at(0), MAX);
        down(&breakers, 2, 0);
        assert_eq!(breakers.admit("db", at(0)), Admission::Go);
        down(&breakers, 1, 0);
        assert_eq!(breakers.admit("db", at(14)), Admission::Closed { until: at(15) });
        assert_eq!(breakers.admit("other", at(14)), Admission::Go, "each target for itself");
    }

    #[test]
    fn one_probe_passes_and_the_pause_grows_until_it_succeeds() {
        let breakers = Breakers::default();
        down(&breakers, 8, 0);
        let mut now = 15;
        for pause in [30, 60, 60] {
            assert_eq!(breakers.admit("db", at(now)), Admission::Go);
            assert_eq!(breakers.admit("db", at(now)), Admission::Wait);
            down(&breakers, 1, now);
            assert_eq!(breakers.admit("db", at(now)), Admission::Closed { until: at(now + pause) });
            now += pause;
        }
        assert_eq!(breakers.admit("db", at(now)), Admission::Go);
        breakers.note("db", true, at(now), MAX);
        assert_eq!(breakers.admit("db", at(now)), Admission::Go);
        down(&breakers, 1, now);
        assert_eq!(breakers.admit("db", at(now)), Admission::Go, "it starts again");
    }

    #[test]
    fn a_probe_that_is_never_heard_of_again_does_not_close_a_target_for_ever() {
        let breakers = Breakers::default();
        down(&breakers, 3, 0);
        assert_eq!(breakers.admit("db", at(15)), Admission::Go);
        assert_eq!(breakers.admit("db", at(15 + 119)), Admission::Wait);
        assert_eq!(breakers.admit("db", at(15 + 120)), Admission::Go);
    }
}
