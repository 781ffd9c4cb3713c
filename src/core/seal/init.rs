//! Initialising: the first keys, slots, mounts and token, in one commit.
//!
//! Whoever asks gets the shares and the root token once. If that answer is lost, so are they: the
//! store then holds nothing yet, and is to be emptied and initialised again.

use std::sync::Arc;

use crate::crypto::aead::Suite;
use crate::crypto::keyring::Keyring;
use crate::crypto::root::RootKey;
use crate::storage::StorageError;
use crate::types::id::random_uuid;
use crate::types::secret::{SecretBytes, SecretString};

use super::super::context::{Core, Phase};
use super::super::error::CoreError;
use super::super::failpoint::fail_point;
use super::super::mount::MountTable;
use super::super::outliving::nobody_waits;
use super::super::records::{Batch, Records};
use super::super::token::TokenStore;
use super::slot::{SlotKind, SlotPlan, StoredSlot};
use super::stored::{StoredKeyring, StoredSeal};

/// Enough for the few records that there are.
const CACHE_BYTES: u64 = 1 << 20;

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub struct InitPlan {
    /// The cipher of everything until the keyring is rotated to another.
    pub suite: Suite,
    /// How many shares; zero where a slot opens by itself.
    pub shares: u8,
    /// How many of them open.
    pub threshold: u8,
}

/// What exists in clear only once.
pub struct InitResult {
    /// The shares.
    pub keys: Vec<SecretBytes>,
    /// A token that may do everything.
    pub root_token: SecretString,
}

impl Core {
    /// Initialises the store. Of several calls at once, one wins.
    ///
    /// # Errors
    /// `Invalid` when it is initialised already, or the shares cannot be made like that.
    pub async fn initialize(&self, plan: InitPlan) -> Result<InitResult, CoreError> {
        let _turn = self.seal.turn.lock().await;
        if self.is_initialized().await? {
            return Err(already());
        }
        let root = Arc::new(RootKey::random()?);
        let now = self.clock.now();
        let keyring = Arc::new(Keyring::generate(plan.suite, now)?);
        let cluster_id = random_uuid()?;
        let (slots, keys) = self.first_slots(&root, &cluster_id, plan).await?;
        let seal = StoredSeal::new(plan.suite, cluster_id, now, slots);

        let records = Arc::new(Records::new(self.storage.clone(), keyring.clone(), CACHE_BYTES));
        let mut batch = Batch::new();
        MountTable::stage_defaults(&records, &mut batch)?;
        let token = TokenStore::new(records.clone(), self.clock.clone()).stage_root(&mut batch)?;
        batch.also(seal.change(None)?);
        batch.also(StoredKeyring::seal(&keyring, &root, 1)?.change(None)?);
        // Whoever is to get the shares must be there: nobody else could ever unseal the store.
        if nobody_waits() {
            return Err(CoreError::TookTooLong);
        }
        fail_point("init.before_commit");
        match records.commit(&batch).await {
            Ok(_) => {}
            Err(CoreError::Storage(StorageError::Conflict)) => return Err(already()),
            Err(error) => return Err(error),
        }
        fail_point("init.after_commit");
        self.seal.keys.forget(|| self.set_phase(Phase::Sealed));
        Ok(InitResult { keys, root_token: token.plain })
    }

    async fn first_slots(
        &self,
        root: &Arc<RootKey>,
        cluster_id: &str,
        plan: InitPlan,
    ) -> Result<(Vec<StoredSlot>, Vec<SecretBytes>), CoreError> {
        let automatic = self.seal.slots.iter().any(|slot| slot.is_automatic());
        let shared = (plan.shares, plan.threshold) != (0, 0);
        if !shared && !automatic {
            return Err(CoreError::field("secret_shares", "must be at least 1"));
        }
        let (mut slots, mut keys) = (Vec::new(), Vec::new());
        for slot in &self.seal.slots {
            if slot.kind() == SlotKind::Shamir && !shared {
                continue;
            }
            let made = slot
                .create(
                    root.clone(),
                    SlotPlan {
                        cluster_id: cluster_id.to_owned(),
                        suite: plan.suite,
                        split: (plan.shares, plan.threshold),
                        proven: true,
                    },
                )
                .await?;
            slots.push(made.stored);
            keys.extend(made.shares);
        }
        Ok((slots, keys))
    }
}

fn already() -> CoreError {
    CoreError::invalid("the server is already initialized")
}
