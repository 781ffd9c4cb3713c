//! Logs and metrics.
//!
//! Only this program's own modules are ever logged below `info`: what libraries print when they
//! debug themselves (frames, statements, handshakes) may hold what must not be in a log.

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use super::config::LogFormat;

/// The crate whose modules may be named in a level.
const OWN_TARGET: &str = "leasehold";

/// Bounds of every `*_seconds` histogram.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Starts logging to standard error, once per process.
///
/// # Errors
/// A level that cannot be parsed, or logging that is already started.
pub fn start_logging(format: LogFormat, level: &str) -> Result<(), TelemetryError> {
    let targets = parse_level(level)?;
    let terminal = std::io::stderr().is_terminal();
    let human = match format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let layer = fmt::layer().with_writer(std::io::stderr);
    let layer = if human {
        layer.with_ansi(terminal).boxed()
    } else {
        layer.json().flatten_event(true).with_current_span(false).boxed()
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(targets))
        .try_init()
        .map_err(|_| TelemetryError::LoggingStarted)
}

/// Parses a level, or a list such as `info,leasehold::core=debug`.
///
/// # Errors
/// What is no level, and modules of other crates.
pub fn parse_level(text: &str) -> Result<Targets, TelemetryError> {
    let bad = || TelemetryError::Level { text: text.to_owned() };
    let mut targets = Targets::new().with_default(LevelFilter::INFO);
    for part in text.split(',') {
        match part.trim().split_once('=') {
            None => {
                let level: LevelFilter = named_level(part.trim()).ok_or_else(bad)?;
                targets = targets
                    .with_default(level.min(LevelFilter::INFO))
                    .with_target(OWN_TARGET, level);
            }
            Some((target, level)) => {
                if target != OWN_TARGET && !target.starts_with("leasehold::") {
                    return Err(bad());
                }
                targets = targets.with_target(target, named_level(level).ok_or_else(bad)?);
            }
        }
    }
    Ok(targets)
}

fn named_level(name: &str) -> Option<LevelFilter> {
    // LevelFilter also parses numbers, which mean the opposite to some readers.
    let word = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic());
    if word { name.parse().ok() } else { None }
}

/// The metrics of this process, in Prometheus' text form.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Installs the recorder that every `metrics` macro writes to. Later calls answer the same one.
    ///
    /// # Errors
    /// When something else is recording already.
    pub fn install() -> Result<Self, TelemetryError> {
        static INSTALLED: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
        let handle = INSTALLED.get_or_init(|| {
            PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
                .ok()
                .and_then(|builder| builder.install_recorder().ok())
        });
        handle.clone().map(|handle| Self { handle }).ok_or(TelemetryError::MetricsTaken)
    }

    /// Every metric as it is now, the process' own included.
    pub fn render(&self) -> String {
        record_process();
        self.handle.render()
    }

    /// Keeps histograms from growing between scrapes. Runs until it is dropped.
    pub async fn keep_up(self) {
        const EVERY: Duration = Duration::from_secs(5);
        loop {
            tokio::time::sleep(EVERY).await;
            self.handle.run_upkeep();
        }
    }
}

/// Resident memory and open files, as far as the system tells.
fn record_process() {
    if let Some(bytes) = resident_bytes() {
        metrics::gauge!("process_resident_memory_bytes").set(bytes);
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        metrics::gauge!("process_open_fds")
            .set(f64::from(u32::try_from(entries.count()).unwrap_or(u32::MAX)));
    }
}

fn resident_bytes() -> Option<f64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u32 = statm.split_whitespace().nth(1)?.parse().ok()?;
    let page_bytes = u32::try_from(rustix::param::page_size()).ok()?;
    Some(f64::from(pages) * f64::from(page_bytes))
}

/// Why logs or metrics could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Not a level.
    #[error("{text:?} is no level")]
    Level {
        /// What was given.
        text: String,
    },
    /// Logging was started before.
    #[error("logging has already been started")]
    LoggingStarted,
    /// Another recorder is installed.
    #[error("metrics are already recorded by something else")]
    MetricsTaken,
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn libraries_are_never_heard_below_info() {
        for text in ["trace", "debug", "info,leasehold=trace", "trace,leasehold::core=debug"] {
            let targets = parse_level(text).unwrap();
            assert!(!targets.would_enable("tokio_postgres::prepare", &Level::DEBUG), "{text}");
            assert!(!targets.would_enable("h2::codec", &Level::TRACE), "{text}");
            assert!(targets.would_enable("h2::codec", &Level::INFO), "{text}");
        }
        let quiet = parse_level("warn").unwrap();
        assert!(!quiet.would_enable("h2", &Level::INFO));
        let mixed = parse_level("warn,leasehold::core=debug").unwrap();
        assert!(mixed.would_enable("leasehold::core::lease", &Level::DEBUG));
        assert!(!mixed.would_enable("leasehold::api", &Level::INFO));
    }

    #[test]
    fn what_is_no_level_is_refused() {
        for text in ["", "loud", "3", "h2=trace", "leaseholder=trace", "leasehold=", "info,,warn"] {
            assert!(parse_level(text).is_err(), "{text}");
        }
    }

    #[test]
    fn metrics_are_rendered_with_buckets_and_the_process() {
        let recorded = Metrics::install().unwrap();
        metrics::histogram!("test_wait_seconds").record(0.002);
        let text = recorded.render();
        assert!(text.contains("test_wait_seconds_bucket{le=\"0.0025\"} 1"), "{text}");
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
        assert!(Metrics::install().unwrap().render().contains("test_wait_seconds_bucket"));
    }
}
