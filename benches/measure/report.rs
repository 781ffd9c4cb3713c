//! What was measured: one table for people, the same as JSON for programs.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::driver::Run;
use super::histogram::Histogram;

/// Latencies in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub longest: f64,
}

impl Latency {
    pub fn of(histogram: &Histogram) -> Option<Self> {
        let millis = |share| histogram.at(share).as_secs_f64() * 1000.0;
        (histogram.count() > 0).then(|| Self {
            p50: millis(0.5),
            p99: millis(0.99),
            p999: millis(0.999),
            longest: histogram.longest().as_secs_f64() * 1000.0,
        })
    }
}

/// One line of the table.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// What belongs together.
    pub group: &'static str,
    /// What was done.
    pub work: String,
    /// By whom.
    pub target: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<usize>,
    /// How much of it, or how long it took.
    pub value: f64,
    /// Of what: `/s`, `ms`, `MiB`, …
    pub unit: &'static str,
    /// Beside what is done anyway; by the bare server unless the note says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Of what was asked as fast as it was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saturated_ms: Option<Latency>,
    /// At this many a second, whatever the answers do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paced_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paced_ms: Option<Latency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_mib: Option<f64>,
    /// What was not answered with a success.
    pub failed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub met: Option<bool>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Row {
    /// What a run as fast as possible did.
    pub fn of(group: &'static str, work: &str, target: &'static str, run: &Run) -> Self {
        Self {
            saturated_ms: Latency::of(&run.latencies),
            failed: run.failed,
            note: run.first_failure.clone().unwrap_or_default(),
            ..Self::value(group, work, target, run.rate(), "/s")
        }
    }

    /// A number of whatever kind.
    pub fn value(
        group: &'static str,
        work: &str,
        target: &'static str,
        value: f64,
        unit: &'static str,
    ) -> Self {
        Self { group, work: work.to_owned(), target, value, unit, ..Self::default() }
    }

    /// Says what it may be, and whether it is.
    pub fn within(mut self, budget: &'static str, met: bool) -> Self {
        self.budget = Some(budget);
        self.met = Some(met);
        self
    }

    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// Everything that was measured, and where.
#[derive(Debug, Serialize)]
pub struct Report {
    pub version: &'static str,
    pub commit: String,
    pub day: String,
    pub machine: String,
    /// Whether rounds were too short to be quoted.
    pub quick: bool,
    pub rows: Vec<Row>,
}

impl Report {
    /// Nothing yet.
    pub fn new(quick: bool) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            commit: said("git", &["rev-parse", "--short", "HEAD"]),
            day: said("date", &["+%Y-%m-%d"]),
            machine: machine(),
            quick,
            rows: Vec::new(),
        }
    }

    /// Compares each row that has no ratio yet with the bare server's for the same work.
    pub fn compare(&mut self) {
        let bare: Vec<Row> = self.rows.iter().filter(|row| row.target == "bare").cloned().collect();
        for row in self.rows.iter_mut().filter(|row| row.ratio.is_none() && row.unit == "/s") {
            let same = |one: &&Row| {
                (one.group, &one.work, one.connections) == (row.group, &row.work, row.connections)
            };
            row.ratio = bare.iter().find(same).map(|bare| row.value / bare.value);
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut group = "";
        for row in &self.rows {
            if row.group != group {
                group = row.group;
                let _ = writeln!(text, "\n{group}");
                let _ = writeln!(
                    text,
                    "{:<47} {:>5} {:<20} {:>13} {:>6} {:>24} {:>9}",
                    "work", "conns", "by", "rate or value", "ratio", "p50 / p99 / p99.9 ms", "MiB"
                );
            }
            let _ = writeln!(text, "{}", line(row).trim_end());
        }
        let _ = writeln!(
            text,
            "\n{} {} ({}), {}{}\nratio: to the bare server unless a note says otherwise. Latencies: at \
             a fixed rate where the\nnote names one, counted from when each request was due; else \
             under as much load as is answered.",
            self.version,
            self.commit,
            self.day,
            self.machine,
            if self.quick { ", QUICK: not to be quoted" } else { "" }
        );
        text
    }

    /// For programs.
    pub fn write_json(&self, path: &Path) {
        let text = serde_json::to_string_pretty(self).unwrap();
        std::fs::write(path, text + "\n").unwrap();
    }
}

fn line(row: &Row) -> String {
    let latency = row.paced_ms.or(row.saturated_ms).map_or(String::new(), |latency| {
        format!("{} / {} / {}", short(latency.p50), short(latency.p99), short(latency.p999))
    });
    let mut notes = Vec::new();
    if let Some(rate) = row.paced_rate {
        notes.push(format!("latency at {rate:.0}/s"));
    }
    if let (Some(budget), Some(met)) = (row.budget, row.met) {
        notes.push(format!("budget {budget}: {}", if met { "met" } else { "NOT MET" }));
    }
    if row.failed > 0 {
        notes.push(format!("{} FAILED", row.failed));
    }
    if !row.note.is_empty() {
        notes.push(row.note.clone());
    }
    format!(
        "{:<47} {:>5} {:<20} {:>13} {:>6} {:>24} {:>9}  {}",
        row.work,
        row.connections.map_or(String::new(), |count| count.to_string()),
        row.target,
        format!("{}{}{}", grouped(row.value), if row.unit == "/s" { "" } else { " " }, row.unit),
        row.ratio.map_or(String::new(), |ratio| match ratio {
            small if small < 0.1 => format!("{small:.3}"),
            ratio => format!("{ratio:.2}"),
        }),
        latency,
        row.resident_mib.map_or(String::new(), |mib| format!("{mib:.0}")),
        notes.join("; ")
    )
}

fn short(millis: f64) -> String {
    match millis {
        m if m < 10.0 => format!("{m:.2}"),
        m if m < 100.0 => format!("{m:.1}"),
        m => format!("{m:.0}"),
    }
}

/// With commas between thousands, and decimals where there is little else.
pub fn grouped(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let info = |file: &str, key: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let kib = info("/proc/meminfo", "MemTotal");
    let kib: f64 = kib.trim_end_matches(" kB").parse().unwrap_or(0.0);
    let model = info("/proc/cpuinfo", "model name");
    format!("{cores} cores of {model}, {:.0} GiB, {}", kib / 1_048_576.0, said("uname", &["-sr"]))
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).output();
    output.map_or(String::new(), |out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}
