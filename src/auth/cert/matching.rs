//! Which certificates a role is for, and what it makes of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;

use crate::core::engine::Grant;
use crate::core::error::CoreError;
use crate::core::peer::VerifiedPeer;
use crate::core::spiffe::{SpiffeId, TrustDomain};
use crate::core::trust::TrustVerdict;
use crate::crypto::x509::{self, Anchors};
use crate::types::glob::Glob;

use super::role::CertRole;
use super::settings::Settings;

/// Why a certificate is not a role's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the common name does not match")]
    CommonName,
    #[error("no DNS name matches")]
    Dns,
    #[error("no e-mail name matches")]
    Email,
    #[error("a required extension is missing or does not match")]
    Extension,
    #[error("the certificate has no name to make an identity of")]
    Nameless,
    #[error("no organizational unit matches")]
    OrganizationalUnit,
    #[error("the role does not trust the chain")]
    Trust,
    #[error("no URI or SPIFFE ID matches")]
    Uri,
}

/// Whom a role trusts.
enum Trust {
    /// The configured bundles, or one of them.
    Configured(Option<String>),
    /// Its own certificates and nobody else.
    Own { anchors: Anchors, pinned: Vec<CertificateDer<'static>> },
}

/// A role whose parts are parsed.
pub(super) struct Compiled {
    name: Arc<str>,
    role: CertRole,
    trust: Trust,
    common_names: Vec<Glob>,
    dns: Vec<Glob>,
    email: Vec<Glob>,
    units: Vec<Glob>,
    uris: Vec<UriPattern>,
    extensions: Vec<(String, Glob)>,
}

impl Compiled {
    /// Parses a role and refuses one that would let in whoever is trusted at all.
    pub(super) fn new(name: &str, role: CertRole) -> Result<Self, CoreError> {
        let trust = trust_of(&role)?;
        let uris = role.allowed_uri_sans.iter().map(|text| UriPattern::parse(text));
        let extensions = role.required_extensions.iter().map(|text| extension(text));
        let compiled = Self {
            name: name.into(),
            trust,
            common_names: globs(&role.allowed_common_names),
            dns: globs(&role.allowed_dns_sans),
            email: globs(&role.allowed_email_sans),
            units: globs(&role.allowed_organizational_units),
            uris: uris.collect::<Result<_, _>>()?,
            extensions: extensions.collect::<Result<_, _>>()?,
            role,
        };
        for oid in &compiled.role.allowed_metadata_extensions {
            check_oid("allowed_metadata_extensions", oid)?;
        }
        if matches!(compiled.trust, Trust::Configured(_)) && !compiled.is_constrained() {
            return Err(CoreError::field(
                "certificate",
                "is required for a role that names no allowed SANs, names, units or extensions",
            ));
        }
        Ok(compiled)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn into_role(self) -> CertRole {
        self.role
    }

    /// The role's own CAs and pinned certificates.
    pub(super) fn own_trust(&self) -> Option<(&Anchors, &[CertificateDer<'static>])> {
        match &self.trust {
            Trust::Configured(_) => None,
            Trust::Own { anchors, pinned } => Some((anchors, pinned)),
        }
    }

    fn is_constrained(&self) -> bool {
        !(self.common_names.is_empty()
            && self.dns.is_empty()
            && self.email.is_empty()
            && self.units.is_empty()
            && self.uris.is_empty()
            && self.extensions.is_empty())
    }

    /// Whether the role is for this peer, whose chain was judged.
    pub(super) fn judge(
        &self,
        mount: &str,
        peer: &VerifiedPeer,
        verdict: &TrustVerdict,
    ) -> Result<(), Refusal> {
        let trusted = match &self.trust {
            Trust::Own { .. } => verdict.by_role(mount, &self.name),
            Trust::Configured(None) => verdict.by_configuration(),
            Trust::Configured(Some(wanted)) => {
                let domain = peer.spiffe_id().map(SpiffeId::trust_domain);
                verdict.bundles().any(|bundle| bundle == wanted)
                    || domain.is_some_and(|d| verdict.by_configuration() && d.as_str() == wanted)
            }
        };
        if !trusted {
            return Err(Refusal::Trust);
        }
        let common_name: Vec<String> = peer.common_name().map(str::to_owned).into_iter().collect();
        one_of(&self.common_names, &common_name, Refusal::CommonName)?;
        one_of(&self.dns, peer.dns_sans(), Refusal::Dns)?;
        one_of(&self.email, peer.email_sans(), Refusal::Email)?;
        one_of(&self.units, peer.organizational_units(), Refusal::OrganizationalUnit)?;
        if !self.uris.is_empty() && !self.uris.iter().any(|pattern| pattern.matches(peer)) {
            return Err(Refusal::Uri);
        }
        let extended = self.extensions.iter().all(|(oid, pattern)| {
            peer.extension_text(oid).is_some_and(|text| pattern.matches(text))
        });
        if extended { Ok(()) } else { Err(Refusal::Extension) }
    }

    /// What the role gives to a peer that it is for.
    pub(super) fn grant(
        &self,
        peer: &VerifiedPeer,
        verdict: &TrustVerdict,
        settings: &Settings,
    ) -> Result<Grant, Refusal> {
        let (name, alias) = self.identity(peer, verdict).ok_or(Refusal::Nameless)?;
        let metadata = self.metadata(peer);
        Ok(Grant {
            alias,
            groups: Vec::new(),
            alias_metadata: if settings.enable_identity_alias_metadata {
                metadata.clone()
            } else {
                BTreeMap::new()
            },
            role: self.name.to_string(),
            display_name: match self.role.display_name.as_str() {
                "" => name,
                given => given.to_owned(),
            },
            metadata,
            token: self.role.token.clone(),
            bound_certificate: (!settings.disable_binding).then(|| *peer.fingerprint()),
            not_after: Some(peer.not_after()),
        })
    }

    /// The name of the identity for people, and the alias that no other identity has.
    fn identity(&self, peer: &VerifiedPeer, verdict: &TrustVerdict) -> Option<(String, String)> {
        if let Some(id) = peer.spiffe_id() {
            // A trust domain has one bundle, so the ID names its source of trust itself.
            return Some((id.as_str().to_owned(), id.as_str().to_owned()));
        }
        let source = match &self.trust {
            Trust::Own { .. } => format!("role:{}", self.name),
            Trust::Configured(Some(wanted)) => format!("bundle:{wanted}"),
            Trust::Configured(None) => format!("bundle:{}", verdict.bundles().min()?),
        };
        let common_name: Vec<String> = peer.common_name().map(str::to_owned).into_iter().collect();
        let candidates = [
            ("dns", first(&self.dns, peer.dns_sans())),
            ("uri", peer.uri_sans().iter().min()),
            ("email", first(&self.email, peer.email_sans())),
            ("cn", first(&self.common_names, &common_name)),
        ];
        let (kind, name) =
            candidates.into_iter().find_map(|(kind, name)| Some((kind, name?.clone())))?;
        let alias = format!("{kind}:{name}@{source}");
        Some((name, alias))
    }

    fn metadata(&self, peer: &VerifiedPeer) -> BTreeMap<String, String> {
        let facts = [
            ("cert_name", Some(&*self.name)),
            ("common_name", peer.common_name()),
            ("serial_number", Some(peer.serial())),
            ("subject_key_id", peer.subject_key_id()),
            ("authority_key_id", peer.authority_key_id()),
            ("spiffe_id", peer.spiffe_id().map(SpiffeId::as_str)),
        ];
        let mut metadata: BTreeMap<String, String> = facts
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        for oid in &self.role.allowed_metadata_extensions {
            if let Some(text) = peer.extension_text(oid) {
                metadata.insert(oid.replace('.', "-"), text.to_owned());
            }
        }
        metadata
    }
}

/// A pattern for URI names.
enum UriPattern {
    /// For SPIFFE IDs: the trust domain byte for byte, `*` in the path alone.
    Spiffe { trust_domain: TrustDomain, path: Glob },
    /// For all other URIs. Never matches a SPIFFE ID, whatever its stars.
    Other(Glob),
}

impl UriPattern {
    fn parse(text: &str) -> Result<Self, CoreError> {
        let bad = |problem: String| CoreError::field("allowed_uri_sans", problem);
        let Some(rest) = text.strip_prefix("spiffe://") else {
            if text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("spiffe:")) {
                return Err(bad("has a SPIFFE ID that does not start with spiffe://".into()));
            }
            return Ok(Self::Other(Glob::new(text)));
        };
        let (domain, path) = rest
            .split_once('/')
            .ok_or_else(|| bad("has a SPIFFE ID without a path; end it in /*".into()))?;
        let trust_domain = TrustDomain::parse(domain)
            .map_err(|error| bad(format!("has a bad trust domain: {error}; it takes no \"*\"")))?;
        // With every star filled in, the pattern must be an ID that can exist.
        SpiffeId::parse(&text.replace('*', "x"))
            .map_err(|error| bad(format!("has a bad SPIFFE ID: {error}")))?;
        Ok(Self::Spiffe { trust_domain, path: Glob::new(path) })
    }

    fn matches(&self, peer: &VerifiedPeer) -> bool {
        match (self, peer.spiffe_id()) {
            (Self::Spiffe { trust_domain, path }, Some(id)) => {
                id.trust_domain() == trust_domain
                    && id.path().strip_prefix('/').is_some_and(|rest| path.matches(rest))
            }
            (Self::Other(pattern), None) => peer.uri_sans().iter().any(|uri| pattern.matches(uri)),
            (Self::Spiffe { .. }, None) | (Self::Other(_), Some(_)) => false,
        }
    }
}

fn trust_of(role: &CertRole) -> Result<Trust, CoreError> {
    let wanted = Some(role.trust_domain.clone()).filter(|text| !text.is_empty());
    if role.certificate.is_empty() {
        return Ok(Trust::Configured(wanted));
    }
    if wanted.is_some() {
        let problem = "cannot be given together with certificate";
        return Err(CoreError::field("trust_domain", problem));
    }
    let bad = |problem: String| CoreError::field("certificate", problem);
    let certificates = x509::certificates_from_pem(role.certificate.as_bytes())
        .map_err(|error| bad(error.to_string()))?;
    let (mut authorities, mut pinned) = (Vec::new(), Vec::new());
    for der in certificates {
        let is_ca = x509::parse(&der).map_err(|error| bad(error.to_string()))?.is_ca();
        if is_ca { authorities.push(der) } else { pinned.push(der) }
    }
    let anchors = if authorities.is_empty() {
        Anchors::default()
    } else {
        Anchors::from_certificates(authorities).map_err(|error| bad(error.to_string()))?
    };
    Ok(Trust::Own { anchors, pinned })
}

fn extension(text: &str) -> Result<(String, Glob), CoreError> {
    const FIELD: &str = "required_extensions";
    let (oid, pattern) =
        text.split_once(':').ok_or_else(|| CoreError::field(FIELD, "must be oid:pattern pairs"))?;
    check_oid(FIELD, oid)?;
    Ok((oid.to_owned(), Glob::new(pattern)))
}

fn check_oid(field: &str, oid: &str) -> Result<(), CoreError> {
    let well_formed = oid.contains('.')
        && oid.split('.').all(|arc| !arc.is_empty() && arc.bytes().all(|b| b.is_ascii_digit()));
    if well_formed { Ok(()) } else { Err(CoreError::field(field, "has a bad object identifier")) }
}

fn globs(texts: &[String]) -> Vec<Glob> {
    texts.iter().map(Glob::new).collect()
}

fn one_of(patterns: &[Glob], names: &[String], refusal: Refusal) -> Result<(), Refusal> {
    let found = names.iter().any(|name| patterns.iter().any(|pattern| pattern.matches(name)));
    if patterns.is_empty() || found { Ok(()) } else { Err(refusal) }
}

/// The first, in byte order, of the names that the role speaks of, or of all when it speaks of none:
/// the order inside a certificate means nothing.
fn first<'n>(patterns: &[Glob], names: &'n [String]) -> Option<&'n String> {
    let spoken_of =
        |name: &&String| patterns.is_empty() || patterns.iter().any(|p| p.matches(name));
    names.iter().filter(spoken_of).min()
}
