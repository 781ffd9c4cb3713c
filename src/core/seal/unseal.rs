//! From sealed to unsealed and back.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::crypto::root::RootKey;
use crate::types::time::Ttl;

use super::super::context::{Core, Phase, Unsealed};
use super::super::error::CoreError;
use super::super::failpoint::fail_point;
use super::super::guess::Guesser;
use super::super::{time_seen, versions};
use super::gather::{Gathered, Given, Purpose};
use super::keys::{KeyHolder, StoredKeys};
use super::slot::{SlotError, StoredSlot};
use super::status::SealStatus;
use super::stored::{Present, StoredSeal};

/// How long sealing may take to note in the store where the audit stands. It seals all the same.
const LAST_NOTE_MAX: Duration = Duration::from_secs(2);
/// How long requests that nobody waits for may go on after sealing.
const UNHEARD_MAX: Duration = Duration::from_secs(2);
/// How long requests under way may go on using the keys after sealing.
const LET_GO_MAX: Duration = Duration::from_secs(30);
const LET_GO_POLL: Duration = Duration::from_millis(5);

impl Core {
    pub(super) async fn stored_seal(&self) -> Result<Present<StoredSeal>, CoreError> {
        let stored = StoredSeal::load(self.storage.as_ref()).await?;
        stored.ok_or_else(|| CoreError::invalid("the server is not initialized"))
    }

    /// Takes in one share. When enough are there, the server is unsealed when this returns.
    ///
    /// # Errors
    /// `Invalid` when the share is malformed, or a set is complete and wrong: what `giver` gave is
    /// forgotten when it was a whole one by itself. `TooMany` for who gave too many wrong ones.
    pub async fn unseal(
        self: &Arc<Self>,
        key: &str,
        giver: &Guesser,
    ) -> Result<SealStatus, CoreError> {
        let _turn = self.seal.turn.lock().await;
        if self.unsealed().is_err() {
            let stored = self.stored_seal().await?.value;
            let slots: Vec<_> = stored.shared().cloned().collect();
            let given = Given { key, nonce: None, giver };
            let gathered = self.gather(Purpose::Unseal, given, &slots, &stored.cluster_id).await?;
            if let Gathered::Opened { root, slot } = gathered {
                self.open_with(root, &slot).await?;
            }
        }
        self.seal_status().await
    }

    /// Forgets the shares that `giver` gave so far, and nobody else's.
    pub fn reset_unseal(&self, giver: &Guesser) {
        self.seal.ceremonies().unseal.forget(giver);
    }

