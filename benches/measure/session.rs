//! A client as lean as can be, so that the server is what is measured: TLS with a certificate, and
//! HTTP/1.1 written and read by hand.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::support::pki::Issued;

/// Where to go, and with which certificate.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    server_ca: CertificateDer<'static>,
    connector: TlsConnector,
    logs_in: bool,
}

impl Client {
    /// Trusts `server_ca` and shows `identity`.
    pub fn new(
        address: SocketAddr,
        server_ca: &CertificateDer<'static>,
        identity: &Issued,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(server_ca.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![identity.der.clone()], identity.key())
            .unwrap();
        // Every new connection is a whole handshake, as a service's first one is.
        config.resumption = rustls::client::Resumption::disabled();
        let (server_ca, connector) = (server_ca.clone(), TlsConnector::from(Arc::new(config)));
        Self { address, server_ca, connector, logs_in: false }
    }

    /// Another workload at the same address.
    pub fn shows(&self, identity: &Issued) -> Self {
        Self { logs_in: self.logs_in, ..Self::new(self.address, &self.server_ca, identity) }
    }

    /// Where it goes.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same at another address.
    pub fn to(&self, address: SocketAddr) -> Self {
        Self { address, ..self.clone() }
    }

    /// The same, logging in by its certificate at the begin of each connection, for servers to which a
    /// certificate alone says nothing.
    pub fn logging_in(mut self) -> Self {
        self.logs_in = true;
        self
    }
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("the connection failed: {0}")]
    Connection(#[from] io::Error),
    #[error("{status}: {body}")]
    Refused { status: u16, retry_after_secs: Option<u64>, body: String },
    #[error("the answer has no {0}")]
    Answer(&'static str),
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub method: &'static str,
    /// From `/v1/` on.
    pub path: &'a str,
    pub body: &'a str,
    /// Whether the answer is to be wrapped.
    pub wrapped: bool,
}

impl<'a> Ask<'a> {
    pub fn get(path: &'a str) -> Self {
        Self { method: "GET", path, body: "", wrapped: false }
    }

    pub fn post(path: &'a str, body: &'a str) -> Self {
        Self { method: "POST", path, body, wrapped: false }
    }

    pub fn wrapped(mut self) -> Self {
        self.wrapped = true;
        self
    }
}

/// One connection, made when it is needed.
pub struct Session {
    client: Client,
    stream: Option<TlsStream<TcpStream>>,
    token: Option<String>,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

impl Session {
    pub fn new(client: Client) -> Self {
        let (outgoing, incoming) = (Vec::with_capacity(1024), Vec::with_capacity(16 * 1024));
        Self { client, stream: None, token: None, outgoing, incoming }
    }

    /// Connects, and logs in where that is needed.
    pub async fn open(&mut self) -> Result<(), Failure> {
        let tcp = TcpStream::connect(self.client.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.client.address.ip().into());
        self.stream = Some(self.client.connector.connect(name, tcp).await?);
        if self.client.logs_in {
            let ask = Ask::post("/v1/auth/cert/login", r#"{"name":"workload"}"#);
            let answer = self.exchange(ask).await?;
            self.token = Some(text_of(answer, "client_token")?.to_owned());
        }
        Ok(())
    }

    /// Lets go of the connection.
    pub fn close(&mut self) {
        self.stream = None;
        self.token = None;
    }

    /// Sends one request and answers with the body of a success.
    pub async fn ask(&mut self, ask: Ask<'_>) -> Result<&[u8], Failure> {
        if self.stream.is_none() {
            self.open().await?;
        }
        self.exchange(ask).await
    }

    async fn exchange(&mut self, ask: Ask<'_>) -> Result<&[u8], Failure> {
        let Self { stream, token, outgoing, incoming, .. } = self;
        let stream = stream.as_mut().ok_or(io::ErrorKind::NotConnected).map_err(io::Error::from)?;
        let Ask { method, path, body, wrapped } = ask;
        outgoing.clear();
        write!(outgoing, "{method} {path} HTTP/1.1\r\nHost: localhost\r\n")?;
        if let Some(token) = token {
            write!(outgoing, "X-Vault-Token: {token}\r\n")?;
        }
        if wrapped {
            write!(outgoing, "X-Vault-Wrap-TTL: 60\r\n")?;
        }
        if !body.is_empty() {
            write!(
                outgoing,
                "Content-Type: application/json\r\nContent-Length: {}\r\n",
                body.len()
            )?;
        }
        write!(outgoing, "\r\n{body}")?;
        stream.write_all(outgoing).await?;
        stream.flush().await?;
        let head = receive(stream, incoming).await?;
        let body = &incoming[head.body..];
        if (200..300).contains(&head.status) {
            return Ok(body);
        }
        let body = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        Err(Failure::Refused { status: head.status, retry_after_secs: head.retry_after_secs, body })
    }
}

/// The text of a field, wherever it stands in the answer. Tokens and ids have no escapes.
pub fn text_of<'a>(answer: &'a [u8], field: &'static str) -> Result<&'a str, Failure> {
    let missing = || Failure::Answer(field);
    let answer = std::str::from_utf8(answer).map_err(|_| missing())?;
    let mut rest = answer;
    while let Some(at) = rest.find(field) {
        rest = &rest[at + field.len()..];
        if let Some(value) = rest.strip_prefix("\":\"") {
            return value.split('"').next().filter(|text| !text.is_empty()).ok_or_else(missing);
        }
    }
    Err(missing())
}

struct Head {
    status: u16,
    retry_after_secs: Option<u64>,
    /// Where the body begins.
    body: usize,
}

/// Reads one answer; `incoming` ends with its body.
async fn receive(stream: &mut TlsStream<TcpStream>, incoming: &mut Vec<u8>) -> io::Result<Head> {
    incoming.clear();
    let end = loop {
        let known = incoming.len().saturating_sub(3);
        more(stream, incoming).await?;
        if let Some(at) = incoming[known..].windows(4).position(|four| four == b"\r\n\r\n") {
            break known + at;
        }
    };
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let (mut length, mut chunked, mut retry_after_secs) = (0, false, None);
    let text = std::str::from_utf8(&incoming[..end]).map_err(|_| bad())?;
    let status = text.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(bad)?;
    for (name, value) in text.split("\r\n").filter_map(|line| line.split_once(": ")) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().map_err(|_| bad())?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value.eq_ignore_ascii_case("chunked");
        } else if name.eq_ignore_ascii_case("retry-after") {
            retry_after_secs = value.parse().ok();
        }
    }
    let body = end + 4;
    if chunked {
        unchunk(stream, incoming, body).await?;
    } else {
        while incoming.len() < body + length {
            more(stream, incoming).await?;
        }
    }
    Ok(Head { status, retry_after_secs, body })
}

/// Reads a body in chunks (RFC 9112 section 7.1) and leaves it in one piece.
async fn unchunk(
    stream: &mut TlsStream<TcpStream>,
    incoming: &mut Vec<u8>,
    body: usize,
) -> io::Result<()> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let (mut at, mut whole) = (body, body);
    loop {
        let line = loop {
            if let Some(end) = incoming[at..].windows(2).position(|two| two == b"\r\n") {
                break at + end;
            }
            more(stream, incoming).await?;
        };
        let size = std::str::from_utf8(&incoming[at..line]).map_err(|_| bad())?;
        let size = usize::from_str_radix(size, 16).map_err(|_| bad())?;
        let begin = line + 2;
        while incoming.len() < begin + size + 2 {
            more(stream, incoming).await?;
        }
        incoming.copy_within(begin..begin + size, whole);
        whole += size;
        at = begin + size + 2;
        if size == 0 {
            incoming.truncate(whole);
            return Ok(());
        }
    }
}

async fn more(stream: &mut TlsStream<TcpStream>, incoming: &mut Vec<u8>) -> io::Result<()> {
    match stream.read_buf(incoming).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
