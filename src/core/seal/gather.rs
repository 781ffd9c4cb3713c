//! Gathering shares until they open a slot: for unsealing, for new shares, for a root token.

use std::sync::Arc;

use crate::crypto::root::RootKey;
use crate::types::secret::SecretBytes;

use super::super::context::Core;
use super::super::error::CoreError;
use super::super::guess::Guesser;
use super::shares::{Added, ShareSet, parse_share};
use super::slot::{SlotError, SlotKind, StoredSlot};
use super::{Ceremonies, SealState};

/// What shares are gathered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    GenerateRoot,
    Rekey,
    Unseal,
    /// Proving shares that were just issued.
    Verify,
}

/// Where a gathering stands.
pub(super) enum Gathered {
    /// More shares are needed.
    More,
    /// A slot is open.
    Opened { root: Arc<RootKey>, slot: StoredSlot },
}

/// One share that somebody gave.
pub(super) struct Given<'a> {
    pub(super) key: &'a str,
    /// Which gathering it is meant for; unsealing does not ask.
    pub(super) nonce: Option<&'a str>,
    /// Who gave it.
    pub(super) giver: &'a Guesser,
}

impl Ceremonies {
    /// What is gathered for a purpose that is begun by somebody, who knows its nonce.
    fn set(&mut self, purpose: Purpose) -> Option<&mut ShareSet> {
        match purpose {
            Purpose::GenerateRoot => self.generate_root.as_mut().map(|attempt| &mut attempt.set),
            Purpose::Rekey => self.rekey.as_mut().map(|attempt| &mut attempt.set),
            Purpose::Unseal => None,
            Purpose::Verify => self.verification.as_mut().map(|attempt| &mut attempt.set),
        }
    }

    /// Begins anew after a set that has done its work.
    fn clear(&mut self, purpose: Purpose) {
        match self.set(purpose) {
            Some(set) => set.restart(),
            None if purpose == Purpose::Unseal => self.unseal.reset(),
            None => {}
        }
    }

    /// Forgets what did not open, if it is known whose fault that is.
    fn clear_wrong(&mut self, purpose: Purpose, giver: &Guesser, needed: usize, is_locked: bool) {
        if purpose != Purpose::Unseal {
            self.clear(purpose);
        } else if is_locked || self.unseal.is_whole(giver, needed) {
            self.unseal.forget(giver);
        }
    }
}

impl Core {
    /// Takes in a share and tries the slots that have enough.
    pub(super) async fn gather(
        &self,
        purpose: Purpose,
        given: Given<'_>,
        slots: &[StoredSlot],
        cluster_id: &str,
    ) -> Result<Gathered, CoreError> {
        let (seal, giver) = (&self.seal, given.giver);
        let needed = slots.iter().map(|slot| usize::from(slot.threshold)).max().unwrap_or(0);
        if needed == 0 {
            return Err(CoreError::invalid("there are no unseal shares; a slot opens by itself"));
        }
        self.share_guesses.admit(giver)?;
        let Some(sets) = seal.take_in(purpose, &given, self.clock.monotonic())? else {
            self.share_guesses.wrong(giver);
            return Err(CoreError::invalid(
                "the share contradicts one that was given before; what it was to go with was \
                 forgotten, begin again",
            ));
        };
        for slot in slots {
            for set in sets.iter().filter(|set| set.len() >= usize::from(slot.threshold)) {
                let copies = set.iter().map(|share| SecretBytes::copy_of(share.expose())).collect();
                if let Some(root) = seal.try_open(slot, cluster_id, copies).await? {
                    self.share_guesses.unlock(giver.name());
                    seal.ceremonies().clear(purpose);
                    return Ok(Gathered::Opened { root, slot: slot.clone() });
                }
            }
        }
        if sets.iter().all(|set| set.len() < needed) {
            return Ok(Gathered::More);
        }
        self.share_guesses.wrong(giver);
        let is_locked = self.share_guesses.is_locked(giver);
        seal.ceremonies().clear_wrong(purpose, giver, needed, is_locked);
        Err(SlotError::WrongKey.into())
    }
}

impl SealState {
    /// Takes in a share; the sets that there are with it now, or `None` when it contradicts one that
    /// was given before.
    fn take_in(
        &self,
        purpose: Purpose,
        given: &Given<'_>,
        now: std::time::Duration,
    ) -> Result<Option<Vec<Vec<SecretBytes>>>, CoreError> {
        let mut ceremonies = self.ceremonies();
        if purpose == Purpose::Unseal {
            let lanes = &mut ceremonies.unseal;
            return Ok(match lanes.add(given.giver, parse_share(given.key)?, now)? {
                Added::New | Added::Known => Some(lanes.sets(given.giver)),
                Added::Conflict => {
                    lanes.forget(given.giver);
                    None
                }
            });
        }
        let set = ceremonies.set(purpose).ok_or_else(|| nothing_in_progress(purpose))?;
        // The nonce asked for is not told: it may not be the asker's to know.
        if given.nonce.is_some_and(|nonce| nonce != set.nonce()) {
            return Err(CoreError::field("nonce", "is not that of the attempt in progress"));
        }
        Ok(match set.add(parse_share(given.key)?)? {
            Added::New | Added::Known => Some(vec![set.copies()]),
            Added::Conflict => {
                set.restart();
                None
            }
        })
    }

    async fn try_open(
        &self,
        slot: &StoredSlot,
        cluster_id: &str,
        shares: Vec<SecretBytes>,
    ) -> Result<Option<Arc<RootKey>>, CoreError> {
        let Some(opener) = self.slot(SlotKind::Shamir) else { return Ok(None) };
        match opener.open(slot.clone(), cluster_id.to_owned(), shares).await {
            Ok(root) => Ok(Some(root)),
            Err(SlotError::WrongKey | SlotError::Shares(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

pub(super) fn nothing_in_progress(purpose: Purpose) -> CoreError {
    CoreError::invalid(match purpose {
        Purpose::GenerateRoot => "no root generation in progress",
        Purpose::Rekey => "no rekey in progress",
        Purpose::Unseal => "nothing to unseal",
        Purpose::Verify => "no rekey verification in progress",
    })
}
