//! The core and what an unsealed one holds. Built by the server, driven by the API and the scheduler.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio::sync::{broadcast, watch};

use crate::crypto::keyring::Keyring;
use crate::storage::{Invalidation, Storage};
use crate::types::id::RequestId;
use crate::types::secret::SecretString;
use crate::types::time::{Clock, Timestamp, Ttl};

use super::acl::permit::Permit;
use super::audit::broker::AuditBroker;
use super::caller::Caller;
use super::cors::Cors;
use super::engine::EngineRequest;
use super::error::CoreError;
use super::guess::{self, Guesses};
use super::hold::HoldCell;
use super::identity::IdentityStore;
use super::in_flight::InFlight;
use super::lease::{LeaseSettings, Leases, Surroundings};
use super::lockout::Lockouts;
use super::mfa::Mfa;
use super::mount::{MountTable, Registry};
use super::outliving::Outliving;
use super::passwords::PasswordPolicies;
use super::peer::ConnectionInfo;
use super::policies::PolicyStore;
use super::process::ServerProcess;
use super::quota::Quotas;
use super::records::Records;
use super::reply::Reply;
use super::route::{Params, RouteSpec};
use super::seal::SealState;
use super::token::TokenStore;
use super::trust::TrustStore;
use super::ui_headers::UiHeaders;

/// What the configuration says to the core.
#[derive(Clone, Debug)]
pub struct CoreSettings {
    /// Shown by status answers.
    pub cluster_name: String,
    /// Lifetime of leases and tokens that ask for none.
    pub default_ttl: Ttl,
    /// Longest lifetime of leases and tokens.
    pub max_ttl: Ttl,
    /// Limits and pace of leases.
    pub leases: LeaseSettings,
    /// Most bytes of decrypted records kept in memory.
    pub cache_bytes: u64,
    /// How far the wall clock may run ahead of the monotonic one before revocations are held.
    pub clock_jump_max: Ttl,
    /// Whether the machine's clock counts although the store has seen a later time: an operator says
    /// that it was wrong then.
    pub trust_clock: bool,
}

/// What the core is made of, brought by the server.
pub struct Parts {
    /// The store.
    pub storage: Arc<dyn Storage>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What can be mounted.
    pub registry: Registry,
    /// The audit.
    pub audit: AuditBroker,
    /// Whose certificates are accepted.
    pub trust: Arc<TrustStore>,
    /// How the root key is guarded.
    pub seal: SealState,
    /// What the configuration says.
    pub settings: CoreSettings,
    /// This process, among all that share the store.
    pub node: u64,
}

/// Whether the store can be read.
pub enum Phase {
    /// Nothing was ever stored.
    Uninitialized,
    /// The keys are not here.
    Sealed,
    /// The keys are here.
    Unsealed(Arc<Unsealed>),
}

/// Late changes that are told one by one; of more, that there were some.
const LATE_CHANGES_MAX: usize = 64;

/// The broker.
pub struct Core {
    /// The store.
    pub storage: Arc<dyn Storage>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The audit.
    pub audit: AuditBroker,
    /// Whose certificates are accepted.
    pub trust: Arc<TrustStore>,
    /// How the root key is guarded.
    pub seal: SealState,
    /// What the configuration says.
    pub settings: CoreSettings,
    /// This process, among all that share the store.
    pub node: u64,
    /// Who gave shares that are none.
    pub share_guesses: Guesses,
    /// The requests that are being served.
    pub in_flight: InFlight,
    /// When this process took up its work.
    pub started_at: Timestamp,
    /// Those that nobody waits for any more.
    pub outliving: Outliving,
    /// What was committed on behalf of an unsealed time that was over by then: to the next one, as if
    /// another node had done it.
    pub late_changes: broadcast::Sender<Invalidation>,
    registry: Arc<Registry>,
    phase: ArcSwap<Phase>,
    phase_changes: watch::Sender<u64>,
    system: OnceLock<Vec<Box<dyn SystemRoutes>>>,
    process: OnceLock<Box<dyn ServerProcess>>,
}

