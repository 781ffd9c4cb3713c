//! A gate that everything passes which a process does to the world around it. There a seed decides who
//! goes next, and a schedule when the process dies: from then on nothing passes any more.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use async_trait::async_trait;
use leasehold::crypto::blind::Tag;
use leasehold::crypto::envelope::SealedRecord;
use leasehold::storage::{
    Change, Committed, Invalidation, Kind, KindCount, Page, Row, RowKey, Storage, StorageError,
};
use leasehold::types::id::NamespaceId;
use leasehold::types::time::Timestamp;
use tokio::sync::{broadcast, watch};

/// Most turns that somebody at the gate leaves to others.
const TURNS_MAX: u64 = 4;

/// See above. It starts open: everybody passes at once, and nobody dies.
pub struct Gate {
    state: Mutex<State>,
    dead: watch::Sender<bool>,
}

struct State {
    dice: u64,
    open: bool,
    passed: u64,
    dies_at: Option<u64>,
    /// What passed while it was not open to everybody.
    trace: Vec<String>,
}

impl Gate {
    /// A gate whose order `seed` decides.
    pub fn new(seed: u64) -> Arc<Self> {
        let state = State { dice: seed, open: true, passed: 0, dies_at: None, trace: Vec::new() };
        Arc::new(Self { state: Mutex::new(state), dead: watch::Sender::new(false) })
    }

    /// Lets everybody pass at once, or in the seed's order.
    pub fn open(&self, open: bool) {
        self.state.lock().unwrap().open = open;
    }

    /// The process dies when the gate was passed so many more times.
    pub fn die_in(&self, passes: u64) {
        let mut state = self.state.lock().unwrap();
        state.dies_at = Some(state.passed + passes.max(1));
    }

    /// Another process comes in place of the dead one.
    pub fn revive(&self) {
        self.state.lock().unwrap().dies_at = None;
        self.dead.send_replace(false);
    }

    /// Completes when the process is dead.
    pub async fn died(&self) {
        // The sender lives as long as `self`.
        let _ = self.dead.subscribe().wait_for(|dead| *dead).await;
    }

    /// What passed, in its order, but for what passed when everybody could.
    pub fn trace(&self) -> Vec<String> {
        self.state.lock().unwrap().trace.clone()
    }

    /// Waits its turn for `what`. Never completes for a process that is dead.
    pub async fn pass(&self, what: &str) {
        let turns = {
            let mut state = self.state.lock().unwrap();
            if state.open {
                0
            } else {
                state.passed += 1;
                state.trace.push(what.to_owned());
                if state.dies_at.is_some_and(|at| state.passed >= at) {
                    self.dead.send_replace(true);
                }
                state.dice ^= state.dice << 13;
                state.dice ^= state.dice >> 7;
                state.dice ^= state.dice << 17;
                state.dice % TURNS_MAX
            }
        };
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        if *self.dead.borrow() {
            std::future::pending::<()>().await;
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for it without letting anybody else run meanwhile.
fn wait<T>(what: impl Future<Output = T>) -> T {
    // Whoever waits so cannot give its turn back, however much it has done already.
    let mut what = pin!(tokio::task::coop::unconstrained(what));
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match what.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => return done,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// A store behind a gate. What it is asked happens whole and at once between two passes.
pub struct GatedStorage {
    inner: Arc<dyn Storage>,
    gate: Arc<Gate>,
}

impl GatedStorage {
    /// Puts `inner` behind `gate`.
    pub fn new(inner: Arc<dyn Storage>, gate: Arc<Gate>) -> Arc<Self> {
        Arc::new(Self { inner, gate })
    }

    async fn passing<T: Send>(&self, name: &str, what: impl Future<Output = T> + Send) -> T {
        self.gate.pass(name).await;
        let done = wait(what);
        self.gate.pass(name).await;
        done
    }
}

#[async_trait]
impl Storage for GatedStorage {
    async fn get(&self, key: RowKey) -> Result<Option<Row>, StorageError> {
        self.passing("get", self.inner.get(key)).await
    }

    async fn list(
        &self,
        namespace: NamespaceId,
        kind: Kind,
        parent: Tag,
        after: Option<Tag>,
        limit: usize,
    ) -> Result<Page, StorageError> {
        self.passing("list", self.inner.list(namespace, kind, parent, after, limit)).await
    }

    async fn labelled(
        &self,
        namespace: NamespaceId,
        kind: Kind,
        label: Tag,
        after: Option<Tag>,
        limit: usize,
    ) -> Result<Page, StorageError> {
        self.passing("labelled", self.inner.labelled(namespace, kind, label, after, limit)).await
    }

    async fn count_labelled(
        &self,
        namespace: NamespaceId,
        kind: Kind,
        label: Tag,
        max: u64,
    ) -> Result<u64, StorageError> {
        self.passing("count_labelled", self.inner.count_labelled(namespace, kind, label, max)).await
    }

    async fn due(
        &self,
        kind: Kind,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        self.passing("due", self.inner.due(kind, until, limit)).await
    }

    async fn next_due(&self, kind: Kind) -> Result<Option<Timestamp>, StorageError> {
        self.passing("next_due", self.inner.next_due(kind)).await
    }

    async fn claim(
        &self,
        kind: Kind,
        now: Timestamp,
        node: u64,
        claim_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        self.passing("claim", self.inner.claim(kind, now, node, claim_until, limit)).await
    }

    async fn count(&self, kind: Kind, until: Timestamp) -> Result<KindCount, StorageError> {
        self.passing("count", self.inner.count(kind, until)).await
    }

    async fn wrapped_below(
        &self,
        term: u32,
        after: Option<RowKey>,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        self.passing("wrapped_below", self.inner.wrapped_below(term, after, limit)).await
    }

    async fn count_wrapped_below(&self, term: u32) -> Result<u64, StorageError> {
        self.passing("count_wrapped_below", self.inner.count_wrapped_below(term)).await
    }

    async fn reseal(&self, rows: Vec<(RowKey, u64, SealedRecord)>) -> Result<(), StorageError> {
        self.passing("reseal", self.inner.reseal(rows)).await
    }

    async fn commit(&self, batch: Vec<Change>) -> Result<Committed, StorageError> {
        self.passing("commit", self.inner.commit(batch)).await
    }

    async fn meta(&self, name: &'static str) -> Result<Option<Vec<u8>>, StorageError> {
        self.passing("meta", self.inner.meta(name)).await
    }

    async fn sequence(&self) -> Result<u64, StorageError> {
        self.passing("sequence", self.inner.sequence()).await
    }

    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn invalidations(&self) -> broadcast::Receiver<Invalidation> {
        self.inner.invalidations()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
