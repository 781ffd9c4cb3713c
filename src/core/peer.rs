//! Who is on the other end of a connection: the facts of a client certificate that the TLS verifier
//! accepted, parsed once per connection.
//!
//! A [`VerifiedPeer`] can only be made by the TLS server after a handshake that proved possession of
//! the key. It states facts; whether they are trusted now is [`TrustStore::judge`]'s answer, per
//! request, and what they entitle to is the cert roles'.
//!
//! [`TrustStore::judge`]: super::trust::TrustStore::judge

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use data_encoding::BASE64URL_NOPAD;
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use x509_parser::prelude::{
    AttributeTypeAndValue, GeneralName, ParsedExtension, SubjectAlternativeName, X509Certificate,
};

use super::spiffe::{SpiffeId, SvidError};
use super::trust::Judgement;
use crate::crypto::x509::{self, ChainError};
use crate::types::time::Timestamp;

/// Most names of one kind that a certificate may carry.
const NAMES_MAX: usize = 256;
/// Longest name of a refused certificate that the audit repeats, in bytes, and most of its URIs.
const CLAIMED_BYTES_MAX: usize = 2048;
const CLAIMED_URIS_MAX: usize = 4;

/// One connection, as handlers see it: an extension of each request.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// The client's certificate; `None` when the listener lets clients come without.
    pub peer: Option<Arc<VerifiedPeer>>,
    /// The other end's address.
    pub remote: SocketAddr,
    /// The name of the listener that accepted the connection.
    pub listener: Arc<str>,
    /// Counts connections since the process started.
    pub id: u64,
}

/// The facts of a client certificate whose key the other end has proved to hold.
#[derive(Debug)]
pub struct VerifiedPeer {
    leaf: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
    fingerprint: [u8; 32],
    chain_digest: [u8; 32],
    svid: Result<Option<SpiffeId>, SvidError>,
    uri_sans: Vec<String>,
    dns_sans: Vec<String>,
    email_sans: Vec<String>,
    common_name: Option<String>,
    organizational_units: Vec<String>,
    serial: String,
    subject_key_id: Option<String>,
    authority_key_id: Option<String>,
    not_before: Timestamp,
    not_after: Timestamp,
    extensions: Vec<(String, Vec<u8>)>,
    pub(super) judgement: ArcSwapOption<Judgement>,
}

