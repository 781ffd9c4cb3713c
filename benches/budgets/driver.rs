//! The load: so many connections, each with one request in flight, for so long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How connections are used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One connection for all requests of a worker.
    KeepAlive,
    /// A new connection for each request.
    Reconnect,
}

/// Where to go, and with which certificate.
#[derive(Clone)]
pub struct Client {
    address: String,
    connector: TlsConnector,
}

/// A request, ready to be written.
pub struct Prepared(Vec<u8>);

pub fn get(path: &str) -> Prepared {
    Prepared(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes())
}

pub fn post(path: &str, body: &str) -> Prepared {
    Prepared(
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes(),
    )
}

/// What a round did.
pub struct Run {
    pub done: usize,
    pub took: Duration,
    micros: Vec<u32>,
}

impl Run {
    pub fn new(done: usize, took: Duration) -> Self {
        Self { done, took, micros: Vec::new() }
    }

    pub fn rate(&self) -> f64 {
        self.done as f64 / self.took.as_secs_f64()
    }

    pub fn latencies(&self) -> String {
        let mut sorted = self.micros.clone();
        sorted.sort_unstable();
        let at = |share: f64| {
            let index = ((sorted.len() - 1) as f64 * share) as usize;
            f64::from(sorted[index]) / 1000.0
        };
        format!("p50 {:.2} ms  p99 {:.2} ms  p99.9 {:.2} ms", at(0.5), at(0.99), at(0.999))
    }
}

impl Client {
    pub fn new(address: &str, ca: &str, certificate: &str, key: &str) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(certificate.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        Self { address: address.to_owned(), connector: TlsConnector::from(Arc::new(config)) }
    }

    pub fn to(&self, address: &str) -> Self {
        Self { address: address.to_owned(), connector: self.connector.clone() }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(&self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        self.connector.connect(name, stream).await.unwrap()
    }

    /// The body of one answer.
    pub async fn get_once(&self, path: &str) -> Vec<u8> {
        let mut stream = self.connect().await;
        exchange(&mut stream, &get(path), &mut Vec::new()).await
    }

    pub async fn post_once(&self, path: &str, body: &str) -> Vec<u8> {
        let mut stream = self.connect().await;
        exchange(&mut stream, &post(path, body), &mut Vec::new()).await
    }
}

/// Sends one request and reads one answer; anything but a success ends the measurement.
async fn exchange(
    stream: &mut TlsStream<TcpStream>,
    request: &Prepared,
    buffer: &mut Vec<u8>,
) -> Vec<u8> {
    stream.write_all(&request.0).await.unwrap();
    stream.flush().await.unwrap();
    buffer.clear();
    loop {
        let mut chunk = [0u8; 8192];
        let read = stream.read(&mut chunk).await.unwrap();
        assert!(read > 0, "the server closed the connection");
        buffer.extend_from_slice(&chunk[..read]);
        let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = std::str::from_utf8(&buffer[..end]).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 2"), "{head}\n{}", String::from_utf8_lossy(buffer));
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |text| text.parse().unwrap());
        if buffer.len() >= end + 4 + length {
            return buffer[end + 4..].to_vec();
        }
    }
}

/// Runs `connections` workers for `time`.
pub async fn run(
    client: &Client,
    mode: Mode,
    connections: usize,
    time: Duration,
    request: impl Fn(usize, usize) -> Prepared + Clone + Send + 'static,
) -> Run {
    let begun = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..connections {
        let (client, request) = (client.clone(), request.clone());
        workers.spawn(async move {
            let mut micros = Vec::new();
            let mut buffer = Vec::with_capacity(16 * 1024);
            let mut kept = match mode {
                Mode::KeepAlive => Some(client.connect().await),
                Mode::Reconnect => None,
            };
            while begun.elapsed() < time {
                let prepared = request(worker, micros.len());
                let sent = Instant::now();
                match &mut kept {
                    Some(stream) => exchange(stream, &prepared, &mut buffer).await,
                    None => exchange(&mut client.connect().await, &prepared, &mut buffer).await,
                };
                micros.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            micros
        });
    }
    let micros: Vec<u32> = workers.join_all().await.into_iter().flatten().collect();
    Run { done: micros.len(), took: begun.elapsed(), micros }
}
