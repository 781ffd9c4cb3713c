//! The engines that store what callers give them, behind their port and over a real store.

mod cubbyhole;
#[cfg(feature = "failpoints")]
mod fault;
mod model;
mod nodes;
mod plain;
mod versioned;

use std::sync::Arc;
use std::time::Duration;

use leasehold::core::acl::{Acl, CheckRequest, CompiledPolicy};
use leasehold::core::engine::{
    CallerFacts, Engine, EngineContext, EngineRequest, MountFacts, Outcome,
};
use leasehold::core::error::CoreError;
use leasehold::core::fields::Fields;
use leasehold::core::hold::HoldCell;
use leasehold::core::operation::Operation;
use leasehold::core::policy::template::TemplateValues;
use leasehold::core::records::{Records, kinds};
use leasehold::core::reply::{Reply, Status};
use leasehold::core::route;
use leasehold::core::view::View;
use leasehold::crypto::aead::Suite;
use leasehold::crypto::keyring::Keyring;
use leasehold::engines::kv;
use leasehold::storage::Storage;
use leasehold::storage::sqlite::{SqliteOptions, SqliteStorage};
use leasehold::types::id::{MountAccessor, NamespaceId};
use leasehold::types::path::ApiPath;
use leasehold::types::time::{Clock, ManualClock, Timestamp, Ttl};
use serde_json::{Value, json};

const START: &str = "2026-01-01T00:00:00Z";

/// A store, and the keys to it.
struct Store {
    storage: Arc<dyn Storage>,
    keyring: Arc<Keyring>,
    clock: Arc<ManualClock>,
    _directory: Option<tempfile::TempDir>,
}

impl Store {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let storage = SqliteStorage::open(&path, SqliteOptions::default()).unwrap();
        Self::over(storage, Some(directory))
    }

    fn over(storage: Arc<dyn Storage>, directory: Option<tempfile::TempDir>) -> Self {
        let start = Timestamp::from_secs(1_767_225_600);
        assert_eq!(start.to_rfc3339(), START);
        let keyring = Keyring::generate(Suite::ChaCha20Poly1305, start).unwrap();
        Self {
            storage,
            keyring: Arc::new(keyring),
            clock: Arc::new(ManualClock::new(start)),
            _directory: directory,
        }
    }

    fn advance(&self, secs: u64) {
        self.clock.advance(Duration::from_secs(secs));
    }

    /// Everything that is stored, directories included.
    async fn rows(&self) -> u64 {
        self.storage.count(kinds::MOUNT_DATA, Timestamp::MAX).await.unwrap().total
    }

    /// The mount as one node sees it: with an engine and a cache of its own.
    fn mount(&self, engine: &str, options: &[(&str, &str)]) -> Mount {
        let facts = MountFacts {
            path: "m/".into(),
            accessor: MountAccessor::new("m_00000000"),
            options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            default_ttl: Ttl::from_secs(2_764_800),
            max_ttl: Ttl::from_secs(2_764_800),
        };
        let engine = match engine {
            "cubbyhole" => leasehold::engines::cubbyhole::build(&facts).unwrap(),
            _ => kv::build(&facts).unwrap(),
        };
        let records = Records::new(self.storage.clone(), self.keyring.clone(), 1 << 20);
        let base = "mount-uuid/".to_owned();
        let view = View::new(Arc::new(records), NamespaceId::ROOT, kinds::MOUNT_DATA, base);
        Mount { engine, facts, view, clock: self.clock.clone(), hold: HoldCell::default() }
    }

    fn plain(&self) -> Mount {
        self.mount("kv", &[])
    }

    fn versioned(&self) -> Mount {
        self.mount("kv", &[("version", "2")])
    }
}

/// A mount on one node.
struct Mount {
    engine: Arc<dyn Engine>,
    facts: MountFacts,
    view: View,
    clock: Arc<dyn Clock>,
    hold: HoldCell,
}

