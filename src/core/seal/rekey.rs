//! New shares for the same root key.
//!
//! The old shares work until the new ones are proven. When proof is asked for, the new slot is not
//! stored before its shares have opened it; else both slots are stored, and the old one goes when the
//! new one is first opened, be it here, at unseal, or for anything else that takes shares. So neither
//! a lost answer nor a crash leaves a store that no shares open.

use std::sync::Arc;
use std::time::Duration;

use crate::crypto::root::RootKey;
use crate::types::secret::SecretBytes;

use super::super::context::Core;
use super::super::error::CoreError;
use super::super::failpoint::fail_point;
use super::super::guess::Guesser;
use super::gather::{Gathered, Given, Purpose, nothing_in_progress};
use super::shares::ShareSet;
use super::slot::{SlotKind, SlotPlan, StoredSlot};
use super::stored::StoredSeal;

/// How long an attempt may lie idle before it is given up: nobody can block the others for ever.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(3600);

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RekeyPlan {
    /// How many shares.
    pub shares: u8,
    /// How many of them open.
    pub threshold: u8,
    /// Whether the new shares have to open their slot before it is stored.
    pub verify: bool,
}

/// Gathering old shares to make new ones.
pub(super) struct Rekey {
    pub(super) set: ShareSet,
    plan: RekeyPlan,
    pub(super) starter: String,
    touched: Duration,
}

/// Gathering new shares to prove them.
pub(super) struct Verification {
    pub(super) set: ShareSet,
    slot: StoredSlot,
    /// The slot whose shares allowed it. If that is gone meanwhile, so is the permission.
    allowed_by: String,
    required: bool,
    pub(super) starter: String,
}

/// Where an attempt stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RekeyStatus {
    /// The attempt; `None` when there is none.
    pub attempt: Option<RekeyPlan>,
    /// Tells it from others; empty for those who are not told.
    pub nonce: String,
    /// Shares given so far.
    pub progress: usize,
    /// Shares it takes.
    pub required: u8,
    /// Of the verification that the attempt waits for; likewise.
    pub verification_nonce: String,
}

/// Where the verification stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerificationStatus {
    /// Shares and threshold of what is verified; `None` when nothing is.
    pub split: Option<(u8, u8)>,
    /// Tells it from others; empty for those who are not told.
    pub nonce: String,
    /// Shares given so far.
    pub progress: usize,
}

/// What came of a share.
pub enum RekeyOutcome {
    /// More are needed.
    More(RekeyStatus),
    /// The new shares.
    Done {
        /// To be handed out.
        keys: Vec<SecretBytes>,
        /// Of the attempt that ended.
        nonce: String,
        /// Of the verification of the new shares.
        verification_nonce: String,
        /// Whether they work only once verified.
        verify: bool,
    },
}

impl Core {
    /// Begins an attempt. `starter` says who did: who may see its nonce.
    ///
    /// # Errors
    /// `Invalid` when one is in progress; `Sealed`.
    pub async fn rekey_start(&self, plan: RekeyPlan, starter: String) -> Result<(), CoreError> {
        let _turn = self.seal.turn.lock().await;
        self.unsealed()?;
        if self.stored_seal().await?.value.shared().next().is_none() {
            return Err(CoreError::invalid("there are no unseal shares; a slot opens by itself"));
        }
        let now = self.clock.monotonic();
        let mut ceremonies = self.seal.ceremonies();
        ceremonies.drop_idle(now);
        let waits = ceremonies.verification.as_ref().is_some_and(|waiting| waiting.required);
        if ceremonies.rekey.is_some() || waits {
            return Err(CoreError::invalid("rekey already in progress"));
        }
        // An optional verification is no obstacle: its slot is stored already.
        ceremonies.verification = None;
        ceremonies.rekey = Some(Rekey { set: ShareSet::begin()?, plan, starter, touched: now });
        Ok(())
    }

    /// Where the attempt stands, as told to `asker`; to `None` without nonces.
    ///
    /// # Errors
    /// `Sealed`, or when the store fails.
    pub async fn rekey_status(&self, asker: Asker<'_>) -> Result<RekeyStatus, CoreError> {
        self.unsealed()?;
        let stored = self.stored_seal().await?.value;
        let required = stored.shared().map(|slot| slot.threshold).max().unwrap_or(0);
        let mut ceremonies = self.seal.ceremonies();
        ceremonies.drop_idle(self.clock.monotonic());
        let waiting = ceremonies.verification.as_ref().filter(|waiting| waiting.required);
        Ok(match (&ceremonies.rekey, waiting) {
            (Some(rekey), _) => RekeyStatus {
                attempt: Some(rekey.plan),
                nonce: asker.told(&rekey.starter, rekey.set.nonce()),
                progress: rekey.set.len(),
                required,
                verification_nonce: String::new(),
            },
            (None, Some(waiting)) => RekeyStatus {
                attempt: Some(RekeyPlan {
                    shares: waiting.slot.shares,
                    threshold: waiting.slot.threshold,
                    verify: true,
                }),
                nonce: String::new(),
                progress: 0,
                required,
                verification_nonce: asker.told(&waiting.starter, waiting.set.nonce()),
            },
            (None, None) => RekeyStatus {
                attempt: None,
                nonce: String::new(),
                progress: 0,
                required,
                verification_nonce: String::new(),
            },
        })
    }

