//! The process is killed: at every fail point, at every commit, and at hundreds of random moments, with
//! real credentials on a real PostgreSQL. Clerks write down what they were promised; [`check`] holds
//! that against the store, the audit and the target.
//!
//! The same clerks and the same check also meet what a machine does short of dying: disks that fail,
//! clocks that are set, connections that break, and too little of everything.
//!
//! `LEASEHOLD_CRASH_KILLS` sets how often the storm kills, `LEASEHOLD_CRASH_SEED` repeats its choices;
//! `LEASEHOLD_DISK_POINTS` and `LEASEHOLD_POWER_CUTS` set how many operations on files fail and at how many
//! the power is cut, `LEASEHOLD_PAUSE_SECS` how long a server stands still.

mod check;
mod clerk;
mod clock;
mod commits;
mod disk;
mod network;
mod panics;
mod pause;
mod plants;
mod points;
mod power;
mod relay;
mod scarce;
mod shim;
mod storm;
mod trail;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_postgres::NoTls;

use crate::support::broker::{Broker, Setup};
use crate::support::postgres::{SUPERUSER, TestPostgres};

/// Makes a role that can log in and read the table `stock`.
const CREATE: &str = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' \
     VALID UNTIL '{{expiration}}'; GRANT SELECT ON TABLE stock TO \"{{name}}\"";
/// Later than anything that a dead process still had in hand: claims of a sweep, intents, tokens that
/// were being revoked.
const LATER: Duration = Duration::from_secs(200);

/// Servers on one store, and the database whose users they lease.
struct World {
    nodes: Vec<Broker>,
    server: &'static TestPostgres,
    database: String,
    /// Begins the name of every database role and, by its template, of every user.
    prefix: String,
    /// A superuser's session on the target.
    target: tokio_postgres::Client,
    /// How far the servers' clocks are ahead of this process's, in seconds.
    ahead: AtomicU64,
    /// Says how far the servers' wall clocks are ahead, where those can be moved while they run.
    clock: Option<tempfile::NamedTempFile>,
    /// Longest wait for everything to be over that has to be.
    settling_max: Duration,
    /// How often each server was made to panic.
    panics: usize,
    trail: Mutex<trail::Trail>,
}

