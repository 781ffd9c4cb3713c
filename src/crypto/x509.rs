//! X.509: path validation of client certificates (RFC 5280 §6), and the PEM files that feed it.
//!
//! The path is built and its signatures are checked by webpki. Four things are added here, because
//! webpki leaves them to its caller: key usage of the leaf and of every issuer, the validity of the
//! trust anchor itself, revocation against every list that names the issuer (not only the first),
//! and bounds on what an unauthenticated peer may make us parse.

pub mod crl;

use std::cell::Cell;
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor, UnixTime};
use sha2::{Digest, Sha256};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::{ExtendedKeyUsage, FromDer, ParsedExtension, X509Certificate};

use crate::types::time::Timestamp;
use crl::Crls;

/// Most certificates a peer may present, its own included.
pub const CHAIN_CERTIFICATES_MAX: usize = 8;
/// Largest certificate accepted, in bytes of DER.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;
/// Most certificates in one file of trust anchors.
pub const ANCHORS_MAX: usize = 256;

/// keyUsage, subjectAltName, basicConstraints and extKeyUsage, as the content of their identifiers.
const DECISIVE_EXTENSIONS: [&[u8]; 4] =
    [&[0x55, 0x1d, 0x0f], &[0x55, 0x1d, 0x11], &[0x55, 0x1d, 0x13], &[0x55, 0x1d, 0x25]];

/// The last number of extensions (2.5.29) that an anchor may have as critical: identifiers, names and
/// policies, which mean nothing for an anchor, and what is heeded (RFC 5280 §4.2.1).
const ANCHOR_EXTENSIONS: [u8; 9] = [14, 15, 17, 19, 30, 31, 32, 35, 37];

/// Certification authorities that a chain may end in.
#[derive(Clone, Debug, Default)]
pub struct Anchors {
    // Parallel vectors, because webpki wants the anchors as one slice.
    trust: Vec<TrustAnchor<'static>>,
    certificates: Vec<CertificateDer<'static>>,
    details: Vec<AnchorDetail>,
}

#[derive(Clone, Debug)]
struct AnchorDetail {
    validity: Validity,
    spki: Vec<u8>,
}

impl Anchors {
    /// Takes certificates as anchors. Each must be a CA that may sign certificates.
    ///
    /// # Errors
    /// The first certificate that cannot be an anchor, by its position.
    pub fn from_certificates(
        certificates: Vec<CertificateDer<'static>>,
    ) -> Result<Self, AnchorError> {
        if certificates.is_empty() {
            return Err(AnchorError::Empty);
        }
        if certificates.len() > ANCHORS_MAX {
            return Err(AnchorError::TooMany);
        }
        let mut anchors = Self::default();
        for (position, der) in certificates.into_iter().enumerate() {
            let position = position + 1;
            let parsed = parse(&der).map_err(|_| AnchorError::Malformed { position })?;
            if !parsed.is_ca() {
                return Err(AnchorError::NotCa { position });
            }
            if !may_sign_certificates(&parsed) {
                return Err(AnchorError::KeyUsage { position });
            }
            // webpki passes them over in anchors. It may be a bound on what the authority is for.
            if parsed.extensions().iter().any(|one| one.critical && !is_for_anchors(&one.oid)) {
                return Err(AnchorError::CriticalExtension { position });
            }
            let trust = webpki::anchor_from_trusted_cert(&der)
                .map_err(|_| AnchorError::Malformed { position })?
                .to_owned();
            anchors.details.push(AnchorDetail {
                validity: Validity::of(&parsed),
                spki: parsed.public_key().raw.to_vec(),
            });
            anchors.trust.push(trust);
            anchors.certificates.push(der);
        }
        Ok(anchors)
    }

