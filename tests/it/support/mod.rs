//! What tests stand on: real servers, started privately.

pub mod pki;
pub mod postgres;
pub mod wire;
