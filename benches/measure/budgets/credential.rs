//! PostgreSQL credentials: through the broker, and by a bare client that runs the same SQL.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio_postgres::NoTls;

use crate::Bench;
use crate::driver::{self, Load, Mode, Operation, Pace, Run, Turn};
use crate::report::Row;
use crate::session::{Ask, Client, Failure, Session};
use crate::support::broker::Caller;
use crate::support::postgres::TestPostgres;

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A SCRAM verifier of some password; the server only stores it.
const VERIFIER: &str = "SCRAM-SHA-256$4096:MDEyMzQ1Njc4OWFiY2RlZg==$\
    iNCZi3yB2Y4rBhAuDfyBkMqdX9wKPqSFWzgJYdZtO9k=:gVh8Z1tK1hjXzqL6Ox1+ehZ7V0vYQ3C0t9dV3F2mJ0s=";
const CONNECTIONS: usize = 4;

/// Leases and lets be; what was leased is revoked between rounds.
#[derive(Clone, Copy)]
struct Lease;

impl Operation for Lease {
    async fn perform(&self, session: &mut Session, _: Turn) -> Result<(), Failure> {
        session.ask(Ask::get("/v1/database/creds/bench")).await.map(|_| ())
    }
}

impl Bench {
    pub(super) async fn credentials(
        &self,
        root: &Caller,
        client: &Client,
        postgres: &TestPostgres,
    ) {
        // Shorter than other rounds: every user made makes the catalogue of the next larger.
        let time = self.round_of_budgets() / 3;
        let url = postgres.database();
        let load =
            Load { mode: Mode::KeepAlive, connections: CONNECTIONS, pace: Pace::Closed, time };
        let bare = async || bare_clients(&url, CONNECTIONS, time).await;
        let leased = async || {
            let run = driver::run(client, load, Lease).await;
            revoke_all(root).await;
            run
        };
        let pairs = self.paired("credential", bare, leased).await;
        let row = pairs.row("lease one PostgreSQL user", "the same SQL alone", ">= 0.9", 0.9);
        self.add(Row { connections: Some(CONNECTIONS), ..row });
    }
}

async fn revoke_all(root: &Caller) {
    root.write("sys/leases/revoke-prefix/database/creds/bench", json!({})).await.ok();
    loop {
        let left = root.read("sys/leases/count").await.data();
        if left["lease_count"] == json!(0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The same statements in one transaction, by clients that do nothing else.
async fn bare_clients(url: &str, connections: usize, time: Duration) -> Run {
    let mut clients = Vec::new();
    for _ in 0..connections {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        clients.push(client);
    }
    let begun = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for client in clients {
        workers.spawn(async move {
            let mut done = 0;
            while begun.elapsed() < time {
                let name = format!("bare-{}", COUNT.fetch_add(1, Ordering::Relaxed));
                let sql = format!(
                    "BEGIN; CREATE ROLE \"{name}\" LOGIN PASSWORD '{VERIFIER}' VALID UNTIL \
                     '2099-01-01'; GRANT pg_read_all_data TO \"{name}\"; COMMIT"
                );
                client.batch_execute(&sql).await.unwrap();
                done += 1;
            }
            done
        });
    }
    let done = workers.join_all().await.into_iter().sum();
    Run::of(done, begun.elapsed())
}
