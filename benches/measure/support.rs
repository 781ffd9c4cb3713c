//! The parts of the integration tests that start real servers, used here as they are.

#[path = "../../tests/it/support/broker.rs"]
pub mod broker;
#[path = "../../tests/it/support/core.rs"]
pub mod core;
#[path = "../../tests/it/support/pki.rs"]
pub mod pki;
#[path = "../../tests/it/support/postgres.rs"]
pub mod postgres;
#[path = "../../tests/it/support/wire.rs"]
pub mod wire;
