//! Password hashing, off the threads that serve requests and never too much of it at once.

use crate::core::error::CoreError;
use crate::core::work::WorkQueue;
use crate::crypto::password::{PasswordError, PasswordHash};
use crate::types::secret::SecretString;

/// Most hashes at once: each takes a processor and 19 MiB.
const RUNNING_MAX: usize = 4;
/// Most that wait for their turn, or run.
const WAITING_MAX: usize = 64;

/// The password hashing of a server, shared by all its mounts.
pub struct PasswordWork(WorkQueue);

impl Default for PasswordWork {
    fn default() -> Self {
        Self(WorkQueue::per_processor(RUNNING_MAX, WAITING_MAX))
    }
}

impl PasswordWork {
    /// What `password` is kept as.
    pub(super) async fn hash(&self, password: SecretString) -> Result<PasswordHash, CoreError> {
        self.run(move || PasswordHash::of(&password)).await
    }

    /// Whether `password` is the one that was hashed; never, but not sooner, when there is no hash.
    pub(super) async fn verify(
        &self,
        stored: Option<PasswordHash>,
        password: SecretString,
    ) -> Result<bool, CoreError> {
        self.run(move || PasswordHash::verify(stored.as_ref(), &password)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, CoreError> {
        let counted = move || {
            metrics::counter!("leasehold_password_hashes_total").increment(1);
            work()
        };
        self.0.run(counted).await?.map_err(|error| CoreError::internal(error.to_string()))
    }
}
