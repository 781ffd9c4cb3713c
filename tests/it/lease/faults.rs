//! The n-th write of a whole scenario fails, for every n: nothing leaks, and nothing is half done.

use leasehold::storage::fault::{FaultyStorage, Moment, Reach};

use super::*;

async fn world() -> (World, Arc<FaultyStorage>, tempfile::TempDir) {
    let (directory, storage) = crate::support::core::sqlite();
    let faulty = FaultyStorage::new(storage);
    let targets = Targets::new();
    let setup = TestSetup { registry: targets.registry(), ..TestSetup::new() };
    let test = TestCore::start_on(faulty.clone(), setup).await;
    let mounted = test.mount(KIND, "db/").await;
    (World { test, targets, mounted }, faulty, directory)
}

/// What an acknowledged step promised.
#[derive(Default)]
struct Promised {
    renewed_to: Option<Timestamp>,
    dead: BTreeSet<String>,
}

/// Issue, renew, revoke, bulk, expiry; every step may fail.
async fn scenario(world: &World) -> Promised {
    let mut promised = Promised::default();
    let issue = |name: &'static str, ttl: u64| async move {
        let plan = plan("pg", name, Ttl::from_secs(ttl));
        world.leases().issue(world.issuing(), plan).await.map(|reply| id(&reply))
    };
    let keyed = Issuing { idempotency_key: Some("k"), ..world.issuing() };
    let keyed = world.leases().issue(keyed, plan("pg", "keyed", HOUR)).await;
    let (one, two) = (issue("u1", 3600).await, issue("u2", 3600).await);
    let _ = issue("u3", 60).await;
    world.advance(30);
    if let Ok(one) = &one
        && world.leases().renew(one, Ttl::from_secs(7200), None).await.is_ok()
    {
        promised.renewed_to = Some(world.now().plus(Ttl::from_secs(7200)));
    }
    if let Ok(two) = &two
        && world.leases().revoke(two).await.is_ok()
    {
        promised.dead.insert("u2".to_owned());
    }
    world.targets.set("pg", Mood::FailingAfter);
    let _ = issue("u4", 3600).await;
    world.targets.set("pg", Mood::Up);
    let _ = world.leases().sweep().await;
    world.advance(60);
    let _ = world.leases().sweep().await;
    if let Ok(reply) = keyed {
        let all = world.leases().revoke_all(Selector::Prefix("db/creds/role/".into())).await;
        let _ = world.leases().sweep().await;
        if let Ok(all) = all
            && let Ok(Some(progress)) = world.leases().progress(&all).await
            && progress.complete
        {
            promised.dead.extend(["u1".to_owned(), "keyed".to_owned()]);
            promised.renewed_to = None;
        }
        drop(reply);
    }
    promised
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_leaks_whichever_write_fails() {
    let (clean, faulty, _directory) = world().await;
    faulty.fail_writes(Reach::Nothing, Moment::Before);
    scenario(&clean).await;
    let writes = faulty.writes();
    assert!(writes >= 15, "{writes}");
    assert_eq!((clean.targets.live().len(), clean.rows().await.len()), (0, 0));

    for moment in [Moment::Before, Moment::After] {
        for reach in (1..=writes).flat_map(|n| [Reach::Only(n), Reach::From(n)]) {
            let (world, faulty, _directory) = world().await;
            faulty.fail_writes(reach, moment);
            let promised = scenario(&world).await;
            faulty.fail_writes(Reach::Nothing, Moment::Before);
            let what = format!("{reach:?} {moment:?}");
            assert_eq!(world.leaked().await, BTreeSet::new(), "{what}");
            for name in &promised.dead {
                assert!(!world.targets.live().contains(name), "{what}: {name} was said to be dead");
            }
            if let Some(end) = promised.renewed_to {
                let rows = world.rows().await;
                let row = rows.iter().find(|row| name(row) == "u1");
                let kept = row
                    .is_some_and(|row| row.state == LeaseState::Revoking || row.expires_at >= end);
                assert!(kept || row.is_none(), "{what}: an acknowledged renewal was lost");
            }
            // A restart: what was only in this process's memory is gone.
            world.leases().resume_operations().await.unwrap();
            world.sweep_up().await;
            assert_eq!(world.targets.live(), BTreeSet::new(), "{what}");
            assert_eq!(world.leases().names("").await.unwrap(), Vec::<String>::new(), "{what}");
            assert_eq!(world.leftovers().await, 0, "{what}: idempotency records");
        }
    }
}

impl World {
    async fn leftovers(&self) -> usize {
        use leasehold::core::records::kinds;
        use leasehold::core::view::View;
        use leasehold::types::id::NamespaceId;
        let records = self.test.unsealed.records.clone();
        let keys = View::new(records, NamespaceId::ROOT, kinds::IDEMPOTENCY, String::new());
        keys.list("").await.unwrap().len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_running_sweep_outlives_a_store_that_fails_for_a_while() {
    use tokio_util::sync::CancellationToken;
    let (world, faulty, _directory) = world().await;
    for n in 0..20 {
        world.issue("pg", &format!("u{n}")).await;
    }
    let stop = CancellationToken::new();
    let running = tokio::spawn(world.leases().clone().run_sweep(stop.clone()));
    faulty.fail_writes(Reach::From(1), Moment::Before);
    faulty.fail_reads(Reach::From(1));
    world.advance(3601);
    for _ in 0..20 {
        world.advance(1);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    faulty.fail_reads(Reach::Nothing);
    for _ in 0..20 {
        world.advance(1);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    faulty.fail_writes(Reach::Nothing, Moment::Before);
    while !world.rows().await.is_empty() {
        world.advance(1);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(world.targets.live().len(), 0);
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_hold_that_could_not_be_stored_is_in_force_until_it_is() {
    let (world, faulty, _directory) = world().await;
    faulty.fail_writes(Reach::From(1), Moment::Before);
    assert_eq!(world.leases().set_hold("a reason".into()).await.unwrap_err().status(), 503);
    // Another node changed something, so that the store is asked again: it knows of no hold.
    assert_eq!(world.leases().load_hold().await.unwrap_err().status(), 503);
    assert_eq!(world.leases().hold().unwrap().reason, "a reason");
    faulty.fail_writes(Reach::Nothing, Moment::Before);
    world.leases().load_hold().await.unwrap();
    assert_eq!(world.leases().hold().unwrap().reason, "a reason");
    let setup = TestSetup { registry: world.targets.registry(), ..TestSetup::new() };
    let other = TestCore::join(faulty.clone(), setup, &world.test.share).await;
    assert_eq!(other.leases().hold().unwrap().reason, "a reason");
}

/// What one sets while another's change is taken over must not be lost over it.
#[tokio::test]
async fn a_hold_is_not_lost_to_an_older_look_at_the_store() {
    let world = World::new().await;
    for _ in 0..20 {
        let (set, loaded) =
            tokio::join!(world.leases().set_hold("x".into()), world.leases().load_hold());
        set.unwrap();
        loaded.unwrap();
        assert!(world.leases().hold().is_some());
        let (loaded, released) =
            tokio::join!(world.leases().load_hold(), world.leases().release_hold());
        loaded.unwrap();
        released.unwrap();
        assert!(world.leases().hold().is_none());
    }
}
