//! The load: so many connections, each with one request under way, as fast as they are answered or at
//! a rate that the answers have no influence on.
//!
//! At a fixed rate, requests arrive when the schedule says, whether or not a connection is free, and
//! their latency counts from then: a server that stalls is charged for everybody who had to wait (no
//! coordinated omission).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::histogram::Histogram;
use super::session::{Client, Failure, Session};

/// How often arrivals of a fixed rate are let in. Short beside what is measured, long beside what it
/// costs.
const TICK: Duration = Duration::from_micros(200);
/// How long what has arrived may still take when no more arrives.
const DRAIN: Duration = Duration::from_secs(5);
/// A run in which so many fail, and none succeeds, is given up.
const FAILURES_MAX: u64 = 50;

/// How connections are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One connection for all requests of a worker.
    KeepAlive,
    /// A new connection for each.
    Reconnect,
}

/// How fast.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// The next request when the answer is there.
    Closed,
    /// So many a second, over all connections.
    Rate(f64),
}

/// What is asked of a server.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub mode: Mode,
    pub connections: usize,
    pub pace: Pace,
    pub time: Duration,
}

/// Which of a worker's operations it is.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    pub worker: usize,
    pub count: usize,
}

/// One thing that a client does, in one request or several.
pub trait Operation: Clone + Send + Sync + 'static {
    fn perform(
        &self,
        session: &mut Session,
        turn: Turn,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// What a run did.
pub struct Run {
    pub done: u64,
    pub failed: u64,
    pub first_failure: Option<String>,
    pub took: Duration,
    pub latencies: Histogram,
}

impl Run {
    /// Of something that has no latencies.
    pub fn of(done: usize, took: Duration) -> Self {
        Self { done: done as u64, took, ..Self::nothing() }
    }

    pub fn nothing() -> Self {
        Self {
            done: 0,
            failed: 0,
            first_failure: None,
            took: Duration::ZERO,
            latencies: Histogram::new(),
        }
    }

    /// Operations a second.
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.took.as_secs_f64().max(1e-9)
    }

    fn note(&mut self, outcome: Result<(), Failure>, latency: Duration) {
        match outcome {
            Ok(()) => {
                self.done += 1;
                self.latencies.record(latency);
            }
            Err(failure) => {
                self.failed += 1;
                self.first_failure.get_or_insert_with(|| failure.to_string());
            }
        }
    }

    fn is_hopeless(&self) -> bool {
        self.done == 0 && self.failed >= FAILURES_MAX
    }

    pub fn add(&mut self, other: Self) {
        self.done += other.done;
        self.failed += other.failed;
        self.latencies.add(&other.latencies);
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }
}

/// Puts `load` on the server of `client`. Connections that are kept are there before it begins.
pub async fn run(client: &Client, load: Load, operation: impl Operation) -> Run {
    let mut opening = tokio::task::JoinSet::new();
    for worker in 0..load.connections {
        let client = client.clone();
        opening.spawn(async move {
            let mut session = Session::new(client);
            let opened = match load.mode {
                Mode::KeepAlive => session.open().await,
                Mode::Reconnect => Ok(()),
            };
            (worker, session, opened)
        });
    }
    let mut sessions = Vec::new();
    let mut all = Run::nothing();
    for (worker, session, opened) in opening.join_all().await {
        match opened {
            Ok(()) => sessions.push((worker, session)),
            Err(failure) => all.note(Err(failure), Duration::ZERO),
        }
    }
    let begun = Instant::now();
    let arrivals = match load.pace {
        Pace::Closed => None,
        Pace::Rate(rate) => Some(Arrivals::begin(rate, load.time)),
    };
    let mut workers = tokio::task::JoinSet::new();
    for (worker, session) in sessions {
        let (operation, arrivals) = (operation.clone(), arrivals.clone());
        workers.spawn(async move {
            let state = Worker { worker, session, operation, mode: load.mode };
            match arrivals {
                None => state.closed(begun, load.time).await,
                Some(arrivals) => state.paced(arrivals, begun + load.time + DRAIN).await,
            }
        });
    }
    for one in workers.join_all().await {
        all.add(one);
    }
    if let Some(arrivals) = arrivals {
        // Whoever was never served waited at least until now.
        for arrived in arrivals.left() {
            all.failed += 1;
            all.latencies.record(arrived.elapsed());
            all.first_failure.get_or_insert_with(|| "not served before the end".to_owned());
        }
        all.took = load.time;
    } else {
        all.took = begun.elapsed();
    }
    all
}

struct Worker<O> {
    worker: usize,
    session: Session,
    operation: O,
    mode: Mode,
}

impl<O: Operation> Worker<O> {
    async fn closed(mut self, begun: Instant, time: Duration) -> Run {
        let mut run = Run::nothing();
        let mut count = 0;
        while begun.elapsed() < time && !run.is_hopeless() {
            let sent = Instant::now();
            let outcome = self.once(count).await;
            run.note(outcome, sent.elapsed());
            count += 1;
        }
        run
    }

    async fn paced(mut self, arrivals: Arc<Arrivals>, deadline: Instant) -> Run {
        let mut run = Run::nothing();
        let mut count = 0;
        while Instant::now() < deadline && !run.is_hopeless() {
            let Some(arrived) = arrivals.next().await else { break };
            let outcome = self.once(count).await;
            run.note(outcome, arrived.elapsed());
            count += 1;
        }
        run
    }

    async fn once(&mut self, count: usize) -> Result<(), Failure> {
        if self.mode == Mode::Reconnect {
            self.session.close();
        }
        let turn = Turn { worker: self.worker, count };
        let outcome = self.operation.perform(&mut self.session, turn).await;
        if matches!(outcome, Err(Failure::Connection(_))) {
            self.session.close();
        }
        outcome
    }
}

/// Requests that have arrived and wait for a connection.
struct Arrivals {
    waiting: Mutex<VecDeque<Instant>>,
    /// As many permits as are waiting; closed when no more will come.
    count: Semaphore,
}

impl Arrivals {
    /// `rate` a second from now on, for `time`. A thread of its own keeps the schedule: timers of the
    /// runtime are too coarse, and wait themselves when the runtime is busy.
    fn begin(rate: f64, time: Duration) -> Arc<Self> {
        let arrivals = Arc::new(Self { waiting: Mutex::default(), count: Semaphore::new(0) });
        let fed = arrivals.clone();
        std::thread::spawn(move || {
            let begun = Instant::now();
            let mut arrived = 0usize;
            loop {
                let elapsed = begun.elapsed().min(time);
                let due = (elapsed.as_secs_f64() * rate) as usize;
                if due > arrived {
                    // When they were due, not when this thread came round to it.
                    let at = |n: usize| begun + Duration::from_secs_f64((n + 1) as f64 / rate);
                    fed.waiting.lock().unwrap().extend((arrived..due).map(at));
                    fed.count.add_permits(due - arrived);
                    arrived = due;
                }
                if elapsed >= time {
                    break;
                }
                std::thread::sleep(TICK);
            }
            while !fed.waiting.lock().unwrap().is_empty() && begun.elapsed() < time + DRAIN {
                std::thread::sleep(TICK);
            }
            fed.count.close();
        });
        arrivals
    }

    async fn next(&self) -> Option<Instant> {
        self.count.acquire().await.ok()?.forget();
        self.waiting.lock().unwrap().pop_front()
    }

    fn left(&self) -> Vec<Instant> {
        self.waiting.lock().unwrap().drain(..).collect()
    }
}
