//! The accept loop: taking connections from the system as they come.
//!
//! Two take them. A task of the runtime, which costs least; and a thread that is not held up when
//! thousands of services start at once and each task waits behind the handshakes of others. A socket
//! that waits with them fills up; what does not fit is dropped by the system, and the client tries again
//! after one second, then three, then seven.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::Router;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use tokio::net::{TcpSocket, lookup_host};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::accept::{Connections, Entrance};
use super::tls::ListenerTls;

/// Connections that the system may keep until they are accepted. Linux takes `net.core.somaxconn` where
/// that is less.
const BACKLOG: u32 = 65_535;
/// How long the runtime may leave a connection on the socket. Short beside what fills it.
const HEAD_START: Duration = Duration::from_millis(5);
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
        let entrance = Arc::new(Entrance { name, tls, app, connections, stop, workers });
        let (spare, relief) = (socket.try_clone()?, entrance.clone());
        let bell = Bell(Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?));
        let (rung, (done, ended)) = (bell.0.clone(), oneshot::channel());
        thread::Builder::new().name("accept".into()).spawn(move || {
            relieve(&spare, &relief, &rung);
            drop(spare);
            // Nobody waits for it when the server was given up.
            let _ = done.send(());
        })?;
        let socket = tokio::net::TcpListener::from_std(socket)?;
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = entrance.stop.cancelled() => break,
            };
            match accepted {
                Ok((tcp, remote)) => entrance.admit(tcp, remote),
                Err(error) if is_client_gone(&error) => {}
                Err(error) => {
                    not_accepted(&entrance, &error);
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
        // From here on nobody listens, which is what whoever stopped this waits for.
        drop((socket, bell));
        ended.await.map_err(io::Error::other)
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

/// Takes what the runtime leaves on the socket for longer than a moment, until `rung`.
fn relieve(socket: &TcpListener, entrance: &Entrance, rung: &OwnedFd) {
    loop {
        let mut ready = [PollFd::new(socket, PollFlags::IN), PollFd::new(rung, PollFlags::IN)];
        let polled = poll(&mut ready, None);
        let [waiting, ring] = ready.map(|one| !one.revents().is_empty());
        match polled {
            Err(Errno::INTR) => continue,
            // Without it the runtime does what it can.
            Err(_) => return,
            Ok(_) if ring => return,
            Ok(_) if !waiting => continue,
            Ok(_) => thread::sleep(HEAD_START),
        }
        while !entrance.stop.is_cancelled() {
            match socket.accept() {
                Ok((tcp, remote)) => {
                    if let Err(error) = entrance.admit_from_outside(tcp, remote) {
                        not_accepted(entrance, &error);
                    }
                }
                Err(error) if is_client_gone(&error) => {}
                // Taken by the runtime; or a failure, which is the runtime's to tell and to rest after.
                Err(_) => break,
            }
        }
    }
}

/// Tells the thread to let go of the socket, when this is dropped.
struct Bell(Arc<OwnedFd>);

impl Drop for Bell {
    fn drop(&mut self) {
        // One is always taken by a counter that stands at zero.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

fn not_accepted(entrance: &Entrance, error: &io::Error) {
    tracing::error!(listener = %entrance.name, %error, "a connection was not accepted");
}

fn is_client_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