    /// Reads a PEM file of CA certificates.
    ///
    /// # Errors
    /// As [`certificates_from_pem`] and [`Anchors::from_certificates`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, AnchorError> {
        Self::from_certificates(certificates_from_pem(pem)?)
    }

    /// The certificates themselves.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.trust.is_empty()
    }

    /// The key of `anchor` and its expiry, when it is valid at `now`. Two certificates of one CA
    /// that differ in dates alone are one anchor, as long-lived as the longer of them.
    fn find(
        &self,
        anchor: &TrustAnchor<'_>,
        now: Timestamp,
    ) -> Result<(&[u8], Timestamp), ChainError> {
        let mut best = Err(ChainError::UnknownIssuer);
        for (candidate, detail) in self.trust.iter().zip(&self.details) {
            if candidate != anchor {
                continue;
            }
            best = match (best, detail.validity.check(now)) {
                (Ok((_, known)), Ok(until)) if known >= until => best,
                (Ok(_), Err(_)) => best,
                (_, outcome) => outcome.map(|until| (detail.spki.as_slice(), until)),
            };
        }
        best
    }
}

/// What the leaf of a chain is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To say who a client is: the only thing that chains are validated for here.
    Client,
    /// To say who a server is: what most of the chains are for that others publish to be judged.
    #[cfg(test)]
    Server,
}

impl Purpose {
    fn usage(self) -> KeyUsage {
        match self {
            Self::Client => KeyUsage::client_auth(),
            #[cfg(test)]
            Self::Server => KeyUsage::server_auth(),
        }
    }

    fn is_named_in(self, usage: &ExtendedKeyUsage<'_>) -> bool {
        match self {
            Self::Client => usage.client_auth,
            #[cfg(test)]
            Self::Server => usage.server_auth,
        }
    }
}

/// What a successful validation found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifiedChain {
    /// The first moment at which the same chain must be validated again: the earliest expiry among
    /// its certificates and among the revocation lists that vouched for them.
    pub until: Timestamp,
}

/// Validates `leaf` for client authentication against `anchors` at `now`.
///
/// `intermediates` are whatever the peer sent; they are used to build a path and trusted for
/// nothing. An extended key usage extension, where present, must contain clientAuth.
///
/// # Errors
/// The most specific reason why no path was acceptable.
pub fn verify_chain(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    anchors: &Anchors,
    crls: &Crls,
    now: Timestamp,
) -> Result<VerifiedChain, ChainError> {
    verify_chain_for(Purpose::Client, leaf, intermediates, anchors, crls, now)
}

/// Validates as [`verify_chain`] does.
pub(crate) fn verify_chain_for(
    purpose: Purpose,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    anchors: &Anchors,
    crls: &Crls,
    now: Timestamp,
) -> Result<VerifiedChain, ChainError> {
    if intermediates.len() >= CHAIN_CERTIFICATES_MAX {
        return Err(ChainError::TooLong);
    }
    if intermediates.iter().any(|der| der.len() > CERTIFICATE_BYTES_MAX) {
        return Err(ChainError::TooLarge);
    }
    let leaf_until = check_leaf_for(purpose, leaf, now)?;
    let end_entity = EndEntityCert::try_from(leaf).map_err(|error| ChainError::from(&error))?;
    let until = Cell::new(leaf_until);
    let refusal = Cell::new(None);
    let accept = |path: &VerifiedPath<'_>| match check_path(leaf, path, anchors, crls, now) {
        Ok(path_until) => {
            until.set(leaf_until.min(path_until));
            Ok(())
        }
        Err(reason) => {
            refusal.set(Some(reason));
            // Any error makes webpki look for another path; `refusal` carries the real one.
            Err(webpki::Error::CertRevoked)
        }
    };
    let outcome = end_entity.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors.trust,
        intermediates,
        unix_time(now),
        purpose.usage(),
        None,
        Some(&accept),
    );
    match outcome {
        Ok(_) => Ok(VerifiedChain { until: until.get() }),
        Err(error) => Err(refusal.get().unwrap_or_else(|| (&error).into())),
    }
}

/// What a whole presented chain, leaf first, is known by: SHA-256 over every certificate and its length.
pub fn chain_digest(leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for der in std::iter::once(leaf).chain(intermediates) {
        hash.update((der.len() as u64).to_be_bytes());
        hash.update(der);
    }
    hash.finalize().into()
}

