//! TLS: one configuration per listener, and the only place where a handshake becomes a peer.
//!
//! Nothing is ever resumed: no tickets, no session cache, no early data. A resumed session would
//! carry a client's identity past the verifier.

use std::fmt;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::config::ClientCertificate;
use crate::core::peer::{ClaimedCertificate, PeerError, VerifiedPeer};
use crate::core::trust::TrustStore;
use crate::crypto::x509::{self, ChainError, PemError};
use crate::types::time::Clock;

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// The server's own certificate chain and private key, which belong together.
#[derive(Clone, Debug)]
pub struct ServerIdentity(Arc<CertifiedKey>);

impl ServerIdentity {
    /// From PEM: the certificate followed by its intermediates, and the private key.
    ///
    /// # Errors
    /// Files that are not PEM, keys of an unknown kind, a key of another certificate.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain = x509::certificates_from_pem(chain).map_err(TlsError::Certificate)?;
        let key = x509::private_key_from_pem(key).map_err(TlsError::Key)?;
        let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
            .map_err(TlsError::Identity)?;
        Ok(Self(Arc::new(certified)))
    }
}

/// TLS of one listener. The certificate can be replaced while connections are being accepted.
pub struct ListenerTls {
    acceptor: TlsAcceptor,
    current: Arc<CurrentIdentity>,
}

impl ListenerTls {
    /// TLS that shows `identity` and admits the clients that `trust` accepts.
    ///
    /// # Errors
    /// When the provider cannot serve these protocol versions.
    pub fn new(
        identity: ServerIdentity,
        client_certificate: ClientCertificate,
        trust: Arc<TrustStore>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let verifier = ClientVerifier {
            trust,
            clock,
            mandatory: client_certificate == ClientCertificate::Required,
            algorithms,
        };
        let current = Arc::new(CurrentIdentity(ArcSwap::new(identity.0)));
        let config = server_config(provider, verifier, current.clone())?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), current })
    }

    /// Shows `identity` from the next handshake on.
    pub fn replace_identity(&self, identity: ServerIdentity) {
        self.current.0.store(identity.0);
    }

    /// Does one handshake and reads who came.
    pub(super) async fn handshake(&self, tcp: TcpStream) -> Result<Arrival, HandshakeError> {
        let stream = self.acceptor.accept(tcp).await.map_err(HandshakeError::from_io)?;
        let session = stream.get_ref().1;
        let peer = match session.peer_certificates() {
            Some(chain) => match VerifiedPeer::from_handshake(chain) {
                Ok(peer) => Some(Arc::new(peer)),
                Err(error) => {
                    let certificate = chain.first().map(ClaimedCertificate::read);
                    return Err(HandshakeError::Peer(error, certificate));
                }
            },
            None => None,
        };
        let http2 = session.alpn_protocol() == Some(HTTP2);
        Ok(Arrival { stream, peer, http2 })
    }
}

/// A connection whose handshake is done.
pub(super) struct Arrival {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) peer: Option<Arc<VerifiedPeer>>,
    pub(super) http2: bool,
}

fn server_config(
    provider: Arc<CryptoProvider>,
    verifier: ClientVerifier,
    identity: Arc<CurrentIdentity>,
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Protocol)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    // RFC 7627: without it, a TLS 1.2 client's proof could be replayed on another connection.
    config.require_ems = true;
    Ok(config)
}

#[derive(Debug)]
struct CurrentIdentity(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for CurrentIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Asks the trust store about each client, as it stands at that moment.
struct ClientVerifier {
    trust: Arc<TrustStore>,
    clock: Arc<dyn Clock>,
    mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier").field("mandatory", &self.mandatory).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// None: strangers need not learn whom we trust, and the list changes at run time.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match self.trust.accepts(end_entity, intermediates, self.clock.now()) {
            Ok(()) => Ok(ClientCertVerified::assertion()),
            // One alert for every reason: the peer is not told which of our rules it broke.
            Err(reason) => {
                let certificate = ClaimedCertificate::read(end_entity);
                let refused = RefusedCertificate { reason, certificate };
                Err(CertificateError::Other(OtherError(Arc::new(refused))).into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Why a listener cannot serve TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate file.
    #[error("the certificate: {0}")]
    Certificate(#[source] PemError),
    /// The key cannot be used, or is another certificate's.
    #[error("the certificate and the key do not make an identity: {0}")]
    Identity(#[source] rustls::Error),
    /// The key file.
    #[error("the private key: {0}")]
    Key(#[source] PemError),
    /// The TLS library.
    #[error("TLS cannot be set up")]
    Protocol(#[source] rustls::Error),
}

/// A certificate that the trust store does not accept.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub(super) struct RefusedCertificate {
    reason: ChainError,
    certificate: ClaimedCertificate,
}

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    /// The client went away, or the network did.
    #[error("the connection was lost")]
    Lost(#[source] io::Error),
    /// No certificate where one is required.
    #[error("no client certificate")]
    NoCertificate,
    /// The certificate is trusted and cannot be read without doubt.
    #[error("{0}")]
    Peer(PeerError, Option<ClaimedCertificate>),
    /// The client's certificate is not trusted.
    #[error(transparent)]
    Refused(Box<RefusedCertificate>),
    /// It took too long.
    #[error("the handshake took too long")]
    Timeout,
    /// Whatever else TLS finds fault with.
    #[error("TLS: {0}")]
    Tls(#[source] rustls::Error),
}

impl HandshakeError {
    /// A short name for metrics.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Lost(_) => "lost",
            Self::NoCertificate => "no_certificate",
            Self::Peer(..) => "unreadable_certificate",
            Self::Refused(refused) => refused.reason.as_str(),
            Self::Timeout => "timeout",
            Self::Tls(_) => "tls",
        }
    }

    /// Whether it is the client's identity that was not good enough, rather than its TLS.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::NoCertificate | Self::Peer(..) | Self::Refused(_) => true,
            Self::Tls(error) => matches!(error, rustls::Error::InvalidCertificate(_)),
            Self::Lost(_) | Self::Timeout => false,
        }
    }

    /// What the refused certificate says of itself.
    pub(super) fn certificate(&self) -> Option<&ClaimedCertificate> {
        match self {
            Self::Peer(_, certificate) => certificate.as_ref(),
            Self::Refused(refused) => Some(&refused.certificate),
            Self::Lost(_) | Self::NoCertificate | Self::Timeout | Self::Tls(_) => None,
        }
    }

    fn from_io(error: io::Error) -> Self {
        let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
        else {
            return Self::Lost(error);
        };
        if let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(reason))) = tls
            && let Some(refused) = reason.downcast_ref::<RefusedCertificate>()
        {
            return Self::Refused(Box::new(refused.clone()));
        }
        if matches!(tls, rustls::Error::NoCertificatesPresented) {
            return Self::NoCertificate;
        }
        Self::Tls(tls.clone())
    }
}
