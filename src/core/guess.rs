//! Wrapping tokens and unseal shares that are none, counted against whoever presents them: first slowed
//! down, then locked.
//!
//! Who presents one is an identity where there is one, by its token or its certificate; else the
//! certificate; and only without that the address, which others may share, so that it is given more
//! room. Nobody is refused for what somebody else at the same address has done who came with less. What
//! once was a wrapping token is no guess: programs that start anew present theirs again. Shares are
//! given to a sealed server, which knows no identities: there it is the certificate or the address.
//!
//! As failed log-ins, they are counted by each node for itself and in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quick_cache::sync::Cache;

use crate::crypto::blind::TokenHash;
use crate::types::id::MountAccessor;
use crate::types::time::{Clock, Timestamp, Ttl};

use super::caller::Caller;
use super::context::{Core, Unsealed};
use super::error::CoreError;
use super::lockout::{LockoutConfig, Lockouts};
use super::peer::ConnectionInfo;
use super::quota::client;

/// Tokens of which it is remembered that they were given.
const GIVEN_MAX: usize = 65_536;
/// Longest pause after a wrong one, in seconds.
const PAUSE_SECS_MAX: u64 = 60;
const MINUTE_MILLIS: i64 = 60_000;
const QUARTER: Ttl = Ttl::from_secs(15 * 60);

/// How much somebody may guess.
#[derive(Debug)]
struct Room {
    /// Wrong ones that cost nothing. Each further one costs a pause, twice as long as the one before.
    free: u64,
    lockout: LockoutConfig,
}

/// What is guessed, and how it is borne.
#[derive(Debug)]
pub struct Guessed {
    /// What stands where a mount's accessor does for those who are locked by their log-ins.
    pub scope: &'static str,
    refusal: &'static str,
    /// Counts wrong ones, and those who are locked.
    metrics: [&'static str; 2],
    identity: Room,
    address: Room,
    /// Wrong ones in a minute, of everybody together, from which on nobody else is let in who has one.
    flood: Option<u64>,
}

/// Wrapping tokens.
pub static WRAPPING: Guessed = Guessed {
    scope: "wrapping",
    refusal: "too many wrong wrapping tokens, try again later",
    metrics: ["leasehold_wrong_wrapping_tokens_total", "leasehold_wrapping_lockouts_total"],
    identity: Room { free: 3, lockout: room_of(10) },
    // There may be many behind one address.
    address: Room { free: 50, lockout: room_of(60) },
    flood: None,
};

/// Shares, of which a wrong set counts once. A key of 256 bits is not guessed at any speed: this is so that
/// trying is seen, and cheap to bear.
pub static SHARES: Guessed = Guessed {
    scope: "unseal",
    refusal: "too many wrong keys, wait before trying again",
    metrics: ["leasehold_unseal_failures_total", "leasehold_unseal_lockouts_total"],
    // People mistype.
    identity: Room { free: 4, lockout: room_of(10) },
    address: Room { free: 4, lockout: room_of(60) },
    flood: Some(120),
};

const fn room_of(threshold: u64) -> LockoutConfig {
    LockoutConfig { threshold, duration: QUARTER, counter_reset: QUARTER, disabled: false }
}

/// Whoever presents something that can be guessed.
#[derive(Debug)]
pub struct Guesser {
    name: String,
}

impl Guesser {
    /// Who presents one on `connection`, beside `token` if there is one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn of(
        core: &Core,
        unsealed: &Unsealed,
        token: Option<&str>,
        connection: &ConnectionInfo,
    ) -> Result<Self, CoreError> {
        let mut entity = None;
        for token in [token, None].iter().skip(usize::from(token.is_none())) {
            entity = match core.caller(unsealed, *token, connection).await {
                Ok(caller) => id(&caller),
                Err(error) if error.status() < 500 => None,
                Err(error) => return Err(error),
            };
            if entity.is_some() {
                break;
            }
        }
        Ok(match entity {
            Some(name) => Self { name },
            None => Self::on(connection),
        })
    }

    /// Who presents one on `connection`, as far as that tells.
    pub fn on(connection: &ConnectionInfo) -> Self {
        let name = match &connection.peer {
            Some(peer) => match peer.spiffe_id() {
                // As it can stand in a path.
                Some(id) => id.as_str().replacen("://", ":", 1),
                None => format!("certificate:{}", peer.x5t_s256()),
            },
            None => format!("{}{}", ADDRESSES, client::address(connection)),
        };
        Self { name }
    }

