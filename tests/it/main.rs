//! All integration tests, in one binary.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy's exceptions for tests do not reach the functions that tests call"
)]
#![allow(
    clippy::disallowed_methods,
    clippy::type_complexity,
    reason = "real processes are waited for in real time; tables of cases are written out"
)]

mod access;
mod audit;
mod cli;
mod client;
mod contract;
#[cfg(feature = "failpoints")]
mod crash;
mod database;
mod database_engine;
mod dependencies;
mod deploy;
mod docs;
#[cfg(feature = "failpoints")]
mod fuzz;
mod golden;
mod guesses;
mod http;
mod kv;
mod ldap;
mod lease;
mod measure;
mod outliving;
mod rest;
mod scheduler;
mod seal;
#[cfg(feature = "failpoints")]
mod simulation;
mod ssh;
mod storage;
#[allow(dead_code, reason = "parts for all tests; not every one is in use all the time")]
mod support;
mod tidy;
mod timing;
mod tls;
mod transit;
