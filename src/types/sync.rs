//! What threads meet by: locks, queues, and threads themselves. They are the standard library's and
//! nothing is put before them; the path is ours so that `tests/model` can compile the very files that
//! depend on the order in which threads run with others in their place, which try every order.

pub use std::sync::{Condvar, Mutex, MutexGuard, RwLock, mpsc};
pub use std::thread;
