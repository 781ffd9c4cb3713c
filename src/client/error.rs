//! Why a request has no good answer.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

/// What went wrong, told apart by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The configured address is not one we can use.
    #[error("the address \"{address}\" {reason}")]
    Address {
        /// As configured.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A certificate or key file cannot be read.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate or key file does not hold what it should.
    #[error("{path} holds no usable {expected}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        expected: &'static str,
    },
    /// A client certificate without its key, or the other way round.
    #[error("a client certificate needs both a certificate file and a key file")]
    HalfIdentity,
    /// No file of trusted authorities was named and the system has none.
    #[error("no certificate authorities to trust the server by")]
    NoAuthorities,
    /// The certificate and its key do not go together, or TLS cannot use them.
    #[error("the client certificate cannot be used")]
    Identity(#[source] rustls::Error),
    /// A token, namespace or header value that HTTP cannot carry.
    #[error("the {0} has characters that HTTP cannot carry")]
    HeaderValue(&'static str),
    /// A path that cannot be made into a URL.
    #[error("the path \"{0}\" cannot be requested")]
    Path(String),
    /// No TCP connection.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where to.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The server's certificate does not convince us.
    #[error("the certificate of {address} is not trusted")]
    ServerNotTrusted {
        /// Whose.
        address: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The server wants a client certificate, or another one than ours.
    #[error("{address} refused the TLS connection: {alert}")]
    CertificateRefused {
        /// Who refused.
        address: String,
        /// The TLS alert it sent.
        alert: String,
        /// Whether a certificate was presented at all.
        presented: bool,
    },
    /// The TLS handshake failed otherwise.
    #[error("no TLS connection with {address}")]
    Handshake {
        /// With whom.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke before the whole answer was here. What was asked may have happened.
    #[error("the connection to {address} broke before the answer was complete")]
    Interrupted {
        /// With whom.
        address: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// No whole answer in time. What was asked may have happened.
    #[error("no answer from {address} within {secs} s")]
    Timeout {
        /// From whom.
        address: String,
        /// How long we waited, in seconds.
        secs: u64,
    },
    /// An answer beyond what this client reads.
    #[error("the answer is larger than {max_bytes} bytes")]
    TooLarge {
        /// The limit, in bytes.
        max_bytes: usize,
    },
    /// Something answered, but not with JSON.
    #[error("status {status} with a body that is not JSON")]
    NotJson {
        /// The HTTP status.
        status: u16,
        /// What the answer said it was.
        content_type: String,
    },
    /// The server understood and said no.
    #[error("{0}")]
    Refused(Box<Refusal>),
}

impl ClientError {
    /// How long to wait before the same read is worth another try; `None` when it is not.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Connect { source, .. } => {
                (source.kind() == std::io::ErrorKind::ConnectionRefused).then_some(Duration::ZERO)
            }
            Self::Refused(refusal) if refusal.status == 503 => refusal.retry_after,
            Self::Refused(_)
            | Self::Address { .. }
            | Self::File { .. }
            | Self::Pem { .. }
            | Self::HalfIdentity
            | Self::NoAuthorities
            | Self::Identity(_)
            | Self::HeaderValue(_)
            | Self::Path(_)
            | Self::ServerNotTrusted { .. }
            | Self::CertificateRefused { .. }
            | Self::Handshake { .. }
            | Self::Interrupted { .. }
            | Self::Timeout { .. }
            | Self::TooLarge { .. }
            | Self::NotJson { .. } => None,
        }
    }

    /// The status of a refusal, `None` for every other failure.
    pub fn status(&self) -> Option<u16> {
        if let Self::Refused(refusal) = self { Some(refusal.status) } else { None }
    }
}

/// An answer with a status outside 200-299.
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The server's sentences; may be empty.
    pub errors: Vec<String>,
    /// The request's id, to be found in the server's log and audit.
    pub request_id: Option<String>,
    /// How long the server asks us to stay away.
    pub retry_after: Option<Duration>,
    /// The whole body, for the few refusals that carry data.
    pub body: Value,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = match (self.errors.as_slice(), self.status) {
            ([], 404) => "nothing there".to_owned(),
            ([], _) => "refused".to_owned(),
            (errors, _) => errors.join("; "),
        };
        write!(f, "{said} (status {})", self.status)
    }
}

/// Without the body, which may hold what was asked for.
impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusal")
            .field("status", &self.status)
            .field("errors", &self.errors)
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}
