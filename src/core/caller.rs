//! Who asks: a token, or the certificate of the connection itself.
//!
//! A certificate needs no log-in. What it was found to be is remembered by its fingerprint, so that a
//! request costs no search through roles; whatever could change the finding raises a generation and
//! every memory is made anew. Validity and revocation are judged at each request all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use quick_cache::sync::Cache;

use crate::crypto::blind::TokenHash;
use crate::storage::RowKey;
use crate::types::id::{Accessor, MountAccessor};

use super::acl::{Acl, CheckRequest};
use super::context::{Core, Unsealed};
use super::engine::{CallerFacts, Grant, Recognition};
use super::error::CoreError;
use super::guess::Guesses;
use super::identity::Entity;
use super::lease::{Lease, Leases, Owner};
use super::mfa::Asks;
use super::mount::{Backend, MountTable, Mounted};
use super::peer::{ConnectionInfo, VerifiedPeer};
use super::policy::template::TemplateValues;
use super::records::{CallerRow, Records};
use super::scope::ScopeSet;
use super::token::{LeaseOwner, TokenEntry, TokenGone, TokenLookup, address_allowed};

/// Callers remembered.
const KNOWN_MAX: usize = 65_536;

/// What a caller's standing rests on.
pub enum Via {
    /// The certificate of the connection.
    Certificate {
        /// The auth mount that recognised it.
        mount: MountAccessor,
        /// What that mount says.
        grant: Box<Grant>,
    },
    /// Nothing: the path is open to everybody.
    Nobody,
    /// A token.
    Token(Arc<TokenLookup>),
}

/// A caller whose standing was established. Shared by all requests that rest on the same.
pub struct Caller {
    /// What engines may know.
    pub facts: CallerFacts,
    /// What it rests on.
    pub via: Via,
    /// The entity behind it.
    pub entity: Option<Arc<Entity>>,
    /// Policies of the token or role.
    pub token_policies: Vec<String>,
    /// Policies of the entity and its groups.
    pub identity_policies: Vec<String>,
    /// The groups that a method named, by the ids of their aliases.
    pub external: Vec<String>,
    /// What it may do.
    pub acl: Acl,
}

impl Caller {
    /// All policies, without repetition.
    pub fn policies(&self) -> Vec<String> {
        let mut all = [self.token_policies.as_slice(), &self.identity_policies].concat();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The token it came with.
    pub fn token(&self) -> Option<&Arc<TokenLookup>> {
        match &self.via {
            Via::Token(token) => Some(token),
            Via::Certificate { .. } | Via::Nobody => None,
        }
    }

    /// Whether everything is allowed.
    pub fn is_root(&self) -> bool {
        self.acl.is_root()
    }

    /// Whom a lease issued to this caller belongs to: its identity, unless it has none or its token
    /// asks to own what it is given. A batch token is no row that could end anything, so what it is
    /// given belongs to its parent.
    pub fn lease_owner(&self) -> Owner {
        let entity = || self.entity.as_ref().map(|entity| Owner::Entity(entity.id.clone()));
        match &self.via {
            Via::Certificate { .. } => entity(),
            Via::Token(token) if token.entry.lease_owner == LeaseOwner::Entity => entity(),
            Via::Token(token) => token.row_name().map(|name| Owner::Token(name.to_owned())),
            Via::Nobody => None,
        }
        .unwrap_or_else(|| Owner::Token(self.facts.private_key.clone()))
    }

    /// Whether a lease is this caller's: of its identity, of its token, or asked for with it.
    pub fn owns(&self, lease: &Lease) -> bool {
        let asked = lease.asked_with == self.facts.private_key;
        match &lease.owner {
            Owner::Entity(id) => self.entity.as_ref().is_some_and(|entity| entity.is(id)),
            Owner::Token(hash) => asked || *hash == self.facts.private_key,
        }
    }

    /// The row that must still exist when something is made for this caller: its token's, or its
    /// parent's when the token has none.
    pub fn token_row(&self, unsealed: &Unsealed) -> Option<RowKey> {
        Some(unsealed.tokens.row_key(self.token()?.row_name()?))
    }

    /// Whether the caller may do that.
    ///
    /// # Errors
    /// `Denied`, with the reason for the audit.
    pub fn authorize(
        &self,
        request: &CheckRequest<'_>,
    ) -> Result<super::acl::permit::Permit, CoreError> {
        self.acl.authorize(request).map_err(|denial| CoreError::denied(denial.reason()))
    }
}

struct Known {
    generation: u64,
    /// The token's revision; a changed token is looked at anew.
    rev: u64,
    caller: Arc<Caller>,
}

/// Callers seen lately.
pub struct CallerCache {
    generation: AtomicU64,
    by_certificate: Cache<[u8; 32], Arc<Known>>,
    by_token: Cache<TokenHash, Arc<Known>>,
}

impl Default for CallerCache {
    fn default() -> Self {
        Self {
            generation: AtomicU64::new(0),
            by_certificate: Cache::new(KNOWN_MAX),
            by_token: Cache::new(KNOWN_MAX),
        }
    }
}

impl CallerCache {
    /// Something changed that standings rest on: policies, entities, roles, mounts.
    pub fn forget(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.by_certificate.clear();
        self.by_token.clear();
    }

