//! From an accepted socket to requests that know who sent them.
//!
//! Handshakes run in parallel, each with a deadline, so a slow client delays nobody. All listeners
//! share one [`Connections`], which bounds, counts, drains and closes them.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::Config;
use super::refusals::RefusalAudit;
use super::requests::{Activity, RequestLimits, Requests};
use super::tls::{Arrival, HandshakeError, ListenerTls};
use crate::core::audit::broker::AuditBroker;
use crate::core::peer::ConnectionInfo;
use crate::types::time::Clock;

/// Smallest buffer that hyper reads a connection into, in bytes.
const BUFFER_BYTES_MIN: usize = 8 * 1024;
/// How long an idle connection may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long a quiet HTTP/2 client may take to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Bounds on connections and on the requests in them.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Most connections at once, over all listeners.
    pub connections: usize,
    /// Most handshakes in progress at once.
    pub handshakes: usize,
    /// Longest handshake, the wait for its turn included.
    pub handshake_timeout: Duration,
    /// Longest wait for a connection's first request.
    pub header_timeout: Duration,
    /// How long a connection may stay open without a request.
    pub idle_timeout: Duration,
    /// Largest head of one request, in bytes.
    pub header_bytes: usize,
    /// Most headers of one request.
    pub headers: usize,
    /// Most HTTP/2 requests in progress on one connection.
    pub streams: u32,
    /// Most that is read of a request body, in bytes.
    pub body_bytes: usize,
}

/// What is read, and thrown away, of a body that is too large: a client that still sends when the
/// connection closes often does not get to see why.
const REFUSED_BODY_BYTES: usize = 1 << 20;

impl ConnectionLimits {
    /// As the configuration says.
    pub fn from_config(config: &Config) -> Self {
        let (server, limits) = (&config.server, &config.limits);
        Self {
            connections: server.max_connections,
            handshakes: server.max_handshakes,
            handshake_timeout: server.handshake_timeout.duration(),
            header_timeout: server.header_timeout.duration(),
            idle_timeout: server.idle_timeout.duration(),
            header_bytes: limits.header_bytes.bytes(),
            headers: limits.headers,
            streams: limits.streams,
            body_bytes: server.max_body.bytes().saturating_add(REFUSED_BODY_BYTES),
        }
    }
}

/// Every open connection of the server.
pub struct Connections {
    limits: ConnectionLimits,
    clock: Arc<dyn Clock>,
    permits: Arc<Semaphore>,
    handshakes: Semaphore,
    last_id: AtomicU64,
    tasks: TaskTracker,
    http1: http1::Builder,
    http2: http2::Builder<Tracked>,
    current: ArcSwap<Closing>,
    refusals: OnceLock<RefusalAudit>,
    // Ends whatever is still open, at once.
    abort: CancellationToken,
}

/// Tells the connections of one epoch to close, and how soon.
#[derive(Default)]
struct Closing {
    token: CancellationToken,
    grace: Mutex<Duration>,
}

impl Connections {
    /// None yet.
    pub fn new(limits: ConnectionLimits, clock: Arc<dyn Clock>) -> Arc<Self> {
        let tasks = TaskTracker::new();
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            // This timer runs between requests too; the first request has a deadline of its own.
            .header_read_timeout(limits.idle_timeout.max(limits.header_timeout))
            .max_headers(limits.headers)
            .max_header_size(limits.header_bytes)
            .max_buf_size(limits.header_bytes.max(BUFFER_BYTES_MIN));
        let mut http2 = http2::Builder::new(Tracked(tasks.clone()));
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(limits.idle_timeout)
            .keep_alive_timeout(PING_TIMEOUT);
        Arc::new(Self {
            limits,
            clock,
            permits: Arc::new(Semaphore::new(limits.connections)),
            handshakes: Semaphore::new(limits.handshakes),
            last_id: AtomicU64::new(0),
            tasks,
            http1,
            http2,
            current: ArcSwap::default(),
            refusals: OnceLock::new(),
            abort: CancellationToken::new(),
        })
    }

    /// Records refused handshakes in `audit` from now on. Once, before anything is accepted.
    pub fn audit_refusals(&self, audit: AuditBroker) {
        // A second call would be a mistake in the wiring; the first audit stays.
        let _ = self.refusals.set(RefusalAudit::new(audit));
    }

