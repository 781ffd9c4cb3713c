//! The tables below `sys/`: each lists its routes with their fields and serves them with one core call.

pub mod audit;
pub mod cors;
pub mod counters;
pub mod leases;
pub mod lockouts;
pub mod metrics;
pub mod mfa;
mod mount_headers;
pub mod mounts;
pub mod passwords;
pub mod plugins;
pub mod policies;
pub mod quotas;
pub mod server;
pub mod specs;
pub mod tools;
pub mod ui;
pub mod wrapping;

use crate::core::context::SystemRoutes;
use crate::core::route::Access;
use crate::core::seal::SealRoutes;

/// All of them, for the server to install. `metrics_access` says who may read the metrics.
pub fn tables(
    render_metrics: metrics::Render,
    metrics_access: Access,
) -> Vec<Box<dyn SystemRoutes>> {
    vec![
        Box::new(SealRoutes),
        Box::new(audit::AuditRoutes),
        Box::new(cors::CorsRoutes),
        Box::new(counters::CounterRoutes),
        Box::new(mounts::MountRoutes),
        Box::new(lockouts::LockoutRoutes),
        Box::new(mfa::MfaValidation),
        Box::new(policies::PolicyRoutes),
        Box::new(passwords::PasswordPolicyRoutes),
        Box::new(leases::LeaseRoutes),
        Box::new(quotas::QuotaRoutes),
        Box::new(specs::SpecRoutes),
        Box::new(tools::ToolRoutes),
        Box::new(ui::UiRoutes),
        Box::new(server::ServerRoutes),
        Box::new(plugins::PluginRoutes),
        Box::new(wrapping::WrappingRoutes),
        Box::new(metrics::MetricsRoutes::new(render_metrics, metrics_access)),
    ]
}
