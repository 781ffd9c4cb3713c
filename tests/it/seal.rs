//! The seal, over real stores and a real audit: ceremonies, faults, rotation, and the witness.

mod administration;
mod ceremonies;
mod day;
#[cfg(feature = "failpoints")]
mod faults;
mod growth;
mod held;
mod memory;
#[cfg(feature = "failpoints")]
mod panics;
mod rotation;
mod witness;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use leasehold::core::audit::broker::AuditBroker;
use leasehold::core::context::{Core, CoreSettings, Parts, Unsealed};
use leasehold::core::engine::Engine;
use leasehold::core::error::CoreError;
use leasehold::core::fields::Fields;
use leasehold::core::lease::LeaseSettings;
use leasehold::core::mount::Registry;
use leasehold::core::peer::ConnectionInfo;
use leasehold::core::records::{Precondition, kinds};
use leasehold::core::request::Verb;
use leasehold::core::seal::{SealSlot, SealState, endpoints, is_initialized};
use leasehold::core::trust::TrustStore;
use leasehold::core::view::View;
use leasehold::engines::{self, database::DatabaseEngine};
use leasehold::storage::Storage;
use leasehold::storage::open::{StorageSpec, open};
use leasehold::types::id::{NamespaceId, RequestId};
use leasehold::types::path::ApiPath;
use leasehold::types::secret::SecretString;
use leasehold::types::time::{ManualClock, Timestamp, Ttl};
use serde_json::{Value, json};

use crate::support::postgres::TestPostgres;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const HOUR: Ttl = Ttl::from_secs(3600);

/// One server process, as far as the seal is concerned.
struct Node {
    core: Arc<Core>,
    clock: Arc<ManualClock>,
}

impl Node {
    async fn new(storage: Arc<dyn Storage>) -> Self {
        let clock = Arc::new(ManualClock::new(NOW));
        let audit = AuditBroker::unaudited(clock.clone());
        Self::with(storage, clock, audit, Vec::new()).await
    }

    async fn with(
        storage: Arc<dyn Storage>,
        clock: Arc<ManualClock>,
        audit: AuditBroker,
        slots: Vec<Arc<dyn SealSlot>>,
    ) -> Self {
        Self::named("host", storage, clock, audit, slots).await
    }

    async fn named(
        name: &str,
        storage: Arc<dyn Storage>,
        clock: Arc<ManualClock>,
        audit: AuditBroker,
        slots: Vec<Arc<dyn SealSlot>>,
    ) -> Self {
        let initialized = is_initialized(storage.as_ref()).await.unwrap();
        let mut registry = Registry::default();
        registry.engines.insert("cubbyhole", Box::new(engines::cubbyhole::build));
        let database = |_: &_| Ok(Arc::new(DatabaseEngine::new()) as Arc<dyn Engine>);
        registry.engines.insert("database", Box::new(database));
        let parts = Parts {
            storage,
            clock: clock.clone(),
            registry,
            audit,
            trust: Arc::new(TrustStore::new()),
            seal: SealState::new(slots, name),
            settings: CoreSettings {
                cluster_name: "test".into(),
                default_ttl: HOUR,
                max_ttl: HOUR,
                leases: LeaseSettings::default(),
                cache_bytes: 1 << 20,
                clock_jump_max: HOUR,
                trust_clock: false,
            },
            node: 1,
        };
        Self { core: Core::new(parts, initialized), clock }
    }

    fn unsealed(&self) -> Arc<Unsealed> {
        self.core.unsealed().unwrap()
    }

    /// Records that stand for whatever engines keep.
    fn view(&self) -> View {
        let records = self.unsealed().records.clone();
        View::new(records, NamespaceId::ROOT, kinds::MOUNT_DATA, "m/".into())
    }

    async fn write(&self, numbers: std::ops::Range<u32>) {
        for n in numbers {
            let name = format!("r{n}");
            self.view().write(&name, &format!("value {n}"), Precondition::Any).await.unwrap();
        }
    }

    async fn assert_readable(&self, numbers: std::ops::Range<u32>) {
        for n in numbers {
            let found = self.view().get_fresh::<String>(&format!("r{n}")).await.unwrap();
            assert_eq!(found.unwrap().value, format!("value {n}"));
        }
    }

    /// A request without a token, each time on the same connection.
    async fn call(&self, verb: Verb, path: &str, body: Value) -> Result<(u16, Value), CoreError> {
        self.call_as(1, None, verb, path, body).await
    }