    /// How it is called where locks are listed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether nothing but an address tells it from others.
    pub fn is_address(&self) -> bool {
        self.name.starts_with(ADDRESSES)
    }

    #[cfg(test)]
    pub(in crate::core) fn named(name: &str) -> Self {
        Self { name: name.to_owned() }
    }
}

const ADDRESSES: &str = "address:";

fn id(caller: &Caller) -> Option<String> {
    caller.facts.entity_id.as_ref().map(|id| format!("entity:{id}"))
}

/// Who presented wrong ones, and how many.
pub struct Guesses {
    of: &'static Guessed,
    clock: Arc<dyn Clock>,
    wrong: Lockouts,
    scope: MountAccessor,
    given: Cache<TokenHash, ()>,
    /// When this minute began, and how many were wrong in it.
    minute: Mutex<(Timestamp, u64)>,
}

impl Guesses {
    /// Nobody has guessed yet.
    pub fn new(of: &'static Guessed, clock: Arc<dyn Clock>) -> Self {
        Self {
            wrong: Lockouts::new(clock.clone()),
            scope: MountAccessor::new(of.scope),
            given: Cache::new(GIVEN_MAX),
            minute: Mutex::new((clock.now(), 0)),
            clock,
            of,
        }
    }

    fn room(&self, name: &str) -> &'static Room {
        if name.starts_with(ADDRESSES) { &self.of.address } else { &self.of.identity }
    }

    fn minute(&self) -> MutexGuard<'_, (Timestamp, u64)> {
        let mut minute = self.minute.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        // Also when the clock was put back.
        if !(0..MINUTE_MILLIS).contains(&now.millis_since(minute.0)) {
            *minute = (now, 0);
        }
        minute
    }

    /// Lets a guesser try, unless it has to wait, whatever it would present.
    ///
    /// # Errors
    /// `TooMany`.
    pub fn admit(&self, guesser: &Guesser) -> Result<(), CoreError> {
        let room = self.room(&guesser.name);
        let failures = self.wrong.failures(&self.scope, &guesser.name, &room.lockout);
        let mut waits = failures.and_then(|failed| self.waits(&guesser.name, failed));
        // Who has none wrong is let in, however many others come.
        if waits.is_none() && failures.is_some() {
            let flood = self.of.flood.is_some_and(|most| self.minute().1 >= most);
            waits = flood.then(|| Ttl::from_secs(60));
        }
        match waits {
            None => Ok(()),
            Some(retry_after) => {
                Err(CoreError::TooMany { message: self.of.refusal.to_owned(), retry_after })
            }
        }
    }

    /// Whether a guesser is locked, and not only slowed down.
    pub fn is_locked(&self, guesser: &Guesser) -> bool {
        let room = self.room(&guesser.name);
        let failures = self.wrong.failures(&self.scope, &guesser.name, &room.lockout);
        failures.is_some_and(|(count, _)| count >= room.lockout.threshold)
    }

    /// A guesser presented one that never was.
    pub fn wrong(&self, guesser: &Guesser) {
        let [wrong, locked] = self.of.metrics;
        metrics::counter!(wrong).increment(1);
        self.minute().1 += 1;
        if self.wrong.count(&self.scope, &guesser.name, &self.room(&guesser.name).lockout) {
            metrics::counter!(locked).increment(1);
        }
    }

    /// What was stored under `hash` was a wrapping token, and is no more.
    pub fn ended(&self, hash: TokenHash) {
        self.given.insert(hash, ());
    }

    /// Whether what would be stored under `hash` was a wrapping token, not long ago.
    pub fn was_given(&self, hash: &TokenHash) -> bool {
        self.given.get(hash).is_some()
    }

    /// Forgets what `name` presented. One that presented nothing wrong is no error.
    pub fn unlock(&self, name: &str) {
        self.wrong.unlock(&self.scope, name);
    }

    /// Who has to wait now, sorted.
    pub fn waiting(&self) -> Vec<String> {
        let everyone: BTreeMap<String, (u64, Timestamp)> = self.wrong.everyone();
        let waits = |(name, failed): (String, (u64, Timestamp))| {
            self.waits(&name, failed).is_some().then_some(name)
        };
        everyone.into_iter().filter_map(waits).collect()
    }

    fn waits(&self, name: &str, (count, last_at): (u64, Timestamp)) -> Option<Ttl> {
        let room = self.room(name);
        let pause = if count >= room.lockout.threshold {
            room.lockout.duration
        } else {
            let over = count.checked_sub(room.free)?;
            let doubled = u32::try_from(over).ok().and_then(|over| 1u64.checked_shl(over));
            Ttl::from_secs(doubled.unwrap_or(PAUSE_SECS_MAX).min(PAUSE_SECS_MAX))
        };
        let left = last_at.plus(pause).millis_since(self.clock.now());
        u64::try_from(left).ok().filter(|left| *left > 0).map(|left| {
            // Rounded up: who comes when told is let in.
            Ttl::from_secs(left.div_ceil(1000))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::scratch::NOW;
    use crate::types::time::ManualClock;

    fn guesses() -> (Guesses, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(NOW));
        (Guesses::new(&WRAPPING, clock.clone()), clock)
    }

    fn guesser(name: &str) -> Guesser {
        Guesser { name: name.to_owned() }
    }

    fn wait_of(guesses: &Guesses, guesser: &Guesser) -> u64 {
        match guesses.admit(guesser) {
            Ok(()) => 0,
            Err(CoreError::TooMany { retry_after, .. }) => retry_after.as_secs(),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_guesser_is_slowed_down_and_then_locked_and_nobody_else_is() {
        let (guesses, clock) = guesses();
        let (web, other) = (guesser("entity:web"), guesser("entity:other"));
        let mut waits = Vec::new();
        for _ in 0..10 {
            assert!(guesses.admit(&web).is_ok());
            guesses.wrong(&web);
            let wait = wait_of(&guesses, &web);
            waits.push(wait);
            if waits.len() < 10 {
                clock.advance(Duration::from_secs(wait));
            }
        }
        assert_eq!(waits, [0, 0, 1, 2, 4, 8, 16, 32, 60, 900]);
        assert_eq!(guesses.waiting(), ["entity:web"]);
        assert!(guesses.admit(&other).is_ok());
        assert!(guesses.admit(&guesser("address:192.0.2.1")).is_ok());
        // Trying all the while prolongs nothing; and then it begins anew.
        clock.advance(Duration::from_secs(899));
        guesses.wrong(&web);
        assert_eq!(wait_of(&guesses, &web), 1);
        clock.advance(Duration::from_secs(1));
        assert!(guesses.admit(&web).is_ok() && guesses.waiting().is_empty());
        guesses.wrong(&web);
        assert!(guesses.admit(&web).is_ok());
    }

    #[test]
    fn guesses_at_once_are_one_lock_and_an_administrator_undoes_it() {
        let (guesses, _) = guesses();
        let web = guesser("certificate:x");
        (0..50).for_each(|_| guesses.wrong(&web));
        assert_eq!(wait_of(&guesses, &web), 900);
        guesses.unlock("certificate:y");
        assert_eq!(guesses.waiting(), ["certificate:x"]);
        guesses.unlock("certificate:x");
        assert!(guesses.admit(&web).is_ok() && guesses.waiting().is_empty());
    }

    #[test]
    fn an_address_has_room_for_many() {
        let (guesses, clock) = guesses();
        let there = guesser("address:192.0.2.1");
        (0..49).for_each(|_| guesses.wrong(&there));
        assert!(guesses.admit(&there).is_ok());
        guesses.wrong(&there);
        assert_eq!(wait_of(&guesses, &there), 1);
        clock.advance(Duration::from_secs(900));
        assert!(guesses.admit(&there).is_ok());
    }

    #[test]
    fn a_flood_of_wrong_shares_keeps_nobody_out_who_has_none() {
        let clock = Arc::new(ManualClock::new(NOW));
        let guesses = Guesses::new(&SHARES, clock.clone());
        let one = guesser("address:192.0.2.1");
        guesses.wrong(&one);
        assert_eq!(wait_of(&guesses, &one), 0, "people mistype");
        for n in 0..120 {
            guesses.wrong(&guesser(&format!("address:192.0.2.1{n}")));
        }
        assert_eq!(wait_of(&guesses, &one), 60);
        assert_eq!(wait_of(&guesses, &guesser("spiffe:admin")), 0);
        assert_eq!(wait_of(&guesses, &guesser("address:198.51.100.1")), 0);
        clock.advance(Duration::from_secs(60));
        assert_eq!(wait_of(&guesses, &one), 0);
    }
}
