//! Work that takes long (keys that are made, passwords that are hashed), off the threads that serve
//! requests, never too much of it at once, and leaving nothing on the stack of the thread that did it.

use std::num::NonZero;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::error::CoreError;
use super::seal::scrub_work_stack;
use crate::types::time::Ttl;

const RETRY_AFTER: Ttl = Ttl::from_secs(1);

/// The turns of one kind of work.
pub struct WorkQueue {
    places: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl WorkQueue {
    /// At most `running` at once, and `waiting` that run or wait for their turn: whoever comes then is
    /// told to try again.
    pub fn new(running: usize, waiting: usize) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { places: semaphore(waiting), running: semaphore(running) }
    }

    /// As many at once as there are processors, but no more than `running_max`.
    pub fn per_processor(running_max: usize, waiting: usize) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self::new(processors.min(running_max), waiting)
    }

    /// Does `work` when it is its turn. Once begun it runs to its end, whoever waits for it.
    ///
    /// # Errors
    /// `Overloaded` when too many wait.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CoreError> {
        let overloaded = || CoreError::Overloaded { retry_after: RETRY_AFTER };
        let place = self.places.clone().try_acquire_owned().map_err(|_| overloaded())?;
        let turn = self.running.clone().acquire_owned().await.map_err(|_| overloaded())?;
        // The work keeps its place and turn: a request that is given up does not make room for more.
        let done = tokio::task::spawn_blocking(move || {
            let scrubbed = Scrubbed;
            let result = framed(work);
            drop(scrubbed);
            drop((turn, place));
            result
        });
        done.await.map_err(|_| CoreError::internal("work in a queue was cut off"))
    }

    /// Does `work` here when it is short, and in its turn when it is `long`.
    ///
    /// # Errors
    /// As [`WorkQueue::run`].
    pub async fn run_if<T: Send + 'static>(
        &self,
        long: bool,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CoreError> {
        if long { self.run(work).await } else { Ok(work()) }
    }
}

/// Overwrites what was on the stack below it, also when the work panics.
struct Scrubbed;

impl Drop for Scrubbed {
    fn drop(&mut self) {
        scrub_work_stack();
    }
}

/// A frame of its own, so that what is overwritten afterwards covers all of it.
#[inline(never)]
fn framed<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    fn free(queue: &WorkQueue) -> (usize, usize) {
        (queue.places.available_permits(), queue.running.available_permits())
    }

    #[tokio::test]
    async fn a_flood_is_turned_away_and_leaves_room_when_it_is_over() {
        let queue = WorkQueue::new(2, 3);
        let results = join_all((0..10).map(|n| queue.run(move || n))).await;
        let done: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
        assert_eq!(done, [&0, &1, &2]);
        let refused = |result: &&Result<_, _>| matches!(result, Err(CoreError::Overloaded { .. }));
        assert_eq!(results.iter().filter(refused).count(), 7);
        assert_eq!(queue.run(|| 4).await.unwrap(), 4);
        assert_eq!(free(&queue), (3, 2));
    }

    #[tokio::test]
    async fn what_is_short_is_done_here_and_takes_no_turn() {
        let queue = WorkQueue::new(0, 0);
        let here = std::thread::current().id();
        let there = queue.run_if(false, || std::thread::current().id()).await.unwrap();
        assert_eq!(there, here);
        assert!(queue.run_if(true, || ()).await.is_err());
    }

    #[tokio::test]
    async fn work_whose_asker_is_gone_keeps_its_turn_until_it_ends() {
        let queue = WorkQueue::new(1, 2);
        let (go, waits) = std::sync::mpsc::channel::<()>();
        let mut first = Box::pin(queue.run(move || waits.recv()));
        assert!(futures_util::poll!(first.as_mut()).is_pending());
        drop(first);
        assert_eq!(free(&queue), (1, 0));
        let mut second = Box::pin(queue.run(|| 2));
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        go.send(()).unwrap();
        assert_eq!(second.await.unwrap(), 2);
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_turn_back() {
        let queue = WorkQueue::new(1, 1);
        let failed = queue.run(|| panic!("for the test")).await;
        assert!(matches!(failed, Err(CoreError::Internal { .. })), "{failed:?}");
        assert_eq!(free(&queue), (1, 1));
    }
}
