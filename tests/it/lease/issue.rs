//! Issuing: what is there before, what is left after, whatever goes wrong.

use futures_util::future::join_all;
use leasehold::core::fields::Fields;
use leasehold::core::records::{Precondition, kinds};
use leasehold::core::view::View;
use leasehold::storage::StorageError;
use leasehold::types::id::NamespaceId;
use serde_json::json;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_intent_is_durable_before_the_target_hears_of_it() {
    let world = World::new().await;
    world.targets.set("pg", Mood::Hanging);
    let issue = world.try_issue("pg", "u1");
    let look = async {
        world.targets.until_hanging(1).await;
        let rows = world.rows().await;
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].state, name(&rows[0])), (LeaseState::Intent, "u1".to_owned()));
        world.targets.set("pg", Mood::Up);
    };
    let (issued, ()) = tokio::join!(issue, look);
    let reply = issued.unwrap();
    assert_eq!(reply.data.as_ref().unwrap()["password"], "secret of u1");
    let lease = world.lease(&id(&reply)).await.unwrap();
    assert_eq!(lease.state, LeaseState::Active);
    assert_eq!(lease.answer, None, "kept only for who may ask again");
    assert_eq!(world.targets.credential("u1").unwrap().expires_at, lease.expires_at);
}

#[tokio::test]
async fn a_target_that_refuses_or_is_down_leaves_nothing_behind() {
    let world = World::new().await;
    for (mood, upstream) in [(Mood::Refusing, false), (Mood::Down, true)] {
        world.targets.set("pg", mood);
        let error = world.try_issue("pg", "u1").await.unwrap_err();
        assert_eq!(is_upstream(&error), upstream, "{error}");
        world.targets.set("pg", Mood::Up);
        world.sweep().await;
        assert_eq!(world.rows().await.len(), 0, "without waiting for any grace");
        assert_eq!(world.targets.live().len(), 0);
    }
}

