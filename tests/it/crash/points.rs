//! Killed at every fail point there is, and brought back.

use std::collections::BTreeSet;
use std::time::Duration;

use leasehold::core::failpoint::FAIL_POINTS;
use serde_json::json;

use super::clerk::{BRIEF, Clerk, Desk, LONG};
use super::{World, text, was_killed};
use crate::support::broker::{Broker, Setup};
use crate::support::wire::soon;

/// What leads past a point.
#[derive(Clone, Copy, Debug)]
enum Act {
    Expire,
    Initialize,
    Lease,
    Rekey,
    Renew,
    Revoke,
    RevokeAll,
    Rotate,
    Seal,
    Unseal,
    Write,
}

/// Every point; [`FAIL_POINTS`] and the source are held against this.
const POINTS: &[(&str, Act)] = &[
    ("bulk.begun", Act::RevokeAll),
    ("bulk.page", Act::RevokeAll),
    ("database.creating", Act::Lease),
    ("database.disabled", Act::Revoke),
    ("init.after_commit", Act::Initialize),
    ("init.before_commit", Act::Initialize),
    ("keyring.after_commit", Act::Rotate),
    ("keyring.before_commit", Act::Rotate),
    ("lease.active", Act::Lease),
    ("lease.before-intent", Act::Lease),
    ("lease.intent", Act::Lease),
    ("lease.issued", Act::Lease),
    ("lease.killed", Act::Revoke),
    ("lease.renewed", Act::Renew),
    ("lease.revoking", Act::Revoke),
    // At every commit of many: `commits`.
    ("records.after_commit", Act::Write),
    ("records.before_commit", Act::Write),
    ("rekey.after_commit", Act::Rekey),
    ("rekey.before_commit", Act::Rekey),
    ("request.audited", Act::Lease),
    ("request.served", Act::Lease),
    ("rewrap.after_destroy", Act::Rotate),
    ("rewrap.before_destroy", Act::Rotate),
    ("rewrap.page", Act::Rotate),
    ("seal.noted", Act::Seal),
    ("sweep.forgotten", Act::Expire),
    ("sweep.killed", Act::Expire),
    ("unseal.opened", Act::Unseal),
];

