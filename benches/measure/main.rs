//! Measures the broker beside what is done anyway, and beside others: `cargo bench`, and
//! `cargo bench -- --help` for what it can be told. `docs/performance.md` says what each row is.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a program that measures and prints, run by people"
)]

mod arguments;
mod bare;
mod budgets;
mod chart;
mod churn;
mod driver;
mod fill;
mod furnish;
mod growth;
mod histogram;
mod idle_target;
mod load;
mod outage;
mod peer;
mod report;
mod scale;
mod session;
mod storm;
#[allow(dead_code, reason = "shared with the integration tests, which use other parts of it")]
mod support;
mod target;
mod workloads;

use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clap::Parser;

use arguments::Arguments;
use report::{Report, Row};

/// One run of this program.
pub struct Bench {
    arguments: Arguments,
    report: Mutex<Report>,
    begun: Instant,
}

fn main() -> std::process::ExitCode {
    let given: Vec<String> = std::env::args().collect();
    if let [_, mode, dir, size] = given.as_slice()
        && mode == "--serve-bare"
    {
        bare::serve(dir, size.parse().unwrap());
        return std::process::ExitCode::SUCCESS;
    }
    let arguments = Arguments::parse();
    if let Some(name) = arguments.unknown() {
        eprintln!("there is nothing called {name:?} to measure; see --help");
        return std::process::ExitCode::FAILURE;
    }
    let bench = Bench {
        report: Mutex::new(Report::new(arguments.quick)),
        arguments,
        begun: Instant::now(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    // Giving up drops what runs, and with it every server that was started; so does a failure, which
    // has been reported by then. What was measured until then is shown all the same.
    let finished = std::panic::catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            tokio::select! {
                () = bench.everything() => true,
                _ = tokio::signal::ctrl_c() => false,
            }
        })
    }))
    .unwrap_or(false);
    bench.summary(finished);
    if finished { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}

impl Bench {
    async fn everything(&self) {
        let budgets = self.arguments.budgets();
        if !budgets.is_empty() {
            self.budgets(&budgets).await;
        }
        let works = self.arguments.works();
        if !works.is_empty() {
            self.load(&works).await;
        }
        if self.arguments.wants("growth") {
            self.growth().await;
        }
        if self.arguments.wants("storm") {
            self.storm().await;
        }
        if self.arguments.wants("scale") {
            self.scale().await;
        }
        if self.arguments.wants("churn") {
            self.churn().await;
        }
        if self.arguments.wants("outage") {
            self.outage().await;
        }
    }

    /// Tells whoever waits.
    fn progress(&self, what: &str) {
        eprintln!("[{:>4} s] {what}", self.begun.elapsed().as_secs());
    }

    fn add(&self, row: Row) {
        self.report.lock().unwrap().rows.push(row);
    }

    fn summary(&self, finished: bool) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.compare();
        println!("{}", report.table());
        if report.rows.is_empty() {
            return;
        }
        report.write_json(&self.arguments.json);
        println!("results: {}", self.arguments.json.display());
        if chart::write(&report, load::GROUP, &self.arguments.svg) {
            println!("chart: {}", self.arguments.svg.display());
        }
        let failed: u64 = report.rows.iter().map(|row| row.failed).sum();
        let missed = report.rows.iter().filter(|row| row.met == Some(false)).count();
        println!(
            "{} rows in {} s; {failed} failures; {missed} budgets not met{}",
            report.rows.len(),
            self.begun.elapsed().as_secs(),
            if finished { "" } else { "; BROKEN OFF" }
        );
    }
}
