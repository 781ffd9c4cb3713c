//! What the broker costs beside what is done anyway: `cargo bench`.
//!
//! Each row runs the bare counterpart and the broker one after the other, on the same machine, with
//! the same TLS, the same client and the same number of connections, and prints the ratio that
//! `docs/performance.md` sets a budget for. Rounds alternate, so that a machine that changes speed
//! changes both. `cargo bench -- read write` runs only those rows.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a program that measures and prints, run by people"
)]

#[path = "budgets/bare.rs"]
mod bare;
#[path = "budgets/broker.rs"]
mod broker;
#[path = "../tests/it/support/core.rs"]
#[allow(dead_code, reason = "shared with the integration tests, which use other parts of it")]
mod core;
#[path = "budgets/driver.rs"]
mod driver;
#[path = "budgets/postgres.rs"]
mod postgres;
#[path = "../tests/it/support/postgres.rs"]
#[allow(dead_code, reason = "shared with the integration tests, which use other parts of it")]
mod private_postgres;
#[path = "budgets/store.rs"]
mod store;
#[path = "budgets/sweep.rs"]
mod sweep;

use std::time::Duration;

use broker::Broker;
use driver::{Mode, Run};

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(4);
const READ_CONNECTIONS: usize = 32;
const START_CONNECTIONS: usize = 8;
const WRITE_CONNECTIONS: usize = 16;
const CREDENTIAL_CONNECTIONS: usize = 4;

