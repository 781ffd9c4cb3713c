//! Requests that outlive whoever asked: begun, and seen through to their end.
//!
//! A connection that breaks, and a time-out, drop the future of the request that is being served. Half
//! a request is worse than none: what it has committed would count, and what it does after that (a
//! revoked right is forgotten, a cache is emptied) would not be done. So what is left of a request
//! that is dropped goes on in a task of its own. Nothing is spawned for one that is waited for.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::types::time::Ttl;

use super::error::CoreError;

/// With so many of them going on, nothing else is begun: clients that come, ask and go would
/// otherwise pile up work.
const OUTLIVING_MAX: usize = 1024;
const RETRY_AFTER: Ttl = Ttl::from_secs(1);

tokio::task_local! {
    static LEFT: ();
}

/// Whether whoever asked for what runs here is gone.
pub(in crate::core) fn nobody_waits() -> bool {
    LEFT.try_with(|()| ()).is_ok()
}

/// Work that is handed to `left` when it is dropped before its end. What panics is at its end.
pub(in crate::core) struct SeenThrough<F: Future, L: FnOnce(Pin<Box<F>>) + Unpin> {
    /// Away while it is polled.
    work: Option<Pin<Box<F>>>,
    left: Option<L>,
}

/// Runs `work` here, and hands what is left of it to `left` when this is dropped before its end.
pub(in crate::core) fn seen_through<F, L>(work: F, left: L) -> SeenThrough<F, L>
where
    F: Future,
    L: FnOnce(Pin<Box<F>>) + Unpin,
{
    SeenThrough { work: Some(Box::pin(work)), left: Some(left) }
}

impl<F: Future, L: FnOnce(Pin<Box<F>>) + Unpin> Future for SeenThrough<F, L> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // Nothing is here after the end, when nobody may ask any more.
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(cx);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<F: Future, L: FnOnce(Pin<Box<F>>) + Unpin> Drop for SeenThrough<F, L> {
    fn drop(&mut self) {
        if let (Some(work), Some(left)) = (self.work.take(), self.left.take()) {
            left(work);
        }
    }
}

/// The requests that go on although nobody waits for them.
pub struct Outliving {
    tasks: TaskTracker,
    epoch: ArcSwap<Epoch>,
}

/// What was begun before a cut ends with it, also when its asker goes later.
#[derive(Default)]
struct Epoch {
    number: u64,
    cut: CancellationToken,
}

impl Default for Outliving {
    fn default() -> Self {
        Self { tasks: TaskTracker::new(), epoch: ArcSwap::default() }
    }
}