/// Judges a leaf by itself: size, validity, not a CA, key usage, clientAuth. Answers the first
/// moment at which it is no longer valid.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_leaf(leaf: &CertificateDer<'_>, now: Timestamp) -> Result<Timestamp, ChainError> {
    check_leaf_for(Purpose::Client, leaf, now)
}

fn check_leaf_for(
    purpose: Purpose,
    leaf: &CertificateDer<'_>,
    now: Timestamp,
) -> Result<Timestamp, ChainError> {
    if leaf.len() > CERTIFICATE_BYTES_MAX {
        return Err(ChainError::TooLarge);
    }
    let parsed = parse(leaf)?;
    let until = Validity::of(&parsed).check(now)?;
    if parsed.is_ca() {
        return Err(ChainError::IsCa);
    }
    // RFC 5280 §4.2.1.3: a TLS client signs the handshake with this key.
    if let Some(usage) = parsed.key_usage().map_err(|_| ChainError::Malformed)?
        && (!usage.value.digital_signature() || usage.value.key_cert_sign())
    {
        return Err(ChainError::KeyUsage);
    }
    // §4.2.1.12. anyExtendedKeyUsage is not taken for clientAuth, as webpki and SPIFFE have it.
    if let Some(usage) = parsed.extended_key_usage().map_err(|_| ChainError::Malformed)?
        && !purpose.is_named_in(usage.value)
    {
        return Err(ChainError::ExtendedKeyUsage);
    }
    Ok(until)
}

/// What webpki does not look at on a path whose signatures, names and dates are right.
fn check_path(
    leaf: &CertificateDer<'_>,
    path: &VerifiedPath<'_>,
    anchors: &Anchors,
    crls: &Crls,
    now: Timestamp,
) -> Result<Timestamp, ChainError> {
    let (anchor_spki, mut until) = anchors.find(path.anchor(), now)?;
    let issuers: Vec<_> = path.intermediate_certificates().map(webpki::Cert::der).collect();
    let mut subject = parse(leaf)?;
    let mut is_leaf = true;
    for der in &issuers {
        let issuer = parse(der)?;
        if !may_sign_certificates(&issuer) {
            return Err(ChainError::KeyUsage);
        }
        until = until.min(Validity::of(&issuer).check(now)?);
        until = until.min(crls.check(&subject, issuer.public_key().raw, is_leaf, now)?);
        subject = issuer;
        is_leaf = false;
    }
    Ok(until.min(crls.check(&subject, anchor_spki, is_leaf, now)?))
}

/// Parses one certificate, refusing trailing bytes, repeated extensions (RFC 5280 §4.2) and
/// unreadable ones among those that decide anything here.
///
/// # Errors
/// [`ChainError::Malformed`].
pub fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, ChainError> {
    let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| ChainError::Malformed)?;
    let unreadable = parsed.extensions().iter().any(|extension| {
        matches!(extension.parsed_extension(), ParsedExtension::ParseError { .. })
            && DECISIVE_EXTENSIONS.contains(&extension.oid.as_bytes())
    });
    if !rest.is_empty() || unreadable || parsed.extensions_map().is_err() {
        return Err(ChainError::Malformed);
    }
    Ok(parsed)
}

/// SHA-256 of a certificate's DER: its fingerprint, and RFC 8705's `x5t#S256` once encoded.
pub fn fingerprint(der: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(der).into()
}

/// Every certificate of a PEM file, in its order. Other sections are passed over.
///
/// # Errors
/// When there is none, or one is not PEM.
pub fn certificates_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| PemError::Malformed)?;
    if certificates.is_empty() { Err(PemError::NoCertificate) } else { Ok(certificates) }
}

/// The first private key of a PEM file (PKCS#8, PKCS#1 or SEC1, not encrypted).
///
/// # Errors
/// When there is none, or it is not PEM.
pub fn private_key_from_pem(pem: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        let none = matches!(error, rustls_pki_types::pem::Error::NoItemsFound);
        if none { PemError::NoKey } else { PemError::Malformed }
    })
}

