//! Password hashing, off the threads that serve requests and never too much of it at once.

use std::num::NonZero;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::core::error::CoreError;
use crate::crypto::password::{PasswordError, PasswordHash};
use crate::types::secret::SecretString;
use crate::types::time::Ttl;

/// Most hashes at once: each takes a processor and 19 MiB.
const RUNNING_MAX: usize = 4;
/// Most that wait for their turn, or run. Whoever comes then is told to try again.
const WAITING_MAX: usize = 64;
const RETRY_AFTER: Ttl = Ttl::from_secs(1);

/// The password hashing of a server, shared by all its mounts.
pub struct PasswordWork {
    places: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Default for PasswordWork {
    fn default() -> Self {
        Self::new()
    }
}

impl PasswordWork {
    /// As much at once as there are processors, and no more than four.
    pub fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self::limited(processors.min(RUNNING_MAX), WAITING_MAX)
    }

    pub(super) fn limited(running: usize, waiting: usize) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { places: semaphore(waiting), running: semaphore(running) }
    }

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
        let overloaded = || CoreError::Overloaded { retry_after: RETRY_AFTER };
        let place = self.places.clone().try_acquire_owned().map_err(|_| overloaded())?;
        let turn = self.running.clone().acquire_owned().await.map_err(|_| overloaded())?;
        metrics::counter!("leasehold_password_hashes_total").increment(1);
        // The work keeps its place and turn: a request that is given up does not make room for more.
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop((turn, place));
            result
        });
        done.await
            .map_err(|_| CoreError::internal("the hashing of a password was cut off"))?
            .map_err(|error| CoreError::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn a_flood_is_turned_away_and_leaves_room_when_it_is_over() {
        let work = PasswordWork::limited(2, 3);
        let given = || SecretString::new("x".into());
        let results = join_all((0..10).map(|_| work.verify(None, given()))).await;
        let done = results.iter().filter(|result| matches!(result, Ok(false))).count();
        let refused = |result: &Result<_, _>| matches!(result, Err(CoreError::Overloaded { .. }));
        let refused = results.iter().filter(|result| refused(result)).count();
        assert_eq!((done, refused), (3, 7));
        assert!(!work.verify(None, given()).await.unwrap());
        assert_eq!((work.places.available_permits(), work.running.available_permits()), (3, 2));
    }
}