/// One line of the table.
struct Row {
    work: &'static str,
    bare: f64,
    broker: f64,
    unit: &'static str,
    ratio: f64,
    budget: &'static str,
    met: bool,
    latency: String,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, dir, size] = arguments.as_slice()
        && mode == "--serve-bare"
    {
        return bare::serve(dir, size.parse().unwrap());
    }
    let wanted: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let want = |name: &str| wanted.is_empty() || wanted.iter().any(|w| *w == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();

    let mut rows = Vec::new();
    let broker = Broker::start();
    if want("read") {
        rows.push(runtime.block_on(read(&broker)));
    }
    if want("start") {
        rows.push(runtime.block_on(start(&broker)));
    }
    if want("write") {
        rows.push(runtime.block_on(write(&broker)));
    }
    if want("credential") {
        rows.push(runtime.block_on(postgres::credentials(&broker, CREDENTIAL_CONNECTIONS)));
    }
    drop(broker);
    if want("sweep") {
        rows.push(runtime.block_on(sweeping()));
    }
    if want("idle") {
        rows.extend(idle());
    }
    print(&rows);
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Rounds of both in turn; the medians, the median of the ratios and the broker's last latencies.
async fn paired(
    bare: impl AsyncFn() -> Run,
    broker: impl AsyncFn() -> Run,
) -> (f64, f64, f64, String) {
    let (mut bares, mut brokers, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut latency = String::new();
    for _ in 0..ROUNDS {
        let (a, b) = (bare().await, broker().await);
        assert!(a.done > 0 && b.done > 0, "nothing was measured");
        ratios.push(b.rate() / a.rate());
        bares.push(a.rate());
        brokers.push(b.rate());
        latency = b.latencies();
    }
    (median(bares), median(brokers), median(ratios), latency)
}

async fn read(broker: &Broker) -> Row {
    let answer = broker.client().get_once("/v1/secret/data/bench").await;
    let bare = bare::Server::start(broker.dir(), answer.len());
    let run = async |address: &str, path: &'static str| {
        driver::run(
            &broker.client_to(address),
            Mode::KeepAlive,
            READ_CONNECTIONS,
            ROUND,
            move |_, _| driver::get(path),
        )
        .await
    };
    let (bare, broker, ratio, latency) = paired(
        async || run(bare.address(), "/v1/secret/data/bench").await,
        async || run(broker.address(), "/v1/secret/data/bench").await,
    )
    .await;
    let met = ratio >= 0.85;
    Row {
        work: "read one KV secret, 32 connections",
        bare,
        broker,
        unit: "/s",
        ratio,
        budget: ">= 0.85",
        met,
        latency,
    }
}

async fn start(broker: &Broker) -> Row {
    let answer = broker.client().get_once("/v1/secret/data/bench").await;
    let bare = bare::Server::start(broker.dir(), answer.len());
    let run = async |address: &str| {
        driver::run(
            &broker.client_to(address),
            Mode::Reconnect,
            START_CONNECTIONS,
            ROUND,
            |_, _| driver::get("/v1/secret/data/bench"),
        )
        .await
    };
    let (bare, broker, ratio, latency) =
        paired(async || run(bare.address()).await, async || run(broker.address()).await).await;
    let met = ratio >= 0.9;
    Row {
        work: "start: connect, mTLS handshake, one secret",
        bare,
        broker,
        unit: "/s",
        ratio,
        budget: ">= 0.9",
        met,
        latency,
    }
}

async fn write(broker: &Broker) -> Row {
    let run = async || {
        driver::run(
            &broker.admin_client(),
            Mode::KeepAlive,
            WRITE_CONNECTIONS,
            ROUND,
            |worker, count| {
                driver::post(
                    &format!("/v1/secret/data/bench-write/{worker}/{}", count % 50),
                    r#"{"data":{"password":"0123456789abcdef0123456789abcdef"}}"#,
                )
            },
        )
        .await
    };
    let (bare, broker, ratio, latency) =
        paired(async || store::commit_groups_of_16(ROUND), run).await;
    let met = ratio >= 0.7;
    Row {
        work: "durable KV write, 16 connections",
        bare,
        broker,
        unit: "/s",
        ratio,
        budget: ">= 0.7",
        met,
        latency,
    }
}

async fn sweeping() -> Row {
    let (mut bares, mut brokers, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (swept, bytes) = sweep::sweep().await;
        let deleted = sweep::delete(bytes);
        ratios.push(swept.rate() / deleted.rate());
        bares.push(deleted.rate());
        brokers.push(swept.rate());
    }
    let ratio = median(ratios);
    Row {
        work: "sweep of 100,000 due leases, no-op target",
        bare: median(bares),
        broker: median(brokers),
        unit: "/s",
        ratio,
        budget: ">= 0.5",
        met: ratio >= 0.5,
        latency: String::new(),
    }
}

/// Resident memory of an idle broker, and the time from exec to the first answered request.
fn idle() -> Vec<Row> {
    let mut started = Vec::new();
    let mut resident = Vec::new();
    for _ in 0..ROUNDS {
        let broker = Broker::restart_measured();
        started.push(broker.ready_after.as_secs_f64() * 1000.0);
        resident.push(broker.resident_mib());
    }
    let (resident, started) = (median(resident), median(started));
    let row = |work, value: f64, unit, max: f64, budget| Row {
        work,
        bare: f64::NAN,
        broker: value,
        unit,
        ratio: value / max,
        budget,
        met: value <= max,
        latency: String::new(),
    };
    vec![
        row("idle resident memory", resident, " MiB", 30.0, "<= 30 MiB"),
        row("cold start to ready", started, " ms", 150.0, "<= 150 ms"),
    ]
}

fn print(rows: &[Row]) {
    println!();
    println!("{:<46} {:>12} {:>12} {:>7} {:>11}", "work", "bare", "leasehold", "ratio", "budget");
    for row in rows {
        let bare =
            if row.bare.is_nan() { "-".into() } else { format!("{:.0}{}", row.bare, row.unit) };
        println!(
            "{:<46} {:>12} {:>12} {:>7.2} {:>11}  {}  {}",
            row.work,
            bare,
            format!("{:.0}{}", row.broker, row.unit),
            row.ratio,
            row.budget,
            if row.met { "met" } else { "NOT MET" },
            row.latency,
        );
    }
}
