//! The promises, held against the store and the targets.

use std::collections::{BTreeMap, BTreeSet};

use leasehold::core::lease::{Lease, LeaseState};
use leasehold::core::records::kinds;
use leasehold::core::view::View;
use leasehold::types::id::NamespaceId;

use super::World;
use super::process::Process;

/// Rounds of the sweep in which everything has to be over, a minute each.
const ROUNDS_MAX: usize = 200;
const ROUND_SECS: u64 = 60;

/// Holds everything against each other, while nothing goes on.
pub async fn everything(world: &World, process: &Process) {
    let (now, book) = (world.now(), world.book.entries());
    let rows = by_name(process.rows().await);
    let live = world.targets.live();
    // No credential without a lease.
    let leaked: BTreeSet<_> = live.iter().filter(|name| !rows.contains_key(*name)).collect();
    assert!(leaked.is_empty(), "no lease names {leaked:?}: {rows:#?}");
    for (name, entry) in &book {
        let (row, is_live) = (rows.get(name), live.contains(name));
        // What was said to be dead stays dead.
        assert!(!(entry.dead && is_live), "{name} was said to be dead: {entry:?} {row:?}");
        // What was promised is kept.
        if let Some(until) = entry.lives_until
            && !entry.ending
            && now < until
        {
            let kept = row.is_some_and(|row| row.state == LeaseState::Active);
            assert!(kept && is_live, "{name} is lost: {entry:?} {row:?}, live: {is_live}");
        }
        if let (Some(until), Some(row)) = (entry.lives_until, row) {
            let shortened = row.state == LeaseState::Active && row.expires_at < until;
            assert!(!shortened, "{name} lost some of its life: {entry:?} {row:?}");
        }
        // Nothing lives longer than anybody asked for.
        if let Some(over) = entry.over_at {
            let outlives = row.is_some_and(|row| row.expires_at > over);
            assert!(!outlives, "{name} outlives what was asked: {entry:?} {row:?}");
            let credential = world.targets.credential(name);
            let outlives = credential.is_some_and(|credential| credential.expires_at > over);
            assert!(!outlives, "{name} outlives its lease on the target: {entry:?} {row:?}");
        }
    }
}

/// Every lease ends: with targets and a store that work, nothing is left of anything.
pub async fn end(world: &World, process: &Process) {
    world.calm();
    everything(world, process).await;
    for _ in 0..ROUNDS_MAX {
        process.sweep(world).await;
        everything(world, process).await;
        if process.rows().await.is_empty() {
            assert_eq!(world.targets.live(), BTreeSet::new());
            assert_eq!(keys(process).await, 0, "keys of requests outlive their leases");
            return;
        }
        world.pass(ROUND_SECS);
    }
    panic!("still there: {:#?}", process.rows().await);
}

async fn keys(process: &Process) -> usize {
    let records = process.records();
    let keys = View::new(records, NamespaceId::ROOT, kinds::IDEMPOTENCY, String::new());
    keys.list("").await.unwrap().len()
}

fn by_name(rows: Vec<Lease>) -> BTreeMap<String, Lease> {
    let mut named = BTreeMap::new();
    for row in rows {
        let name = row.data["name"].as_str().unwrap().to_owned();
        let twice = named.insert(name, row);
        assert!(twice.is_none(), "two leases name one credential, one is {twice:?}");
    }
    named
}
