//! The queue before the thread that commits groups, the threads that read, and how a store is closed
//! under those who use it: `writer.rs`, `reader.rs` and `threads.rs` of `src/storage/sqlite`.

mod committer;
#[path = "../../../../src/storage/sqlite/reader.rs"]
mod reader;
#[path = "../../../../src/storage/sqlite/threads.rs"]
mod threads;
#[path = "../../../../src/storage/sqlite/writer.rs"]
mod writer;

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as Plain};

use loom::thread::{self, JoinHandle};
use tokio::sync::oneshot;

use self::committer::{Committer, File, Seen};
use self::reader::Readers;
use self::threads::Threads;
use self::writer::{Job, Writer};
use crate::crypto::envelope::SealedRecord;
use crate::orders::{self, Reached};

pub struct Connection;

pub struct Change {
    id: u32,
    refused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    sequence: u64,
}

pub struct Kind(u32);
pub struct RowKey(u32);
#[derive(Debug, PartialEq, Eq)]
pub struct Row(u32);
pub struct Timestamp;

#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("full")]
    Busy,
    #[error("closed")]
    Closed,
    #[error("no thread")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    #[error("change {id} does not fit")]
    Refused { id: u32 },
    #[error("group {group} failed")]
    Failed { group: u64 },
}

fn closed() -> StorageError {
    StorageError::Closed
}

/// What is asked of the store.
#[derive(Clone, Copy)]
enum Ask {
    Commit(u32),
    /// It does not fit.
    Refuse(u32),
    Reseal(u32),
    Claim(u32),
    /// As [`Ask::Commit`], by somebody who does not wait for the answer.
    Leave(u32),
    Read(u32),
}

/// A store, and what it said.
struct Store {
    threads: Threads,
    file: Arc<File>,
    moments: AtomicUsize,
    told: Plain<Vec<Told>>,
}

struct Told {
    ask: Ask,
    begun: usize,
    submitted: usize,
    /// The group that it was committed in, if it was. `None` when nobody waited.
    answer: Option<Result<u64, StorageError>>,
}

impl Store {
    fn open(readers: usize, queue_max: usize, group_max: usize, seen: Seen) -> Arc<Self> {
        let file = File::new(seen);
        let readers =
            Readers::start((0..readers).map(|_| Connection).collect(), queue_max).unwrap();
        let committer = Committer::new(file.clone());
        let writer = Writer::start(committer, queue_max, group_max).unwrap();
        let threads = Threads::new(writer, readers);
        Arc::new(Self { threads, file, moments: AtomicUsize::new(0), told: Plain::default() })
    }

    fn moment(&self) -> usize {
        self.moments.fetch_add(1, Ordering::Relaxed)
    }

    /// Queues all of `asks`, then waits for the answers.
    fn ask_all(&self, asks: &[Ask]) {
        let queued: Vec<_> = asks.iter().map(|ask| self.queue(*ask)).collect();
        for (mut told, answer) in queued {
            if let Some(answer) = answer {
                told.answer = Some(answer());
            }
            self.told.lock().unwrap().push(told);
        }
    }

    fn queue(&self, ask: Ask) -> (Told, Option<Box<dyn FnOnce() -> Result<u64, StorageError>>>) {
        let begun = self.moment();
        let (queued, answer): (_, Option<Box<dyn FnOnce() -> _>>) = match ask {
            Ask::Commit(id) | Ask::Refuse(id) | Ask::Leave(id) => {
                let (reply, answer) = oneshot::channel();
                let batch = vec![Change { id, refused: matches!(ask, Ask::Refuse(_)) }];
                let queued = self.threads.write(Job::Commit { batch, reply });
                let waits = !matches!(ask, Ask::Leave(_));
                let answer = waits.then_some(answer);
                (
                    queued,
                    answer.map(|answer| -> Box<dyn FnOnce() -> _> {
                        Box::new(|| orders::wait(answer).unwrap().map(|done| done.sequence))
                    }),
                )
            }
            Ask::Reseal(id) => {
                let (reply, answer) = oneshot::channel();
                let rows = vec![(RowKey(id), 1, SealedRecord)];
                let queued = self.threads.write(Job::Reseal { rows, reply });
                (queued, Some(Box::new(|| orders::wait(answer).unwrap().map(|()| 0))))
            }
            Ask::Claim(id) => {
                let (reply, answer) = oneshot::channel();
                let (now, claim_until) = (Timestamp, Timestamp);
                let job = Job::Claim { kind: Kind(id), now, claim_until, limit: 1, reply };
                let claimed = move || {
                    let rows = orders::wait(answer).unwrap()?;
                    assert_eq!(rows, [Row(id)]);
                    Ok(0)
                };
                (self.threads.write(job), Some(Box::new(claimed)))
            }
            Ask::Read(id) => {
                let (reply, answer) = oneshot::channel();
                let question = move |_: &Connection| reply.send(id).unwrap();
                let read = move || {
                    assert_eq!(orders::wait(answer), Ok(id));
                    Ok(0)
                };
                (self.threads.read(Box::new(question)), Some(Box::new(read)))
            }
        };
        let submitted = self.moment();
        let refused = queued.err().map(Err);
        let answer = if refused.is_some() { None } else { answer };
        (Told { ask, begun, submitted, answer: refused }, answer)
    }

