//! The shared store: a PostgreSQL database, read and written by any number of nodes.
//!
//! Every batch is one READ COMMITTED transaction that locks what it depends on before it changes
//! anything (see `commit`). What one node changes, the others are told in the same transaction (see
//! `listen`). The pool is bounded: who waits too long for a connection gets [`StorageError::Busy`].

mod commit;
mod connect;
mod listen;
mod read;
mod schema;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{
    Client, Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod,
    Runtime, TimeoutType,
};
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::error::Elapsed;
use tokio_postgres::error::SqlState;

use super::timing::Timer;
use super::{
    Change, Committed, Invalidation, Kind, KindCount, Page, Row, RowKey, Storage, StorageError,
};
use crate::crypto::blind::Tag;
use crate::crypto::envelope::SealedRecord;
use crate::types::id::NamespaceId;
use crate::types::secret::{SecretString, fill_random};
use crate::types::time::Timestamp;
use commit::Failure;

/// How long an operation may take in all, before its connection is given up for lost.
const OPERATION_TIME_MAX: Duration = Duration::from_secs(35);
/// Changes that a receiver may lag behind before it has to forget everything.
const INVALIDATIONS_MAX: usize = 1024;
/// Attempts at a transaction that PostgreSQL itself undid, to resolve a deadlock for instance.
const ATTEMPTS_MAX: usize = 5;
/// What every session of the pool begins with.
///
/// - Limits of time, each below [`OPERATION_TIME_MAX`], so that PostgreSQL ends what hangs before we do.
/// - A server that is set up to acknowledge before it writes is overruled (promise P8).
/// - Every question here has an index in the order of its answer. A planner without fresh statistics
///   prefers to read the whole backlog and sort it, which is ruinous exactly when there is much of it.
const SESSION: &str = "SET statement_timeout = '30s'; SET lock_timeout = '10s'; \
     SET idle_in_transaction_session_timeout = '30s'; \
     SELECT set_config('synchronous_commit', 'on', false) \
     WHERE current_setting('synchronous_commit') = 'off'; \
     SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off; \
     SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off";

/// What may be tuned.
#[derive(Clone, Copy, Debug)]
pub struct PostgresOptions {
    /// Connections in the pool. One more listens for the changes of other nodes.
    pub max_connections: usize,
    /// How long an operation may wait for a connection.
    pub wait_max: Duration,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { max_connections: 16, wait_max: Duration::from_secs(5) }
    }
}

/// The store on a PostgreSQL database.
pub struct PostgresStorage {
    pool: Pool,
    /// Tells our own changes from those of others. Of this handle, not of the machine.
    node: u64,
    invalidations: broadcast::Sender<Invalidation>,
    listener: Mutex<JoinSet<()>>,
}

impl std::fmt::Debug for PostgresStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStorage").field("pool", &self.pool.status()).finish()
    }
}

/// Runs one operation on a connection of the pool, within its time.
macro_rules! ask {
    ($self:ident, $op:literal, $client:ident, $question:expr) => {{
        let _timer = Timer::start($op);
        let $client = $self.client().await?;
        let result = tokio::time::timeout(OPERATION_TIME_MAX, $question).await;
        settle($client, result)
    }};
}

/// Runs a transaction again that PostgreSQL undid to let another one pass.
macro_rules! retry {
    ($transaction:expr) => {{
        let mut attempts = 1;
        loop {
            match $transaction {
                Err(failure) if failure.is_undone() && attempts < ATTEMPTS_MAX => attempts += 1,
                result => break result,
            }
        }
    }};
}

impl PostgresStorage {
    /// Connects to `url` and brings the schema up to date; safe when several nodes do so at once.
    ///
    /// `sslmode` in the URL is `disable`, `prefer`, `require`, `verify-ca` or `verify-full`, with
    /// libpq's meanings. Without it: `verify-full` when certificate authorities are given (`ca_file`, or
    /// `sslrootcert` in the URL), else `prefer`. Tables live in the first schema of the `search_path`.
    ///
    /// # Errors
    /// [`StorageError::CannotOpen`] for a URL or CA file that makes no sense,
    /// [`StorageError::Unavailable`] when the server cannot be reached or refuses us,
    /// [`StorageError::NewerSchema`].
    pub async fn connect(
        url: &SecretString,
        ca_file: Option<&Path>,
        options: PostgresOptions,
    ) -> Result<Arc<Self>, StorageError> {
        let (config, tls) = connect::settings(url, ca_file)?;
        let manager = Manager::from_config(
            config.clone(),
            tls.clone(),
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let pool = Pool::builder(manager)
            .max_size(options.max_connections.max(1))
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(options.wait_max))
            .create_timeout(Some(OPERATION_TIME_MAX))
            .recycle_timeout(Some(OPERATION_TIME_MAX))
            .post_create(Hook::async_fn(|client, _| {
                Box::pin(
                    async move { client.batch_execute(SESSION).await.map_err(HookError::Backend) },
                )
            }))
            .build()
            .map_err(|error| StorageError::Unavailable(Box::new(error)))?;
        let mut node = [0; 8];
        fill_random(&mut node).map_err(|error| StorageError::Unavailable(Box::new(error)))?;
        let storage = Self {
            pool,
            node: u64::from_be_bytes(node),
            invalidations: broadcast::Sender::new(INVALIDATIONS_MAX),
            listener: Mutex::new(JoinSet::new()),
        };
        schema::migrate(&mut storage.client().await?).await?;
        let listener =
            listen::start(config, tls, storage.node, storage.invalidations.clone()).await?;
        storage.listener.lock().unwrap_or_else(PoisonError::into_inner).spawn(listener);
        Ok(Arc::new(storage))
    }

