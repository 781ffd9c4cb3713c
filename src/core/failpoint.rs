//! Named points at which tests kill the process. Compiled to nothing without the `failpoints` feature.

/// Ends the process at once, as SIGKILL would, when the environment variable
/// `LEASEHOLD_FAIL_POINT` names this point and, with `name:n`, at its n-th passing.
#[cfg(feature = "failpoints")]
pub fn fail_point(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static CHOSEN: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let chosen = CHOSEN.get_or_init(|| {
        let text = std::env::var("LEASEHOLD_FAIL_POINT").ok()?;
        Some(match text.rsplit_once(':') {
            Some((name, nth)) => (name.to_owned(), nth.parse().ok()?),
            None => (text, 1),
        })
    });
    if let Some((point, nth)) = chosen
        && point == name
        && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *nth
    {
        let pid = rustix::process::getpid();
        // Not exit(): no destructor, no flush, nothing that a power cut would not do either.
        if rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_err() {
            std::process::abort();
        }
        loop {
            std::thread::park();
        }
    }
}

/// Ends the process at once when tests ask for it; this build does not have the feature.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn fail_point(_name: &'static str) {}
