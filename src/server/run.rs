//! Starting, running and stopping: the order in which the parts come up, and go down again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::api::{self, EdgeLimits};
use crate::audit::file::{FileSink, FileSinkConfig, FileSinkError, SyncPolicy};
use crate::auth::approle::ApproleMethod;
use crate::auth::jwt::JwtMethod;
use crate::auth::kubernetes::KubernetesMethod;
use crate::auth::ldap::{DirectoryHosts, LdapMethod};
use crate::auth::userpass::{PasswordWork, UserpassMethod};
use crate::auth::{self, cert::CertMethod};
use crate::core::audit::broker::{AuditBroker, BrokerConfig};
use crate::core::audit::{AuditError, AuditSink};
use crate::core::clock_guard::GuardedClock;
use crate::core::context::{Core, CoreSettings, Parts, Phase, SystemRoutes};
use crate::core::crl_source::CrlSource;
use crate::core::engine::{AuthMethod, Engine, MountFacts};
use crate::core::error::CoreError;
use crate::core::failpoint::start_later;
use crate::core::lease::LeaseSettings;
use crate::core::mount::Registry;
use crate::core::outgoing::Outgoing;
use crate::core::records::kinds;
use crate::core::route::Access;
use crate::core::seal::{
    self, KeyFile, SealSlot, SealState, StaticFileSlot, scrub_runtime_stacks, tend_keys,
};
use crate::core::supervise::supervised;
use crate::core::trust::TrustStore;
use crate::engines::transit::{self, TransitEngine};
use crate::engines::{self, database::DatabaseEngine};
use crate::scheduler::Scheduler;
use crate::storage::open::StorageSpec;
use crate::storage::{self, Storage, StorageError};
use crate::types::secret::{RandomError, fill_random};
use crate::types::time::{Clock, SystemClock, Ttl};

use super::config::{AuditSink as SinkConfig, Auth, Config, Problem, SealType, StorageType};
use super::crl_fetch::CrlFetcher;
use super::facts::ProcessFacts;
use super::files::FileError;
use super::outgoing::{MountRequests, OutgoingRequests};
use super::stacks::tend_stacks;
use super::telemetry::Metrics;
use super::{BindError, Listeners};

/// Most bytes of decrypted records kept in memory.
const CACHE_BYTES: u64 = 32 << 20;
/// How long the answers under way may take when connections are closed because of a seal.
const SEAL_GRACE: Duration = Duration::from_secs(2);
/// How often it is tried to reach the stacks of all threads after a seal.
const SCRUBS_MAX: usize = 20;
/// How long requests that nobody waits for may go on when the server stops, after its connections
/// are closed.
const OUTLIVING_GRACE: Duration = Duration::from_secs(2);
/// Longest pause between two tries of a revocation.
const BACKOFF_MAX: Ttl = Ttl::from_secs(300);

