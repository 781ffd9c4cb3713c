//! From a URL to the settings of a connection. No error here repeats any part of the URL: it holds a
//! password.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::StorageError;
use crate::crypto::server_trust::{AnyName, AnyServer};
use crate::types::secret::SecretString;

const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
/// How long sent data may stay unacknowledged before the connection counts as lost.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(20);

/// How the connection is protected: libpq's `sslmode`, without the obsolete `allow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protection {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Connection and TLS settings for `url`.
pub(super) fn settings(
    url: &SecretString,
    ca_file: Option<&Path>,
) -> Result<(Config, MakeRustlsConnect), StorageError> {
    let Parts { url, protection, ca_in_url } = split(url.expose())?;
    let ca_file = ca_file.or(ca_in_url.as_deref().map(Path::new));
    let protection = protection.unwrap_or(match ca_file {
        Some(_) => Protection::VerifyFull,
        None => Protection::Prefer,
    });
    let mut config: Config = url.expose().parse().map_err(|_| {
        cannot("the PostgreSQL URL is not of the form postgres://user:password@host:port/database")
    })?;
    config.ssl_mode(match protection {
        Protection::Disable => SslMode::Disable,
        Protection::Prefer => SslMode::Prefer,
        Protection::Require | Protection::VerifyCa | Protection::VerifyFull => SslMode::Require,
    });
    if config.get_application_name().is_none() {
        config.application_name("leasehold");
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIME_MAX);
    }
    config.keepalives_idle(KEEPALIVE_IDLE).tcp_user_timeout(UNACKNOWLEDGED_MAX);
    Ok((config, MakeRustlsConnect::new(tls(protection, ca_file)?)))
}

struct Parts {
    url: SecretString,
    protection: Option<Protection>,
    ca_in_url: Option<String>,
}

/// Takes out of the URL what the driver does not understand.
fn split(url: &str) -> Result<Parts, StorageError> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(cannot("a PostgreSQL URL begins with postgres://"));
    }
    // A question mark before the @ belongs to the password.
    let host = url.find('@').unwrap_or(0);
    let mark = url.get(host..).and_then(|rest| rest.find('?')).map(|mark| host + mark);
    let (base, query) = mark.and_then(|mark| url.split_at_checked(mark)).unwrap_or((url, ""));
    let query = query.trim_start_matches('?');
    let (mut protection, mut ca_in_url, mut rest) = (None, None, Vec::new());
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("sslmode", mode)) => protection = Some(parse_mode(mode)?),
            Some(("sslrootcert", file)) => {
                ca_in_url = Some(percent_decode_str(file).decode_utf8_lossy().into_owned());
            }
            Some(_) | None => rest.push(parameter),
        }
    }
    let mut cleaned = String::with_capacity(url.len() + 1);
    cleaned.push_str(base);
    for (position, parameter) in rest.into_iter().enumerate() {
        cleaned.push(if position == 0 { '?' } else { '&' });
        cleaned.push_str(parameter);
    }
    Ok(Parts { url: SecretString::new(cleaned), protection, ca_in_url })
}

fn parse_mode(mode: &str) -> Result<Protection, StorageError> {
    match mode {
        "disable" => Ok(Protection::Disable),
        "prefer" => Ok(Protection::Prefer),
        "require" => Ok(Protection::Require),
        "verify-ca" => Ok(Protection::VerifyCa),
        "verify-full" => Ok(Protection::VerifyFull),
        _ => Err(cannot(
            "sslmode in the PostgreSQL URL must be disable, prefer, require, verify-ca or verify-full",
        )),
    }
}

fn tls(protection: Protection, ca_file: Option<&Path>) -> Result<ClientConfig, StorageError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| StorageError::Unavailable(Box::new(error)))?;
    let authorities = ca_file.map(|file| authorities(file, &provider)).transpose()?;
    let verifier: Arc<dyn ServerCertVerifier> = match (protection, authorities) {
        (Protection::VerifyFull, Some(authorities)) => authorities,
        // As libpq has it: with authorities at hand, `require` checks the chain.
        (Protection::VerifyCa | Protection::Require, Some(authorities)) => {
            Arc::new(AnyName::new(authorities))
        }
        (Protection::VerifyCa | Protection::VerifyFull, None) => {
            return Err(cannot(
                "sslmode=verify-ca and verify-full need a CA file (or sslrootcert in the URL)",
            ));
        }
        (Protection::Require, None) | (Protection::Disable | Protection::Prefer, _) => {
            Arc::new(AnyServer::new(provider))
        }
    };
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn authorities(
    file: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, StorageError> {
    let unusable = |why: String| cannot(&format!("the CA file {}: {why}", file.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| unusable(e.to_string()))? {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| unusable(error.to_string()))
}

fn cannot(text: &str) -> StorageError {
    StorageError::CannotOpen(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        let settings = settings(&SecretString::new(url.to_owned()), None);
        let error = settings.map(|_| ()).expect_err(url);
        assert!(matches!(error, StorageError::CannotOpen(_)), "{error:?}");
        format!("{error} {error:?}")
    }

    #[test]
    fn no_error_repeats_the_password() {
        for url in [
            "hunter2",
            "mysql://u:hunter2@h/d",
            "postgres://u:hunter2@h:nan/d",
            "postgres://u:hunter2@h/d?sslmode=hunter2",
            "postgres://u:hunter2?sslmode=x@h:nan/d",
            "postgres://u:hunter2/d",
            "postgres://u:p@h/d?sslmode=verify-full&password=hunter2",
            "postgres://u:p@h/d?nonsense=hunter2",
        ] {
            assert!(!refused(url).contains("hunter2"), "{url}");
        }
    }

    #[test]
    fn what_the_driver_does_not_know_is_taken_out_of_the_url() {
        let parts = split(
            "postgresql://u:p@h/d?options=-c%20x&sslmode=verify-ca&sslrootcert=%2Fa%20b&port=1",
        )
        .unwrap();
        assert_eq!(parts.url.expose(), "postgresql://u:p@h/d?options=-c%20x&port=1");
        assert_eq!(parts.protection, Some(Protection::VerifyCa));
        assert_eq!(parts.ca_in_url.as_deref(), Some("/a b"));
        let url = SecretString::new("postgres://u:p?sslmode=no@h/d".into());
        let (config, _) = settings(&url, None).unwrap();
        assert_eq!(config.get_password(), Some(&b"p?sslmode=no"[..]));
        assert_eq!(config.get_ssl_mode(), SslMode::Prefer);
    }

    #[test]
    fn verification_without_an_authority_is_refused() {
        assert!(refused("postgres://u:p@h/d?sslmode=verify-full").contains("CA file"));
        assert!(refused("postgres://u:p@h/d?sslmode=verify-ca").contains("CA file"));
        assert!(refused("postgres://u:p@h/d?sslrootcert=/does/not/exist").contains("/does/not"));
        // An authority makes the strictest mode the default; a file without one is no authority.
        assert!(refused("postgres://u:p@h/d?sslrootcert=/dev/null").contains("/dev/null"));
    }
}
