//! Hundreds of kills at random moments, while clerks are at work.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use leasehold::types::secret::fill_random;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::clerk::{Clerk, Desk};
use super::{Dice, World, number};

/// Kills over SQLite, shared out over the worlds; a fifth as many more over PostgreSQL.
const KILLS: usize = 200;
const WORLDS: usize = 2;
const CLERKS: usize = 4;
/// When the kill comes, in milliseconds after the clerks have begun.
const MOMENT_MILLIS: usize = 400;
/// Kills between two times that everything is left to settle.
const SETTLED_EVERY: usize = 10;

fn kills() -> usize {
    number("LEASEHOLD_CRASH_KILLS").map_or(KILLS, |kills| usize::try_from(kills).unwrap())
}

/// Tells the seed when the test fails.
struct Seed(u64);

impl Seed {
    fn new() -> Self {
        let mut random = [0u8; 8];
        fill_random(&mut random).unwrap();
        Self(number("LEASEHOLD_CRASH_SEED").unwrap_or(u64::from_be_bytes(random)))
    }
}

impl Drop for Seed {
    #[expect(clippy::print_stderr, reason = "for whoever reads why the test failed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to repeat it: LEASEHOLD_CRASH_SEED={}", self.0);
        }
    }
}

struct Storm {
    world: Arc<World>,
    clerks: Vec<Clerk>,
    dice: Dice,
}

impl Storm {
    fn over(world: World, seed: u64) -> Self {
        let clerks = (0..CLERKS).map(|n| Clerk::new(&format!("c{n}"))).collect();
        Self { world: Arc::new(world), clerks, dice: Dice::new(seed) }
    }

    async fn rage(mut self, kills: usize) {
        for kill in 1..=kills {
            let victim = self.dice.below(self.world.nodes.len());
            self.strike(victim).await;
            self.world.check(victim, &mut self.clerks, false).await;
            if kill % SETTLED_EVERY == 0 || kill == kills {
                self.world.pass_time().await;
                self.world.check(0, &mut self.clerks, true).await;
            }
        }
        let sum = |of: fn(&Clerk) -> usize| self.clerks.iter().map(of).sum::<usize>();
        let asked = sum(|clerk| clerk.credentials.len());
        assert!(asked >= kills, "the clerks were idle: {asked} credentials in {kills} kills");
        let failures = sum(|clerk| clerk.failures.len());
        let all: Vec<_> = self.clerks.iter().flat_map(|clerk| &clerk.failures).collect();
        assert!(failures * 4 <= asked, "a server that runs should not fail: {all:#?}");
    }

    /// Lets the clerks work, kills a server, and brings it back.
    async fn strike(&mut self, victim: usize) {
        let over = Arc::new(AtomicBool::new(false));
        let mut at_work = JoinSet::new();
        for (n, mut clerk) in self.clerks.drain(..).enumerate() {
            let (world, over) = (self.world.clone(), over.clone());
            let mut dice = Dice::new(self.dice.roll());
            at_work.spawn(async move {
                let desk = Desk::at(&world.nodes[n % world.nodes.len()]);
                while !over.load(Ordering::SeqCst)
                    && clerk.act(&world, &desk, &mut dice).await.is_ok()
                {}
                (n, clerk)
            });
        }
        let moment = Duration::from_millis(self.dice.below(MOMENT_MILLIS) as u64);
        tokio::time::sleep(moment).await;
        self.world.nodes[victim].kill();
        over.store(true, Ordering::SeqCst);
        let mut back = at_work.join_all().await;
        back.sort_by_key(|(n, _)| *n);
        self.clerks.extend(back.into_iter().map(|(_, clerk)| clerk));
        if self.dice.below(4) == 0 {
            self.tear(victim);
        }
        if self.dice.below(8) == 0 {
            self.kill_while_it_rises(victim).await;
        }
        self.world.revive(victim).await;
    }

    /// As if the machine had died within a line of the audit.
    fn tear(&mut self, victim: usize) {
        let path = self.world.nodes[victim].audit_path();
        let text = std::fs::read_to_string(&path).unwrap();
        let Some(line) = text.lines().last() else { return };
        let cut = 1 + self.dice.below(line.len() - 1);
        let mut log = std::fs::File::options().append(true).open(&path).unwrap();
        log.write_all(&line.as_bytes()[..cut]).unwrap();
    }

    /// Kills a server once more while it starts, is unsealed, or takes up its work.
    async fn kill_while_it_rises(&mut self, victim: usize) {
        let node = &self.world.nodes[victim];
        node.set_clock_ahead(self.world.ahead());
        node.start_again();
        let moment = Duration::from_millis(self.dice.below(60) as u64);
        let _ = tokio::time::timeout(moment, node.try_unseal(&node.keys()[0])).await;
        node.kill();
    }
}

#[test]
fn sigkill_at_random_moments_loses_nothing_that_was_promised() {
    let seed = Seed::new();
    let storm = async |seed| {
        let storm = Storm::over(World::on_sqlite().await, seed);
        storm.rage(kills().div_ceil(WORLDS)).await;
    };
    // Starting a server blocks its thread, and is to hold up no other storm.
    std::thread::scope(|scope| {
        for n in 0..WORLDS {
            let seed = seed.0.wrapping_add(n as u64);
            scope.spawn(move || Runtime::new().unwrap().block_on(storm(seed)));
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sigkill_of_one_of_two_nodes_loses_nothing_that_was_promised() {
    let seed = Seed::new();
    let storm = Storm::over(World::on_postgres(2).await, seed.0);
    storm.rage(kills().div_ceil(5)).await;
}
