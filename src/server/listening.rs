//! The accept loop: taking connections from the system as they come.
//!
//! On a thread of its own. When thousands of services start at once, each task of the runtime waits
//! behind the handshakes of others. A socket that waits with them fills up; what does not fit is dropped
//! by the system, and the client tries again after one second, then three, then seven.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpSocket, lookup_host};
use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::accept::{Connections, Entrance};
use super::tls::ListenerTls;

/// Connections that the system may keep until they are accepted. Linux takes `net.core.somaxconn` where
/// that is less.
const BACKLOG: u32 = 65_535;
/// Rest after the system refused to accept, most likely for want of file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// One listening socket.
pub struct Listening {
    name: Arc<str>,
    socket: TcpListener,
    tls: Arc<ListenerTls>,
}

impl Listening {
    /// Binds the first of the addresses of `host:port` that can be; `name` is what logs, metrics and
    /// audit entries call it.
    ///
    /// # Errors
    /// When none of them can be bound.
    pub async fn bind(name: &str, address: &str, tls: Arc<ListenerTls>) -> io::Result<Self> {
        let mut last = io::ErrorKind::AddrNotAvailable.into();
        for address in lookup_host(address).await? {
            match listen(address) {
                Ok(socket) => return Ok(Self { name: name.into(), socket, tls }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts connections and answers their requests from `app`, until `stop`. Connections that
    /// are open then finish their requests in progress; [`Connections::drain`] waits for them.
    ///
    /// # Errors
    /// When the system gives no thread, or no means of waiting for connections.
    pub async fn serve(
        self,
        app: Router,
        connections: Arc<Connections>,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let Self { name, socket, tls } = self;
        let workers = Handle::current();
        let entrance = Entrance { name, tls, app, connections, stop, workers };
        let (done, ended) = oneshot::channel();
        // Not one of the runtime's threads for blocking work: its end would wait for this one's.
        thread::Builder::new().name("accept".into()).spawn(move || {
            let own = runtime::Builder::new_current_thread().enable_all().build();
            // Nobody listens any more when the whole server is gone.
            let _ = done.send(own.and_then(|own| own.block_on(accept(socket, &entrance))));
        })?;
        ended.await.map_err(io::Error::other)?
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A server that starts again must not wait for connections of the one before it to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

async fn accept(socket: TcpListener, entrance: &Entrance) -> io::Result<()> {
    let socket = tokio::net::TcpListener::from_std(socket)?;
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = entrance.stop.cancelled() => return Ok(()),
        };
        // Watched from here on by the runtime that it is served on.
        match accepted.and_then(|(tcp, remote)| Ok((tcp.into_std()?, remote))) {
            Ok((tcp, remote)) => entrance.admit(tcp, remote),
            Err(error) => not_accepted(&entrance.name, &error).await,
        }
    }
}

async fn not_accepted(listener: &str, error: &io::Error) {
    let client_gone = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    );
    if !client_gone {
        tracing::error!(listener, %error, "a connection was not accepted");
        tokio::time::sleep(ACCEPT_REST).await;
    }
}
