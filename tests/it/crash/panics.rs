//! A task in the background that panics is begun anew, and what it owes is done.

use std::collections::BTreeSet;

use super::World;
use super::clerk::{BRIEF, Clerk, Desk};
use crate::support::broker::Setup;
use crate::support::wire::soon;

const TASKS: [&str; 14] = [
    "audit",
    "changes",
    "clock",
    "clockwork",
    "cron",
    "gauges",
    "keys",
    "leases",
    "metrics",
    "operations",
    "phases",
    "seal",
    "stacks",
    "tokens",
];
const COUNT: &str = "leasehold_task_panics_total{task=\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_task_that_panics_once_goes_on() {
    let mut world = World::with_clock(Setup::default()).await;
    world.panics = TASKS.len();
    let environment =
        [("LEASEHOLD_PANIC_POINT", "task.begun"), ("LEASEHOLD_PANIC_ON", "begun 1 times")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    world.set_environment(0, environment.to_vec());
    world.revive(0).await;
    let root = world.nodes[0].root();
    let counted = async || root.read("sys/metrics").await.body;
    soon(async {
        loop {
            let text = counted().await;
            let lines = text.lines().filter_map(|line| line.strip_prefix(COUNT));
            let panicked: BTreeSet<&str> =
                lines.map(|line| line.split('"').next().unwrap()).collect();
            if panicked == BTreeSet::from(TASKS) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
    .await;

    let mut clerks = [Clerk::new("panic")];
    let desk = Desk::at(&world.nodes[0]);
    clerks[0].lease(&world, &desk, BRIEF, None, false).await.unwrap();
    world.pass_time_alive();
    world.check(0, &mut clerks, false).await;
    let text = counted().await;
    for line in text.lines().filter(|line| line.starts_with(COUNT)) {
        assert!(line.ends_with("} 1"), "it panicked once, and not again: {line}");
    }
}
