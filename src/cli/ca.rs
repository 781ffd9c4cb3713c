//! The throw-away certificate authority of `dev` and `demo`. Never for production: its key lies
//! beside the certificates it signs.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};

use super::error::CliError;
use crate::types::secret::{SecretString, fill_random};
use crate::types::time::{Timestamp, Ttl};

/// The trust domain of every identity that `dev` and `demo` make up; `.internal` is reserved.
pub const TRUST_DOMAIN: &str = "dev.leasehold.internal";
/// How long the authority itself lives.
const CA_TTL: Ttl = Ttl::from_secs(10 * 365 * 86_400);
/// Certificates begin this much in the past, for clocks that differ a little.
const SKEW_SECS: u64 = 60;

/// The authority: its certificate and the key that signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert_pem: String,
}

/// A certificate and its private key, both PEM.
pub struct Issued {
    /// The certificate.
    pub cert_pem: String,
    /// The key, PKCS#8.
    pub key_pem: SecretString,
}

/// What a client certificate says about its holder.
#[derive(Debug, Default)]
pub struct Subject {
    /// The one URI SAN, a SPIFFE ID.
    pub uri: Option<String>,
    /// DNS SANs.
    pub dns: Vec<String>,
    /// Common name.
    pub common_name: Option<String>,
    /// Organizational unit.
    pub organizational_unit: Option<String>,
}

/// An authority could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A name that no certificate can carry, or a certificate or key that is not one.
    #[error("the certificate cannot be made")]
    Certificate(#[from] rcgen::Error),
    /// No randomness for a serial number.
    #[error(transparent)]
    Random(#[from] crate::types::secret::RandomError),
    /// A client certificate that would say nothing about anybody.
    #[error("a client certificate needs a URI, a DNS name or a common name")]
    Anonymous,
    /// A URI that no SPIFFE ID looks like.
    #[error("the URI \"{0}\" does not begin with spiffe://")]
    NotSpiffe(String),
    /// A file that cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl From<AuthorityError> for CliError {
    fn from(error: AuthorityError) -> Self {
        match error {
            AuthorityError::File { path, source } => {
                CliError::system(format!("cannot use {}", path.display()))(source)
            }
            AuthorityError::Certificate(source) => CliError::local(
                format!("the certificate cannot be made: {source}"),
                "check the names, and that ca.pem and ca.key belong together",
            ),
            AuthorityError::Random(source) => {
                CliError::local(source.to_string(), "check the machine's random generator")
            }
            AuthorityError::Anonymous => CliError::local(
                error.to_string(),
                format!("give for example -uri spiffe://{TRUST_DOMAIN}/workload/web"),
            ),
            AuthorityError::NotSpiffe(_) => CliError::local(
                error.to_string(),
                format!("write spiffe://{TRUST_DOMAIN}/workload/web"),
            ),
        }
    }
}

impl Authority {
    /// A new authority for [`TRUST_DOMAIN`] that may sign leaves and nothing else.
    ///
    /// # Errors
    /// Without randomness.
    pub fn create(now: Timestamp) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = params(now, CA_TTL)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "Leasehold throw-away CA");
        // X.509-SVID §4.1: the URI of a signing certificate is the trust domain, without a path.
        params.subject_alt_names = vec![uri(&format!("spiffe://{TRUST_DOMAIN}"))?];
        let cert_pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), cert_pem })
    }

    /// The authority that [`Authority::save`] left in `dir`.
    ///
    /// # Errors
    /// Missing or malformed files.
    pub fn load(dir: &Path) -> Result<Self, AuthorityError> {
        let cert_pem = read(&dir.join("ca.pem"))?;
        let key_pem = SecretString::new(read(&dir.join("ca.key"))?);
        let key = KeyPair::from_pem(key_pem.expose())?;
        Ok(Self { issuer: Issuer::from_ca_cert_pem(&cert_pem, key)?, cert_pem })
    }

    /// Writes `ca.pem` and `ca.key` into `dir`, readable by their owner alone.
    ///
    /// # Errors
    /// When `dir` cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), AuthorityError> {
        let key_pem = SecretString::new(self.issuer.key().serialize_pem());
        // The key first: a directory with ca.pem always has what is needed to go on.
        write_private(&dir.join("ca.key"), key_pem.expose().as_bytes())?;
        write_private(&dir.join("ca.pem"), self.cert_pem.as_bytes())
    }

    /// The authority's certificate, PEM.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// A server certificate for this machine and `names` (DNS names or IP addresses).
    ///
    /// # Errors
    /// A name that is neither.
    pub fn server(
        &self,
        names: &[String],
        ttl: Ttl,
        now: Timestamp,
    ) -> Result<Issued, AuthorityError> {
        let mut params = params(now, ttl)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.distinguished_name.push(DnType::CommonName, "Leasehold");
        let mut sans = vec![
            dns("localhost")?,
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        ];
        for name in names {
            let san = match name.parse() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => dns(name)?,
            };
            if !sans.contains(&san) {
                sans.push(san);
            }
        }
        params.subject_alt_names = sans;
        self.issue(params)
    }

    /// A client certificate, an X.509-SVID when `subject` has a URI. What the URI says beyond its
    /// scheme is the server's to judge.
    ///
    /// # Errors
    /// A subject without any name, or with one that no certificate can carry.
    pub fn client(
        &self,
        subject: &Subject,
        ttl: Ttl,
        now: Timestamp,
    ) -> Result<Issued, AuthorityError> {
        if subject.uri.is_none() && subject.dns.is_empty() && subject.common_name.is_none() {
            return Err(AuthorityError::Anonymous);
        }
        let mut params = params(now, ttl)?;
        params.is_ca = IsCa::ExplicitNoCa;
        // X.509-SVID §4.3 and §4.4: digitalSignature, and both usages where there are any.
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        if let Some(text) = &subject.uri {
            if !text.starts_with("spiffe://") {
                return Err(AuthorityError::NotSpiffe(text.clone()));
            }
            params.subject_alt_names.push(uri(text)?);
        }
        for name in &subject.dns {
            params.subject_alt_names.push(dns(name)?);
        }
        if let Some(unit) = &subject.organizational_unit {
            params.distinguished_name.push(DnType::OrganizationalUnitName, unit.as_str());
        }
        if let Some(name) = &subject.common_name {
            params.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        self.issue(params)
    }

    fn issue(&self, params: CertificateParams) -> Result<Issued, AuthorityError> {
        let key = KeyPair::generate()?;
        let cert_pem = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { cert_pem, key_pem: SecretString::new(key.serialize_pem()) })
    }
}

