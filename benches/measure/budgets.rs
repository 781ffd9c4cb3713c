//! What the broker costs beside what is done anyway, row by row, with its budget.
//!
//! Each row runs the counterpart and the broker one after the other, with the same TLS, the same
//! client and the same number of connections. Rounds alternate, so that a machine that changes speed
//! changes both; medians are what counts.

mod credential;
mod idle;
mod store;
mod sweep;

use std::time::Duration;

use super::Bench;
use super::driver::{self, Load, Pace, Run};
use super::furnish;
use super::report::{Latency, Row};
use super::session::{Client, Session};
use super::support::broker::Pki;
use super::target::{self, Kind, Target};
use super::workloads::{FirstStart, Work};

const GROUP: &str = "budgets";
const READ_CONNECTIONS: usize = 32;
const START_CONNECTIONS: usize = 8;
const WRITE_CONNECTIONS: usize = 16;
/// Length of a round in which each certificate is new; more of them are made than it can use up.
const FIRST_ROUND: Duration = Duration::from_secs(1);
const FIRST_STARTS_MAX: usize = 8_000;

/// Rounds of both in turn.
struct Pairs {
    plain: Vec<Run>,
    broker: Vec<Run>,
}

impl Pairs {
    /// The row of the medians.
    fn row(&self, work: &str, beside: &str, budget: &'static str, at_least: f64) -> Row {
        let rates = |runs: &[Run]| median(runs.iter().map(Run::rate).collect());
        let pairs = self.plain.iter().zip(&self.broker);
        let ratio = median(pairs.map(|(plain, broker)| broker.rate() / plain.rate()).collect());
        let plain = super::report::grouped(rates(&self.plain));
        let last = self.broker.last().unwrap();
        let row = Row::value(GROUP, work, Kind::Sqlite.name(), rates(&self.broker), "/s");
        Row {
            ratio: Some(ratio),
            saturated_ms: Latency::of(&last.latencies),
            failed: self.broker.iter().map(|run| run.failed).sum(),
            ..row.within(budget, ratio >= at_least).with_note(format!("{beside}: {plain}/s"))
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Bench {
    pub async fn budgets(&self, rows: &[&'static str]) {
        if ["read", "start", "write", "credential"].iter().any(|row| rows.contains(row)) {
            let pki = target::pki();
            let identity = target::identity(&pki);
            let broker = Target::start(Kind::Sqlite, identity.path(), &pki, None).await.unwrap();
            let workload = target::workload(&pki, "bench");
            let client = broker.client(&workload);
            let mut session = Session::new(client.clone());
            let bytes = Work::KvRead.measured(&mut session).await.unwrap();
            let bare = Target::bare(identity.path(), &pki, bytes);
            let bare = bare.client(&workload);
            for row in rows {
                match *row {
                    "read" => {
                        let load = self.closed(Work::KvRead, READ_CONNECTIONS);
                        let pairs = self.paired(
                            "read",
                            async || driver::run(&bare, load, Work::KvRead).await,
                            async || driver::run(&client, load, Work::KvRead).await,
                        );
                        let row = pairs.await.row("read one secret", "bare", ">= 0.85", 0.85);
                        self.add(Row { connections: Some(READ_CONNECTIONS), ..row });
                    }
                    "start" => {
                        let load = self.closed(Work::Start, START_CONNECTIONS);
                        let pairs = self.paired(
                            "start",
                            async || driver::run(&bare, load, Work::Start).await,
                            async || driver::run(&client, load, Work::Start).await,
                        );
                        let work = "connect with a full handshake, one secret";
                        let row = pairs.await.row(work, "bare", ">= 0.9", 0.9);
                        self.add(Row { connections: Some(START_CONNECTIONS), ..row });
                        self.first_starts(&pki, &bare, &client).await;
                    }
                    "write" => {
                        let load = self.closed(Work::KvWrite, WRITE_CONNECTIONS);
                        let time = self.round_of_budgets();
                        let pairs = self.paired(
                            "write",
                            async || store::commit_groups_of_16(time),
                            async || driver::run(&client, load, Work::KvWrite).await,
                        );
                        let row = pairs.await.row("durable write", "bare SQLite", ">= 0.7", 0.7);
                        self.add(Row { connections: Some(WRITE_CONNECTIONS), ..row });
                    }
                    "credential" => {
                        let root = broker.root().unwrap();
                        let postgres = target::durable_postgres();
                        root.write(
                            "sys/mounts/database",
                            serde_json::json!({ "type": "database" }),
                        )
                        .await
                        .ok();
                        furnish::connection(&root, &postgres).await;
                        furnish::database_role(&root, "bench", "").await;
                        self.credentials(&root, &client, &postgres).await;
                    }
                    _ => {}
                }
            }
        }
        if rows.contains(&"sweep") {
            self.sweeping().await;
        }
        if rows.contains(&"idle") {
            self.idle();
        }
    }

    fn rounds(&self) -> usize {
        self.arguments.choose(1, 3, 5)
    }

    fn round_of_budgets(&self) -> Duration {
        Duration::from_secs_f64(self.arguments.choose(0.5, 3.0, 8.0))
    }

    fn closed(&self, work: Work, connections: usize) -> Load {
        let time = self.round_of_budgets();
        Load { mode: work.mode(), connections, pace: Pace::Closed, time }
    }

    async fn paired(
        &self,
        name: &str,
        plain: impl AsyncFn() -> Run,
        broker: impl AsyncFn() -> Run,
    ) -> Pairs {
        let mut pairs = Pairs { plain: Vec::new(), broker: Vec::new() };
        for round in 1..=self.rounds() {
            self.progress(&format!("budgets/{name}: round {round} of {}", self.rounds()));
            pairs.plain.push(plain().await);
            pairs.broker.push(broker().await);
            for run in [pairs.plain.last(), pairs.broker.last()].into_iter().flatten() {
                assert!(run.done > 0, "nothing was done: {:?}", run.first_failure);
            }
        }
        pairs
    }

    /// Starts of workloads that the broker does not know yet, whose chains it has to verify.
    async fn first_starts(&self, pki: &Pki, bare: &Client, broker: &Client) {
        self.progress("budgets/start: certificates");
        let one = |number| broker.shows(&target::workload(pki, &format!("start-{number}")));
        let clients: Vec<Client> = (0..self.rounds() * FIRST_STARTS_MAX).map(one).collect();
        let at_bare =
            FirstStart::new(clients.iter().map(|client| client.to(bare.address())).collect());
        let at_broker = FirstStart::new(clients);
        let load = Load { time: FIRST_ROUND, ..self.closed(Work::Start, START_CONNECTIONS) };
        let pairs = self.paired(
            "start",
            async || driver::run(bare, load, at_bare.clone()).await,
            async || driver::run(broker, load, at_broker.clone()).await,
        );
        let work = "the same, each with a certificate never seen before";
        let row = pairs.await.row(work, "bare", ">= 0.9", 0.9);
        self.add(Row { connections: Some(START_CONNECTIONS), ..row });
    }

    async fn sweeping(&self) {
        let mut pairs = Pairs { plain: Vec::new(), broker: Vec::new() };
        let leases = self.arguments.choose(5_000, 100_000, 100_000);
        for round in 1..=self.rounds() {
            self.progress(&format!("budgets/sweep: round {round} of {}", self.rounds()));
            let (swept, bytes) = sweep::sweep(leases).await;
            pairs.broker.push(swept);
            pairs.plain.push(sweep::delete(leases, bytes));
        }
        let work = format!("sweep {} due leases, target does nothing", leases);
        self.add(pairs.row(&work, "bare SQLite", ">= 0.5", 0.5));
    }

    /// Resident memory of an idle broker, and the time from exec to the first answered request.
    fn idle(&self) {
        self.progress("budgets/idle");
        let started: Vec<idle::Started> = (0..self.rounds()).map(|_| idle::start()).collect();
        let resident = median(started.iter().map(|one| one.resident_mib).collect());
        let ready = median(started.iter().map(|one| one.ready_millis).collect());
        let row = |work, value, unit, budget, max| {
            Row::value(GROUP, work, Kind::Sqlite.name(), value, unit).within(budget, value <= max)
        };
        self.add(row("idle resident memory", resident, "MiB", "<= 30 MiB", 30.0));
        self.add(row("cold start to ready", ready, "ms", "<= 150 ms", 150.0));
    }
}
