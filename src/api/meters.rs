//! What the edge counts of each request. Routes and statuses are few, so what they are counted by is made
//! once for each of them, and found without a lock.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use metrics::{Counter, Histogram};

/// The counters and histograms of all routes that were asked for.
#[derive(Default)]
pub(super) struct Meters {
    routes: ArcSwap<HashMap<String, Route>>,
}

#[derive(Clone)]
struct Route {
    seconds: Histogram,
    by_status: HashMap<u16, Counter>,
}

impl Meters {
    /// Counts a request that took so long.
    pub fn count(&self, route: &str, status: u16, seconds: f64) {
        if self.count_known(route, status, seconds).is_none() {
            self.add(route, status);
            self.count_known(route, status, seconds);
        }
    }

    fn count_known(&self, route: &str, status: u16, seconds: f64) -> Option<()> {
        let routes = self.routes.load();
        let found = routes.get(route)?;
        found.by_status.get(&status)?.increment(1);
        found.seconds.record(seconds);
        Some(())
    }

    fn add(&self, route: &str, status: u16) {
        self.routes.rcu(|routes| {
            let mut routes = HashMap::clone(routes);
            let found = routes.entry(route.to_owned()).or_insert_with(|| Route {
                seconds: metrics::histogram!(
                    "leasehold_request_seconds", "route" => route.to_owned()
                ),
                by_status: HashMap::new(),
            });
            found.by_status.entry(status).or_insert_with(|| {
                let (route, status) = (route.to_owned(), status.to_string());
                metrics::counter!("leasehold_requests_total", "route" => route, "status" => status)
            });
            Arc::new(routes)
        });
    }
}