    /// The token is gone: what is known of it would only take up room.
    fn forget_token(&self, hash: &str) {
        if let Some(hash) = TokenHash::from_hex(hash) {
            self.by_token.remove(&hash);
        }
    }
}

impl Core {
    /// Establishes who asks: by the token when there is one, else by the certificate.
    ///
    /// # Errors
    /// `Denied`, with the reason for the audit.
    pub async fn caller(
        &self,
        unsealed: &Unsealed,
        token: Option<&str>,
        connection: &ConnectionInfo,
    ) -> Result<Arc<Caller>, CoreError> {
        match (token, &connection.peer) {
            (Some(token), _) => self.caller_by_token(unsealed, token, connection).await,
            (None, Some(peer)) => self.caller_by_certificate(unsealed, peer, connection).await,
            (None, None) => Err(CoreError::denied("neither a token nor a certificate")),
        }
    }

    /// The caller that a token stands for, wherever it is presented. For questions about it.
    ///
    /// # Errors
    /// `Invalid` when there is no such token.
    pub async fn caller_of_token(
        &self,
        unsealed: &Unsealed,
        plain: &str,
    ) -> Result<Caller, CoreError> {
        let token = unsealed.tokens.lookup(plain).await?;
        token_caller(unsealed, token.ok_or_else(|| CoreError::invalid("invalid token"))?).await
    }

    /// The caller whose token has that accessor.
    ///
    /// # Errors
    /// `Invalid` when there is no such token.
    pub async fn caller_of_accessor(
        &self,
        unsealed: &Unsealed,
        accessor: &Accessor,
    ) -> Result<Caller, CoreError> {
        let token = unsealed.tokens.lookup_accessor(accessor.as_str()).await?;
        token_caller(unsealed, token.ok_or_else(|| CoreError::invalid("invalid accessor"))?).await
    }

    async fn caller_by_token(
        &self,
        unsealed: &Unsealed,
        plain: &str,
        connection: &ConnectionInfo,
    ) -> Result<Arc<Caller>, CoreError> {
        let token = unsealed
            .tokens
            .lookup(plain)
            .await?
            .ok_or_else(|| CoreError::denied("the token is unknown, expired or revoked"))?;
        refuse_misplaced(&token.entry, connection)?;
        let generation = unsealed.callers.generation.load(Ordering::Acquire);
        if let Some(hash) = &token.hash
            && let Some(known) = unsealed.callers.by_token.get(hash)
            && known.generation == generation
            && known.rev == token.rev
        {
            return Ok(known.caller.clone());
        }
        let caller = Arc::new(token_caller(unsealed, token.clone()).await?);
        if let Some(hash) = token.hash {
            let known = Known { generation, rev: token.rev, caller: caller.clone() };
            unsealed.callers.by_token.insert(hash, Arc::new(known));
        }
        Ok(caller)
    }

