//! What targets stand on: the core that the integration tests start in their process.

#[path = "../../../it/support/core.rs"]
#[allow(dead_code, reason = "shared with the integration tests, which use other parts of it")]
pub mod core;
