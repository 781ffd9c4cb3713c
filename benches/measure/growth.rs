//! What more costs: longer policies, more secrets, longer lists. Leasehold on SQLite.

use std::sync::Arc;

use serde_json::json;

use super::Bench;
use super::driver::{self, Load, Mode, Operation, Pace, Turn};
use super::fill::Fill;
use super::furnish;
use super::report::{Latency, Row};
use super::session::{Ask, Client, Failure, Session};
use super::support::broker::{Broker, DOMAIN, Pki};
use super::support::pki::Spec;
use super::target::{self, Kind};
use super::workloads::ReadAmong;

const GROUP: &str = "growth";
const CONNECTIONS: usize = 32;
/// A policy has a largest size; more paths are more policies.
const PATHS_OF_POLICY: usize = 2500;

#[derive(Clone, Debug)]
struct List(String);

impl Operation for List {
    async fn perform(&self, session: &mut Session, _: Turn) -> Result<(), Failure> {
        session.ask(Ask::get(&self.0)).await.map(|_| ())
    }
}

impl Bench {
    pub async fn growth(&self) {
        let pki = target::pki();
        let broker = target::broker(target::setup(None), &pki).await;
        furnish::all(&broker.root(), &pki.clients.pem(), None).await;
        let client = client(&broker, &pki, "workload");
        for paths in [1, 100, 10_000] {
            self.progress(&format!("growth: a caller with {paths} paths"));
            let client = with_paths(&broker, &pki, paths).await;
            let read = ReadAmong { prefix: "/v1/secret/data/names/000", count: 1, shelved: false };
            let title = format!("read a secret, {} paths in its policies", grouped(paths));
            self.grown(&broker, &client, title, read).await;
        }
        let most = self.arguments.choose(1_000, 10_000, 10_000);
        for count in [10, most] {
            self.progress(&format!("growth: {count} secrets"));
            let prefix = if count == 10 { "/v1/secret/data/few/" } else { "/v1/secret/data/many/" };
            let read = ReadAmong { prefix, count, shelved: false };
            write_all(&client, &read).await;
            let title = format!("read one of {} secrets", grouped(count));
            self.grown(&broker, &client, title, read.clone()).await;
            let list = List(format!("{}?list=true", prefix.replace("data", "metadata")));
            let title = format!("list {} names", grouped(count));
            self.grown(&broker, &client, title, list).await;
        }
        if self.arguments.full {
            self.progress("growth: filling a store with 1,000,000 secrets");
            broker.stop();
            Fill::open(&broker).await.secrets("filled/", 1_000_000).await.close().await;
            broker.start_again();
            broker.unseal().await;
            let read =
                ReadAmong { prefix: "/v1/secret/data/filled/", count: 1_000_000, shelved: true };
            self.grown(&broker, &client, "read one of 1,000,000 secrets".into(), read).await;
        }
    }

    async fn grown(
        &self,
        broker: &Broker,
        client: &Client,
        title: String,
        operation: impl Operation,
    ) {
        let time = self.arguments.round();
        let load =
            Load { mode: Mode::KeepAlive, connections: CONNECTIONS, pace: Pace::Closed, time };
        let fastest = driver::run(client, load, operation.clone()).await;
        let pace = self.arguments.pace(fastest.rate());
        let paced = driver::run(client, Load { pace, ..load }, operation).await;
        self.add(Row {
            connections: Some(CONNECTIONS),
            paced_ms: Latency::of(&paced.latencies),
            paced_rate: Some(fastest.rate() * 0.7),
            resident_mib: Some(target::resident_mib(u32::try_from(broker.pid()).unwrap())),
            ..Row::of(GROUP, &title, Kind::Sqlite.name(), &fastest)
        });
    }
}

fn grouped(count: usize) -> String {
    let text = super::report::grouped(count as f64);
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

fn client(broker: &Broker, pki: &Pki, role: &str) -> Client {
    let name = format!("spiffe://{DOMAIN}/{role}/growth");
    let identity = pki.clients.issue(&Spec::svid(&name).cn(role));
    Client::new(broker.address, &pki.servers.der, &identity)
}

/// A caller whose policies name so many paths; the one it reads is the last.
async fn with_paths(broker: &Broker, pki: &Arc<Pki>, paths: usize) -> Client {
    let role = format!("paths-{paths}");
    let mut policies = Vec::new();
    for first in (0..paths).step_by(PATHS_OF_POLICY) {
        let last = (first + PATHS_OF_POLICY).min(paths);
        let line = |number| match number + 1 == paths {
            true => "path \"secret/data/names/*\" { capabilities = [\"read\"] }\n".to_owned(),
            false => {
                format!("path \"secret/data/team-{number}/app\" {{ capabilities = [\"read\"] }}\n")
            }
        };
        let text: String = (first..last).map(line).collect();
        policies.push((format!("{role}-{first}"), text));
    }
    let policies: Vec<(&str, &str)> =
        policies.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    furnish::role(&broker.root(), &pki.clients.pem(), &role, &policies).await;
    client(broker, pki, &role)
}

/// Writes every secret that `read` reads.
async fn write_all(client: &Client, read: &ReadAmong) {
    const WRITERS: usize = 32;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (client, read) = (client.clone(), read.clone());
        writers.spawn(async move {
            let mut session = Session::new(client);
            let body =
                json!({ "data": { "password": "correct horse battery staple" } }).to_string();
            for number in (writer..read.count).step_by(WRITERS) {
                session.ask(Ask::post(&read.path(number), &body)).await.unwrap();
            }
        });
    }
    writers.join_all().await;
}
