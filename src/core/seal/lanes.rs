//! Shares for unsealing, kept apart by who gave them.
//!
//! Anybody who reaches the listener can give something in the form of a share, and no single share
//! shows whether it is one. Were they all one heap, whoever adds a wrong one would spoil what
//! administrators bring. So each giver has a lane; a share that is new is tried with what others gave,
//! all of them, and without some of them. What somebody spoils is their own.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::types::id::random_uuid;
use crate::types::secret::{RandomError, SecretBytes};

use super::super::guess::Guesser;
use super::shares::{Added, ShareSet};

/// Most givers at a time. Of more, who came by an address alone goes first, and then the longest idle.
const LANES_MAX: usize = 16;
/// How long a lane may lie idle.
const IDLE_MAX: Duration = Duration::from_secs(3600);

struct Lane {
    giver: String,
    /// Whether nothing but an address tells the giver from others.
    is_address: bool,
    set: ShareSet,
    touched: Duration,
}

/// What was given so far.
#[derive(Default)]
pub(super) struct Lanes {
    nonce: String,
    lanes: Vec<Lane>,
}

impl Lanes {
    /// What tells this gathering from others; empty while nothing is given.
    pub(super) fn nonce(&self) -> &str {
        &self.nonce
    }

    /// How many shares there are that could belong together.
    pub(super) fn len(&self) -> usize {
        let mut points: Vec<Option<&u8>> =
            self.lanes.iter().flat_map(|lane| lane.set.points()).collect();
        points.sort_unstable();
        points.dedup();
        points.len()
    }

