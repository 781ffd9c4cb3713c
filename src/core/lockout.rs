//! Failed log-ins, counted against whom they claim to be, so that nobody's password is guessed from
//! many addresses.
//!
//! Names that nobody has are counted like any other: being locked tells nothing about who exists.
//! Each node counts for itself and in memory alone. A seal or a restart forgets, which takes the keys
//! or the machine; with several nodes there are that many times the guesses. Writing each failure to
//! the store would let anybody who reaches the listener write to it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::types::id::MountAccessor;
use crate::types::time::{Clock, Timestamp, Ttl};

use super::mount::MountEntry;

/// Most identities that failures are counted for. Beyond that, those with the fewest are forgotten, and
/// whoever takes such a place is counted as if the failures there had been its own: a flood of names
/// locks sooner, and wins no guesses at one of them.
const COUNTED_MAX: usize = 32_768;
/// What counts of a name, in bytes. No identity has a longer one.
const ALIAS_BYTES_MAX: usize = 256;
/// How often, at most, everything is searched for what is over.
const SEARCH_EVERY: Ttl = Ttl::from_secs(60);

/// When an auth mount locks an identity, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockoutConfig {
    /// Failures after which it is locked.
    pub threshold: u64,
    /// How long it stays locked, from the last failure.
    pub duration: Ttl,
    /// How long a failure counts when no other follows.
    pub counter_reset: Ttl,
    /// Never lock.
    pub disabled: bool,
}

