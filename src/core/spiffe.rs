//! SPIFFE identities: the ID (SPIFFE-ID §2) and what makes a leaf an X.509-SVID (X509-SVID §§3-5).
//!
//! IDs are compared byte for byte and never normalised.

use std::fmt;

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{GeneralName, X509Certificate};

use crate::crypto::x509;

/// Longest SPIFFE ID accepted, in bytes (SPIFFE-ID §2.3).
pub const SPIFFE_ID_BYTES_MAX: usize = 2048;
/// Longest trust domain name accepted, in bytes (SPIFFE-ID §2.1).
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;

const SCHEME: &str = "spiffe://";

/// The name of a trust domain: lower-case letters, digits, dots, dashes and underscores.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// Parses the bare name, without a scheme.
    ///
    /// # Errors
    /// Names outside SPIFFE-ID §2.1.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        if text.is_empty() {
            Err(SpiffeIdError::EmptyTrustDomain)
        } else if text.len() > TRUST_DOMAIN_BYTES_MAX {
            Err(SpiffeIdError::TooLong)
        } else if !text.bytes().all(allowed) {
            Err(SpiffeIdError::TrustDomainCharacter)
        } else {
            Ok(Self(text.to_owned()))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SPIFFE ID, parsed strictly.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    text: String,
    trust_domain: TrustDomain,
}

