//! An unsealed core without HTTP: a real store, a clock that tests move, engines that tests bring.

use std::net::SocketAddr;
use std::sync::Arc;

use leasehold::core::audit::AuditSink;
use leasehold::core::audit::broker::AuditBroker;
use leasehold::core::clock_guard::GuardedClock;
use leasehold::core::context::{Core, CoreSettings, Parts, Unsealed};
use leasehold::core::guess::Guesser;
use leasehold::core::lease::{LeaseSettings, Leases};
use leasehold::core::mount::{MountClass, MountConfig, Mounted, NewMount, Registry};
use leasehold::core::peer::ConnectionInfo;
use leasehold::core::records::kinds;
use leasehold::core::seal::{InitPlan, SealState};
use leasehold::core::trust::TrustStore;
use leasehold::crypto::aead::Suite;
use leasehold::storage::Storage;
use leasehold::storage::sqlite::{SqliteOptions, SqliteStorage};
use leasehold::types::time::{Clock, ManualClock, Timestamp, Ttl};

/// When tests begin.
pub const START: Timestamp = Timestamp::from_secs(1_800_000_000);

/// Who gives shares in tests.
pub fn here() -> Guesser {
    Guesser::on(&ConnectionInfo {
        peer: None,
        remote: SocketAddr::from(([127, 0, 0, 1], 4)),
        listener: "test".into(),
        id: 1,
    })
}

/// What a [`TestCore`] is made of. Take [`TestSetup::new`] and change what matters.
pub struct TestSetup {
    /// What can be mounted.
    pub registry: Registry,
    /// Limits and pace of leases.
    pub leases: LeaseSettings,
    /// Longest lifetime of everything.
    pub max_ttl: Ttl,
    /// How far the wall clock may run ahead.
    pub clock_jump_max: Ttl,
    /// Whether the clock counts although the store has seen a later time.
    pub trust_clock: bool,
    /// This process, among all that share the store.
    pub node: u64,
    /// The time.
    pub clock: Arc<ManualClock>,
    /// Whose certificates are accepted; auth methods of the registry share it.
    pub trust: Arc<TrustStore>,
    /// Where the audit goes; nothing is audited without.
    pub sinks: Vec<Arc<dyn AuditSink>>,
}

impl TestSetup {
    /// Nothing to mount, no caps, a day at most, at [`START`].
    pub fn new() -> Self {
        Self {
            registry: Registry::default(),
            leases: LeaseSettings {
                per_owner_max: 0,
                rate_per_sec: 1_000_000,
                ..LeaseSettings::default()
            },
            max_ttl: Ttl::from_secs(86_400),
            clock_jump_max: Ttl::from_secs(300),
            trust_clock: false,
            node: 1,
            clock: Arc::new(ManualClock::new(START)),
            trust: Arc::new(TrustStore::new()),
            sinks: Vec::new(),
        }
    }

    /// A sealed core over `storage`, and its clock: a guard over the one that tests move.
    pub async fn core(self, storage: Arc<dyn Storage>) -> (Arc<Core>, Arc<GuardedClock>) {
        let guard = Arc::new(GuardedClock::new(self.clock, self.clock_jump_max));
        let clock: Arc<dyn Clock> = guard.clone();
        let initialized = leasehold::core::seal::is_initialized(storage.as_ref()).await.unwrap();
        let audit = match self.sinks.is_empty() {
            true => AuditBroker::unaudited(clock.clone()),
            false => AuditBroker::new(self.sinks, <_>::default(), clock.clone()).unwrap(),
        };
        let parts = Parts {
            storage,
            clock,
            registry: self.registry,
            audit,
            trust: self.trust,
            seal: SealState::new(Vec::new(), &format!("node-{}", self.node)),
            settings: CoreSettings {
                cluster_name: "test".into(),
                default_ttl: Ttl::from_secs(3600),
                max_ttl: self.max_ttl,
                leases: self.leases,
                cache_bytes: 1 << 20,
                clock_jump_max: self.clock_jump_max,
                trust_clock: self.trust_clock,
            },
            node: self.node,
        };
        (Core::new(parts, initialized), guard)
    }
}

/// A core that was initialised and unsealed, on SQLite in a directory that goes with it.
pub struct TestCore {
    /// The core.
    pub core: Arc<Core>,
    /// What it holds.
    pub unsealed: Arc<Unsealed>,
    /// Its clock.
    pub guard: Arc<GuardedClock>,
    /// The clock below that, for tests to move.
    pub clock: Arc<ManualClock>,
    /// The one share that unseals.
    pub share: String,
    /// The first token, where it was initialised here; empty where it was joined.
    pub root_token: String,
    _directory: Option<tempfile::TempDir>,
}

impl TestCore {
    /// On a store of its own.
    pub async fn start(setup: TestSetup) -> Self {
        let (directory, storage) = sqlite();
        let mut started = Self::start_on(storage, setup).await;
        started._directory = Some(directory);
        started
    }

    /// Initialises `storage` and unseals it.
    pub async fn start_on(storage: Arc<dyn Storage>, setup: TestSetup) -> Self {
        let clock = setup.clock.clone();
        let (core, guard) = setup.core(storage).await;
        let plan = InitPlan { suite: Suite::ChaCha20Poly1305, shares: 1, threshold: 1 };
        let made = core.initialize(plan).await.unwrap();
        let share = data_encoding::HEXLOWER.encode(made.keys[0].expose());
        let mut opened = Self::open(core, guard, clock, share).await;
        opened.root_token = made.root_token.expose().to_owned();
        opened
    }

    /// Another process on a store that was initialised before.
    pub async fn join(storage: Arc<dyn Storage>, setup: TestSetup, share: &str) -> Self {
        let clock = setup.clock.clone();
        let (core, guard) = setup.core(storage).await;
        Self::open(core, guard, clock, share.to_owned()).await
    }

    async fn open(
        core: Arc<Core>,
        guard: Arc<GuardedClock>,
        clock: Arc<ManualClock>,
        share: String,
    ) -> Self {
        core.unseal(&share, &here()).await.unwrap();
        let unsealed = core.unsealed().unwrap();
        let root_token = String::new();
        Self { core, unsealed, guard, clock, share, root_token, _directory: None }
    }

    /// Its leases.
    pub fn leases(&self) -> &Arc<Leases> {
        &self.unsealed.leases
    }

    /// Mounts a secrets engine of the registry.
    pub async fn mount(&self, kind: &str, path: &str) -> Arc<Mounted> {
        self.mount_as(MountClass::Secret, kind, path).await;
        self.unsealed.mounts.at(path).unwrap()
    }

    /// Mounts an auth method of the registry, below `auth/`.
    pub async fn mount_method(&self, kind: &str, path: &str) -> Arc<Mounted> {
        self.mount_as(MountClass::Auth, kind, path).await;
        self.unsealed.mounts.at(&format!("auth/{path}")).unwrap()
    }

    async fn mount_as(&self, class: MountClass, kind: &str, path: &str) {
        self.unsealed
            .mounts
            .enable(NewMount {
                path: path.into(),
                class,
                kind: kind.into(),
                description: String::new(),
                options: Default::default(),
                config: MountConfig::default(),
            })
            .await
            .unwrap();
    }
}

/// An empty store in a directory of its own.
pub fn sqlite() -> (tempfile::TempDir, Arc<dyn Storage>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leasehold.db");
    let options = SqliteOptions { often_absent: Some(kinds::ALIAS), ..SqliteOptions::default() };
    let storage = SqliteStorage::open(&path, options).unwrap();
    (directory, storage)
}