impl Issued {
    /// Writes `NAME.pem` and `NAME.key` into `dir`, readable by their owner alone.
    ///
    /// # Errors
    /// When `dir` cannot be written.
    pub fn save(&self, dir: &Path, name: &str) -> Result<(), AuthorityError> {
        write_private(&dir.join(format!("{name}.key")), self.key_pem.expose().as_bytes())?;
        write_private(&dir.join(format!("{name}.pem")), self.cert_pem.as_bytes())
    }
}

/// Writes a file that its owner alone can read, whole or not at all.
///
/// # Errors
/// When its directory cannot be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), AuthorityError> {
    let failed = |source| AuthorityError::File { path: path.to_owned(), source };
    let dir = path.parent().unwrap_or(Path::new("."));
    // Temporary files are made with mode 0600 and keep it when they are renamed.
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

fn read(path: &Path) -> Result<String, AuthorityError> {
    std::fs::read_to_string(path)
        .map_err(|source| AuthorityError::File { path: path.to_owned(), source })
}

fn params(now: Timestamp, ttl: Ttl) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    let epoch = date_time_ymd(1970, 1, 1);
    let now = u64::try_from(now.as_secs()).unwrap_or(0);
    params.not_before = epoch + Duration::from_secs(now.saturating_sub(SKEW_SECS));
    params.not_after = epoch + Duration::from_secs(now.saturating_add(ttl.as_secs()));
    params.distinguished_name = DistinguishedName::new();
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial()?);
    Ok(params)
}

/// 126 random bits, positive and never zero in DER (RFC 5280 §4.1.2.2).
fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0u8; 16];
    fill_random(&mut bytes)?;
    let value = (u128::from_be_bytes(bytes) >> 2) | (1 << 126);
    Ok(SerialNumber::from_slice(&value.to_be_bytes()))
}