/// What puts `libfaketime` before a server: its wall clock is as far from the machine's as the file says.
/// Its monotonic clock is the machine's.
fn with_clock(file: &Path) -> Vec<(String, String)> {
    let places = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"];
    let library = places
        .iter()
        .map(|place| Path::new(place).join("faketime/libfaketime.so.1"))
        .find(|library| library.exists())
        .expect("libfaketime is installed");
    let environment = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

impl World {
    /// One server on SQLite, whose clock can be moved while it runs.
    async fn with_clock(setup: Setup) -> Self {
        let clock = tempfile::NamedTempFile::new().unwrap();
        fs::write(clock.path(), "+0\n").unwrap();
        let environment = with_clock(clock.path());
        let world = Self::start(Setup { environment, ..setup }, 1).await;
        Self { clock: Some(clock), ..world }
    }

    /// One server on SQLite.
    async fn on_sqlite() -> Self {
        Self::start(Setup::default(), 1).await
    }

    /// That many servers on one PostgreSQL database.
    async fn on_postgres(nodes: usize) -> Self {
        let server = tokio::task::spawn_blocking(TestPostgres::shared).await.unwrap();
        Self::start(Setup { postgres: Some(server.database()), ..Setup::default() }, nodes).await
    }

    async fn start(setup: Setup, nodes: usize) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let server = tokio::task::spawn_blocking(TestPostgres::shared).await.unwrap();
        let database = server.database().rsplit('/').next().unwrap().to_owned();
        server.sql(&database, "CREATE TABLE stock (x int)");
        let (target, connection) =
            tokio_postgres::connect(&server.url(&database), NoTls).await.unwrap();
        tokio::spawn(connection);
        let setup = Setup {
            server: "log_level = \"info\"\n".into(),
            tables: "[leases]\nmax_per_identity = 0\n".into(),
            ..setup
        };
        let mut all = vec![Broker::ready(setup).await];
        for _ in 1..nodes {
            all.push(all[0].beside().await);
        }
        let world = Self {
            nodes: all,
            server,
            database,
            prefix: format!("crash{}x", NUMBER.fetch_add(1, Ordering::Relaxed)),
            target,
            ahead: AtomicU64::new(0),
            clock: None,
            settling_max: check::SETTLING_MAX,
            panics: 0,
            trail: Mutex::default(),
        };
        world.furnish().await;
        world
    }

    async fn furnish(&self) {
        let root = self.nodes[0].root();
        for (path, body) in [
            ("sys/mounts/secret", json!({ "type": "kv", "options": { "version": "2" } })),
            ("sys/mounts/database", json!({ "type": "database" })),
        ] {
            root.write(path, body).await.ok();
        }
        self.reach_target_at(self.server.port()).await;
    }

    /// The servers reach the target at this port of the machine.
    async fn reach_target_at(&self, port: u16) {
        let address = format!("127.0.0.1:{port}/{}", self.database);
        let config = json!({
            "plugin_name": "postgresql-database-plugin",
            "connection_url":
                format!("postgresql://{{{{username}}}}:{{{{password}}}}@{address}?sslmode=disable"),
            "username": SUPERUSER,
            "password": self.server.password(),
            "allowed_roles": "*",
            "username_template": "{{.RoleName | truncate 24}}-{{random 20}}",
        });
        self.nodes[0].root().write("database/config/pg", config).await.ok();
    }

    /// The servers' time, in milliseconds.
    fn now(&self) -> i64 {
        let ahead = i64::try_from(self.ahead.load(Ordering::SeqCst)).unwrap();
        chrono::Utc::now().timestamp_millis() + ahead * 1000
    }

    /// How far a server has to be put ahead when it starts.
    fn ahead(&self) -> Duration {
        match &self.clock {
            Some(_) => Duration::ZERO,
            None => Duration::from_secs(self.ahead.load(Ordering::SeqCst)),
        }
    }

    /// Sets the wall clocks of servers, running or not, to that many seconds from the machine's. Where
    /// they are followed, the caller says so by `counts`.
    fn set_clocks(&self, secs: i64, counts: bool) {
        let clock = self.clock.as_ref().expect("these clocks can be moved");
        // In one step: it is read all the time.
        let fresh = clock.path().with_extension("fresh");
        fs::write(&fresh, format!("{secs:+}\n")).unwrap();
        fs::rename(fresh, clock.path()).unwrap();
        if counts {
            self.ahead.store(u64::try_from(secs).unwrap(), Ordering::SeqCst);
        }
    }

    /// So much time passes for servers that run that nothing from before is in anybody's hand any more.
    fn pass_time_alive(&self) {
        let ahead = self.ahead.load(Ordering::SeqCst) + LATER.as_secs();
        self.set_clocks(i64::try_from(ahead).unwrap(), true);
    }

    /// The environment of the servers from the next start on, beside what moves their clocks.
    fn set_environment(&self, node: usize, mut more: Vec<(String, String)>) {
        for (name, value) in self.clock.iter().flat_map(|clock| with_clock(clock.path())) {
            match more.iter_mut().find(|(known, _)| *known == name) {
                // Both libraries.
                Some((_, known)) => *known = format!("{known}:{value}"),
                None => more.push((name, value)),
            }
        }
        self.nodes[node].set_environment(more);
    }

    /// Starts a server again after it was killed, and unseals it.
    async fn revive(&self, node: usize) {
        self.nodes[node].set_clock_ahead(self.ahead());
        self.nodes[node].start_again();
        self.nodes[node].unseal().await;
    }

    /// Kills all servers and starts them again so much later that nothing of the dead is in anybody's
    /// hand any more.
    async fn pass_time(&self) {
        for node in &self.nodes {
            node.kill();
        }
        match &self.clock {
            Some(_) => self.pass_time_alive(),
            None => _ = self.ahead.fetch_add(LATER.as_secs(), Ordering::SeqCst),
        }
        for node in 0..self.nodes.len() {
            self.revive(node).await;
        }
    }
}

/// What a variable of the environment sets.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// Random choices that a seed repeats.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.roll() % limit as u64).unwrap()
    }

    fn pick<'a, T>(&mut self, of: &'a mut [T]) -> Option<&'a mut T> {
        if of.is_empty() {
            return None;
        }
        let index = self.below(of.len());
        of.get_mut(index)
    }
}

/// Whether it ended as a power cut would end it.
fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(rustix::process::Signal::KILL.as_raw())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}
