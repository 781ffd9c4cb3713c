//! Revoking one lease: the truth about it.

use futures_util::future::join_all;

use super::*;

#[tokio::test]
async fn a_revoked_credential_is_dead_when_the_answer_comes() {
    let world = World::new().await;
    let lease = world.issue("pg", "u1").await;
    world.leases().revoke(&lease).await.unwrap();
    assert_eq!((world.targets.live().len(), world.rows().await.len()), (0, 0));
    world.leases().revoke(&lease).await.unwrap();
    world.leases().revoke(&LeaseId::new("db/creds/role/none")).await.unwrap();
}

#[tokio::test]
async fn a_failed_revocation_is_an_error_and_is_tried_until_it_succeeds() {
    let world = World::new().await;
    let lease = world.issue("pg", "u1").await;
    world.targets.set("pg", Mood::Down);
    let error = world.leases().revoke(&lease).await.unwrap_err();
    assert!(is_upstream(&error), "{error}");
    let listed = world.overdue().await;
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].attempts, listed[0].state), (1, LeaseState::Revoking));
    assert!(listed[0].last_error.as_ref().unwrap().contains("connection refused"));
    assert_eq!(world.leases().count(&world.mounted.facts.accessor, true).await.unwrap(), 1);
    assert_eq!(
        world.leases().renew(&lease, HOUR, None).await.unwrap_err().status(),
        400,
        "dead to renewals"
    );

    // The pauses grow, up to the longest.
    let (mut tries, mut pauses) = (1, Vec::new());
    for _ in 0..12 {
        let begun = world.now();
        while world.lease(&lease).await.unwrap().attempts == tries {
            assert!(world.now().millis_since(begun) < 700_000, "it is not tried any more");
            world.advance(1);
            world.sweep().await;
        }
        tries = world.lease(&lease).await.unwrap().attempts;
        pauses.push(world.now().millis_since(begun) / 1000);
    }
    assert!(pauses[0] <= 6 && pauses[11] >= 200 && pauses[11] <= 620, "{pauses:?}");
    assert_eq!(world.overdue().await[0].failing_since, Some(START));

    world.targets.set("pg", Mood::Up);
    world.advance(620);
    world.sweep().await;
    assert_eq!((world.targets.live().len(), world.rows().await.len()), (0, 0));
    assert_eq!(world.overdue().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoking_twice_at_once_is_revoking() {
    let world = World::new().await;
    for round in 0..20 {
        let lease = world.issue("pg", &format!("u{round}")).await;
        for revoked in join_all((0..4).map(|_| world.leases().revoke(&lease))).await {
            revoked.unwrap();
        }
        assert_eq!((world.targets.live().len(), world.rows().await.len()), (0, 0));
    }
}

#[tokio::test]
async fn a_hold_refuses_to_revoke() {
    let world = World::new().await;
    let lease = world.issue("pg", "u1").await;
    world.leases().set_hold("the store was put back".into()).await.unwrap();
    let error = world.leases().revoke(&lease).await.unwrap_err();
    assert_eq!(error.status(), 409);
    let error = world.leases().revoke_all(Selector::Overdue).await.unwrap_err();
    assert_eq!(error.status(), 409);
    assert_eq!(world.leases().abandon(&lease, &decision()).await.unwrap_err().status(), 409);
    assert_eq!(world.targets.live().len(), 1);
    world.leases().release_hold().await.unwrap();
    world.leases().revoke(&lease).await.unwrap();
}

#[tokio::test]
async fn abandoning_forgets_and_says_whether_the_credential_may_live() {
    let world = World::new().await;
    let (lost, easy) = (world.issue("pg", "u1").await, world.issue("other", "u2").await);
    world.targets.set("pg", Mood::Down);
    let abandoned = world.leases().abandon(&lost, &decision()).await.unwrap();
    assert!(abandoned.last_error.unwrap().contains("connection refused"));
    assert_eq!(abandoned.lease.id, lost);
    assert_eq!(world.leases().abandon(&easy, &decision()).await.unwrap().last_error, None);
    assert_eq!(world.leases().abandon(&lost, &decision()).await.unwrap_err().status(), 400);
    assert_eq!(world.rows().await.len(), 0);
    assert_eq!(world.targets.live(), BTreeSet::from(["u1".to_owned()]));
}

#[tokio::test]
async fn an_engine_that_panics_does_not_stop_the_rest() {
    let world = World::new().await;
    world.issue("bad", "u1").await;
    world.issue("good", "u2").await;
    world.targets.set("bad", Mood::Panicking);
    world.advance(3601);
    let report = world.sweep().await;
    assert_eq!((report.revoked, report.failed), (1, 1));
    world.targets.set("bad", Mood::Up);
    world.advance(10);
    world.sweep().await;
    assert_eq!(world.targets.live().len(), 0);
}
