//! Stacks, where what was dropped stays readable: unseal keys and root keys are put together on a
//! thread that ends with the work, and after a seal the stacks of the runtime's threads are
//! overwritten.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::slot::SlotError;

const STACK_BYTES: usize = 512 * 1024;
/// More than any work with keys takes of the stack.
const KEY_WORK_BYTES: usize = 256 * 1024;
/// More than serving a request takes of the stack, where frames are optimised and where they are not. The
/// runtime's threads have two MiB.
const REQUEST_BYTES: usize = if cfg!(debug_assertions) { 1024 * 1024 } else { 256 * 1024 };
/// How long each of the runtime's threads waits for the others, in steps.
const GATHER_STEP: Duration = Duration::from_micros(200);
const GATHER_STEPS: usize = 250;

/// Runs `work` and leaves no copy of what it had on its stack.
///
/// # Errors
/// [`SlotError::NoThread`] when no thread can be started, or when `work` panicked.
pub(super) async fn on_key_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SlotError> {
    let (reply, answer) = oneshot::channel();
    let thread = move || {
        let result = run(work);
        scrub_stack::<KEY_WORK_BYTES>();
        // Nobody waits when the request was given up.
        let _ = reply.send(result);
    };
    std::thread::Builder::new()
        .name("keys".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(thread)
        .map_err(|_| SlotError::NoThread)?;
    answer.await.map_err(|_| SlotError::NoThread)
}

/// Overwrites what work with keys has left on the stack of the thread that did it, below the caller's
/// own frame.
pub fn scrub_work_stack() {
    scrub_stack::<KEY_WORK_BYTES>();
}

/// A frame of its own, so that [`scrub_stack`] covers all of it.
#[inline(never)]
fn run<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// Overwrites what requests have left on the stacks of the runtime's threads: tokens, above all.
/// Holds up each of them for a moment, so that one cannot do the work of another. Says whether all
/// were reached: one that was busy with something else may have been left out.
pub async fn scrub_runtime_stacks() -> bool {
    let threads = Handle::current().metrics().num_workers();
    let arrived = Arc::new(AtomicUsize::new(0));
    let mut scrubbing = JoinSet::new();
    for _ in 0..threads {
        let arrived = arrived.clone();
        scrubbing.spawn(async move {
            scrub_stack::<REQUEST_BYTES>();
            arrived.fetch_add(1, Ordering::AcqRel);
            for _ in 0..GATHER_STEPS {
                if arrived.load(Ordering::Acquire) >= threads {
                    return true;
                }
                std::thread::sleep(GATHER_STEP);
            }
            // Another thread may come and do this one's work and its own in turn.
            false
        });
    }
    let mut all = true;
    while let Some(met) = scrubbing.join_next().await {
        all &= met.unwrap_or(false);
    }
    all
}

#[inline(never)]
fn scrub_stack<const BYTES: usize>() {
    let mut frame = [0u8; BYTES];
    zeroize::Zeroize::zeroize(&mut frame[..]);
    black_box(&mut frame);
}
