//! Cryptography as a service: keys that stay here, and what is done with them for others.
//!
//! | path | what |
//! |---|---|
//! | `keys/:name` | a key: `config`, `rotate`, `trim`, `import`, `import_version`, `soft-delete` below it |
//! | `config/keys` | whether encrypting makes a key that is not there |
//! | `encrypt`, `decrypt`, `rewrap` | messages, one or many at a time |
//! | `datakey/plaintext`, `datakey/wrapped` | random keys for others to encrypt with |
//! | `sign`, `verify`, `hmac` | signatures and HMACs |
//! | `export`, `backup`, `restore` | keys that leave, where that is allowed, and come back |
//! | `wrapping_key` | what keys are wrapped under that are brought in |
//! | `random`, `hash` | as `sys/tools` |
//!
//! A key has versions. The newest encrypts and signs; older ones decrypt and verify for as long as
//! the key allows. What is encrypted, signed or authenticated says by which version, in the prefix
//! that stock clients know. Nothing is leased.
//!
//! How often a key may encrypt is metered in [`meter`]; how keys are kept ready is said in [`ring`].

mod batch;
mod encrypt;
mod export;
mod foreign;
mod import;
mod keys;
mod kind;
mod meter;
mod record;
mod ring;
mod routes;
mod schedule;
mod settings;
mod sign;
mod stored;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use self::meter::Meter;
use self::ring::Ring;
use crate::core::acl::permit::Permit;
use crate::core::engine::{Engine, EngineContext, EngineRequest, Outcome};
use crate::core::error::CoreError;
use crate::core::operation::Operation;
use crate::core::route::{Params, RouteSpec};
use crate::core::tools;
use crate::core::work::WorkQueue;
use crate::crypto::message::RANDOM_NONCES_MAX;
use crate::types::time::Timestamp;

/// Most long work that waits for its turn, or runs.
const WAITING_MAX: usize = 256;

/// The long work of a server, for all its mounts: as much at once as there are processors.
pub fn work_queue() -> WorkQueue {
    WorkQueue::per_processor(usize::MAX, WAITING_MAX)
}

/// The engine of one mount.
pub struct TransitEngine {
    ring: Ring,
    meter: Meter,
    work: Arc<WorkQueue>,
    /// Most messages that a version encrypts under random nonces, where the cipher has a limit.
    messages_max: u64,
    /// When the scheduled work has to look at the store again.
    next_look: Mutex<Option<Timestamp>>,
}

impl TransitEngine {
    /// An engine without keys in memory. `work` is shared by all mounts of a server.
    pub fn new(work: Arc<WorkQueue>) -> Self {
        Self::metered(work, meter::ALLOWANCE, RANDOM_NONCES_MAX)
    }

    fn metered(work: Arc<WorkQueue>, allowance: u64, messages_max: u64) -> Self {
        Self {
            ring: Ring::default(),
            meter: Meter::new(allowance),
            work,
            messages_max,
            next_look: Mutex::default(),
        }
    }
}

fn no_such_key() -> CoreError {
    CoreError::invalid("there is no key of that name")
}

#[async_trait]
impl Engine for TransitEngine {
    fn routes(&self) -> &'static [RouteSpec] {
        routes::ROUTES
    }

    async fn exists(
        &self,
        ctx: &EngineContext<'_>,
        route: &'static RouteSpec,
        params: &Params<'_>,
    ) -> Result<Option<bool>, CoreError> {
        // Only encryption makes a key by the way, and stock policies grant the two apart only there.
        if route.name != routes::ENCRYPT {
            return Ok(None);
        }
        match self.ring.key(ctx, params.get("name")).await {
            Ok(key) => Ok(Some(key.is_some())),
            // No name of a key: refused by whoever serves the request.
            Err(CoreError::Field(_)) => Ok(Some(false)),
            Err(error) => Err(error),
        }
    }

    async fn handle(
        &self,
        ctx: &EngineContext<'_>,
        _permit: &Permit,
        request: EngineRequest<'_>,
    ) -> Result<Outcome, CoreError> {
        use Operation::{Create, Delete, List, Read, Update};
        let params = request.params.clone();
        let (name, hash) = (params.get("name"), params.get("urlalgorithm"));
        let reply = match (request.route.name, request.operation) {
            (routes::ENCRYPT, Create | Update) => self.encrypt(ctx, name, request).await,
            (routes::DECRYPT, Create | Update) => self.decrypt(ctx, name, request.fields).await,
            (routes::REWRAP, Create | Update) => self.rewrap(ctx, name, request.fields).await,
            (routes::SIGN | routes::SIGN_BY, Create | Update) => {
                self.sign(ctx, name, hash, request.fields).await
            }
            (routes::VERIFY | routes::VERIFY_BY, Create | Update) => {
                self.verify(ctx, name, hash, request.fields).await
            }
            (routes::HMAC | routes::HMAC_BY, Create | Update) => {
                self.hmac(ctx, name, hash, request.fields).await
            }
            (routes::DATA_KEY, Create | Update) => {
                self.data_key(ctx, name, params.get("plaintext"), &request.fields).await
            }
            (routes::KEYS, List) => self.list(ctx).await,
            (routes::KEY, Create | Update) => self.create(ctx, name, &request.fields).await,
            (routes::KEY, Read) => self.read(ctx, name, &request.fields).await,
            (routes::KEY, Delete) => self.delete(ctx, name).await,
            (routes::CONFIG, Create | Update) => self.configure(ctx, name, &request.fields).await,
            (routes::SOFT_DELETE, Delete) => self.soft_delete(ctx, name, true).await,
            (routes::SOFT_DELETE_RESTORE, Create | Update) => {
                self.soft_delete(ctx, name, false).await
            }
            (routes::SETTINGS, Read) => settings::read(ctx).await,
            (routes::SETTINGS, Create | Update) => settings::write(ctx, &request.fields).await,
            (routes::ROTATE, Create | Update) => self.rotate(ctx, name).await,
            (routes::TRIM, Create | Update) => self.trim(ctx, name, &request.fields).await,
            (routes::IMPORT, Create | Update) => self.import(ctx, name, &request.fields).await,
            (routes::IMPORT_VERSION, Create | Update) => {
                self.import_version(ctx, name, &request.fields).await
            }
            (routes::WRAPPING_KEY, Read) => self.wrapping_key(ctx).await,
            (routes::EXPORT | routes::EXPORT_VERSION, Read) => {
                self.export(ctx, name, params.get("type"), params.get("version")).await
            }
            (routes::BACKUP, Read) => self.backup(ctx, name).await,
            (routes::RESTORE | routes::RESTORE_AS, Create | Update) => {
                self.restore(ctx, name, &request.fields).await
            }
            (routes::RANDOM | routes::RANDOM_SOME | routes::RANDOM_SOURCE, Create | Update) => {
                tools::answer_random(&request)
            }
            (routes::HASH | routes::HASH_BY, Create | Update) => tools::answer_hash(&request),
            (_, _) => Err(CoreError::Unsupported),
        };
        reply.map(Outcome::from)
    }

    async fn tick(&self, ctx: &EngineContext<'_>) -> Result<Option<Timestamp>, CoreError> {
        self.run_due(ctx).await
    }

    fn invalidate(&self) {
        self.ring.clear();
        self.look_again();
    }
}

#[cfg(test)]
mod tests;
