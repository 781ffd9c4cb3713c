//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use super::driver::Pace;
use super::target::Kind;
use super::workloads::Work;

const AFTER_HELP: &str = "\
NAMES:
  budgets     what the broker costs beside what is done anyway, with the budget of each row
  load        every workload at every number of connections, against every server
  growth      what more policies and more secrets cost
  storm       thousands of workloads that start at once
  scale       a million leases and a million secrets in one store (only by name, or with --full)
  churn       how the store's file grows (only by name, or with --full)
  outage      a target that is down for an hour, with its leases overdue (only by name, or with --full)
or single workloads of `load`:
  kv-read kv-list kv-write start login token credential encrypt sign wrapped
or single rows of `budgets`:
  budgets/read budgets/start budgets/write budgets/credential budgets/sweep budgets/idle

OpenBao is measured too when `bao` is on the PATH or LEASEHOLD_BENCH_PEER names it.";

/// Measures Leasehold beside what is done anyway, and beside others.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --", after_help = AFTER_HELP)]
pub struct Arguments {
    /// What to measure: all but `scale`, `churn` and `outage` when nothing is named
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Short rounds and small numbers, to see that it works; not to be quoted
    #[arg(long)]
    pub quick: bool,
    /// Long rounds, and everything
    #[arg(long, conflicts_with = "quick")]
    pub full: bool,
    /// Numbers of connections for `load`
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    pub connections: Vec<usize>,
    /// Only these servers in `load`
    #[arg(long, value_delimiter = ',', value_name = "KIND,…")]
    pub only: Vec<Kind>,
    /// Fixed rate for the latencies of `load`, in operations a second; 70 % of what is possible if none
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    /// Length of one round of `load` and `growth`
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<f64>,
    /// Where the results are written as JSON
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_TARGET_TMPDIR"), "/measured.json"))]
    pub json: PathBuf,
    /// Where the chart of `load` is written
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_TARGET_TMPDIR"), "/measured.svg"))]
    pub svg: PathBuf,
    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

const GROUPS: [&str; 7] = ["budgets", "load", "growth", "storm", "scale", "churn", "outage"];
const LONG: [&str; 3] = ["scale", "churn", "outage"];
const BUDGETS: [&str; 6] = ["read", "start", "write", "credential", "sweep", "idle"];

impl Arguments {
    /// The first name that means nothing.
    pub fn unknown(&self) -> Option<&str> {
        let known = |name: &&String| {
            GROUPS.contains(&name.as_str())
                || Work::ALL.iter().any(|work| work.name() == **name)
                || name.strip_prefix("budgets/").is_some_and(|row| BUDGETS.contains(&row))
        };
        self.names.iter().find(|name| !known(name)).map(String::as_str)
    }

    fn named(&self, name: &str) -> bool {
        self.names.iter().any(|named| named == name)
    }

    /// Whether to measure a whole group.
    pub fn wants(&self, group: &str) -> bool {
        self.named(group) || (self.names.is_empty() && (self.full || !LONG.contains(&group)))
    }

    /// The rows of `budgets` to measure.
    pub fn budgets(&self) -> Vec<&'static str> {
        let wanted = |row: &&str| self.wants("budgets") || self.named(&format!("budgets/{row}"));
        BUDGETS.iter().copied().filter(wanted).collect()
    }

    /// The workloads of `load` to measure.
    pub fn works(&self) -> Vec<Work> {
        let wanted = |work: &Work| self.wants("load") || self.named(work.name());
        Work::ALL.into_iter().filter(wanted).collect()
    }

    /// The servers of `load`.
    pub fn kinds(&self) -> Vec<Kind> {
        let wanted = |kind: &Kind| self.only.is_empty() || self.only.contains(kind);
        Kind::ALL.into_iter().filter(wanted).collect()
    }

    /// The numbers of connections of `load`.
    pub fn connections(&self) -> Vec<usize> {
        match (self.connections.is_empty(), self.quick) {
            (false, _) => self.connections.clone(),
            (true, true) => vec![1, 8],
            (true, false) => vec![1, 8, 32, 128],
        }
    }

    /// The length of one round of `load` and `growth`.
    pub fn round(&self) -> Duration {
        let standard = match (self.quick, self.full) {
            (true, _) => 0.3,
            (_, true) => 5.0,
            _ => 0.8,
        };
        Duration::from_secs_f64(self.seconds.unwrap_or(standard))
    }

    /// The rate at which latencies are measured, when `possible` is what a server can do.
    pub fn pace(&self, possible: f64) -> Pace {
        Pace::Rate(self.rate.unwrap_or(possible * 0.7).max(1.0))
    }

    /// `long` with --full, `quick` with --quick, else `standard`.
    pub fn choose<T>(&self, quick: T, standard: T, long: T) -> T {
        match (self.quick, self.full) {
            (true, _) => quick,
            (_, true) => long,
            _ => standard,
        }
    }
}
