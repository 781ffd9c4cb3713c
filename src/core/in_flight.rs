//! The requests that are being served, for administrators who ask what keeps a server busy.
//!
//! Every request enters and leaves, so the list is cut into parts that are locked by themselves.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::types::id::RequestId;
use crate::types::path::ApiPath;
use crate::types::time::Timestamp;

use super::operation::Operation;
use super::request::Request;

/// How many parts the list has.
const PARTS: usize = 16;

/// A request that is being served.
#[derive(Clone, Debug)]
pub struct Underway {
    /// Which one.
    pub id: RequestId,
    /// When it arrived.
    pub received_at: Timestamp,
    /// What it asks for, as far as its method tells.
    pub operation: Operation,
    /// Below `/v1/`.
    pub path: ApiPath,
    /// Where it comes from.
    pub remote: SocketAddr,
}

/// All of them.
#[derive(Debug, Default)]
pub struct InFlight {
    entered: AtomicU64,
    left: AtomicU64,
    parts: [Mutex<HashMap<u64, Underway>>; PARTS],
}

impl InFlight {
    /// Lists `request` until the answer is dropped.
    pub(in crate::core) fn enter(&self, request: &Request) -> Option<Entered<'_>> {
        let number = self.entered.fetch_add(1, Ordering::Relaxed);
        let part = self.parts.get(usize::try_from(number).ok()? % PARTS)?;
        let underway = Underway {
            id: request.id.clone(),
            received_at: request.received_at,
            operation: request.verb.operation(),
            path: request.path.clone(),
            remote: request.connection.remote,
        };
        lock(part).insert(number, underway);
        Some(Entered { part, number, _left: Leaving(&self.left) })
    }

    /// How many requests this process has begun to serve.
    pub fn entered(&self) -> u64 {
        self.entered.load(Ordering::Relaxed)
    }

    /// Counts what is not listed, such as the ceremonies of a sealed server, in [`InFlight::left`]
    /// when this is dropped.
    pub fn pass(&self) -> Leaving<'_> {
        Leaving(&self.left)
    }

    /// How often somebody was done with a request, however it ended.
    pub fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// What is being served now, oldest first.
    pub fn now(&self) -> Vec<Underway> {
        let mut all: Vec<(u64, Underway)> = Vec::new();
        for part in &self.parts {
            all.extend(lock(part).iter().map(|(number, one)| (*number, one.clone())));
        }
        all.sort_unstable_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, one)| one).collect()
    }
}

fn lock(part: &Mutex<HashMap<u64, Underway>>) -> MutexGuard<'_, HashMap<u64, Underway>> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request's place in the list.
#[must_use = "the request leaves the list when this is dropped"]
pub(in crate::core) struct Entered<'a> {
    part: &'a Mutex<HashMap<u64, Underway>>,
    number: u64,
    /// Dropped last.
    _left: Leaving<'a>,
}

/// Counts when it is dropped.
#[derive(Debug)]
#[must_use = "it counts when it is dropped"]
pub struct Leaving<'a>(&'a AtomicU64);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        lock(self.part).remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::super::peer::ConnectionInfo;
    use super::super::request::Verb;
    use super::*;

    fn request(path: &str) -> Request {
        let connection = ConnectionInfo {
            peer: None,
            remote: "127.0.0.1:4711".parse().unwrap(),
            listener: "test".into(),
            id: 1,
        };
        Request {
            id: RequestId::random().unwrap(),
            received_at: Timestamp::from_secs(1),
            verb: Verb::Read,
            path: ApiPath::parse(path).unwrap(),
            fields: Map::new(),
            token: None,
            connection,
            wrap_ttl: None,
            codes: Vec::new(),
            idempotency_key: None,
        }
    }

    #[test]
    fn a_request_is_listed_for_as_long_as_it_is_served() {
        let all = InFlight::default();
        let paths = || all.now().iter().map(|one| one.path.as_str().to_owned()).collect::<Vec<_>>();
        let mut entered: Vec<_> =
            (0..40).map(|n| all.enter(&request(&format!("kv/{n}"))).unwrap()).collect();
        assert_eq!(paths().len(), 40);
        assert_eq!(paths()[0], "kv/0");
        drop(entered.split_off(1));
        assert_eq!(paths(), ["kv/0"]);
        assert_eq!(all.left(), 39);
        drop(entered);
        assert!(paths().is_empty());
        assert_eq!(all.left(), 40);
        drop(all.pass());
        assert_eq!(all.left(), 41);
        assert_eq!(all.entered(), 40);
    }
}
