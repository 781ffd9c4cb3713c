//! Every workload at every number of connections, against every server in turn, so that a machine that
//! changes speed changes all of them. First as fast as it is answered, which gives the rate; then at a
//! fixed rate below, which gives the latencies.

use super::Bench;
use super::driver::{self, Load, Pace};
use super::report::{Latency, Row};
use super::session::{Client, Session};
use super::target::{self, Kind, Target};
use super::workloads::Work;

pub const GROUP: &str = "load";

/// Answers of this size where no broker says how long they are.
const ANSWER_BYTES: usize = 512;

/// A server, and the client that puts the load on it.
struct Loaded {
    target: Target,
    client: Client,
}

impl Bench {
    pub async fn load(&self, works: &[Work]) {
        let pki = target::pki();
        let identity = target::identity(&pki);
        let workload = target::workload(&pki, "bench");
        let database = works.contains(&Work::Credential).then(target::durable_postgres);
        let mut servers = Vec::new();
        for kind in self.arguments.kinds().into_iter().filter(|kind| *kind != Kind::Bare) {
            self.progress(&format!("start {}", kind.name()));
            match Target::start(kind, identity.path(), &pki, database.as_ref()).await {
                Some(target) => {
                    let client = target.client(&workload);
                    servers.push(Loaded { target, client });
                }
                None => self.progress("there is no bao on the PATH; it is left out"),
            }
        }
        for work in works {
            let mut bytes = ANSWER_BYTES;
            if let Some(first) = servers.first() {
                let mut session = Session::new(first.client.clone());
                bytes = work.measured(&mut session).await.expect("the workload does not work");
            }
            let mut turns = Vec::new();
            let bare = Target::bare(identity.path(), &pki, bytes);
            let bare = Loaded { client: bare.client(&workload), target: bare };
            turns.extend(self.arguments.kinds().contains(&Kind::Bare).then_some(&bare));
            turns.extend(&servers);
            for connections in self.arguments.connections() {
                for server in &turns {
                    self.cell(*work, connections, server).await;
                }
            }
        }
    }

    async fn cell(&self, work: Work, connections: usize, server: &Loaded) {
        let name = server.target.kind.name();
        self.progress(&format!("{} at {connections}: {name}", work.name()));
        let load = Load {
            mode: work.mode(),
            connections,
            pace: Pace::Closed,
            time: self.arguments.round(),
        };
        let fastest = driver::run(&server.client, load, work).await;
        let mut row =
            Row { connections: Some(connections), ..Row::of(GROUP, work.title(), name, &fastest) };
        if fastest.done > 0 {
            let pace = self.arguments.pace(fastest.rate());
            let paced = driver::run(&server.client, Load { pace, ..load }, work).await;
            row.failed += paced.failed;
            if row.note.is_empty() {
                row.note = paced.first_failure.clone().unwrap_or_default();
            }
            row.paced_ms = Latency::of(&paced.latencies);
            row.paced_rate = match pace {
                Pace::Rate(rate) => Some(rate),
                Pace::Closed => None,
            };
        }
        row.resident_mib = Some(server.target.resident_mib());
        self.add(row);
    }
}
