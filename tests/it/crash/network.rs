//! The network between the server and its target fails, at the worst moments.

use super::World;
use super::clerk::{BRIEF, Clerk, Desk, LONG, LONG_PATIENCE};
use super::relay::{Fault, Relay};

/// A world whose target is reached by a relay, and a clerk who holds two credentials.
async fn relayed(name: &str) -> (World, Relay, [Clerk; 1]) {
    let world = World::on_sqlite().await;
    let relay = Relay::before(world.server.port()).await;
    world.reach_target_at(relay.port()).await;
    let mut clerks = [Clerk::new(name)];
    clerks[0].patience = LONG_PATIENCE;
    let desk = Desk::at(&world.nodes[0]);
    for _ in 0..2 {
        clerks[0].lease(&world, &desk, LONG, None, false).await.unwrap();
    }
    (world, relay, clerks)
}

async fn survived(world: &World, relay: &Relay, clerks: &mut [Clerk]) {
    relay.set(Fault::Nothing);
    world.check(0, clerks, false).await;
    world.pass_time().await;
    world.check(0, clerks, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_break_lose_nothing_and_leave_nothing() {
    let (world, relay, mut clerks) = relayed("net").await;
    for fault in [Fault::Reset, Fault::CutAtCommit] {
        let desk = Desk::at(&world.nodes[0]);
        clerks[0].lease(&world, &desk, BRIEF, None, false).await.unwrap();
        relay.set(fault);
        let given = clerks[0].lease(&world, &desk, LONG, None, false).await;
        assert!(given.is_err(), "{fault:?}: a credential that the server never heard of");
        let held =
            clerks[0].credentials.iter().position(|one| one.fate == super::clerk::Fate::Live);
        // Whether these succeed depends on what the target is asked; what is said must be true.
        let _ = clerks[0].renew(&world, &desk, held.unwrap()).await;
        let _ = clerks[0].revoke(&world, &desk, held.unwrap(), false).await;
        survived(&world, &relay, &mut clerks).await;
        let desk = Desk::at(&world.nodes[0]);
        clerks[0].lease(&world, &desk, LONG, None, false).await.unwrap();
    }
}

/// It hears everything, does everything, and says so when nobody waits any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_answers_too_late_leaves_nothing() {
    let (world, relay, mut clerks) = relayed("late").await;
    let desk = Desk::at(&world.nodes[0]);
    relay.set(Fault::Late);
    let given = clerks[0].lease(&world, &desk, LONG, None, false).await;
    assert!(given.is_err(), "a credential that the server never heard of");
    survived(&world, &relay, &mut clerks).await;
}
