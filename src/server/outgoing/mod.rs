//! Requests to other servers, to the hosts that the configuration names and to no others.
//!
//! Who may write a mount's configuration must not thereby get to make the server call wherever they
//! like, nor learn what is in the inside network. So hosts are allowed one by one with their ports,
//! redirects are not followed, sizes and times are bounded, and what comes back is shown to nobody.

mod target;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::config::Auth;
use super::files::{self, FileError};
use super::tls::TlsError;
use crate::core::outgoing::{Outgoing, OutgoingAnswer, OutgoingError, OutgoingRequest, Payload};
use crate::crypto::x509::Anchors;
use crate::types::secret::SecretBytes;

pub(super) use target::{Hosts, Target};

/// Longest time for one request, connecting included.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// Most requests under way at once, of all mounts together.
const RUNNING_MAX: usize = 64;

/// Most requests under way at once, of one mount: its log-ins are public, and must not take all places
/// from the others.
const PER_MOUNT_MAX: usize = 16;

/// One mount's share of what a server asks others by.
pub struct MountRequests {
    all: Arc<dyn Outgoing>,
    running: Semaphore,
}

impl MountRequests {
    /// A share of `all`.
    pub fn new(all: Arc<dyn Outgoing>) -> Self {
        Self { all, running: Semaphore::new(PER_MOUNT_MAX) }
    }
}

#[async_trait]
impl Outgoing for MountRequests {
    async fn send(&self, request: OutgoingRequest<'_>) -> Result<OutgoingAnswer, OutgoingError> {
        let _place = self.running.try_acquire().map_err(|_| busy("mount"))?;
        self.all.send(request).await
    }

    fn check(&self, url: &str) -> Result<(), OutgoingError> {
        self.all.check(url)
    }
}

fn busy(of: &'static str) -> OutgoingError {
    metrics::counter!("leasehold_outgoing_refused_total", "places" => of).increment(1);
    OutgoingError::Busy
}

/// What a server asks others by.
pub struct OutgoingRequests {
    hosts: Hosts,
    /// What servers are checked against whose mount names no authorities.
    tls: Option<TlsConnector>,
    running: Semaphore,
}

impl OutgoingRequests {
    /// As the configuration says. Reads the file of authorities.
    ///
    /// # Errors
    /// When that file cannot be used.
    pub fn new(config: &Auth) -> Result<Self, FileError> {
        let path = &config.outgoing_ca_file;
        let tls = if path.as_os_str().is_empty() {
            None
        } else {
            let anchors = files::read_anchors(path)?;
            Some(connector(&anchors).map_err(|error| files::tls_fault(path, error))?)
        };
        Ok(Self {
            hosts: Hosts::new(&config.outgoing_hosts, "auth.outgoing_hosts"),
            tls,
            running: Semaphore::new(RUNNING_MAX),
        })
    }

    fn target(&self, url: &str) -> Result<Target, OutgoingError> {
        let target = self.hosts.target(url).map_err(OutgoingError::Refused)?;
        if !target.tls && !target.is_loopback() {
            let text = "must begin with https://, unless the host is this machine";
            return Err(OutgoingError::Refused(text.into()));
        }
        Ok(target)
    }

    fn tls_for(&self, authorities: &str) -> Result<TlsConnector, OutgoingError> {
        let refused = |text: String| OutgoingError::Refused(text);
        if authorities.is_empty() {
            return self.tls.clone().ok_or_else(|| {
                let text = "is https, which needs the authorities of its certificate: in the mount's \
                            configuration, or in auth.outgoing_ca_file of the server's";
                refused(text.into())
            });
        }
        let anchors = Anchors::from_pem(authorities.as_bytes())
            .map_err(|error| refused(format!("has authorities that cannot be used: {error}")))?;
        connector(&anchors).map_err(|error| refused(error.to_string()))
    }
}

#[async_trait]
impl Outgoing for OutgoingRequests {
    async fn send(&self, request: OutgoingRequest<'_>) -> Result<OutgoingAnswer, OutgoingError> {
        let target = self.target(request.url)?;
        let tls = if target.tls { Some(self.tls_for(request.authorities)?) } else { None };
        let http = http_request(&target, &request)?;
        let _place = self.running.try_acquire().map_err(|_| busy("server"))?;
        let limit = request.answer_bytes_max;
        let exchanged = tokio::time::timeout(REQUEST_MAX, ask(&target, tls, http, limit)).await;
        let (status, body) = exchanged
            .unwrap_or_else(|_| Err("did not answer in time".into()))
            .map_err(OutgoingError::Failed)?;
        if status.is_redirection() {
            let text = "redirects, which is not followed: name where it leads to";
            return Err(OutgoingError::Failed(text.into()));
        }
        Ok(OutgoingAnswer { status: status.as_u16(), body: SecretBytes::new(body) })
    }

