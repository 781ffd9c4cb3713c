//! A throw-away PKI: authorities, certificates of every shape, revocation lists.
//!
//! Certificates are valid from 2020 to 2100 unless told otherwise, so that they work with the
//! machine's clock and with a clock that a test holds.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// 2020-01-01, in seconds since the Unix epoch.
pub const NOT_BEFORE_SECS: u64 = 1_577_836_800;
/// 2100-01-01, in seconds since the Unix epoch.
pub const NOT_AFTER_SECS: u64 = 4_102_444_800;

/// What a certificate shall say. Starts as a client certificate with nothing but key usages.
#[derive(Clone)]
pub struct Spec {
    params: CertificateParams,
}

impl Spec {
    /// A leaf: no names, digitalSignature, serverAuth and clientAuth.
    pub fn leaf() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        Self { params }.between(NOT_BEFORE_SECS, NOT_AFTER_SECS)
    }

    /// An X.509-SVID with that SPIFFE ID.
    pub fn svid(uri: &str) -> Self {
        Self::leaf().cn("workload").uri(uri)
    }

    /// A certificate for a server on the loopback interface.
    pub fn server() -> Self {
        let mut spec = Self::leaf().cn("server").dns("localhost");
        spec.params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        spec
    }

    /// A certification authority that may sign certificates and lists.
    pub fn ca(cn: &str) -> Self {
        Self::leaf()
            .cn(cn)
            .authority(true)
            .eku(&[])
            .key_usage(&[KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign])
    }

    /// Adds a URI name.
    pub fn uri(mut self, uri: &str) -> Self {
        self.params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        self
    }

    /// Adds a DNS name.
    pub fn dns(mut self, name: &str) -> Self {
        self.params.subject_alt_names.push(SanType::DnsName(name.try_into().unwrap()));
        self
    }

    /// Adds an e-mail name.
    pub fn email(mut self, name: &str) -> Self {
        self.params.subject_alt_names.push(SanType::Rfc822Name(name.try_into().unwrap()));
        self
    }

    /// Sets the common name.
    pub fn cn(mut self, name: &str) -> Self {
        self.params.distinguished_name.push(DnType::CommonName, name);
        self
    }

    /// Sets the organizational unit.
    pub fn ou(mut self, name: &str) -> Self {
        self.params.distinguished_name.push(DnType::OrganizationalUnitName, name);
        self
    }

    /// Sets the validity, both ends inclusive, in seconds since the Unix epoch.
    pub fn between(mut self, not_before_secs: u64, not_after_secs: u64) -> Self {
        let epoch = date_time_ymd(1970, 1, 1);
        self.params.not_before = epoch + Duration::from_secs(not_before_secs);
        self.params.not_after = epoch + Duration::from_secs(not_after_secs);
        self
    }

    /// Sets the extended key usages; none leaves the extension out.
    pub fn eku(mut self, usages: &[ExtendedKeyUsagePurpose]) -> Self {
        self.params.extended_key_usages = usages.to_vec();
        self
    }

    /// Sets the key usages; none leaves the extension out.
    pub fn key_usage(mut self, usages: &[KeyUsagePurpose]) -> Self {
        self.params.key_usages = usages.to_vec();
        self
    }

    /// Makes it a CA, or says that it is none.
    pub fn authority(mut self, ca: bool) -> Self {
        self.params.is_ca =
            if ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        self
    }

    /// Makes it a CA with at most so many others below it.
    pub fn path_length(mut self, most: u8) -> Self {
        self.params.is_ca = IsCa::Ca(BasicConstraints::Constrained(most));
        self
    }

    /// Sets the serial number, big-endian.
    pub fn serial(mut self, bytes: &[u8]) -> Self {
        self.params.serial_number = Some(SerialNumber::from_slice(bytes));
        self
    }

    /// Adds an extension with raw DER content.
    pub fn extension(mut self, oid: &[u64], critical: bool, content: &[u8]) -> Self {
        let mut extension = CustomExtension::from_oid_content(oid, content.to_vec());
        extension.set_criticality(critical);
        self.params.custom_extensions.push(extension);
        self
    }

    /// Adds an extension whose value is a short UTF8String.
    pub fn text_extension(self, oid: &[u64], text: &str) -> Self {
        let mut content = vec![0x0c, u8::try_from(text.len()).unwrap()];
        content.extend_from_slice(text.as_bytes());
        self.extension(oid, false, &content)
    }

    /// The certificate, signed by its own key.
    pub fn self_signed(&self) -> Issued {
        let key = KeyPair::generate().unwrap();
        let certificate = self.params.self_signed(&key).unwrap();
        Issued { der: certificate.der().clone(), key_pem: key.serialize_pem() }
    }
}

/// A certificate and its private key.
pub struct Issued {
    /// The certificate.
    pub der: CertificateDer<'static>,
    /// The key, in PKCS#8 PEM.
    pub key_pem: String,
}

impl Issued {
    /// The certificate in PEM.
    pub fn pem(&self) -> String {
        pem_of(&self.der)
    }

    /// The private key, as TLS takes it.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).unwrap()
    }

    /// What a TLS server accepts connections with that shows it and asks nobody for one.
    pub fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.der.clone()], self.key())
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A certification authority.
pub struct Ca {
    /// Its certificate.
    pub der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// A root called `cn`.
    pub fn root(cn: &str) -> Self {
        Self::root_from(&Spec::ca(cn))
    }

    /// A root as `spec` says.
    pub fn root_from(spec: &Spec) -> Self {
        let key = KeyPair::generate().unwrap();
        let der = spec.params.self_signed(&key).unwrap().der().clone();
        Self { der, issuer: Issuer::new(spec.params.clone(), key) }
    }

    /// An authority below this one.
    pub fn intermediate(&self, spec: &Spec) -> Self {
        let key = KeyPair::generate().unwrap();
        let der = spec.params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Self { der, issuer: Issuer::new(spec.params.clone(), key) }
    }

    /// A certificate signed by this authority.
    pub fn issue(&self, spec: &Spec) -> Issued {
        let key = KeyPair::generate().unwrap();
        let certificate = spec.params.signed_by(&key, &self.issuer).unwrap();
        Issued { der: certificate.der().clone(), key_pem: key.serialize_pem() }
    }

    /// Its certificate in PEM.
    pub fn pem(&self) -> String {
        pem_of(&self.der)
    }

    /// A revocation list in DER that lists `serials` and is due again at `next_update_secs`.
    pub fn crl(&self, serials: &[&[u8]], next_update_secs: u64) -> Vec<u8> {
        self.crl_of(serials, NOT_BEFORE_SECS, next_update_secs)
    }

    /// The same, issued at `issued_secs`.
    pub fn crl_of(&self, serials: &[&[u8]], issued_secs: u64, next_update_secs: u64) -> Vec<u8> {
        let epoch = date_time_ymd(1970, 1, 1);
        let issued = epoch + Duration::from_secs(issued_secs);
        let revoked = |serial: &&[u8]| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: issued,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: issued,
            next_update: epoch + Duration::from_secs(next_update_secs),
            crl_number: SerialNumber::from_slice(&[1]),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().to_vec()
    }
}

/// `der` as a PEM section.
pub fn pem_of(der: &CertificateDer<'_>) -> String {
    let body = data_encoding::BASE64.encode(der);
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
