//! A small pool of connections to one target.
//!
//! A connection goes back only when its user says that it is clean; one that is dropped, by an
//! error or because a request was given up, is closed, so that no half-finished transaction and no
//! session setting ever reaches the next user.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};
use tokio_util::task::AbortOnDropHandle;

use super::failure::{classify, unavailable};
use super::settings::Settings;
use crate::engines::database::driver::DriverError;
use crate::types::secret::SecretString;
use crate::types::time::Clock;

/// Longest wait for a connection, its handshake and its login.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// What every session starts with. The quoting of values relies on it.
const SESSION: &str = "SET standard_conforming_strings = on";

pub(super) struct Pool {
    settings: Settings,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Session>>,
    password_in_use: AtomicUsize,
    clock: Arc<dyn Clock>,
}

/// An open session and the task that serves its socket.
struct Session {
    client: Client,
    opened: Duration,
    _socket: AbortOnDropHandle<()>,
}

/// A session in use. Dropping it closes it.
pub(super) struct Lent<'a> {
    session: Session,
    reused: bool,
    pool: &'a Pool,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Pool {
    pub(super) fn new(settings: Settings, clock: Arc<dyn Clock>) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(settings.max_open)),
            idle: Mutex::new(Vec::new()),
            password_in_use: AtomicUsize::new(0),
            settings,
            clock,
        }
    }

    /// An idle session, or a new one when there is none.
    pub(super) async fn take(&self) -> Result<Lent<'_>, DriverError> {
        const STEP: &str = "wait for a connection";
        let permit = tokio::time::timeout(OPEN_TIMEOUT, Arc::clone(&self.permits).acquire_owned())
            .await
            .map_err(|_| DriverError::Busy { step: STEP })?
            .map_err(|error| unavailable(STEP, error))?;
        if let Some(session) = self.take_idle() {
            return Ok(Lent { session, reused: true, pool: self, _permit: Some(permit) });
        }
        let session = self.open_as_root(None).await?;
        Ok(Lent { session, reused: false, pool: self, _permit: Some(permit) })
    }

    /// A session in another database of the same server; it is not kept.
    pub(super) async fn take_in(&self, database: &str) -> Result<Lent<'_>, DriverError> {
        let session = self.open_as_root(Some(database)).await?;
        Ok(Lent { session, reused: false, pool: self, _permit: None })
    }

    /// Forgets every idle session, after one of them turned out to be dead.
    pub(super) fn forget_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether the target lets this user in.
    pub(super) async fn accepts(
        &self,
        user: &str,
        password: &SecretString,
    ) -> Result<bool, DriverError> {
        let mut config = self.settings.base.clone();
        config.user(user).password(password.expose());
        match self.open(&config).await {
            Ok(_) => Ok(true),
            Err(DriverError::Login { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn take_idle(&self) -> Option<Session> {
        let now = self.clock.monotonic();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|session| self.is_usable(session, now));
        idle.pop()
    }

    fn is_usable(&self, session: &Session, now: Duration) -> bool {
        let lifetime = self.settings.max_lifetime;
        let age = now.saturating_sub(session.opened);
        !session.client.is_closed() && (lifetime.is_zero() || age < Duration::from(lifetime))
    }

    /// Opens a session as the broker's user, with the first of its passwords that is accepted.
    async fn open_as_root(&self, database: Option<&str>) -> Result<Session, DriverError> {
        let mut config = self.settings.base.clone();
        if let Some(database) = database {
            config.dbname(database);
        }
        let count = self.settings.passwords.len();
        if count == 0 {
            return self.open(&config).await;
        }
        let first = self.password_in_use.load(Ordering::Relaxed);
        let mut refused = None;
        for turn in 0..count {
            let which = (first + turn) % count;
            if let Some(password) = self.settings.passwords.get(which) {
                config.password(password.expose());
            }
            match self.open(&config).await {
                Ok(session) => {
                    self.password_in_use.store(which, Ordering::Relaxed);
                    return Ok(session);
                }
                Err(error @ DriverError::Login { .. }) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(refused.unwrap_or(DriverError::NoSuchUser))
    }

    async fn open(&self, config: &tokio_postgres::Config) -> Result<Session, DriverError> {
        const STEP: &str = "connect";
        let opened = self.clock.monotonic();
        let connect = async {
            let (client, socket) = match &self.settings.tls {
                Some(tls) => {
                    let (client, socket) = config.connect(tls.clone()).await?;
                    (client, tokio::spawn(serve(socket)))
                }
                None => {
                    let (client, socket) = config.connect(NoTls).await?;
                    (client, tokio::spawn(serve(socket)))
                }
            };
            let socket = AbortOnDropHandle::new(socket);
            client.batch_execute(SESSION).await?;
            Ok(Session { client, opened, _socket: socket })
        };
        match tokio::time::timeout(OPEN_TIMEOUT, connect).await {
            Err(error) => Err(unavailable(STEP, error)),
            Ok(Err(error)) => Err(login_refused(error)),
            Ok(Ok(session)) => Ok(session),
        }
    }
}

async fn serve(socket: impl Future<Output = Result<(), tokio_postgres::Error>>) {
    // Whoever uses the session sees the same failure on its next statement.
    if let Err(error) = socket.await {
        tracing::debug!(%error, "a connection to a database target ended");
    }
}

fn login_refused(error: tokio_postgres::Error) -> DriverError {
    let refused = [
        &SqlState::INVALID_PASSWORD,
        &SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        &SqlState::INSUFFICIENT_PRIVILEGE,
    ];
    match error.code() {
        Some(code) if refused.contains(&code) => DriverError::Login { code: code.code().into() },
        Some(_) | None => classify("connect", error, None),
    }
}

impl Lent<'_> {
    pub(super) fn client(&self) -> &Client {
        &self.session.client
    }

    /// Whether the session was used before, and so may have died unnoticed.
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Gives back a session without an open transaction or settings of its own.
    pub(super) fn give_back(self) {
        let Self { session, pool, _permit, .. } = self;
        if _permit.is_none() {
            return;
        }
        let mut idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < pool.settings.max_idle {
            idle.push(session);
        }
    }
}
