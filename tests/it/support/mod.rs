//! What tests stand on: real servers, started privately.

pub mod postgres;
