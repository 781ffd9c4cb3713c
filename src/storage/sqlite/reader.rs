//! The threads that read.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use super::{Connection, StorageError, closed};
use crate::types::sync::Mutex;
use crate::types::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use crate::types::sync::thread::{Builder, JoinHandle};

/// A question together with where its answer goes.
pub(super) type Question = Box<dyn FnOnce(&Connection) + Send>;

/// The threads and the queue before them.
#[derive(Debug)]
pub(super) struct Readers {
    queue: SyncSender<Question>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    /// One thread for each connection.
    pub fn start(connections: Vec<Connection>, queue_max: usize) -> Result<Self, StorageError> {
        let (queue, questions) = sync_channel(queue_max);
        let questions = Arc::new(Mutex::new(questions));
        let threads = connections
            .into_iter()
            .map(|connection| {
                let questions = questions.clone();
                Builder::new()
                    .name("store-reader".to_owned())
                    .spawn(move || answer(&connection, &questions))
                    .map_err(|error| StorageError::Unavailable(Box::new(error)))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { queue, threads })
    }

    /// Queues a question.
    pub fn submit(&self, question: Question) -> Result<(), StorageError> {
        self.queue.try_send(question).map_err(|error| match error {
            TrySendError::Full(_) => StorageError::Busy,
            TrySendError::Disconnected(_) => closed(),
        })
    }

    /// Answers what is queued, then ends the threads.
    pub fn finish(self) {
        drop(self.queue);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a reader of the store ended in a panic");
            }
        }
    }
}

fn answer(connection: &Connection, questions: &Mutex<Receiver<Question>>) {
    loop {
        // The lock is held while waiting: the other threads wait for the lock instead of the queue.
        let next = questions.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            // Whoever asked is told that nobody answers; the others still are answered.
            Ok(question) => drop(catch_unwind(AssertUnwindSafe(|| question(connection)))),
            Err(_) => return,
        }
    }
}