    async fn client(&self) -> Result<Client, StorageError> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Timeout(TimeoutType::Wait) => StorageError::Busy,
            PoolError::Backend(error) => failed(error),
            other @ (PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle)
            | PoolError::Closed
            | PoolError::NoRuntimeSpecified
            | PoolError::PostCreateHook(_)) => StorageError::Unavailable(Box::new(other)),
        })
    }
}

/// Gives the connection back, unless the operation ran out of time on it.
fn settle<T>(
    client: Client,
    result: Result<Result<T, Failure>, Elapsed>,
) -> Result<T, StorageError> {
    match result {
        Ok(result) => result.map_err(StorageError::from),
        Err(elapsed) => {
            drop(Object::take(client));
            Err(StorageError::Unavailable(Box::new(elapsed)))
        }
    }
}

#[async_trait]
impl Storage for PostgresStorage {
    async fn get(&self, key: RowKey) -> Result<Option<Row>, StorageError> {
        ask!(self, "get", client, read::get(&client, key))
    }

    async fn list(
        &self,
        namespace: NamespaceId,
        kind: Kind,
        parent: Tag,
        after: Option<Tag>,
        limit: usize,
    ) -> Result<Page, StorageError> {
        let query = read::LIST;
        ask!(
            self,
            "list",
            client,
            read::page(&client, query, namespace, kind, parent, after, limit)
        )
    }

    async fn labelled(
        &self,
        namespace: NamespaceId,
        kind: Kind,
        label: Tag,
        after: Option<Tag>,
        limit: usize,
    ) -> Result<Page, StorageError> {
        let query = read::LABELLED;
        ask!(
            self,
            "labelled",
            client,
            read::page(&client, query, namespace, kind, label, after, limit)
        )
    }

    async fn count_labelled(
        &self,
        namespace: NamespaceId,
        kind: Kind,
        label: Tag,
        max: u64,
    ) -> Result<u64, StorageError> {
        ask!(
            self,
            "count_labelled",
            client,
            read::count_labelled(&client, namespace, kind, label, max)
        )
    }

    async fn due(
        &self,
        kind: Kind,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        ask!(self, "due", client, read::due(&client, kind, until, limit))
    }

    async fn next_due(&self, kind: Kind) -> Result<Option<Timestamp>, StorageError> {
        ask!(self, "next_due", client, read::next_due(&client, kind))
    }

    async fn claim(
        &self,
        kind: Kind,
        now: Timestamp,
        node: u64,
        claim_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        ask!(self, "claim", client, read::claim(&client, kind, now, node, claim_until, limit))
    }

    async fn count(&self, kind: Kind, until: Timestamp) -> Result<KindCount, StorageError> {
        ask!(self, "count", client, read::count(&client, kind, until))
    }

    async fn wrapped_below(
        &self,
        term: u32,
        after: Option<RowKey>,
        limit: usize,
    ) -> Result<Vec<Row>, StorageError> {
        ask!(self, "wrapped_below", client, read::wrapped_below(&client, term, after, limit))
    }

    async fn count_wrapped_below(&self, term: u32) -> Result<u64, StorageError> {
        ask!(self, "count_wrapped_below", client, read::count_wrapped_below(&client, term))
    }

    async fn reseal(&self, mut rows: Vec<(RowKey, u64, SealedRecord)>) -> Result<(), StorageError> {
        let _timer = Timer::start("reseal");
        // In the order that every transaction takes its locks in.
        rows.sort_by_key(|(key, _, _)| *key);
        let mut client = self.client().await?;
        let result = tokio::time::timeout(OPERATION_TIME_MAX, async {
            retry!(commit::reseal(&mut client, &rows).await)
        })
        .await;
        settle(client, result)
    }

    async fn commit(&self, batch: Vec<Change>) -> Result<Committed, StorageError> {
        let _timer = Timer::start("commit");
        let mut client = self.client().await?;
        let result = tokio::time::timeout(OPERATION_TIME_MAX, async {
            retry!(commit::commit(&mut client, self.node, &batch).await)
        })
        .await;
        settle(client, result).map(|sequence| Committed { sequence })
    }

    async fn meta(&self, name: &'static str) -> Result<Option<Vec<u8>>, StorageError> {
        ask!(self, "meta", client, read::meta(&client, name))
    }

    async fn sequence(&self) -> Result<u64, StorageError> {
        ask!(self, "sequence", client, read::sequence(&client))
    }

    fn name(&self) -> &'static str {
        "postgresql"
    }

    fn invalidations(&self) -> broadcast::Receiver<Invalidation> {
        self.invalidations.subscribe()
    }

    async fn close(&self) {
        // Connections in use are closed when they are given back.
        self.pool.close();
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

/// What a failure of PostgreSQL means to the caller.
fn failed(error: tokio_postgres::Error) -> StorageError {
    match error.code() {
        Some(&SqlState::DISK_FULL | &SqlState::READ_ONLY_SQL_TRANSACTION) => {
            StorageError::Full(Box::new(error))
        }
        // Each of these ends the transaction, or comes before there is one: nothing has happened.
        Some(
            &SqlState::TOO_MANY_CONNECTIONS
            | &SqlState::LOCK_NOT_AVAILABLE
            | &SqlState::QUERY_CANCELED
            | &SqlState::T_R_SERIALIZATION_FAILURE
            | &SqlState::T_R_DEADLOCK_DETECTED,
        ) => StorageError::Busy,
        Some(_) | None => StorageError::Unavailable(Box::new(error)),
    }
}
