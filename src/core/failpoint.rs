//! Named points at which tests kill the process, or have it panic or leak. Compiled to nothing without
//! the `failpoints` feature.

use super::clock_guard::GuardedClock;

/// Every point there is. A test holds this list and the source against each other, and another kills
/// the process at each of them.
#[cfg(feature = "failpoints")]
pub const FAIL_POINTS: &[&str] = &[
    "bulk.begun",
    "bulk.page",
    "database.creating",
    "database.disabled",
    "init.after_commit",
    "init.before_commit",
    "keyring.after_commit",
    "keyring.before_commit",
    "lease.active",
    "lease.before-intent",
    "lease.intent",
    "lease.issued",
    "lease.killed",
    "lease.renewed",
    "lease.revoking",
    "records.after_commit",
    "records.before_commit",
    "rekey.after_commit",
    "rekey.before_commit",
    "request.audited",
    "request.served",
    "rewrap.after_destroy",
    "rewrap.before_destroy",
    "rewrap.page",
    "seal.noted",
    "sweep.forgotten",
    "sweep.killed",
    "unseal.opened",
];

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

/// Panics over `shown`, as a library does that prints what it could not handle, when the environment
/// variable `LEASEHOLD_PANIC_POINT` names this point and what `LEASEHOLD_PANIC_ON` says is in there.
#[cfg(feature = "failpoints")]
#[expect(clippy::panic, reason = "that is what it is for")]
pub fn panic_point(name: &'static str, shown: impl FnOnce() -> String) {
    use std::sync::OnceLock;

    static CHOSEN: OnceLock<Option<(String, String)>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let read = |name| std::env::var(name).ok();
        Some((read("LEASEHOLD_PANIC_POINT")?, read("LEASEHOLD_PANIC_ON")?))
    });
    if let Some((point, text)) = chosen
        && point == name
    {
        let shown = shown();
        if shown.contains(text) {
            std::panic::panic_any(shown);
        }
    }
}

/// Panics when tests ask for it; this build does not have the feature.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn panic_point(_name: &'static str, _shown: impl FnOnce() -> String) {}

/// Forgets a block of memory, as something that leaks would, when the environment variable
/// `LEASEHOLD_LEAK` is set: whether those who look for leaks see one.
#[cfg(feature = "failpoints")]
pub fn leak_point() {
    use std::sync::OnceLock;

    static LEAKS: OnceLock<bool> = OnceLock::new();
    if *LEAKS.get_or_init(|| std::env::var_os("LEASEHOLD_LEAK").is_some()) {
        std::mem::forget(std::hint::black_box(vec![1_u8; 1024]));
    }
}

/// Forgets nothing; this build does not have the feature.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn leak_point() {}

/// Puts the clock ahead by as many seconds as the environment variable `LEASEHOLD_CLOCK_AHEAD_SECS`
/// says, as if the process had been started so much later: tests do not wait for what is due then.
#[cfg(feature = "failpoints")]
pub fn start_later(clock: &GuardedClock) {
    use crate::types::time::{Clock, Ttl};

    let ahead = std::env::var("LEASEHOLD_CLOCK_AHEAD_SECS").ok();
    if let Some(secs) = ahead.and_then(|text| text.parse().ok()) {
        clock.raise_to(clock.now().plus(Ttl::from_secs(secs)));
    }
}

/// Leaves the clock as it is; this build does not have the feature.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn start_later(_clock: &GuardedClock) {}
