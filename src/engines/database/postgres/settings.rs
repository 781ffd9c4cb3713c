//! How to reach a PostgreSQL server: a URL with placeholders for the user, and TLS material.
//!
//! `sslmode` means what it means to libpq, without its fallbacks to clear text: `disable`,
//! `require` (encrypted; the server is not verified unless a CA is given), `verify-ca`,
//! `verify-full`. Without it, a CA means `verify-full`, and a server on this machine `disable`;
//! anything else must say what it wants.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::crypto::server_trust::{AnyName, AnyServer};
use crate::types::secret::SecretString;
use crate::types::time::Ttl;

const USER_SLOT: &str = "{{username}}";
const PASSWORD_SLOT: &str = "{{password}}";
/// Stands for a placeholder while the URL is parsed.
const USER_MARK: &str = "leasehold-user-slot";
const PASSWORD_MARK: &str = "leasehold-password-slot";
/// Longest URL, in bytes.
const URL_BYTES_MAX: usize = 2048;
/// Most connections to one target.
pub const CONNECTIONS_MAX: usize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What an operator configures about one PostgreSQL target.
pub struct PostgresConfig<'a> {
    /// `postgresql://{{username}}:{{password}}@host:port/database?options`.
    pub connection_url: &'a str,
    /// The broker's own user.
    pub username: &'a str,
    /// Its password, and while a rotation is under way the other one; tried in this order.
    pub passwords: Vec<SecretString>,
    /// PEM of the CAs that the server's certificate must chain to.
    pub tls_ca: Option<&'a str>,
    /// PEM of a client certificate chain.
    pub tls_certificate: Option<&'a str>,
    /// PEM of its key.
    pub private_key: Option<&'a SecretString>,
    /// Most connections at a time.
    pub max_open_connections: usize,
    /// Most of them kept open while idle.
    pub max_idle_connections: usize,
    /// How long one may be used; zero for ever.
    pub max_connection_lifetime: Ttl,
}

/// Settings that were understood.
pub(super) struct Settings {
    pub base: tokio_postgres::Config,
    pub passwords: Vec<SecretString>,
    pub tls: Option<MakeRustlsConnect>,
    pub max_open: usize,
    pub max_idle: usize,
    pub max_lifetime: Ttl,
    /// The connection is encrypted to whoever answers.
    pub server_unverified: bool,
}

/// A setting that was refused, by the name of its field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct SettingsError {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

fn refuse<T>(field: &'static str, problem: impl Into<String>) -> Result<T, SettingsError> {
    Err(SettingsError { field, problem: problem.into() })
}

impl Settings {
    pub(super) fn parse(config: PostgresConfig<'_>) -> Result<Self, SettingsError> {
        let (text, mode) = split_url(config.connection_url)?;
        let mut base = parse_url(&text, config.username)?;
        let mode = match mode {
            Some(mode) => mode,
            None if config.tls_ca.is_some() => Mode::VerifyFull,
            None if is_local(&base) => Mode::Disable,
            None => {
                return refuse(
                    "connection_url",
                    "must say sslmode=verify-full (with tls_ca), or sslmode=disable if clear \
                     text over the network is meant",
                );
            }
        };
        let (tls, server_unverified) = tls(mode, &config)?;
        base.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        base.application_name("leasehold");
        if base.get_connect_timeout().is_none() {
            base.connect_timeout(CONNECT_TIMEOUT);
        }
        if !(1..=CONNECTIONS_MAX).contains(&config.max_open_connections) {
            return refuse("max_open_connections", "must be from 1 to 64");
        }
        Ok(Self {
            base,
            passwords: config.passwords,
            tls,
            max_open: config.max_open_connections,
            max_idle: config.max_idle_connections.min(config.max_open_connections),
            max_lifetime: config.max_connection_lifetime,
            server_unverified,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Disable,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Takes `sslmode` out of the URL and refuses what names files on the server's disk.
fn split_url(url: &str) -> Result<(String, Option<Mode>), SettingsError> {
    const FIELD: &str = "connection_url";
    if url.is_empty() {
        return refuse(FIELD, "is required");
    }
    if url.len() > URL_BYTES_MAX || url.contains(char::is_control) {
        return refuse(FIELD, "is longer than 2048 bytes or holds control characters");
    }
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return refuse(FIELD, "must begin with postgresql://");
    }
    for mark in [USER_MARK, PASSWORD_MARK] {
        if url.contains(mark) {
            return refuse(FIELD, format!("must not hold the text {mark}"));
        }
    }
    for slot in [USER_SLOT, PASSWORD_SLOT] {
        if url.matches(slot).count() > 1 {
            return refuse(FIELD, format!("has {slot} more than once"));
        }
    }
    let marked = url.replace(USER_SLOT, USER_MARK).replace(PASSWORD_SLOT, PASSWORD_MARK);
    let Some((address, query)) = marked.split_once('?') else { return Ok((marked, None)) };
    let mut mode = None;
    let mut kept = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("sslmode", value)) => mode = Some(parse_mode(value)?),
            Some(("sslrootcert", _)) => return refuse(FIELD, "has sslrootcert; use tls_ca"),
            Some(("sslcert", _)) => return refuse(FIELD, "has sslcert; use tls_certificate"),
            Some(("sslkey", _)) => return refuse(FIELD, "has sslkey; use private_key"),
            Some(_) | None => kept.push(parameter),
        }
    }
    let text =
        if kept.is_empty() { address.to_owned() } else { format!("{address}?{}", kept.join("&")) };
    Ok((text, mode))
}

