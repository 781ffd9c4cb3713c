//! The thread that writes: takes whatever is queued, has it committed in one transaction, and answers
//! everybody.

use tokio::sync::oneshot;

use super::committer::Committer;
use super::{Change, Committed, Kind, Row, RowKey, StorageError, Timestamp, closed};
use crate::crypto::envelope::SealedRecord;
use crate::types::sync::mpsc::{
    Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel,
};
use crate::types::sync::thread::{Builder, JoinHandle};

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StorageError>>;

/// What the writer is asked.
pub(super) enum Job {
    /// See [`super::Storage::commit`].
    Commit { batch: Vec<Change>, reply: Reply<Committed> },
    /// See [`super::Storage::reseal`].
    Reseal { rows: Vec<(RowKey, u64, SealedRecord)>, reply: Reply<()> },
    /// See [`super::Storage::claim`].
    Claim {
        kind: Kind,
        now: Timestamp,
        claim_until: Timestamp,
        limit: usize,
        reply: Reply<Vec<Row>>,
    },
}

/// The thread and the queue before it.
#[derive(Debug)]
pub(super) struct Writer {
    queue: SyncSender<Job>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Gives `committer` to a thread of its own: `queue_max` jobs may wait for it, and it gets up to
    /// `group_max` batches at once.
    pub fn start(
        committer: Committer,
        queue_max: usize,
        group_max: usize,
    ) -> Result<Self, StorageError> {
        let (queue, jobs) = sync_channel(queue_max);
        let group_max = group_max.max(1);
        let thread = Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || run(committer, group_max, &jobs))
            .map_err(|error| StorageError::Unavailable(Box::new(error)))?;
        Ok(Self { queue, thread })
    }

    /// Queues a job.
    pub fn submit(&self, job: Job) -> Result<(), StorageError> {
        self.queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => StorageError::Busy,
            TrySendError::Disconnected(_) => closed(),
        })
    }

    /// Commits what is queued, empties the WAL, closes the file and gives up the lock.
    pub fn finish(self) {
        drop(self.queue);
        if self.thread.join().is_err() {
            tracing::error!("the writer of the store ended in a panic");
        }
    }
}

/// A job that changes the file.
pub(super) enum Write {
    /// See [`super::Storage::commit`].
    Commit(Vec<Change>, Reply<Committed>),
    /// See [`super::Storage::reseal`].
    Reseal(Vec<(RowKey, u64, SealedRecord)>, Reply<()>),
}

impl Write {
    fn answer(self, result: Result<Committed, StorageError>) {
        // Nobody waits for the answer when the request was given up.
        let _ = match self {
            Self::Commit(_, reply) => reply.send(result).is_ok(),
            Self::Reseal(_, reply) => reply.send(result.map(|_| ())).is_ok(),
        };
    }
}

type Claim = Box<dyn FnOnce(&mut Committer)>;

fn run(mut committer: Committer, group_max: usize, jobs: &Receiver<Job>) {
    loop {
        let first = match next(&committer, jobs) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => {
                committer.give_back();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let (mut writes, mut claims) = (Vec::new(), Vec::new());
        sort(first, &mut writes, &mut claims);
        let mut idle = false;
        while writes.len() + claims.len() < group_max && !idle {
            match jobs.try_recv() {
                Ok(job) => sort(job, &mut writes, &mut claims),
                Err(_) => idle = true,
            }
        }
        if !writes.is_empty() {
            let results = committer.commit(&writes);
            for (write, result) in writes.into_iter().zip(results) {
                write.answer(result);
            }
        }
        for claim in claims {
            claim(&mut committer);
        }
        committer.tidy(idle);
    }
    committer.end();
}

/// Waits for a job; when there is space to give back, not for long.
fn next(committer: &Committer, jobs: &Receiver<Job>) -> Result<Job, RecvTimeoutError> {
    match committer.patience() {
        Some(patience) => jobs.recv_timeout(patience),
        None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
    }
}

fn sort(job: Job, writes: &mut Vec<Write>, claims: &mut Vec<Claim>) {
    match job {
        Job::Commit { batch, reply } => writes.push(Write::Commit(batch, reply)),
        Job::Reseal { rows, reply } => writes.push(Write::Reseal(rows, reply)),
        Job::Claim { kind, now, claim_until, limit, reply } => {
            claims.push(Box::new(move |committer: &mut Committer| {
                // Rows claimed for a request that was given up are free again when the claim ends.
                let _ = reply.send(committer.claim(kind, now, claim_until, limit));
            }));
        }
    }
}
