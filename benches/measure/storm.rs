//! Thousands of workloads, each with a certificate of its own, that start at the same moment: each needs
//! one secret, and then one credential. They do as they are told: who gets 503 comes again when
//! `Retry-After` says, who loses the connection makes another.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Bench;
use super::histogram::Histogram;
use super::report::{Latency, Row};
use super::session::{Ask, Client, Failure, Session};
use super::support::broker::Pki;
use super::target::{self, Kind, Target};
use super::workloads::Work;

const GROUP: &str = "storm";
const SECRET: &str = "/v1/secret/data/bench";
const CREDENTIAL: &str = "/v1/database/creds/bench";
/// Whoever has not been served by then is lost.
const PATIENCE: Duration = Duration::from_secs(180);
const HEALTH_EVERY: Duration = Duration::from_millis(20);
const HEALTH_ANEW_EVERY: Duration = Duration::from_millis(200);

/// What became of them.
struct Storm {
    /// From the begin until each had what it came for.
    served: Histogram,
    /// Answers that said to come again.
    put_off: u64,
    /// Connections that had to be made again.
    reconnected: u64,
    lost: u64,
    why: Option<String>,
}

impl Bench {
    pub async fn storm(&self) {
        let count = self.arguments.choose(200, 10_000, 10_000);
        let pki = target::pki();
        let identity = target::identity(&pki);
        let database = target::durable_postgres();
        let broker =
            Target::start(Kind::Sqlite, identity.path(), &pki, Some(&database)).await.unwrap();
        let known = target::workload(&pki, "bench");
        let bytes = {
            let mut session = Session::new(broker.client(&known));
            Work::KvRead.measured(&mut session).await.unwrap()
        };
        let bare = Target::bare(identity.path(), &pki, bytes);
        self.progress(&format!("storm: {count} certificates"));
        let (at_broker, at_bare) = clients(&pki, count, broker.address(), bare.address()).await;
        let idle_mib = broker.resident_mib();

        self.progress("storm: all to the bare server");
        let plain = storm(&at_bare, &[SECRET]).await;
        self.stormed("connect and read one secret", &bare, &plain, None);
        for known in ["for the first time", "again"] {
            self.progress(&format!("storm: all to the broker, {known}"));
            let work = format!("connect and read one secret, {known}");
            let health = Health::begin(broker.client(&target::workload(&pki, "health")));
            let stormed = storm(&at_broker, &[SECRET]).await;
            self.stormed(&work, &broker, &stormed, Some(&plain));
            self.healthy(health);
        }
        self.progress("storm: all to the broker, for a secret and a credential");
        let health = Health::begin(broker.client(&target::workload(&pki, "health")));
        let stormed = storm(&at_broker, &[SECRET, CREDENTIAL]).await;
        self.stormed("connect, one secret, one PostgreSQL user", &broker, &stormed, None);
        self.healthy(health);
        let most = Row::value(
            GROUP,
            "resident memory at most",
            broker.kind.name(),
            broker.resident_most_mib(),
            "MiB",
        );
        self.add(most.with_note(format!("{idle_mib:.0} MiB before")));
    }

    fn stormed(&self, work: &str, target: &Target, storm: &Storm, beside: Option<&Storm>) {
        let secs = storm.served.longest().as_secs_f64();
        let ratio = beside.map(|plain| secs / plain.served.longest().as_secs_f64());
        let Storm { put_off, reconnected, lost, .. } = storm;
        let why = storm.why.as_ref().map_or(String::new(), |why| format!(": {why}"));
        let mut row = Row::value(GROUP, work, target.kind.name(), secs, "s").with_note(format!(
            "{} served, {put_off} put off by 503, {reconnected} reconnected, {lost} lost{why}",
            storm.served.count()
        ));
        row.connections = Some((storm.served.count() + lost) as usize);
        row.saturated_ms = Latency::of(&storm.served);
        row.resident_mib = Some(target.resident_mib());
        row.failed = *lost;
        row.ratio = ratio;
        self.add(match ratio {
            Some(ratio) => row.within("<= 1.3, none lost", ratio <= 1.3 && *lost == 0),
            None => row,
        });
    }

    fn healthy(&self, health: Health) {
        for (how, (latencies, failed)) in health.end() {
            let share = latencies.count() as f64;
            let row = Row::value(GROUP, how, Kind::Sqlite.name(), share, "asked");
            self.add(Row { saturated_ms: Latency::of(&latencies), failed, ..row });
        }
    }
}

