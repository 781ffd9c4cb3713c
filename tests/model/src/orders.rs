//! Going through the orders in which threads can run.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use loom::sync::{Condvar, Mutex};

use crate::types::time;

/// Runs `schedule` in every order of its threads in which at most `interruptions` times one is made to
/// wait that could have gone on, and says how many that were. `LEASEHOLD_MODEL_INTERRUPTIONS` adds some.
/// A schedule in which nobody can go on fails.
pub fn every(
    name: &str,
    interruptions: usize,
    passes: bool,
    schedule: impl Fn() + Send + Sync + 'static,
) {
    let more = std::env::var("LEASEHOLD_MODEL_INTERRUPTIONS")
        .map_or(0, |more| more.parse().expect("LEASEHOLD_MODEL_INTERRUPTIONS is a number"));
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(interruptions + more);
    model.max_branches = 10_000;
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    model.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        time::begin(passes);
        schedule();
    });
    println!("{name}: {} orders", count.load(Ordering::Relaxed));
}

/// Whether something that can happen did, in any order: what would never happen would not be tried.
#[derive(Default)]
pub struct Reached(AtomicUsize);

impl Reached {
    pub fn note(&self, happened: bool) {
        self.0.fetch_add(usize::from(happened), Ordering::Relaxed);
    }

    pub fn at_all(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

struct Sleeper {
    woken: Mutex<bool>,
    bell: Condvar,
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        *self.woken.lock().unwrap() = true;
        self.bell.notify_one();
    }
}

/// Waits as a task does: whoever forgets to wake it is found.
pub fn wait<F: Future>(future: F) -> F::Output {
    let sleeper = Arc::new(Sleeper { woken: Mutex::new(false), bell: Condvar::new() });
    let waker = Waker::from(sleeper.clone());
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        let mut woken = sleeper.woken.lock().unwrap();
        while !*woken {
            woken = sleeper.bell.wait(woken).unwrap();
        }
        *woken = false;
    }
}
