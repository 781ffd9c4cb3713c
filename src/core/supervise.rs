//! Work in the background that goes on whatever happens to it.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;

use super::error::CoreError;
use super::failpoint::panic_point;

/// How long a task that panicked is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// Does `work` until it ends by itself. A panic is counted, and after a moment it is begun anew: a
/// fault that shows itself once must not be what leases are no longer taken back for.
///
/// What the work shares with others has to bear that it was broken off anywhere, as it has to bear the
/// end of the process.
pub async fn supervised<F: Future<Output = ()>>(task: &'static str, mut work: impl FnMut() -> F) {
    for begun in 1_u64.. {
        let ended = AssertUnwindSafe(async {
            panic_point("task.begun", || format!("{task}, begun {begun} times"));
            work().await;
        });
        if ended.catch_unwind().await.is_ok() {
            return;
        }
        count_panic(task);
        tracing::error!(task, "a task in the background panicked, and is begun anew");
        tokio::time::sleep(PAUSE).await;
    }
}

/// What comes of `work`; [`CoreError::Internal`] if it panics, which is counted under `what`.
///
/// # Errors
/// Those of `work`.
pub async fn contained<T>(
    what: &'static str,
    work: impl Future<Output = Result<T, CoreError>>,
) -> Result<T, CoreError> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
        count_panic(what);
        Err(CoreError::internal(format!("the {what} panicked")))
    })
}

/// Counts a panic that did not end what it came from. Where it was has been told by then.
pub fn count_panic(task: &'static str) {
    metrics::counter!("leasehold_task_panics_total", "task" => task).increment(1);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn what_panics_is_begun_anew_until_it_ends() {
        let begun = AtomicU32::new(0);
        let work = || {
            // Before its first step, and between two of them.
            let number = begun.fetch_add(1, Ordering::SeqCst);
            assert!(number != 0, "at once");
            async move {
                tokio::task::yield_now().await;
                assert!(number != 1, "later");
            }
        };
        supervised("tried", work).await;
        assert_eq!(begun.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let fine = contained("trial", async { Ok(7) }).await;
        assert_eq!(fine.unwrap(), 7);
        let broken = contained::<()>("trial", async {
            tokio::task::yield_now().await;
            assert!(std::hint::black_box(false), "it breaks");
            Ok(())
        });
        assert_eq!(broken.await.unwrap_err().reason().as_deref(), Some("the trial panicked"));
    }
}
