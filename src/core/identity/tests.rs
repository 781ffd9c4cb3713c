use std::collections::BTreeSet;

use super::*;
use crate::core::scratch::{NOW, Scratch};
use crate::types::time::ManualClock;

const MOUNT: &str = "auth_cert_1";
const OTHER: &str = "auth_userpass_1";

/// A node with a cache of its own.
fn node(scratch: &Scratch) -> IdentityStore {
    let records = scratch.reopened(scratch.storage.clone());
    IdentityStore::new(records, Arc::new(ManualClock::new(NOW)))
}

async fn come(store: &IdentityStore, mount: &str, name: &str) -> Arc<Entity> {
    let mount = MountAccessor::new(mount);
    store.resolve_alias(&mount, name, &BTreeMap::new()).await.unwrap()
}

/// Somebody who came and was given something.
async fn stored(store: &IdentityStore, mount: &str, name: &str) -> Arc<Entity> {
    let entity = come(store, mount, name).await;
    store.ensure(&entity).await.unwrap();
    entity
}

fn named(name: &str) -> EntityEdit {
    EntityEdit { name: Some(name.to_owned()), ..EntityEdit::default() }
}

fn alias(mount: &str, name: &str, canonical: Option<&EntityId>) -> AliasEdit {
    AliasEdit {
        mount_accessor: MountAccessor::new(mount),
        name: name.to_owned(),
        custom_metadata: None,
        canonical: canonical.cloned(),
    }
}

async fn merge(
    store: &IdentityStore,
    from: &[&EntityId],
    to: &EntityId,
    keep: &[&str],
) -> Result<(), CoreError> {
    let merge = Merge {
        from: from.iter().map(|id| (*id).clone()).collect(),
        to: to.clone(),
        keep: keep.iter().map(|id| (*id).to_owned()).collect(),
        force: false,
    };
    store.merge(&merge).await
}

async fn delete(store: &IdentityStore, id: &EntityId) {
    store.delete(id, |_, _| Ok(())).await.unwrap();
}

