//! A store with a million of something, fast: one secret and one lease are made by the broker itself,
//! and then put under other names through the same records, seals, labels and commits, a thousand in
//! each. The broker is stopped meanwhile.

use std::sync::Arc;

use leasehold::core::lease::Lease;
use leasehold::core::records::{Batch, Precondition, Record, kinds};
use leasehold::core::trust::TrustStore;
use leasehold::core::view::{PutOptions, View};
use leasehold::server::config::Auth;
use leasehold::server::run::{Network, registry};
use leasehold::storage::Storage;
use leasehold::storage::sqlite::{SqliteOptions, SqliteStorage};
use leasehold::types::id::{LeaseId, NamespaceId, random_base62};
use leasehold::types::secret::SecretBytes;
use leasehold::types::time::{Clock, ManualClock, SystemClock, Timestamp, Ttl};
use serde_json::json;

use super::support::broker::Broker;
use super::support::core::{TestCore, TestSetup};

const BATCH: usize = 1000;
const DAY: Ttl = Ttl::from_secs(86_400);

/// A stopped broker's store, open in this process.
pub struct Fill {
    core: TestCore,
    storage: Arc<dyn Storage>,
}

impl Fill {
    /// Opens the store of a broker that has `secret/bench` and does not run.
    pub async fn open(broker: &Broker) -> Self {
        let path = broker.data_dir().join("leasehold.db");
        let storage: Arc<dyn Storage> =
            SqliteStorage::open(&path, SqliteOptions::default()).unwrap();
        let trust = Arc::new(TrustStore::new());
        let mut setup = TestSetup::new();
        setup.clock = Arc::new(ManualClock::new(SystemClock.now()));
        setup.registry = registry(&trust, Network::new(&Auth::default()).unwrap());
        setup.trust = trust;
        let core = TestCore::join(storage.clone(), setup, &broker.keys()[0]).await;
        Self { core, storage }
    }

    /// Gives the file back.
    pub async fn close(self) {
        let Self { core, storage } = self;
        let sealing = core.core.clone();
        // Sealing waits for everybody who uses the keys.
        drop(core);
        sealing.seal().await;
        drop(sealing);
        storage.close().await;
    }

    /// `secret/bench` as `secret/PREFIX0/0` and on, a thousand in each directory.
    pub async fn secrets(self, prefix: &str, count: usize) -> Self {
        let mounted = self.core.unsealed.mounts.at("secret/").unwrap();
        let view = mounted.context().view.clone();
        let metadata = record(&view, "meta/bench").await;
        let contents = record(&view, "ver/1:bench").await;
        for shelf in 0..count.div_ceil(BATCH) {
            let mut batch = Batch::new();
            for number in 0..BATCH.min(count - shelf * BATCH) {
                let path = format!("{prefix}{shelf}/{number}");
                put(&view, &mut batch, &format!("meta/{path}"), &metadata);
                let name = format!("ver/1:{}", path.replace('/', "\u{1f}"));
                put(&view, &mut batch, &name, &contents);
            }
            view.commit(&batch).await.unwrap();
        }
        self
    }

    /// The lease `like`, `count` times more, due at `due`: of the same role and for the same identity.
    pub async fn leases(self, like: &str, count: usize, due: Timestamp) -> Self {
        let view = self.lease_view();
        let template = view.get::<Lease>(like).await.unwrap().expect("the lease is there").value;
        let entity = template.entity.clone().expect("it was asked for by an identity");
        let labels = vec![
            format!("entity:{entity}"),
            format!("role:{}/{}", template.mount, template.role),
            format!("mount:{}", template.mount),
        ];
        for group in 0..count.div_ceil(BATCH) {
            let mut batch = Batch::new();
            for _ in 0..BATCH.min(count - group * BATCH) {
                let mut lease = template.clone();
                let random = random_base62(24).unwrap();
                let id = format!("{}/{random}", lease.path);
                lease.id = LeaseId::new(id.clone());
                lease.expires_at = due;
                lease.max_expires_at = due.plus(DAY);
                lease.data["username"] = json!(format!("v-filled-{random}"));
                let options = PutOptions { due_at: Some(due), labels: labels.clone() };
                view.put(&mut batch, &id, &lease, Precondition::Absent, options).unwrap();
            }
            view.commit(&batch).await.unwrap();
        }
        self
    }

    fn lease_view(&self) -> View {
        let records = self.core.unsealed.records.clone();
        View::new(records, NamespaceId::ROOT, kinds::LEASE, String::new())
    }
}

async fn record(view: &View, name: &str) -> Record {
    view.get_record(name).await.unwrap().unwrap_or_else(|| panic!("there is no {name}"))
}

fn put(view: &View, batch: &mut Batch, name: &str, like: &Record) {
    let body = SecretBytes::copy_of(like.body.expose());
    batch.put(view.full_name(name), Precondition::Absent, body, None, Vec::new());
}
