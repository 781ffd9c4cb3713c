//! The machine's clock is set while the server runs.

use serde_json::json;

use super::World;
use super::check::moment;
use super::clerk::{BRIEF, Clerk, Desk, Fate, LONG};
use crate::support::broker::Setup;
use crate::support::wire::soon;

const HOUR: i64 = 3600;
const WEEK: i64 = 7 * 24 * HOUR;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_back_prolongs_nothing() {
    let world = World::with_clock(Setup::default()).await;
    let mut clerks = [Clerk::new("back")];
    let desk = Desk::at(&world.nodes[0]);
    clerks[0].lease(&world, &desk, LONG, None, false).await.unwrap();
    clerks[0].lease(&world, &desk, BRIEF, None, false).await.unwrap();
    world.set_clocks(-2 * HOUR, false);
    // Settled means that the brief one is gone, long before two hours are over.
    world.check(0, &mut clerks, true).await;
    clerks[0].renew(&world, &desk, 0).await.unwrap();
    clerks[0].lease(&world, &desk, BRIEF, None, false).await.unwrap();
    world.check(0, &mut clerks, true).await;
    // Put right again, which is no jump, and then a little ahead, which counts.
    world.set_clocks(0, true);
    clerks[0].lease(&world, &desk, BRIEF, None, false).await.unwrap();
    world.check(0, &mut clerks, true).await;
    world.set_clocks(600, true);
    clerks[0].renew(&world, &desk, 0).await.unwrap();
    clerks[0].lease(&world, &desk, BRIEF, None, false).await.unwrap();
    world.check(0, &mut clerks, true).await;
}

/// A server with two leases, whose clock has jumped.
async fn after_a_jump(name: &str) -> (World, [Clerk; 1]) {
    let world = World::with_clock(Setup::default()).await;
    let mut clerks = [Clerk::new(name)];
    let desk = Desk::at(&world.nodes[0]);
    clerks[0].lease(&world, &desk, LONG, None, false).await.unwrap();
    clerks[0].lease(&world, &desk, LONG, None, false).await.unwrap();
    world.set_clocks(WEEK, false);
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
    (world, clerks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_ahead_ends_nothing_until_somebody_looks() {
    let (world, mut clerks) = after_a_jump("ahead").await;
    world.set_clocks(0, true);
    let desk = Desk::at(&world.nodes[0]);
    world.nodes[0].root().delete("sys/hold").await.ok();
    clerks[0].lease(&world, &desk, BRIEF, None, false).await.unwrap();
    world.check(0, &mut clerks, true).await;
}

/// Whoever releases the hold while the clock stays where it is says that it is right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jump_that_somebody_accepts_ends_what_is_over_and_nothing_else() {
    let (world, mut clerks) = after_a_jump("accepted").await;
    let root = world.nodes[0].root();
    root.delete("sys/hold").await.ok();
    world.set_clocks(WEEK, true);
    // At once: what is leased from the release on is leased in the time that counts now.
    let body = json!({ "data": { "value": 1 } });
    let written = root.write("secret/data/time", body).await;
    let behind = world.now() - moment(&written.data()["created_time"]);
    assert!(behind < 60_000, "{behind} ms behind");
    let desk = Desk::at(&world.nodes[0]);
    clerks[0].lease(&world, &desk, LONG, None, false).await.unwrap();
    world.check(0, &mut clerks, true).await;
    let fates: Vec<_> = clerks[0].credentials.iter().map(|one| one.fate).collect();
    assert_eq!(fates, [Fate::Dead, Fate::Dead, Fate::Live]);
    world.pass_time().await;
    world.check(0, &mut clerks, true).await;
}