    async fn caller_by_certificate(
        &self,
        unsealed: &Unsealed,
        peer: &Arc<VerifiedPeer>,
        connection: &ConnectionInfo,
    ) -> Result<Arc<Caller>, CoreError> {
        // The roles' CAs are part of the trust store, so its generation counts too.
        let generation = unsealed
            .callers
            .generation
            .load(Ordering::Acquire)
            .wrapping_add(self.trust.generation().rotate_left(32));
        let fingerprint = peer.fingerprint();
        if let Some(known) = unsealed.callers.by_certificate.get(fingerprint)
            && known.generation == generation
        {
            refuse_foreign_address(&known.caller, connection)?;
            return Ok(known.caller.clone());
        }
        let (mounted, grant) = identify(unsealed, peer).await?;
        let caller = Arc::new(certificate_caller(unsealed, &mounted, grant).await?);
        let known = Known { generation, rev: 0, caller: caller.clone() };
        unsealed.callers.by_certificate.insert(*fingerprint, Arc::new(known));
        refuse_foreign_address(&caller, connection)?;
        Ok(caller)
    }
}

/// Refuses a token that is presented from the wrong place or on the wrong certificate.
fn refuse_misplaced(entry: &TokenEntry, connection: &ConnectionInfo) -> Result<(), CoreError> {
    if !address_allowed(&entry.bound_cidrs, connection.remote.ip()) {
        return Err(CoreError::denied("the token is bound to other addresses"));
    }
    // RFC 8705 §3: a bound token counts only with the certificate that it was bound to.
    match (&entry.bound_certificate, &connection.peer) {
        (None, _) => Ok(()),
        (Some(bound), Some(peer)) if bound == peer.fingerprint() => Ok(()),
        (Some(_), _) => Err(CoreError::denied("the token is bound to another certificate")),
    }
}

/// Refuses a certificate that comes from where its role does not expect it.
fn refuse_foreign_address(caller: &Caller, connection: &ConnectionInfo) -> Result<(), CoreError> {
    match &caller.via {
        Via::Certificate { grant, .. }
            if !address_allowed(&grant.token.bound_cidrs, connection.remote.ip()) =>
        {
            Err(CoreError::denied("the certificate's role is bound to other addresses"))
        }
        Via::Certificate { .. } | Via::Nobody | Via::Token(_) => Ok(()),
    }
}

/// The one auth mount, and the one of its roles, that knows the certificate.
async fn identify(
    unsealed: &Unsealed,
    peer: &Arc<VerifiedPeer>,
) -> Result<(Arc<Mounted>, Grant), CoreError> {
    let mut found: Option<(Arc<Mounted>, Grant)> = None;
    let mut refusals = Vec::new();
    for mounted in unsealed.mounts.all() {
        let Backend::Auth(method) = &mounted.backend else { continue };
        match method.identify(&mounted.context(), peer).await {
            Ok(Recognition::NotConcerned) => {}
            Ok(Recognition::Known(grant)) => {
                if let Some((other, _)) = &found {
                    return Err(CoreError::denied(format!(
                        "the certificate matches roles of both {} and {}",
                        other.entry.path, mounted.entry.path
                    )));
                }
                found = Some((mounted.clone(), *grant));
            }
            Ok(Recognition::Unknown(reason)) => {
                refusals.push(format!("{}: {reason}", mounted.entry.path));
            }
            Err(error) => return Err(error),
        }
    }
    found.ok_or_else(|| {
        CoreError::denied(if refusals.is_empty() {
            "no auth mount deals in certificates".to_owned()
        } else {
            refusals.join("; ")
        })
    })
}

async fn certificate_caller(
    unsealed: &Unsealed,
    mounted: &Mounted,
    grant: Grant,
) -> Result<Caller, CoreError> {
    let accessor = mounted.entry.accessor.clone();
    let entity = unsealed.identity.resolve(&accessor, &grant).await?;
    refuse_disabled(&entity)?;
    let mut token_policies = grant.token.policies.clone();
    if !grant.token.no_default_policy && !token_policies.iter().any(|name| name == "default") {
        token_policies.push("default".into());
    }
    let external = unsealed.identity.groups().named(&accessor, &grant.groups).await?;
    let standing = unsealed.identity.standing(&entity, &external).await?;
    let asks = Asks {
        mount: &mounted.entry,
        entity: &entity,
        standing: &standing,
        token_policies: &token_policies,
    };
    // Otherwise whom a second factor is demanded of would get around it by not logging in.
    if !unsealed.mfa.demanded(&asks).await?.is_empty() {
        return Err(CoreError::denied("a second factor is demanded: log in, and use the token"));
    }
    let identity_policies = standing.policies;
    let names = [token_policies.as_slice(), &identity_policies].concat();
    let values = TemplateValues { groups: standing.groups, ..entity.template_values() };
    let acl = unsealed.policies.acl(&names, &values).await?;
    Ok(Caller {
        facts: CallerFacts {
            display_name: grant.display_name.clone(),
            entity_id: Some(entity.id.clone()),
            identity: Arc::new(values),
            // Of the alias and not of the entity: it stays the same when that is merged into another,
            // and is another's when it was deleted.
            private_key: format!("entity-{}", entity.stand_in),
            end_is_told: true,
            row: None,
            expires_at: grant.not_after,
        },
        via: Via::Certificate { mount: accessor, grant: Box::new(grant) },
        entity: Some(entity),
        token_policies,
        identity_policies,
        external,
        acl,
    })
}

async fn token_caller(unsealed: &Unsealed, token: Arc<TokenLookup>) -> Result<Caller, CoreError> {
    let entry = &token.entry;
    let entity = entity_of(unsealed, entry).await?;
    let (standing, values) = match &entity {
        Some(entity) => {
            let standing = unsealed.identity.standing(entity, &entry.groups).await?;
            let values =
                TemplateValues { groups: standing.groups.clone(), ..entity.template_values() };
            (standing, values)
        }
        None => Default::default(),
    };
    // A token that was narrowed on purpose does not get the identity's policies back by the way.
    let identity_policies = if entry.inherits_identity { standing.policies } else { Vec::new() };
    let names = [entry.policies.as_slice(), &identity_policies].concat();
    let mut acl = unsealed.policies.acl(&names, &values).await?;
    if !entry.scopes.is_empty() {
        let scopes = ScopeSet::parse(&entry.scopes)
            .map_err(|_| CoreError::internal("the scopes of a stored token do not parse"))?;
        acl = acl.narrowed(Arc::new(scopes));
    }
    Ok(Caller {
        facts: CallerFacts {
            display_name: entry.display_name.clone(),
            entity_id: entity.as_ref().map(|entity| entity.id.clone()),
            identity: Arc::new(values),
            private_key: token.private_key(),
            end_is_told: token.stored_name().is_some(),
            row: token.row_name().map(|name| CallerRow(unsealed.tokens.row_key(name))),
            expires_at: entry.expires_at,
        },
        token_policies: entry.policies.clone(),
        identity_policies,
        external: entry.groups.clone(),
        entity,
        acl,
        via: Via::Token(token),
    })
}

/// The entity that a token was given to; `None` when it was given to none.
///
/// # Errors
/// `Denied` when it is disabled or was deleted: then the token counts no more.
pub async fn entity_of(
    unsealed: &Unsealed,
    token: &TokenEntry,
) -> Result<Option<Arc<Entity>>, CoreError> {
    let Some(id) = &token.entity_id else { return Ok(None) };
    let entity = unsealed.identity.get(id).await?;
    let entity = entity.ok_or_else(|| CoreError::denied(format!("entity {id} was deleted")))?;
    refuse_disabled(&entity)?;
    Ok(Some(entity))
}

/// Refuses whoever an administrator disabled.
pub(super) fn refuse_disabled(entity: &Entity) -> Result<(), CoreError> {
    if entity.disabled {
        return Err(CoreError::denied(format!("entity {} is disabled", entity.id)));
    }
    Ok(())
}

/// What ends with a token: the leases that belong to it, and what it kept in its cubbyhole.
pub(in crate::core) struct Aftermath {
    pub(in crate::core) guesses: Arc<Guesses>,
    pub(in crate::core) records: Arc<Records>,
    pub(in crate::core) leases: Arc<Leases>,
    pub(in crate::core) mounts: Arc<MountTable>,
    pub(in crate::core) callers: Arc<CallerCache>,
}

#[async_trait]
impl TokenGone for Aftermath {
    async fn token_gone(&self, hash: &str, entry: &TokenEntry) -> Result<(), CoreError> {
        if super::wrap::is_wrapping(entry)
            && let Some(hash) = TokenHash::from_hex(hash)
        {
            self.guesses.ended(hash);
        }
        self.leases.end_with_token(hash).await?;
        super::wrap::view(self.records.clone()).remove(hash).await?;
        for mounted in self.mounts.all() {
            if let Backend::Secret(engine) = &mounted.backend {
                engine.caller_gone(&mounted.context(), hash).await?;
            }
        }
        self.callers.forget_token(hash);
        Ok(())
    }
}
