//! A server that works all day needs no more memory in the evening than at noon.

use std::fmt::Debug;
use std::str::FromStr;

use super::day::{self, furnish, round};
use crate::support::broker::{Broker, Setup};

/// Requests before and between the two looks at the size of the process.
const REQUESTS: usize = 4_000;
/// How much larger the process may be after the second half of them, in KiB: what the allocator keeps
/// in places that the first half happened not to reach.
const GROWTH_KIB: u64 = 3 * 1024;
const CALLERS: usize = 4;

/// A number of the environment, or another where it says nothing.
fn number<T: FromStr<Err: Debug>>(name: &str, or: T) -> T {
    std::env::var(name).map_or(or, |text| text.parse().unwrap())
}

fn resident_kib(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn work(broker: &Broker, requests: usize) {
    let callers: Vec<_> = (0..CALLERS).map(|_| broker.root()).collect();
    let each = requests / day::REQUESTS / CALLERS;
    let rounds = callers.iter().enumerate().map(|(caller, root)| async move {
        for number in 0..each {
            round(root, number * CALLERS + caller).await;
            if number % 50 == 0 {
                // Connections come and go as well.
                root.hang_up().await;
            }
        }
    });
    futures_util::future::join_all(rounds).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_does_not_grow_with_the_requests_it_answered() {
    let quiet = "log_level = \"error\"\n".to_owned();
    let broker = Broker::ready(Setup { server: quiet, ..Setup::default() }).await;
    furnish(&broker.root()).await;
    let requests = number("LEASEHOLD_GROWTH_REQUESTS", REQUESTS);
    let growth = number("LEASEHOLD_GROWTH_KIB", GROWTH_KIB);
    work(&broker, requests).await;
    let before = resident_kib(&broker);
    work(&broker, requests).await;
    let after = resident_kib(&broker);
    println!("{requests} requests: {before} KiB; as many again: {after} KiB");
    assert!(after <= before + growth, "{before} KiB, then {after} KiB");
    // Where it is watched, it is said at the end what was lost.
    let end = broker.stop();
    assert!(end.success(), "{end}:\n{}", broker.log());
}