    /// Takes in a share at the monotonic time `now`.
    pub(super) fn add(
        &mut self,
        giver: &Guesser,
        share: SecretBytes,
        now: Duration,
    ) -> Result<Added, RandomError> {
        self.lanes.retain(|lane| now.saturating_sub(lane.touched) < IDLE_MAX);
        if self.lanes.is_empty() {
            self.nonce = random_uuid()?;
        }
        if !self.lanes.iter().any(|lane| lane.giver == giver.name()) {
            self.make_room();
            self.lanes.push(Lane {
                giver: giver.name().to_owned(),
                is_address: giver.is_address(),
                set: ShareSet::default(),
                touched: now,
            });
        }
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.giver == giver.name()) else {
            return Ok(Added::Known);
        };
        lane.touched = now;
        lane.set.add(share)
    }

    fn make_room(&mut self) {
        while self.lanes.len() >= LANES_MAX {
            let goes = self.lanes.iter().enumerate();
            let goes = goes.min_by_key(|(_, lane)| (!lane.is_address, lane.touched));
            let Some((at, _)) = goes else { return };
            self.lanes.remove(at);
        }
    }

    /// The sets to try with what `giver` gave last: with what all others gave, or those among them who
    /// came by a certificate; without any one and any two of these; and by itself. No set has two shares
    /// for a point.
    pub(super) fn sets(&self, giver: &Guesser) -> Vec<Vec<SecretBytes>> {
        let Some(own) = self.lanes.iter().find(|lane| lane.giver == giver.name()) else {
            return Vec::new();
        };
        let others: Vec<&Lane> =
            self.lanes.iter().filter(|lane| lane.giver != giver.name()).collect();
        let certified = others.iter().copied().filter(|lane| !lane.is_address).collect();
        let mut chosen: Vec<Vec<&Lane>> = Vec::new();
        for from in [certified, others] {
            // A pair of the same two leaves out one.
            let pairs = (0..from.len()).flat_map(|a| (0..=a).map(move |b| (a, b)));
            let without = |(a, b): (usize, usize)| {
                let left = from.iter().enumerate().filter(|(at, _)| *at != a && *at != b);
                left.map(|(_, lane)| *lane).collect()
            };
            chosen.extend(pairs.map(without));
            chosen.push(from);
        }
        chosen.push(Vec::new());
        // Where there are no strangers, both ways of choosing come to the same: nothing is tried twice.
        let mut seen = BTreeSet::new();
        chosen.retain(|others| {
            seen.insert(others.iter().map(|lane| lane.giver.as_str()).collect::<Vec<_>>())
        });
        let sets = chosen.iter().filter_map(|others| {
            let mut set = ShareSet::default();
            let lanes = std::iter::once(&own).chain(others);
            for share in lanes.flat_map(|lane| lane.set.copies()) {
                if set.add(share).ok()? == Added::Conflict {
                    return None;
                }
            }
            Some(set.copies())
        });
        sets.collect()
    }

    /// Whether what `giver` gave is a whole set by itself.
    pub(super) fn is_whole(&self, giver: &Guesser, needed: usize) -> bool {
        self.lanes.iter().any(|lane| lane.giver == giver.name() && lane.set.len() >= needed)
    }

    /// Forgets what `giver` gave.
    pub(super) fn forget(&mut self, giver: &Guesser) {
        self.lanes.retain(|lane| lane.giver != giver.name());
        if self.lanes.is_empty() {
            self.reset();
        }
    }

    /// Forgets everything.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Duration = Duration::from_secs(100);

    fn share(y: u8, x: u8) -> SecretBytes {
        let mut bytes = vec![y; 33];
        bytes[32] = x;
        SecretBytes::new(bytes)
    }

    /// Whether a set of exactly these points, all of them with the value `y`, is tried.
    fn tried(lanes: &Lanes, giver: &Guesser, y: u8, points: &[u8]) -> bool {
        let wanted: Vec<SecretBytes> = points.iter().map(|x| share(y, *x)).collect();
        lanes.sets(giver).iter().any(|set| {
            set.len() == wanted.len()
                && wanted.iter().all(|share| set.iter().any(|one| one.ct_eq(share.expose())))
        })
    }

    #[test]
    fn no_set_is_tried_twice() {
        let mut lanes = Lanes::default();
        let people = ["spiffe:ann", "spiffe:bob", "address:c", "address:d"].map(Guesser::named);
        for (point, giver) in (1..).zip(&people) {
            lanes.add(giver, share(1, point), AT).unwrap();
            let sets = lanes.sets(giver).into_iter();
            let mut tried: Vec<Vec<u8>> =
                sets.map(|set| set.iter().map(|share| share.expose()[32]).collect()).collect();
            tried.sort();
            let times = tried.len();
            tried.dedup();
            assert_eq!(tried.len(), times, "{tried:?}");
        }
    }

    #[test]
    fn what_strangers_give_keeps_nobodys_shares_from_being_tried_together() {
        let mut lanes = Lanes::default();
        let [ann, bob, carl] = ["spiffe:ann", "spiffe:bob", "certificate:carl"].map(Guesser::named);
        let stranger = Guesser::named("spiffe:stranger");
        // One for a point that is another's, too.
        for x in [1, 9] {
            lanes.add(&stranger, share(7, x), AT).unwrap();
        }
        for n in 0..40 {
            lanes.add(&Guesser::named(&format!("address:192.0.2.{n}")), share(8, n), AT).unwrap();
        }
        lanes.add(&ann, share(1, 1), AT).unwrap();
        lanes.add(&bob, share(1, 2), AT).unwrap();
        assert!(tried(&lanes, &bob, 1, &[2]));
        lanes.add(&carl, share(1, 3), AT).unwrap();
        assert!(tried(&lanes, &carl, 1, &[3]));
        assert!(tried(&lanes, &carl, 1, &[1, 2, 3]));
        assert!(lanes.sets(&carl).len() < 300);
        let another = Guesser::named("spiffe:another");
        lanes.add(&another, share(7, 2), AT).unwrap();
        assert!(tried(&lanes, &carl, 1, &[1, 2, 3]), "two strangers with certificates");
        assert!(!lanes.nonce().is_empty());
        lanes.reset();
        assert_eq!((lanes.len(), lanes.nonce()), (0, ""));
    }
}
