//! OpenBao, configured as the broker is: mutual TLS, Raft on this disk, a file for the audit. Found as
//! `bao` on the PATH, or where `LEASEHOLD_BENCH_PEER` says.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::support::broker::{Caller, Pki};
use super::support::wire;

const PATIENCE: Duration = Duration::from_secs(30);

/// Ends the server when this process is gone, however it went.
const WATCHDOG: &str = r#"cat >/dev/null; kill -KILL "$1" 2>/dev/null"#;

/// Where the program is, if there is one.
pub fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("LEASEHOLD_BENCH_PEER") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("bao")).find(|program| program.is_file())
}

/// One server, initialised and unsealed.
pub struct Peer {
    server: Child,
    watchdog: Child,
    pub address: SocketAddr,
    root_token: String,
    _dir: tempfile::TempDir,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The watchdog first: once the server is gone, its number may be somebody else's.
        for child in [&mut self.watchdog, &mut self.server] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Peer {
    /// Starts it with the certificates in `identity`.
    pub async fn start(program: &Path, identity: &Path, pki: &Pki) -> Self {
        let dir = tempfile::Builder::new().prefix("leasehold-peer-").tempdir().unwrap();
        fs::create_dir(dir.path().join("store")).unwrap();
        let [address, cluster] = wire::free_addresses();
        fs::write(dir.path().join("bao.hcl"), config(dir.path(), identity, address, cluster))
            .unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let mut server = Command::new(program)
            .arg("server")
            .arg("-config")
            .arg(dir.path().join("bao.hcl"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be run: {error}", program.display()));
        let watchdog = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "peer-watchdog", &server.id().to_string()])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = server.try_wait().unwrap().is_some() || began.elapsed() > PATIENCE;
            assert!(!ended, "it did not start:\n{}", said(dir.path()));
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut peer = Self { server, watchdog, address, root_token: String::new(), _dir: dir };
        peer.unseal(pki).await;
        peer
    }

    async fn unseal(&mut self, pki: &Pki) {
        let caller = self.caller(pki);
        let made = caller
            .write("sys/init", json!({ "secret_shares": 1, "secret_threshold": 1 }))
            .await
            .ok();
        caller.write("sys/unseal", json!({ "key": made["keys"][0] })).await.ok();
        self.root_token = made["root_token"].as_str().unwrap().to_owned();
        let began = Instant::now();
        while caller.read("sys/health").await.status != 200 {
            assert!(began.elapsed() < PATIENCE, "it is not active:\n{}", said(self._dir.path()));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn caller(&self, pki: &Pki) -> Caller {
        let client =
            wire::Client::new(&pki.servers.der, &rustls::version::TLS13, Some((&pki.admin, &[])));
        Caller::new(client, self.address)
    }

    /// A caller with the root token.
    pub fn root(&self, pki: &Pki) -> Caller {
        self.caller(pki).with_token(&self.root_token)
    }

    pub fn pid(&self) -> u32 {
        self.server.id()
    }
}

fn said(dir: &Path) -> String {
    fs::read_to_string(dir.join("log")).unwrap_or_default()
}

fn config(dir: &Path, identity: &Path, address: SocketAddr, cluster: SocketAddr) -> String {
    let (dir, identity) = (dir.display(), identity.display());
    format!(
        r#"api_addr = "https://{address}"
cluster_addr = "https://{cluster}"
log_level = "warn"
storage "raft" {{
  path = "{dir}/store"
  node_id = "one"
}}
listener "tcp" {{
  address = "{address}"
  tls_cert_file = "{identity}/server.pem"
  tls_key_file = "{identity}/server.key"
  tls_client_ca_file = "{identity}/clients.pem"
  tls_require_and_verify_client_cert = true
}}
audit "file" "file" {{
  options {{
    file_path = "{dir}/audit.log"
  }}
}}
"#
    )
}