fn parse_mode(value: &str) -> Result<Mode, SettingsError> {
    match value {
        "disable" => Ok(Mode::Disable),
        "require" => Ok(Mode::Require),
        "verify-ca" => Ok(Mode::VerifyCa),
        "verify-full" => Ok(Mode::VerifyFull),
        "allow" | "prefer" => refuse(
            "connection_url",
            "has an sslmode that may fall back to clear text; use verify-full, or disable",
        ),
        _ => refuse(
            "connection_url",
            "has an unknown sslmode; use verify-full, verify-ca, require or disable",
        ),
    }
}

fn parse_url(text: &str, username: &str) -> Result<tokio_postgres::Config, SettingsError> {
    const FIELD: &str = "connection_url";
    let mut config: tokio_postgres::Config = match text.parse() {
        Ok(config) => config,
        Err(error) => return refuse(FIELD, format!("is malformed: {}", root_cause(&error))),
    };
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return refuse(FIELD, "names no host");
    }
    match config.get_password() {
        None if text.contains(PASSWORD_MARK) => {
            return refuse(FIELD, "has {{password}} where no password belongs");
        }
        Some(password) if password != PASSWORD_MARK.as_bytes() => {
            return refuse(FIELD, "holds a password, which can be read back; use {{password}}");
        }
        None | Some(_) => {}
    }
    match config.get_user() {
        Some(USER_MARK) if username.is_empty() => return refuse("username", "is required"),
        Some(USER_MARK) => {
            config.user(username);
        }
        Some(_) if !username.is_empty() => {
            return refuse(FIELD, "names a user although username is set; use {{username}}");
        }
        None if text.contains(USER_MARK) => {
            return refuse(FIELD, "has {{username}} where no user belongs");
        }
        None if username.is_empty() => return refuse("username", "is required"),
        None => {
            config.user(username);
        }
        Some(_) => {}
    }
    Ok(config)
}

fn root_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), root_cause)
}

/// Whether every address is this machine.
fn is_local(config: &tokio_postgres::Config) -> bool {
    let hosts = config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost"
                || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    });
    hosts && config.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback)
}

fn tls(
    mode: Mode,
    config: &PostgresConfig<'_>,
) -> Result<(Option<MakeRustlsConnect>, bool), SettingsError> {
    if config.tls_certificate.is_some() != config.private_key.is_some() {
        return refuse("private_key", "and tls_certificate must be given together");
    }
    if mode == Mode::Disable {
        if config.tls_ca.is_some() || config.tls_certificate.is_some() {
            return refuse("connection_url", "has sslmode=disable although TLS material is given");
        }
        return Ok((None, false));
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let roots = config.tls_ca.map(|pem| verifier(pem, &provider)).transpose()?;
    let unverified = roots.is_none();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| SettingsError { field: "tls_ca", problem: error.to_string() })?;
    let builder = match (mode, roots) {
        (Mode::VerifyFull, Some(roots)) => builder.with_webpki_verifier(roots),
        // libpq also verifies the chain under `require` when it has a CA.
        (Mode::VerifyCa | Mode::Require, Some(roots)) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName::new(roots)))
        }
        (Mode::Require, None) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer::new(provider)))
        }
        (Mode::VerifyFull | Mode::VerifyCa | Mode::Disable, None) | (Mode::Disable, Some(_)) => {
            return refuse("tls_ca", "is required to verify the server");
        }
    };
    let client = match (config.tls_certificate, config.private_key) {
        (Some(certificate), Some(key)) => {
            let chain = certificates("tls_certificate", certificate)?;
            let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).map_err(|_| {
                SettingsError { field: "private_key", problem: "is not a PEM key".into() }
            })?;
            builder.with_client_auth_cert(chain, key).map_err(|_| SettingsError {
                field: "private_key",
                problem: "does not belong to tls_certificate".into(),
            })?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok((Some(MakeRustlsConnect::new(client)), unverified))
}

