//! Signals, turned into what tasks can wait for.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the process has been told.
#[derive(Clone, Debug)]
pub struct Signals {
    /// Counts SIGHUP: reload files, reopen logs.
    pub hangup: watch::Receiver<u64>,
    /// Cancelled on SIGTERM and SIGINT: stop.
    pub stop: CancellationToken,
}

/// Starts listening to the signals. A second SIGTERM or SIGINT changes nothing: the drain has a
/// deadline of its own.
///
/// # Errors
/// When the system does not let us.
pub fn listen() -> io::Result<Signals> {
    let mut hangups = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (counter, hangup) = watch::channel(0);
    let stop = CancellationToken::new();
    let signals = Signals { hangup, stop: stop.clone() };
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(()) = hangups.recv() => counter.send_modify(|count| *count += 1),
                Some(()) = terminate.recv() => stop.cancel(),
                Some(()) = interrupt.recv() => stop.cancel(),
                else => return,
            }
        }
    });
    Ok(signals)
}