impl Default for LockoutConfig {
    fn default() -> Self {
        let quarter = Ttl::from_secs(15 * 60);
        Self { threshold: 5, duration: quarter, counter_reset: quarter, disabled: false }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Identity {
    mount: Arc<str>,
    alias: Arc<str>,
}

impl Identity {
    fn new(mount: &MountAccessor, alias: &str) -> Self {
        let mut end = alias.len().min(ALIAS_BYTES_MAX);
        while !alias.is_char_boundary(end) {
            end -= 1;
        }
        Self { mount: mount.as_str().into(), alias: alias.get(..end).unwrap_or_default().into() }
    }
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u64,
    last_at: Timestamp,
    /// When it can be forgotten, as the mount was tuned at the last failure.
    over_at: Timestamp,
    /// Orders equal counts by age.
    turn: u64,
}

impl Failures {
    fn is_locked(&self, config: &LockoutConfig, now: Timestamp) -> bool {
        !config.disabled
            && self.count >= config.threshold
            && now < self.last_at.plus(config.duration)
    }

    fn is_over(&self, config: &LockoutConfig, now: Timestamp) -> bool {
        let kept =
            if self.count >= config.threshold { config.duration } else { config.counter_reset };
        now >= self.last_at.plus(kept)
    }
}

#[derive(Default)]
struct Counted {
    failures: HashMap<Identity, Failures>,
    /// The same, those with the fewest and oldest failures first.
    order: BTreeSet<(u64, u64, Identity)>,
    turns: u64,
    searched_at: Option<Timestamp>,
}

impl Counted {
    fn remove(&mut self, identity: &Identity) -> Option<Failures> {
        let failures = self.failures.remove(identity)?;
        self.order.remove(&(failures.count, failures.turn, identity.clone()));
        Some(failures)
    }

    fn insert(&mut self, identity: Identity, failures: Failures) {
        self.order.insert((failures.count, failures.turn, identity.clone()));
        self.failures.insert(identity, failures);
    }

    /// Makes room for one more. Answers the most failures that were forgotten for that.
    fn make_room(&mut self, max: usize, now: Timestamp) -> u64 {
        if self.failures.len() < max {
            return 0;
        }
        if self.searched_at.is_none_or(|at| now >= at.plus(SEARCH_EVERY)) {
            self.searched_at = Some(now);
            let over: Vec<_> = self
                .failures
                .iter()
                .filter(|(_, failures)| now >= failures.over_at)
                .map(|(identity, _)| identity.clone())
                .collect();
            for identity in over {
                self.remove(&identity);
            }
        }
        let mut forgotten = 0;
        while self.failures.len() >= max {
            let Some((count, _, identity)) = self.order.pop_first() else { break };
            self.failures.remove(&identity);
            forgotten = count.max(forgotten);
        }
        forgotten
    }
}

/// Who failed to log in, and how often.
pub struct Lockouts {
    clock: Arc<dyn Clock>,
    counted: Mutex<Counted>,
    max: usize,
}

impl Lockouts {
    /// Nobody has failed yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, counted: Mutex::default(), max: COUNTED_MAX }
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether log-ins as `alias` are refused now, whatever they prove.
    pub fn is_locked(&self, mount: &MountEntry, alias: &str) -> bool {
        let identity = Identity::new(&mount.accessor, alias);
        let now = self.clock.now();
        self.counted()
            .failures
            .get(&identity)
            .is_some_and(|failures| failures.is_locked(&mount.config.user_lockout_config, now))
    }

    /// A log-in as `alias` was refused. One that is locked already is not locked for longer by that.
    pub fn failed(&self, mount: &MountEntry, alias: &str) {
        if self.count(&mount.accessor, alias, &mount.config.user_lockout_config) {
            let path = mount.path.clone();
            metrics::counter!("leasehold_login_lockouts_total", "mount" => path).increment(1);
        }
    }

    /// Counts a failure of `alias`, and says whether it is locked by that.
    pub(super) fn count(&self, mount: &MountAccessor, alias: &str, config: &LockoutConfig) -> bool {
        if config.disabled {
            return false;
        }
        let identity = Identity::new(mount, alias);
        let now = self.clock.now();
        let mut counted = self.counted();
        let before = counted.failures.get(&identity).copied();
        if before.is_some_and(|before| before.is_locked(config, now)) {
            return false;
        }
        counted.remove(&identity);
        let forgotten = counted.make_room(self.max, now);
        counted.turns += 1;
        let before = before.filter(|before| !before.is_over(config, now));
        let failures = Failures {
            count: before
                .map_or(0, |before| before.count)
                .max(forgotten.min(config.threshold.saturating_sub(1)))
                .saturating_add(1),
            last_at: now,
            over_at: now.plus(config.duration.max(config.counter_reset)),
            turn: counted.turns,
        };
        let locked = failures.is_locked(config, now);
        counted.insert(identity, failures);
        locked
    }

    /// How often `alias` failed, and when it did last; `None` when none of that counts any more.
    pub(super) fn failures(
        &self,
        mount: &MountAccessor,
        alias: &str,
        config: &LockoutConfig,
    ) -> Option<(u64, Timestamp)> {
        let now = self.clock.now();
        let counted = self.counted();
        let found = counted.failures.get(&Identity::new(mount, alias))?;
        (!found.is_over(config, now)).then_some((found.count, found.last_at))
    }

    /// Everybody who failed, by name, with how often and when last. For tables of one mount.
    pub(super) fn everyone(&self) -> BTreeMap<String, (u64, Timestamp)> {
        let counted = self.counted();
        let all = counted.failures.iter();
        all.map(|(identity, found)| (identity.alias.to_string(), (found.count, found.last_at)))
            .collect()
    }

    /// A log-in as `alias` succeeded: what failed before it is forgotten.
    pub fn succeeded(&self, mount: &MountEntry, alias: &str) {
        self.unlock(&mount.accessor, alias);
    }

    /// Forgets the failures of `alias`. One that has none is no error.
    pub fn unlock(&self, mount: &MountAccessor, alias: &str) {
        self.counted().remove(&Identity::new(mount, alias));
    }

    /// The names that are locked now, by the accessor of their mount, sorted. `config` says how a mount is
    /// tuned; mounts for which it says nothing are left out.
    pub fn locked(
        &self,
        config: impl Fn(&MountAccessor) -> Option<LockoutConfig>,
    ) -> BTreeMap<String, Vec<String>> {
        let now = self.clock.now();
        let mut locked: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (identity, failures) in &self.counted().failures {
            let mount = MountAccessor::new(&*identity.mount);
            if config(&mount).is_some_and(|config| failures.is_locked(&config, now)) {
                locked
                    .entry(identity.mount.to_string())
                    .or_default()
                    .push(identity.alias.to_string());
            }
        }
        locked.values_mut().for_each(|names| names.sort_unstable());
        locked
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::mount::{MountClass, MountConfig};
    use crate::core::scratch::NOW;
    use crate::types::time::ManualClock;

    fn mount(config: LockoutConfig) -> MountEntry {
        MountEntry {
            path: "auth/userpass/".into(),
            class: MountClass::Auth,
            kind: "userpass".into(),
            accessor: MountAccessor::new("auth_userpass_1"),
            uuid: String::new(),
            description: String::new(),
            options: BTreeMap::new(),
            config: MountConfig { user_lockout_config: config, ..MountConfig::default() },
            disabling: false,
            moved: None,
        }
    }

    fn lockouts(max: usize) -> (Lockouts, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(NOW));
        (Lockouts { max, ..Lockouts::new(clock.clone()) }, clock)
    }

    fn after(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn five_failures_lock_for_a_quarter_of_an_hour() {
        let (lockouts, clock) = lockouts(10);
        let mount = mount(LockoutConfig::default());
        for _ in 0..4 {
            lockouts.failed(&mount, "ann");
            clock.advance(after(60));
        }
        assert!(!lockouts.is_locked(&mount, "ann"));
        lockouts.failed(&mount, "ann");
        assert!(lockouts.is_locked(&mount, "ann"));
        assert!(!lockouts.is_locked(&mount, "bob"));
        clock.advance(after(899));
        assert!(lockouts.is_locked(&mount, "ann"));
        // Trying all the while does not prolong it.
        lockouts.failed(&mount, "ann");
        clock.advance(after(1));
        assert!(!lockouts.is_locked(&mount, "ann"));
        // And then it begins anew.
        lockouts.failed(&mount, "ann");
        assert!(!lockouts.is_locked(&mount, "ann"));
    }

    #[test]
    fn failures_that_are_over_and_successes_do_not_count() {
        let (lockouts, clock) = lockouts(10);
        let mount = mount(LockoutConfig::default());
        (0..4).for_each(|_| lockouts.failed(&mount, "ann"));
        clock.advance(after(900));
        (0..4).for_each(|_| lockouts.failed(&mount, "ann"));
        assert!(!lockouts.is_locked(&mount, "ann"));
        lockouts.succeeded(&mount, "ann");
        (0..4).for_each(|_| lockouts.failed(&mount, "ann"));
        assert!(!lockouts.is_locked(&mount, "ann"));
    }

    #[test]
    fn tuning_counts_at_once_and_unlocking_too() {
        let (lockouts, _) = lockouts(10);
        let strict = mount(LockoutConfig { threshold: 2, ..LockoutConfig::default() });
        (0..2).for_each(|_| lockouts.failed(&strict, "ann"));
        assert!(lockouts.is_locked(&strict, "ann"));
        assert!(!lockouts.is_locked(&mount(LockoutConfig::default()), "ann"));
        let off = mount(LockoutConfig { disabled: true, threshold: 1, ..LockoutConfig::default() });
        assert!(!lockouts.is_locked(&off, "ann"));
        (0..9).for_each(|_| lockouts.failed(&off, "bob"));
        assert!(!lockouts.is_locked(&strict, "bob"));
        let config = |_: &MountAccessor| Some(strict.config.user_lockout_config);
        let listed = lockouts.locked(config);
        assert_eq!(listed["auth_userpass_1"], ["ann"]);
        assert!(lockouts.locked(|_| None).is_empty());
        lockouts.unlock(&strict.accessor, "ann");
        assert!(!lockouts.is_locked(&strict, "ann") && lockouts.locked(config).is_empty());
    }

    #[test]
    fn a_flood_of_names_neither_fills_the_memory_nor_hides_one_name_among_them() {
        let (lockouts, clock) = lockouts(100);
        let mount = mount(LockoutConfig::default());
        (0..4).for_each(|_| lockouts.failed(&mount, "ann"));
        (0..5).for_each(|_| lockouts.failed(&mount, "locked"));
        for n in 0..250 {
            lockouts.failed(&mount, &format!("{n}"));
        }
        assert_eq!(lockouts.counted().failures.len(), 100);
        assert_eq!(lockouts.counted().order.len(), 100);
        assert!(lockouts.is_locked(&mount, "locked"));
        lockouts.failed(&mount, "ann");
        assert!(lockouts.is_locked(&mount, "ann"));
        // Pushing a name out of a full table between any two guesses at it gains nothing.
        let (full, _) = self::lockouts(100);
        (0..100).for_each(|n| (0..2).for_each(|_| full.failed(&mount, &format!("{n}"))));
        for n in 0..4 {
            full.failed(&mount, "ann");
            full.failed(&mount, &format!("fresh {n}"));
        }
        assert!(full.is_locked(&mount, "ann"));
        // What is over makes room for what is not, however often it failed.
        for n in 0..200 {
            (0..5).for_each(|_| lockouts.failed(&mount, &format!("old {n}")));
        }
        clock.advance(after(900));
        (0..4).for_each(|_| lockouts.failed(&mount, "bob"));
        (0..50).for_each(|n| lockouts.failed(&mount, &format!("new {n}")));
        lockouts.failed(&mount, "bob");
        assert!(lockouts.is_locked(&mount, "bob"));
        // A name of any length takes no more than so much.
        let long = "ä".repeat(10_000);
        (0..5).for_each(|_| lockouts.failed(&mount, &long));
        assert!(lockouts.is_locked(&mount, &long));
        assert!(lockouts.counted().failures.keys().all(|key| key.alias.len() <= ALIAS_BYTES_MAX));
    }
}
