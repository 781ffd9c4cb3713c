//! Certificate revocation lists (RFC 5280 §5).
//!
//! A list counts for a certificate when it names the certificate's issuer and the issuer's key, as
//! found on the path, signed it. Every such list is asked, whatever its scope: being listed
//! anywhere is being revoked. Delta and indirect lists are refused when they are read.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateRevocationListDer, SubjectPublicKeyInfoDer};
use webpki::RawPublicKeyEntity;
use x509_parser::prelude::{
    CertificateRevocationList, FromDer, ParsedExtension, X509Certificate, X509Extension,
};

use super::{Anchors, ChainError};
use crate::types::time::Timestamp;

/// Largest list accepted, in bytes of DER.
pub const CRL_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a list past its next update is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiredCrl {
    /// Certificates of its issuer are refused until a current list arrives.
    Refuse,
    /// It still revokes what it lists; what it does not list is accepted.
    Accept,
}

/// What becomes of a certificate that no current list covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UnknownStatus {
    /// It is accepted: lists are optional.
    #[default]
    Accept,
    /// It is refused: every issuer must have a current list.
    Refuse,
}

/// One revocation list.
#[derive(Debug)]
pub struct Crl {
    issuer: Vec<u8>,
    signed: Vec<u8>,
    algorithm: Vec<u8>,
    signature: Vec<u8>,
    issued_at: Timestamp,
    next_update: Option<Timestamp>,
    covers_leaves: bool,
    covers_issuers: bool,
    revoked: HashSet<Box<[u8]>>,
    // The key that signed the list, once seen: a list is checked at every handshake.
    signer: OnceLock<Vec<u8>>,
}

impl Crl {
    /// Parses one list from DER.
    ///
    /// # Errors
    /// Malformed, oversized, delta and indirect lists, and those with critical extensions or
    /// signature algorithms that are not understood.
    pub fn from_der(der: &[u8]) -> Result<Self, CrlError> {
        if der.len() > CRL_BYTES_MAX {
            return Err(CrlError::TooLarge);
        }
        let (rest, list) =
            CertificateRevocationList::from_der(der).map_err(|_| CrlError::Malformed)?;
        if !rest.is_empty() || list.signature_algorithm != list.tbs_cert_list.signature {
            return Err(CrlError::Malformed);
        }
        let algorithm = list.signature_algorithm.algorithm.as_bytes().to_vec();
        if candidates(&algorithm).next().is_none() {
            return Err(CrlError::Algorithm);
        }
        let mut crl = Self {
            issuer: list.issuer().as_raw().to_vec(),
            signed: list.tbs_cert_list.as_ref().to_vec(),
            algorithm,
            signature: list.signature_value.data.to_vec(),
            issued_at: Timestamp::from_secs(list.last_update().timestamp()),
            next_update: list.next_update().map(|time| Timestamp::from_secs(time.timestamp())),
            covers_leaves: true,
            covers_issuers: true,
            revoked: list
                .iter_revoked_certificates()
                .map(|entry| Box::from(significant(entry.raw_serial())))
                .collect(),
            signer: OnceLock::new(),
        };
        for extension in list.extensions() {
            crl.read_extension(extension)?;
        }
        Ok(crl)
    }

    /// Every list of a file: PEM sections, or a single list in DER.
    ///
    /// # Errors
    /// As [`Crl::from_der`], and a file without any list.
    pub fn from_file_bytes(bytes: &[u8]) -> Result<Vec<Self>, CrlError> {
        const DER_SEQUENCE: u8 = 0x30;
        if bytes.first() == Some(&DER_SEQUENCE) {
            return Ok(vec![Self::from_der(bytes)?]);
        }
        let sections: Vec<CertificateRevocationListDer<'static>> = PemObject::pem_slice_iter(bytes)
            .collect::<Result<_, _>>()
            .map_err(|_| CrlError::Malformed)?;
        if sections.is_empty() {
            return Err(CrlError::Empty);
        }
        sections.iter().map(|der| Self::from_der(der)).collect()
    }

    /// When it was issued (`thisUpdate`).
    pub fn issued_at(&self) -> Timestamp {
        self.issued_at
    }

