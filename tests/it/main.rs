//! All integration tests, in one binary.

mod cli;
mod database;
mod storage;
mod support;
