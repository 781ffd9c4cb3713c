//! What a mount knows about its directory, understood and found to fit together.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use super::config::ConfigRecord;
use super::filter::Filter;
use super::name::{dn_value, is_attribute, spelled};
use super::server::{DirectoryHosts, Scheme, Server};
use crate::core::error::CoreError;
use crate::core::stored::StoredSecret;
use crate::types::secret::SecretString;
use crate::types::time::Ttl;

/// Longest name of an entry, in bytes.
const DN_BYTES_MAX: usize = 1024;
/// Longest PEM, in bytes.
const PEM_BYTES_MAX: usize = 64 << 10;
const TIMEOUT_MAX: Ttl = Ttl::from_secs(300);
const PAGE_MAX: u64 = 10_000;

/// A setting that was refused, by the name of its field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub(super) struct SettingError {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl SettingError {
    pub(super) fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }
}

impl From<SettingError> for CoreError {
    fn from(error: SettingError) -> Self {
        Self::field(error.field, error.problem)
    }
}

fn refused(field: &'static str, problem: impl Into<String>) -> SettingError {
    SettingError::new(field, problem)
}

/// How the entry of a name is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// By a search that comes before the password is tried.
    First,
    /// By what is made of the name, and looked at when its password was right.
    Direct,
}

/// How the groups of an entry are found.
pub(super) enum Membership {
    /// By a search for them.
    Filter(Filter),
    /// By what Active Directory says of the entry in `tokenGroups`, nested groups too.
    TokenGroups,
}

/// Where groups are, and what they are called.
pub(super) struct Groups {
    pub base: String,
    pub membership: Membership,
    pub attribute: String,
    /// Searched by nobody, rather than by the person, where there is no service account.
    pub anonymously: bool,
}

/// Settings that were understood.
pub(super) struct Settings {
    pub servers: Vec<Server>,
    pub tls: Option<Arc<ClientConfig>>,
    pub lookup: Lookup,
    /// The account that searches, and its password.
    pub service: Option<(String, SecretString)>,
    pub user_base: String,
    pub user_attribute: String,
    pub user_filter: Filter,
    pub domain: String,
    pub groups: Option<Groups>,
    pub case_sensitive: bool,
    pub username_as_alias: bool,
    pub aliases: u32,
    pub page: u32,
    pub connect_max: Duration,
    pub request_max: Duration,
}

impl Settings {
    /// # Errors
    /// The first setting that does not fit.
    pub(super) fn of(record: &ConfigRecord, hosts: &DirectoryHosts) -> Result<Self, SettingError> {
        let servers = Server::list(&record.url, hosts)?;
        let tls = tls(record, &servers)?;
        let names =
            [("binddn", &record.binddn), ("userdn", &record.userdn), ("groupdn", &record.groupdn)];
        for (field, value) in names {
            if value.len() > DN_BYTES_MAX || value.contains(char::is_control) {
                return Err(refused(field, "is longer than 1024 bytes or has control characters"));
            }
        }
        for (field, value) in [("userattr", &record.userattr), ("groupattr", &record.groupattr)] {
            if !is_attribute(value) {
                return Err(refused(field, "is no name of an attribute, such as uid"));
            }
        }
        if record.userdn.is_empty() {
            return Err(refused("userdn", "is required: it says where people are searched"));
        }
        let service = match (&record.binddn, &record.bindpass) {
            (dn, _) if dn.is_empty() => None,
            (dn, Some(password)) => Some((dn.clone(), password.secret().duplicate())),
            // A directory takes a name without a password for nobody (RFC 4513 §5.1.2).
            (_, None) => return Err(refused("bindpass", "is required with binddn")),
        };
        let search = service.is_some() || record.discoverdn;
        let domain = record.upndomain.clone();
        let dotted = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
        if !domain.bytes().all(dotted) || domain.len() > 253 {
            return Err(refused("upndomain", "is no domain name"));
        }
        let named = if domain.is_empty() { record.userattr.as_str() } else { "userPrincipalName" };
        let user_filter = Filter::parse_for_people(&record.userfilter, named)
            .map_err(|error| refused("userfilter", error.to_string()))?;
        Ok(Self {
            servers,
            tls,
            lookup: if search { Lookup::First } else { Lookup::Direct },
            service,
            user_base: record.userdn.clone(),
            user_attribute: record.userattr.clone(),
            user_filter,
            domain,
            groups: groups(record)?,
            case_sensitive: record.case_sensitive_names,
            username_as_alias: record.username_as_alias,
            aliases: aliases(&record.dereference_aliases)?,
            page: page(record.max_page_size)?,
            connect_max: timeout("connection_timeout", record.connection_timeout)?,
            request_max: timeout("request_timeout", record.request_timeout)?,
        })
    }

    /// A name in the spelling that it is known by here.
    pub(super) fn spelled(&self, name: &str) -> String {
        spelled(name, self.case_sensitive)
    }

    /// What the filter for people compares with a name.
    pub(super) fn login_name(&self, name: &str) -> String {
        if self.domain.is_empty() { name.to_owned() } else { format!("{name}@{}", self.domain) }
    }

    /// The entry that a name has where none is searched for.
    pub(super) fn entry_of(&self, name: &str) -> String {
        format!("{}={},{}", self.user_attribute, dn_value(name), self.user_base)
    }
}

