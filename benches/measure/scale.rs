//! A million leases and a million secrets in one store, and a broker that lives with them: unsealing,
//! reading, listing, searching, a tenth revoked by prefix, a tenth that falls due in the same second,
//! and a crash in the middle of that.
//!
//! The leases are of a real PostgreSQL mount. Their revocation statement does nothing, so that what is
//! measured is the broker and not how fast PostgreSQL drops users.

use std::time::{Duration, Instant};

use leasehold::types::time::{Clock, SystemClock, Timestamp, Ttl};
use serde_json::json;

use super::Bench;
use super::driver::{self, Load, Mode, Operation, Pace, Run, Turn};
use super::fill::Fill;
use super::furnish;
use super::histogram::Histogram;
use super::report::{Latency, Row};
use super::session::{Ask, Client, Failure, Session, text_of};
use super::support::broker::{Broker, Caller};
use super::target;
use super::workloads::ReadAmong;

const GROUP: &str = "scale";
const BY: &str = "leasehold, sqlite";
const ROLES: usize = 10;
const CONNECTIONS: usize = 8;
/// Of reads that go on while something else happens: well below what is possible, so that a longer
/// wait has its cause there.
const READS_PER_SEC: f64 = 1000.0;
/// Searches and the like, one after the other.
const LOOKS: usize = 30;
/// How far ahead a common end is put, so that the broker is up and was measured before.
const AHEAD: Ttl = Ttl::from_secs(30);
/// How long the expiry goes on before the broker is killed.
const BEFORE_KILL: Duration = Duration::from_secs(3);
/// What does nothing, in place of what ends a user.
const NOTHING: &str = "SELECT 1";
/// No caps; the pace of revocations is the default one, which is what keeps them out of the way of reads.
const LEASES: &str = "[leases]\nmax_per_identity = 0\nmax_per_role = 0\nmax_per_mount = 0\n";

#[derive(Clone, Copy)]
struct List;

impl Operation for List {
    async fn perform(&self, session: &mut Session, _: Turn) -> Result<(), Failure> {
        session.ask(Ask::get("/v1/secret/metadata/filled/0?list=true")).await.map(|_| ())
    }
}

/// One broker with very much in it.
struct Full<'b> {
    bench: &'b Bench,
    broker: Broker,
    client: Client,
    read: ReadAmong,
    /// A lease of each role that the broker has issued itself; the others are like it.
    issued: Vec<String>,
    each: usize,
}

impl Bench {
    pub async fn scale(&self) {
        let each = self.arguments.choose(1_000, 100_000, 100_000);
        let pki = target::pki();
        let postgres = target::durable_postgres();
        let setup = super::support::broker::Setup { tables: LEASES.into(), ..target::setup(None) };
        let broker = target::broker(setup, &pki).await;
        let root = broker.root();
        furnish::all(&root, &pki.clients.pem(), Some(&postgres)).await;
        let client = |name: &str| {
            Client::new(broker.address, &pki.servers.der, &target::workload(&pki, name))
        };
        let mut issued = Vec::new();
        for role in 0..ROLES {
            furnish::database_role(&root, &format!("r{role}"), NOTHING).await;
            let mut session = Session::new(client(&format!("owner-{role}")));
            let path = format!("/v1/database/creds/r{role}");
            let answer = session.ask(Ask::get(&path)).await.unwrap();
            issued.push(text_of(answer, "lease_id").unwrap().to_owned());
        }
        let client = client("bench");
        let count = ROLES * each;
        let read = ReadAmong { prefix: "/v1/secret/data/filled/", count, shelved: true };
        let full = Full { bench: self, broker, client, read, issued, each };
        let empty_mib = full.restart("empty").await;
        full.fill().await;
        let mib = full.restart("full").await;
        let above = mib - empty_mib;
        let title = format!("resident memory for {} leases", count_of(count));
        let row = Row::value(GROUP, &title, BY, above, "MiB").within("<= 100 MiB", above <= 100.0);
        self.add(row.with_note(format!("{empty_mib:.0} MiB empty, {mib:.0} MiB with them")));
        full.look().await;
        full.revoke_prefix().await;
        full.expire().await;
    }
}

