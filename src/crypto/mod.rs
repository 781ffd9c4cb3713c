//! Ciphers, keys and secret sharing. Pure: no I/O, no clock, no storage. The only cipher calls.

pub mod blind;
pub mod envelope;
