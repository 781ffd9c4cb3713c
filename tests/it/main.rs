//! All integration tests, in one binary.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy's exceptions for tests do not reach the functions that tests call"
)]

mod access;
mod audit;
mod cli;
mod client;
mod database;
mod database_engine;
mod deploy;
mod docs;
mod http;
mod kv;
mod lease;
mod seal;
mod storage;
mod support;
mod tidy;
mod tls;
