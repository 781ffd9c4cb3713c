//! Jobs on a schedule: each once, whoever forgets it and whoever dies over it.
//!
//! All of a test runs on one thread, whose metrics are its own.

use std::sync::Mutex;

use async_trait::async_trait;
use leasehold::core::job::Jobs;
use leasehold::core::records::kinds;
use leasehold::core::view::View;
use leasehold::scheduler::ClockworkError;
use leasehold::types::id::NamespaceId;
use metrics::LocalRecorderGuard;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::sync::mpsc;
use tokio_cron_scheduler::JobSchedulerError;

use super::*;
use crate::support::target::Mood;

const HOUR: u64 = 3600;
/// When tidying is due, in seconds after the full hour that [`START`] is.
const TIDY_AT: u64 = 17 * 60;

/// A clockwork that says only what a test lets it say.
#[derive(Default)]
struct ByHand(Mutex<Option<mpsc::Sender<&'static str>>>);

impl ByHand {
    fn say(&self, name: &'static str) {
        // A full queue is what a clockwork that says it all the time would meet.
        let _ = self.0.lock().unwrap().as_ref().unwrap().try_send(name);
    }
}

#[async_trait]
impl Clockwork for ByHand {
    async fn start(
        &self,
        _jobs: Vec<(&'static str, &'static str)>,
        signal: mpsc::Sender<&'static str>,
    ) -> Result<Box<dyn Send>, ClockworkError> {
        *self.0.lock().unwrap() = Some(signal);
        Ok(Box::new(()))
    }
}

/// A clockwork that refuses to start, does not come back from starting, or breaks over it.
enum Broken {
    Hanging,
    Panicking,
    Refusing,
}

#[async_trait]
impl Clockwork for Broken {
    async fn start(
        &self,
        _jobs: Vec<(&'static str, &'static str)>,
        _signal: mpsc::Sender<&'static str>,
    ) -> Result<Box<dyn Send>, ClockworkError> {
        match self {
            Self::Hanging => std::future::pending().await,
            Self::Panicking => panic!("a clockwork that breaks"),
            Self::Refusing => Err(JobSchedulerError::StartScheduler.into()),
        }
    }
}

/// What this thread counts.
pub(crate) struct Counted {
    handle: PrometheusHandle,
    _recording: LocalRecorderGuard<'static>,
}

impl Counted {
    pub(crate) fn from_here() -> Self {
        let recorder = Box::leak(Box::new(PrometheusBuilder::new().build_recorder()));
        let handle = recorder.handle();
        Self { handle, _recording: metrics::set_default_local_recorder(recorder) }
    }

    fn of(&self, what: &str, job: &str) -> u64 {
        let line = format!("leasehold_scheduler_{what}_total{{job=\"{job}\"}}");
        self.value(&line).map_or(0, |value| value.parse().unwrap())
    }

    /// The value of a metric, by its name with its labels.
    pub(super) fn value(&self, name: &str) -> Option<String> {
        let text = self.handle.render();
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        Some(found.to_owned())
    }

    pub(crate) fn runs(&self, job: &str) -> u64 {
        self.of("runs", job)
    }

    fn missed(&self, job: &str) -> u64 {
        self.of("missed_runs", job)
    }
}

/// Lets a few seconds pass until the jobs are being looked after.
async fn begun(node: &Node, counted: &Counted) {
    later(node, "the first run", async || counted.runs("mounts") > 0).await;
}

/// Goes to that many seconds after the start at once.
fn go_to(node: &Node, secs: u64) {
    let left = START.plus(Ttl::from_secs(secs)).millis_since(node.core.clock.now());
    node.clock.advance(Duration::from_millis(u64::try_from(left).unwrap()));
}

#[tokio::test]
async fn what_the_library_forgets_the_watchdog_runs_once_and_counts() {
    let counted = Counted::from_here();
    let (_directory, storage) = sqlite();
    let hand = Arc::new(ByHand::default());
    let node = Node::first_with(storage, &Targets::new(), hand.clone()).await;
    begun(&node, &counted).await;

    // Said in time: run, and nothing is missed.
    go_to(&node, TIDY_AT);
    hand.say("tidy");
    soon("the run that was said", async || counted.runs("tidy") == 1).await;
    node.pass(30).await;
    assert_eq!((counted.runs("tidy"), counted.missed("tidy")), (1, 0));

    // Said too early, too often, and what is no job at all.
    for name in ["tidy", "nonsense"].into_iter().cycle().take(500) {
        hand.say(name);
    }
    node.pass(10).await;
    assert_eq!(counted.runs("tidy"), 1);

    // From here on it says nothing more.
    go_to(&node, HOUR + TIDY_AT);
    node.pass(3).await;
    assert_eq!((counted.runs("tidy"), counted.missed("tidy")), (1, 0), "it may be a little late");
    node.pass(10).await;
    soon("the run that was not said", async || counted.runs("tidy") == 2).await;
    assert_eq!(counted.missed("tidy"), 1);
    node.pass_in_steps(HOUR - 20, 60).await;
    assert_eq!((counted.runs("tidy"), counted.missed("tidy")), (2, 1));

    // Five runs missed in a row, as when the machine was suspended, are made up for by one.
    go_to(&node, 7 * HOUR);
    node.pass(30).await;
    soon("the run for all of them", async || counted.runs("tidy") == 3).await;
    node.pass(30).await;
    assert_eq!((counted.runs("tidy"), counted.missed("tidy")), (3, 2));
    assert_eq!(counted.of("failures", "tidy"), 0);
    node.scheduler.shutdown().await;
}

#[tokio::test]
async fn without_any_clockwork_the_watchdog_does_all_of_it() {
    for broken in [Broken::Refusing, Broken::Hanging, Broken::Panicking] {
        let counted = Counted::from_here();
        let (_directory, storage) = sqlite();
        let node = Node::first_with(storage, &Targets::new(), Arc::new(broken)).await;
        begun(&node, &counted).await;
        go_to(&node, TIDY_AT + 5);
        later(&node, "tidying", async || counted.runs("tidy") == 1).await;
        assert_eq!(counted.missed("tidy"), 1);
        assert!(counted.missed("mounts") > 0);
        // It ends as any other does.
        tokio::time::timeout(Duration::from_secs(10), node.scheduler.shutdown()).await.unwrap();
    }
}

#[tokio::test]
async fn of_two_nodes_exactly_one_does_each_run() {
    let counted = Counted::from_here();
    let url = TestPostgres::shared().database();
    let targets = Targets::new();
    let hands = [Arc::new(ByHand::default()), Arc::new(ByHand::default())];
    let one = Node::first_with(connect(&url).await, &targets, hands[0].clone()).await;
    let clock = one.clock.clone();
    let other =
        Node::join_with(connect(&url).await, &targets, clock, &one.share, hands[1].clone()).await;
    begun(&one, &counted).await;
    one.pass(30).await;

    for hour in 0..6 {
        go_to(&one, hour * HOUR + TIDY_AT);
        for hand in &hands {
            hand.say("tidy");
        }
        soon("the run", async || counted.runs("tidy") > hour).await;
        // Long enough for every claim to end, and for whoever stood by to look again.
        one.pass_in_steps(200, 5).await;
        assert_eq!(counted.runs("tidy"), hour + 1, "once, not once for each node");
    }
    // One that hears of it late, when nobody holds the claim any more, finds it done.
    go_to(&one, 6 * HOUR + TIDY_AT);
    hands[0].say("tidy");
    soon("the run", async || counted.runs("tidy") == 7).await;
    one.pass_in_steps(200, 5).await;
    hands[1].say("tidy");
    one.pass(30).await;
    assert_eq!((counted.runs("tidy"), counted.of("failures", "tidy")), (7, 0));
    one.scheduler.shutdown().await;
    other.scheduler.shutdown().await;
}

#[tokio::test]
async fn a_run_whose_node_died_is_taken_over() {
    let counted = Counted::from_here();
    let url = TestPostgres::shared().database();
    let node = Node::first(connect(&url).await, &Targets::new()).await;
    begun(&node, &counted).await;
    // Another node takes the run a moment before this one could, and is never heard of again.
    let dead = Jobs::new(node.core.unsealed().unwrap().records.clone(), 99);
    assert!(dead.claim("tidy", START.plus(Ttl::from_secs(TIDY_AT))).await.unwrap());
    drop(dead);
    go_to(&node, TIDY_AT);
    node.pass(50).await;
    assert_eq!(counted.runs("tidy"), 0, "it may be alive still");
    node.pass(40).await;
    soon("the other's run", async || counted.runs("tidy") == 1).await;
    node.pass(60).await;
    assert_eq!(counted.runs("tidy"), 1);
    node.scheduler.shutdown().await;
}

#[tokio::test]
async fn a_run_that_takes_long_stays_the_node_s_own_until_it_dies() {
    let _counted = Counted::from_here();
    let url = TestPostgres::shared().database();
    let targets = Targets::new();
    let one = Node::first(connect(&url).await, &targets).await;
    later(&one, "some rounds", async || targets.ticks().len() >= 3).await;
    let clock = one.clock.clone();
    let other = Node::join(connect(&url).await, &targets, clock, &one.share).await;

    // From the next round on, the mount is busy for longer than any claim holds.
    targets.set("ticks", Mood::Hanging);
    let before = targets.ticks().len();
    later(&one, "a round that hangs", async || targets.ticks().len() > before).await;
    one.pass(200).await;
    assert_eq!(targets.ticks().len(), before + 1, "two at once");

    // The node that has it is gone without a word: the other takes over, and not at once.
    let records = one.core.unsealed().unwrap().records.clone();
    one.scheduler.shutdown().await;
    assert!(Jobs::new(records, one.core.node).claim("mounts", one.core.clock.now()).await.unwrap());
    other.pass(20).await;
    assert_eq!(targets.ticks().len(), before + 1);
    later(&other, "the other's round", async || targets.ticks().len() == before + 2).await;
    targets.set("ticks", Mood::Up);
    later(&other, "more of them", async || targets.ticks().len() > before + 4).await;
    other.scheduler.shutdown().await;
}

#[tokio::test]
async fn a_run_that_is_repeated_changes_nothing() {
    let counted = Counted::from_here();
    let (_directory, storage) = sqlite();
    let targets = Targets::new();
    let node = Node::first(storage.clone(), &targets).await;
    begun(&node, &counted).await;
    node.issue("kept", 80_000).await;
    let operation = node.leases.revoke_all(Selector::Prefix("none/".into())).await.unwrap();
    go_to(&node, HOUR + TIDY_AT);
    later(&node, "both jobs", async || counted.runs("tidy") > 0 && counted.runs("keys") > 0).await;
    let kept = tidying::rows_of_each_kind(storage.as_ref()).await;

    for job in ["tidy", "keys"] {
        // The note that it was done is lost, as when the process dies between the two.
        let records = node.core.unsealed().unwrap().records.clone();
        let notes = View::new(records.clone(), NamespaceId::ROOT, kinds::JOB, String::new());
        notes.remove(job).await.unwrap();
        drop(notes);
        assert_eq!(Jobs::new(records, 1).done_at(job).await.unwrap(), None);
        let before = counted.runs(job);
        node.clock.advance(Duration::from_secs(2 * HOUR));
        later(&node, "it is done again", async || counted.runs(job) > before).await;
        assert_eq!(counted.of("failures", job), 0);
    }
    assert_eq!(tidying::rows_of_each_kind(storage.as_ref()).await, kept);
    assert!(node.lives("kept"));
    assert!(node.leases.progress(&operation).await.unwrap().unwrap().complete);
    node.scheduler.shutdown().await;
}

/// What comes after it, be it the same node's next process, need not wait until its claims end.
#[tokio::test]
async fn a_node_that_stops_or_is_sealed_lets_go_of_its_jobs() {
    for sealed in [false, true] {
        let _counted = Counted::from_here();
        let (_directory, storage) = sqlite();
        let targets = Targets::new();
        let node = Node::first(storage.clone(), &targets).await;
        later(&node, "some rounds", async || targets.ticks().len() >= 3).await;
        // It ends in the middle of a round, too.
        targets.set("ticks", Mood::Hanging);
        let before = targets.ticks().len();
        later(&node, "a round that hangs", async || targets.ticks().len() > before).await;

        let Node { core, leases, mounted, clock, scheduler, share, .. } = node;
        drop((leases, mounted));
        if sealed {
            assert!(core.seal().await);
        }
        scheduler.shutdown().await;
        let before = targets.ticks().len();
        targets.set("ticks", Mood::Up);
        let next = Node::join(storage, &targets, clock, &share).await;
        next.pass(20).await;
        soon("the next one's rounds", async || targets.ticks().len() >= before + 2).await;
        next.scheduler.shutdown().await;
    }
}