impl Core {
    /// A core that is sealed, or not initialised when the store says so.
    pub fn new(parts: Parts, initialized: bool) -> Arc<Self> {
        let phase = if initialized { Phase::Sealed } else { Phase::Uninitialized };
        Arc::new(Self {
            started_at: parts.clock.now(),
            share_guesses: Guesses::new(&guess::SHARES, parts.clock.clone()),
            storage: parts.storage,
            clock: parts.clock,
            audit: parts.audit,
            trust: parts.trust,
            seal: parts.seal,
            settings: parts.settings,
            node: parts.node,
            in_flight: InFlight::default(),
            outliving: Outliving::default(),
            late_changes: broadcast::Sender::new(LATE_CHANGES_MAX),
            registry: Arc::new(parts.registry),
            phase: ArcSwap::from_pointee(phase),
            phase_changes: watch::Sender::new(0),
            system: OnceLock::new(),
            process: OnceLock::new(),
        })
    }

    /// Names the tables that serve `sys/`, `auth/token/` and the like. Once, before the first request.
    pub fn install(&self, system: Vec<Box<dyn SystemRoutes>>) {
        // A second call would be a mistake in the wiring; the first tables stay.
        let _ = self.system.set(system);
    }

    /// The tables installed.
    pub fn system(&self) -> &[Box<dyn SystemRoutes>] {
        self.system.get().map(Vec::as_slice).unwrap_or_default()
    }

    /// Names the process around the core. Once, before the first request.
    pub fn run_in(&self, process: Box<dyn ServerProcess>) {
        // As with the tables, the first one stays.
        let _ = self.process.set(process);
    }

    /// The process around the core.
    ///
    /// # Errors
    /// `Unsupported` when there is none that tells anything.
    pub fn process(&self) -> Result<&dyn ServerProcess, CoreError> {
        self.process.get().map(Box::as_ref).ok_or(CoreError::Unsupported)
    }

    /// What can be mounted.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The phase, now.
    pub fn phase(&self) -> Arc<Phase> {
        self.phase.load_full()
    }

    /// Told of each change of phase.
    pub fn phase_changes(&self) -> watch::Receiver<u64> {
        self.phase_changes.subscribe()
    }

    /// What an unsealed core holds.
    ///
    /// # Errors
    /// `Sealed` or `NotInitialized`.
    pub fn unsealed(&self) -> Result<Arc<Unsealed>, CoreError> {
        match &**self.phase.load() {
            Phase::Uninitialized => Err(CoreError::NotInitialized),
            Phase::Sealed => Err(CoreError::Sealed),
            Phase::Unsealed(unsealed) => Ok(unsealed.clone()),
        }
    }

    /// Puts `phase` in force and returns the one before. For `seal` alone.
    pub(in crate::core) fn set_phase(&self, phase: Phase) -> Arc<Phase> {
        let before = self.phase.swap(Arc::new(phase));
        self.phase_changes.send_modify(|count| *count = count.wrapping_add(1));
        before
    }
}

/// What only an unsealed server has. Cannot be built without the keyring, and wipes it when dropped.
pub struct Unsealed {
    /// The opened store.
    pub records: Arc<Records>,
    /// What is mounted.
    pub mounts: Arc<MountTable>,
    /// Policies.
    pub policies: Arc<PolicyStore>,
    /// Password policies.
    pub passwords: PasswordPolicies,
    /// Quotas.
    pub quotas: Arc<Quotas>,
    /// Entities.
    pub identity: Arc<IdentityStore>,
    /// Second factors.
    pub mfa: Mfa,
    /// Tokens.
    pub tokens: Arc<TokenStore>,
    /// Leases.
    pub leases: Arc<Leases>,
    /// Which web pages may ask.
    pub cors: Cors,
    /// What browsers are answered with besides.
    pub ui_headers: UiHeaders,
    /// Who failed to log in.
    pub lockouts: Lockouts,
    /// Who presented wrapping tokens that are none.
    pub guesses: Arc<Guesses>,
    /// Who was seen lately, by certificate.
    pub callers: Arc<super::caller::CallerCache>,
    /// Makes hashed values for the audit.
    pub audit_key: crate::crypto::blind::AuditKey,
}

