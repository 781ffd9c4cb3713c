//! The root key while unsealed, and every change of the stored keyring.
//!
//! A keyring is stored before it is used, in one commit that expects the one it was made from: of two
//! nodes that change it at once, one starts again.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::crypto::keyring::{Keyring, TermInfo};
use crate::crypto::root::RootKey;
use crate::storage::{Change, Storage, StorageError};

use super::super::error::CoreError;
use super::super::failpoint::fail_point;
use super::super::records::{KeyringSource, Records};
use super::stored::{Present, StoredKeyring};

/// How often a change of the keyring is tried anew when another node changed it meanwhile.
const ATTEMPTS: usize = 8;

struct Held {
    root: Arc<RootKey>,
    /// Of the keyring that this process uses.
    generation: u64,
    /// What of the active term's encryptions is in the stored keyring already.
    counted: TermCount,
}

#[derive(Clone, Copy)]
struct TermCount {
    term: u32,
    encryptions: u64,
}

impl TermCount {
    fn of(keyring: &Keyring) -> Self {
        let active = keyring.terms().into_iter().find(|term| term.active);
        let encryptions = active.map_or(0, |term: TermInfo| term.encryptions);
        Self { term: keyring.active_term(), encryptions }
    }
}

/// The root key, or nothing.
#[derive(Default)]
pub(super) struct KeyHolder {
    held: Mutex<Option<Held>>,
    changing: tokio::sync::Mutex<()>,
}

impl KeyHolder {
    /// Opens the stored keyring with `root`.
    pub(super) async fn open(
        storage: &dyn Storage,
        root: &RootKey,
    ) -> Result<(Keyring, u64), CoreError> {
        let stored = StoredKeyring::load(storage).await?.value;
        Ok((stored.open(root)?, stored.generation))
    }

    /// Keeps `root` from now on, and does `then` before anybody can take it away again.
    pub(super) fn hold(
        &self,
        root: Arc<RootKey>,
        generation: u64,
        keyring: &Keyring,
        then: impl FnOnce(),
    ) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held = Some(Held { root, generation, counted: TermCount::of(keyring) });
        then();
    }

    /// Forgets the root key, and does `then` before anybody can bring it back.
    pub(super) fn forget<T>(&self, then: impl FnOnce() -> T) -> T {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held = None;
        then()
    }

    /// Does `what` while nobody can bring or take the root key.
    pub(super) fn while_locked(&self, what: impl FnOnce()) {
        let _held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        what();
    }

    fn held(&self) -> Result<(Arc<RootKey>, u64, TermCount), CoreError> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let held = held.as_ref().ok_or(CoreError::Sealed)?;
        Ok((held.root.clone(), held.generation, held.counted))
    }

    /// The keyring in `records` is now this one.
    fn adopt(&self, records: &Records, keyring: Keyring, generation: u64) -> Arc<Keyring> {
        let keyring = Arc::new(keyring);
        if let Some(held) = self.held.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            held.generation = generation;
            held.counted = TermCount::of(&keyring);
        }
        records.set_keyring(keyring.clone());
        keyring
    }

    /// Whether `root` is the one held.
    pub(super) fn is(&self, root: &RootKey) -> bool {
        self.held().is_ok_and(|(held, _, _)| held.same_as(root))
    }

    /// How many encryptions of the active term a crash would forget.
    pub(super) fn uncounted(&self, records: &Records) -> u64 {
        let present = TermCount::of(&records.keyring());
        self.held().map_or(0, |(_, _, counted)| since(present, counted))
    }

    /// Puts the stored keyring in force when it is newer than the one in use.
    pub(super) async fn renew(
        &self,
        storage: &dyn Storage,
        records: &Records,
    ) -> Result<(), CoreError> {
        let _changing = self.changing.lock().await;
        let (root, generation, counted) = self.held()?;
        let stored = StoredKeyring::load(storage).await?.value;
        if stored.generation < generation {
            tracing::error!(
                stored = stored.generation,
                in_use = generation,
                "the store holds an older keyring than the one in use: was it put back?"
            );
        }
        if stored.generation > generation {
            let present = TermCount::of(&records.keyring());
            let keyring = stored.open(&root)?;
            keyring.count_further(present.term, since(present, counted));
            self.adopt(records, keyring, stored.generation);
        }
        Ok(())
    }

    /// Stores what `edit` makes of the keyring, together with `further`, and puts it in force. `None`
    /// from `edit` leaves everything as it is.
    ///
    /// # Errors
    /// `Storage(Conflict)` when a change of `further` is refused; otherwise as the store, and `edit`.
    pub(super) async fn change(
        &self,
        storage: &dyn Storage,
        records: &Records,
        further: &[Change],
        edit: impl Fn(&Keyring) -> Result<Option<Keyring>, CoreError> + Send + Sync,
    ) -> Result<Option<Arc<Keyring>>, CoreError> {
        let _changing = self.changing.lock().await;
        for _ in 0..ATTEMPTS {
            let (root, generation, counted) = self.held()?;
            let present = StoredKeyring::load(storage).await?;
            let in_use = records.keyring();
            // The one in use shares its counters with what is made of it; a newer one has to be told.
            let newer = if present.value.generation == generation {
                None
            } else {
                let keyring = present.value.open(&root)?;
                let uncounted = since(TermCount::of(&in_use), counted);
                keyring.count_further(in_use.active_term(), uncounted);
                Some(keyring)
            };
            let Some(edited) = edit(newer.as_ref().unwrap_or(&in_use))? else { return Ok(None) };
            match store(storage, &root, &present, &edited, further).await {
                Ok(generation) => return Ok(Some(self.adopt(records, edited, generation))),
                Err(CoreError::Storage(StorageError::Conflict))
                    if changed_meanwhile(storage, &present).await? => {}
                Err(error) => return Err(error),
            }
        }
        Err(StorageError::Busy.into())
    }
}

async fn store(
    storage: &dyn Storage,
    root: &RootKey,
    present: &Present<StoredKeyring>,
    keyring: &Keyring,
    further: &[Change],
) -> Result<u64, CoreError> {
    let generation = present.value.generation.saturating_add(1);
    let stored = StoredKeyring::seal(keyring, root, generation)?;
    let mut changes = further.to_vec();
    changes.push(stored.change(Some(present))?);
    fail_point("keyring.before_commit");
    storage.commit(changes).await?;
    fail_point("keyring.after_commit");
    Ok(generation)
}

async fn changed_meanwhile(
    storage: &dyn Storage,
    present: &Present<StoredKeyring>,
) -> Result<bool, CoreError> {
    Ok(StoredKeyring::load(storage).await?.value.generation != present.value.generation)
}

/// Encryptions under the same term since `before`.
fn since(now: TermCount, before: TermCount) -> u64 {
    if now.term == before.term { now.encryptions.saturating_sub(before.encryptions) } else { 0 }
}

/// Where the records of an unsealed server get a newer keyring from.
pub(super) struct StoredKeys {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) holder: Arc<KeyHolder>,
}

#[async_trait]
impl KeyringSource for StoredKeys {
    async fn renew(&self, records: &Records) -> Result<(), CoreError> {
        self.holder.renew(self.storage.as_ref(), records).await
    }
}
