//! What the server tells administrators about itself, and what they may change while it runs.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::config::Config;
use super::host;
use super::telemetry::{self, LevelError};
use crate::core::error::CoreError;
use crate::core::process::ServerProcess;

/// The facts about this process.
pub(super) struct ProcessFacts {
    config: Config,
}

impl ProcessFacts {
    /// Of a process that was started with `config`.
    pub(super) fn new(config: &Config) -> Self {
        Self { config: config.clone() }
    }
}

impl ServerProcess for ProcessFacts {
    fn host(&self) -> Map<String, Value> {
        host::look(&self.config.server.data_dir)
    }

    fn configuration(&self) -> Map<String, Value> {
        sanitized(&self.config)
    }

    fn log_levels(&self) -> BTreeMap<String, &'static str> {
        telemetry::log_levels().map(|levels| levels.shown()).unwrap_or_default()
    }

    fn set_log_level(&self, module: Option<&str>, level: &str) -> Result<(), CoreError> {
        let levels = telemetry::log_levels().ok_or(CoreError::Unsupported)?;
        levels.set(module, level).map_err(refused)
    }

    fn reset_log_level(&self, module: Option<&str>) -> Result<(), CoreError> {
        let levels = telemetry::log_levels().ok_or(CoreError::Unsupported)?;
        levels.reset(module).map_err(refused)
    }
}

fn refused(error: LevelError) -> CoreError {
    match error {
        LevelError::NoLevel => {
            CoreError::field("level", "must be trace, debug, info, warn, error or off")
        }
        LevelError::NoModule => CoreError::NotFound,
    }
}

/// Paths and URLs stay out: they say where secrets are.
fn sanitized(config: &Config) -> Map<String, Value> {
    let listeners: Vec<Value> = config
        .listeners
        .iter()
        .map(|listener| {
            json!({
                "type": "tcp",
                "config": {
                    "name": listener.name,
                    "address": listener.address,
                    "client_certificate": listener.client_certificate,
                    "tls_disable": false,
                },
            })
        })
        .collect();
    let seals: Vec<Value> =
        config.seals.iter().map(|seal| json!({ "type": seal.kind, "disabled": false })).collect();
    let sinks: Vec<Value> =
        config.audit_sinks.iter().map(|sink| json!({ "type": sink.kind })).collect();
    let server = &config.server;
    let all = [
        ("audit", json!(sinks)),
        ("cluster_name", json!(server.cluster_name)),
        ("node_name", json!(server.node_name)),
        ("default_lease_ttl", json!(config.leases.default_ttl.duration().as_secs())),
        ("disable_mlock", json!(!server.lock_memory)),
        ("enable_ui", json!(false)),
        ("listeners", json!(listeners)),
        ("log_format", json!(server.log_format)),
        ("log_level", json!(server.log_level)),
        ("max_lease_ttl", json!(config.leases.max_ttl.duration().as_secs())),
        ("max_request_duration", json!(server.request_timeout.duration().as_secs())),
        ("max_request_size", json!(server.max_body.bytes())),
        ("seals", json!(seals)),
        ("storage", json!({ "type": config.storage.kind })),
        (
            "telemetry",
            json!({ "unauthenticated_metrics": config.telemetry.unauthenticated_metrics }),
        ),
    ];
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
