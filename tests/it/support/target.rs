//! An engine whose targets are in memory, and do what tests want. What is in them is what counts: a
//! test that says a credential is dead looks here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use leasehold::core::acl::permit::Permit;
use leasehold::core::engine::{
    Engine, EngineContext, EngineRequest, IssueError, LeaseFacts, LeasePlan, Outcome,
};
use leasehold::core::error::CoreError;
use leasehold::core::mount::Registry;
use leasehold::core::operation::Operation;
use leasehold::core::route::{RouteSpec, route};
use leasehold::types::time::{Timestamp, Ttl};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::gate::Gate;

/// The engine's name in the registry.
pub const KIND: &str = "test-target";

/// What a target does when it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// What it is asked for.
    Up,
    /// Nothing: it cannot be reached.
    Down,
    /// Nothing: it cannot be reached, and whoever issues knows that it never was.
    Unreachable,
    /// Nothing, and it says so.
    Refusing,
    /// It creates what it is asked for and then says that it failed.
    FailingAfter,
    /// It does not answer until its mood changes.
    Hanging,
    /// It takes the whole process with it.
    Panicking,
    /// It is not asked: the broker itself has no room.
    Unasked,
}

/// A credential that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credential {
    /// When the target itself would end it.
    pub expires_at: Timestamp,
}

/// All targets of the engine.
pub struct Targets {
    moods: watch::Sender<BTreeMap<String, Mood>>,
    live: Mutex<BTreeMap<String, Credential>>,
    revoked: Mutex<BTreeMap<String, usize>>,
    issues: AtomicUsize,
    tries: Mutex<BTreeMap<String, usize>>,
    underway: AtomicUsize,
    most_underway: AtomicUsize,
    ticks: Mutex<Vec<Timestamp>>,
    next_tick: Mutex<Option<Ttl>>,
    gate: Mutex<Option<Arc<Gate>>>,
}

impl Targets {
    /// None with anything on it, all up.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            moods: watch::Sender::default(),
            live: Mutex::default(),
            revoked: Mutex::default(),
            issues: AtomicUsize::new(0),
            tries: Mutex::default(),
            underway: AtomicUsize::new(0),
            most_underway: AtomicUsize::new(0),
            ticks: Mutex::default(),
            next_tick: Mutex::default(),
            gate: Mutex::default(),
        })
    }

    /// Everything that targets do passes this gate before it is done and after.
    pub fn pass(&self, gate: Arc<Gate>) {
        *self.gate.lock().unwrap() = Some(gate);
    }

    async fn at_gate(&self, what: &str) {
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.pass(what).await;
        }
    }

    /// A registry with the engine over these targets.
    pub fn registry(self: &Arc<Self>) -> Registry {
        let targets = self.clone();
        let mut registry = Registry::default();
        registry
            .engines
            .insert(KIND, Box::new(move |_| Ok(Arc::new(TargetEngine(targets.clone())))));
        registry.engines.insert("cubbyhole", Box::new(leasehold::engines::cubbyhole::build));
        registry
    }

    /// Changes what `target` does; those that hang go on.
    pub fn set(&self, target: &str, mood: Mood) {
        self.moods.send_modify(|moods| {
            moods.insert(target.to_owned(), mood);
        });
    }

    /// Changes what `target` does if it does `from`.
    pub fn replace(&self, target: &str, from: Mood, to: Mood) {
        if self.mood(target) == from {
            self.set(target, to);
        }
    }

    fn mood(&self, target: &str) -> Mood {
        self.moods.borrow().get(target).copied().unwrap_or(Mood::Up)
    }

    /// Makes a credential that nobody asked for.
    pub fn plant(&self, name: &str, expires_at: Timestamp) {
        self.live.lock().unwrap().insert(name.to_owned(), Credential { expires_at });
    }

    /// Makes all credentials disappear.
    pub fn lose(&self) {
        self.live.lock().unwrap().clear();
    }

    /// The names of the credentials that exist.
    pub fn live(&self) -> BTreeSet<String> {
        self.live.lock().unwrap().keys().cloned().collect()
    }

    /// One credential.
    pub fn credential(&self, name: &str) -> Option<Credential> {
        self.live.lock().unwrap().get(name).copied()
    }

    /// How often each name was revoked with success.
    pub fn revoked(&self) -> BTreeMap<String, usize> {
        self.revoked.lock().unwrap().clone()
    }

    /// How often a credential was asked for.
    pub fn issues(&self) -> usize {
        self.issues.load(Ordering::SeqCst)
    }

    /// How often `target` was asked to revoke something.
    pub fn tries(&self, target: &str) -> usize {
        self.tries.lock().unwrap().get(target).copied().unwrap_or_default()
    }

    /// Most revocations that were under way at once.
    pub fn most_underway(&self) -> usize {
        self.most_underway.load(Ordering::SeqCst)
    }

    /// Completes once `count` revocations wait on hanging targets.
    pub async fn until_hanging(&self, count: usize) {
        while self.underway.load(Ordering::SeqCst) < count {
            tokio::task::yield_now().await;
        }
    }

    /// What the engine answers to ticks: how long until the next.
    pub fn tick_every(&self, every: Option<Ttl>) {
        *self.next_tick.lock().unwrap() = every;
    }

    /// When it was ticked.
    pub fn ticks(&self) -> Vec<Timestamp> {
        self.ticks.lock().unwrap().clone()
    }

    async fn asked(&self, target: &str) -> Result<Mood, CoreError> {
        self.at_gate(target).await;
        let mut moods = self.moods.subscribe();
        let mood = |moods: &BTreeMap<String, Mood>| moods.get(target).copied();
        let _ = moods.wait_for(|moods| mood(moods) != Some(Mood::Hanging)).await;
        match self.mood(target) {
            Mood::Down | Mood::Unreachable => Err(down(target)),
            Mood::Refusing => Err(CoreError::invalid("the target refuses")),
            Mood::Unasked => Err(CoreError::Overloaded { retry_after: Ttl::from_secs(1) }),
            Mood::Panicking => panic!("a target that cannot be borne"),
            mood @ (Mood::Up | Mood::FailingAfter | Mood::Hanging) => Ok(mood),
        }
    }
}