impl VerifiedPeer {
    /// Parses the chain that a finished handshake verified, the leaf first. For the TLS server
    /// alone: whoever calls this claims that the other end holds the leaf's key.
    ///
    /// # Errors
    /// Certificates that cannot be read without doubt.
    pub(crate) fn from_handshake(chain: &[CertificateDer<'_>]) -> Result<Self, PeerError> {
        let (leaf, intermediates) = chain.split_first().ok_or(PeerError::NoCertificate)?;
        let parsed = x509::parse(leaf)?;
        let names = Names::of(&parsed)?;
        let subject = parsed.subject();
        // Several common names make one identity ambiguous: then there is none.
        let mut common_names = texts(subject.iter_common_name())?;
        let common_name = if common_names.len() == 1 { common_names.pop() } else { None };
        let svid = super::spiffe::judge_leaf(&parsed, &names.uri)
            .and_then(|id| super::spiffe::judge_issuers(intermediates, id));
        Ok(Self {
            fingerprint: x509::fingerprint(leaf),
            chain_digest: x509::chain_digest(leaf, intermediates),
            svid,
            uri_sans: names.uri,
            dns_sans: names.dns,
            email_sans: names.email,
            common_name,
            organizational_units: texts(subject.iter_organizational_unit())?,
            serial: colon_hex(without_sign_byte(parsed.raw_serial())),
            subject_key_id: key_id(&parsed, |extension| {
                let ParsedExtension::SubjectKeyIdentifier(id) = extension else { return None };
                Some(id.0)
            }),
            authority_key_id: key_id(&parsed, |extension| {
                let ParsedExtension::AuthorityKeyIdentifier(id) = extension else { return None };
                id.key_identifier.as_ref().map(|id| id.0)
            }),
            not_before: Timestamp::from_secs(parsed.validity().not_before.timestamp()),
            not_after: Timestamp::from_secs(parsed.validity().not_after.timestamp()),
            extensions: parsed
                .extensions()
                .iter()
                .map(|extension| (extension.oid.to_id_string(), extension.value.to_vec()))
                .collect(),
            leaf: leaf.clone().into_owned(),
            intermediates: intermediates.iter().map(|der| der.clone().into_owned()).collect(),
            judgement: ArcSwapOption::empty(),
        })
    }

    /// Reads a chain that nobody has proved anything about, and makes no peer of it. For the fuzz
    /// targets: no build without the feature `failpoints` has it.
    ///
    /// # Errors
    /// As a handshake's chain is refused.
    #[cfg(feature = "failpoints")]
    pub fn check_readable(chain: &[CertificateDer<'_>]) -> Result<(), PeerError> {
        Self::from_handshake(chain).map(|_| ())
    }

    /// The SPIFFE ID, when the certificate is a well-formed X.509-SVID.
    pub fn spiffe_id(&self) -> Option<&SpiffeId> {
        self.svid.as_ref().ok().and_then(Option::as_ref)
    }

    /// The SPIFFE ID of an X.509-SVID, `None` for a certificate that does not claim to be one.
    ///
    /// # Errors
    /// A certificate that claims to be an SVID and breaks a rule of the specification.
    pub fn spiffe_verdict(&self) -> Result<Option<&SpiffeId>, SvidError> {
        self.svid.as_ref().map(Option::as_ref).map_err(|error| *error)
    }

    /// What the chain that was presented, issuers included, is known by.
    pub(super) fn chain_digest(&self) -> &[u8; 32] {
        &self.chain_digest
    }

    /// URI names, in the certificate's order and spelling.
    pub fn uri_sans(&self) -> &[String] {
        &self.uri_sans
    }

    /// DNS names, in the certificate's order and spelling.
    pub fn dns_sans(&self) -> &[String] {
        &self.dns_sans
    }

    /// E-mail names, in the certificate's order and spelling.
    pub fn email_sans(&self) -> &[String] {
        &self.email_sans
    }

    /// The subject's common name, when there is exactly one.
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// The subject's organizational units.
    pub fn organizational_units(&self) -> &[String] {
        &self.organizational_units
    }

    /// The serial number in hexadecimal with colons: `7f:01`.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// The subject key identifier in hexadecimal with colons.
    pub fn subject_key_id(&self) -> Option<&str> {
        self.subject_key_id.as_deref()
    }

    /// The authority key identifier in hexadecimal with colons.
    pub fn authority_key_id(&self) -> Option<&str> {
        self.authority_key_id.as_deref()
    }

    /// The first moment of validity.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// The last second of validity.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// SHA-256 of the certificate's DER.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// The fingerprint as RFC 8705 §3.1 writes it: base64url without padding.
    pub fn x5t_s256(&self) -> String {
        BASE64URL_NOPAD.encode(&self.fingerprint)
    }

    /// The raw value of the extension `oid` (dotted).
    pub fn extension(&self, oid: &str) -> Option<&[u8]> {
        self.extensions.iter().find(|(known, _)| known == oid).map(|(_, value)| value.as_slice())
    }

    /// The value of the extension `oid` (dotted), where it is one UTF8String, PrintableString or
    /// IA5String and nothing else.
    pub fn extension_text(&self, oid: &str) -> Option<&str> {
        const STRING_TAGS: [u8; 3] = [0x0c, 0x13, 0x16];
        let (tag, rest) = self.extension(oid)?.split_first()?;
        if !STRING_TAGS.contains(tag) {
            return None;
        }
        std::str::from_utf8(der_content(rest)?).ok()
    }

    /// The certificate itself.
    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.leaf
    }

    /// Whatever else the client sent to build a path with. Not facts about the peer.
    pub fn intermediates(&self) -> &[CertificateDer<'static>] {
        &self.intermediates
    }
}

/// What a certificate says of itself whose holder was refused: nothing of it is known to be true.
/// For the audit alone.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ClaimedCertificate {
    /// SHA-256 of the DER, hex.
    pub fingerprint: String,
    /// Serial number, hex with colons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The subject's common name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub common_name: Option<String>,
    /// URI names; the SPIFFE ID is one of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uri_sans: Vec<String>,
}

impl ClaimedCertificate {
    /// Reads `leaf` as far as it can be read; names that do not fit an audit entry are left out.
    pub fn read(leaf: &CertificateDer<'_>) -> Self {
        let claimed = Self {
            fingerprint: data_encoding::HEXLOWER.encode(&x509::fingerprint(leaf)),
            ..Self::default()
        };
        let Ok(parsed) = x509::parse(leaf) else { return claimed };
        let fits = |name: &String| name.len() <= CLAIMED_BYTES_MAX;
        let common_names = texts(parsed.subject().iter_common_name()).unwrap_or_default();
        let uris = Names::of(&parsed).unwrap_or_default().uri;
        Self {
            serial: Some(colon_hex(without_sign_byte(parsed.raw_serial()))).filter(fits),
            common_name: common_names.into_iter().next().filter(fits),
            uri_sans: uris.into_iter().filter(fits).take(CLAIMED_URIS_MAX).collect(),
            ..claimed
        }
    }
}

