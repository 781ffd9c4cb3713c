//! What tests stand on: real servers, started privately.

pub mod broker;
pub mod core;
pub mod gate;
pub mod needles;
pub mod opened;
#[allow(dead_code, reason = "shared with the library's unit tests, which use other parts of it")]
pub mod pki;
pub mod postgres;
#[allow(dead_code, reason = "shared with the library's unit tests, which use other parts of it")]
pub mod signer;
pub mod sink;
pub mod site;
pub mod slapd;
pub mod sshd;
pub mod target;
pub mod wire;
pub mod wrapped;
