//! An audit file that can be looked at from outside, and told to fail.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use leasehold::audit::file::FileSink;
use leasehold::core::audit::chain::Witness;
use leasehold::core::audit::{AuditSink, PreparedEntry, SinkError, Turn};

/// A real file sink that notes whose turn it was to write.
pub struct Watched {
    sink: FileSink,
    /// What each entry so far was answered, the oldest first.
    pub turns: Mutex<Vec<Turn>>,
    /// Whether it says of itself that it fails.
    pub failing: AtomicBool,
}

impl Watched {
    pub fn new(sink: FileSink) -> Self {
        Self { sink, turns: Mutex::default(), failing: AtomicBool::new(false) }
    }
}

#[async_trait]
impl AuditSink for Watched {
    fn name(&self) -> &str {
        self.sink.name()
    }
    fn target(&self) -> String {
        self.sink.target()
    }
    fn submit(&self, entry: PreparedEntry) -> Turn {
        let turn = self.sink.submit(entry);
        self.turns.lock().unwrap().push(turn);
        turn
    }
    fn write(&self) {
        self.sink.write();
    }
    fn hand_over(&self) {
        self.sink.hand_over();
    }
    fn healthy(&self) -> bool {
        self.sink.healthy() && !self.failing.load(Ordering::SeqCst)
    }
    fn head(&self) -> Option<Witness> {
        self.sink.head()
    }
    async fn reopen(&self) -> Result<(), SinkError> {
        self.sink.reopen().await
    }
    async fn close(&self) {
        self.sink.close().await;
    }
}