/// A server that answers requests.
pub struct Server {
    core: Arc<Core>,
    addresses: Vec<(Arc<str>, SocketAddr)>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Opens the store and the audit, binds the listeners and starts answering. `hangup` counts the
    /// requests to reload files and reopen logs.
    ///
    /// # Errors
    /// The first part that does not come up; those before it are closed again.
    pub async fn start(
        config: &Config,
        metrics: &Metrics,
        hangup: watch::Receiver<u64>,
    ) -> Result<Self, StartError> {
        let jump_max = Ttl::from_secs(config.leases.clock_jump_hold.duration().as_secs());
        let guard = Arc::new(GuardedClock::new(Arc::new(SystemClock), jump_max));
        start_later(&guard);
        let clock: Arc<dyn Clock> = guard.clone();
        let trust = Arc::new(TrustStore::new());
        let (listeners, reloader) = Listeners::bind(config, trust.clone(), clock.clone()).await?;
        let addresses = listeners.addresses().map_err(StartError::Addresses)?;
        let audit = open_audit(config, clock.clone()).await?;
        listeners.connections().audit_refusals(audit.clone());
        let storage = storage::open::open(&storage_spec(config)?).await?;
        let core = build_core(config, storage, audit, trust, clock).await?;
        let render = metrics.clone();
        let everybody = config.telemetry.unauthenticated_metrics;
        let access = if everybody { Access::Public } else { Access::Caller };
        core.install(tables(Box::new(move || render.render()), access));
        core.run_in(Box::new(ProcessFacts::new(config)));
        if let Err(error) = core.unseal_automatically().await {
            // It answers all the same, as a sealed server does.
            tracing::error!(%error, reason = error.reason(), "not unsealed by the key file");
        }

        let scheduler = Scheduler::start(core.clone(), guard);
        let stop = CancellationToken::new();
        let app = api::router(core.clone(), edge_limits(config));
        let interval = config.server.reload_interval.duration();
        let mut tasks = JoinSet::new();
        tasks.spawn(reloader.run(interval, hangup.clone()));
        let own = core.clone();
        let reopen = move || reopen_audit(own.clone(), hangup.clone());
        tasks.spawn(supervised("audit", reopen));
        let own = core.clone();
        tasks.spawn(supervised("keys", move || tend_keys(own.clone())));
        let (own, connections) = (core.clone(), listeners.connections());
        let mut again = false;
        let close = move || {
            let again = std::mem::replace(&mut again, true);
            close_on_seal(own.clone(), connections.clone(), again)
        };
        tasks.spawn(supervised("seal", close));
        let own = core.clone();
        tasks.spawn(supervised("stacks", move || tend_stacks(own.clone())));
        let own = metrics.clone();
        tasks.spawn(supervised("metrics", move || own.clone().keep_up()));
        let running = tokio::spawn(serve(Serving {
            core: core.clone(),
            listeners,
            app,
            scheduler,
            tasks,
            stop: stop.clone(),
        }));
        Ok(Self { core, addresses, stop, running })
    }

    /// The core, for commands that run in the server's own process.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The name and address of each listener.
    pub fn addresses(&self) -> &[(Arc<str>, SocketAddr)] {
        &self.addresses
    }

    /// Stops: no new connections, requests under way finish within the configured time, then
    /// everything is closed and the keys are wiped.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.wait().await;
    }

    /// Waits until the server has stopped.
    pub async fn wait(self) {
        // A panic there has been reported by the runtime already.
        let _ = self.running.await;
    }

    /// What stops the server when it is cancelled.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }
}

