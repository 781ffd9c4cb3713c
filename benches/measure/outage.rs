//! A target that is down for an hour, by a moved clock, while tens of thousands of its leases are
//! overdue: whether the leases of another target still end on time, what memory that takes, and how the
//! backlog is worked off when the target is back.

use std::time::{Duration, Instant};

use leasehold::types::time::{Clock, Ttl};
use tokio_util::sync::CancellationToken;

use super::Bench;
use super::histogram::Histogram;
use super::idle_target::IdleTarget;
use super::report::{Latency, Row};
use super::support::core::sqlite;
use super::target::{self, Kind};

const GROUP: &str = "outage";
/// How far the clock is moved at a time.
const STEP: Duration = Duration::from_secs(5);
/// An hour of them.
const STEPS: usize = 720;
/// The configured rate in the time of the recovery, by which it shows that it is paced.
const RATE: u32 = 2_000;
/// How often it is looked whether something has ended.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// A lease of the other target that has not ended by then is lost.
const PATIENCE: Duration = Duration::from_secs(120);

impl Bench {
    pub async fn outage(&self) {
        let overdue = self.arguments.choose(2_000, 50_000, 50_000);
        let (_directory, storage) = sqlite();
        let idle = IdleTarget::start(storage.clone(), RATE).await;
        let stop = CancellationToken::new();
        let sweep = tokio::spawn(idle.core.leases().clone().run_sweep(stop.clone()));
        idle.targets.take_down("broken");
        let now = idle.core.clock.now();
        idle.lease("broken", overdue, now, now.plus(Ttl::from_secs(1))).await;
        let resident = || target::resident_mib(std::process::id());
        let (begun, before) = (Instant::now(), resident());
        let (mut late, mut most) = (Histogram::new(), before);
        for step in 1..=STEPS {
            if step % 120 == 0 {
                self.progress(&format!("outage: minute {}", step / 12));
            }
            let now = idle.core.clock.now();
            idle.lease("works", 1, now, now.plus(Ttl::from_secs(1))).await;
            idle.core.leases().wake_sweep();
            idle.core.clock.advance(STEP);
            let due = Instant::now();
            while idle.targets.ended("works") < step {
                assert!(due.elapsed() < PATIENCE, "a lease does not end");
                tokio::time::sleep(LOOK_EVERY).await;
            }
            late.record(due.elapsed());
            most = most.max(resident());
        }
        let tries = idle.targets.refused();
        let took = begun.elapsed().as_secs_f64();
        let row = Row::value(
            GROUP,
            "leases of another target meanwhile",
            Kind::Sqlite.name(),
            STEPS as f64,
            "leases",
        );
        // A lease is on time that ends before the next one is due.
        let longest = late.longest();
        let row = row.within("all end within 5 s", longest <= STEP);
        self.add(Row {
            saturated_ms: Latency::of(&late),
            note: format!(
                "{overdue} overdue; an hour in {took:.0} s; {tries} tries on what is down"
            ),
            ..row
        });
        let row =
            Row::value(GROUP, "memory in that hour", Kind::Sqlite.name(), most - before, "MiB");
        let note = format!("{before:.0} MiB before, {most:.0} MiB at most");
        self.add(row.within("<= 32 MiB", most - before <= 32.0).with_note(note));

        self.progress("outage: the target is back");
        idle.targets.bring_up("broken");
        let begun = Instant::now();
        let mut passed = Duration::ZERO;
        while idle.targets.ended("broken") < overdue {
            // As fast as the sweep comes along: its own rate is by the real clock.
            idle.core.clock.advance(STEP);
            passed += STEP;
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        let rate = overdue as f64 / begun.elapsed().as_secs_f64();
        let row = Row::value(GROUP, "working off the backlog", Kind::Sqlite.name(), rate, "/s");
        let met = rate <= f64::from(RATE) * 1.05;
        let note =
            format!("the rate is set to {RATE}; by the clock it took {} s", passed.as_secs());
        self.add(row.within("<= the rate", met).with_note(note));
        stop.cancel();
        sweep.await.unwrap();
        drop(idle);
        storage.close().await;
    }
}
