//! Making tokens and prolonging them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::core::engine::{Grant, MountFacts};
use crate::core::error::CoreError;
use crate::core::lifetime::{Lifetime, Span};
use crate::core::records::{Batch, Precondition};
use crate::core::reply::AuthReply;
use crate::core::view::PutOptions;
use crate::storage::{Change, RowKey, StorageError};
use crate::types::id::{Accessor, EntityId, MountAccessor, random_base62};
use crate::types::secret::SecretString;
use crate::types::time::{Timestamp, Ttl};

use super::entry::{LeaseOwner, TokenEntry, TokenKind, TokenLookup};
use super::{ATTEMPTS, Pointer, TOKEN_DEPTH_MAX, TokenStore, parameters, plain};

const ACCESSOR_CHARS: usize = 24;

/// How long a token is to live. Zero and `None` are "not given".
#[derive(Clone, Copy, Debug, Default)]
pub struct NewLifetime {
    /// What was asked for.
    pub wanted: Ttl,
    /// What it is when nothing was asked for.
    pub default_ttl: Ttl,
    /// The maximum of the role.
    pub role_max: Ttl,
    /// The maximum of the mount or the server.
    pub mount_max: Ttl,
    /// A maximum to be fixed for the token's whole life.
    pub explicit_max: Ttl,
    /// What each renewal is to give.
    pub period: Ttl,
    /// When the certificate or identity ends that it is asked for with.
    pub not_after: Option<Timestamp>,
}

/// A token to be made.
#[derive(Debug)]
pub struct NewToken {
    /// Service or batch.
    pub kind: TokenKind,
    /// The token itself, chosen by root. Service tokens only.
    pub chosen: Option<SecretString>,
    /// Hash (hex) of the token it is made by; `None` for an orphan.
    pub parent: Option<String>,
    /// Its policies.
    pub policies: Vec<String>,
    /// Whether the policies of its entity count too.
    pub inherits_identity: bool,
    /// What it is narrowed to.
    pub scopes: Vec<String>,
    /// The identity behind it; must be stored by now.
    pub entity_id: Option<EntityId>,
    /// Notes.
    pub meta: BTreeMap<String, String>,
    /// Name for people.
    pub display_name: String,
    /// The path it is made at.
    pub path: String,
    /// The token role it is made by.
    pub role: Option<String>,
    /// The auth mount that logs it in.
    pub mount: Option<MountAccessor>,
    /// The role of that mount.
    pub auth_role: Option<String>,
    /// The name within that mount that it is given to.
    pub auth_alias: Option<String>,
    /// The groups that the method says its identity is in, by the ids of their aliases.
    pub groups: Vec<String>,
    /// `None` for a root token that never ends.
    pub lifetime: Option<NewLifetime>,
    /// Uses; zero for no limit.
    pub num_uses: u64,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// Addresses it can be used from.
    pub bound_cidrs: Vec<String>,
    /// The certificate it can be used with.
    pub bound_certificate: Option<[u8; 32]>,
    /// Whom its leases belong to.
    pub lease_owner: LeaseOwner,
}

impl NewToken {
    /// The token of a log-in at `path` of `mount`, for a stored entity that is in these groups, by
    /// the ids of their aliases.
    pub fn for_login(
        grant: &Grant,
        mount: &MountFacts,
        kind: TokenKind,
        path: &str,
        entity_id: EntityId,
        groups: Vec<String>,
    ) -> Self {
        let token = &grant.token;
        Self {
            kind,
            chosen: None,
            parent: None,
            policies: parameters::with_default(&token.policies, token.no_default_policy),
            inherits_identity: true,
            scopes: Vec::new(),
            entity_id: Some(entity_id),
            meta: grant.metadata.clone(),
            display_name: grant.display_name.clone(),
            path: path.to_owned(),
            role: None,
            mount: Some(mount.accessor.clone()),
            auth_role: Some(grant.role.clone()),
            auth_alias: Some(grant.alias.clone()),
            groups,
            lifetime: Some(NewLifetime {
                wanted: Ttl::ZERO,
                default_ttl: token.ttl.or(mount.default_ttl),
                role_max: token.max_ttl,
                mount_max: mount.max_ttl,
                explicit_max: token.explicit_max_ttl,
                period: token.period,
                not_after: grant.not_after,
            }),
            num_uses: token.num_uses,
            renewable: kind == TokenKind::Service,
            bound_cidrs: token.bound_cidrs.clone(),
            bound_certificate: grant.bound_certificate,
            lease_owner: LeaseOwner::Entity,
        }
    }