/// A plan for a credential called `name`, on `target`.
pub fn plan(target: &str, name: &str, ttl: Ttl) -> LeasePlan {
    LeasePlan {
        ttl,
        max_ttl: Ttl::ZERO,
        renewable: true,
        role: "role".into(),
        target: target.into(),
        data: json!({ "target": target, "name": name }),
    }
}

struct TargetEngine(Arc<Targets>);

fn parts<'a>(lease: &LeaseFacts<'a>) -> (&'a str, &'a str) {
    (lease.data["target"].as_str().unwrap(), lease.data["name"].as_str().unwrap())
}

fn down(target: &str) -> CoreError {
    CoreError::Upstream { target: target.to_owned(), message: "connection refused".into() }
}

struct Underway<'a>(&'a Targets);

impl<'a> Underway<'a> {
    fn begin(targets: &'a Targets) -> Self {
        let now = targets.underway.fetch_add(1, Ordering::SeqCst) + 1;
        targets.most_underway.fetch_max(now, Ordering::SeqCst);
        Self(targets)
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.0.underway.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Engine for TargetEngine {
    fn routes(&self) -> &'static [RouteSpec] {
        const ROUTES: &[RouteSpec] =
            &[route("creds", "creds/*name", "A credential.", &[Operation::Read], &[])];
        ROUTES
    }

    async fn handle(
        &self,
        _ctx: &EngineContext<'_>,
        _permit: &Permit,
        request: EngineRequest<'_>,
    ) -> Result<Outcome, CoreError> {
        Ok(Outcome::Issue(plan("pg", request.params.get("name"), Ttl::from_secs(3600))))
    }

    async fn issue(
        &self,
        _ctx: &EngineContext<'_>,
        lease: LeaseFacts<'_>,
    ) -> Result<Map<String, Value>, IssueError> {
        let (target, name) = parts(&lease);
        if self.0.mood(target) == Mood::Unreachable {
            return Err(IssueError::NotBegun(down(target)));
        }
        self.0.issues.fetch_add(1, Ordering::SeqCst);
        let mood = {
            let _underway = Underway::begin(&self.0);
            self.0.asked(target).await?
        };
        let made = Credential { expires_at: lease.expires_at };
        let before = self.0.live.lock().unwrap().insert(name.to_owned(), made);
        assert_eq!(before, None, "{name} was made twice");
        self.0.at_gate(name).await;
        if mood == Mood::FailingAfter {
            let message = "the connection was lost".into();
            return Err(CoreError::Upstream { target: target.to_owned(), message }.into());
        }
        let secret = Value::String(format!("secret of {name}"));
        Ok(Map::from_iter([("password".to_owned(), secret)]))
    }

    async fn renew(
        &self,
        _ctx: &EngineContext<'_>,
        lease: LeaseFacts<'_>,
    ) -> Result<(), CoreError> {
        let (target, name) = parts(&lease);
        self.0.asked(target).await?;
        match self.0.live.lock().unwrap().get_mut(name) {
            Some(credential) => credential.expires_at = lease.expires_at,
            None => return Err(CoreError::invalid("there is no such user")),
        }
        self.0.at_gate(name).await;
        Ok(())
    }

    async fn revoke(
        &self,
        _ctx: &EngineContext<'_>,
        lease: LeaseFacts<'_>,
    ) -> Result<(), CoreError> {
        let (target, name) = parts(&lease);
        *self.0.tries.lock().unwrap().entry(target.to_owned()).or_default() += 1;
        let _underway = Underway::begin(&self.0);
        self.0.asked(target).await?;
        self.0.live.lock().unwrap().remove(name);
        self.0.at_gate(name).await;
        *self.0.revoked.lock().unwrap().entry(name.to_owned()).or_default() += 1;
        Ok(())
    }

    async fn tick(&self, ctx: &EngineContext<'_>) -> Result<Option<Timestamp>, CoreError> {
        let now = ctx.clock.now();
        self.0.ticks.lock().unwrap().push(now);
        self.0.asked("ticks").await?;
        Ok(self.0.next_tick.lock().unwrap().map(|every| now.plus(every)))
    }
}