fn is_for_anchors(extension: &Oid<'_>) -> bool {
    matches!(extension.as_bytes(), [0x55, 0x1d, last] if ANCHOR_EXTENSIONS.contains(last))
}

fn may_sign_certificates(certificate: &X509Certificate<'_>) -> bool {
    match certificate.key_usage() {
        Ok(Some(usage)) => usage.value.key_cert_sign(),
        Ok(None) => true,
        Err(_) => false,
    }
}

fn unix_time(now: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.as_secs()).unwrap_or(0)))
}

/// First and last second of validity, both inclusive (RFC 5280 §4.1.2.5).
#[derive(Clone, Copy, Debug)]
struct Validity {
    not_before_secs: i64,
    not_after_secs: i64,
}

impl Validity {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        Self {
            not_before_secs: certificate.validity().not_before.timestamp(),
            not_after_secs: certificate.validity().not_after.timestamp(),
        }
    }

    /// The first moment after the validity, when `now` is inside it.
    fn check(self, now: Timestamp) -> Result<Timestamp, ChainError> {
        if now.as_secs() < self.not_before_secs {
            Err(ChainError::NotYetValid)
        } else if now.as_secs() > self.not_after_secs {
            Err(ChainError::Expired)
        } else {
            Ok(Timestamp::from_secs(self.not_after_secs.saturating_add(1)))
        }
    }
}

/// Why a chain was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ChainError {
    /// A signature in the chain does not verify.
    #[error("a signature in the chain is not valid")]
    BadSignature,
    /// The newest revocation list of an issuer is past its next update.
    #[error("the revocation list of an issuer has expired")]
    CrlExpired,
    /// A critical extension that this server does not know.
    #[error("the chain has a critical extension that is not understood")]
    CriticalExtension,
    /// A certificate of the chain has expired.
    #[error("a certificate of the chain has expired")]
    Expired,
    /// The extended key usage lacks clientAuth.
    #[error("the certificate is not for client authentication")]
    ExtendedKeyUsage,
    /// The leaf is a certification authority.
    #[error("the certificate is a certification authority")]
    IsCa,
    /// An issuer in the chain is not a certification authority.
    #[error("an issuer in the chain is not a certification authority")]
    IssuerNotCa,
    /// Key usage forbids what the certificate is used for.
    #[error("the key usage of a certificate does not allow this use")]
    KeyUsage,
    /// Not a certificate, or not DER.
    #[error("a certificate of the chain is malformed")]
    Malformed,
    /// A name constraint of an issuer is violated, or is of a kind that is not supported.
    #[error("a name constraint of an issuer is violated")]
    NameConstraint,
    /// A certificate of the chain is not valid yet.
    #[error("a certificate of the chain is not valid yet")]
    NotYetValid,
    /// An issuer's path length constraint is violated.
    #[error("a path length constraint of an issuer is violated")]
    PathLength,
    /// A certificate of the chain has been revoked.
    #[error("a certificate of the chain has been revoked")]
    Revoked,
    /// No current revocation list covers a certificate, and one is demanded.
    #[error("no revocation list covers a certificate of the chain")]
    RevocationUnknown,
    /// Building a path takes more work than is spent on one peer.
    #[error("the chain is too complex")]
    TooComplex,
    /// A certificate is larger than [`CERTIFICATE_BYTES_MAX`].
    #[error("a certificate of the chain is larger than 16 KiB")]
    TooLarge,
    /// More than [`CHAIN_CERTIFICATES_MAX`] certificates.
    #[error("the chain has more than 8 certificates")]
    TooLong,
    /// No path leads to a trust anchor.
    #[error("the issuer is unknown")]
    UnknownIssuer,
    /// A signature algorithm or key type outside the accepted set.
    #[error("the chain uses an algorithm that is not accepted")]
    UnsupportedAlgorithm,
}

