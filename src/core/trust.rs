//! Whose certificates are trusted, now.
//!
//! Three sources: bundles from the configuration, the own CAs and pinned certificates of cert roles,
//! and revocation lists from both. They change while connections are open, so trust is asked for
//! twice: at the handshake ([`TrustStore::accepts`]) and at every request ([`TrustStore::judge`]).
//! The second answer is kept with the peer and costs two comparisons until something changed.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use quick_cache::sync::Cache;
use rustls_pki_types::CertificateDer;

use super::peer::VerifiedPeer;
use super::spiffe::{SvidError, TrustDomain, is_signing_certificate};
use crate::crypto::x509::crl::{Crl, Crls};
use crate::crypto::x509::{self, Anchors, ChainError, VerifiedChain};
use crate::types::time::Timestamp;

/// Longest time a judgement is kept even when nothing seems to have changed, in milliseconds.
const JUDGEMENT_MILLIS_MAX: i64 = 300_000;
/// Chains remembered as verified, over all sources.
const CHAINS_MAX: usize = 16_384;

/// Counts changes of all stores, so that no two states share a number.
static GENERATIONS: AtomicU64 = AtomicU64::new(1);

/// The anchors and revocation lists of one trust domain, or of one named CA outside SPIFFE.
#[derive(Clone, Debug)]
pub struct TrustBundle {
    name: Arc<str>,
    trust_domain: Option<TrustDomain>,
    anchors: Anchors,
    crls: Crls,
}

impl TrustBundle {
    /// A bundle called `name` in logs, audit entries and cert roles.
    ///
    /// # Errors
    /// A bundle of a trust domain with an anchor that X509-SVID §3.2 and §4.3 do not let sign.
    pub fn new(
        name: &str,
        trust_domain: Option<TrustDomain>,
        anchors: Anchors,
        crls: Crls,
    ) -> Result<Self, BundleError> {
        if trust_domain.is_some() {
            for (position, anchor) in anchors.certificates().iter().enumerate() {
                let usage_present = x509::parse(anchor)
                    .is_ok_and(|parsed| parsed.key_usage().is_ok_and(|usage| usage.is_some()));
                if !usage_present || !is_signing_certificate(anchor) {
                    return Err(BundleError::Anchor { position: position + 1 });
                }
            }
        }
        Ok(Self { name: name.into(), trust_domain, anchors, crls })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What one cert role trusts besides the configured bundles.
#[derive(Clone, Debug)]
pub struct RoleTrust {
    /// The role's name within its mount.
    pub role: Arc<str>,
    /// The role's own CAs.
    pub anchors: Anchors,
    /// Certificates trusted by themselves, compared by their whole DER.
    pub pinned: Vec<CertificateDer<'static>>,
}

/// The trusted bundles, roles and revocation lists. Reads take no lock.
#[derive(Debug)]
pub struct TrustStore {
    state: ArcSwap<State>,
    writing: Mutex<Sources>,
}

#[derive(Debug, Default)]
struct Sources {
    bundles: Vec<TrustBundle>,
    roles: BTreeMap<String, Vec<RoleTrust>>,
    role_crls: BTreeMap<String, Crls>,
}

#[derive(Debug)]
struct State {
    generation: u64,
    // Each with every list of the store: a list only counts where its issuer's key signed it, and a
    // certificate revoked by one source must not be accepted by way of another.
    bundles: Vec<TrustBundle>,
    roles: Vec<(Arc<str>, RoleTrust)>,
    crls: Crls,
    // For each source, bundles first: which one asks the same of a chain. A CA is often the bundle of
    // the configuration and the own CA of several roles; its signatures are looked at once.
    alike: Vec<usize>,
    // What the handshake found need not be computed again for the first request, nor for the next
    // connection of the same workload. Gone with the state, so that any change of anchors or lists
    // empties it; refusals are never kept here, so that strangers cannot fill it.
    verified: Cache<(usize, [u8; 32]), Verified>,
}

/// A chain that was found to lead to some source's anchors.
#[derive(Clone, Copy, Debug)]
struct Verified {
    from: Timestamp,
    until: Timestamp,
}

/// The certificates that a peer presented.
#[derive(Clone, Copy)]
struct Presented<'c> {
    leaf: &'c CertificateDer<'c>,
    intermediates: &'c [CertificateDer<'c>],
    digest: [u8; 32],
}

impl Default for TrustStore {
    fn default() -> Self {
        Self::new()
    }
}