    /// A thread that asks.
    fn asking(self: &Arc<Self>, asks: &'static [Ask]) -> JoinHandle<()> {
        let store = self.clone();
        thread::spawn(move || store.ask_all(asks))
    }

    /// When closing began, unless somebody else does it.
    fn close(&self) -> Option<usize> {
        let begun = self.moment();
        self.threads.take()?.finish();
        assert!(self.file.seen().ended, "closed is the store when its file is");
        Some(begun)
    }

    /// What always holds in the end, of `count` questions. Closing began at the moment `closing`.
    fn check(&self, count: usize, closing: usize) {
        let told = self.told.lock().unwrap();
        let seen = self.file.seen();
        assert_eq!(told.len(), count);
        for one in told.iter() {
            let refused = match one.answer {
                Some(Err(StorageError::Closed)) => {
                    assert!(one.submitted > closing, "it came in time");
                    true
                }
                Some(Err(StorageError::Busy)) => true,
                _ => false,
            };
            let groups = |id: u32| -> Vec<u64> {
                seen.rows.iter().filter(|(row, _)| *row == id).map(|(_, group)| *group).collect()
            };
            match one.ask {
                Ask::Refuse(id) => {
                    assert!(groups(id).is_empty());
                    assert!(match one.answer {
                        Some(Err(StorageError::Refused { id: told })) => told == id,
                        Some(Err(StorageError::Failed { .. })) => true,
                        _ => refused,
                    });
                }
                Ask::Commit(id) => match one.answer {
                    Some(Ok(group)) => assert_eq!(groups(id), [group]),
                    Some(Err(StorageError::Failed { group })) => {
                        assert!(groups(id).is_empty() && seen.failing.contains(&group));
                    }
                    _ => assert!(refused && groups(id).is_empty()),
                },
                Ask::Reseal(id) => match one.answer {
                    Some(Ok(_)) => assert_eq!(groups(id).len(), 1),
                    _ => assert!(groups(id).is_empty()),
                },
                Ask::Leave(id) if seen.failing.is_empty() => {
                    assert_eq!(groups(id).len(), usize::from(!refused));
                }
                Ask::Leave(id) => assert!(groups(id).len() <= 1),
                Ask::Claim(id) => {
                    let claims = seen.claims.iter().filter(|claim| **claim == id).count();
                    assert_eq!(claims, usize::from(!refused));
                }
                Ask::Read(_) => assert!(refused || matches!(one.answer, Some(Ok(_)))),
            }
        }
        let row = |told: &Told| match told.ask {
            Ask::Commit(id) | Ask::Reseal(id) | Ask::Leave(id) => {
                seen.rows.iter().position(|(row, _)| *row == id)
            }
            Ask::Refuse(_) | Ask::Claim(_) | Ask::Read(_) => None,
        };
        for before in told.iter() {
            for after in told.iter().filter(|after| before.submitted < after.begun) {
                let (Some(one), Some(other)) = (row(before), row(after)) else { continue };
                assert!(one < other, "they are committed in the order in which they came");
            }
        }
    }
}

#[test]
fn each_batch_is_committed_once_in_order_and_gets_its_own_answer() {
    let reached: Arc<[Reached; 4]> = Arc::default();
    let noted = reached.clone();
    orders::every("store: three askers", 2, false, move || {
        let store = Store::open(0, 8, 3, Seen::default());
        let first = store.asking(&[Ask::Commit(1), Ask::Refuse(2), Ask::Reseal(3)]);
        let second = store.asking(&[Ask::Commit(4), Ask::Claim(5)]);
        store.ask_all(&[Ask::Commit(6)]);
        first.join().unwrap();
        second.join().unwrap();
        let closing = store.close().unwrap();
        store.check(6, closing);
        let seen = store.file.seen();
        assert_eq!(seen.groups.iter().sum::<usize>(), 5);
        for size in &seen.groups {
            noted[*size].note(true);
        }
        noted[0].note(seen.groups.len() == 5);
    });
    assert!(reached.iter().all(Reached::at_all), "groups of one, of two and of three");
}

#[test]
fn a_group_that_fails_is_told_so_and_no_other() {
    orders::every("store: a group that fails", 2, false, || {
        let store = Store::open(0, 8, 3, Seen { failing: vec![2], ..Seen::default() });
        let first = store.asking(&[Ask::Commit(1), Ask::Refuse(2)]);
        let second = store.asking(&[Ask::Commit(3), Ask::Leave(4)]);
        store.ask_all(&[Ask::Commit(5)]);
        first.join().unwrap();
        second.join().unwrap();
        let closing = store.close().unwrap();
        store.check(5, closing);
        let failed = store.file.seen().groups.get(1).copied().unwrap_or(0);
        let told = store.told.lock().unwrap();
        let failures = told
            .iter()
            .filter(|told| matches!(told.answer, Some(Err(StorageError::Failed { .. }))))
            .count();
        assert!((failed.saturating_sub(1)..=failed).contains(&failures));
    });
}

