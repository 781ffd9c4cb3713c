//! Where unseal keys and root keys are put together: on a thread that ends with the work, and whose
//! stack is overwritten before it does.

use std::hint::black_box;

use tokio::sync::oneshot;

use super::slot::SlotError;

const STACK_BYTES: usize = 512 * 1024;
/// More than any work with keys takes of the stack.
const SCRUBBED_BYTES: usize = 256 * 1024;

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
        scrub_stack();
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

/// A frame of its own, so that [`scrub_stack`] covers all of it.
#[inline(never)]
fn run<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn scrub_stack() {
    let mut frame = [0u8; SCRUBBED_BYTES];
    zeroize::Zeroize::zeroize(&mut frame[..]);
    black_box(&mut frame);
}