    fn root() -> Self {
        Self {
            kind: TokenKind::Service,
            chosen: None,
            parent: None,
            policies: vec!["root".into()],
            inherits_identity: false,
            scopes: Vec::new(),
            entity_id: None,
            meta: BTreeMap::new(),
            display_name: "root".into(),
            path: "auth/token/root".into(),
            role: None,
            mount: None,
            auth_role: None,
            auth_alias: None,
            groups: Vec::new(),
            lifetime: None,
            num_uses: 0,
            renewable: false,
            bound_cidrs: Vec::new(),
            bound_certificate: None,
            lease_owner: LeaseOwner::Token,
        }
    }
}

/// A token that was just made: the only moment at which it exists in clear.
#[derive(Debug)]
pub struct IssuedToken {
    /// The token.
    pub plain: SecretString,
    /// What is known about it.
    pub token: Arc<TokenLookup>,
    /// Its lifetime; zero for ever.
    pub ttl: Ttl,
    /// What whoever asked should know.
    pub warnings: Vec<String>,
}

impl IssuedToken {
    /// As it is answered, with the policies of its entity.
    pub fn into_auth(self, identity_policies: Vec<String>) -> AuthReply {
        auth_reply(&self.token.entry, self.plain, self.ttl, identity_policies)
    }
}

/// What bounds a renewal, as the role and mount say now.
#[derive(Clone, Debug, Default)]
pub struct RenewalBounds {
    /// What an increment of zero gives.
    pub default_ttl: Ttl,
    /// The maximum of the role, from the token's making.
    pub role_max: Ttl,
    /// The maximum of the mount or the server, from the token's making.
    pub mount_max: Ttl,
    /// The period that the role gives now; `None` keeps the token's own.
    pub period: Option<Ttl>,
    /// The end of the certificate presented now; `None` keeps the token's own.
    pub not_after: Option<Timestamp>,
    /// The groups that its identity is in now, by the ids of their aliases; `None` keeps them.
    pub groups: Option<Vec<String>>,
}

/// The answer that carries a token, just made or just renewed.
pub fn auth_reply(
    entry: &TokenEntry,
    client_token: SecretString,
    ttl: Ttl,
    identity_policies: Vec<String>,
) -> AuthReply {
    let mut policies = [entry.policies.as_slice(), &identity_policies].concat();
    policies.sort_unstable();
    policies.dedup();
    AuthReply {
        client_token,
        accessor: entry.accessor.clone().unwrap_or_else(|| Accessor::new("")),
        policies,
        token_policies: entry.policies.clone(),
        identity_policies,
        metadata: entry.meta.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect(),
        lease_duration: ttl,
        renewable: entry.renewable,
        entity_id: entry.entity_id.clone(),
        token_type: entry.token_type.as_str(),
        orphan: entry.parent.is_none(),
        num_uses: entry.uses_left.unwrap_or(0),
    }
}

impl TokenStore {
    /// Makes a token. When this returns, it is durable.
    ///
    /// # Errors
    /// `Invalid` when no time is left to give, the chosen id is taken or malformed, or the parent is
    /// gone.
    pub async fn create(&self, new: NewToken) -> Result<IssuedToken, CoreError> {
        self.make(new, None).await
    }

    /// Makes the token of a log-in, while the row `gate` of the mount is there: the mount takes away
    /// all of its tokens when it goes, and none may be made after that.
    ///
    /// # Errors
    /// As [`TokenStore::create`], and `Storage(Conflict)` when the mount is going.
    pub async fn log_in(&self, new: NewToken, gate: RowKey) -> Result<IssuedToken, CoreError> {
        self.make(new, Some(gate)).await
    }

