//! Lifetimes nest (P5): whatever is asked for, nothing outlives what it rests on.

use leasehold::core::engine::LeasePlan;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::*;

const MOUNT_MAX: u64 = 86_400;

#[derive(Debug, Clone)]
struct Case {
    ttl: u64,
    role_max: u64,
    caller: Option<u64>,
    renewals: Vec<(u64, u64, Option<u64>)>,
}

fn case() -> impl Strategy<Value = Case> {
    let secs = || prop_oneof![Just(0), 1u64..200_000, Just(u64::MAX)];
    let end = || proptest::option::of(0u64..200_000);
    (secs(), secs(), end(), prop::collection::vec((0u64..90_000, secs(), end()), 0..5))
        .prop_map(|(ttl, role_max, caller, renewals)| Case { ttl, role_max, caller, renewals })
}

async fn check(world: &World, name: &str, case: Case) -> Result<(), TestCaseError> {
    let begun = world.now();
    let after = |secs: u64| begun.plus(Ttl::from_secs(secs));
    let plan = LeasePlan {
        max_ttl: Ttl::from_secs(case.role_max),
        ..plan("pg", name, Ttl::from_secs(case.ttl))
    };
    let caller_expires_at = case.caller.map(after);
    let issuing = Issuing { caller_expires_at, ..world.issuing() };
    let issued = world.leases().issue(issuing, plan).await;
    let mut limit = after(MOUNT_MAX);
    if case.role_max > 0 {
        limit = limit.min(after(case.role_max));
    }
    // No renewal passes this; the caller's own end binds what that caller is given.
    let ground = limit;
    if let Some(end) = caller_expires_at {
        limit = limit.min(end);
    }
    let Ok(reply) = issued else {
        prop_assert!(limit.millis_since(begun) < 1000, "refused although there was time");
        prop_assert_eq!(world.targets.live().len(), 0);
        return Ok(());
    };
    let lease = id(&reply);
    let mut before = begun;
    for (pause, increment, caller) in case.renewals {
        let row = world.lease(&lease).await.unwrap();
        prop_assert!(row.expires_at <= limit && row.expires_at <= row.max_expires_at);
        prop_assert!(row.max_expires_at <= ground);
        prop_assert!(row.expires_at >= before, "a promise was taken back");
        prop_assert!(world.targets.credential(name).unwrap().expires_at <= row.expires_at);
        before = row.expires_at;
        world.advance(pause);
        let caller = caller.map(|secs| world.now().plus(Ttl::from_secs(secs)));
        let renewed = world.leases().renew(&lease, Ttl::from_secs(increment), caller).await;
        if world.now() >= row.expires_at {
            prop_assert!(renewed.is_err());
            break;
        }
        let row = world.lease(&lease).await.unwrap();
        prop_assert_eq!(
            renewed.unwrap().lease.unwrap().duration,
            row.expires_at.remaining(world.now())
        );
        if let Some(end) = caller {
            prop_assert!(row.expires_at <= end.max(before), "prolonged beyond the caller");
        }
        limit = ground;
    }
    world.leases().revoke(&lease).await.unwrap();
    prop_assert_eq!(world.targets.live().len(), 0);
    Ok(())
}

#[test]
fn a_credential_ends_no_later_than_its_lease_its_caller_its_role_and_its_mount() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = runtime.block_on(World::new());
    let mut runner = TestRunner::new(Config { cases: 150, ..Config::default() });
    let number = std::cell::Cell::new(0);
    runner
        .run(&case(), |case| {
            number.set(number.get() + 1);
            runtime.block_on(check(&world, &format!("u{}", number.get()), case))
        })
        .unwrap();
}
