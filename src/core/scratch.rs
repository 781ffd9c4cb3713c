//! A store, and a mount in it, for unit tests of what lies above: real SQLite in a directory that goes
//! with the test.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::crypto::aead::Suite;
use crate::crypto::keyring::Keyring;
use crate::storage::Storage;
use crate::storage::sqlite::{SqliteOptions, SqliteStorage};
use crate::types::id::{MountAccessor, NamespaceId};
use crate::types::path::ApiPath;
use crate::types::time::{Clock, ManualClock, Timestamp, Ttl};

use super::acl::permit::Permit;
use super::acl::{Acl, CheckRequest, CompiledPolicy};
use super::engine::{EngineContext, MountFacts};
use super::hold::HoldCell;
use super::operation::Operation;
use super::policy::template::TemplateValues;
use super::records::{Records, kinds};
use super::view::View;

/// The moment at which tests start their clocks.
pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// A store and the directory it is in.
pub(crate) struct Scratch {
    pub(crate) records: Arc<Records>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) keyring: Arc<Keyring>,
    _dir: tempfile::TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.sqlite");
        let storage: Arc<dyn Storage> =
            SqliteStorage::open(&path, SqliteOptions::default()).unwrap();
        let keyring = Arc::new(Keyring::generate(Suite::Aes256Gcm, NOW).unwrap());
        let records = Arc::new(Records::new(storage.clone(), keyring.clone(), 1 << 20));
        Self { records, storage, keyring, _dir: dir }
    }

    /// The same store as another process would open it, `wrap` put around it.
    pub(crate) fn reopened(&self, storage: Arc<dyn Storage>) -> Arc<Records> {
        Arc::new(Records::new(storage, self.keyring.clone(), 1 << 20))
    }
}

/// A mount as its engine or method sees it, with a clock that stands still.
pub(crate) struct ScratchMount {
    pub(crate) facts: MountFacts,
    pub(crate) view: View,
    pub(crate) manual: Arc<ManualClock>,
    clock: Arc<dyn Clock>,
    hold: HoldCell,
}

impl ScratchMount {
    /// A mount in `scratch` at this path, which ends with a slash; below `auth/` it is a method's.
    pub(crate) fn new(scratch: &Scratch, path: &str) -> Self {
        let kind = if path.starts_with("auth/") { kinds::AUTH_DATA } else { kinds::MOUNT_DATA };
        let manual = Arc::new(ManualClock::new(NOW));
        let records = scratch.reopened(scratch.storage.clone());
        Self {
            facts: MountFacts {
                path: path.to_owned(),
                accessor: MountAccessor::new(path.replace('/', "_")),
                options: BTreeMap::new(),
                default_ttl: Ttl::from_secs(3600),
                max_ttl: Ttl::from_secs(86_400),
            },
            view: View::new(records, NamespaceId::ROOT, kind, "m/".into()),
            clock: manual.clone(),
            manual,
            hold: HoldCell::default(),
        }
    }

    pub(crate) fn ctx(&self) -> EngineContext<'_> {
        EngineContext { mount: &self.facts, view: &self.view, clock: &self.clock, hold: &self.hold }
    }

    /// The permit of somebody who may do anything, for one operation at a path below the mount.
    pub(crate) fn permit(&self, operation: Operation, path: &str) -> Permit {
        let full = ApiPath::parse(&format!("{}{path}", self.facts.path)).unwrap();
        let acl = Acl::new(vec![CompiledPolicy::root()], &TemplateValues::default());
        acl.authorize(&CheckRequest::new(&full, operation)).unwrap()
    }
}