/// A client of each server for each of so many workloads.
async fn clients(
    pki: &Arc<Pki>,
    count: usize,
    broker: SocketAddr,
    bare: SocketAddr,
) -> (Vec<Client>, Vec<Client>) {
    let pki = pki.clone();
    let made = tokio::task::spawn_blocking(move || {
        let one = |number| {
            let identity = target::workload(&pki, &format!("storm-{number}"));
            let client = Client::new(broker, &pki.servers.der, &identity);
            (client.clone(), client.to(bare))
        };
        (0..count).map(one).unzip()
    });
    made.await.unwrap()
}

/// Lets all of them start now, and waits for the last.
async fn storm(clients: &[Client], paths: &'static [&'static str]) -> Storm {
    let begun = Instant::now();
    let mut workloads = tokio::task::JoinSet::new();
    for (number, client) in clients.iter().enumerate() {
        let client = client.clone();
        workloads.spawn(async move {
            let mut one = Workload { session: Session::new(client), number, put_off: 0, cut: 0 };
            let mut outcome = Ok(());
            for path in paths {
                outcome = outcome.and(one.get(path, begun).await);
            }
            // A service keeps its connection.
            (begun.elapsed(), outcome, one)
        });
    }
    let all = workloads.join_all().await;
    let (mut served, mut put_off, mut reconnected, mut lost, mut why) =
        (Histogram::new(), 0, 0, 0, None);
    for (after, outcome, one) in all {
        put_off += one.put_off;
        reconnected += one.cut;
        match outcome {
            Ok(()) => served.record(after),
            Err(failure) => {
                lost += 1;
                why.get_or_insert_with(|| failure.to_string());
            }
        }
    }
    Storm { served, put_off, reconnected, lost, why }
}

struct Workload {
    session: Session,
    number: usize,
    put_off: u64,
    cut: u64,
}

impl Workload {
    async fn get(&mut self, path: &str, begun: Instant) -> Result<(), Failure> {
        loop {
            let failure = match self.session.ask(Ask::get(path)).await {
                Ok(_) => return Ok(()),
                Err(failure) => failure,
            };
            let pause = match &failure {
                Failure::Refused { status: 503, retry_after_secs: Some(secs), .. } => {
                    self.put_off += 1;
                    Duration::from_secs(*secs)
                }
                Failure::Connection(_) => {
                    self.cut += 1;
                    self.session.close();
                    Duration::from_secs(1)
                }
                Failure::Refused { .. } | Failure::Answer(_) => return Err(failure),
            };
            if begun.elapsed() > PATIENCE {
                return Err(failure);
            }
            // Spread over as long again, so that they do not all come back together.
            let share = f64::from(u32::try_from(self.number * 7919 % 1000).unwrap_or(0)) / 1000.0;
            tokio::time::sleep(pause + pause.mul_f64(share)).await;
        }
    }
}

type Probe = std::thread::JoinHandle<(Histogram, u64)>;

/// Somebody who keeps asking whether the server is well, from threads that the load does not delay.
struct Health {
    over: Arc<AtomicBool>,
    kept: Probe,
    anew: Probe,
}

impl Health {
    fn begin(client: Client) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let probe = |client: Client, every, anew| {
            let over = over.clone();
            std::thread::spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(ask(client, every, anew, &over))
            })
        };
        let kept = probe(client.clone(), HEALTH_EVERY, false);
        let anew = probe(client, HEALTH_ANEW_EVERY, true);
        Self { over, kept, anew }
    }

    fn end(self) -> [(&'static str, (Histogram, u64)); 2] {
        self.over.store(true, Ordering::Relaxed);
        [
            ("meanwhile: sys/health, on one connection", self.kept.join().unwrap()),
            ("meanwhile: sys/health, new connection each", self.anew.join().unwrap()),
        ]
    }
}

async fn ask(client: Client, every: Duration, anew: bool, over: &AtomicBool) -> (Histogram, u64) {
    let (mut latencies, mut failed) = (Histogram::new(), 0);
    let mut session = Session::new(client);
    while !over.load(Ordering::Relaxed) {
        if anew {
            session.close();
        }
        let asked = Instant::now();
        match session.ask(Ask::get("/v1/sys/health")).await {
            Ok(_) => latencies.record(asked.elapsed()),
            Err(_) => {
                failed += 1;
                session.close();
            }
        }
        tokio::time::sleep(every).await;
    }
    (latencies, failed)
}