fn certificates(
    field: &'static str,
    pem: &str,
) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => refuse(field, "holds no PEM certificate"),
    }
}

fn verifier(
    pem: &str,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, SettingsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates("tls_ca", pem)? {
        if store.add(certificate).is_err() {
            return refuse("tls_ca", "holds a certificate that cannot be a CA");
        }
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
        .build()
        .or_else(|_| refuse("tls_ca", "holds no usable CA"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str, username: &str, ca: Option<&str>) -> Result<Settings, SettingsError> {
        Settings::parse(PostgresConfig {
            connection_url: url,
            username,
            passwords: Vec::new(),
            tls_ca: ca,
            tls_certificate: None,
            private_key: None,
            max_open_connections: 4,
            max_idle_connections: 9,
            max_connection_lifetime: Ttl::ZERO,
        })
    }

    #[test]
    fn urls_are_filled_in_without_text_substitution() {
        let url = "postgresql://{{username}}:{{password}}@127.0.0.1:5432/app?connect_timeout=3";
        let settings = parse(url, "ro@ot:/?", None).unwrap();
        assert_eq!(settings.base.get_user(), Some("ro@ot:/?"));
        assert_eq!(settings.base.get_dbname(), Some("app"));
        assert_eq!(settings.base.get_connect_timeout(), Some(&Duration::from_secs(3)));
        assert_eq!(settings.base.get_ssl_mode(), SslMode::Disable);
        assert_eq!(settings.max_idle, 4);
    }

    #[test]
    fn clear_text_over_a_network_must_be_asked_for() {
        let url = "postgres://{{username}}:{{password}}@db.example:5432/app";
        assert_eq!(parse(url, "u", None).err().unwrap().field, "connection_url");
        assert!(parse(&format!("{url}?sslmode=disable"), "u", None).is_ok());
        let unverified = parse(&format!("{url}?sslmode=require"), "u", None).unwrap();
        assert!(unverified.server_unverified);
        assert_eq!(unverified.base.get_ssl_mode(), SslMode::Require);
        let error = parse(&format!("{url}?sslmode=verify-full"), "u", None).err().unwrap();
        assert_eq!(error.field, "tls_ca");
        let error = parse(&format!("{url}?sslmode=prefer"), "u", None).err().unwrap();
        assert!(error.problem.contains("clear text"), "{error}");
    }

    #[test]
    fn a_ca_alone_means_full_verification() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = parameters.self_signed(&key).unwrap().pem();
        let url = "postgres://{{username}}:{{password}}@127.0.0.1/app";
        let settings = parse(url, "u", Some(&pem)).unwrap();
        assert_eq!(settings.base.get_ssl_mode(), SslMode::Require);
        assert!(!settings.server_unverified);
        let error = parse(&format!("{url}?sslmode=disable"), "u", Some(&pem)).err().unwrap();
        assert_eq!(error.field, "connection_url");
    }

    #[test]
    fn bad_urls_are_refused_by_field_without_repeating_secrets() {
        for (url, username, field) in [
            ("", "u", "connection_url"),
            ("mysql://h/db", "u", "connection_url"),
            ("host=h user=u", "u", "connection_url"),
            ("postgres://{{username}}:hunter2@127.0.0.1/db", "u", "connection_url"),
            ("postgres://{{username}}@127.0.0.1/db?password=hunter2", "u", "connection_url"),
            ("postgres://{{username}}:{{password}}@127.0.0.1/db", "", "username"),
            ("postgres://other:{{password}}@127.0.0.1/db", "u", "connection_url"),
            ("postgres://{{username}}@127.0.0.1/{{password}}", "u", "connection_url"),
            ("postgres://127.0.0.1/{{username}}", "u", "connection_url"),
            ("postgres://{{username}}@{{username}}/db", "u", "connection_url"),
            ("postgres://{{username}}@127.0.0.1/db?hunter2=1", "u", "connection_url"),
            ("postgres://{{username}}@127.0.0.1/db?sslrootcert=/etc/x", "u", "connection_url"),
            ("postgres://{{username}}@/db", "u", "connection_url"),
            ("postgres://{{username}}@127.0.0.1:99999/db", "u", "connection_url"),
            ("postgres://{{username}}@127.0.0.1/db\n", "u", "connection_url"),
        ] {
            let error = parse(url, username, None).err().unwrap_or_else(|| panic!("{url}"));
            assert_eq!(error.field, field, "{url}: {error}");
            if !url.contains("?hunter2") {
                assert!(!error.to_string().contains("hunter2"), "{error}");
            }
        }
    }
}