impl SpiffeId {
    /// Parses `spiffe://<trust domain>[/<segment>...]`.
    ///
    /// # Errors
    /// The first rule of SPIFFE-ID §2 that the text breaks.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > SPIFFE_ID_BYTES_MAX {
            return Err(SpiffeIdError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeIdError::Scheme)?;
        let (domain, path) = match rest.split_once('/') {
            Some((domain, path)) => (domain, Some(path)),
            None => (rest, None),
        };
        let trust_domain = TrustDomain::parse(domain)?;
        for segment in path.iter().flat_map(|path| path.split('/')) {
            if matches!(segment, "" | "." | "..") {
                return Err(SpiffeIdError::PathSegment);
            }
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
            if !segment.bytes().all(allowed) {
                return Err(SpiffeIdError::PathCharacter);
            }
        }
        Ok(Self { text: text.to_owned(), trust_domain })
    }

    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path with its leading slash; empty for the ID of a trust domain itself.
    pub fn path(&self) -> &str {
        self.text.get(SCHEME.len() + self.trust_domain.0.len()..).unwrap_or_default()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Judges a leaf that may be an X.509-SVID: one that has a URI name with the scheme `spiffe`, in
/// any spelling, must keep every rule; one that has none is not an SVID.
pub(super) fn judge_leaf(
    leaf: &X509Certificate<'_>,
    uri_sans: &[String],
) -> Result<Option<SpiffeId>, SvidError> {
    if !uri_sans.iter().any(|uri| claims_spiffe(uri)) {
        return Ok(None);
    }
    // §2: exactly one URI name, whatever the schemes of the others.
    let [uri] = uri_sans else { return Err(SvidError::SeveralUriNames) };
    let id = SpiffeId::parse(uri)?;
    // §3.1 and §5.2.
    if id.path().is_empty() {
        return Err(SvidError::RootPath);
    }
    if leaf.is_ca() {
        return Err(SvidError::IsCa);
    }
    // §4.3.
    let usage = leaf.key_usage().ok().flatten().ok_or(SvidError::KeyUsageMissing)?;
    if !usage.critical {
        return Err(SvidError::KeyUsageNotCritical);
    }
    if !usage.value.digital_signature() {
        return Err(SvidError::NoDigitalSignature);
    }
    if usage.value.key_cert_sign() || usage.value.crl_sign() {
        return Err(SvidError::SigningKeyUsage);
    }
    // §4.4.
    if let Ok(Some(usage)) = leaf.extended_key_usage()
        && !(usage.value.server_auth && usage.value.client_auth)
    {
        return Err(SvidError::ExtendedKeyUsage);
    }
    // §2, after RFC 5280 §4.1.2.6.
    let san_critical =
        leaf.subject_alternative_name().ok().flatten().is_some_and(|extension| extension.critical);
    if leaf.subject().iter_rdn().next().is_none() && !san_critical {
        return Err(SvidError::NameNotCritical);
    }
    Ok(Some(id))
}

/// Judges what was sent along with an SVID: a signing certificate's own ID has no path (§3.2).
pub(super) fn judge_issuers(
    issuers: &[CertificateDer<'_>],
    id: Option<SpiffeId>,
) -> Result<Option<SpiffeId>, SvidError> {
    if id.is_some() && issuers.iter().any(|issuer| !is_signing_certificate(issuer)) {
        return Err(SvidError::IssuerPath);
    }
    Ok(id)
}

/// Whether a CA certificate may sign SVIDs: what SPIFFE ID it has is that of a trust domain.
/// Certificates that cannot be read may not.
pub(super) fn is_signing_certificate(der: &CertificateDer<'_>) -> bool {
    let Ok(parsed) = x509::parse(der) else { return false };
    let Ok(names) = parsed.subject_alternative_name() else { return false };
    names.iter().flat_map(|extension| &extension.value.general_names).all(|name| {
        if let GeneralName::URI(uri) = name
            && claims_spiffe(uri)
        {
            return SpiffeId::parse(uri).is_ok_and(|id| id.path().is_empty());
        }
        !matches!(name, GeneralName::Invalid(..))
    })
}

fn claims_spiffe(uri: &str) -> bool {
    uri.get(.."spiffe:".len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:"))
}

/// Why a text is not a SPIFFE ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SpiffeIdError {
    /// No trust domain.
    #[error("the trust domain is empty")]
    EmptyTrustDomain,
    /// A character outside `[a-zA-Z0-9._-]` in the path.
    #[error("the path has a character that SPIFFE IDs do not allow")]
    PathCharacter,
    /// An empty, `.` or `..` segment, or a slash at the end.
    #[error("the path has an empty, '.' or '..' segment, or ends in a slash")]
    PathSegment,
    /// Not `spiffe://` in lower case.
    #[error("does not start with spiffe://")]
    Scheme,
    /// Longer than 2048 bytes, or a trust domain longer than 255.
    #[error("is too long")]
    TooLong,
    /// A character outside `[a-z0-9._-]` in the trust domain.
    #[error("the trust domain has a character that SPIFFE IDs do not allow")]
    TrustDomainCharacter,
}

/// Why a certificate with a SPIFFE ID is not an X.509-SVID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SvidError {
    /// Extended key usage without both serverAuth and clientAuth.
    #[error("the extended key usage lacks serverAuth or clientAuth")]
    ExtendedKeyUsage,
    /// The URI is not a SPIFFE ID.
    #[error("the SPIFFE ID is malformed: {0}")]
    Id(#[from] SpiffeIdError),
    /// A certification authority.
    #[error("a signing certificate cannot authenticate")]
    IsCa,
    /// A signing certificate in the chain has an ID with a path.
    #[error("a signing certificate of the chain has a SPIFFE ID with a path")]
    IssuerPath,
    /// No key usage.
    #[error("the key usage extension is missing")]
    KeyUsageMissing,
    /// Key usage is not critical.
    #[error("the key usage extension is not critical")]
    KeyUsageNotCritical,
    /// Empty subject, and names that are not critical.
    #[error("the subject is empty and the alternative names are not critical")]
    NameNotCritical,
    /// Key usage without digitalSignature.
    #[error("the key usage lacks digitalSignature")]
    NoDigitalSignature,
    /// The ID names a trust domain and no workload.
    #[error("the SPIFFE ID has no path")]
    RootPath,
    /// More than one URI name.
    #[error("the certificate has more than one URI name")]
    SeveralUriNames,
    /// Key usage with keyCertSign or cRLSign.
    #[error("the key usage allows signing certificates or revocation lists")]
    SigningKeyUsage,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn id1_to_id4_ids_are_parsed_strictly() {
        let long_domain = format!("spiffe://{}/a", "d".repeat(256));
        let long_id = format!("spiffe://d/{}", "p".repeat(2048));
        for (text, error) in [
            ("", SpiffeIdError::Scheme),
            ("spiffe:/example.org/a", SpiffeIdError::Scheme),
            ("SPIFFE://example.org/a", SpiffeIdError::Scheme),
            ("https://example.org/a", SpiffeIdError::Scheme),
            (" spiffe://example.org/a", SpiffeIdError::Scheme),
            ("spiffe://", SpiffeIdError::EmptyTrustDomain),
            ("spiffe:///a", SpiffeIdError::EmptyTrustDomain),
            ("spiffe://Example.org/a", SpiffeIdError::TrustDomainCharacter),
            ("spiffe://user@example.org/a", SpiffeIdError::TrustDomainCharacter),
            ("spiffe://example.org:8443/a", SpiffeIdError::TrustDomainCharacter),
            ("spiffe://example.org?q/a", SpiffeIdError::TrustDomainCharacter),
            ("spiffe://example%2eorg/a", SpiffeIdError::TrustDomainCharacter),
            ("spiffe://exämple.org/a", SpiffeIdError::TrustDomainCharacter),
            ("spiffe://[::1]/a", SpiffeIdError::TrustDomainCharacter),
            ("spiffe://example.org/", SpiffeIdError::PathSegment),
            ("spiffe://example.org/a/", SpiffeIdError::PathSegment),
            ("spiffe://example.org//a", SpiffeIdError::PathSegment),
            ("spiffe://example.org/./a", SpiffeIdError::PathSegment),
            ("spiffe://example.org/a/..", SpiffeIdError::PathSegment),
            ("spiffe://example.org/a?q", SpiffeIdError::PathCharacter),
            ("spiffe://example.org/a#f", SpiffeIdError::PathCharacter),
            ("spiffe://example.org/a%2fb", SpiffeIdError::PathCharacter),
            ("spiffe://example.org/a b", SpiffeIdError::PathCharacter),
            ("spiffe://example.org/ä", SpiffeIdError::PathCharacter),
            (&long_domain, SpiffeIdError::TooLong),
            (&long_id, SpiffeIdError::TooLong),
        ] {
            assert_eq!(SpiffeId::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn ids_are_split_without_being_changed() {
        for (text, domain, path) in [
            ("spiffe://example.org", "example.org", ""),
            ("spiffe://example.org/ns/prod/sa/Web_1", "example.org", "/ns/prod/sa/Web_1"),
            ("spiffe://127.0.0.1/a", "127.0.0.1", "/a"),
            ("spiffe://a/...", "a", "/..."),
        ] {
            let id = SpiffeId::parse(text).unwrap();
            assert_eq!((id.as_str(), id.trust_domain().as_str(), id.path()), (text, domain, path));
        }
    }

    proptest! {
        #[test]
        fn what_parses_is_made_of_allowed_bytes(text in "(spiffe://)?[a-zA-Z0-9._/%:@?# -]{0,40}") {
            if let Ok(id) = SpiffeId::parse(&text) {
                prop_assert_eq!(id.as_str(), &text);
                prop_assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
                prop_assert!(!id.path().contains("//") && !id.path().ends_with('/'));
            }
        }
    }
}
