//! The seal: how the root key is guarded, put together and forgotten.
//!
//! ```text
//! shares, key file ─ open ─▶ slot ─ unwraps ─▶ root key ─ opens ─▶ keyring ─▶ Unsealed
//! ```
//!
//! Several slots wrap the same root key. Their description lies in clear in the store ([`stored`]);
//! the shares that are being gathered, for whatever purpose, only in this process's memory
//! ([`shares`]). A change of slots or of the keyring is one commit that expects what it replaces.

mod ceremony_api;
pub mod endpoints;
#[cfg(feature = "failpoints")]
pub mod fuzzed;
mod gather;
mod generate_root;
mod init;
mod key_file;
mod key_thread;
mod keys;
mod lanes;
mod rekey;
mod rotate;
mod routes;
mod shares;
mod slot;
mod status;
mod stored;
mod unseal;
mod witness;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use self::generate_root::GenerateRoot;
use self::keys::KeyHolder;
use self::lanes::Lanes;
use self::rekey::{Rekey, Verification};
use self::witness::Unsettled;

pub use self::generate_root::{GenerateRootOutcome, GenerateRootStatus};
pub use self::init::{InitPlan, InitResult};
pub use self::key_file::{KeyFile, KeyFileError};
pub use self::key_thread::{scrub_runtime_stacks, scrub_work_stack};
pub use self::rekey::{Asker, RekeyOutcome, RekeyPlan, RekeyStatus, VerificationStatus};
pub use self::rotate::{KeyStatus, RotationSettings, tend_keys};
pub use self::routes::SealRoutes;
pub use self::slot::{NewSlot, SealSlot, ShamirSlot, SlotError, SlotKind, SlotPlan};
pub use self::slot::{StaticFileSlot, StoredSlot};
pub use self::status::{SealStatus, is_initialized};
pub use self::unseal::Sealing;

/// The seal of one process: its ways to the root key, and what is being gathered to use them.
pub struct SealState {
    slots: Vec<Arc<dyn SealSlot>>,
    node_name: String,
    /// One ceremony step at a time: what it decides, it stores before the next one looks.
    turn: tokio::sync::Mutex<()>,
    ceremonies: Mutex<Ceremonies>,
    keys: Arc<KeyHolder>,
    key_work: Notify,
}

/// Everything that is being gathered.
#[derive(Default)]
struct Ceremonies {
    generate_root: Option<GenerateRoot>,
    rekey: Option<Rekey>,
    unseal: Lanes,
    unsettled: Unsettled,
    verification: Option<Verification>,
}

impl Ceremonies {
    /// Forgets everything.
    fn forget_attempts(&mut self) {
        *self = Self::default();
    }
}

impl SealState {
    /// A seal with shares, and with `further` slots where the configuration has them. `node_name`
    /// tells this node's audit from those of others that share the store, and stays the same when it
    /// is started again.
    pub fn new(further: Vec<Arc<dyn SealSlot>>, node_name: &str) -> Self {
        let mut slots: Vec<Arc<dyn SealSlot>> = vec![Arc::new(ShamirSlot)];
        slots.extend(further);
        Self {
            slots,
            node_name: node_name.replace('/', "_"),
            turn: tokio::sync::Mutex::new(()),
            ceremonies: Mutex::default(),
            keys: Arc::default(),
            key_work: Notify::new(),
        }
    }

    fn slot(&self, kind: SlotKind) -> Option<&Arc<dyn SealSlot>> {
        self.slots.iter().find(|slot| slot.kind() == kind)
    }

    fn ceremonies(&self) -> MutexGuard<'_, Ceremonies> {
        self.ceremonies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
