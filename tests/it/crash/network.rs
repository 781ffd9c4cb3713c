//! The network between the server and its target fails, at the worst moments.

use serde_json::json;

use super::World;
use super::clerk::{BRIEF, Clerk, Desk, Fate, LONG, LONG_PATIENCE};
use super::relay::{Fault, Relay};
use crate::support::broker::Setup;

/// A world whose target is reached by a relay, and a clerk who holds two credentials.
async fn relayed(name: &str) -> (World, Relay, [Clerk; 1]) {
    let world = World::with_clock(Setup::default()).await;
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

/// Everything ends, in the process that has met the fault and in the next one.
async fn survived(world: &World, relay: &Relay, clerks: &mut [Clerk]) {
    relay.set(Fault::Nothing);
    world.check(0, clerks, false).await;
    world.pass_time_alive();
    world.check(0, clerks, true).await;
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
        let held = clerks[0].credentials.iter().position(|one| one.fate == Fate::Live);
        // Whether these succeed depends on what the target is asked; what is said must be true.
        let _ = clerks[0].renew(&world, &desk, held.unwrap()).await;
        let _ = clerks[0].revoke(&world, &desk, held.unwrap(), false).await;
        survived(&world, &relay, &mut clerks).await;
        let desk = Desk::at(&world.nodes[0]);
        clerks[0].lease(&world, &desk, LONG, None, false).await.unwrap();
    }
}

/// It hears everything, does everything, and says so when nobody waits any more: to whoever issues,
/// renews, revokes, and to the sweep.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_answers_too_late_leaves_nothing_and_loses_nothing() {
    let (world, relay, [mut issues]) = relayed("late").await;
    let desk = Desk::at(&world.nodes[0]);
    let (mut renews, mut revokes) = (Clerk::new("renew"), Clerk::new("revoke"));
    for clerk in [&mut renews, &mut revokes] {
        clerk.patience = LONG_PATIENCE;
        clerk.lease(&world, &desk, LONG, None, false).await.unwrap();
    }
    // Ends while nothing is answered.
    issues.lease(&world, &desk, BRIEF, None, false).await.unwrap();
    relay.set(Fault::Late);
    let (other, third) = (Desk::at(&world.nodes[0]), Desk::at(&world.nodes[0]));
    let (given, renewed, revoked) = tokio::join!(
        issues.lease(&world, &desk, LONG, None, false),
        renews.renew(&world, &other, 0),
        revokes.revoke(&world, &third, 0, false),
    );
    assert!(given.is_err(), "a credential that the server never heard of");
    assert!(renewed.is_err(), "a renewal that the server never heard of");
    let fate = revokes.credentials[0].fate;
    assert_ne!(fate, Fate::Dead, "{revoked:?}: a revocation that the server never heard of");
    let root = world.nodes[0].root();
    let swept = root.write("sys/leases/search", json!({ "mount": "database/" })).await;
    let leases = swept.data()["leases"].clone();
    let brief = &issues.credentials.iter().find(|one| one.over_at < world.now()).unwrap().lease;
    let still = leases.as_array().unwrap().iter().any(|lease| lease["id"] == **brief);
    assert!(still, "the sweep believed a target that did not answer: {leases}");
    survived(&world, &relay, &mut [issues, renews, revokes]).await;
}
