//! One life of a broker: from its start to its death, or to the end of the schedule.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use leasehold::core::lease::{Issuing, Lease, Leases, Owner, Selector};
use leasehold::core::mount::Mounted;
use leasehold::core::records::Records;
use leasehold::storage::fault::{Moment, Reach};
use leasehold::types::id::EntityId;
use leasehold::types::time::{Clock, Ttl};
use tokio::task::JoinSet;

use super::{Step, TARGETS, World, check};
use crate::support::core::{TestCore, TestSetup};
use crate::support::target::{KIND, Mood, plan};

const MOUNT: &str = "db/";

/// How it went.
pub enum End {
    /// It died.
    Died,
    /// Nothing was left to do.
    OutOfSteps,
}

/// A running broker.
pub struct Process {
    test: TestCore,
    mounted: Arc<Mounted>,
    sweeping: Arc<AtomicBool>,
}

impl Process {
    /// Starts, on a store that the first one initialised. All is calm while it starts.
    pub async fn start(world: &World, life: u64, share: &mut Option<String>) -> Self {
        let setup = TestSetup {
            registry: world.targets.registry(),
            clock: world.clock.clone(),
            node: life,
            ..TestSetup::new()
        };
        let storage = world.storage.clone();
        let (test, mounted) = match share {
            None => {
                let test = TestCore::start_on(storage, setup).await;
                let mounted = test.mount(KIND, MOUNT).await;
                *share = Some(test.share.clone());
                (test, mounted)
            }
            Some(share) => {
                let test = TestCore::join(storage, setup, share).await;
                let mounted = test.unsealed.mounts.at(MOUNT).unwrap();
                (test, mounted)
            }
        };
        Self { test, mounted, sweeping: Arc::default() }
    }

    pub fn leases(&self) -> &Arc<Leases> {
        self.test.leases()
    }

    pub fn records(&self) -> Arc<Records> {
        self.test.unsealed.records.clone()
    }

    /// All rows there are.
    pub async fn rows(&self) -> Vec<Lease> {
        let selector = Selector::Mount(self.mounted.facts.accessor.clone());
        let (mut rows, mut after) = (Vec::new(), None);
        loop {
            let (page, next) = self.leases().search(&selector, after, 1000).await.unwrap();
            rows.extend(page);
            after = next;
            if after.is_none() {
                return rows;
            }
        }
    }

    /// Does what is left of the schedule, and then ends everything.
    pub async fn live(&self, world: &World, left: &mut &[Step]) {
        world.gate.open(false);
        let mut at_work = JoinSet::new();
        self.leases().resume_operations().await.unwrap();
        while let [step, rest @ ..] = *left {
            *left = rest;
            self.take(step, world, &mut at_work).await;
            tokio::task::yield_now().await;
        }
        self.finish(world, &mut at_work).await;
        check::end(world, self).await;
    }

    /// Lets everything that goes on come to its end.
    async fn finish(&self, world: &World, at_work: &mut JoinSet<()>) {
        world.cut_off();
        while let Some(ended) = at_work.join_next().await {
            ended.unwrap();
        }
    }

    async fn take(&self, step: &Step, world: &World, at_work: &mut JoinSet<()>) {
        match *step {
            Step::Issue { target, ttl, keyed } => {
                self.issue(world, at_work, target, Ttl::from_secs(ttl), keyed);
            }
            Step::Renew { which, by } => self.renew(world, at_work, which, Ttl::from_secs(by)),
            Step::Revoke { which } => self.revoke(world, at_work, which),
            Step::RevokeAll => {
                world.book.all_end();
                let leases = self.leases().clone();
                at_work.spawn(async move {
                    let _ = leases.revoke_all(Selector::Prefix("db/creds/role/".into())).await;
                });
            }
            Step::Sweep => {
                // A process has one sweep.
                if !self.sweeping.swap(true, Ordering::SeqCst) {
                    let (leases, sweeping) = (self.leases().clone(), self.sweeping.clone());
                    at_work.spawn(async move {
                        let _ = leases.sweep().await;
                        sweeping.store(false, Ordering::SeqCst);
                    });
                }
            }
            Step::Settle => {
                self.finish(world, at_work).await;
                world.calm();
                check::everything(world, self).await;
                world.gate.open(false);
            }
            Step::Pass { secs } => world.pass(secs),
            Step::Target { target, mood } => world.targets.set(TARGETS[target], mood),
            Step::FailWrites { nth, all, after } => {
                let reach = if all { Reach::From(nth) } else { Reach::Only(nth) };
                let moment = if after { Moment::After } else { Moment::Before };
                world.faulty.fail_writes(reach, moment);
            }
            Step::FailReads { nth } => world.faulty.fail_reads(Reach::Only(nth)),
            Step::Heal => world.heal(),
            Step::Die { passes } => world.gate.die_in(passes),
            Step::Plant => world.targets.plant("planted", world.now()),
            Step::Lose => world.targets.lose(),
        }
    }

    fn issue(
        &self,
        world: &World,
        at_work: &mut JoinSet<()>,
        target: usize,
        ttl: Ttl,
        keyed: bool,
    ) {
        let name = world.book.asks(ttl);
        let (leases, mounted) = (self.leases().clone(), self.mounted.clone());
        let (book, clock) = (world.book.clone(), world.clock.clone());
        at_work.spawn(async move {
            let asked_at = clock.now();
            let key = keyed.then(|| format!("key of {name}"));
            let issuing = Issuing {
                mounted: &mounted,
                path: "db/creds/role",
                owner: Owner::Entity(EntityId::new("alice")),
                entity: None,
                former: &[],
                entity_row: None,
                asked_with: "",
                caller_expires_at: None,
                caller_row: None,
                idempotency_key: key.as_deref(),
            };
            match leases.issue(issuing, plan(TARGETS[target], &name, ttl)).await {
                Ok(reply) => {
                    let lease = reply.lease.unwrap();
                    book.lives(&name, lease.id, asked_at, ttl, clock.now());
                }
                Err(_) => book.answered(&name, ttl, clock.now()),
            }
        });
    }

    fn renew(&self, world: &World, at_work: &mut JoinSet<()>, which: usize, by: Ttl) {
        let Some((name, id)) = world.book.pick(which) else { return };
        let (leases, book, clock) =
            (self.leases().clone(), world.book.clone(), world.clock.clone());
        world.book.asks_more(&name, by);
        at_work.spawn(async move {
            let asked_at = clock.now();
            match leases.renew(&id, by, None).await {
                Ok(_) => book.lives(&name, id, asked_at, by, clock.now()),
                Err(_) => book.answered(&name, by, clock.now()),
            }
        });
    }

    fn revoke(&self, world: &World, at_work: &mut JoinSet<()>, which: usize) {
        let Some((name, id)) = world.book.pick(which) else { return };
        let (leases, book) = (self.leases().clone(), world.book.clone());
        world.book.ends(&name);
        at_work.spawn(async move {
            if leases.revoke(&id).await.is_ok() {
                book.dies(&name);
            }
        });
    }

    /// Sweeps once.
    pub async fn sweep(&self, world: &World) {
        for target in TARGETS {
            world.targets.set(target, Mood::Up);
        }
        self.leases().sweep().await.unwrap();
    }
}
