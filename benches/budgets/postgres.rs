//! PostgreSQL credentials: through the broker, and by a bare client that runs the same SQL.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::NoTls;

use super::broker::Broker;
use super::driver::{self, Mode, Run};
use super::private_postgres::TestPostgres;
use super::{Row, paired};

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A SCRAM verifier of some password; the server only stores it.
const VERIFIER: &str = "SCRAM-SHA-256$4096:MDEyMzQ1Njc4OWFiY2RlZg==$\
    iNCZi3yB2Y4rBhAuDfyBkMqdX9wKPqSFWzgJYdZtO9k=:gVh8Z1tK1hjXzqL6Ox1+ehZ7V0vYQ3C0t9dV3F2mJ0s=";

/// Shorter than other rounds: one identity may hold a thousand leases, and each round revokes its own.
const ROUND: Duration = Duration::from_millis(1200);

pub async fn credentials(broker: &Broker, connections: usize) -> Row {
    let time = ROUND;
    let postgres = TestPostgres::start();
    let database = postgres.database();
    let url = postgres.url_for("{{username}}", "{{password}}", "postgres");
    let admin = broker.admin_client();
    let config = serde_json::json!({
        "plugin_name": "postgresql-database-plugin",
        "connection_url": format!("{url}?sslmode=disable"),
        "username": super::private_postgres::SUPERUSER,
        "password": postgres.password(),
        "allowed_roles": "bench",
        "max_open_connections": connections,
    });
    admin.post_once("/v1/database/config/bench", &config.to_string()).await;
    let role = serde_json::json!({
        "db_name": "bench",
        "creation_statements": "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' \
            VALID UNTIL '{{expiration}}'; GRANT pg_read_all_data TO \"{{name}}\"",
        "default_ttl": "1h",
    });
    admin.post_once("/v1/database/roles/bench", &role.to_string()).await;
    let bare = async || bare_clients(&database, connections, time).await;
    let leased = async || {
        let run = driver::run(&admin, Mode::KeepAlive, connections, time, |_, _| {
            driver::get("/v1/database/creds/bench")
        })
        .await;
        let revoke = "/v1/sys/leases/revoke-prefix/database/creds/bench";
        admin.post_once(revoke, r#"{"sync":true}"#).await;
        run
    };
    let (bare, broker, ratio, latency) = paired(bare, leased).await;
    Row {
        work: "one PostgreSQL credential, 4 connections",
        bare,
        broker,
        unit: "/s",
        ratio,
        budget: ">= 0.9",
        met: ratio >= 0.9,
        latency,
    }
}

/// The same statements in one transaction, by clients that do nothing else.
async fn bare_clients(url: &str, connections: usize, time: Duration) -> Run {
    let begun = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let url = url.to_owned();
        workers.spawn(async move {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
            tokio::spawn(connection);
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
    Run::new(done, begun.elapsed())
}
