//! Leasehold: a secrets broker.

pub mod client;
pub mod core;
pub mod crypto;
pub mod engines;
pub mod storage;
pub mod types;
