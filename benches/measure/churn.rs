//! How the file grows: a day in which leases come and go, by a clock that is moved, and then how large
//! the store is beside one that holds only what is alive.

use std::time::{Duration, Instant};

use leasehold::types::time::{Clock, Ttl};
use rusqlite::Connection;

use super::Bench;
use super::idle_target::IdleTarget;
use super::report::Row;
use super::support::core::sqlite;
use super::target::Kind;

const GROUP: &str = "churn";
const HOURS: usize = 24;
/// A file that has not become smaller in this time is as small as it gets.
const SETTLED: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// Longer than an hour, so that some are always alive.
const TTL: Ttl = Ttl::from_secs(5400);

impl Bench {
    pub async fn churn(&self) {
        let hourly = self.arguments.choose(500, 10_000, 50_000);
        let (directory, storage) = sqlite();
        let file = directory.path().join("leasehold.db");
        let idle = IdleTarget::start(storage.clone()).await;
        let (mut revoked, mut swept) = (0, Duration::ZERO);
        for hour in 1..=HOURS {
            self.progress(&format!("churn: hour {hour} of {HOURS}"));
            let now = idle.core.clock.now();
            idle.lease(hourly, now, now.plus(TTL)).await;
            idle.core.clock.advance(HOUR);
            let begun = Instant::now();
            revoked += idle.core.leases().sweep().await.unwrap().revoked;
            swept += begun.elapsed();
        }
        // Space goes back in moments in which nothing is written.
        let mut before = f64::INFINITY;
        while mib(&file) < before {
            before = mib(&file);
            tokio::time::sleep(SETTLED).await;
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
        let rate = revoked as f64 / swept.as_secs_f64();
        self.add(Row::value(GROUP, "swept meanwhile", Kind::Sqlite.name(), rate, "/s"));
    }
}

fn mib(file: &std::path::Path) -> f64 {
    std::fs::metadata(file).unwrap().len() as f64 / 1_048_576.0
}