    async fn make(&self, new: NewToken, gate: Option<RowKey>) -> Result<IssuedToken, CoreError> {
        let now = self.clock.now();
        let parent = match &new.parent {
            Some(hash) => Some(self.live_parent(hash, now).await?),
            None => None,
        };
        let span = lifetime(&new, parent.as_ref(), now)?;
        let depth = parent.as_ref().map_or(0, |parent| parent.depth.saturating_add(1));
        if depth > TOKEN_DEPTH_MAX {
            return Err(CoreError::invalid("too many generations of tokens"));
        }
        let warnings = span.as_ref().and_then(Span::warning).into_iter().collect();
        let ttl = span.map_or(Ttl::ZERO, |span| span.ttl);
        let chosen = check_kind(&new)?;
        let entry = entry(new, depth, span, now)?;
        let (plain, token) = match entry.token_type {
            TokenKind::Batch => {
                let sealed = self.seal_batch(entry)?;
                // Nothing of it is stored, so the gate can only be looked at.
                if let Some(gate) = gate
                    && self.records.storage().get(gate).await?.is_none()
                {
                    return Err(StorageError::Conflict.into());
                }
                sealed
            }
            TokenKind::Service => self.store(entry, chosen, gate).await?,
        };
        Ok(IssuedToken { plain, token: Arc::new(token), ttl, warnings })
    }

