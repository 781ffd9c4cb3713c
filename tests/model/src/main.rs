//! The files whose promises depend on the order in which threads run, in every order.
//!
//! They are compiled here as they stand in `src`, by their path. What they take from `crate::types::sync`
//! is here a model whose threads change places only where one of them does something that another can
//! notice, and `loom` goes through those places one by one. What they call and what has no part in it,
//! the disk and SQLite, is replaced by something that remembers what it was asked.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy's exceptions for tests do not reach the functions that tests call"
)]

mod audit;
mod core;
mod crypto;
mod orders;
mod store;
mod types;

/// Whatever came past the model would be a place that is not tried.
#[test]
fn nothing_that_is_modelled_meets_in_another_way() {
    for text in [
        include_str!("../../../src/audit/file/turns.rs"),
        include_str!("../../../src/storage/sqlite/reader.rs"),
        include_str!("../../../src/storage/sqlite/threads.rs"),
        include_str!("../../../src/storage/sqlite/writer.rs"),
    ] {
        assert!(text.contains("use crate::types::sync::"));
        for line in text.lines().filter(|line| line.contains("std::")) {
            for way in ["Mutex", "Condvar", "RwLock", "mpsc", "atomic", "thread", "Once"] {
                assert!(!line.contains(way), "{line}");
            }
        }
    }
}
