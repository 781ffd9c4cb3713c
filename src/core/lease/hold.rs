//! Setting and releasing the hold. It is stored, so that a restart does not lift it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::types::id::NamespaceId;

use super::super::error::CoreError;
use super::super::hold::{Hold, Unheld};
use super::super::records::{Precondition, kinds};
use super::super::view::View;
use super::Leases;

const NAME: &str = "hold";

impl Leases {
    fn core_view(&self) -> View {
        View::new(self.records.clone(), NamespaceId::ROOT, kinds::CORE, String::new())
    }

    /// Takes over the stored hold, if there is one. After unseal, and when another node changed it. A
    /// hold that could not be stored stays in force, and is stored now.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn load_hold(&self) -> Result<(), CoreError> {
        let mut unstored = self.hold_unstored.lock().await;
        if self.store_hold(&mut unstored).await? {
            return Ok(());
        }
        let stored = self.core_view().get_fresh::<Hold>(NAME).await?;
        self.put_hold(stored.map(|entry| Arc::new(entry.value)));
        Ok(())
    }

    /// Stores the hold in force if that failed before. Whether it did.
    async fn store_hold(&self, unstored: &mut bool) -> Result<bool, CoreError> {
        let Some(hold) = self.hold().filter(|_| *unstored) else { return Ok(false) };
        self.core_view().write(NAME, &*hold, Precondition::Any).await?;
        *unstored = false;
        Ok(true)
    }

    /// The hold in force.
    pub fn hold(&self) -> Option<Arc<Hold>> {
        self.hold.present()
    }

    /// Told of each change of the hold.
    pub fn hold_changes(&self) -> watch::Receiver<Option<Arc<Hold>>> {
        self.hold.changes()
    }

    /// Holds all revocations and rotations back. One that is in force already keeps its reason.
    ///
    /// # Errors
    /// When the hold could not be stored; it is in force in this process all the same. Call again.
    pub async fn set_hold(&self, reason: String) -> Result<(), CoreError> {
        self.set_hold_if(|| Some(Hold { reason, since: self.clock.now(), of_clock: false })).await
    }

    /// Holds them back because the clock jumped ahead, where `reason` says that it did. It is asked
    /// while no hold is set or released.
    ///
    /// # Errors
    /// As those of [`Leases::set_hold`].
    pub async fn set_hold_for_clock(
        &self,
        reason: impl FnOnce() -> Option<String>,
    ) -> Result<(), CoreError> {
        let hold = |reason| Hold { reason, since: self.clock.now(), of_clock: true };
        self.set_hold_if(|| reason().map(hold)).await
    }

    async fn set_hold_if(&self, hold: impl FnOnce() -> Option<Hold>) -> Result<(), CoreError> {
        let mut unstored = self.hold_unstored.lock().await;
        let Some(hold) = hold() else { return Ok(()) };
        let of_clock = hold.of_clock;
        if self.hold().is_none() {
            self.put_hold(Some(Arc::new(hold)));
            *unstored = true;
        }
        // Where a hold for another reason is in force, this one is set when that is released.
        if of_clock && self.hold().is_some_and(|hold| hold.of_clock) {
            self.clock.jump_is_told();
        }
        self.store_hold(&mut unstored).await.map(|_| ())
    }

    /// Lets revocations and rotations go on.
    ///
    /// # Errors
    /// When the store fails; the hold then stays.
    pub async fn release_hold(&self) -> Result<(), CoreError> {
        let mut unstored = self.hold_unstored.lock().await;
        self.core_view().remove(NAME).await?;
        *unstored = false;
        self.put_hold(None);
        Ok(())
    }

    /// Proof that no hold is in force.
    ///
    /// # Errors
    /// `Held` while one is.
    pub fn unheld(&self) -> Result<Unheld, CoreError> {
        self.hold.unheld()
    }

    fn put_hold(&self, hold: Option<Arc<Hold>>) {
        let released = hold.is_none();
        if released && self.hold().is_some_and(|hold| hold.of_clock) {
            // Before anything ends by it, and before anything is leased in the time that was.
            self.clock.accept_jump();
        }
        if self.hold.put(hold) && released {
            self.wake_sweep();
        }
    }
}