    /// Unseals by a slot that needs nobody, when there is one. False when there is none, or the
    /// server is unsealed already.
    ///
    /// # Errors
    /// When there is one and it does not open.
    pub async fn unseal_automatically(self: &Arc<Self>) -> Result<bool, CoreError> {
        let _turn = self.seal.turn.lock().await;
        if !self.is_initialized().await? || self.unsealed().is_ok() {
            return Ok(false);
        }
        let stored = self.stored_seal().await?.value;
        let mut failure = None;
        for slot in &stored.slots {
            let Some(opener) = self.seal.slot(slot.kind).filter(|slot| slot.is_automatic()) else {
                continue;
            };
            match opener.open(slot.clone(), stored.cluster_id.clone(), Vec::new()).await {
                Ok(root) => {
                    self.open_with(root, slot).await?;
                    let detail = json!({ "slot": slot.kind.as_str(), "id": slot.id });
                    if let Err(error) = self.audit.record_event("unsealed", &detail).await {
                        tracing::error!(%error, "the audit did not take that the server is unsealed");
                    }
                    return Ok(true);
                }
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            None => Ok(false),
            // Nobody gave this key: it is the file that is another slot's.
            Some(SlotError::WrongKey) => {
                Err(CoreError::internal("the configured key opens none of the store's seal slots"))
            }
            Some(error) => Err(error.into()),
        }
    }

    async fn open_with(
        self: &Arc<Self>,
        root: Arc<RootKey>,
        slot: &StoredSlot,
    ) -> Result<(), CoreError> {
        let (keyring, generation) = KeyHolder::open(self.storage.as_ref(), &root).await?;
        let keyring = Arc::new(keyring);
        let opened = self.open_store(keyring.clone()).await;
        let unsealed = opened.inspect_err(|_| self.trust.clear_roles())?;
        fail_point("unseal.opened");
        self.seal.keys.hold(root, generation, &keyring, || {
            self.set_phase(Phase::Unsealed(unsealed));
        });
        tracing::info!(slot = slot.kind.as_str(), "unsealed");
        if let Err(error) = self.prove(slot).await {
            tracing::warn!(%error, "the older shares could not be withdrawn yet");
        }
        if let Ok(unsealed) = self.unsealed()
            && let Err(error) =
                versions::note(&unsealed, env!("CARGO_PKG_VERSION"), self.clock.now()).await
        {
            tracing::warn!(%error, "the store could not note the version of this server");
        }
        self.seal.key_work.notify_one();
        Ok(())
    }

    async fn open_store(
        &self,
        keyring: Arc<crate::crypto::keyring::Keyring>,
    ) -> Result<Arc<Unsealed>, CoreError> {
        let unsealed = Unsealed::open(self, keyring).await?;
        unsealed.records.renew_from(Arc::new(StoredKeys {
            storage: self.storage.clone(),
            holder: self.seal.keys.clone(),
        }));
        time_seen::catch_up(self, &unsealed).await?;
        // Before anything can be revoked: is this the store that was left?
        self.judge_store(&unsealed).await?;
        Ok(unsealed)
    }

    /// Seals: refuses requests from now on and forgets the root key. What is under way may finish
    /// ([`Sealing::finished`]). `None` when the server was not unsealed.
    pub async fn begin_seal(self: &Arc<Self>) -> Option<Sealing> {
        if let Ok(unsealed) = self.unsealed() {
            let note = async {
                time_seen::note(&unsealed, self.clock.now(), Ttl::ZERO).await?;
                self.note_audit_heads(&unsealed).await?;
                self.save_counts(&unsealed, 1).await
            };
            match tokio::time::timeout(LAST_NOTE_MAX, note).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "sealing without a last note in the store")
                }
                Err(_) => tracing::warn!("sealing without a last note: the store does not answer"),
            }
        }
        fail_point("seal.noted");
        let before = self.seal.keys.forget(|| match &*self.phase() {
            Phase::Unsealed(unsealed) => {
                // Before anybody can unseal it again.
                unsealed.records.is_over(self.late_changes.clone());
                Some(self.set_phase(Phase::Sealed))
            }
            Phase::Sealed | Phase::Uninitialized => None,
        })?;
        let Phase::Unsealed(unsealed) = &*before else { return None };
        let unsealed = unsealed.clone();
        drop(before);
        self.seal.ceremonies().forget_attempts();
        self.trust.clear_roles();
        unsealed.callers.forget();
        unsealed.records.forget();
        tracing::info!("sealed");
        Some(Sealing { core: self.clone(), unsealed })
    }

    /// Seals, and waits until the keys are gone. False when something still held on to them.
    pub async fn seal(self: &Arc<Self>) -> bool {
        match self.begin_seal().await {
            Some(sealing) => sealing.finished().await,
            None => true,
        }
    }
}

/// A server that was sealed a moment ago, while requests that were under way end.
#[must_use = "the keys stay in memory until this has finished"]
pub struct Sealing {
    core: Arc<Core>,
    unsealed: Arc<Unsealed>,
}

impl Sealing {
    /// Waits, for a bounded time, until nobody uses the keys any more; then they are wiped. False
    /// when somebody still did.
    pub async fn finished(self) -> bool {
        let Self { core, unsealed } = self;
        let let_go = || Arc::strong_count(&unsealed) == 1;
        if !wait_until(UNHEARD_MAX, let_go).await {
            core.outliving.cut();
            wait_until(LET_GO_MAX, let_go).await;
        }
        let records = Arc::downgrade(&unsealed.records);
        unsealed.mounts.unload();
        unsealed.records.forget();
        // A role that was loaded while the last requests ended must not stay.
        core.trust.clear_roles();
        drop(unsealed);
        let gone = wait_until(LET_GO_MAX, || records.strong_count() == 0).await;
        if gone {
            tracing::info!("all keys are wiped");
        } else {
            tracing::error!("something still holds on to the keys after sealing");
            metrics::counter!("leasehold_seal_incomplete_total").increment(1);
        }
        gone
    }
}

async fn wait_until(longest: Duration, done: impl Fn() -> bool) -> bool {
    let mut waited = Duration::ZERO;
    while !done() {
        if waited >= longest {
            return false;
        }
        tokio::time::sleep(LET_GO_POLL).await;
        waited += LET_GO_POLL;
    }
    true
}