fn groups(record: &ConfigRecord) -> Result<Option<Groups>, SettingError> {
    let membership = if record.use_token_groups {
        if record.groupdn.is_empty() {
            return Err(refused("groupdn", "is required with use_token_groups"));
        }
        Membership::TokenGroups
    } else if record.groupdn.is_empty() || record.groupfilter.is_empty() {
        return Ok(None);
    } else {
        let filter = Filter::parse(&record.groupfilter, &record.userattr)
            .map_err(|error| refused("groupfilter", error.to_string()))?;
        Membership::Filter(filter)
    };
    Ok(Some(Groups {
        base: record.groupdn.clone(),
        membership,
        attribute: record.groupattr.clone(),
        anonymously: record.anonymous_group_search,
    }))
}

fn aliases(text: &str) -> Result<u32, SettingError> {
    match text {
        "never" => Ok(0),
        "searching" => Ok(1),
        "finding" => Ok(2),
        "always" => Ok(3),
        _ => {
            let problem = "must be never, searching, finding or always";
            Err(refused("dereference_aliases", problem))
        }
    }
}

fn page(size: u64) -> Result<u32, SettingError> {
    let size = Some(size).filter(|size| *size <= PAGE_MAX).and_then(|size| size.try_into().ok());
    size.ok_or_else(|| refused("max_page_size", "must be at most 10000"))
}

fn timeout(field: &'static str, ttl: Ttl) -> Result<Duration, SettingError> {
    if ttl.is_zero() || ttl > TIMEOUT_MAX {
        return Err(refused(field, "must be between 1s and 5m"));
    }
    Ok(Duration::from_secs(ttl.as_secs()))
}

/// How connections are made private: as soon as there are passwords to be seen by somebody else.
fn tls(
    record: &ConfigRecord,
    servers: &[Server],
) -> Result<Option<Arc<ClientConfig>>, SettingError> {
    let private = record.starttls || servers.iter().any(|server| server.scheme == Scheme::Ldaps);
    let exposed =
        |server: &Server| server.scheme == Scheme::Ldap && !record.starttls && !server.is_local();
    if servers.iter().any(exposed) {
        return Err(refused(
            "url",
            "would send passwords over the network in clear: use ldaps://, or starttls=true",
        ));
    }
    let versions = versions(&record.tls_min_version, &record.tls_max_version)?;
    if record.client_tls_cert.is_empty() != record.client_tls_key.is_none() {
        return Err(refused("client_tls_key", "and client_tls_cert must be given together"));
    }
    if !private {
        if !record.certificate.is_empty() || !record.client_tls_cert.is_empty() {
            let problem = "is given although no server is asked over TLS";
            return Err(refused("certificate", problem));
        }
        return Ok(None);
    }
    if servers.iter().any(|server| server.scheme == Scheme::Ldap && !record.starttls) {
        return Err(refused("url", "mixes servers with and without TLS"));
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(|error| refused("tls_min_version", error.to_string()))?
        .with_webpki_verifier(verifier(&record.certificate, provider)?);
    let mut config = match &record.client_tls_key {
        Some(key) => {
            let (chain, key) = client(&record.client_tls_cert, key)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|_| refused("client_tls_key", "does not belong to client_tls_cert"))?
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(Some(Arc::new(config)))
}

fn versions(min: &str, max: &str) -> Result<Vec<&'static SupportedProtocolVersion>, SettingError> {
    match (min, max) {
        ("tls12", "tls12") => Ok(vec![&TLS12]),
        ("tls12", "tls13") => Ok(vec![&TLS12, &TLS13]),
        ("tls13", "tls13") => Ok(vec![&TLS13]),
        ("tls12" | "tls13", _) => {
            let problem = "must be tls12 or tls13, and no lower than tls_min_version";
            Err(refused("tls_max_version", problem))
        }
        _ => Err(refused("tls_min_version", "must be tls12 or tls13")),
    }
}

fn certificates(
    field: &'static str,
    pem: &str,
) -> Result<Vec<CertificateDer<'static>>, SettingError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() && pem.len() <= PEM_BYTES_MAX => Ok(found),
        Ok(_) | Err(_) => Err(refused(field, "holds no PEM certificate")),
    }
}

fn verifier(
    pem: &str,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, SettingError> {
    const FIELD: &str = "certificate";
    if pem.is_empty() {
        let problem = "is required: the PEM of the authorities that the directory's certificate is \
                       checked against. Those of the operating system are not used";
        return Err(refused(FIELD, problem));
    }
    let mut store = RootCertStore::empty();
    for certificate in certificates(FIELD, pem)? {
        if store.add(certificate).is_err() {
            return Err(refused(FIELD, "holds a certificate that cannot be a CA"));
        }
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider)
        .build()
        .map_err(|_| refused(FIELD, "holds no usable CA"))
}

fn client(
    chain: &str,
    key: &StoredSecret,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), SettingError> {
    let chain = certificates("client_tls_cert", chain)?;
    let key = PrivateKeyDer::from_pem_slice(key.secret().expose().as_bytes())
        .map_err(|_| refused("client_tls_key", "is not a PEM key"))?;
    Ok((chain, key))
}
