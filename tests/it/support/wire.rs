//! A client as plain as can be: TLS with chosen certificates and versions, and HTTP written by hand,
//! so that a test decides every byte.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::{ClientConfig, NamedGroup, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::pki::{Ca, Issued};

/// Longest wait for anything; a server that is stopped on purpose answers so much later.
fn patience() -> Duration {
    let pause = std::env::var("LEASEHOLD_PAUSE_SECS").map_or(0, |secs| secs.parse().unwrap());
    Duration::from_secs(60 + pause)
}

/// Fails the test rather than hanging it.
pub async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(patience(), what).await.expect("should end soon")
}

/// Addresses that were free a moment ago; none of them twice, because all are held meanwhile.
pub fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    [(); N]
        .map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap())
        .map(|held| held.local_addr().unwrap())
}

/// Waits until `holds`.
pub async fn until(holds: impl Fn() -> bool) {
    soon(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// How a client comes.
pub struct Client {
    config: ClientConfig,
    /// Every session that the server offered to resume.
    pub offered: Arc<Offered>,
}

impl Client {
    /// One that trusts `server_ca`, speaks `version`, and presents `chain` if there is one.
    pub fn new(
        server_ca: &CertificateDer<'static>,
        version: &'static SupportedProtocolVersion,
        identity: Option<(&Issued, &[&Ca])>,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(server_ca.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((leaf, issuers)) => {
                let issuers = issuers.iter().map(|ca| ca.der.clone());
                let chain = std::iter::once(leaf.der.clone()).chain(issuers).collect();
                builder.with_client_auth_cert(chain, leaf.key()).unwrap()
            }
        };
        let offered = Arc::new(Offered::default());
        config.resumption = Resumption::store(offered.clone());
        Self { config, offered }
    }

    /// The same, offering these protocols by ALPN.
    pub fn alpn(mut self, protocols: &[&[u8]]) -> Self {
        self.config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        self
    }

    /// Opens a connection.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(address).await?;
        // As real clients: the end of a request does not wait for the server's acknowledgement.
        tcp.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::new(self.config.clone()));
        soon(connector.connect(ServerName::IpAddress(address.ip().into()), tcp)).await
    }

    /// Opens a connection that the server must refuse; answers how it said so. In TLS 1.3 the
    /// refusal arrives after the client believes the handshake to be over.
    pub async fn refused(&self, address: SocketAddr) -> io::Error {
        match self.connect(address).await {
            Err(error) => error,
            Ok(mut stream) => match soon(stream.read(&mut [0; 1])).await {
                Err(error) => error,
                Ok(count) => panic!("read {count} bytes where a refusal was due"),
            },
        }
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The head, in lower case.
    pub head: String,
    /// The body.
    pub body: String,
    /// The same as it came.
    pub bytes: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Sends `text` and reads one answer; an error when the server closes instead.
pub async fn exchange(stream: &mut TlsStream<TcpStream>, text: &str) -> io::Result<Answer> {
    send(stream, text).await?;
    answer(stream).await
}

/// Sends `GET path` and reads the answer.
pub async fn get(stream: &mut TlsStream<TcpStream>, path: &str) -> io::Result<Answer> {
    exchange(stream, &format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await
}

/// Sends `text` and waits for nothing.
pub async fn send(stream: &mut TlsStream<TcpStream>, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes()).await?;
    stream.flush().await
}

/// Reads one answer with a Content-Length.
pub async fn answer(stream: &mut TlsStream<TcpStream>) -> io::Result<Answer> {
    let mut received = Vec::new();
    let (head_end, length) = loop {
        if soon(stream.read_buf(&mut received)).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&received[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        break (end, length.map_or(0, |text| text.parse::<usize>().unwrap()));
    };
    while received.len() < head_end + 4 + length {
        if soon(stream.read_buf(&mut received)).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let head = String::from_utf8_lossy(&received[..head_end]).to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let bytes = received.split_off(head_end + 4);
    let body = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Answer { status, head, body, bytes })
}

/// Whether the server ends the connection, in whatever manner, without another byte.
pub async fn is_closed(stream: &mut (impl AsyncReadExt + Unpin)) -> bool {
    matches!(soon(stream.read(&mut [0; 64])).await, Ok(0) | Err(_))
}

/// Counts what a server offers for resumption, and resumes nothing.
#[derive(Debug, Default)]
pub struct Offered(AtomicUsize);

impl Offered {
    /// How many sessions or tickets were offered.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl ClientSessionStore for Offered {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, _: Tls13ClientSessionValue) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        None
    }
}
