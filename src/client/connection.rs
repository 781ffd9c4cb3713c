//! TCP, TLS and HTTP/1.1 to one address, with connections kept for the next request.

use std::error::Error as _;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::StatusCode;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::HeaderMap;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::error::ClientError;
use super::tls::Tls;

/// Largest answer read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Connections kept open while nothing is asked.
const IDLE_CONNECTIONS_MAX: usize = 8;

type Message = hyper::Request<Full<Bytes>>;

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// A parsed `https://host:port`.
pub(super) struct Address {
    text: String,
    authority: String,
    host: String,
    port: u16,
    server_name: ServerName<'static>,
}

impl Address {
    pub(super) fn parse(text: &str, server_name: Option<&str>) -> Result<Self, ClientError> {
        let wrong = |reason| ClientError::Address { address: text.to_owned(), reason };
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(wrong("has no scheme; write https://host:port"));
        };
        if scheme != "https" {
            return Err(wrong("is not https; secrets travel over TLS only"));
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.is_empty() || authority.contains(['/', '?', '#', '@', ' ']) {
            return Err(wrong("must be https://host:port and nothing more"));
        }
        let parsed: hyper::http::uri::Authority =
            authority.parse().map_err(|_| wrong("is not a valid host and port"))?;
        let host = parsed.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = match authority.strip_prefix(parsed.host()).unwrap_or_default() {
            "" => 443,
            port => match port.strip_prefix(':').map(str::parse::<u16>) {
                Some(Ok(port)) => port,
                Some(Err(_)) | None => return Err(wrong("has a port that is not one")),
            },
        };
        let name = server_name.unwrap_or(&host).to_owned();
        let server_name =
            ServerName::try_from(name).map_err(|_| wrong("has no usable host name"))?;
        Ok(Self {
            text: format!("https://{authority}"),
            authority: authority.to_owned(),
            host,
            port,
            server_name,
        })
    }
}

/// One HTTP/1.1 connection; the task that drives it ends with it.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _driver: AbortOnDropHandle<()>,
}

/// Connections to one server.
pub(super) struct Connections {
    address: Address,
    tls: Tls,
    idle: Mutex<Vec<Connection>>,
}

impl Connections {
    pub(super) fn new(address: Address, tls: Tls) -> Self {
        Self { address, tls, idle: Mutex::new(Vec::new()) }
    }

    pub(super) fn address(&self) -> &str {
        &self.address.text
    }

    pub(super) fn authority(&self) -> &str {
        &self.address.authority
    }

    /// Sends `message` and reads the whole answer. A kept connection may turn out to be dead:
    /// what was provably not sent goes out again on a new one, and so does a read.
    pub(super) async fn exchange(
        &self,
        message: Message,
        is_read: bool,
    ) -> Result<Answer, ClientError> {
        let spare = is_read.then(|| message.clone());
        let message = match self.take_idle() {
            None => message,
            Some(mut connection) => match connection.sender.try_send_request(message).await {
                Ok(response) => return self.finish(connection, response).await,
                Err(mut error) => match error.take_message().or(spare) {
                    Some(message) => message,
                    None => return Err(self.interrupted(error.into_error())),
                },
            },
        };
        let mut connection = self.connect().await?;
        match connection.sender.send_request(message).await {
            Ok(response) => self.finish(connection, response).await,
            Err(error) => Err(self.interrupted(error)),
        }
    }

    async fn finish(
        &self,
        connection: Connection,
        response: hyper::Response<hyper::body::Incoming>,
    ) -> Result<Answer, ClientError> {
        let (head, body) = response.into_parts();
        let body = match Limited::new(body, ANSWER_BYTES_MAX).collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) => {
                return Err(match error.downcast::<hyper::Error>() {
                    Ok(source) => self.interrupted(*source),
                    Err(_) => ClientError::TooLarge { max_bytes: ANSWER_BYTES_MAX },
                });
            }
        };
        self.keep(connection);
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(connection) = idle.pop() {
            if connection.sender.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !connection.sender.is_closed() && idle.len() < IDLE_CONNECTIONS_MAX {
            idle.push(connection);
        }
    }

    async fn connect(&self) -> Result<Connection, ClientError> {
        let address = || self.address.text.clone();
        let tcp = TcpStream::connect((self.address.host.as_str(), self.address.port))
            .await
            .map_err(|source| ClientError::Connect { address: address(), source })?;
        // Requests are small and waited for; losing the option costs only latency.
        let _ = tcp.set_nodelay(true);
        let name = self.address.server_name.clone();
        let stream = match self.tls.connector.connect(name, tcp).await {
            Ok(stream) => stream,
            Err(source) => {
                let known = rustls_cause(&source).cloned().and_then(|e| self.tls_error(e));
                return Err(
                    known.unwrap_or_else(|| ClientError::Handshake { address: address(), source })
                );
            }
        };
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| self.interrupted(error))?;
        let driver = tokio::spawn(async move {
            // What breaks a connection is reported by the request that was on it.
            let _ = connection.await;
        });
        Ok(Connection { sender, _driver: AbortOnDropHandle::new(driver) })
    }

    /// In TLS 1.3 a refused client certificate shows only after the handshake, at the first read.
    fn interrupted(&self, source: hyper::Error) -> ClientError {
        let mut cause = source.source();
        while let Some(error) = cause {
            let tls = error.downcast_ref::<std::io::Error>().and_then(rustls_cause);
            if let Some(known) = tls.cloned().and_then(|error| self.tls_error(error)) {
                return known;
            }
            cause = error.source();
        }
        ClientError::Interrupted { address: self.address.text.clone(), source }
    }

    fn tls_error(&self, error: rustls::Error) -> Option<ClientError> {
        let address = self.address.text.clone();
        if let rustls::Error::AlertReceived(alert) = error {
            let presented = self.tls.presents_certificate;
            let alert = format!("{alert:?}");
            return Some(ClientError::CertificateRefused { address, alert, presented });
        }
        matches!(error, rustls::Error::InvalidCertificate(_))
            .then_some(ClientError::ServerNotTrusted { address, source: error })
    }
}

fn rustls_cause(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_https_host_and_port_and_nothing_more() {
        let parsed = Address::parse("https://[::1]:8200/", None).unwrap();
        assert_eq!((parsed.host.as_str(), parsed.port), ("::1", 8200));
        assert_eq!(parsed.authority, "[::1]:8200");
        assert_eq!(Address::parse("https://vault.example.org", None).unwrap().port, 443);
        for wrong in [
            "127.0.0.1:8200",
            "http://127.0.0.1:8200",
            "https://",
            "https://user@host:1",
            "https://host:1/v1",
            "https://host:1?x",
            "https://host:99999",
            "https://ho st",
        ] {
            assert!(Address::parse(wrong, None).is_err(), "{wrong}");
        }
    }
}
