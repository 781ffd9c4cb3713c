//! How the file grows: a day in which leases come and go, by a clock that is moved, and then how large
//! the store is beside one that holds only what is alive.

use std::time::{Duration, Instant};

use leasehold::types::time::{Clock, Ttl};
use rusqlite::Connection;

use super::Bench;
use super::histogram::Histogram;
use super::idle_target::IdleTarget;
use super::report::{Latency, Row};
use super::support::core::sqlite;
use super::target::Kind;

const GROUP: &str = "churn";
const HOURS: usize = 24;
/// A file that has not become smaller in this time is as small as it gets.
const SETTLED: Duration = Duration::from_secs(1);
/// Commits are this far apart: space goes back in the moments between.
const APART: Duration = Duration::from_millis(20);
/// Fewest commits by which the quiet time is judged.
const QUIET_MIN: u64 = 200;
const HOUR: Duration = Duration::from_secs(3600);
/// Longer than an hour, so that some are always alive.
const TTL: Ttl = Ttl::from_secs(5400);

impl Bench {
    pub async fn churn(&self) {
        let hourly = self.arguments.choose(500, 10_000, 50_000);
        let (directory, storage) = sqlite();
        let file = directory.path().join("leasehold.db");
        let idle = IdleTarget::start(storage.clone(), u32::MAX).await;
        let (mut revoked, mut swept) = (0, Duration::ZERO);
        for hour in 1..=HOURS {
            self.progress(&format!("churn: hour {hour} of {HOURS}"));
            let now = idle.core.clock.now();
            idle.lease("pg", hourly, now, now.plus(TTL)).await;
            idle.core.clock.advance(HOUR);
            let begun = Instant::now();
            revoked += idle.core.leases().sweep().await.unwrap().revoked;
            swept += begun.elapsed();
        }
        self.progress("churn: space goes back, and commits go on");
        let (mut during, mut smallest) = (Histogram::new(), (f64::INFINITY, Instant::now()));
        while smallest.1.elapsed() < SETTLED {
            during.record(commit(&idle).await);
            if mib(&file) < smallest.0 {
                smallest = (mib(&file), Instant::now());
            }
        }
        let mut quiet = Histogram::new();
        for _ in 0..during.count().max(QUIET_MIN) {
            quiet.record(commit(&idle).await);
        }
        let copy = directory.path().join("alive.db");
        let alive = {
            let store = Connection::open(&file).unwrap();
            store.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
            mib(&copy)
        };
        drop(idle);
        storage.close().await;
        let ratio = mib(&file) / alive;
        let work = format!("a day of {} leases an hour: the file", hourly);
        let row = Row::value(GROUP, &work, Kind::Sqlite.name(), mib(&file), "MiB");
        let row = row.within("<= 1.5", ratio <= 1.5);
        let note = format!("beside {alive:.1} MiB for what is alive");
        self.add(Row { ratio: Some(ratio), ..row.with_note(note) });
        let millis = |histogram: &Histogram| histogram.at(0.99).as_secs_f64() * 1000.0;
        let ratio = millis(&during) / millis(&quiet);
        let work = "commits while the file shrinks, p99";
        let row = Row::value(GROUP, work, Kind::Sqlite.name(), millis(&during), "ms");
        let row = row.within("<= 2 x quiet", ratio <= 2.0);
        let note = format!("{} of them; {:.2} ms afterwards", during.count(), millis(&quiet));
        let latencies = Latency::of(&during);
        self.add(Row { ratio: Some(ratio), saturated_ms: latencies, ..row.with_note(note) });
        let rate = revoked as f64 / swept.as_secs_f64();
        self.add(Row::value(GROUP, "swept meanwhile", Kind::Sqlite.name(), rate, "/s"));
    }
}

fn mib(file: &std::path::Path) -> f64 {
    std::fs::metadata(file).unwrap().len() as f64 / 1_048_576.0
}

/// One lease, committed after a moment; how long that took.
async fn commit(idle: &IdleTarget) -> Duration {
    tokio::time::sleep(APART).await;
    let now = idle.core.clock.now();
    let begun = Instant::now();
    idle.lease("pg", 1, now, now.plus(TTL)).await;
    begun.elapsed()
}
