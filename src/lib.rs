//! Leasehold: a secrets broker.

pub mod crypto;
pub mod storage;
pub mod types;
