//! Many leases at once.

use leasehold::core::lease::BulkProgress;

use super::*;

impl World {
    async fn progress(&self, operation: &str) -> BulkProgress {
        self.leases().progress(operation).await.unwrap().unwrap()
    }

    async fn issue_at(&self, path: &str, who: &str, name: &str) -> LeaseId {
        let issuing = Issuing { path, owner: owner(who), ..self.issuing() };
        id(&self.leases().issue(issuing, plan("pg", name, HOUR)).await.unwrap())
    }
}

#[tokio::test]
async fn a_prefix_is_revoked_whole_and_nothing_beside_it() {
    let world = World::new().await;
    for n in 0..30 {
        world.issue_at("db/creds/app", "alice", &format!("a{n}")).await;
        world.issue_at("db/creds/app/deep", "alice", &format!("d{n}")).await;
        world.issue_at("db/creds/apple", "bob", &format!("b{n}")).await;
    }
    let prefix = Selector::Prefix("db/creds/app/".into());
    let (total, named) = world.leases().selected(&prefix, 10).await.unwrap();
    assert_eq!((total, named.len()), (60, 10));
    assert_eq!(world.targets.live().len(), 90, "a dry run changes nothing");

    let operation = world.leases().revoke_all(prefix).await.unwrap();
    let progress = world.progress(&operation).await;
    assert_eq!((progress.total, progress.pending, progress.complete), (60, 60, false));
    world.sweep().await;
    let progress = world.progress(&operation).await;
    assert_eq!((progress.total, progress.pending, progress.complete), (60, 0, true));
    assert_eq!(world.targets.live().len(), 30);
    assert!(world.targets.live().iter().all(|name| name.starts_with('b')));
    assert_eq!(world.leases().names("db/creds/").await.unwrap(), ["apple/"]);

    assert_eq!(world.leases().tidy_operations(world.now()).await.unwrap(), 0, "too young");
    world.advance(10);
    assert_eq!(world.leases().tidy_operations(world.now()).await.unwrap(), 1);
    assert!(world.leases().progress(&operation).await.unwrap().is_none());
    assert!(world.leases().progress("a/b").await.unwrap().is_none());
    assert!(world.leases().progress("").await.unwrap().is_none());
}

#[tokio::test]
async fn leases_are_found_by_owner_role_and_mount() {
    let world = World::new().await;
    for n in 0..5 {
        world.issue_at("db/creds/x", "alice", &format!("a{n}")).await;
        world.issue_at("db/creds/x", "bob", &format!("b{n}")).await;
    }
    let accessor = world.mounted.facts.accessor.clone();
    for (selector, expected) in [
        (Selector::Entities(vec![EntityId::new("alice")]), 5),
        (Selector::Entities(vec![EntityId::new("nobody")]), 0),
        (Selector::Role(accessor.clone(), "role".into()), 10),
        (Selector::Role(accessor.clone(), "other".into()), 0),
        (Selector::Mount(accessor), 10),
        (Selector::Prefix(String::new()), 10),
        (Selector::Token("alice".into()), 0),
    ] {
        let (total, _) = world.leases().selected(&selector, 0).await.unwrap();
        assert_eq!(total, expected, "{selector:?}");
    }
    let all =
        world.leases().revoke_all(Selector::Entities(vec![EntityId::new("alice")])).await.unwrap();
    world.sweep().await;
    assert!(world.progress(&all).await.complete);
    assert!(world.targets.live().iter().all(|name| name.starts_with('b')));
}

#[tokio::test]
async fn failures_are_told_per_lease_until_all_are_dead() {
    let world = World::new().await;
    let stuck = world.issue("down", "u1").await;
    for n in 0..3 {
        world.issue("pg", &format!("p{n}")).await;
    }
    world.targets.set("down", Mood::Down);
    let all = world.leases().revoke_all(Selector::Prefix(String::new())).await.unwrap();
    world.sweep().await;
    let progress = world.progress(&all).await;
    assert_eq!((progress.total, progress.pending, progress.complete), (4, 1, false));
    assert_eq!(progress.failures.len(), 1);
    let failure = &progress.failures[0];
    assert_eq!((&failure.lease_id, failure.attempts), (&stuck, 1));
    assert!(failure.error.contains("connection refused"));
    // A second operation over the same lease does not take it away from the first.
    let again = world.leases().revoke_all(Selector::Overdue).await.unwrap();
    assert!(!world.progress(&all).await.complete);
    world.targets.set("down", Mood::Up);
    world.advance(60);
    world.sweep().await;
    for operation in [all, again] {
        assert!(world.progress(&operation).await.complete);
    }
}

#[tokio::test]
async fn an_operation_that_a_crash_broke_off_is_taken_up_again() {
    let world = World::new().await;
    // More than one commit marks.
    for n in 0..1100 {
        world.issue("pg", &format!("u{n}")).await;
    }
    let leases = world.leases().clone();
    let mut marking = Box::pin(leases.revoke_all(Selector::Prefix(String::new())));
    // Given up as soon as something is marked and not all of it.
    loop {
        assert!(futures_util::poll!(&mut marking).is_pending());
        let marked = world.rows().await.iter().filter(|l| l.state == LeaseState::Revoking).count();
        if marked > 0 {
            assert!(marked < 1100);
            break;
        }
    }
    drop(marking);
    world.sweep().await;
    assert!(!world.targets.live().is_empty());
    let operation = {
        let lost = world.operation_ids().await;
        assert_eq!(lost.len(), 1);
        lost[0].clone()
    };
    assert!(!world.progress(&operation).await.complete, "it has not begun with all of them");
    world.leases().resume_operations().await.unwrap();
    world.sweep().await;
    let progress = world.progress(&operation).await;
    assert_eq!((progress.total, progress.complete), (1100, true), "each is counted once");
    assert_eq!(world.targets.live().len(), 0);
}