fn refusal<T: std::fmt::Debug>(result: Result<T, CoreError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn ids_are_uuids_of_version_eight() {
    let id = uuid_of(&[0xff; 32]);
    assert_eq!(id, "ffffffff-ffff-8fff-bfff-ffffffffffff");
    assert_eq!(uuid_of(&[0; 32]), "00000000-0000-8000-8000-000000000000");
}

#[tokio::test]
async fn a_name_that_comes_is_an_entity_of_its_own_and_nothing_is_written_for_that() {
    let scratch = Scratch::new();
    let (one, two) = (node(&scratch), node(&scratch));
    let web = come(&one, MOUNT, "web").await;
    assert_eq!(web.id, come(&two, MOUNT, "web").await.id);
    assert_ne!(web.id, come(&one, OTHER, "web").await.id);
    // No other name makes the same hash, however it is spelled.
    for name in ["web\n1", "1\nweb", "entity 1\nweb"] {
        assert_ne!(web.id, come(&one, MOUNT, name).await.id);
    }
    assert!(one.get(&web.id).await.unwrap().is_none());
    one.ensure(&web).await.unwrap();
    two.ensure(&web).await.unwrap();
    assert_eq!(two.get(&web.id).await.unwrap().unwrap().aliases[0].name, "web");
    assert_eq!(one.by_alias(web.via.as_ref().unwrap()).await.unwrap().unwrap().id, web.id);
}

#[tokio::test]
async fn names_of_entities_are_one_of_a_kind_however_they_are_capitalised() {
    let scratch = Scratch::new();
    let (one, two) = (node(&scratch), node(&scratch));
    let (ann, ann_too) = (named("Ann"), named("ANN"));
    let (a, b) = tokio::join!(one.create(&ann), two.create(&ann_too));
    let refused = if a.is_ok() { b } else { a };
    assert!(refusal(refused).contains("is taken"));
    let bob = one.create(&named("bob")).await.unwrap();
    assert!(refusal(one.update(&bob.id, &named("ann")).await).contains("is taken"));
    one.update(&bob.id, &named("Bob")).await.unwrap();
    assert_eq!(two.by_name("BOB").await.unwrap().unwrap().id, bob.id);
    // Nobody takes the name that somebody else would be stored under.
    let web = come(&one, MOUNT, "web").await;
    assert!(refusal(one.create(&named(&web.name)).await).contains("form"));
}

#[tokio::test]
async fn an_alias_is_given_to_another_entity_and_comes_as_that() {
    let scratch = Scratch::new();
    let store = node(&scratch);
    let ann = store.create(&named("ann")).await.unwrap();
    let (id, owner) = store.put_alias(&alias(MOUNT, "web", Some(&ann.id))).await.unwrap();
    assert_eq!(
        (owner, come(&store, MOUNT, "web").await.id.clone()),
        (ann.id.clone(), ann.id.clone())
    );
    assert!(refusal(store.put_alias(&alias(MOUNT, "job", Some(&ann.id))).await).contains(&id));
    store.put_alias(&alias(OTHER, "ann", Some(&ann.id))).await.unwrap();
    assert_eq!(store.get(&ann.id).await.unwrap().unwrap().aliases.len(), 2);
    // Renamed, it is another alias of the same entity.
    let (renamed, owner) = store.change_alias(&id, &alias(MOUNT, "site", None)).await.unwrap();
    assert!(renamed != id && owner == ann.id);
    assert_eq!(come(&store, MOUNT, "site").await.id, ann.id);
    assert_ne!(come(&store, MOUNT, "web").await.id, ann.id);
    // Taken away, it is somebody else for good, and never the entity it was at first.
    let web = stored(&store, MOUNT, "web").await;
    store
        .put_alias(&alias(MOUNT, "web", Some(&store.create(&named("bob")).await.unwrap().id)))
        .await
        .unwrap();
    assert!(store.delete_alias(web.via.as_ref().unwrap()).await.unwrap());
    let again = come(&store, MOUNT, "web").await;
    assert!(again.id != web.id && again.id != ann.id);
    assert!(!store.delete_alias(web.via.as_ref().unwrap()).await.unwrap());
}

#[tokio::test]
async fn who_was_deleted_never_comes_again_under_an_id_that_tokens_carry() {
    let scratch = Scratch::new();
    let store = node(&scratch);
    let mut ids = BTreeSet::new();
    for _ in 0..3 {
        let web = stored(&store, MOUNT, "web").await;
        assert!(ids.insert(web.id.clone()));
        delete(&store, &web.id).await;
        assert!(store.get(&web.id).await.unwrap().is_none());
        // A node that has not heard of it yet does not store it again.
        assert!(matches!(store.ensure(&web).await, Err(CoreError::Overloaded { .. })));
    }
    assert!(matches!(
        store.delete(&ids.pop_first().unwrap(), |_, _| Ok(())).await,
        Err(CoreError::NotFound)
    ));
}

#[tokio::test]
async fn a_merged_entity_is_the_one_that_took_it() {
    let scratch = Scratch::new();
    let store = node(&scratch);
    let (web, ann) = (stored(&store, MOUNT, "web").await, stored(&store, OTHER, "ann").await);
    let all = store.create(&named("all")).await.unwrap();
    merge(&store, &[&web.id], &ann.id, &[]).await.unwrap();
    merge(&store, &[&ann.id], &all.id, &[]).await.unwrap();
    let found = store.get(&web.id).await.unwrap().unwrap();
    assert_eq!((&found.id, found.aliases.len()), (&all.id, 2));
    assert!([&web.id, &ann.id, &all.id].into_iter().all(|id| found.is(id)));
    for (mount, name) in [(MOUNT, "web"), (OTHER, "ann")] {
        assert_eq!(come(&store, mount, name).await.id, all.id);
    }
    // What was cached before is refused, not stored beside it.
    assert!(matches!(store.ensure(&web).await, Err(CoreError::Overloaded { .. })));
    assert!(refusal(merge(&store, &[&web.id], &all.id, &[]).await).contains("merged into"));
    delete(&store, &web.id).await;
    for id in [&web.id, &ann.id, &all.id] {
        assert!(store.get(id).await.unwrap().is_none());
    }
    assert_ne!(come(&store, MOUNT, "web").await.id, web.id);
}

#[tokio::test]
async fn of_two_aliases_of_one_mount_a_merge_keeps_the_one_that_it_is_told_to() {
    let scratch = Scratch::new();
    let store = node(&scratch);
    for keeps_first in [true, false] {
        let prefix = if keeps_first { "x" } else { "y" };
        let a = stored(&store, MOUNT, &format!("{prefix}a")).await;
        let b = stored(&store, MOUNT, &format!("{prefix}b")).await;
        let (a_alias, b_alias) = (a.via.clone().unwrap(), b.via.clone().unwrap());
        let unsaid = refusal(merge(&store, &[&a.id], &b.id, &[]).await);
        assert!(unsaid.contains(&a_alias) && unsaid.contains(&b_alias), "{unsaid}");
        let (kept, lost) = if keeps_first { (&a_alias, &b_alias) } else { (&b_alias, &a_alias) };
        merge(&store, &[&a.id], &b.id, &[kept.as_str()]).await.unwrap();
        let merged = store.get(&a.id).await.unwrap().unwrap();
        assert_eq!((merged.aliases.len(), &merged.aliases[0].id), (1, kept));
        assert!(store.by_alias(lost).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn merging_lets_nobody_in_who_was_shut_out() {
    let scratch = Scratch::new();
    let store = node(&scratch);
    let (web, ann) = (stored(&store, MOUNT, "web").await, stored(&store, OTHER, "ann").await);
    let off = EntityEdit { disabled: Some(true), ..EntityEdit::default() };
    store.update(&web.id, &off).await.unwrap();
    assert!(refusal(merge(&store, &[&web.id], &ann.id, &[]).await).contains("disabled"));
    merge(&store, &[&ann.id], &web.id, &[]).await.unwrap();
    assert!(come(&store, OTHER, "ann").await.disabled);
}

#[tokio::test]
async fn two_nodes_that_merge_at_once_end_with_one_whole_entity() {
    let scratch = Scratch::new();
    let (one, two) = (node(&scratch), node(&scratch));
    for round in 0..8 {
        let a = stored(&one, MOUNT, &format!("a{round}")).await;
        let b = stored(&one, OTHER, &format!("b{round}")).await;
        let (there, back) =
            tokio::join!(async { merge(&one, &[&a.id], &b.id, &[]).await }, async {
                merge(&two, &[&b.id], &a.id, &[]).await
            },);
        assert!(there.is_ok() || back.is_ok(), "{there:?} {back:?}");
        let fresh = node(&scratch);
        let (a, b) = (fresh.get(&a.id).await.unwrap(), fresh.get(&b.id).await.unwrap());
        let (a, b) = (a.unwrap(), b.unwrap());
        assert_eq!((&a.id, a.aliases.len()), (&b.id, 2));
        assert_eq!(come(&fresh, MOUNT, &format!("a{round}")).await.id, a.id);
    }
}

#[tokio::test]
async fn who_comes_while_its_alias_is_given_away_is_not_stored_beside_that() {
    let scratch = Scratch::new();
    let (one, two) = (node(&scratch), node(&scratch));
    let web = come(&two, MOUNT, "web").await;
    let ann = one.create(&named("ann")).await.unwrap();
    one.put_alias(&alias(MOUNT, "web", Some(&ann.id))).await.unwrap();
    assert!(matches!(two.ensure(&web).await, Err(CoreError::Overloaded { .. })));
    assert!(node(&scratch).get(&web.id).await.unwrap().is_none());
    assert_eq!(come(&two, MOUNT, "web").await.id, ann.id);
}

#[tokio::test]
async fn who_comes_for_the_first_time_twice_at_once_is_stored_once_and_refused_never() {
    let scratch = Scratch::new();
    let (one, two) = (node(&scratch), node(&scratch));
    for round in 0..32 {
        let name = format!("web{round}");
        let (first, again) = (come(&one, MOUNT, &name).await, come(&two, MOUNT, &name).await);
        let all = [(&one, &first), (&two, &again), (&one, &first), (&two, &again)];
        let all = all.map(|(store, entity)| store.ensure(entity));
        for (turn, done) in futures_util::future::join_all(all).await.into_iter().enumerate() {
            assert!(done.is_ok(), "round {round}, {turn}: {done:?}");
        }
    }
}

fn group(name: &str) -> GroupEdit {
    GroupEdit {
        name: Some(name.to_owned()),
        policies: Some(vec![name.to_owned()]),
        ..GroupEdit::default()
    }
}

fn of_groups(ids: &[&str]) -> GroupEdit {
    let ids = ids.iter().map(|id| (*id).to_owned()).collect();
    GroupEdit { member_group_ids: Some(ids), ..GroupEdit::default() }
}

#[tokio::test]
async fn policies_come_from_all_groups_around() {
    let scratch = Scratch::new();
    let store = node(&scratch);
    let web = stored(&store, MOUNT, "web").await;
    let members = Some([web.id.clone()].into());
    let team = GroupEdit { member_entity_ids: members, ..group("team") };
    let team = store.groups().create(&team).await.unwrap();
    let org = store.groups().create(&GroupEdit { ..group("org") }).await.unwrap();
    store.groups().update(&org.id, &of_groups(&[&team.id])).await.unwrap();
    store.groups().create(&group("strangers")).await.unwrap();
    let policies =
        |standing: Standing| -> BTreeSet<String> { standing.policies.into_iter().collect() };
    let own = store.standing(&web, &[]).await.unwrap();
    assert_eq!(own.groups.len(), 2);
    assert_eq!(policies(own), ["org".to_owned(), "team".to_owned()].into());
    // A group that a method names counts for that log-in alone, and only while it has that alias.
    let kind = Some(GroupKind::External);
    let admins = store.groups().create(&GroupEdit { kind, ..group("admins") }).await.unwrap();
    let mount = MountAccessor::new(MOUNT);
    let id = store.groups().put_alias(&admins.id, &mount, "cn=admins").await.unwrap();
    let names = ["cn=admins".to_owned(), "cn=nobody".to_owned()];
    let named = store.groups().named(&mount, &names).await.unwrap();
    assert_eq!(named, std::slice::from_ref(&id));
    assert!(store.groups().named(&MountAccessor::new(OTHER), &names).await.unwrap().is_empty());
    assert!(policies(store.standing(&web, &named).await.unwrap()).contains("admins"));
    assert!(!policies(store.standing(&web, &[]).await.unwrap()).contains("admins"));
    store.groups().delete_alias(&id).await.unwrap();
    assert!(!policies(store.standing(&web, &named).await.unwrap()).contains("admins"));
    // A merged entity stays in what it was in.
    let ann = stored(&store, OTHER, "ann").await;
    merge(&store, &[&web.id], &ann.id, &[]).await.unwrap();
    let ann = store.get(&ann.id).await.unwrap().unwrap();
    assert!(policies(store.standing(&ann, &[]).await.unwrap()).contains("org"));
    store.groups().delete(&team.id).await.unwrap();
    assert!(store.standing(&ann, &[]).await.unwrap().policies.is_empty());
    assert!(store.groups().get(&org.id).await.unwrap().unwrap().member_group_ids.is_empty());
}

#[tokio::test]
async fn groups_are_no_members_of_themselves_also_when_two_nodes_try_at_once() {
    let scratch = Scratch::new();
    let (one, two) = (node(&scratch), node(&scratch));
    let (one, two) = (one.groups(), two.groups());
    let (a, b) = (one.create(&group("a")).await.unwrap(), one.create(&group("b")).await.unwrap());
    assert!(refusal(one.update(&a.id, &of_groups(&[&a.id])).await).contains("of itself"));
    assert!(refusal(one.update(&a.id, &of_groups(&["none"])).await).contains("not there"));
    let (into_a, into_b) = (of_groups(&[&b.id]), of_groups(&[&a.id]));
    let (there, back) = tokio::join!(one.update(&a.id, &into_a), two.update(&b.id, &into_b));
    let refused = if there.is_ok() { back } else { there };
    assert!(refusal(refused).contains("of itself"));
    // Chains end somewhere.
    let mut below = one.create(&group("0")).await.unwrap();
    for level in 1..group::NESTING_MAX {
        let edit = of_groups(&[&below.id]);
        below = one.create(&GroupEdit { ..edit }).await.unwrap();
        assert!(level < 100);
    }
    assert!(refusal(one.create(&of_groups(&[&below.id])).await).contains("deeper"));
    let (same, same_too) = (group("same"), group("SAME"));
    let taken = tokio::join!(one.create(&same), two.create(&same_too));
    assert!(taken.0.is_ok() != taken.1.is_ok());
}