impl TrustStore {
    /// Trusts nobody yet.
    pub fn new() -> Self {
        let sources = Sources::default();
        Self { state: ArcSwap::from_pointee(sources.state()), writing: Mutex::new(sources) }
    }

    /// Replaces the configured bundles.
    pub fn set_bundles(&self, bundles: Vec<TrustBundle>) {
        self.change(|sources| sources.bundles = bundles);
    }

    /// Replaces what the cert roles of `mount` trust; an empty list when the mount goes.
    pub fn set_role_anchors(&self, mount: &str, roles: Vec<RoleTrust>) {
        self.change(|sources| {
            sources.roles.remove(mount);
            if !roles.is_empty() {
                sources.roles.insert(mount.to_owned(), roles);
            }
        });
    }

    /// Replaces the revocation lists that were given to `mount` at run time.
    pub fn set_role_crls(&self, mount: &str, crls: Crls) {
        self.change(|sources| {
            sources.role_crls.remove(mount);
            if !crls.is_empty() {
                sources.role_crls.insert(mount.to_owned(), crls);
            }
        });
    }

    /// Forgets everything that came from mounts: on seal.
    pub fn clear_roles(&self) {
        self.change(|sources| {
            sources.roles.clear();
            sources.role_crls.clear();
        });
    }

    /// Rises with every change.
    pub fn generation(&self) -> u64 {
        self.state.load().generation
    }

    /// Whether an authority signed `list` that is itself trusted here, by a bundle or by a role.
    pub fn vouches_for(&self, list: &Crl) -> bool {
        let state = self.state.load();
        state.bundles.iter().any(|bundle| list.is_signed_by(&bundle.anchors))
            || state.roles.iter().any(|(_, role)| list.is_signed_by(&role.anchors))
    }

    /// How old the revocation lists are, source by source. Sources without lists are left out.
    pub fn crl_ages(&self, now: Timestamp) -> Vec<CrlAge> {
        let sources = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let bundles = sources
            .bundles
            .iter()
            .map(|bundle| (CrlOrigin::Bundle(bundle.name.as_ref().to_owned()), &bundle.crls));
        let mounts =
            sources.role_crls.iter().map(|(mount, crls)| (CrlOrigin::Mount(mount.clone()), crls));
        bundles.chain(mounts).filter_map(|(origin, crls)| CrlAge::of(origin, crls, now)).collect()
    }

    /// Whether a handshake with this chain may finish: it leads to some configured bundle or to a
    /// role's CA, or its leaf is pinned. Says nothing yet about who the peer is.
    ///
    /// # Errors
    /// The most specific reason why not.
    pub fn accepts(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<(), ChainError> {
        let state = self.state.load();
        let digest = x509::chain_digest(leaf, intermediates);
        let chain = Presented { leaf, intermediates, digest };
        let mut refusal = ChainError::UnknownIssuer;
        for (source, _) in state.bundles.iter().enumerate() {
            match state.bundle_accepts(source, chain, now) {
                Ok(_) => return Ok(()),
                Err(error) => refusal = refusal.or_more_specific(error),
            }
        }
        for (source, _) in state.roles.iter().enumerate() {
            match state.role_accepts(source, chain, now) {
                Ok(_) => return Ok(()),
                Err(error) => refusal = refusal.or_more_specific(error),
            }
        }
        Err(refusal)
    }

    /// Whether `peer` is trusted now, and by whom. Cheap while nothing has changed since the last
    /// time: call it for every request.
    ///
    /// # Errors
    /// Why the peer is not, or no longer, trusted.
    pub fn judge(
        &self,
        peer: &VerifiedPeer,
        now: Timestamp,
    ) -> Result<Arc<TrustVerdict>, TrustError> {
        let state = self.state.load();
        if let Some(known) = peer.judgement.load().as_ref()
            && known.generation == state.generation
            && known.from <= now
            && now < known.until
        {
            return known.outcome.clone();
        }
        let (outcome, until) = state.judge(peer, now);
        peer.judgement.store(Some(Arc::new(Judgement {
            generation: state.generation,
            from: now,
            until: until.min(now.plus_millis(JUDGEMENT_MILLIS_MAX)),
            outcome: outcome.clone(),
        })));
        outcome
    }

    fn change(&self, apply: impl FnOnce(&mut Sources)) {
        let mut sources = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        apply(&mut sources);
        self.state.store(Arc::new(sources.state()));
    }
}

impl Sources {
    fn state(&self) -> State {
        let mut crls = Crls::none();
        for bundle in &self.bundles {
            crls.extend_from(&bundle.crls);
        }
        for lists in self.role_crls.values() {
            crls.extend_from(lists);
        }
        let bundles = self.bundles.iter().cloned().map(|mut bundle| {
            bundle.crls = bundle.crls.with_lists_of(&crls);
            bundle
        });
        let roles = self.roles.iter().flat_map(|(mount, roles)| {
            let mount: Arc<str> = mount.as_str().into();
            roles.iter().map(move |role| (mount.clone(), role.clone()))
        });
        let (bundles, roles): (Vec<_>, Vec<_>) = (bundles.collect(), roles.collect());
        State {
            generation: GENERATIONS.fetch_add(1, Ordering::Relaxed),
            alike: alike(&bundles, &roles, &crls),
            bundles,
            roles,
            crls,
            verified: Cache::new(CHAINS_MAX),
        }
    }
}

/// For each source, the first that has the same anchors and treats absent lists alike. The lists
/// themselves are the same for all.
fn alike(bundles: &[TrustBundle], roles: &[(Arc<str>, RoleTrust)], crls: &Crls) -> Vec<usize> {
    let mut first = HashMap::new();
    let bundles = bundles.iter().map(|bundle| (&bundle.anchors, bundle.crls.unknown()));
    let roles = roles.iter().map(|(_, role)| (&role.anchors, crls.unknown()));
    let sources = bundles.chain(roles).enumerate();
    sources
        .map(|(source, (anchors, unknown))| {
            *first.entry((anchors.certificates(), unknown)).or_insert(source)
        })
        .collect()
}

impl State {
    fn judge(
        &self,
        peer: &VerifiedPeer,
        now: Timestamp,
    ) -> (Result<Arc<TrustVerdict>, TrustError>, Timestamp) {
        match self.verdict(peer, now) {
            Ok((verdict, until)) => (Ok(Arc::new(verdict)), until),
            // A refusal may end by the passing of time alone: it is kept for a second, which is
            // enough to make a refused peer that insists cheap.
            Err(error) => (Err(error), now.plus_millis(1000)),
        }
    }