    /// Whether the key of one of `anchors`, which it also names as its issuer, signed it.
    pub fn is_signed_by(&self, anchors: &Anchors) -> bool {
        anchors.certificates().iter().any(|der| {
            super::parse(der).is_ok_and(|anchor| {
                anchor.subject().as_raw() == self.issuer && self.signed_by(anchor.public_key().raw)
            })
        })
    }

    /// Whether it is of the same issuer as `other`, no older, and covers no less.
    pub fn supersedes(&self, other: &Self) -> bool {
        self.issuer == other.issuer
            && self.issued_at >= other.issued_at
            && self.covers_leaves >= other.covers_leaves
            && self.covers_issuers >= other.covers_issuers
    }

    /// When the next list is due, if the issuer says so.
    pub fn next_update(&self) -> Option<Timestamp> {
        self.next_update
    }

    /// How many certificates are listed.
    pub fn revoked_count(&self) -> usize {
        self.revoked.len()
    }

    /// The serial numbers listed, big-endian without leading zeros, in no order.
    pub fn revoked_serials(&self) -> impl Iterator<Item = &[u8]> {
        self.revoked.iter().map(AsRef::as_ref)
    }

    fn read_extension(&mut self, extension: &X509Extension<'_>) -> Result<(), CrlError> {
        const DELTA_CRL_INDICATOR: &[u8] = &[0x55, 0x1d, 0x1b];
        if extension.oid.as_bytes() == DELTA_CRL_INDICATOR {
            return Err(CrlError::Delta);
        }
        if let ParsedExtension::IssuingDistributionPoint(point) = extension.parsed_extension() {
            if point.indirect_crl {
                return Err(CrlError::Indirect);
            }
            // A partition by name, reason or kind vouches for less than the issuer's whole output.
            let whole = point.distribution_point.is_none()
                && point.only_some_reasons.is_none()
                && !point.only_contains_attribute_certs;
            self.covers_leaves = whole && !point.only_contains_ca_certs;
            self.covers_issuers = whole && !point.only_contains_user_certs;
            return Ok(());
        }
        let known = matches!(
            extension.parsed_extension(),
            ParsedExtension::CRLNumber(_)
                | ParsedExtension::AuthorityKeyIdentifier(_)
                | ParsedExtension::IssuerAlternativeName(_)
        );
        if extension.critical && !known {
            return Err(CrlError::CriticalExtension);
        }
        Ok(())
    }

    fn lists(&self, certificate: &X509Certificate<'_>) -> bool {
        self.revoked.contains(significant(certificate.raw_serial()))
    }

    fn names_issuer_of(&self, certificate: &X509Certificate<'_>) -> bool {
        self.issuer == certificate.issuer().as_raw()
    }

    /// Whether the key in `spki` signed this list. The issuer's cRLSign bit is not asked for: a CA
    /// that signs lists without it still means what they say.
    fn signed_by(&self, spki: &[u8]) -> bool {
        if self.signer.get().is_some_and(|known| known == spki) {
            return true;
        }
        let spki_der = SubjectPublicKeyInfoDer::from(spki);
        let Ok(key) = RawPublicKeyEntity::try_from(&spki_der) else { return false };
        let valid = candidates(&self.algorithm).any(|algorithm| {
            key.verify_signature(algorithm, &self.signed, &self.signature).is_ok()
        });
        if valid {
            // Losing a race to another thread stores the same bytes.
            let _ = self.signer.set(spki.to_vec());
        }
        valid
    }
}

/// The accepted signature algorithms of that object identifier (its content bytes).
fn candidates(
    oid: &[u8],
) -> impl Iterator<Item = &'static dyn rustls_pki_types::SignatureVerificationAlgorithm> {
    const OBJECT_IDENTIFIER: u8 = 0x06;
    let mut prefix = vec![OBJECT_IDENTIFIER];
    prefix.extend(u8::try_from(oid.len()));
    prefix.extend_from_slice(oid);
    webpki::ALL_VERIFICATION_ALGS
        .iter()
        .copied()
        .filter(move |algorithm| algorithm.signature_alg_id().as_ref().starts_with(&prefix))
}