    /// How many are open.
    pub fn active(&self) -> usize {
        self.limits.connections.saturating_sub(self.permits.available_permits())
    }

    /// Closes every connection open now: requests in progress get their answers within `grace`.
    /// Connections made later are not touched. Called on seal, because the buffers of connections
    /// hold what passed through them.
    pub fn close_all(&self, grace: Duration) {
        let closing = self.current.swap(Arc::default());
        *closing.grace.lock().unwrap_or_else(PoisonError::into_inner) = grace;
        closing.token.cancel();
    }

    /// Waits until every connection is closed, and cuts those still open after `deadline`.
    /// For when accepting has stopped.
    pub async fn drain(&self, deadline: Duration) {
        self.tasks.close();
        if tokio::time::timeout(deadline, self.tasks.wait()).await.is_err() {
            tracing::warn!(open = self.active(), "connections are cut: the drain took too long");
            self.abort.cancel();
            self.tasks.wait().await;
        }
    }
}

/// What the connections of one listening socket have in common.
pub(super) struct Entrance {
    pub(super) name: Arc<str>,
    pub(super) tls: Arc<ListenerTls>,
    pub(super) app: Router,
    pub(super) connections: Arc<Connections>,
    pub(super) stop: CancellationToken,
    /// The runtime that the connections run on.
    pub(super) workers: Handle,
}

impl Entrance {
    /// Lets a connection in, or closes it when there are too many.
    pub(super) fn admit(&self, tcp: TcpStream, remote: SocketAddr) {
        let Some(place) = self.place(remote) else { return };
        self.connections.tasks.spawn_on(place.run(tcp), &self.workers);
    }

    /// The same, from outside of the runtime.
    ///
    /// # Errors
    /// When the system does not let the connection be watched.
    pub(super) fn admit_from_outside(
        &self,
        tcp: std::net::TcpStream,
        remote: SocketAddr,
    ) -> io::Result<()> {
        let Some(place) = self.place(remote) else { return Ok(()) };
        tcp.set_nonblocking(true)?;
        let _runtime = self.workers.enter();
        self.connections.tasks.spawn_on(place.run(TcpStream::from_std(tcp)?), &self.workers);
        Ok(())
    }

    /// A place among the connections, while there is one.
    fn place(&self, remote: SocketAddr) -> Option<Connection> {
        let connections = &self.connections;
        let listener = self.name.clone();
        let Ok(permit) = connections.permits.clone().try_acquire_owned() else {
            metrics::counter!("leasehold_connections_refused_total", "listener" => listener)
                .increment(1);
            return None;
        };
        Some(Connection {
            info: ConnectionInfo {
                peer: None,
                remote,
                listener,
                id: connections.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            },
            tls: self.tls.clone(),
            app: self.app.clone(),
            closing: connections.current.load_full(),
            all: connections.clone(),
            stop: self.stop.clone(),
            _permit: permit,
        })
    }
}

struct Connection {
    info: ConnectionInfo,
    tls: Arc<ListenerTls>,
    app: Router,
    closing: Arc<Closing>,
    all: Arc<Connections>,
    stop: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(mut self, tcp: TcpStream) {
        let _open = OpenGauge::enter(&self.info.listener);
        // Answers are small and written whole; waiting to fill a segment only delays them.
        let _ = tcp.set_nodelay(true);
        let arrival = tokio::select! {
            outcome = self.handshake(tcp) => match outcome {
                Ok(arrival) => arrival,
                Err(()) => return,
            },
            () = self.stop.cancelled() => return self.count_handshake("stopped"),
        };
        self.info.peer = arrival.peer;
        let activity = Arc::new(Activity::default());
        let limits = &self.all.limits;
        let requests = Requests {
            app: self.app.clone(),
            connection: self.info.clone(),
            limits: RequestLimits { body_bytes: limits.body_bytes, headers: limits.headers },
            activity: activity.clone(),
        };
        // Begun when it is read, not when a task gets round to it: it keeps the connection open.
        let service = service_fn(move |request| requests.clone().begin(request));
        let io = TokioIo::new(arrival.stream);
        let why = if arrival.http2 {
            self.drive(self.all.http2.serve_connection(io, service), &activity).await
        } else {
            self.drive(self.all.http1.serve_connection(io, service), &activity).await
        };
        let listener = self.info.listener.clone();
        metrics::counter!(
            "leasehold_connections_closed_total", "listener" => listener, "reason" => why
        )
        .increment(1);
    }

