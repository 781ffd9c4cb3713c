//! What secrets and credentials are made by: one engine behind each mount.

pub mod cubbyhole;
pub mod database;
pub mod kv;
#[cfg(test)]
mod scratch;
pub mod ssh;
pub mod totp;
pub mod transit;
