//! Logs and metrics.
//!
//! Only this program's own modules are ever logged below `info`: what libraries print when they
//! debug themselves (frames, statements, handshakes) may hold what must not be in a log.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

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
    let (filter, handle) = reload::Layer::new(parse_level(level)?);
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
        .with(layer.with_filter(filter))
        .try_init()
        .map_err(|_| TelemetryError::LoggingStarted)?;
    let levels = LogLevels { handle, configured: level.to_owned(), changed: Mutex::default() };
    LEVELS.set(levels).map_err(|_| TelemetryError::LoggingStarted)
}

static LEVELS: OnceLock<LogLevels> = OnceLock::new();

/// What this process logs; `None` before [`start_logging`].
pub fn log_levels() -> Option<&'static LogLevels> {
    LEVELS.get()
}

/// The modules whose levels can be told and changed, each with what is below it.
const MODULES: [&str; 10] = [
    "api",
    "audit",
    "auth",
    "core",
    "crypto",
    "engines",
    "scheduler",
    "server",
    "storage",
    "types",
];

/// What a process logs, and changing that while it runs.
pub struct LogLevels {
    handle: reload::Handle<Targets, Registry>,
    configured: String,
    changed: Mutex<Changed>,
}

/// What differs from the configuration.
#[derive(Default)]
struct Changed {
    all: Option<LevelFilter>,
    modules: BTreeMap<&'static str, LevelFilter>,
}

/// Why a level was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    /// It is none.
    #[error("that is no level")]
    NoLevel,
    /// There is no such module.
    #[error("there is no module of that name")]
    NoModule,
}

impl LogLevels {
    /// From which level on each module is logged.
    pub fn shown(&self) -> BTreeMap<String, &'static str> {
        let targets = self.handle.clone_current().unwrap_or_default();
        let shown = |module: &str| (module.to_owned(), level_of(&targets, module));
        MODULES.into_iter().map(shown).collect()
    }

    /// Logs a module, or everything, from `level` on. What libraries log stays at `info` at least.
    ///
    /// # Errors
    /// See [`LevelError`].
    pub fn set(&self, module: Option<&str>, level: &str) -> Result<(), LevelError> {
        let level = named_level(level).ok_or(LevelError::NoLevel)?;
        let module = module.map(known).transpose()?;
        self.change(|changed| match module {
            Some(module) => {
                changed.modules.insert(module, level);
            }
            None => *changed = Changed { all: Some(level), modules: BTreeMap::new() },
        });
        Ok(())
    }

    /// Logs a module, or everything, as configured.
    ///
    /// # Errors
    /// [`LevelError::NoModule`].
    pub fn reset(&self, module: Option<&str>) -> Result<(), LevelError> {
        let module = module.map(known).transpose()?;
        self.change(|changed| match module {
            Some(module) => {
                changed.modules.remove(module);
            }
            None => *changed = Changed::default(),
        });
        Ok(())
    }

    fn change(&self, edit: impl FnOnce(&mut Changed)) {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        edit(&mut changed);
        let targets = changed.over(&self.configured);
        drop(changed);
        // It can only fail when logging is gone, and then there is nothing to change.
        if self.handle.reload(targets).is_ok() {
            tracing::info!(levels = ?self.shown(), "what is logged was changed");
        }
    }
}

impl Changed {
    fn over(&self, configured: &str) -> Targets {
        let base = match self.all {
            Some(level) => parse_level(&level.to_string()),
            None => parse_level(configured),
        };
        let mut targets = base.unwrap_or_default();
        for (module, level) in &self.modules {
            targets = targets.with_target(format!("{OWN_TARGET}::{module}"), *level);
        }
        targets
    }
}

fn known(name: &str) -> Result<&'static str, LevelError> {
    MODULES.into_iter().find(|module| *module == name).ok_or(LevelError::NoModule)
}

fn level_of(targets: &Targets, module: &str) -> &'static str {
    let target = format!("{OWN_TARGET}::{module}");
    [
        (Level::TRACE, "trace"),
        (Level::DEBUG, "debug"),
        (Level::INFO, "info"),
        (Level::WARN, "warn"),
        (Level::ERROR, "error"),
    ]
    .into_iter()
    .find(|(level, _)| targets.would_enable(&target, level))
    .map_or("off", |(_, name)| name)
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
    fn a_change_while_running_goes_before_the_configuration_and_spares_libraries() {
        let (_layer, handle) =
            reload::Layer::new(parse_level("info,leasehold::core=warn").unwrap());
        let configured = "info,leasehold::core=warn".to_owned();
        let levels = LogLevels { handle, configured, changed: Mutex::default() };
        let of = |module: &str| levels.shown()[module];
        assert_eq!((of("core"), of("api")), ("warn", "info"));
        levels.set(Some("core"), "debug").unwrap();
        assert_eq!((of("core"), of("api")), ("debug", "info"));
        levels.set(None, "trace").unwrap();
        assert_eq!((of("core"), of("api")), ("trace", "trace"));
        let targets = levels.handle.clone_current().unwrap();
        assert!(!targets.would_enable("tokio_postgres::prepare", &Level::DEBUG));
        levels.set(Some("api"), "off").unwrap();
        assert_eq!((of("core"), of("api")), ("trace", "off"));
        levels.reset(Some("api")).unwrap();
        assert_eq!(of("api"), "trace");
        levels.reset(None).unwrap();
        assert_eq!((of("core"), of("api")), ("warn", "info"));
        assert_eq!(levels.set(None, "loud"), Err(LevelError::NoLevel));
        assert_eq!(levels.set(Some("h2"), "info"), Err(LevelError::NoModule));
        assert_eq!(levels.reset(Some("h2")), Err(LevelError::NoModule));
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