#[test]
fn who_gives_up_loses_nothing_and_holds_up_nobody() {
    orders::every("store: given up", 2, false, || {
        let store = Store::open(0, 8, 2, Seen::default());
        let first = store.asking(&[Ask::Leave(1), Ask::Commit(2), Ask::Leave(3)]);
        let second = store.asking(&[Ask::Leave(4), Ask::Refuse(5)]);
        store.ask_all(&[Ask::Leave(6)]);
        first.join().unwrap();
        second.join().unwrap();
        let closing = store.close().unwrap();
        store.check(6, closing);
        assert_eq!(store.file.seen().rows.len(), 5);
    });
}

#[test]
fn closing_does_what_is_queued_and_takes_nothing_after() {
    let reached: Arc<[Reached; 2]> = Arc::default();
    let noted = reached.clone();
    orders::every("store: closing", 2, false, move || {
        let store = Store::open(1, 8, 2, Seen::default());
        let first = store.asking(&[Ask::Commit(1), Ask::Read(2)]);
        let second = store.asking(&[Ask::Leave(3), Ask::Commit(4)]);
        let closing = store.close().unwrap();
        let rows = store.file.seen().rows.len();
        store.ask_all(&[Ask::Commit(5), Ask::Read(6)]);
        first.join().unwrap();
        second.join().unwrap();
        store.check(6, closing);
        assert_eq!(
            store.file.seen().rows.len(),
            rows,
            "nothing is written to a file that is closed"
        );
        noted[0].note(rows == 0);
        noted[1].note(rows == 3);
    });
    assert!(reached.iter().all(Reached::at_all));
}

#[test]
fn one_of_two_closes() {
    orders::every("store: closing twice", 3, false, || {
        let store = Store::open(0, 8, 2, Seen::default());
        let other = store.clone();
        let other = thread::spawn(move || other.close());
        let request = store.asking(&[Ask::Commit(1), Ask::Commit(2)]);
        let closing = store.close();
        let other = other.join().unwrap();
        request.join().unwrap();
        assert!(closing.is_some() != other.is_some());
        store.check(2, closing.or(other).unwrap());
    });
}

#[test]
fn a_full_queue_refuses_and_does_what_it_took() {
    let reached: Arc<[Reached; 2]> = Arc::default();
    let noted = reached.clone();
    orders::every("store: a full queue", 2, false, move || {
        let store = Store::open(0, 1, 2, Seen::default());
        let first = store.asking(&[Ask::Commit(1), Ask::Commit(2)]);
        let second = store.asking(&[Ask::Commit(3)]);
        store.ask_all(&[Ask::Claim(4)]);
        first.join().unwrap();
        second.join().unwrap();
        let closing = store.close().unwrap();
        store.check(4, closing);
        let told = store.told.lock().unwrap();
        let busy = |told: &Told| matches!(told.answer, Some(Err(StorageError::Busy)));
        noted[usize::from(told.iter().any(busy))].note(true);
    });
    assert!(reached.iter().all(Reached::at_all));
}

#[test]
fn giving_space_back_holds_up_nothing() {
    orders::every("store: giving space back", 2, true, || {
        let store = Store::open(0, 8, 2, Seen { wasted: 2, ..Seen::default() });
        let first = store.asking(&[Ask::Commit(1), Ask::Leave(2)]);
        let second = store.asking(&[Ask::Commit(3)]);
        store.ask_all(&[Ask::Claim(4)]);
        first.join().unwrap();
        second.join().unwrap();
        let closing = store.close().unwrap();
        store.check(4, closing);
        assert_eq!(store.file.seen().rows.len(), 3);
    });
}

#[test]
fn readers_share_what_is_asked() {
    orders::every("store: two readers", 2, false, || {
        let readers = Arc::new(Readers::start(vec![Connection, Connection], 8).unwrap());
        let answered = Arc::new(AtomicUsize::new(0));
        let ask = |readers: &Readers, answered: &Arc<AtomicUsize>, waits: bool| {
            let (reply, answer) = oneshot::channel();
            let counted = answered.clone();
            let question = move |_: &Connection| {
                counted.fetch_add(1, Ordering::Relaxed);
                let _ = reply.send(());
            };
            readers.submit(Box::new(question)).unwrap();
            if waits {
                orders::wait(answer).unwrap();
            }
        };
        let other = {
            let (readers, answered) = (readers.clone(), answered.clone());
            thread::spawn(move || {
                ask(&readers, &answered, true);
                ask(&readers, &answered, false);
            })
        };
        ask(&readers, &answered, false);
        ask(&readers, &answered, true);
        other.join().unwrap();
        Arc::into_inner(readers).unwrap().finish();
        assert_eq!(answered.load(Ordering::Relaxed), 4);
    });
}
