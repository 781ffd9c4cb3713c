//! Whom the load is put on: the same certificates, the same mounts and the same policies everywhere.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::bare::Bare;
use super::furnish;
use super::peer::{self, Peer};
use super::session::Client;
use super::support::broker::{Broker, Caller, DOMAIN, Pki, Setup};
use super::support::pki::{Ca, Issued, Spec};
use super::support::postgres::TestPostgres;

/// Keys of `[server]`: what a production server says, and room for a storm.
const SERVER: &str = "log_level = \"warn\"\nmax_connections = 20000";
/// The table of leases: the load comes from a few identities that stand for many.
const TABLES: &str = "[leases]\nmax_per_identity = 0\nmax_per_role = 0\nmax_per_mount = 0\n";
/// Settings of PostgreSQL as it is installed; the tests' own do without a disk.
const POSTGRES: &str = "fsync = on\nfull_page_writes = on\nshared_buffers = 128MB\n";

/// What kinds of servers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// axum and rustls with a constant answer.
    Bare,
    /// Leasehold on SQLite.
    Sqlite,
    /// Leasehold on PostgreSQL.
    Postgres,
    /// OpenBao on Raft.
    Peer,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Bare, Self::Sqlite, Self::Postgres, Self::Peer];

    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Sqlite => "leasehold, sqlite",
            Self::Postgres => "leasehold, postgres",
            Self::Peer => "openbao, raft",
        }
    }
}

/// A PostgreSQL that is as durable as a real one.
pub fn durable_postgres() -> TestPostgres {
    TestPostgres::start_with_settings(POSTGRES)
}

/// How brokers are set up to be measured.
pub fn setup(postgres: Option<String>) -> Setup {
    Setup { postgres, server: SERVER.into(), tables: TABLES.into(), ..Setup::default() }
}

/// Who signs what, everywhere.
pub fn pki() -> Arc<Pki> {
    let servers = Ca::root("servers");
    let clients = Ca::root("clients");
    let admin = clients.issue(&Spec::svid(&format!("spiffe://{DOMAIN}/admin")));
    Arc::new(Pki { servers, clients, admin })
}

/// The certificate of the workload called `name`.
pub fn workload(pki: &Pki, name: &str) -> Issued {
    pki.clients.issue(&Spec::svid(&format!("spiffe://{DOMAIN}/workload/{name}")).cn(name))
}

/// A broker, initialised and unsealed, with nothing in it.
pub async fn broker(setup: Setup, pki: &Arc<Pki>) -> Broker {
    let broker = Broker::start_with(setup, pki.clone());
    broker.init().await;
    broker.unseal().await;
    broker
}

enum Server {
    Bare(Bare),
    Broker(Box<Broker>),
    Peer(Peer),
}

/// A running server.
pub struct Target {
    pub kind: Kind,
    server: Server,
    pki: Arc<Pki>,
    // After the servers that use it.
    _store: Option<TestPostgres>,
}

impl Target {
    /// A bare server that answers `size` bytes, with the certificates in `identity`.
    pub fn bare(identity: &Path, pki: &Arc<Pki>, size: usize) -> Self {
        let server = Server::Bare(Bare::start(identity, size));
        Self { kind: Kind::Bare, server, pki: pki.clone(), _store: None }
    }

    /// A server that is furnished, with credentials from `database` where one is given. None when
    /// there is no such program here.
    pub async fn start(
        kind: Kind,
        identity: &Path,
        pki: &Arc<Pki>,
        database: Option<&TestPostgres>,
    ) -> Option<Self> {
        let mut store = None;
        let server = match kind {
            Kind::Bare => return Some(Self::bare(identity, pki, 512)),
            Kind::Sqlite => Server::Broker(Box::new(broker(setup(None), pki).await)),
            Kind::Postgres => {
                let postgres = store.insert(durable_postgres());
                let setup = setup(Some(postgres.database()));
                Server::Broker(Box::new(broker(setup, pki).await))
            }
            Kind::Peer => Server::Peer(Peer::start(&peer::program()?, identity, pki).await),
        };
        let target = Self { kind, server, pki: pki.clone(), _store: store };
        furnish::all(&target.root()?, &pki.clients.pem(), database).await;
        Some(target)
    }

    pub fn address(&self) -> SocketAddr {
        match &self.server {
            Server::Bare(bare) => bare.address,
            Server::Broker(broker) => broker.address,
            Server::Peer(peer) => peer.address,
        }
    }

    /// A caller that may do everything; none where nothing can be done.
    pub fn root(&self) -> Option<Caller> {
        match &self.server {
            Server::Bare(_) => None,
            Server::Broker(broker) => Some(broker.root()),
            Server::Peer(peer) => Some(peer.root(&self.pki)),
        }
    }

    /// The client of whoever has that certificate.
    pub fn client(&self, identity: &Issued) -> Client {
        let client = Client::new(self.address(), &self.pki.servers.der, identity);
        match self.kind {
            Kind::Peer => client.logging_in(),
            Kind::Bare | Kind::Sqlite | Kind::Postgres => client,
        }
    }

    /// Resident memory of its process.
    pub fn resident_mib(&self) -> f64 {
        resident_mib(self.pid())
    }

    /// The most that it ever was.
    pub fn resident_most_mib(&self) -> f64 {
        status_mib(self.pid(), "VmHWM:")
    }

    fn pid(&self) -> u32 {
        match &self.server {
            Server::Bare(bare) => bare.pid(),
            Server::Broker(broker) => u32::try_from(broker.pid()).unwrap(),
            Server::Peer(peer) => peer.pid(),
        }
    }
}

/// Resident memory of a process.
pub fn resident_mib(pid: u32) -> f64 {
    status_mib(pid, "VmRSS:")
}

fn status_mib(pid: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or("0 kB");
    let kib: f64 = line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0.0);
    kib / 1024.0
}

/// A directory with the certificates that servers without one of their own show and trust.
pub fn identity(pki: &Pki) -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("leasehold-measure-").tempdir().unwrap();
    let shown = pki.servers.issue(&Spec::server());
    fs::write(dir.path().join("server.pem"), shown.pem()).unwrap();
    fs::write(dir.path().join("server.key"), &shown.key_pem).unwrap();
    fs::write(dir.path().join("clients.pem"), pki.clients.pem()).unwrap();
    dir
}
