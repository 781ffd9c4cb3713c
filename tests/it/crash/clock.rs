//! The machine's clock is set while the server runs.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::World;
use super::clerk::{BRIEF, Clerk, Desk, LONG};
use crate::support::broker::Setup;
use crate::support::wire::soon;

/// A server whose wall clock is as far from the machine's as a file says, as `libfaketime` reads it.
/// Its monotonic clock is the machine's.
async fn world(offset: &Path) -> World {
    fs::write(offset, "+0\n").unwrap();
    let places = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"];
    let library = places
        .iter()
        .map(|place| Path::new(place).join("faketime/libfaketime.so.1"))
        .find(|library| library.exists())
        .expect("libfaketime is installed");
    let environment = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", offset.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    World::start(Setup { environment, ..Setup::default() }, 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_back_prolongs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let offset = directory.path().join("offset");
    let world = world(&offset).await;
    let mut clerks = [Clerk::new("back")];
    let desk = Desk::at(&world.nodes[0]);
    clerks[0].lease(&world, &desk, LONG, None, false).await.unwrap();
    clerks[0].lease(&world, &desk, BRIEF, None, false).await.unwrap();
    fs::write(&offset, "-2h\n").unwrap();
    // Settled means that the brief one is gone, long before two hours are over.
    world.check(0, &mut clerks, true).await;
    clerks[0].renew(&world, &desk, 0).await.unwrap();
    clerks[0].lease(&world, &desk, BRIEF, None, false).await.unwrap();
    world.check(0, &mut clerks, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_ahead_ends_nothing_until_somebody_looks() {
    let directory = tempfile::tempdir().unwrap();
    let offset = directory.path().join("offset");
    let world = world(&offset).await;
    let mut clerks = [Clerk::new("ahead")];
    let desk = Desk::at(&world.nodes[0]);
    clerks[0].lease(&world, &desk, LONG, None, false).await.unwrap();
    clerks[0].lease(&world, &desk, LONG, None, false).await.unwrap();
    fs::write(&offset, "+7d\n").unwrap();
    let root = world.nodes[0].root();
    soon(async {
        while root.read("sys/hold").await.data()["held"] != json!(true) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    for one in &clerks[0].credentials {
        assert!(world.lets_in(one).await, "the jump ended {}", one.role);
    }
    fs::write(&offset, "+0\n").unwrap();
    root.delete("sys/hold").await.ok();
    clerks[0].lease(&world, &desk, BRIEF, None, false).await.unwrap();
    world.check(0, &mut clerks, true).await;
}