    /// Gives up the attempt, and a verification that has to come first. `nonce` is that of either;
    /// `None` is for administrators.
    ///
    /// # Errors
    /// `Denied` when the nonce is another one's.
    pub async fn rekey_cancel(&self, nonce: Option<&str>) -> Result<(), CoreError> {
        let _turn = self.seal.turn.lock().await;
        self.unsealed()?;
        let mut ceremonies = self.seal.ceremonies();
        let rekey = ceremonies.rekey.as_ref().map(|rekey| rekey.set.nonce());
        let waiting = ceremonies.verification.as_ref().filter(|waiting| waiting.required);
        let nonces = [rekey, waiting.map(|waiting| waiting.set.nonce())];
        if nonces.iter().any(Option::is_some) {
            check_nonce(nonce, &nonces)?;
        }
        ceremonies.rekey = None;
        ceremonies.verification.take_if(|waiting| waiting.required);
        Ok(())
    }

    /// Takes in one of the old shares.
    ///
    /// # Errors
    /// `Invalid` when it is malformed, meant for another attempt, or the set is complete and wrong.
    pub async fn rekey_update(
        &self,
        key: &str,
        nonce: &str,
        giver: &Guesser,
    ) -> Result<RekeyOutcome, CoreError> {
        let _turn = self.seal.turn.lock().await;
        self.unsealed()?;
        let stored = self.stored_seal().await?.value;
        self.seal.ceremonies().drop_idle(self.clock.monotonic());
        let slots: Vec<_> = stored.shared().cloned().collect();
        let given = Given { key, nonce: Some(nonce), giver };
        match self.gather(Purpose::Rekey, given, &slots, &stored.cluster_id).await? {
            Gathered::More => {
                let asker = Asker::Knowing;
                if let Some(rekey) = &mut self.seal.ceremonies().rekey {
                    rekey.touched = self.clock.monotonic();
                }
                self.rekey_status(asker).await.map(RekeyOutcome::More)
            }
            Gathered::Opened { root, slot } => self.issue_shares(root, slot, &stored).await,
        }
    }

    async fn issue_shares(
        &self,
        root: Arc<RootKey>,
        allowed_by: StoredSlot,
        stored: &StoredSeal,
    ) -> Result<RekeyOutcome, CoreError> {
        self.refuse_foreign_root(&root)?;
        let attempt = self.seal.ceremonies().rekey.take();
        let rekey = attempt.ok_or_else(|| nothing_in_progress(Purpose::Rekey))?;
        let maker = self.seal.slot(SlotKind::Shamir);
        let maker = maker.ok_or_else(|| CoreError::internal("no slot for shares"))?;
        let plan = SlotPlan {
            cluster_id: stored.cluster_id.clone(),
            suite: stored.suite(),
            split: (rekey.plan.shares, rekey.plan.threshold),
            proven: false,
        };
        let made = maker.create(root, plan).await?;
        let required = rekey.plan.verify;
        if !required {
            // What opened just now is proven by that.
            let proven = allowed_by.clone().into_proven();
            self.replace_shared(&allowed_by.id, vec![proven, made.stored.clone()]).await?;
        }
        let verification = Verification {
            set: ShareSet::begin()?,
            slot: made.stored,
            allowed_by: allowed_by.id,
            required,
            starter: rekey.starter,
        };
        let verification_nonce = verification.set.nonce().to_owned();
        self.seal.ceremonies().verification = Some(verification);
        let nonce = rekey.set.nonce().to_owned();
        Ok(RekeyOutcome::Done { keys: made.shares, nonce, verification_nonce, verify: required })
    }

    /// Where the verification stands, as told to `asker`.
    ///
    /// # Errors
    /// `Sealed`.
    pub fn verification_status(&self, asker: Asker<'_>) -> Result<VerificationStatus, CoreError> {
        self.unsealed()?;
        let ceremonies = self.seal.ceremonies();
        Ok(match &ceremonies.verification {
            Some(waiting) => VerificationStatus {
                split: Some((waiting.slot.shares, waiting.slot.threshold)),
                nonce: asker.told(&waiting.starter, waiting.set.nonce()),
                progress: waiting.set.len(),
            },
            None => VerificationStatus { split: None, nonce: String::new(), progress: 0 },
        })
    }