/// The subject alternative names that identities are made of.
#[derive(Default)]
struct Names {
    uri: Vec<String>,
    dns: Vec<String>,
    email: Vec<String>,
}

impl Names {
    fn of(certificate: &X509Certificate<'_>) -> Result<Self, PeerError> {
        let mut names = Self::default();
        let extension =
            certificate.subject_alternative_name().map_err(|_| ChainError::Malformed)?;
        let Some(SubjectAlternativeName { general_names }) = extension.map(|found| found.value)
        else {
            return Ok(names);
        };
        for name in general_names {
            match name {
                GeneralName::URI(text) => names.uri.push(ascii(text)?),
                GeneralName::DNSName(text) => names.dns.push(ascii(text)?),
                GeneralName::RFC822Name(text) => names.email.push(ascii(text)?),
                GeneralName::Invalid(..) => return Err(ChainError::Malformed.into()),
                // No identity is made of these.
                GeneralName::OtherName(..)
                | GeneralName::X400Address(_)
                | GeneralName::DirectoryName(_)
                | GeneralName::EDIPartyName(_)
                | GeneralName::IPAddress(_)
                | GeneralName::RegisteredID(_) => {}
            }
        }
        if [&names.uri, &names.dns, &names.email].iter().any(|list| list.len() > NAMES_MAX) {
            return Err(PeerError::TooManyNames);
        }
        Ok(names)
    }
}

/// The alternative names are ASCII (RFC 5280 §4.2.1.6: IA5String). A parser that takes more for text
/// would make names that look like others.
fn ascii(text: &str) -> Result<String, PeerError> {
    if !text.is_ascii() {
        return Err(ChainError::Malformed.into());
    }
    printable(text)
}

/// Names end up in logs, audit lines and templates: none of them may carry control characters.
fn printable(text: &str) -> Result<String, PeerError> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(PeerError::UnprintableName);
    }
    Ok(text.to_owned())
}

fn texts<'a, 'b: 'a>(
    attributes: impl Iterator<Item = &'a AttributeTypeAndValue<'b>>,
) -> Result<Vec<String>, PeerError> {
    attributes
        .take(NAMES_MAX)
        .map(|attribute| {
            // Encodings older than UTF-8 (T61String, BMPString) would have to be guessed at.
            printable(attribute.as_str().map_err(|_| PeerError::UnprintableName)?)
        })
        .collect()
}

fn key_id(
    certificate: &X509Certificate<'_>,
    pick: impl for<'a> Fn(&'a ParsedExtension<'a>) -> Option<&'a [u8]>,
) -> Option<String> {
    certificate
        .extensions()
        .iter()
        .find_map(|extension| pick(extension.parsed_extension()))
        .map(colon_hex)
}

fn without_sign_byte(serial: &[u8]) -> &[u8] {
    match serial {
        [0, rest @ ..] if !rest.is_empty() => rest,
        _ => serial,
    }
}

fn colon_hex(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(":")
}

/// The content of a DER value whose tag has been taken off, when its length (below 64 KiB) is
/// exactly what is there.
fn der_content(bytes: &[u8]) -> Option<&[u8]> {
    let (length, content) = match bytes {
        [0x81, length, rest @ ..] if *length >= 0x80 => (usize::from(*length), rest),
        [0x82, high, low, rest @ ..] if *high > 0 => {
            (usize::from(*high) << 8 | usize::from(*low), rest)
        }
        [length, rest @ ..] if *length < 0x80 => (usize::from(*length), rest),
        _ => return None,
    };
    (content.len() == length).then_some(content)
}

/// Why the certificate of a finished handshake makes no peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The certificate, or one sent along with it, is malformed.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The handshake ended without one.
    #[error("there is no certificate")]
    NoCertificate,
    /// More than 256 names of one kind.
    #[error("the certificate has more than 256 names of one kind")]
    TooManyNames,
    /// A name that is empty, has control characters, or is in no encoding of UTF-8.
    #[error("the certificate has a name that cannot be printed")]
    UnprintableName,
}

#[cfg(test)]
mod tests;