    fn verdict(
        &self,
        peer: &VerifiedPeer,
        now: Timestamp,
    ) -> Result<(TrustVerdict, Timestamp), TrustError> {
        let id = peer.spiffe_verdict()?;
        let mut until = Timestamp::MAX;
        let mut refusal = ChainError::UnknownIssuer;
        let mut verdict = TrustVerdict { bundles: Vec::new(), roles: Vec::new() };
        let chain = Presented {
            leaf: peer.leaf(),
            intermediates: peer.intermediates(),
            digest: *peer.chain_digest(),
        };
        for (source, bundle) in self.bundles.iter().enumerate() {
            // X509-SVID §5.1: an SVID is validated against the bundle of its own trust domain,
            // and bundles are never merged.
            if id.is_some() && bundle.trust_domain.as_ref() != id.map(|id| id.trust_domain()) {
                continue;
            }
            match self.bundle_accepts(source, chain, now) {
                Ok(chain) => {
                    until = until.min(chain.until);
                    verdict.bundles.push(bundle.name.clone());
                }
                Err(ChainError::Revoked) => return Err(ChainError::Revoked.into()),
                Err(error) => refusal = refusal.or_more_specific(error),
            }
        }
        if let Some(id) = id
            && verdict.bundles.is_empty()
        {
            let known =
                |bundle: &TrustBundle| bundle.trust_domain.as_ref() == Some(id.trust_domain());
            let configured = self.bundles.iter().any(known);
            return Err(if configured { refusal.into() } else { TrustError::TrustDomain });
        }
        for (source, (mount, role)) in self.roles.iter().enumerate() {
            match self.role_accepts(source, chain, now) {
                Ok(chain) => {
                    until = until.min(chain.until);
                    verdict.roles.push((mount.clone(), role.role.clone()));
                }
                Err(ChainError::Revoked) => return Err(ChainError::Revoked.into()),
                Err(error) => refusal = refusal.or_more_specific(error),
            }
        }
        if verdict.bundles.is_empty() && verdict.roles.is_empty() {
            return Err(refusal.into());
        }
        Ok((verdict, until))
    }

    fn bundle_accepts(
        &self,
        source: usize,
        chain: Presented<'_>,
        now: Timestamp,
    ) -> Result<VerifiedChain, ChainError> {
        let bundle = self.bundles.get(source).ok_or(ChainError::UnknownIssuer)?;
        self.verify(source, chain, &bundle.anchors, &bundle.crls, now)
    }

