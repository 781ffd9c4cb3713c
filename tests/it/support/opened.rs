//! A store as it opens to whoever has a copy of it and enough shares. Put together here from the
//! library's parts, not by a server.

use std::sync::Arc;

use data_encoding::{BASE64, HEXLOWER};
use leasehold::core::records::Records;
use leasehold::core::view::View;
use leasehold::crypto::keyring::Keyring;
use leasehold::crypto::root::{RootKey, unwrap_root};
use leasehold::crypto::shamir;
use leasehold::storage::open::{StorageSpec, open};
use leasehold::storage::{Kind, Storage};
use leasehold::types::id::NamespaceId;
use leasehold::types::secret::{SecretBytes, SecretString};
use serde_json::Value;

use super::broker::Broker;

/// The keys of a store, and its records.
pub struct Opened {
    /// The shares, decoded.
    pub shares: Vec<SecretBytes>,
    /// What the shares make.
    pub unseal_key: SecretBytes,
    /// What that opens.
    pub root: RootKey,
    /// What that opens.
    pub keyring: Arc<Keyring>,
    records: Arc<Records>,
    _copy: tempfile::TempDir,
}

impl Opened {
    /// Opens a copy of the broker's store, as it is now. The broker has one slot, for shares.
    pub async fn of(broker: &Broker) -> Self {
        let copy = tempfile::tempdir().unwrap();
        let storage = storage(broker, copy.path()).await;
        let shares: Vec<_> = broker
            .keys()
            .iter()
            .map(|key| SecretBytes::new(HEXLOWER.decode(key.as_bytes()).unwrap()))
            .collect();
        let threshold = broker.setup().shares.1;
        let unseal_key = shamir::combine(&shares[..usize::from(threshold)], threshold).unwrap();

        let (seal, keyring) =
            (meta(storage.as_ref(), "seal").await, meta(storage.as_ref(), "keyring").await);
        let slot = &seal["slots"][0];
        let mut context = Vec::new();
        for text in [&slot["kind"], &slot["id"], &seal["cluster_id"]] {
            let text = text.as_str().unwrap();
            context.extend_from_slice(&(text.len() as u64).to_be_bytes());
            context.extend_from_slice(text.as_bytes());
        }
        let number = |value: &Value| u8::try_from(value.as_u64().unwrap()).unwrap();
        context.extend_from_slice(&[number(&slot["shares"]), number(&slot["threshold"])]);
        let decoded = |value: &Value| BASE64.decode(value.as_str().unwrap().as_bytes()).unwrap();
        let root = {
            let key = unseal_key.expose().try_into().unwrap();
            unwrap_root(key, &decoded(&slot["wrapped"]), &context).unwrap()
        };
        let generation = keyring["generation"].as_u64().unwrap();
        let keyring = Keyring::open_under(&root, generation, &decoded(&keyring["sealed"])).unwrap();
        let keyring = Arc::new(keyring);
        let records = Arc::new(Records::new(storage, keyring.clone(), 1 << 20));
        Self { shares, unseal_key, root, keyring, records, _copy: copy }
    }

    /// One record; `base` is what the names of its part of the store begin with.
    pub async fn record(&self, kind: Kind, base: &str, name: &str) -> Value {
        let view = View::new(self.records.clone(), NamespaceId::ROOT, kind, base.to_owned());
        let found = view.get::<Value>(name).await.unwrap();
        found.unwrap_or_else(|| panic!("there is no {base}{name}")).value
    }
}

/// The store itself where nodes share it, a consistent copy of it in `directory` where it is a file.
async fn storage(broker: &Broker, directory: &std::path::Path) -> Arc<dyn Storage> {
    let spec = match &broker.setup().postgres {
        Some(url) => {
            let url = SecretString::new(url.clone());
            StorageSpec::Postgres { url, ca_file: None, max_connections: 2 }
        }
        None => {
            let path = directory.join("leasehold.db");
            let file = broker.data_dir().join("leasehold.db");
            let store = rusqlite::Connection::open(file).unwrap();
            store.execute("VACUUM INTO ?1", [path.to_str().unwrap()]).unwrap();
            StorageSpec::Sqlite { path, often_absent: None }
        }
    };
    open(&spec).await.unwrap()
}

async fn meta(storage: &dyn Storage, name: &'static str) -> Value {
    serde_json::from_slice(&storage.meta(name).await.unwrap().unwrap()).unwrap()
}
