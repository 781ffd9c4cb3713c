//! TLS from files: whom we trust, and who we are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::error::ClientError;
use super::settings::Settings;

/// Where systems keep the authorities they trust, in the order they are tried.
const SYSTEM_AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// TLS as `settings` say, and whether a client certificate will be presented.
pub(super) struct Tls {
    pub(super) connector: TlsConnector,
    pub(super) presents_certificate: bool,
}

pub(super) fn connector(settings: &Settings) -> Result<Tls, ClientError> {
    let roots = authorities(settings.ca_cert.as_deref())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ClientError::Identity)?
        .with_root_certificates(roots);
    let (mut config, presents_certificate) = match (&settings.client_cert, &settings.client_key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let key = private_key(key)?;
            let config =
                builder.with_client_auth_cert(chain, key).map_err(ClientError::Identity)?;
            (config, true)
        }
        (None, None) => (builder.with_no_client_auth(), false),
        (Some(_), None) | (None, Some(_)) => return Err(ClientError::HalfIdentity),
    };
    // A resumed session would skip the server's look at our certificate, so it offers none.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Tls { connector: TlsConnector::from(Arc::new(config)), presents_certificate })
}

fn authorities(named: Option<&Path>) -> Result<RootCertStore, ClientError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = named {
        for cert in certificates(path)? {
            roots.add(cert).map_err(|_| ClientError::Pem {
                path: path.to_owned(),
                expected: "CA certificate",
            })?;
        }
        return Ok(roots);
    }
    for path in SYSTEM_AUTHORITIES.iter().map(PathBuf::from).filter(|path| path.exists()) {
        // System stores hold oddities; what cannot be parsed is simply not trusted.
        roots.add_parsable_certificates(certificates(&path)?);
        if !roots.is_empty() {
            return Ok(roots);
        }
    }
    Err(ClientError::NoAuthorities)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let pem = std::fs::read(path)
        .map_err(|source| ClientError::File { path: path.to_owned(), source })?;
    let missing = || ClientError::Pem { path: path.to_owned(), expected: "certificate" };
    let certs: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|_| missing())?;
    if certs.is_empty() { Err(missing()) } else { Ok(certs) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, ClientError> {
    let pem = std::fs::read(path)
        .map(Zeroizing::new)
        .map_err(|source| ClientError::File { path: path.to_owned(), source })?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| ClientError::Pem { path: path.to_owned(), expected: "private key" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn failure(settings: &Settings) -> ClientError {
        match connector(settings) {
            Ok(_) => panic!("accepted"),
            Err(error) => error,
        }
    }

    #[test]
    fn half_an_identity_is_refused() {
        let key = rcgen::generate_simple_self_signed(vec!["x".to_owned()]).unwrap();
        let ca = written(&key.cert.pem());
        let settings = Settings {
            ca_cert: Some(ca.path().to_owned()),
            client_cert: Some(ca.path().to_owned()),
            ..Settings::default()
        };
        assert!(matches!(failure(&settings), ClientError::HalfIdentity));
    }

    #[test]
    fn a_file_without_what_it_should_hold_is_named() {
        let empty = written("not a certificate\n");
        let named = |ca: &Path| Settings { ca_cert: Some(ca.to_owned()), ..Settings::default() };
        assert!(matches!(
            failure(&named(empty.path())),
            ClientError::Pem { expected: "certificate", .. }
        ));
        assert!(matches!(failure(&named(Path::new("/no/such"))), ClientError::File { .. }));
        let ca = rcgen::generate_simple_self_signed(vec!["x".to_owned()]).unwrap();
        let ca = written(&ca.cert.pem());
        let settings = Settings {
            client_cert: Some(ca.path().to_owned()),
            client_key: Some(empty.path().to_owned()),
            ..named(ca.path())
        };
        assert!(matches!(failure(&settings), ClientError::Pem { expected: "private key", .. }));
    }
}