impl Outliving {
    /// Runs `work`, here for as long as this is waited for, and after that in a task of its own.
    pub async fn see_through<F>(&self, work: F) -> F::Output
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let begun_in = self.epoch.load().number;
        seen_through(work, |rest| self.go_on(rest, begun_in)).await
    }

    fn go_on<F>(&self, rest: Pin<Box<F>>, begun_in: u64)
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let epoch = self.epoch.load_full();
        // A runtime that is ending takes everything down with it.
        let Ok(runtime) = Handle::try_current() else { return };
        if epoch.number != begun_in {
            return;
        }
        metrics::counter!("leasehold_requests_outliving_total").increment(1);
        let task = async move {
            tokio::select! {
                _ = LEFT.scope((), rest) => {}
                () = epoch.cut.cancelled() => {
                    metrics::counter!("leasehold_requests_outliving_cut_total").increment(1);
                }
            }
        };
        self.tasks.spawn_on(task.instrument(tracing::Span::current()), &runtime);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.tasks.len()
    }

    /// Whether something more may begin.
    ///
    /// # Errors
    /// `Overloaded` when too many go on.
    pub(in crate::core) fn admit(&self) -> Result<(), CoreError> {
        if self.count() < OUTLIVING_MAX {
            return Ok(());
        }
        Err(CoreError::Overloaded { retry_after: RETRY_AFTER })
    }

    /// Ends those that are going on, wherever they are, and those begun by now when their askers go.
    pub fn cut(&self) {
        let next = |epoch: &std::sync::Arc<Epoch>| Epoch {
            number: epoch.number.wrapping_add(1),
            cut: CancellationToken::new(),
        };
        self.epoch.rcu(next).cut.cancel();
    }

    /// Waits until none goes on, and cuts those that still do after `deadline`.
    pub async fn drain(&self, deadline: Duration) {
        self.tasks.close();
        if tokio::time::timeout(deadline, self.tasks.wait()).await.is_err() {
            tracing::warn!(count = self.count(), "requests that nobody waits for are cut");
            self.cut();
            self.tasks.wait().await;
        }
        self.tasks.reopen();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    /// Work that needs two turns: the first tells that it began, the second that it ended, and
    /// whether somebody waited for it.
    struct Work {
        turns: Arc<Semaphore>,
        ended: Arc<AtomicUsize>,
        unheard: Arc<AtomicUsize>,
    }

    impl Work {
        fn new() -> Self {
            let zero = || Arc::new(AtomicUsize::new(0));
            Self { turns: Arc::new(Semaphore::new(0)), ended: zero(), unheard: zero() }
        }

        fn begin(&self) -> impl Future<Output = ()> + Send + use<> {
            let (turns, ended) = (self.turns.clone(), self.ended.clone());
            let unheard = self.unheard.clone();
            async move {
                turns.acquire().await.unwrap().forget();
                unheard.fetch_add(usize::from(nobody_waits()), Ordering::SeqCst);
                ended.fetch_add(1, Ordering::SeqCst);
            }
        }

        fn ended(&self) -> (usize, usize) {
            (self.ended.load(Ordering::SeqCst), self.unheard.load(Ordering::SeqCst))
        }
    }

    #[tokio::test]
    async fn what_is_dropped_half_way_is_done_all_the_same() {
        let (all, work) = (Outliving::default(), Work::new());
        let mut asked = Box::pin(all.see_through(work.begin()));
        assert!(futures_util::poll!(asked.as_mut()).is_pending());
        assert_eq!(all.count(), 0, "nothing is spawned while it is waited for");
        drop(asked);
        assert_eq!((all.count(), work.ended()), (1, (0, 0)));
        work.turns.add_permits(1);
        all.drain(Duration::from_secs(60)).await;
        assert_eq!((all.count(), work.ended()), (0, (1, 1)));
        // One that is waited for knows it, also after others were drained.
        work.turns.add_permits(1);
        all.see_through(work.begin()).await;
        assert_eq!(work.ended(), (2, 1));
    }

    #[tokio::test]
    async fn a_cut_ends_what_goes_on_and_what_was_begun_before_it() {
        let (all, work) = (Outliving::default(), Work::new());
        let mut gone = Box::pin(all.see_through(work.begin()));
        let mut waits = Box::pin(all.see_through(work.begin()));
        let mut stays = Box::pin(all.see_through(work.begin()));
        for asked in [&mut gone, &mut waits, &mut stays] {
            assert!(futures_util::poll!(asked.as_mut()).is_pending());
        }
        drop(gone);
        all.drain(Duration::ZERO).await;
        drop(waits);
        assert_eq!((all.count(), work.ended()), (0, (0, 0)));
        // Who waits gets the answer, and what begins later outlives its asker again.
        work.turns.add_permits(1);
        stays.await;
        let mut later = Box::pin(all.see_through(work.begin()));
        assert!(futures_util::poll!(later.as_mut()).is_pending());
        drop(later);
        work.turns.add_permits(1);
        all.drain(Duration::from_secs(60)).await;
        assert_eq!(work.ended(), (2, 1));
    }

    #[tokio::test]
    async fn there_are_never_too_many() {
        let (all, work) = (Outliving::default(), Work::new());
        for _ in 0..OUTLIVING_MAX {
            all.admit().unwrap();
            let mut asked = Box::pin(all.see_through(work.begin()));
            assert!(futures_util::poll!(asked.as_mut()).is_pending());
        }
        assert!(matches!(all.admit(), Err(CoreError::Overloaded { .. })));
        work.turns.add_permits(OUTLIVING_MAX);
        all.drain(Duration::from_secs(60)).await;
        all.admit().unwrap();
    }

    #[tokio::test]
    async fn what_panics_is_not_gone_on_with() {
        let all = Outliving::default();
        let mut asked = Box::pin(all.see_through(async { panic!("for the test") }));
        let waker = std::task::Waker::noop();
        let mut poll = || asked.as_mut().poll(&mut Context::from_waker(waker));
        assert!(catch_unwind(AssertUnwindSafe(&mut poll)).is_err());
        drop(asked);
        assert_eq!(all.count(), 0);
    }
}
