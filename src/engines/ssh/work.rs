//! Making keys and signing, off the threads that serve requests and never too much of it at once.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::core::error::CoreError;
use crate::types::time::Ttl;

/// Most at once: a new RSA key takes a processor for seconds.
const RUNNING_MAX: usize = 2;
/// Most that wait for their turn, or run. Whoever comes then is told to try again.
const WAITING_MAX: usize = 64;
const RETRY_AFTER: Ttl = Ttl::from_secs(1);

/// The turns of one kind of work on one mount.
pub(super) struct KeyWork {
    places: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Default for KeyWork {
    fn default() -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { places: semaphore(WAITING_MAX), running: semaphore(RUNNING_MAX) }
    }
}

impl KeyWork {
    /// Runs `work` when it is its turn.
    ///
    /// # Errors
    /// `Overloaded` when too many wait; otherwise what `work` answers.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, CoreError> + Send + 'static,
    ) -> Result<T, CoreError> {
        let overloaded = || CoreError::Overloaded { retry_after: RETRY_AFTER };
        let place = self.places.clone().try_acquire_owned().map_err(|_| overloaded())?;
        let turn = self.running.clone().acquire_owned().await.map_err(|_| overloaded())?;
        // The work keeps its place and turn: a request that is given up does not make room for more.
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop((turn, place));
            result
        });
        done.await.map_err(|_| CoreError::internal("the making of a key was cut off"))?
    }
}
