//! The running server: configuration, TLS, connections, logs and metrics, and the process itself.
//! The only place that wires the parts together.

pub mod config;
pub mod process;
pub mod telemetry;