#[tokio::test]
async fn what_was_created_in_spite_of_an_error_is_taken_back() {
    let world = World::new().await;
    world.targets.set("pg", Mood::FailingAfter);
    world.try_issue("pg", "u1").await.unwrap_err();
    assert_eq!(world.targets.live().len(), 1);
    assert_eq!(world.leaked().await.len(), 0);
    world.sweep().await;
    assert_eq!((world.targets.live().len(), world.rows().await.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_given_up_is_undone_at_whatever_step() {
    let world = World::new().await;
    for steps in 0..60 {
        let mut issue = Box::pin(world.try_issue("pg", "u"));
        for _ in 0..steps {
            if futures_util::poll!(&mut issue).is_ready() {
                break;
            }
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        drop(issue);
        assert_eq!(world.leaked().await.len(), 0, "given up after {steps} steps");
        // Whatever had become of it: one that was finished is revoked by its owner.
        for lease in world.rows().await {
            if lease.state == LeaseState::Active {
                world.leases().revoke(&lease.id).await.unwrap();
            }
        }
        world.sweep().await;
        // An intent that was being written when it was given up is left to its grace.
        world.advance(121);
        world.sweep().await;
        assert_eq!((world.targets.live().len(), world.rows().await.len()), (0, 0), "{steps}");
    }
}

#[tokio::test]
async fn a_target_that_does_not_answer_is_given_up_and_the_intent_undone() {
    let world = World::with(|setup| setup.leases.target_timeout = Duration::from_millis(20)).await;
    world.targets.set("pg", Mood::Hanging);
    let error = world.try_issue("pg", "u1").await.unwrap_err();
    assert!(is_upstream(&error), "{error}");
    world.targets.set("pg", Mood::Up);
    world.sweep().await;
    assert_eq!(world.rows().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_while_too_many_are_being_made_is_told_at_once_and_leaves_nothing() {
    let world = World::with(|setup| setup.leases.issuing_per_target = 2).await;
    world.targets.set("pg", Mood::Hanging);
    let waiting = join_all(["u1", "u2"].map(|name| world.try_issue("pg", name)));
    let look = async {
        world.targets.until_hanging(2).await;
        let error = world.try_issue("pg", "u3").await.unwrap_err();
        assert!(matches!(error, CoreError::Overloaded { .. }), "{error}");
        assert_eq!((error.status(), error.retry_after()), (503, Some(Ttl::from_secs(1))));
        assert_eq!(world.rows().await.len(), 2, "no intent of the third");
        world.try_issue("other", "u4").await.expect("each target has its own places");
        world.targets.set("pg", Mood::Up);
    };
    let (issued, ()) = tokio::join!(waiting, look);
    assert!(issued.iter().all(Result::is_ok), "who was in was not disturbed");
    world.try_issue("pg", "u3").await.expect("there is room again");
    assert_eq!(world.targets.live().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intent_that_is_revoked_while_it_is_issued_does_not_survive() {
    let world = World::new().await;
    world.targets.set("pg", Mood::Hanging);
    let issue = world.try_issue("pg", "u1");
    let revoke = async {
        world.targets.until_hanging(1).await;
        let lease = world.rows().await.remove(0);
        // The truth is that it may still come to be.
        let error = world.leases().revoke(&lease.id).await.unwrap_err();
        assert!(is_upstream(&error), "{error}");
        // Neither does the sweep believe that it is dead, however far the clock goes.
        world.advance(3600);
        world.sweep().await;
        assert_eq!(world.rows().await.len(), 1);
        world.targets.set("pg", Mood::Up);
    };
    let (issued, ()) = tokio::join!(issue, revoke);
    assert!(matches!(issued, Err(CoreError::Denied { .. })), "{issued:?}");
    assert_eq!(world.leaked().await.len(), 0);
    world.sweep_up().await;
    assert_eq!(world.targets.live().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_somebody_removed_meanwhile_is_put_again_to_undo_the_credential() {
    let world = World::new().await;
    world.targets.set("pg", Mood::Hanging);
    let issue = world.try_issue("pg", "u1");
    let remove = async {
        world.targets.until_hanging(1).await;
        let lease = world.rows().await.remove(0);
        let records = world.test.unsealed.records.clone();
        let leases = View::new(records, NamespaceId::ROOT, kinds::LEASE, String::new());
        leases.remove(lease.id.as_str()).await.unwrap();
        world.targets.set("pg", Mood::Up);
    };
    let (issued, ()) = tokio::join!(issue, remove);
    assert!(matches!(issued, Err(CoreError::Denied { .. })), "{issued:?}");
    assert_eq!(world.targets.live().len(), 1);
    world.sweep_up().await;
    assert_eq!(world.targets.live().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intent_is_not_abandoned_while_its_credential_may_still_come_to_be() {
    let world = World::new().await;
    world.targets.set("pg", Mood::Hanging);
    let issue = world.try_issue("pg", "u1");
    let abandon = async {
        world.targets.until_hanging(1).await;
        let lease = world.rows().await.remove(0);
        let error = world.leases().abandon(&lease.id, &decision()).await.unwrap_err();
        assert!(error.public_text().contains("still being created"), "{error}");
        assert_eq!(world.rows().await.len(), 1, "it is still named");
        world.targets.set("pg", Mood::Up);
    };
    let (issued, ()) = tokio::join!(issue, abandon);
    // Nobody is given the password of a user that is about to die.
    assert!(matches!(issued, Err(CoreError::Denied { .. })), "{issued:?}");
    assert_eq!(world.leaked().await.len(), 0);
    world.sweep_up().await;
    assert_eq!(world.targets.live().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intent_of_a_node_that_died_is_abandoned_only_once_it_has_settled() {
    let world = World::new().await;
    // As a process leaves it that is killed between the intent and the target.
    let mut issue = Box::pin(world.try_issue("pg", "u1"));
    world.targets.set("pg", Mood::Hanging);
    while world.rows().await.is_empty() {
        assert!(futures_util::poll!(&mut issue).is_pending());
        tokio::task::yield_now().await;
    }
    let id = world.rows().await[0].id.clone();
    let setup = TestSetup { registry: world.targets.registry(), node: 2, ..TestSetup::new() };
    let setup = TestSetup { clock: world.test.clock.clone(), ..setup };
    let storage = world.test.core.storage.clone();
    let other = TestCore::join(storage, setup, &world.test.share).await;
    let early = other.leases().abandon(&id, &decision()).await.unwrap_err();
    assert!(is_upstream(&early), "{early}");
    drop(issue);
    world.targets.set("pg", Mood::Down);
    world.advance(121);
    let abandoned = other.leases().abandon(&id, &decision()).await.unwrap();
    assert!(abandoned.last_error.unwrap().contains("connection refused"));
    assert_eq!(world.rows().await.len(), 0);
}

#[tokio::test]
async fn an_answer_that_could_not_leave_is_withdrawn() {
    let world = World::new().await;
    let id = world.issue("pg", "u1").await;
    world.leases().withdraw(&id);
    world.sweep().await;
    assert_eq!((world.targets.live().len(), world.rows().await.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caps_are_exact_under_parallel_requests() {
    for (what, change) in [
        ("identity", (|setup| setup.leases.per_owner_max = 5) as fn(&mut TestSetup)),
        ("role", |setup| setup.leases.per_role_max = 5),
        ("mount", |setup| setup.leases.per_mount_max = 5),
    ] {
        let world = World::with(change).await;
        let names: Vec<String> = (0..20).map(|n| format!("u{n}")).collect();
        let outcomes = join_all(names.iter().map(|name| world.try_issue("pg", name))).await;
        let (issued, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        assert_eq!((issued.len(), world.targets.live().len()), (5, 5), "{what}");
        for error in refused.into_iter().map(Result::unwrap_err) {
            assert_eq!(error.status(), 429);
            assert!(error.public_text().contains(what), "{error}");
            assert!(error.retry_after().is_some());
        }
        // One out, one in.
        world.leases().revoke(&id(issued[0].as_ref().unwrap())).await.unwrap();
        world.issue("pg", "again").await;
        world.try_issue("pg", "more").await.unwrap_err();
        world.sweep().await;
        assert_eq!(world.rows().await.len(), 5);
    }
}

async fn quota(world: &World, name: &str, quota: serde_json::Value) {
    let fields = Fields::new(quota.as_object().unwrap().clone());
    world.test.unsealed.quotas.set_lease_count(name, &fields).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_by_identity_is_exact_for_each_under_parallel_requests() {
    for of in [json!({}), json!({ "role": "role" })] {
        let world = World::new().await;
        // What was there before counts, too.
        world.issue("pg", "before").await;
        let mut each = json!({ "path": "db/", "max_leases": 4, "group_by": "entity" });
        each.as_object_mut().unwrap().extend(of.as_object().unwrap().clone());
        quota(&world, "each", each).await;
        quota(&world, "all", json!({ "path": "db/", "max_leases": 14 })).await;
        // Alice by her certificate and by a token of hers, one who has no identity, and two others.
        let by_token = || Issuing {
            owner: Owner::Token("t1".into()),
            entity: Some(EntityId::new("alice")),
            ..world.issuing()
        };
        let nobody = || Issuing { owner: Owner::Token("t2".into()), ..world.issuing() };
        let by = |who: &str| Issuing { owner: owner(who), ..world.issuing() };
        let rounds = (0..8).flat_map(|n| {
            [world.issuing(), by_token(), nobody(), by("bob"), by("carl")]
                .into_iter()
                .enumerate()
                .map(move |(who, issuing)| (who, issuing, format!("u{n}-{who}")))
        });
        let asked = rounds.map(|(who, issuing, name)| {
            let leases = world.leases();
            async move { (who, leases.issue(issuing, plan("pg", &name, HOUR)).await) }
        });
        let outcomes = join_all(asked).await;
        let mut got = [0; 5];
        for (who, outcome) in outcomes {
            match outcome {
                Ok(_) => got[who] += 1,
                Err(error) => {
                    assert_eq!(error.status(), 429);
                    let text = error.public_text();
                    assert!(text.contains("\"each\"") || text.contains("\"all\""), "{text}");
                }
            }
        }
        assert!(got[0] + got[1] <= 3 && got[2..].iter().all(|got| *got <= 4), "{got:?}");
        // As many as all together may: fifteen wanted to.
        assert_eq!((got.iter().sum::<usize>(), world.targets.live().len()), (13, 14));
    }
}

#[tokio::test]
async fn a_quota_by_identity_follows_merges_and_ends_with_its_leases() {
    let world = World::new().await;
    let each = json!({ "path": "db/", "max_leases": 2, "group_by": "entity" });
    quota(&world, "each", each).await;
    let first = world.issue("pg", "u1").await;
    let bob = Issuing { owner: owner("bob"), ..world.issuing() };
    world.leases().issue(bob, plan("pg", "u2", HOUR)).await.unwrap();
    // What was bob's is alice's by now.
    let former = [EntityId::new("bob")];
    let merged = || Issuing { former: &former, ..world.issuing() };
    let refused = world.leases().issue(merged(), plan("pg", "u3", HOUR)).await.unwrap_err();
    assert!(refused.public_text().contains("\"each\""), "{refused}");
    world.leases().renew(&first, HOUR, None).await.unwrap();
    world.leases().revoke(&first).await.unwrap();
    world.leases().issue(merged(), plan("pg", "u4", HOUR)).await.unwrap();
    world.leases().issue(merged(), plan("pg", "u5", HOUR)).await.unwrap_err();
    // Without it, the same two are no limit.
    quota(&world, "each", json!({ "group_by": "none", "max_leases": 3 })).await;
    world.issue("pg", "u6").await;
    world.try_issue("pg", "u7").await.unwrap_err();
}

#[tokio::test]
async fn a_cap_of_one_owner_is_not_anothers() {
    let world = World::with(|setup| setup.leases.per_owner_max = 1).await;
    world.issue("pg", "u1").await;
    world.try_issue("pg", "u2").await.unwrap_err();
    let bob = Issuing { owner: owner("bob"), ..world.issuing() };
    world.leases().issue(bob, plan("pg", "u3", HOUR)).await.unwrap();
}

fn keyed<'a>(world: &'a World, who: &str, key: &'a str) -> Issuing<'a> {
    Issuing { owner: owner(who), idempotency_key: Some(key), ..world.issuing() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_with_the_same_key_gets_the_same_lease() {
    let world = World::new().await;
    let first = world.leases().issue(keyed(&world, "alice", "k"), plan("pg", "u1", HOUR)).await;
    let first = first.unwrap();
    world.advance(60);
    let again = world.leases().issue(keyed(&world, "alice", "k"), plan("pg", "u2", HOUR)).await;
    let again = again.unwrap();
    assert_eq!((id(&again), &again.data), (id(&first), &first.data));
    assert_eq!(again.lease.unwrap().duration, Ttl::from_secs(3540), "what is left of it");
    assert_eq!(world.targets.issues(), 1);
    // Another owner, another path or another key is another lease.
    for issuing in [
        keyed(&world, "bob", "k"),
        keyed(&world, "alice", "k2"),
        Issuing { path: "db/creds/other", ..keyed(&world, "alice", "k") },
    ] {
        let other = format!("other{}", world.targets.issues());
        let reply = world.leases().issue(issuing, plan("pg", &other, HOUR)).await.unwrap();
        assert_ne!(id(&reply), id(&first));
        assert_eq!(reply.data.unwrap()["password"], format!("secret of {other}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_parallel_requests_with_one_key_one_issues_and_the_others_come_again() {
    let world = World::new().await;
    let names: Vec<String> = (0..16).map(|n| format!("u{n}")).collect();
    let attempts = names.iter().map(|name| async {
        loop {
            match world.leases().issue(keyed(&world, "alice", "k"), plan("pg", name, HOUR)).await {
                Ok(reply) => return id(&reply),
                Err(error) => {
                    assert_eq!(error.status(), 503, "{error}");
                    assert!(error.retry_after().is_some());
                    tokio::task::yield_now().await;
                }
            }
        }
    });
    let ids: BTreeSet<LeaseId> = join_all(attempts).await.into_iter().collect();
    assert_eq!((ids.len(), world.targets.issues()), (1, 1));
}

#[tokio::test]
async fn a_key_makes_a_new_lease_once_the_old_one_is_over_and_keeps_to_it() {
    let world = World::new().await;
    let issue = |name: &'static str| {
        world.leases().issue(keyed(&world, "alice", "k"), plan("pg", name, HOUR))
    };
    let first = id(&issue("u1").await.unwrap());
    world.advance(3601);
    world.targets.set("pg", Mood::Down);
    world.sweep().await;
    world.targets.set("pg", Mood::Up);
    let second = id(&issue("u2").await.unwrap());
    assert_ne!(first, second);
    // The old one goes at last; the key still leads to the new one.
    world.advance(60);
    world.sweep().await;
    assert_eq!(world.lease(&first).await.map(|lease| lease.state), None);
    assert_eq!(id(&issue("u3").await.unwrap()), second);
    world.leases().revoke(&second).await.unwrap();
    assert_ne!(id(&issue("u4").await.unwrap()), second);
}

#[tokio::test]
async fn a_key_is_free_again_after_an_issue_that_failed() {
    let world = World::new().await;
    world.targets.set("pg", Mood::Refusing);
    let issue =
        |name: &'static str| world.leases().issue(keyed(&world, "a", "k"), plan("pg", name, HOUR));
    issue("u1").await.unwrap_err();
    world.targets.set("pg", Mood::Up);
    issue("u2").await.unwrap();
    world.sweep().await;
    assert_eq!(world.targets.live(), BTreeSet::from(["u2".to_owned()]));
    for bad in ["", "\u{e9}", &"k".repeat(256)] {
        let error = world.leases().issue(keyed(&world, "a", bad), plan("pg", "u", HOUR)).await;
        assert_eq!(error.unwrap_err().status(), 400);
    }
}

#[tokio::test]
async fn nothing_is_issued_for_a_token_that_is_gone() {
    let world = World::new().await;
    let records = world.test.unsealed.records.clone();
    let tokens = View::new(records.clone(), NamespaceId::ROOT, kinds::TOKEN, String::new());
    tokens.write("hash", &1, Precondition::Absent).await.unwrap();
    let row = records.key(&tokens.full_name("hash"));
    let issuing = || Issuing { caller_row: Some(row), ..world.issuing() };
    world.leases().issue(issuing(), plan("pg", "u1", HOUR)).await.unwrap();
    tokens.remove("hash").await.unwrap();
    let refused = world.leases().issue(issuing(), plan("pg", "u2", HOUR)).await;
    assert!(matches!(refused, Err(CoreError::Denied { .. })), "{refused:?}");
    assert_eq!(world.targets.issues(), 1);
    assert!(!matches!(refused, Err(CoreError::Storage(StorageError::Busy))));
}

#[tokio::test]
async fn nothing_is_issued_to_an_entity_that_is_gone_and_merged_ones_leave_less_room() {
    let world = World::with(|setup| setup.leases.per_owner_max = 3).await;
    let records = world.test.unsealed.records.clone();
    let entities = View::new(records.clone(), NamespaceId::ROOT, kinds::ENTITY, String::new());
    entities.write("alice", &1, Precondition::Absent).await.unwrap();
    let entity_row = Some(records.key(&entities.full_name("alice")));
    let issuing = || Issuing { entity_row, ..world.issuing() };
    world.leases().issue(issuing(), plan("pg", "u1", HOUR)).await.unwrap();
    let former = [EntityId::new("bob"), EntityId::new("carl")];
    for who in ["bob", "carl"] {
        let issuing = Issuing { owner: owner(who), ..world.issuing() };
        world.leases().issue(issuing, plan("pg", who, HOUR)).await.unwrap();
    }
    let full = Issuing { former: &former, ..issuing() };
    let refused = world.leases().issue(full, plan("pg", "u2", HOUR)).await;
    assert!(matches!(refused, Err(CoreError::TooMany { .. })), "{refused:?}");
    let room = Issuing { former: &former[..1], ..issuing() };
    world.leases().issue(room, plan("pg", "u3", HOUR)).await.unwrap();
    entities.remove("alice").await.unwrap();
    let refused = world.leases().issue(issuing(), plan("pg", "u4", HOUR)).await;
    assert!(matches!(refused, Err(CoreError::Overloaded { .. })), "{refused:?}");
    assert_eq!((world.targets.issues(), world.rows().await.len()), (4, 4));
    // All that the three hold is one heap, page by page.
    let all = Selector::Entities([&former[..], &[EntityId::new("alice")]].concat());
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let (page, next) = world.leases().search(&all, after, 3).await.unwrap();
        found.extend(page.iter().map(name));
        after = next;
        if after.is_none() {
            break;
        }
    }
    found.sort();
    assert_eq!(found, ["bob", "carl", "u1", "u3"]);
}

#[tokio::test]
async fn what_never_reached_its_target_is_forgotten_at_once() {
    let world = World::with(|setup| setup.leases.per_owner_max = 1).await;
    world.targets.set("pg", Mood::Unreachable);
    for key in [None, None, Some("k"), Some("k")] {
        let issuing = Issuing { idempotency_key: key, ..world.issuing() };
        let error = world.leases().issue(issuing, plan("pg", "u1", HOUR)).await.unwrap_err();
        assert!(is_upstream(&error), "the cap is not used up: {error}");
        // Without a sweep: its target could not be asked to revoke either.
        assert_eq!((world.rows().await.len(), world.overdue().await.len()), (0, 0));
    }
    world.sweep().await;
    assert_eq!((world.rows().await.len(), world.overdue().await.len()), (0, 0));
    world.targets.set("pg", Mood::Up);
    let issuing = Issuing { idempotency_key: Some("k"), ..world.issuing() };
    world.leases().issue(issuing, plan("pg", "u2", HOUR)).await.unwrap();
    assert_eq!(world.targets.issues(), 1);
}