    fn check(&self, url: &str) -> Result<(), OutgoingError> {
        self.target(url).map(|_| ())
    }
}

fn http_request(
    target: &Target,
    request: &OutgoingRequest<'_>,
) -> Result<Request<Full<Bytes>>, OutgoingError> {
    let (method, media_type, body) = match request.payload {
        Payload::None => (Method::GET, None, Bytes::new()),
        Payload::Form(form) => {
            let body = Bytes::copy_from_slice(form.expose().as_bytes());
            (Method::POST, Some("application/x-www-form-urlencoded"), body)
        }
        Payload::Json(json) => {
            (Method::POST, Some("application/json"), Bytes::copy_from_slice(json.expose()))
        }
    };
    let mut http = base(method, target).header(header::ACCEPT, "application/json");
    if let Some(media_type) = media_type {
        http = http.header(header::CONTENT_TYPE, media_type);
    }
    if let Some(authorization) = request.authorization {
        let mut value = HeaderValue::from_str(authorization.expose()).map_err(|_| {
            OutgoingError::Refused("has a credential that no header can hold".into())
        })?;
        value.set_sensitive(true);
        http = http.header(header::AUTHORIZATION, value);
    }
    http.body(Full::new(body))
        .map_err(|_| OutgoingError::Refused("is no URL that can be asked for".into()))
}

/// A request with what every one of ours has.
pub(super) fn base(method: Method, target: &Target) -> hyper::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(target.path.as_str())
        .header(header::HOST, target.authority.as_str())
        .header(header::USER_AGENT, "leasehold")
        .header(header::CONNECTION, "close")
}

/// TLS that trusts servers below `anchors`, and nobody else.
pub(super) fn connector(anchors: &Anchors) -> Result<TlsConnector, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(anchors.certificates().iter().cloned());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Protocol)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// One request and its answer, on a connection of its own: by TLS where `tls` is given. The errors say
/// what the server did, and quote nothing of what it sent.
pub(super) async fn ask(
    target: &Target,
    tls: Option<TlsConnector>,
    request: Request<Full<Bytes>>,
    bytes_max: usize,
) -> Result<(StatusCode, Vec<u8>), String> {
    let unreachable = |error: io::Error| format!("cannot be reached: {error}");
    let tcp = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(unreachable)?;
    // A name is this machine's when it leads here, not when it says so.
    let elsewhere = !tcp.peer_addr().map_err(unreachable)?.ip().to_canonical().is_loopback();
    if elsewhere && target.is_loopback() {
        return Err("leads to another machine".into());
    }
    match tls {
        Some(tls) => {
            let name = ServerName::try_from(target.host.clone())
                .map_err(|_| "has no usable host name".to_owned())?;
            let connected = tls.connect(name, tcp).await;
            let stream = connected.map_err(|error| format!("cannot be trusted: {error}"))?;
            exchange(stream, request, bytes_max).await
        }
        None => exchange(tcp, request, bytes_max).await,
    }
}

async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    bytes_max: usize,
) -> Result<(StatusCode, Vec<u8>), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| format!("broke off: {error}");
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // What breaks the connection is reported by the request that is on it.
    let _driver = AbortOnDropHandle::new(tokio::spawn(async move {
        let _ = connection.await;
    }));
    let answer = sender.send_request(request).await.map_err(broken)?;
    let status = answer.status();
    match Limited::new(answer.into_body(), bytes_max).collect().await {
        Ok(body) => Ok((status, body.to_bytes().to_vec())),
        Err(error) => Err(match error.downcast::<hyper::Error>() {
            Ok(error) => broken(*error),
            Err(_) => format!("is larger than {}", size(bytes_max)),
        }),
    }
}

fn size(bytes: usize) -> String {
    match (bytes % (1 << 20), bytes % (1 << 10)) {
        (0, _) => format!("{} MiB", bytes >> 20),
        (_, 0) => format!("{} KiB", bytes >> 10),
        (..) => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests;