struct Serving {
    core: Arc<Core>,
    listeners: Listeners,
    app: axum::Router,
    scheduler: Scheduler,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

async fn serve(mut serving: Serving) {
    serving.listeners.serve(serving.app, serving.stop).await;
    serving.core.outliving.drain(OUTLIVING_GRACE).await;
    serving.scheduler.shutdown().await;
    serving.tasks.shutdown().await;
    serving.core.seal().await;
    serving.core.audit.close().await;
    serving.core.storage.close().await;
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's address is not known.
    #[error("the addresses of the listeners are not known")]
    Addresses(#[source] std::io::Error),
    /// The audit cannot be written.
    #[error("the audit cannot be opened")]
    Audit(#[from] FileSinkError),
    /// There is no audit at all.
    #[error(transparent)]
    AuditBroker(#[from] AuditError),
    /// Certificates, bundles or addresses.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The configuration names something that is not there.
    #[error("{0}")]
    Config(Problem),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// What the store says about its seal.
    #[error("the seal cannot be read")]
    Seal(#[source] CoreError),
    /// The store.
    #[error("the store cannot be opened")]
    Storage(#[from] StorageError),
    /// A task was cut off.
    #[error("a part of the start was cut off")]
    Task,
}

/// Without the error of the task, which would quote what a panic was about.
impl From<JoinError> for StartError {
    fn from(_: JoinError) -> Self {
        Self::Task
    }
}

fn storage_spec(config: &Config) -> Result<StorageSpec, StartError> {
    let storage = &config.storage;
    Ok(match storage.kind {
        StorageType::Sqlite => {
            let named = !storage.path.as_os_str().is_empty();
            let default = config.server.data_dir.join("leasehold.db");
            StorageSpec::Sqlite {
                path: if named { storage.path.clone() } else { default },
                // About most workloads nobody has said anything.
                often_absent: Some(kinds::ALIAS),
            }
        }
        StorageType::Postgresql => StorageSpec::Postgres {
            url: storage.resolve_url().map_err(StartError::Config)?,
            ca_file: Some(storage.ca_file.clone()).filter(|path| !path.as_os_str().is_empty()),
            max_connections: storage.max_connections,
        },
    })
}

async fn open_audit(config: &Config, clock: Arc<dyn Clock>) -> Result<AuditBroker, StartError> {
    let mut sinks: Vec<Arc<dyn AuditSink>> = Vec::new();
    for sink in &config.audit_sinks {
        let sink_config = sink_config(sink);
        let clock = clock.clone();
        // Opening reads the end of the log to continue its chain.
        let opened =
            tokio::task::spawn_blocking(move || FileSink::open(sink_config, clock)).await??;
        sinks.push(Arc::new(opened));
    }
    let limits = BrokerConfig {
        queue_entries: config.limits.audit_queue,
        wait: config.limits.audit_wait.duration(),
    };
    Ok(AuditBroker::new(sinks, limits, clock)?)
}

fn sink_config(sink: &SinkConfig) -> FileSinkConfig {
    FileSinkConfig {
        name: sink.name.clone(),
        path: sink.path.clone(),
        sync: if sink.sync.is_zero() {
            SyncPolicy::Always
        } else {
            SyncPolicy::Interval(sink.sync.duration())
        },
        // With a thread left to answer that the audit hangs.
        lend: tokio::runtime::Handle::current().metrics().num_workers() > 1,
    }
}

async fn build_core(
    config: &Config,
    storage: Arc<dyn Storage>,
    audit: AuditBroker,
    trust: Arc<TrustStore>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<Core>, StartError> {
    let key_files = config.seals.iter().filter(|seal| seal.kind == SealType::StaticFile);
    let slots = key_files.map(|seal| {
        Arc::new(StaticFileSlot::new(KeyFile::new(seal.key_file.clone()))) as Arc<dyn SealSlot>
    });
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let seal = SealState::new(slots.collect(), &config.node_name(host));
    let initialized = seal::is_initialized(storage.as_ref()).await.map_err(StartError::Seal)?;
    let mut node = [0u8; 8];
    fill_random(&mut node)?;
    let network = Network::new(&config.auth).map_err(BindError::from)?;
    let registry = registry(&trust, network);
    let parts = Parts {
        storage,
        clock,
        registry,
        audit,
        trust,
        seal,
        settings: settings(config),
        // Storage keeps it as a signed number.
        node: u64::from_be_bytes(node) >> 1,
    };
    Ok(Core::new(parts, initialized))
}

/// The tables of this build that belong to the server itself; `metrics_access` is who may read the
/// metrics.
pub fn tables(
    render_metrics: api::sys::metrics::Render,
    metrics_access: Access,
) -> Vec<Box<dyn SystemRoutes>> {
    let mut tables = api::sys::tables(render_metrics, metrics_access);
    tables.push(Box::new(auth::token::TokenRoutes));
    tables.push(Box::new(auth::identity::IdentityRoutes));
    tables.push(Box::new(auth::mfa::MfaRoutes));
    tables
}

/// What methods reach other servers by.
pub struct Network {
    /// Where revocation lists are fetched from that are named by a URL.
    pub crl_source: Arc<dyn CrlSource>,
    /// What identity providers and the like are asked by.
    pub outgoing: Arc<dyn Outgoing>,
    /// Where directories may be.
    pub directories: DirectoryHosts,
}

impl Network {
    /// As the configuration says. Reads the files of authorities.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn new(config: &Auth) -> Result<Self, FileError> {
        Ok(Self {
            crl_source: Arc::new(CrlFetcher::new(config)?),
            outgoing: Arc::new(OutgoingRequests::new(config)?),
            directories: DirectoryHosts::new(&config.ldap_hosts),
        })
    }
}

/// The engines and methods of this build, one line each. They reach other servers by `network`.
pub fn registry(trust: &Arc<TrustStore>, network: Network) -> Registry {
    let Network { crl_source, outgoing, directories } = network;
    let mut registry = Registry { databases: engines::database::PLUGINS, ..Registry::default() };
    registry.engines.insert("cubbyhole", Box::new(engines::cubbyhole::build));
    registry.engines.insert("kv", Box::new(engines::kv::build));
    registry.engines.insert("ssh", Box::new(engines::ssh::build));
    registry.engines.insert("totp", Box::new(engines::totp::build));
    registry.engines.insert("database", Box::new(|_| Ok(Arc::new(DatabaseEngine::new()))));
    let work = Arc::new(transit::work_queue());
    let transit = move |_: &MountFacts| -> Result<Arc<dyn Engine>, CoreError> {
        Ok(Arc::new(TransitEngine::new(work.clone())))
    };
    registry.engines.insert("transit", Box::new(transit));
    let trust = trust.clone();
    let cert = move |mount: &MountFacts| -> Result<Arc<dyn AuthMethod>, CoreError> {
        Ok(Arc::new(CertMethod::new(trust.clone(), crl_source.clone(), mount)))
    };
    registry.methods.insert("cert", Box::new(cert));
    let cluster = outgoing.clone();
    let kubernetes = move |_: &MountFacts| -> Result<Arc<dyn AuthMethod>, CoreError> {
        Ok(Arc::new(KubernetesMethod::new(Arc::new(MountRequests::new(cluster.clone())))))
    };
    registry.methods.insert("kubernetes", Box::new(kubernetes));
    let jwt = move |_: &MountFacts| -> Result<Arc<dyn AuthMethod>, CoreError> {
        Ok(Arc::new(JwtMethod::new(Arc::new(MountRequests::new(outgoing.clone())))))
    };
    registry.methods.insert("oidc", Box::new(jwt.clone()));
    registry.methods.insert("jwt", Box::new(jwt));
    registry.methods.insert("approle", Box::new(|_| Ok(Arc::new(ApproleMethod::default()))));
    let ldap = move |_: &MountFacts| -> Result<Arc<dyn AuthMethod>, CoreError> {
        Ok(Arc::new(LdapMethod::new(directories.clone())))
    };
    registry.methods.insert("ldap", Box::new(ldap));
    let work = Arc::new(PasswordWork::default());
    let userpass = move |_: &MountFacts| -> Result<Arc<dyn AuthMethod>, CoreError> {
        Ok(Arc::new(UserpassMethod::new(work.clone())))
    };
    registry.methods.insert("userpass", Box::new(userpass));
    registry
}

fn settings(config: &Config) -> CoreSettings {
    let leases = &config.leases;
    CoreSettings {
        cluster_name: config.server.cluster_name.clone(),
        default_ttl: Ttl::from_secs(leases.default_ttl.duration().as_secs()),
        max_ttl: Ttl::from_secs(leases.max_ttl.duration().as_secs()),
        leases: LeaseSettings {
            per_owner_max: leases.max_per_identity,
            per_role_max: leases.max_per_role,
            per_mount_max: leases.max_per_mount,
            per_target: leases.sweep_concurrency,
            rate_per_sec: leases.sweep_rate,
            backoff_max: BACKOFF_MAX,
            ..LeaseSettings::default()
        },
        cache_bytes: CACHE_BYTES,
        clock_jump_max: Ttl::from_secs(leases.clock_jump_hold.duration().as_secs()),
        trust_clock: config.trust_clock,
    }
}

fn edge_limits(config: &Config) -> EdgeLimits {
    EdgeLimits {
        body_bytes_max: config.server.max_body.bytes(),
        request_timeout: config.server.request_timeout.duration(),
    }
}

/// Lets the audit open its files anew at each hangup, after a rotation.
async fn reopen_audit(core: Arc<Core>, mut hangup: watch::Receiver<u64>) {
    while hangup.changed().await.is_ok() {
        if let Err(failed) = core.audit.reopen().await {
            for (sink, error) in failed {
                tracing::error!(sink, error = %error, "the audit was not reopened");
            }
        }
    }
}

/// Closes every connection when the server is sealed: their buffers hold what passed through them.
/// If this is begun `again`, it may have been sealed in between.
async fn close_on_seal(core: Arc<Core>, connections: Arc<super::accept::Connections>, again: bool) {
    let mut changes = core.phase_changes();
    let is_open = || matches!(&*core.phase(), Phase::Unsealed(_));
    let mut was_open = again || is_open();
    loop {
        let open = is_open();
        if was_open && !open {
            connections.close_all(SEAL_GRACE);
            // The last answers are out by then; what they left on the stacks goes too.
            tokio::time::sleep(SEAL_GRACE + SEAL_GRACE / 2).await;
            for _ in 0..SCRUBS_MAX {
                if scrub_runtime_stacks().await {
                    break;
                }
            }
        }
        // It may have been opened and sealed again while this waited.
        was_open = open || changes.has_changed().unwrap_or(false);
        if changes.changed().await.is_err() {
            return;
        }
    }
}