fn dns(name: &str) -> Result<SanType, AuthorityError> {
    Ok(SanType::DnsName(name.try_into()?))
}

fn uri(text: &str) -> Result<SanType, AuthorityError> {
    Ok(SanType::URI(text.try_into()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use x509_parser::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const HOUR: Ttl = Ttl::from_secs(3600);

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    fn workload(ca: &Authority) -> Issued {
        let subject = Subject {
            uri: Some(format!("spiffe://{TRUST_DOMAIN}/workload/web")),
            dns: vec!["web.internal".to_owned()],
            ..Subject::default()
        };
        ca.client(&subject, HOUR, NOW).unwrap()
    }

    #[test]
    fn x3_x4_a_client_certificate_is_a_conformant_svid() {
        let ca = Authority::create(NOW).unwrap();
        let (leaf_der, ca_der) = (der(&workload(&ca).cert_pem), der(ca.cert_pem()));
        let (_, leaf) = parse_x509_certificate(&leaf_der).unwrap();
        let (_, root) = parse_x509_certificate(&ca_der).unwrap();
        leaf.verify_signature(Some(root.public_key())).unwrap();

        let usage = leaf.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.digital_signature());
        assert!(!usage.value.key_cert_sign() && !usage.value.crl_sign());
        let extended = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.client_auth && extended.server_auth);
        assert!(!leaf.is_ca());
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        assert!(names.critical, "an empty subject makes the alternative names critical");
        let uris = names.value.general_names.iter().filter(|n| matches!(n, GeneralName::URI(_)));
        assert_eq!(uris.count(), 1);
        assert_eq!(leaf.validity().not_after.timestamp(), 1_800_003_600);
        assert_eq!(leaf.raw_serial().len(), 16);
    }

    #[test]
    fn x5_the_authority_signs_and_has_no_path_in_its_id() {
        let ca_der = der(Authority::create(NOW).unwrap().cert_pem());
        let (_, root) = parse_x509_certificate(&ca_der).unwrap();
        let usage = root.key_usage().unwrap().unwrap().value;
        assert!(root.is_ca() && usage.key_cert_sign() && !usage.digital_signature());
        let names = &root.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert_eq!(names, &[GeneralName::URI("spiffe://dev.leasehold.internal")]);
    }

    #[test]
    fn a_saved_authority_goes_on_where_it_stopped_and_its_files_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::create(NOW).unwrap();
        first.save(dir.path()).unwrap();
        let again = Authority::load(dir.path()).unwrap();
        workload(&again).save(dir.path(), "web").unwrap();
        let leaf_der = der(&std::fs::read_to_string(dir.path().join("web.pem")).unwrap());
        let ca_der = der(first.cert_pem());
        let (_, leaf) = parse_x509_certificate(&leaf_der).unwrap();
        let (_, root) = parse_x509_certificate(&ca_der).unwrap();
        leaf.verify_signature(Some(root.public_key())).unwrap();
        for name in ["ca.pem", "ca.key", "web.pem", "web.key"] {
            let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn server_names_are_addresses_or_dns_names_each_once() {
        let ca = Authority::create(NOW).unwrap();
        let names = ["10.1.2.3".to_owned(), "broker.internal".to_owned(), "localhost".to_owned()];
        let cert = der(&ca.server(&names, HOUR, NOW).unwrap().cert_pem);
        let (_, cert) = parse_x509_certificate(&cert).unwrap();
        assert_eq!(cert.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 5);
        assert!(cert.extended_key_usage().unwrap().unwrap().value.server_auth);
    }

    #[test]
    fn a_certificate_about_nobody_is_not_made() {
        let ca = Authority::create(NOW).unwrap();
        let only_unit =
            Subject { organizational_unit: Some("ops".to_owned()), ..Subject::default() };
        assert!(matches!(ca.client(&only_unit, HOUR, NOW), Err(AuthorityError::Anonymous)));
        let http = Subject { uri: Some("https://x/y".to_owned()), ..Subject::default() };
        assert!(matches!(ca.client(&http, HOUR, NOW), Err(AuthorityError::NotSpiffe(_))));
    }
}