impl World {
    async fn operation_ids(&self) -> Vec<String> {
        use leasehold::core::records::kinds;
        use leasehold::core::view::View;
        use leasehold::types::id::NamespaceId;
        let records = self.test.unsealed.records.clone();
        View::new(records, NamespaceId::ROOT, kinds::OPERATION, String::new())
            .list("")
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn what_belongs_to_a_token_ends_with_it() {
    let world = World::new().await;
    let mine = Issuing { owner: Owner::Token("t1".into()), ..world.issuing() };
    world.leases().issue(mine, plan("pg", "u1", HOUR)).await.unwrap();
    world.issue("pg", "u2").await;
    world.leases().end_with_token("t1").await.unwrap();
    world.leases().end_with_token("t1").await.unwrap();
    world.sweep().await;
    assert_eq!(world.targets.live(), BTreeSet::from(["u2".to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_and_revocations_under_way_do_not_escape_a_bulk_revocation() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for n in 0..200 {
        ids.push(world.issue("pg", &format!("u{n}")).await);
    }
    world.advance(10);
    let renewing = async {
        for id in &ids {
            let _ = world.leases().renew(id, HOUR, None).await;
        }
    };
    let all = world.leases().revoke_all(Selector::Prefix(String::new()));
    let (operation, ()) = tokio::join!(all, renewing);
    world.sweep().await;
    let progress = world.progress(&operation.unwrap()).await;
    assert_eq!((progress.total, progress.complete), (200, true));
    assert_eq!((world.targets.live().len(), world.rows().await.len()), (0, 0));
}

#[tokio::test]
async fn leases_on_a_target_that_hangs_are_given_up_without_trying_each() {
    let world = World::with(|setup| setup.leases.target_timeout = Duration::from_millis(50)).await;
    for n in 0..300 {
        world.issue("lost", &format!("u{n}")).await;
    }
    for n in 0..5 {
        world.issue("pg", &format!("p{n}")).await;
    }
    world.targets.set("lost", Mood::Hanging);
    let everything = Selector::Prefix(String::new());
    let operation = world.leases().abandon_all(everything, decision()).await.unwrap();
    let progress = world.progress(&operation).await;
    assert_eq!((progress.total, progress.pending, progress.abandoned), (305, 305, 0));
    let report = world.sweep().await;
    assert_eq!((report.revoked, report.abandoned, report.failed), (5, 300, 0), "{report:?}");
    let progress = world.progress(&operation).await;
    assert_eq!((progress.pending, progress.complete, progress.abandoned), (0, true, 300));
    assert_eq!(progress.may_live.len(), 300, "each is named");
    assert!(world.targets.tries("lost") <= 16, "{} tries", world.targets.tries("lost"));
    assert_eq!((world.rows().await.len(), world.overdue().await.len()), (0, 0));
    assert_eq!(world.targets.live().len(), 300);
}

#[tokio::test]
async fn what_was_overdue_is_given_up_and_every_operation_over_it_says_so() {
    let world = World::new().await;
    world.issue("pg", "u1").await;
    world.targets.set("pg", Mood::Refusing);
    let first = world.leases().revoke_all(Selector::Prefix(String::new())).await.unwrap();
    world.sweep().await;
    assert_eq!(world.progress(&first).await.failures.len(), 1);
    let forced = world.leases().abandon_all(Selector::Overdue, decision()).await.unwrap();
    world.sweep().await;
    for operation in [first, forced] {
        let progress = world.progress(&operation).await;
        assert_eq!((progress.complete, progress.abandoned, progress.total), (true, 1, 1));
    }
    assert_eq!(world.rows().await.len(), 0);
}

#[tokio::test]
async fn what_was_not_even_asked_for_is_not_given_up() {
    let world = World::new().await;
    let (one, other) = (world.issue("pg", "u1").await, world.issue("pg", "u2").await);
    world.targets.set("pg", Mood::Unasked);
    assert_eq!(world.leases().abandon(&one, &decision()).await.unwrap_err().status(), 503);
    let everything = Selector::Prefix(String::new());
    let operation = world.leases().abandon_all(everything, decision()).await.unwrap();
    assert_eq!(world.sweep().await.abandoned, 0);
    assert!(world.lease(&one).await.is_some() && world.lease(&other).await.is_some());
    world.targets.set("pg", Mood::Up);
    world.sweep_up().await;
    assert_eq!((world.targets.live().len(), world.rows().await.len()), (0, 0));
    let progress = world.progress(&operation).await;
    assert_eq!((progress.complete, progress.abandoned), (true, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn giving_up_waits_for_what_is_still_being_created() {
    let world = World::new().await;
    world.targets.set("pg", Mood::Hanging);
    let issue = world.try_issue("pg", "u1");
    let force = async {
        world.targets.until_hanging(1).await;
        let all = Selector::Prefix(String::new());
        let operation = world.leases().abandon_all(all, decision()).await.unwrap();
        world.sweep().await;
        assert_eq!(world.progress(&operation).await.pending, 1);
        assert_eq!(world.rows().await.len(), 1, "it is still named");
        world.targets.set("pg", Mood::Up);
        operation
    };
    let (issued, operation) = tokio::join!(issue, force);
    assert!(matches!(issued, Err(CoreError::Denied { .. })), "{issued:?}");
    world.sweep_up().await;
    assert_eq!(world.targets.live().len(), 0);
    let progress = world.progress(&operation).await;
    assert_eq!((progress.complete, progress.abandoned), (true, 0));
}