#[test]
fn every_fail_point_has_its_kill() {
    let tried: BTreeSet<&str> = POINTS.iter().map(|(point, _)| *point).collect();
    assert_eq!(tried.len(), POINTS.len(), "a point is there twice");
    assert_eq!(tried, FAIL_POINTS.iter().copied().collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_fail_point_loses_nothing_and_leaves_nothing() {
    let world = World::on_sqlite().await;
    let mut clerks = [Clerk::new("p")];
    for (point, act) in POINTS {
        if matches!(act, Act::Initialize) {
            killed_while_initialising(point).await;
            continue;
        }
        for new_keys_first in [false, true] {
            prepare(&world, &mut clerks[0]).await;
            let further = killed(&world, &mut clerks[0], point, *act, new_keys_first).await;
            bring_back(&world, further).await;
            world.check(0, &mut clerks, false).await;
            if !matches!(act, Act::Rekey) {
                break;
            }
        }
        world.pass_time().await;
        world.check(0, &mut clerks, true).await;
    }
    // The rotations that were broken off went on to their end.
    let root = world.nodes[0].root();
    soon(async {
        while root.read("sys/key-status").await.data()["rewrap"]["pending"] != json!(0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Something of everything, that has to be there afterwards.
async fn prepare(world: &World, clerk: &mut Clerk) {
    let desk = Desk::at(&world.nodes[0]);
    for slot in 0..2 {
        clerk.write_secret(&desk, slot).await.unwrap();
        clerk.write_policy(&desk, slot).await.unwrap();
    }
    clerk.make_token(world, &desk).await.unwrap();
    let token = clerk.tokens.len() - 1;
    clerk.lease(world, &desk, LONG, Some(token), false).await.unwrap();
    clerk.lease(world, &desk, LONG, None, false).await.unwrap();
}

/// Does what leads past `point`, on a server that dies there. Gives shares that were answered.
async fn killed(
    world: &World,
    clerk: &mut Clerk,
    point: &str,
    act: Act,
    verified: bool,
) -> Option<String> {
    let node = &world.nodes[0];
    node.set_clock_ahead(world.ahead());
    node.start_again_at(Some(point));
    let unsealed = node.try_unseal(&node.keys()[0]).await;
    assert!(unsealed || matches!(act, Act::Unseal | Act::Write), "{point}: not unsealed");
    let (desk, last) = (Desk::at(node), clerk.credentials.len() - 1);
    let mut further = None;
    // Whether an answer comes before the end is the point's own affair.
    let _ = match act {
        Act::Expire => clerk.lease(world, &desk, BRIEF, None, false).await,
        Act::Lease => clerk.lease(world, &desk, LONG, None, true).await,
        Act::Renew => clerk.renew(world, &desk, last).await,
        Act::Revoke => clerk.revoke(world, &desk, last, false).await,
        Act::RevokeAll => clerk.revoke(world, &desk, last, true).await,
        Act::Write => clerk.write_secret(&desk, 0).await,
        Act::Unseal | Act::Initialize => Ok(()),
        Act::Rekey => {
            further = rekey(node, verified).await;
            Ok(())
        }
        Act::Rotate => {
            let _ = node.root().try_request("POST", "sys/rotate", &[], b"").await;
            Ok(())
        }
        Act::Seal => {
            let _ = node.root().try_request("POST", "sys/seal", &[], b"").await;
            Ok(())
        }
    };
    let ended = node.wait_for_end();
    assert!(was_killed(ended), "{point}: {ended}");
    further
}

/// New shares for old ones, as far as it goes; with `verified`, they take over once they are proven.
async fn rekey(node: &Broker, verified: bool) -> Option<String> {
    let admin = node.admin();
    let plan =
        json!({ "secret_shares": 1, "secret_threshold": 1, "require_verification": verified });
    let started = admin.write("sys/rekey/init", plan).await.ok();
    let share = json!({ "key": node.keys()[0], "nonce": started["nonce"] }).to_string();
    let update = "sys/rekey/update";
    let made = admin.try_request("POST", update, &[], share.as_bytes()).await.ok()?.ok();
    let share = text(&made["keys"][0]);
    let proof = json!({ "key": share, "nonce": made["verification_nonce"] }).to_string();
    let _ = admin.try_request("POST", "sys/rekey/verify", &[], proof.as_bytes()).await;
    Some(share)
}

/// Starts the server again; a share that somebody holds opens it.
async fn bring_back(world: &World, further: Option<String>) {
    let node = &world.nodes[0];
    node.set_clock_ahead(world.ahead());
    node.start_again();
    for share in node.keys().into_iter().chain(further) {
        if node.try_unseal(&share).await {
            node.set_keys(vec![share]);
            return;
        }
    }
    panic!("no share that was answered opens the store");
}

async fn killed_while_initialising(point: &str) {
    let broker = Broker::start(Setup { fail_point: Some(point.into()), ..Setup::default() });
    let body = json!({ "secret_shares": 1, "secret_threshold": 1 }).to_string();
    let lost = broker.admin().try_request("POST", "sys/init", &[], body.as_bytes()).await;
    assert!(lost.is_err(), "{point}");
    assert!(was_killed(broker.wait_for_end()), "{point}");
    broker.start_again();
    let is_initialized = broker.admin().read("sys/init").await.ok()["initialized"].clone();
    assert_eq!(is_initialized, json!(point == "init.after_commit"));
    if point == "init.after_commit" {
        // Whole: nobody gets to initialise it over what is there.
        let again = broker.admin().request("POST", "sys/init", &[], body.as_bytes()).await;
        assert_eq!(again.status, 400, "{}", again.body);
    } else {
        broker.init().await;
        broker.unseal().await;
        broker.root().read("sys/mounts").await.ok();
    }
}