    async fn call_as(
        &self,
        connection: u64,
        token: Option<&str>,
        verb: Verb,
        path: &str,
        body: Value,
    ) -> Result<(u16, Value), CoreError> {
        self.call_from([127, 0, 0, 1], connection, token, verb, path, body).await
    }

    async fn call_from(
        &self,
        address: [u8; 4],
        connection: u64,
        token: Option<&str>,
        verb: Verb,
        path: &str,
        body: Value,
    ) -> Result<(u16, Value), CoreError> {
        let path = ApiPath::parse(path).unwrap();
        let endpoint = endpoints::find(verb, &path).expect("a path of the seal");
        let fields = Fields::new(body.as_object().unwrap().clone());
        let connection = ConnectionInfo {
            peer: None,
            remote: SocketAddr::from((address, 4)),
            listener: "test".into(),
            id: connection,
        };
        let token = token.map(|token| SecretString::new(token.to_owned()));
        let id = RequestId::random().unwrap();
        endpoints::serve(&self.core, endpoint, fields, &connection, &id, token).await
    }

    async fn ok(&self, verb: Verb, path: &str, body: Value) -> Value {
        let (status, body) = self.call(verb, path, body).await.unwrap();
        assert!((200..300).contains(&status), "{path}: {status}");
        body
    }

    async fn init(&self, shares: u8, threshold: u8) -> Keys {
        let body = json!({"secret_shares": shares, "secret_threshold": threshold});
        let made = self.ok(Verb::Write, "sys/init", body).await;
        Keys::of(&made, threshold)
    }

    /// Gives shares until the server is unsealed.
    async fn unseal(&self, keys: &Keys) -> Result<(), CoreError> {
        for key in keys.enough() {
            self.call(Verb::Write, "sys/unseal", json!({"key": key})).await?;
        }
        assert!(self.core.unsealed().is_ok(), "enough shares were given");
        Ok(())
    }

    /// Whether these shares open the store, tried on a fresh process.
    async fn opens(storage: &Arc<dyn Storage>, keys: &Keys) -> bool {
        let node = Self::new(storage.clone()).await;
        for key in keys.enough() {
            let _ = node.call(Verb::Write, "sys/unseal", json!({"key": key})).await;
        }
        node.core.unsealed().is_ok()
    }

    async fn rekey(&self, old: &Keys, shares: u8, threshold: u8, verify: bool) -> (Keys, Value) {
        let plan = json!({
            "secret_shares": shares, "secret_threshold": threshold, "require_verification": verify,
        });
        let started = self.ok(Verb::Write, "sys/rekey/init", plan).await;
        let mut last = Value::Null;
        for key in old.enough() {
            let share = json!({"key": key, "nonce": started["nonce"]});
            last = self.ok(Verb::Write, "sys/rekey/update", share).await;
        }
        assert_eq!(last["complete"], json!(true));
        (Keys::of(&last, threshold), last)
    }

    async fn is_root(&self, token: &str) -> bool {
        let found = self.unsealed().tokens.lookup(token).await.unwrap();
        found.is_some_and(|token| token.entry.is_root())
    }
}

/// What initialising or a rekey answered.
struct Keys {
    hex: Vec<String>,
    base64: Vec<String>,
    threshold: usize,
    root_token: Option<String>,
}

impl Keys {
    fn of(body: &Value, threshold: u8) -> Self {
        let list =
            |name: &str| -> Vec<String> { serde_json::from_value(body[name].clone()).unwrap() };
        Self {
            hex: list("keys"),
            base64: list("keys_base64"),
            threshold: usize::from(threshold),
            root_token: body["root_token"].as_str().map(str::to_owned),
        }
    }

    fn enough(&self) -> &[String] {
        &self.hex[..self.threshold]
    }
}

async fn sqlite(directory: &Path) -> Arc<dyn Storage> {
    let path = directory.join("store/leasehold.db");
    open(&StorageSpec::Sqlite { path, often_absent: None }).await.unwrap()
}

/// A node's own connection to a PostgreSQL database that several share.
async fn postgres(url: &str) -> Arc<dyn Storage> {
    let url = SecretString::new(url.to_owned());
    let spec = StorageSpec::Postgres { url, ca_file: None, max_connections: 4 };
    open(&spec).await.unwrap()
}

fn postgres_url() -> String {
    TestPostgres::shared().database()
}

fn status(result: Result<(u16, Value), CoreError>) -> u16 {
    match result {
        Ok((status, _)) => status,
        Err(error) => error.status(),
    }
}
