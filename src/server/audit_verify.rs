//! Checking audit logs, for the command line.

use std::path::PathBuf;

use crate::audit::file::recorded_head;
use crate::audit::verify::{Report, VerifyError, verify_files};

/// Reads logs, oldest first, as one chain that must reach the end recorded beside the newest of
/// them, where there is such a record. A server may go on writing meanwhile.
///
/// # Errors
/// When a log or the record cannot be read. What is wrong with their content is in the report.
pub fn verify(paths: &[PathBuf]) -> Result<Report, VerifyError> {
    // Read before the log, so that the log can only be ahead of it.
    let expected = match paths.last() {
        Some(path) => {
            recorded_head(path).map_err(|source| VerifyError { path: path.clone(), source })?
        }
        None => None,
    };
    verify_files(paths, expected)
}
