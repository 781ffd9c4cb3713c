//! Too few file descriptors, too little memory.

use std::fs;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::World;
use super::clerk::{BRIEF, Clerk, Desk, LONG};
use crate::support::broker::{Broker, Setup};
use crate::support::wire::soon;

/// Sets how much the server may have.
fn limit(broker: &Broker, resource: Resource, current: u64) {
    let pid = Pid::from_raw(broker.pid()).unwrap();
    let maximum = getrlimit(resource).maximum;
    prlimit(Some(pid), resource, Rlimit { current: Some(current), maximum }).unwrap();
}

fn descriptors(broker: &Broker) -> u64 {
    fs::read_dir(format!("/proc/{}/fd", broker.pid())).unwrap().count() as u64
}

/// What the server has for its data, in bytes.
fn data(broker: &Broker) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/statm", broker.pid())).unwrap();
    text.split(' ').nth(5).unwrap().parse::<u64>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_free_descriptor_nothing_is_lost_and_the_server_recovers() {
    let world = World::with_clock(Setup::default()).await;
    let mut clerks = [Clerk::new("fd")];
    let broker = &world.nodes[0];
    let desk = Desk::at(broker);
    clerks[0].lease(&world, &desk, LONG, None, false).await.unwrap();
    limit(broker, Resource::Nofile, descriptors(broker) + 2);
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(TcpStream::connect(broker.address).await.unwrap());
    }
    soon(async {
        while !broker.log().contains("Too many open files") {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    // Who is connected is served, as far as that opens nothing.
    clerks[0].write_secret(&desk, 0).await.unwrap();
    let _ = clerks[0].lease(&world, &desk, LONG, None, false).await;
    drop(held);
    limit(broker, Resource::Nofile, 1024);
    let again = Desk::at(broker);
    soon(clerks[0].write_secret(&again, 1)).await.unwrap();
    clerks[0].lease(&world, &again, LONG, None, false).await.unwrap();
    world.check(0, &mut clerks, false).await;
    world.pass_time_alive();
    clerks[0].lease(&world, &again, BRIEF, None, false).await.unwrap();
    world.check(0, &mut clerks, true).await;
    world.pass_time().await;
    world.check(0, &mut clerks, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_gets_no_memory_loses_nothing() {
    let world = World::on_sqlite().await;
    let mut clerks = [Clerk::new("memory")];
    let broker = &world.nodes[0];
    let desk = Desk::at(broker);
    clerks[0].lease(&world, &desk, LONG, None, false).await.unwrap();
    clerks[0].write_secret(&desk, 0).await.unwrap();
    limit(broker, Resource::Data, data(broker) + (1 << 18));
    let mut writers = JoinSet::new();
    for number in 0..64 {
        let caller = broker.root();
        writers.spawn(async move {
            let body = json!({ "data": { "value": "v".repeat(900_000) } }).to_string();
            let path = format!("secret/data/large{number}");
            let outcome = caller.try_request("POST", &path, &[], body.as_bytes()).await;
            outcome.is_ok_and(|answer| answer.status == 200).then_some(path)
        });
    }
    // What the clerk is doing meanwhile may succeed or break off.
    let _ = clerks[0].lease(&world, &desk, LONG, None, false).await;
    let _ = clerks[0].write_secret(&desk, 0).await;
    let kept = writers.join_all().await;
    assert!(kept.iter().any(Option::is_none), "64 large requests fit into a quarter of a megabyte");
    broker.kill();
    world.revive(0).await;
    let root = world.nodes[0].root();
    for path in kept.iter().flatten() {
        let value = root.read(path).await.data()["data"]["value"].clone();
        assert_eq!(value.as_str().map(str::len), Some(900_000), "{path} was acknowledged");
    }
    world.check(0, &mut clerks, false).await;
    world.pass_time().await;
    world.check(0, &mut clerks, true).await;
}
