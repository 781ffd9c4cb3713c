//! Leasehold: a secrets broker.

pub mod api;
pub mod audit;
pub mod auth;
pub mod cli;
pub mod client;
pub mod core;
pub mod crypto;
pub mod engines;
pub mod scheduler;
pub mod server;
pub mod storage;
pub mod types;

#[cfg(test)]
#[path = "../tests/it/support/pki.rs"]
#[allow(dead_code, reason = "shared with the integration tests, which use other parts of it")]
pub(crate) mod pki;
