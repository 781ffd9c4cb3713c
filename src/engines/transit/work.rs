//! Work that takes long, off the threads that serve requests and never too much of it at once.

use std::num::NonZero;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::core::error::CoreError;
use crate::core::seal::scrub_work_stack;
use crate::types::time::Ttl;

/// Most that wait for their turn, or run. Whoever comes then is told to try again.
const WAITING_MAX: usize = 256;
const RETRY_AFTER: Ttl = Ttl::from_secs(1);

/// The long work of a server, shared by all mounts.
pub struct KeyWork {
    places: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Default for KeyWork {
    fn default() -> Self {
        Self::new()
    }
}

impl KeyWork {
    /// As much at once as there are processors.
    pub fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            places: Arc::new(Semaphore::new(WAITING_MAX)),
            running: Arc::new(Semaphore::new(processors)),
        }
    }

    /// Does `work` here when it is short, and elsewhere when it is long.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        long: bool,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CoreError> {
        if !long {
            return Ok(work());
        }
        let overloaded = || CoreError::Overloaded { retry_after: RETRY_AFTER };
        let place = self.places.clone().try_acquire_owned().map_err(|_| overloaded())?;
        let turn = self.running.clone().acquire_owned().await.map_err(|_| overloaded())?;
        // The work keeps its place and turn: a request that is given up does not make room for more.
        let done = tokio::task::spawn_blocking(move || {
            let result = framed(work);
            scrub_work_stack();
            drop((turn, place));
            result
        });
        done.await.map_err(|_| CoreError::internal("the work with a key was cut off"))
    }
}

/// A frame of its own, so that what is overwritten afterwards covers all of it.
#[inline(never)]
fn framed<T>(work: impl FnOnce() -> T) -> T {
    work()
}