    fn count_handshake(&self, outcome: &'static str) {
        let listener = self.info.listener.clone();
        metrics::counter!(
            "leasehold_handshakes_total", "listener" => listener, "outcome" => outcome
        )
        .increment(1);
    }

    async fn handshake(&self, tcp: TcpStream) -> Result<Arrival, ()> {
        let began = self.all.clock.monotonic();
        let shaken = tokio::time::timeout(self.all.limits.handshake_timeout, async {
            // Whoever says nothing takes no turn from those who do. A look at the first byte, because a
            // socket may be called readable before there is one.
            tcp.peek(&mut [0]).await.map_err(HandshakeError::Lost)?;
            // The semaphore is never closed, so its permit always comes.
            let _turn = self.all.handshakes.acquire().await;
            self.tls.handshake(tcp).await
        });
        let outcome = shaken.await.unwrap_or(Err(HandshakeError::Timeout));
        self.count_handshake(outcome.as_ref().err().map_or("ok", HandshakeError::as_str));
        match outcome {
            Ok(arrival) => {
                let took = self.all.clock.monotonic().saturating_sub(began);
                metrics::histogram!("leasehold_handshake_seconds").record(took.as_secs_f64());
                Ok(arrival)
            }
            Err(HandshakeError::Lost(_)) => Err(()),
            Err(error) => {
                let remote = self.info.remote;
                tracing::info!(listener = %self.info.listener, %remote, %error, "handshake failed");
                if error.is_refusal()
                    && let Some(refusals) = self.all.refusals.get()
                {
                    refusals.record(&self.info.listener, remote, &error).await;
                }
                Err(())
            }
        }
    }

    /// Runs the connection to its end, passing on whoever wants it closed. Answers why it ended, for
    /// the metrics.
    async fn drive<C>(&self, connection: C, activity: &Activity) -> &'static str
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
        let limits = &self.all.limits;
        let mut connection = pin!(connection);
        let mut idle = pin!(activity.idle(limits.header_timeout, limits.idle_timeout));
        let mut cut = pin!(None::<tokio::time::Sleep>);
        let (mut stopping, mut closing, mut idled) = (false, false, false);
        let mut why = "client";
        loop {
            let grace = tokio::select! {
                // In this order: on a machine that is busy, a request and the end of the wait for it
                // may be noticed together, and a request that came in time is answered.
                biased;
                outcome = connection.as_mut() => {
                    let Err(error) = outcome else { return why };
                    let id = self.info.id;
                    tracing::debug!(connection = id, %error, "the connection ended badly");
                    return if error.is_timeout() { "timeout" } else { "error" };
                }
                () = self.all.abort.cancelled() => return "cut",
                Some(()) = async {
                    match cut.as_mut().as_pin_mut() {
                        Some(deadline) => { deadline.await; Some(()) }
                        None => None,
                    }
                } => return if idled { why } else { "cut" },
                () = self.stop.cancelled(), if !stopping => {
                    (stopping, why) = (true, "stop");
                    None
                }
                () = self.closing.token.cancelled(), if !closing => {
                    (closing, why) = (true, "seal");
                    Some(*self.closing.grace.lock().unwrap_or_else(PoisonError::into_inner))
                }
                () = idle.as_mut(), if !idled => {
                    idled = true;
                    why = if activity.is_unused() { "no_request" } else { "idle" };
                    Some(GOODBYE)
                }
            };
            connection.as_mut().graceful_shutdown();
            if let Some(grace) = grace {
                cut.set(Some(tokio::time::sleep(grace)));
            }
        }
    }
}

/// Counts open connections of a listener.
struct OpenGauge(metrics::Gauge);

impl OpenGauge {
    fn enter(listener: &Arc<str>) -> Self {
        metrics::counter!("leasehold_connections_total", "listener" => listener.clone())
            .increment(1);
        let gauge = metrics::gauge!("leasehold_connections", "listener" => listener.clone());
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for OpenGauge {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// Runs HTTP/2 requests as tasks that a drain waits for.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
