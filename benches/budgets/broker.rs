//! A broker as a developer starts it: `leasehold dev` in a directory of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::driver::Client;

pub struct Broker {
    child: Child,
    address: String,
    dir: PathBuf,
    /// Keeps the directory; gone with the last user.
    _owned: Option<tempfile::TempDir>,
    /// From exec to the line that says it answers.
    pub ready_after: Duration,
}

impl Broker {
    /// A new one, with one secret at `secret/bench` that the workload may read.
    pub fn start() -> Self {
        let owned = tempfile::tempdir().unwrap();
        let dir = owned.path().to_owned();
        let mut broker = Self::launch(&dir);
        broker._owned = Some(owned);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(broker.prepare());
        broker
    }

    /// A second start on a store that exists already.
    pub fn restart_measured() -> Self {
        let owned = tempfile::tempdir().unwrap();
        drop(Self::launch(owned.path()));
        let mut broker = Self::launch(owned.path());
        broker._owned = Some(owned);
        broker
    }

    fn launch(dir: &Path) -> Self {
        let begun = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_leasehold"))
            .args(["dev", "--dir", dir.to_str().unwrap(), "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .map(Result::unwrap)
            .find_map(|line| line.strip_prefix("ready https://").map(str::to_owned))
            .expect("the broker did not start");
        Self {
            child,
            address: address.trim().to_owned(),
            dir: dir.to_owned(),
            _owned: None,
            ready_after: begun.elapsed(),
        }
    }

    async fn prepare(&self) {
        let secret = r#"{"data":{"username":"app","password":"correct horse battery staple"}}"#;
        self.admin_client().post_once("/v1/secret/data/bench", secret).await;
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    fn with(&self, name: &str) -> Client {
        let read = |name: String| std::fs::read_to_string(self.dir.join(name)).unwrap();
        Client::new(
            &self.address,
            &read("ca.pem".into()),
            &read(format!("{name}.pem")),
            &read(format!("{name}.key")),
        )
    }

    /// A workload's client.
    pub fn client(&self) -> Client {
        self.with("workload")
    }

    pub fn client_to(&self, address: &str) -> Client {
        self.client().to(address)
    }

    /// An administrator's client.
    pub fn admin_client(&self) -> Client {
        self.with("admin")
    }

    pub fn resident_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1024.0
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}
