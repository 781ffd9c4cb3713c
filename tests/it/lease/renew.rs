//! Renewing.

use leasehold::core::engine::LeasePlan;

use super::*;

#[tokio::test]
async fn a_renewal_reaches_the_target_and_the_row() {
    let world = World::new().await;
    let lease = world.issue("pg", "u1").await;
    world.advance(1800);
    let reply = world.leases().renew(&lease, Ttl::ZERO, None).await.unwrap();
    assert_eq!(reply.lease.unwrap().duration, HOUR, "its first lifetime again");
    let end = world.now().plus(HOUR);
    assert_eq!(world.targets.credential("u1").unwrap().expires_at, end);
    let row = world.lease(&lease).await.unwrap();
    assert_eq!((row.expires_at, row.renewed_at), (end, Some(world.now())));
    world.advance(1801);
    world.sweep().await;
    assert_eq!(world.targets.live().len(), 1, "the old end is past, the new one is not");
    world.advance(1800);
    world.sweep().await;
    assert_eq!(world.targets.live().len(), 0);
}

#[tokio::test]
async fn a_renewal_never_shortens_and_never_passes_a_limit() {
    let world = World::new().await;
    let lease = world.issue("pg", "u1").await;
    let first = world.lease(&lease).await.unwrap();
    for (increment, caller) in [(Ttl::from_secs(10), None), (HOUR, Some(START.plus_millis(60_000)))]
    {
        let reply = world.leases().renew(&lease, increment, caller).await.unwrap();
        assert_eq!(reply.lease.unwrap().duration, HOUR);
        assert_eq!(world.lease(&lease).await.unwrap().expires_at, first.expires_at);
    }
    let caller = world.now().plus(Ttl::from_secs(7200));
    let reply = world.leases().renew(&lease, Ttl::MAX, Some(caller)).await.unwrap();
    assert_eq!((reply.lease.unwrap().duration.as_secs(), reply.warnings.len()), (7200, 1));
    let reply = world.leases().renew(&lease, Ttl::MAX, None).await.unwrap();
    assert_eq!(reply.lease.unwrap().duration.as_secs(), 86_400, "the mount's");
    assert_eq!(world.lease(&lease).await.unwrap().expires_at, first.max_expires_at);
    world.advance(3600);
    let reply = world.leases().renew(&lease, HOUR, None).await.unwrap();
    assert_eq!(reply.lease.unwrap().duration.as_secs(), 86_400 - 3600);
}

#[tokio::test]
async fn what_is_over_unknown_or_not_renewable_is_refused() {
    let world = World::new().await;
    let fixed = LeasePlan { renewable: false, ..plan("pg", "fixed", HOUR) };
    let fixed = id(&world.leases().issue(world.issuing(), fixed).await.unwrap());
    let lease = world.issue("pg", "u1").await;
    let mut refused = vec![fixed, LeaseId::new("db/creds/x/y")];
    refused.extend(["", "/", "db/", "db/creds/"].map(LeaseId::new));
    for id in refused {
        let error = world.leases().renew(&id, HOUR, None).await.unwrap_err();
        assert_eq!(error.status(), 400, "{id}");
    }
    world.advance(3600);
    assert_eq!(world.leases().renew(&lease, HOUR, None).await.unwrap_err().status(), 400);
}

#[tokio::test]
async fn a_target_that_is_down_prolongs_nothing() {
    let world = World::new().await;
    let lease = world.issue("pg", "u1").await;
    let before = world.lease(&lease).await.unwrap().expires_at;
    world.advance(60);
    world.targets.set("pg", Mood::Down);
    let error = world.leases().renew(&lease, HOUR, None).await.unwrap_err();
    assert!(is_upstream(&error), "{error}");
    assert_eq!(world.lease(&lease).await.unwrap().expires_at, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_that_a_revocation_overtakes_fails() {
    let world = World::new().await;
    let lease = world.issue("pg", "u1").await;
    world.advance(60);
    world.targets.set("pg", Mood::Hanging);
    let mut renewal = Box::pin(world.leases().renew(&lease, HOUR, None));
    assert!(futures_util::poll!(&mut renewal).is_pending());
    let revoke = async {
        // Marked, and waiting for the target, as the renewal is.
        world.targets.until_hanging(1).await;
        world.targets.set("pg", Mood::Up);
    };
    let (renewed, revoked, ()) = tokio::join!(renewal, world.leases().revoke(&lease), revoke);
    revoked.unwrap();
    assert_eq!(renewed.unwrap_err().status(), 400);
    assert_eq!((world.targets.live().len(), world.rows().await.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_that_is_not_done_by_the_end_of_the_lease_is_none() {
    let world = World::new().await;
    let lease = world.issue("pg", "u1").await;
    world.advance(3599);
    world.targets.set("pg", Mood::Hanging);
    let mut renewal = Box::pin(world.leases().renew(&lease, HOUR, None));
    while world.targets.credential("u1").is_some() && world.lease(&lease).await.is_none() {}
    assert!(futures_util::poll!(&mut renewal).is_pending());
    world.advance(1);
    world.targets.set("pg", Mood::Up);
    assert_eq!(renewal.await.unwrap_err().status(), 400);
    world.sweep().await;
    assert_eq!(world.targets.live().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_renewals_all_succeed_and_agree_with_the_target() {
    let world = World::new().await;
    let lease = world.issue("pg", "u1").await;
    world.advance(60);
    let renewals =
        (0..8u64).map(|n| world.leases().renew(&lease, Ttl::from_secs(4000 + 100 * n), None));
    for renewed in futures_util::future::join_all(renewals).await {
        renewed.unwrap();
    }
    let row = world.lease(&lease).await.unwrap();
    assert_eq!(row.expires_at, world.now().plus(Ttl::from_secs(4700)));
    assert!(world.targets.credential("u1").unwrap().expires_at >= row.expires_at.plus_millis(-1));
}