    /// Adds a token that may do everything and never ends to `batch`: at initialisation.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn stage_root(&self, batch: &mut Batch) -> Result<IssuedToken, CoreError> {
        let entry = entry(NewToken::root(), 0, None, self.clock.now())?;
        let (plain, token) = self.stage(batch, entry, None)?;
        Ok(IssuedToken { plain, token: Arc::new(token), ttl: Ttl::ZERO, warnings: Vec::new() })
    }

    /// Makes a token that may do everything and never ends: when a quorum of unseal keys asks for one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn create_root(&self) -> Result<IssuedToken, CoreError> {
        self.create(NewToken::root()).await
    }

    /// Prolongs a stored token to `increment` from now on; zero asks for the default. Never shortens.
    ///
    /// # Errors
    /// `Denied` when it is dead, `Invalid` when it cannot be renewed or no time is left to give.
    pub async fn renew(
        &self,
        hash: &str,
        increment: Ttl,
        bounds: &RenewalBounds,
    ) -> Result<(Arc<TokenLookup>, Span), CoreError> {
        for _ in 0..ATTEMPTS {
            let now = self.clock.now();
            let dead = || CoreError::denied("the token to renew is unknown, expired or revoked");
            let found = self.view().get_fresh::<TokenEntry>(hash).await?.ok_or_else(dead)?;
            let mut entry = found.value;
            if !entry.is_live(now) || !self.ancestors_live(&entry, now).await? {
                return Err(dead());
            }
            if !entry.renewable || entry.expires_at.is_none() {
                return Err(CoreError::invalid("the token is not renewable"));
            }
            entry.period = bounds.period.unwrap_or(entry.period);
            entry.not_after = bounds.not_after.or(entry.not_after);
            if let Some(groups) = &bounds.groups {
                entry.groups.clone_from(groups);
            }
            let life = Lifetime {
                issued_at: entry.created_at,
                role_max: bounds.role_max,
                mount_max: bounds.mount_max,
                explicit_max: entry.explicit_max_ttl,
                period: entry.period,
                not_after: earliest(entry.not_after, self.parent_end(&entry).await?),
            };
            let span = life
                .renewed(now, increment, bounds.default_ttl)
                .map_err(|end| CoreError::invalid(format!("the token cannot be renewed: {end}")))?;
            let span = not_before(span, entry.expires_at, now);
            entry.expires_at = Some(span.expires_at);
            entry.renewed_at = Some(now);
            match self.replace(hash, &entry, found.rev).await {
                Ok(()) => {
                    let token = self.lookup_stored(hash).await?.ok_or_else(dead)?;
                    return Ok((token, span));
                }
                Err(CoreError::Storage(StorageError::Conflict)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StorageError::Busy.into())
    }

    async fn parent_end(&self, entry: &TokenEntry) -> Result<Option<Timestamp>, CoreError> {
        let Some(hash) = &entry.parent else { return Ok(None) };
        self.end_of(hash).await
    }

    async fn live_parent(&self, hash: &str, now: Timestamp) -> Result<TokenEntry, CoreError> {
        let dead = || CoreError::denied("the parent token was revoked meanwhile");
        let parent = self.view().get_fresh::<TokenEntry>(hash).await?.ok_or_else(dead)?.value;
        if !parent.is_live(now) || !self.ancestors_live(&parent, now).await? {
            return Err(dead());
        }
        Ok(parent)
    }

    fn seal_batch(&self, entry: TokenEntry) -> Result<(SecretString, TokenLookup), CoreError> {
        let facts = crate::core::records::encode(&entry)?;
        let suite = self.records.keyring().active_suite();
        let sealed = self
            .batch_key
            .seal(suite, facts.expose())
            .map_err(|_| CoreError::internal("a batch token could not be sealed"))?;
        let plain = plain::batch(&sealed);
        if plain.expose().len() > plain::TOKEN_BYTES_MAX {
            return Err(CoreError::invalid("the batch token holds too much; use a service token"));
        }
        let key = self.hash_key.hash(plain.expose()).to_hex();
        Ok((plain, TokenLookup { hash: None, rev: 0, entry, key }))
    }

    async fn store(
        &self,
        entry: TokenEntry,
        chosen: Option<SecretString>,
        gate: Option<RowKey>,
    ) -> Result<(SecretString, TokenLookup), CoreError> {
        let is_chosen = chosen.is_some();
        let mut batch = Batch::new();
        let (plain, token) = self.stage(&mut batch, entry, chosen)?;
        if let Some(key) = gate {
            batch.also(Change::RequireRow { key });
        }
        if let Some(parent) = &token.entry.parent {
            // Holds the parent against being removed: it is removed only without children.
            batch.also(Change::RequireRow { key: self.row_key(parent) });
        }
        match self.view().commit(&batch).await {
            Ok(()) => Ok((plain, token)),
            Err(CoreError::Storage(StorageError::Conflict)) if is_chosen => {
                Err(CoreError::field("id", "is taken, or the parent token was revoked meanwhile"))
            }
            // Nobody else can have drawn the same 142 bits, so it was the parent. A conflict that
            // only the store saw is retried until it is busy.
            Err(CoreError::Storage(StorageError::Conflict | StorageError::Busy))
                if self.parent_is_gone(&token.entry).await? =>
            {
                Err(CoreError::denied("the parent token was revoked meanwhile"))
            }
            Err(error) => Err(error),
        }
    }

    /// Adds the rows of a service token to `batch`.
    fn stage(
        &self,
        batch: &mut Batch,
        mut entry: TokenEntry,
        chosen: Option<SecretString>,
    ) -> Result<(SecretString, TokenLookup), CoreError> {
        let plain = match chosen {
            Some(chosen) => chosen,
            None => plain::service()?,
        };
        let accessor = Accessor::new(random_base62(ACCESSOR_CHARS)?);
        entry.accessor = Some(accessor.clone());
        let hash = self.hash_key.hash(plain.expose());
        let key = hash.to_hex();
        self.put(batch, &key, &entry, Precondition::Absent)?;
        self.accessor_view().put(
            batch,
            accessor.as_str(),
            &Pointer { hash: key.clone() },
            Precondition::Absent,
            PutOptions::default(),
        )?;
        Ok((plain, TokenLookup { hash: Some(hash), rev: 1, entry, key }))
    }

    async fn parent_is_gone(&self, entry: &TokenEntry) -> Result<bool, CoreError> {
        match &entry.parent {
            Some(hash) => Ok(self.view().get_fresh::<TokenEntry>(hash).await?.is_none()),
            None => Ok(false),
        }
    }
}

fn lifetime(
    new: &NewToken,
    parent: Option<&TokenEntry>,
    now: Timestamp,
) -> Result<Option<Span>, CoreError> {
    let parent_end = parent.and_then(|parent| parent.expires_at);
    let Some(wanted) = &new.lifetime else {
        if !new.policies.iter().any(|name| name == "root") {
            return Err(CoreError::internal("only root tokens live for ever"));
        }
        if parent_end.is_some() {
            return Err(CoreError::invalid(
                "a root token that ends cannot create one that does not; give a ttl",
            ));
        }
        return Ok(None);
    };
    let life = Lifetime {
        issued_at: now,
        role_max: wanted.role_max,
        mount_max: wanted.mount_max,
        explicit_max: wanted.explicit_max,
        period: wanted.period,
        not_after: earliest(wanted.not_after, parent_end),
    };
    life.initial(wanted.wanted, wanted.default_ttl)
        .map(Some)
        .map_err(|end| CoreError::invalid(format!("no token can be issued any more: {end}")))
}

/// Refuses what the kind of token cannot have, and takes the chosen id out.
fn check_kind(new: &NewToken) -> Result<Option<SecretString>, CoreError> {
    if let Some(chosen) = &new.chosen {
        if new.kind == TokenKind::Batch {
            return Err(CoreError::field("id", "cannot be chosen for a batch token"));
        }
        if !plain::is_choosable(chosen.expose()) {
            return Err(CoreError::field(
                "id",
                "must be 1 to 255 printable ASCII characters other than a dot",
            ));
        }
    }
    if new.kind == TokenKind::Batch {
        let period = new.lifetime.is_some_and(|lifetime| !lifetime.period.is_zero());
        if period || new.num_uses > 0 {
            return Err(CoreError::invalid("batch tokens have no period and no limit of uses"));
        }
        if new.lifetime.is_none() || new.policies.iter().any(|name| name == "root") {
            return Err(CoreError::invalid("batch tokens cannot be root tokens"));
        }
    }
    Ok(new.chosen.as_ref().map(SecretString::duplicate))
}

fn entry(
    new: NewToken,
    depth: u16,
    span: Option<Span>,
    now: Timestamp,
) -> Result<TokenEntry, CoreError> {
    let mut policies = new.policies;
    policies.sort_unstable();
    policies.dedup();
    let lifetime = new.lifetime.unwrap_or_default();
    Ok(TokenEntry {
        token_type: new.kind,
        accessor: None,
        parent: new.parent,
        depth,
        policies,
        inherits_identity: new.inherits_identity,
        scopes: new.scopes,
        entity_id: new.entity_id,
        meta: new.meta,
        display_name: new.display_name,
        path: new.path,
        role: new.role,
        mount: new.mount,
        auth_role: new.auth_role,
        auth_alias: new.auth_alias,
        groups: new.groups,
        created_at: now,
        creation_ttl: span.map_or(Ttl::ZERO, |span| span.ttl),
        expires_at: span.map(|span| span.expires_at),
        explicit_max_ttl: lifetime.explicit_max,
        period: lifetime.period,
        uses_left: (new.num_uses > 0).then_some(new.num_uses),
        renewable: new.renewable && new.kind == TokenKind::Service && span.is_some(),
        renewed_at: None,
        bound_cidrs: new.bound_cidrs,
        bound_certificate: new.bound_certificate,
        not_after: lifetime.not_after,
        lease_owner: new.lease_owner,
        revoking: false,
    })
}

/// A renewal never shortens: what was made within the present end must not outlive the new one.
fn not_before(span: Span, present: Option<Timestamp>, now: Timestamp) -> Span {
    match present {
        Some(end) if end > span.expires_at => {
            Span { expires_at: end, ttl: end.remaining(now), capped: span.capped }
        }
        Some(_) | None => span,
    }
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}