/// A serial number without leading zeros: CAs disagree about the sign byte.
fn significant(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    serial.get(zeros..).unwrap_or_default()
}

/// Revocation lists, each with what it is worth when stale, and what their absence means.
#[derive(Clone, Debug, Default)]
pub struct Crls {
    entries: Vec<(Arc<Crl>, ExpiredCrl)>,
    unknown: UnknownStatus,
}

impl Crls {
    /// No list, and none demanded.
    pub fn none() -> Self {
        Self::default()
    }

    /// No list yet; `unknown` says what becomes of certificates that none covers.
    pub fn new(unknown: UnknownStatus) -> Self {
        Self { entries: Vec::new(), unknown }
    }

    /// What becomes of certificates that none covers.
    pub fn unknown(&self) -> UnknownStatus {
        self.unknown
    }

    /// Adds one list.
    pub fn push(&mut self, crl: Arc<Crl>, expired: ExpiredCrl) {
        self.entries.push((crl, expired));
    }

    /// The lists of `other`, with what absence means here.
    #[must_use]
    pub fn with_lists_of(&self, other: &Self) -> Self {
        Self { entries: other.entries.clone(), unknown: self.unknown }
    }

    /// Adds the lists of `other`; what absence means stays as it is here.
    pub fn extend_from(&mut self, other: &Self) {
        self.entries.extend(other.entries.iter().cloned());
    }

    /// The lists themselves.
    pub fn lists(&self) -> impl Iterator<Item = &Crl> {
        self.entries.iter().map(|(crl, _)| crl.as_ref())
    }

    /// Whether there is no list.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether some list names the issuer and the serial number of `certificate`, its signature
    /// unchecked: for certificates that are pinned, so that no issuer's key is known.
    pub fn mention(&self, certificate: &X509Certificate<'_>) -> bool {
        self.entries
            .iter()
            .any(|(crl, _)| crl.names_issuer_of(certificate) && crl.lists(certificate))
    }

    /// Judges `certificate`, whose issuer's key is `issuer_spki`. Answers until when.
    pub(super) fn check(
        &self,
        certificate: &X509Certificate<'_>,
        issuer_spki: &[u8],
        is_leaf: bool,
        now: Timestamp,
    ) -> Result<Timestamp, ChainError> {
        let mut current_until = None;
        let mut stale_refused = false;
        for (crl, expired) in &self.entries {
            if !crl.names_issuer_of(certificate) || !crl.signed_by(issuer_spki) {
                continue;
            }
            if crl.lists(certificate) {
                return Err(ChainError::Revoked);
            }
            let until = crl.next_update.unwrap_or(Timestamp::MAX);
            if now < until {
                if if is_leaf { crl.covers_leaves } else { crl.covers_issuers } {
                    current_until = current_until.max(Some(until));
                }
            } else if *expired == ExpiredCrl::Refuse {
                stale_refused = true;
            }
        }
        match (current_until, stale_refused, self.unknown) {
            (Some(until), _, _) => Ok(until),
            (None, true, _) => Err(ChainError::CrlExpired),
            (None, false, UnknownStatus::Refuse) => Err(ChainError::RevocationUnknown),
            (None, false, UnknownStatus::Accept) => Ok(Timestamp::MAX),
        }
    }
}

/// Why a revocation list was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    /// Signed with an algorithm outside the accepted set.
    #[error("the revocation list is signed with an algorithm that is not accepted")]
    Algorithm,
    /// A critical extension that is not understood.
    #[error("the revocation list has a critical extension that is not understood")]
    CriticalExtension,
    /// A delta list.
    #[error("delta revocation lists are not supported")]
    Delta,
    /// No list in the file.
    #[error("holds no revocation list")]
    Empty,
    /// An indirect list.
    #[error("indirect revocation lists are not supported")]
    Indirect,
    /// Not a list.
    #[error("the revocation list is malformed")]
    Malformed,
    /// More than [`CRL_BYTES_MAX`].
    #[error("the revocation list is larger than 8 MiB")]
    TooLarge,
}