    /// Forgets the new shares given so far; the verification goes on.
    ///
    /// # Errors
    /// `Denied` when the nonce is another one's.
    pub fn verification_restart(&self, nonce: Option<&str>) -> Result<(), CoreError> {
        self.unsealed()?;
        if let Some(waiting) = &mut self.seal.ceremonies().verification {
            check_nonce(nonce, &[Some(waiting.set.nonce())])?;
            waiting.set.restart();
        }
        Ok(())
    }

    /// Takes in one of the new shares. True when they are proven: the old ones are void then.
    ///
    /// # Errors
    /// As [`Core::rekey_update`].
    pub async fn verification_update(
        &self,
        key: &str,
        nonce: &str,
        giver: &Guesser,
    ) -> Result<bool, CoreError> {
        let _turn = self.seal.turn.lock().await;
        self.unsealed()?;
        let stored = self.stored_seal().await?.value;
        let slot = {
            let ceremonies = self.seal.ceremonies();
            ceremonies.verification.as_ref().map(|waiting| waiting.slot.clone())
        };
        let slots = [slot.ok_or_else(|| nothing_in_progress(Purpose::Verify))?];
        let given = Given { key, nonce: Some(nonce), giver };
        match self.gather(Purpose::Verify, given, &slots, &stored.cluster_id).await? {
            Gathered::More => Ok(false),
            Gathered::Opened { root, slot } => {
                self.refuse_foreign_root(&root)?;
                let waiting = self.seal.ceremonies().verification.take();
                let waiting = waiting.ok_or_else(|| nothing_in_progress(Purpose::Verify))?;
                let required = if waiting.required { &waiting.allowed_by } else { &slot.id };
                let proven = slot.clone().into_proven();
                if let Err(error) = self.replace_shared(required, vec![proven]).await {
                    // Nothing is lost: the same shares can be given again.
                    self.seal.ceremonies().verification = Some(waiting);
                    return Err(error);
                }
                Ok(true)
            }
        }
    }

    /// The shares of `slot` have opened it: others that it was to take the place of are void now.
    pub(super) async fn prove(&self, slot: &StoredSlot) -> Result<(), CoreError> {
        if slot.kind != SlotKind::Shamir || slot.proven {
            return Ok(());
        }
        self.replace_shared(&slot.id, vec![slot.clone().into_proven()]).await
    }

    /// Stores `shared` in the place of all slots of shares, if `required` is still one of them.
    async fn replace_shared(
        &self,
        required: &str,
        shared: Vec<StoredSlot>,
    ) -> Result<(), CoreError> {
        let before = self.stored_seal().await?;
        if !before.value.shared().any(|slot| slot.id == required) {
            return Err(CoreError::invalid("the shares were replaced meanwhile; begin again"));
        }
        let mut after = before.value.clone();
        after.slots.retain(|slot| slot.kind != SlotKind::Shamir);
        after.slots.extend(shared);
        fail_point("rekey.before_commit");
        self.storage.commit(vec![after.change(Some(&before))?]).await?;
        fail_point("rekey.after_commit");
        Ok(())
    }

    /// The store's slots were opened, but with another root key than the one in use: the store was
    /// exchanged under us.
    pub(super) fn refuse_foreign_root(&self, root: &RootKey) -> Result<(), CoreError> {
        if self.seal.keys.is(root) {
            return Ok(());
        }
        Err(CoreError::internal("the stored seal wraps another root key than the one in use"))
    }
}

impl super::Ceremonies {
    /// Gives up what nobody has touched for long.
    pub(super) fn drop_idle(&mut self, now: Duration) {
        let idle = |touched: Duration| now.saturating_sub(touched) >= IDLE_MAX;
        self.rekey.take_if(|rekey| idle(rekey.touched));
        self.generate_root.take_if(|attempt| idle(attempt.touched));
    }
}

/// Who asks about an attempt.
#[derive(Clone, Copy, Debug)]
pub enum Asker<'a> {
    /// Somebody who is named like the starter is.
    Named(&'a str),
    /// Somebody who knows the nonce, or may do anything.
    Knowing,
}

impl Asker<'_> {
    /// The nonce, if it is theirs to know: who knows it can cancel.
    pub(super) fn told(self, starter: &str, nonce: &str) -> String {
        match self {
            Self::Knowing => nonce.to_owned(),
            Self::Named(name) if name == starter => nonce.to_owned(),
            Self::Named(_) => String::new(),
        }
    }
}

/// Whether `given` is one of `nonces`; nothing given is for administrators.
pub(super) fn check_nonce(given: Option<&str>, nonces: &[Option<&str>]) -> Result<(), CoreError> {
    match given {
        None => Ok(()),
        Some(given) if nonces.contains(&Some(given)) => Ok(()),
        Some(_) => Err(CoreError::denied("cancelling takes the nonce of the attempt, or sudo")),
    }
}
