//! Stands for `crate::types::sync`: what `loom` has, and on top of it what it has not.

use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, TryLockError, TryLockResult};
use std::time::Duration;

use loom::sync::atomic::{AtomicUsize, Ordering};

pub use loom::sync::RwLock;
pub use loom::thread;

use super::time;

#[derive(Debug, Default)]
pub struct Mutex<T> {
    inner: loom::sync::Mutex<T>,
    /// To loom, letting go of a lock is not a step before which others are tried. Here it is one to
    /// those who try the lock without waiting: they change what is looked at then.
    tries: AtomicUsize,
}

pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// `None` while it is given to a [`Condvar`].
    held: Option<loom::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self { inner: loom::sync::Mutex::new(value), tries: AtomicUsize::new(0) }
    }

    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let held = Some(self.inner.lock().unwrap());
        Ok(MutexGuard { mutex: self, held })
    }

    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        self.tries.fetch_add(1, Ordering::SeqCst);
        let held = self.inner.try_lock().map_err(|_| TryLockError::WouldBlock)?;
        Ok(MutexGuard { mutex: self, held: Some(held) })
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().unwrap()
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().unwrap()
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        if self.held.is_some() && !std::thread::panicking() {
            self.mutex.tries.load(Ordering::SeqCst);
        }
    }
}

#[derive(Debug)]
pub struct Condvar(loom::sync::Condvar);

impl Condvar {
    pub fn new() -> Self {
        Self(loom::sync::Condvar::new())
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn wait_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<MutexGuard<'a, T>> {
        while condition(&mut guard) {
            let held = guard.held.take().unwrap();
            guard.held = Some(self.0.wait(held).unwrap());
        }
        Ok(guard)
    }

    /// As the standard one, but for what it says of the time.
    pub fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        limit: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'a, T>, ())> {
        if !condition(&mut guard) {
            return Ok((guard, ()));
        }
        if time::runs_out(limit) {
            let mutex = guard.mutex;
            drop(guard);
            return Ok((mutex.lock().unwrap(), ()));
        }
        Ok((self.wait_while(guard, condition).unwrap(), ()))
    }
}

pub mod mpsc {
    //! A bounded queue of one sender and one receiver.

    use std::collections::VecDeque;
    use std::fmt;
    use std::sync::Arc;
    pub use std::sync::mpsc::{RecvError, RecvTimeoutError, TryRecvError, TrySendError};
    use std::time::Duration;

    use loom::sync::{Condvar, Mutex};

    use super::time;

    struct Channel<T> {
        queue: Mutex<Queue<T>>,
        filled: Condvar,
        room: usize,
    }

    struct Queue<T> {
        values: VecDeque<T>,
        sending: bool,
        receiving: bool,
    }

    pub struct SyncSender<T>(Arc<Channel<T>>);
    pub struct Receiver<T>(Arc<Channel<T>>);

    pub fn sync_channel<T>(room: usize) -> (SyncSender<T>, Receiver<T>) {
        assert!(room > 0, "a queue of no length hands over from thread to thread");
        let queue = Queue { values: VecDeque::new(), sending: true, receiving: true };
        let channel = Channel { queue: Mutex::new(queue), filled: Condvar::new(), room };
        let channel = Arc::new(channel);
        (SyncSender(channel.clone()), Receiver(channel))
    }

    impl<T> SyncSender<T> {
        pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
            let mut queue = self.0.queue.lock().unwrap();
            if !queue.receiving {
                return Err(TrySendError::Disconnected(value));
            }
            if queue.values.len() >= self.0.room {
                return Err(TrySendError::Full(value));
            }
            queue.values.push_back(value);
            drop(queue);
            self.0.filled.notify_one();
            Ok(())
        }
    }

    impl<T> Receiver<T> {
        pub fn recv(&self) -> Result<T, RecvError> {
            let mut queue = self.0.queue.lock().unwrap();
            while queue.values.is_empty() && queue.sending {
                queue = self.0.filled.wait(queue).unwrap();
            }
            queue.values.pop_front().ok_or(RecvError)
        }

        pub fn try_recv(&self) -> Result<T, TryRecvError> {
            let mut queue = self.0.queue.lock().unwrap();
            match queue.values.pop_front() {
                Some(value) => Ok(value),
                None if queue.sending => Err(TryRecvError::Empty),
                None => Err(TryRecvError::Disconnected),
            }
        }

        pub fn recv_timeout(&self, limit: Duration) -> Result<T, RecvTimeoutError> {
            match self.try_recv() {
                Ok(value) => Ok(value),
                Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) if time::runs_out(limit) => Err(RecvTimeoutError::Timeout),
                Err(TryRecvError::Empty) => self.recv().map_err(|_| RecvTimeoutError::Disconnected),
            }
        }
    }

    impl<T> Drop for SyncSender<T> {
        fn drop(&mut self) {
            self.0.queue.lock().unwrap().sending = false;
            self.0.filled.notify_one();
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            let left = {
                let mut queue = self.0.queue.lock().unwrap();
                queue.receiving = false;
                std::mem::take(&mut queue.values)
            };
            drop(left);
        }
    }

    impl<T> fmt::Debug for SyncSender<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("SyncSender")
        }
    }
}
