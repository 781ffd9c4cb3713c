//! What the process around the core knows of itself and its machine. The server brings it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::error::CoreError;

/// The running server, as administrators ask about it. What it says and what is changed here is
/// this node's alone, and is forgotten when the process ends.
pub trait ServerProcess: Send + Sync + 'static {
    /// The machine, as it is now: `host`, `memory`, `cpu`, `cpu_times`, `disk`.
    fn host(&self) -> Map<String, Value>;

    /// The configuration in effect, without secrets and without the places where they lie.
    fn configuration(&self) -> Map<String, Value>;

    /// From which level on each module is logged.
    fn log_levels(&self) -> BTreeMap<String, &'static str>;

    /// Logs a module, or everything, from `level` on.
    ///
    /// # Errors
    /// `Invalid` when it is no level, `NotFound` when there is no such module.
    fn set_log_level(&self, module: Option<&str>, level: &str) -> Result<(), CoreError>;

    /// Logs a module, or everything, as the configuration says.
    ///
    /// # Errors
    /// `NotFound` when there is no such module.
    fn reset_log_level(&self, module: Option<&str>) -> Result<(), CoreError>;
}
