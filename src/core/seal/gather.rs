//! Gathering shares until they open a slot: for unsealing, for new shares, for a root token.

use std::sync::Arc;

use crate::crypto::root::RootKey;

use super::super::context::Core;
use super::super::error::CoreError;
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
}

impl Ceremonies {
    fn set(&mut self, purpose: Purpose) -> Option<&mut ShareSet> {
        match purpose {
            Purpose::GenerateRoot => self.generate_root.as_mut().map(|attempt| &mut attempt.set),
            Purpose::Rekey => self.rekey.as_mut().map(|attempt| &mut attempt.set),
            Purpose::Unseal => Some(&mut self.unseal),
            Purpose::Verify => self.verification.as_mut().map(|attempt| &mut attempt.set),
        }
    }

    /// Begins anew after a set that did not open, or that has done its work.
    fn clear(&mut self, purpose: Purpose) {
        if let Some(set) = self.set(purpose) {
            match purpose {
                Purpose::Unseal => set.reset(),
                Purpose::GenerateRoot | Purpose::Rekey | Purpose::Verify => set.restart(),
            }
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
        let seal = &self.seal;
        let needed = slots.iter().map(|slot| usize::from(slot.threshold)).max().unwrap_or(0);
        if needed == 0 {
            return Err(CoreError::invalid("there are no unseal shares; a slot opens by itself"));
        }
        let have = seal.take_in(purpose, given, self.clock.monotonic())?;
        for slot in slots.iter().filter(|slot| usize::from(slot.threshold) <= have) {
            if let Some(root) = seal.try_open(purpose, slot, cluster_id).await? {
                let mut ceremonies = seal.ceremonies();
                ceremonies.brake.succeeded();
                ceremonies.clear(purpose);
                return Ok(Gathered::Opened { root, slot: slot.clone() });
            }
        }
        if have < needed {
            return Ok(Gathered::More);
        }
        let mut ceremonies = seal.ceremonies();
        ceremonies.brake.failed(self.clock.monotonic());
        ceremonies.clear(purpose);
        Err(SlotError::WrongKey.into())
    }
}

impl SealState {
    /// Takes in a share; says how many there are now.
    fn take_in(
        &self,
        purpose: Purpose,
        given: Given<'_>,
        now: std::time::Duration,
    ) -> Result<usize, CoreError> {
        let mut ceremonies = self.ceremonies();
        ceremonies.brake.check(now)?;
        let set = ceremonies.set(purpose).ok_or_else(|| nothing_in_progress(purpose))?;
        // The nonce asked for is not told: it may not be the asker's to know.
        if given.nonce.is_some_and(|nonce| nonce != set.nonce()) {
            return Err(CoreError::field("nonce", "is not that of the attempt in progress"));
        }
        match set.add(parse_share(given.key)?)? {
            Added::New | Added::Known => Ok(set.len()),
            Added::Conflict => {
                ceremonies.brake.failed(now);
                ceremonies.clear(purpose);
                Err(CoreError::invalid(
                    "the share contradicts one that was given before; all were forgotten, \
                     begin again",
                ))
            }
        }
    }

    async fn try_open(
        &self,
        purpose: Purpose,
        slot: &StoredSlot,
        cluster_id: &str,
    ) -> Result<Option<Arc<RootKey>>, CoreError> {
        let Some(opener) = self.slot(SlotKind::Shamir) else { return Ok(None) };
        let copies = match self.ceremonies().set(purpose) {
            Some(set) => set.copies(),
            None => return Err(nothing_in_progress(purpose)),
        };
        match opener.open(slot.clone(), cluster_id.to_owned(), copies).await {
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
