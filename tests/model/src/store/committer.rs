//! Stands for what commits groups: keeps what it is given, and fails when it is told to.

use std::mem::take;
use std::sync::{Arc, Mutex as Plain, MutexGuard as PlainGuard};
use std::time::Duration;

use super::writer::Write;
use super::{Change, Committed, Kind, Row, StorageError, Timestamp};

/// The file, as the test sees it.
#[derive(Default)]
pub(super) struct File(Plain<Seen>);

#[derive(Default)]
pub(super) struct Seen {
    /// Changes with the group that they were committed in.
    pub rows: Vec<(u32, u64)>,
    pub groups: Vec<usize>,
    pub claims: Vec<u32>,
    /// Groups that fail as a whole, by their numbers from 1.
    pub failing: Vec<u64>,
    /// How often space is to be given back.
    pub wasted: usize,
    pub ended: bool,
}

impl File {
    pub fn new(seen: Seen) -> Arc<Self> {
        Arc::new(Self(Plain::new(seen)))
    }

    pub fn seen(&self) -> PlainGuard<'_, Seen> {
        self.0.lock().unwrap()
    }
}

pub(super) struct Committer(Arc<File>);

impl Committer {
    pub fn new(file: Arc<File>) -> Self {
        Self(file)
    }

    pub fn commit(&mut self, writes: &[Write]) -> Vec<Result<Committed, StorageError>> {
        let mut seen = self.0.seen();
        seen.groups.push(writes.len());
        let sequence = seen.groups.len() as u64;
        if seen.failing.contains(&sequence) {
            return writes.iter().map(|_| Err(StorageError::Failed { group: sequence })).collect();
        }
        let mut commit_one = |write: &Write| {
            let batch = match write {
                Write::Commit(batch, _) => batch.as_slice(),
                Write::Reseal(rows, _) => {
                    seen.rows.extend(rows.iter().map(|(key, _, _)| (key.0, sequence)));
                    return Ok(Committed { sequence });
                }
            };
            if let Some(Change { id, .. }) = batch.iter().find(|change| change.refused) {
                return Err(StorageError::Refused { id: *id });
            }
            seen.rows.extend(batch.iter().map(|change| (change.id, sequence)));
            Ok(Committed { sequence })
        };
        writes.iter().map(&mut commit_one).collect()
    }

    pub fn claim(
        &mut self,
        kind: Kind,
        _now: Timestamp,
        _until: Timestamp,
        _limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        self.0.seen().claims.push(kind.0);
        Ok(vec![Row(kind.0)])
    }

    pub fn patience(&self) -> Option<Duration> {
        (self.0.seen().wasted > 0).then_some(Duration::from_millis(100))
    }

    pub fn give_back(&mut self) {
        self.0.seen().wasted -= 1;
    }

    pub fn tidy(&self, _idle: bool) {
        assert!(!self.0.seen().ended);
    }

    pub fn end(self) {
        let ended = &mut self.0.seen().ended;
        assert!(!take(ended), "ended twice");
        *ended = true;
    }
}