    fn role_accepts(
        &self,
        source: usize,
        chain: Presented<'_>,
        now: Timestamp,
    ) -> Result<VerifiedChain, ChainError> {
        let (_, role) = self.roles.get(source).ok_or(ChainError::UnknownIssuer)?;
        // The whole DER, never a name, serial number or key.
        if role.pinned.iter().any(|pinned| pinned == chain.leaf) {
            let until = x509::check_leaf(chain.leaf, now)?;
            if self.crls.mention(&x509::parse(chain.leaf)?) {
                return Err(ChainError::Revoked);
            }
            return Ok(VerifiedChain { until });
        }
        if role.anchors.is_empty() {
            return Err(ChainError::UnknownIssuer);
        }
        self.verify(self.bundles.len() + source, chain, &role.anchors, &self.crls, now)
    }

    /// Verifies the chain, or remembers that it was: for one source of trust, as long as nothing that
    /// the finding rests on changes, and never across a clock that went back.
    fn verify(
        &self,
        source: usize,
        chain: Presented<'_>,
        anchors: &Anchors,
        crls: &Crls,
        now: Timestamp,
    ) -> Result<VerifiedChain, ChainError> {
        let key = (self.alike.get(source).copied().unwrap_or(source), chain.digest);
        if let Some(known) = self.verified.get(&key)
            && known.from <= now
            && now < known.until
        {
            return Ok(VerifiedChain { until: known.until });
        }
        let VerifiedChain { until } =
            x509::verify_chain(chain.leaf, chain.intermediates, anchors, crls, now)?;
        let until = until.min(now.plus_millis(JUDGEMENT_MILLIS_MAX));
        self.verified.insert(key, Verified { from: now, until });
        Ok(VerifiedChain { until })
    }
}

/// Where revocation lists came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CrlOrigin {
    /// The configuration, with the bundle of that name.
    Bundle(String),
    /// The API, to the mount with that accessor.
    Mount(String),
}

/// How current the lists of one origin are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrlAge {
    /// Where they came from.
    pub origin: CrlOrigin,
    /// How long ago the oldest was issued, in milliseconds.
    pub oldest_millis: i64,
    /// How many are past their next update.
    pub expired: u32,
}

impl CrlAge {
    fn of(origin: CrlOrigin, crls: &Crls, now: Timestamp) -> Option<Self> {
        let oldest = crls.lists().map(Crl::issued_at).min()?;
        let over = |list: &&Crl| list.next_update().is_some_and(|next| next <= now);
        let expired = u32::try_from(crls.lists().filter(over).count()).unwrap_or(u32::MAX);
        Some(Self { origin, oldest_millis: now.millis_since(oldest).max(0), expired })
    }
}

/// Who trusts a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustVerdict {
    bundles: Vec<Arc<str>>,
    roles: Vec<(Arc<str>, Arc<str>)>,
}

impl TrustVerdict {
    /// The configured bundles that the peer's chain leads to. For an SVID, at most the one of its
    /// own trust domain.
    pub fn bundles(&self) -> impl Iterator<Item = &str> {
        self.bundles.iter().map(AsRef::as_ref)
    }

    /// Whether the chain leads to any configured bundle.
    pub fn by_configuration(&self) -> bool {
        !self.bundles.is_empty()
    }

    /// Whether the chain leads to the own CA, or the leaf is a pinned certificate, of that role.
    pub fn by_role(&self, mount: &str, role: &str) -> bool {
        self.roles.iter().any(|(m, r)| &**m == mount && &**r == role)
    }
}

/// A verdict, and how long it may be repeated without looking again.
#[derive(Debug)]
pub(super) struct Judgement {
    generation: u64,
    from: Timestamp,
    until: Timestamp,
    outcome: Result<Arc<TrustVerdict>, TrustError>,
}

/// Why a peer is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Its chain is not, or no longer, valid.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// It claims to be an X.509-SVID and is none.
    #[error(transparent)]
    Svid(#[from] SvidError),
    /// No bundle is configured for the trust domain of its SPIFFE ID.
    #[error("no bundle is configured for the trust domain of the SPIFFE ID")]
    TrustDomain,
}

/// Why a bundle was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// An anchor without key usage, or whose own SPIFFE ID has a path.
    #[error("certificate {position} may not sign X.509-SVIDs")]
    Anchor {
        /// Counted from 1.
        position: usize,
    },
}

#[cfg(test)]
mod tests;