impl ChainError {
    /// A short name for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadSignature => "bad_signature",
            Self::CrlExpired => "crl_expired",
            Self::CriticalExtension => "critical_extension",
            Self::Expired => "expired",
            Self::ExtendedKeyUsage => "extended_key_usage",
            Self::IsCa => "is_ca",
            Self::IssuerNotCa => "issuer_not_ca",
            Self::KeyUsage => "key_usage",
            Self::Malformed => "malformed",
            Self::NameConstraint => "name_constraint",
            Self::NotYetValid => "not_yet_valid",
            Self::PathLength => "path_length",
            Self::Revoked => "revoked",
            Self::RevocationUnknown => "revocation_unknown",
            Self::TooComplex => "too_complex",
            Self::TooLarge => "too_large",
            Self::TooLong => "too_long",
            Self::UnknownIssuer => "unknown_issuer",
            Self::UnsupportedAlgorithm => "unsupported_algorithm",
        }
    }

    /// The more telling of two refusals of the same leaf by different anchors: anything says more
    /// than "unknown issuer", and revocation more than anything.
    #[must_use]
    pub fn or_more_specific(self, other: Self) -> Self {
        match (self, other) {
            (Self::Revoked, _) | (_, Self::Revoked) => Self::Revoked,
            (Self::UnknownIssuer, other) => other,
            (own, _) => own,
        }
    }
}

impl From<&webpki::Error> for ChainError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "what is not named here is malformed")]
    fn from(error: &webpki::Error) -> Self {
        use webpki::Error;
        match error {
            Error::CertExpired { .. } => Self::Expired,
            Error::CertNotValidYet { .. } => Self::NotYetValid,
            Error::CertRevoked => Self::Revoked,
            Error::CaUsedAsEndEntity => Self::IsCa,
            Error::EndEntityUsedAsCa => Self::IssuerNotCa,
            Error::EmptyEkuExtension | Error::RequiredEkuNotFoundContext(_) => {
                Self::ExtendedKeyUsage
            }
            Error::InvalidSignatureForPublicKey | Error::SignatureAlgorithmMismatch => {
                Self::BadSignature
            }
            Error::NameConstraintViolation
            | Error::MalformedNameConstraint
            | Error::InvalidNetworkMaskConstraint => Self::NameConstraint,
            Error::PathLenConstraintViolated => Self::PathLength,
            Error::MaximumNameConstraintComparisonsExceeded
            | Error::MaximumPathBuildCallsExceeded
            | Error::MaximumPathDepthExceeded
            | Error::MaximumSignatureChecksExceeded => Self::TooComplex,
            Error::UnknownIssuer => Self::UnknownIssuer,
            Error::UnsupportedCriticalExtension => Self::CriticalExtension,
            Error::UnsupportedSignatureAlgorithmContext(_)
            | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
                Self::UnsupportedAlgorithm
            }
            _ => Self::Malformed,
        }
    }
}

/// Why a set of trust anchors was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnchorError {
    /// A critical extension that is not understood.
    #[error("certificate {position} has a critical extension that is not understood")]
    CriticalExtension {
        /// Counted from 1.
        position: usize,
    },
    /// No certificate at all.
    #[error("there is no certificate")]
    Empty,
    /// Key usage without keyCertSign.
    #[error("certificate {position} may not sign certificates")]
    KeyUsage {
        /// Counted from 1.
        position: usize,
    },
    /// Not a certificate.
    #[error("certificate {position} is malformed")]
    Malformed {
        /// Counted from 1.
        position: usize,
    },
    /// Not a certification authority.
    #[error("certificate {position} is not a certification authority")]
    NotCa {
        /// Counted from 1.
        position: usize,
    },
    /// Not PEM.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// More than [`ANCHORS_MAX`].
    #[error("there are more than 256 certificates")]
    TooMany,
}

/// Why a PEM file was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Broken base64, or a section that does not end.
    #[error("is not valid PEM")]
    Malformed,
    /// No `CERTIFICATE` section.
    #[error("holds no certificate in PEM form")]
    NoCertificate,
    /// No private key section.
    #[error("holds no private key in PEM form")]
    NoKey,
}

#[cfg(test)]
mod tests;