impl Mount {
    fn ctx(&self) -> EngineContext<'_> {
        EngineContext { mount: &self.facts, view: &self.view, clock: &self.clock, hold: &self.hold }
    }

    async fn call_as(
        &self,
        caller: &CallerFacts,
        operation: Operation,
        path: &str,
        body: Value,
    ) -> Result<Reply, CoreError> {
        let (route, params) = route::find(self.engine.routes(), path).ok_or(CoreError::NotFound)?;
        if !route.serves(operation) {
            return Err(CoreError::Unsupported);
        }
        let full = ApiPath::parse(&format!("m/{path}")).unwrap();
        let acl = Acl::new(vec![CompiledPolicy::root()], &TemplateValues::default());
        let permit = acl.authorize(&CheckRequest::new(&full, operation)).unwrap();
        let fields = body.as_object().cloned().unwrap_or_default();
        let unknown: Vec<_> = fields.keys().filter(|name| !route.knows_field(name)).collect();
        assert!(unknown.is_empty(), "the table does not know {unknown:?}");
        let request = EngineRequest {
            operation,
            route,
            params,
            fields: Fields::new(fields),
            merge_patch: operation == Operation::Patch,
            caller,
        };
        match self.engine.handle(&self.ctx(), &permit, request).await? {
            Outcome::Respond(reply) => Ok(reply),
            Outcome::Issue(_) => panic!("{path} issues a lease"),
        }
    }

    async fn call(
        &self,
        operation: Operation,
        path: &str,
        body: Value,
    ) -> Result<Reply, CoreError> {
        self.call_as(&CallerFacts::default(), operation, path, body).await
    }

    async fn get(&self, path: &str) -> Result<Reply, CoreError> {
        self.call(Operation::Read, path, Value::Null).await
    }

    async fn put(&self, path: &str, body: Value) -> Result<Reply, CoreError> {
        self.call(Operation::Update, path, body).await
    }

    async fn patch(&self, path: &str, body: Value) -> Result<Reply, CoreError> {
        self.call(Operation::Patch, path, body).await
    }

    async fn delete(&self, path: &str) -> Result<Reply, CoreError> {
        self.call(Operation::Delete, path, Value::Null).await
    }

    async fn list(&self, path: &str) -> Result<Value, CoreError> {
        let reply = self.call(Operation::List, path, Value::Null).await?;
        Ok(reply.data.unwrap()["keys"].clone())
    }

    /// The data of a read that succeeds.
    async fn read(&self, path: &str) -> Value {
        let reply = self.get(path).await.unwrap();
        assert_eq!(reply.status, Status::Ok);
        Value::Object(reply.data.unwrap())
    }

    /// The data of a read of something that is gone.
    async fn read_gone(&self, path: &str, body: Value) -> Value {
        let reply = self.call(Operation::Read, path, body).await.unwrap();
        assert_eq!(reply.status, Status::Gone);
        assert_eq!(reply.http_status(), 404);
        Value::Object(reply.data.unwrap())
    }

    /// Version `version` of a secret that can be read.
    async fn read_version(&self, path: &str, version: u64) -> Value {
        let body = json!({ "version": version });
        let reply = self.call(Operation::Read, &format!("data/{path}"), body).await.unwrap();
        assert_eq!(reply.status, Status::Ok);
        reply.data.unwrap()["data"].clone()
    }

    async fn exists(&self, path: &str) -> Option<bool> {
        let (route, params) = route::find(self.engine.routes(), path).unwrap();
        self.engine.exists(&self.ctx(), route, &params).await.unwrap()
    }

    /// The versions whose contents are stored, over all secrets.
    async fn contents(&self) -> usize {
        self.view.list("ver/").await.unwrap().len()
    }
}

fn data_of(reply: Reply) -> Value {
    assert_eq!(reply.status, Status::Ok);
    Value::Object(reply.data.unwrap())
}

fn assert_done(reply: Result<Reply, CoreError>) {
    assert_eq!(reply.unwrap().http_status(), 204);
}

/// The status and public text of a refusal.
fn refusal(reply: Result<Reply, CoreError>) -> (u16, String) {
    let error = reply.expect_err("accepted");
    (error.status(), error.public_text())
}

fn assert_not_found(reply: Result<Reply, CoreError>) {
    assert_eq!(refusal(reply).0, 404);
}

/// A field is refused, by its name and without its value.
fn assert_bad_field(reply: Result<Reply, CoreError>, field: &str) {
    let (status, text) = refusal(reply);
    assert_eq!(status, 400);
    assert!(text.contains(field) && !text.contains("hunter2"), "{text}");
}