impl Full<'_> {
    fn progress(&self, what: &str) {
        self.bench.progress(&format!("scale: {what}"));
    }

    fn root(&self) -> Caller {
        self.broker.root()
    }

    async fn fill(&self) {
        let count = ROLES * self.each;
        self.progress(&format!("{count} secrets"));
        let begun = Instant::now();
        self.broker.stop();
        let mut fill = Fill::open(&self.broker).await.secrets("filled/", count).await;
        let due = SystemClock.now().plus(Ttl::from_secs(86_400));
        for (role, like) in self.issued.iter().enumerate() {
            self.progress(&format!("{} leases of role r{role}", self.each));
            fill = fill.leases(like, self.each, due).await;
        }
        fill.close().await;
        let bytes = std::fs::metadata(self.broker.data_dir().join("leasehold.db")).unwrap().len();
        let row = Row::value(GROUP, "the store's file", BY, bytes as f64 / 1_048_576.0, "MiB");
        let secs = begun.elapsed().as_secs();
        self.bench.add(row.with_note(format!(
            "{} secrets and {} leases, filled in {secs} s",
            count_of(count),
            count_of(count)
        )));
    }

    /// Starts it anew; answers with its resident memory once it has answered.
    async fn restart(&self, how: &str) -> f64 {
        self.progress(&format!("start, {how}"));
        self.broker.start_again();
        let begun = Instant::now();
        self.broker.unseal().await;
        let mut session = Session::new(self.client.clone());
        session.ask(Ask::get("/v1/secret/data/bench")).await.unwrap();
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        let title = format!("unseal to first answer, {how}");
        let row = Row::value(GROUP, &title, BY, took, "ms");
        self.bench.add(row.within("<= 1000 ms", took <= 1000.0));
        target::resident_mib(u32::try_from(self.broker.pid()).unwrap())
    }

    /// Reads, lists and searches.
    async fn look(&self) {
        let load = Load {
            mode: Mode::KeepAlive,
            connections: CONNECTIONS,
            pace: Pace::Closed,
            time: self.bench.arguments.round() * 3,
        };
        self.progress("read and list");
        for (title, run) in [
            ("read any of them", driver::run(&self.client, load, self.read.clone()).await),
            ("list 1,000 names", driver::run(&self.client, load, List).await),
        ] {
            let row = Row::of(GROUP, title, BY, &run);
            self.bench.add(Row { connections: Some(CONNECTIONS), ..row });
        }
        self.progress("search");
        let root = self.root();
        let lease = json!({ "lease_id": self.issued[5] });
        let entity =
            root.write("sys/leases/lookup", lease.clone()).await.data()["entity_id"].clone();
        let found = json!({ "entity_id": entity, "limit": 100 });
        for (title, path, body) in [
            ("look up one lease", "sys/leases/lookup", &lease),
            ("search by owner, first 100 of its leases", "sys/leases/search", &found),
        ] {
            let mut latencies = Histogram::new();
            let begun = Instant::now();
            for _ in 0..LOOKS {
                let asked = Instant::now();
                root.write(path, body.clone()).await.ok();
                latencies.record(asked.elapsed());
            }
            let rate = LOOKS as f64 / begun.elapsed().as_secs_f64();
            let row = Row::value(GROUP, title, BY, rate, "/s");
            let row = Row { saturated_ms: Latency::of(&latencies), connections: Some(1), ..row };
            self.bench.add(row);
        }
        let asked = Instant::now();
        root.read("sys/leases/count").await.ok();
        let millis = asked.elapsed().as_secs_f64() * 1000.0;
        self.bench.add(Row::value(GROUP, "count all leases", BY, millis, "ms"));
    }

    async fn revoke_prefix(&self) {
        let quiet = self.reads_for(Duration::from_secs(3)).await;
        self.progress(&format!("revoke {} by prefix", self.each));
        let begun = Instant::now();
        let (reads, ()) = self
            .reads_while(async {
                let path = "sys/leases/revoke-prefix/database/creds/r1";
                let answer = self.root().write(path, json!({})).await;
                assert!((200..300).contains(&answer.status), "{}", answer.body);
                self.until_gone("r1").await;
            })
            .await;
        let rate = self.each as f64 / begun.elapsed().as_secs_f64();
        let title = format!("revoke {} leases by prefix", count_of(self.each));
        self.bench.add(Row::value(GROUP, &title, BY, rate, "/s"));
        self.compared("reads while that goes on", &reads, &quiet);
    }

    /// A role's worth falls due in one second; in the middle of it the broker is killed.
    async fn expire(&self) {
        let before = self.count().await;
        self.progress(&format!("{} leases that end together", self.each));
        self.broker.stop();
        let due = SystemClock.now().plus(AHEAD);
        let fill = Fill::open(&self.broker).await.leases(&self.issued[2], self.each, due).await;
        fill.close().await;
        self.restart("leases about to end").await;
        let left = due_in(due).saturating_sub(Duration::from_millis(500));
        assert!(!left.is_zero(), "the store was not filled in time");
        let quiet = self.reads_for(left).await;
        self.progress("they end");
        tokio::time::sleep(due_in(due)).await;
        let begun = Instant::now();
        let reads = self.reads_for(BEFORE_KILL).await;
        self.compared("reads while they end", &reads, &quiet);
        self.progress("kill and start again");
        self.broker.kill();
        self.restart("killed in the middle").await;
        let (reads, ()) = self.reads_while(self.until_count(before)).await;
        let rate = self.each as f64 / begun.elapsed().as_secs_f64();
        let title = format!("end {} leases due together, killed once", count_of(self.each));
        let row = Row::value(GROUP, &title, BY, rate, "/s");
        let after = self.count().await;
        self.bench.add(row.with_note(format!("{before} leases before, {after} after")));
        self.compared("reads while the rest ends", &reads, &quiet);
    }

    fn compared(&self, title: &str, during: &Run, quiet: &Run) {
        let millis = |run: &Run| run.latencies.at(0.99).as_secs_f64() * 1000.0;
        let ratio = millis(during) / millis(quiet);
        let met = ratio <= 2.0 && during.done > 0 && during.failed == 0;
        let row = Row::value(GROUP, title, BY, READS_PER_SEC, "/s");
        let row = row.within("p99 <= 2 x quiet, none failed", met);
        self.bench.add(Row {
            ratio: Some(ratio),
            connections: Some(CONNECTIONS),
            paced_ms: Latency::of(&during.latencies),
            paced_rate: Some(READS_PER_SEC),
            failed: during.failed,
            note: format!("quiet p99 {:.2} ms", millis(quiet)),
            ..row
        });
    }

    async fn reads_for(&self, time: Duration) -> Run {
        let pace = Pace::Rate(READS_PER_SEC);
        let load = Load { mode: Mode::KeepAlive, connections: CONNECTIONS, pace, time };
        driver::run(&self.client, load, self.read.clone()).await
    }

    /// Reads until `what` is over.
    async fn reads_while<T>(&self, what: impl Future<Output = T>) -> (Run, T) {
        let over = std::cell::Cell::new(false);
        let reading = async {
            let mut all = Run::nothing();
            while !over.get() {
                all.add(self.reads_for(Duration::from_secs(1)).await);
            }
            all
        };
        let what = async {
            let outcome = what.await;
            over.set(true);
            outcome
        };
        tokio::join!(reading, what)
    }

    /// Waits until a role has no leases.
    async fn until_gone(&self, role: &str) {
        let root = self.root();
        let found = json!({ "mount": "database/", "role": role, "limit": 1 });
        while root.write("sys/leases/search", found.clone()).await.data()["lease_count"] != json!(0)
        {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn until_count(&self, count: u64) {
        while self.count().await > count {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn count(&self) -> u64 {
        self.root().read("sys/leases/count").await.data()["lease_count"].as_u64().unwrap()
    }
}

/// How long until then.
fn due_in(due: Timestamp) -> Duration {
    let millis = due.as_millis() - SystemClock.now().as_millis();
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

fn count_of(count: usize) -> String {
    super::report::grouped(count as f64)
}
