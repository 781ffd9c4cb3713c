//! All integration tests, in one binary.

mod database;
mod storage;
mod support;
