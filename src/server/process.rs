//! What the operating system is asked for: no core dumps, no swapping, private files, and the
//! conversation with systemd.

use std::io;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask,
};
use rustix::thread::disable_transparent_huge_pages;
use sd_notify::NotifyState;

/// What hardening achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hardening {
    /// Whether pages are kept out of swap.
    pub memory_locked: bool,
}

/// Keeps this process' memory out of core dumps, debuggers and swap, and its files private. Call it
/// before any secret is read.
///
/// # Errors
/// When core dumps cannot be turned off. Memory that cannot be locked is only logged.
pub fn harden(lock_memory: bool) -> Result<Hardening, ProcessError> {
    umask(Mode::RWXG | Mode::RWXO);
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(|error| ProcessError::CoreDumps(error.into()))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| ProcessError::CoreDumps(error.into()))?;
    // A huge page holds many small things, and is resident whole while one of them lives: half of what
    // an idle server would take. Kernels without such pages need not be told.
    let _ = disable_transparent_huge_pages(true);
    let memory_locked = lock_memory && lock_all_memory();
    Ok(Hardening { memory_locked })
}

fn lock_all_memory() -> bool {
    // With a finite limit, a later allocation would fail instead of being swappable.
    let unlimited = Rlimit { current: None, maximum: None };
    let finite = getrlimit(Resource::Memlock).current.is_some();
    if finite && setrlimit(Resource::Memlock, unlimited).is_err() {
        tracing::warn!(
            "memory is not locked: RLIMIT_MEMLOCK is finite; set LimitMEMLOCK=infinity, or turn \
             swap off and server.lock_memory to false"
        );
        return false;
    }
    // On fault: pages that are never touched, such as most of each stack, cost nothing.
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    match mlockall(flags) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "memory is not locked: it may be swapped out");
            false
        }
    }
}

/// Tells systemd that requests are answered.
pub fn notify_ready() {
    notify(&[NotifyState::Ready]);
}

/// Tells systemd that files are being reloaded; follow it with [`notify_ready`].
pub fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// Tells systemd that the server is stopping.
pub fn notify_stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Tells systemd that the server is alive, twice in each of its watchdog periods. Returns at once
/// where there is no watchdog, else never.
pub async fn keep_watchdog() {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    let every = (period / 2).max(Duration::from_millis(100));
    loop {
        notify(&[NotifyState::Watchdog]);
        tokio::time::sleep(every).await;
    }
}

fn notify(state: &[NotifyState<'_>]) {
    // Without systemd there is no socket, and this does nothing.
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd was not notified");
    }
}

/// Why the process could not be hardened.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Core dumps cannot be turned off.
    #[error("core dumps cannot be turned off")]
    CoreDumps(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How much memory is locked, as the system writes it; empty for none.
    fn locked() -> String {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmLck:")).unwrap();
        let amount = line.trim_start_matches("VmLck:").trim();
        if amount == "0 kB" { String::new() } else { amount.to_owned() }
    }

    const CHILD: &str = "LEASEHOLD_TEST_HARDENED_CHILD";

    #[test]
    fn a_hardened_process_leaves_no_dump_and_shares_no_file() {
        if std::env::var_os(CHILD).is_none() {
            // In a process of its own: the other tests of this one want their umask.
            let name =
                "server::process::tests::a_hardened_process_leaves_no_dump_and_shares_no_file";
            let status = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", name])
                .env(CHILD, "1")
                .stdout(std::process::Stdio::null())
                .status();
            assert!(status.unwrap().success());
            return;
        }
        assert_eq!(harden(false).unwrap(), Hardening { memory_locked: false });
        assert!(locked().is_empty(), "{}", locked());
        // What is reported is so, whether or not this machine lets us.
        let Hardening { memory_locked } = harden(true).unwrap();
        assert_eq!(memory_locked, !locked().is_empty());
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
        assert_eq!(umask(Mode::RWXG | Mode::RWXO), Mode::RWXG | Mode::RWXO);
    }
}