impl Unsealed {
    /// Opens the store with `keyring` and puts everything in it in service.
    ///
    /// # Errors
    /// When the store fails or holds what this build does not understand.
    pub async fn open(core: &Core, keyring: Arc<Keyring>) -> Result<Arc<Self>, CoreError> {
        let audit_key = keyring.audit_key();
        let records =
            Arc::new(Records::new(core.storage.clone(), keyring, core.settings.cache_bytes));
        let hold = HoldCell::default();
        let mounts = Arc::new(
            MountTable::load(
                records.clone(),
                core.registry.clone(),
                core.clock.clone(),
                hold.clone(),
                core.settings.default_ttl,
                core.settings.max_ttl,
            )
            .await?,
        );
        let quotas = Arc::new(Quotas::new(records.clone(), mounts.clone(), core.clock.clone()));
        quotas.load().await?;
        let surroundings = Surroundings {
            records: records.clone(),
            mounts: mounts.clone(),
            hold,
            quotas: quotas.clone(),
            clock: core.clock.clone(),
            audit: core.audit.clone(),
        };
        let settings = core.settings.leases.clone();
        let leases = Arc::new(Leases::new(surroundings, settings, core.node));
        leases.load_hold().await?;
        let tokens = Arc::new(TokenStore::new(records.clone(), core.clock.clone()));
        let guesses = Arc::new(Guesses::new(&guess::WRAPPING, core.clock.clone()));
        let callers = Arc::new(super::caller::CallerCache::default());
        tokens.on_gone(Arc::new(super::caller::Aftermath {
            guesses: guesses.clone(),
            records: records.clone(),
            leases: leases.clone(),
            mounts: mounts.clone(),
            callers: callers.clone(),
        }));
        Ok(Arc::new(Self {
            policies: Arc::new(PolicyStore::new(records.clone())),
            passwords: PasswordPolicies::new(records.clone()),
            cors: Cors::load(records.clone()).await?,
            ui_headers: UiHeaders::load(records.clone()).await?,
            quotas,
            identity: Arc::new(IdentityStore::new(records.clone(), core.clock.clone())),
            mfa: Mfa::new(records.clone(), core.clock.clone()),
            lockouts: Lockouts::new(core.clock.clone()),
            guesses,
            callers,
            records,
            mounts,
            tokens,
            leases,
            audit_key,
        }))
    }
}

/// What a system route works with: the whole core, which engines never see.
pub struct SystemContext<'a> {
    /// The core.
    pub core: &'a Arc<Core>,
    /// What it holds.
    pub unsealed: &'a Arc<Unsealed>,
    /// Who asks.
    pub caller: &'a Caller,
    /// Which request this is.
    pub request_id: &'a RequestId,
    /// The connection it came on.
    pub connection: &'a ConnectionInfo,
    /// The token presented, for routes that read it themselves (unwrapping).
    pub token: Option<&'a SecretString>,
    /// How long the answer is to be wrapped, when it is.
    pub wrap_ttl: Option<Ttl>,
}

/// A table of routes that belong to the server itself: `sys/`, `auth/token/`, `identity/`.
#[async_trait]
pub trait SystemRoutes: Send + Sync + 'static {
    /// Where the table lives, with a slash at the end.
    fn prefix(&self) -> &'static str;

    /// The table.
    fn routes(&self) -> &'static [RouteSpec];

    /// Whether a write would change something that exists. `None` when the route does not tell.
    ///
    /// # Errors
    /// When the store fails.
    async fn exists(
        &self,
        _ctx: &SystemContext<'_>,
        _route: &'static RouteSpec,
        _params: &Params<'_>,
    ) -> Result<Option<bool>, CoreError> {
        Ok(None)
    }

    /// Serves a request that was judged and let through.
    ///
    /// # Errors
    /// What the caller did wrong, or what failed.
    async fn handle(
        &self,
        ctx: &SystemContext<'_>,
        permit: &Permit,
        request: EngineRequest<'_>,
    ) -> Result<Reply, CoreError>;
}
