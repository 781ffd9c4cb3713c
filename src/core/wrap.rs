//! Response wrapping: an answer is kept for one reader, who holds a token that works once.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::storage::{Change, StorageError};
use crate::types::id::{Accessor, EntityId, LeaseId, NamespaceId};
use crate::types::secret::SecretString;
use crate::types::time::{Timestamp, Ttl};

use super::context::Unsealed;
use super::error::CoreError;
use super::guess::Guesser;
use super::records::{Batch, Precondition, Records, kinds};
use super::reply::{AuthReply, LeaseReply, Reply, WrapReply};
use super::token::{LeaseOwner, NewLifetime, NewToken, TokenEntry, TokenKind, TokenLookup, Use};
use super::view::{PutOptions, View};

/// Names the tokens that unwrap. No such policy exists, so they can do nothing else.
const POLICY: &str = "response-wrapping";
/// Longest time an answer can be kept.
const TTL_MAX: Ttl = Ttl::from_secs(32 * 24 * 3600);

/// An answer, as kept.
#[derive(Serialize, Deserialize)]
struct Wrapped {
    creation_path: String,
    created_at: Timestamp,
    ttl: Ttl,
    data: Option<Map<String, Value>>,
    warnings: Vec<String>,
    lease: Option<WrappedLease>,
    #[serde(default)]
    refresh_after: Ttl,
    auth: Option<WrappedAuth>,
    #[serde(default)]
    existing: bool,
}

#[derive(Serialize, Deserialize)]
struct WrappedLease {
    id: LeaseId,
    renewable: bool,
    duration: Ttl,
}

#[derive(Serialize, Deserialize)]
struct WrappedAuth {
    client_token: String,
    accessor: Accessor,
    policies: Vec<String>,
    token_policies: Vec<String>,
    identity_policies: Vec<String>,
    metadata: Map<String, Value>,
    lease_duration: Ttl,
    renewable: bool,
    entity_id: Option<EntityId>,
    batch: bool,
    orphan: bool,
    num_uses: u64,
}

/// What is known of a wrapped answer without unwrapping it.
#[derive(Debug)]
pub struct WrapFacts {
    /// Path of the request whose answer it is.
    pub creation_path: String,
    /// When it was wrapped.
    pub created_at: Timestamp,
    /// How long it can be unwrapped, from then.
    pub ttl: Ttl,
}

/// Where wrapped answers are kept, by the hash of the token that unwraps them.
pub(in crate::core) fn view(records: std::sync::Arc<Records>) -> View {
    View::new(records, NamespaceId::ROOT, kinds::WRAPPED, String::new())
}

/// Whether an answer can be kept for so long: to be asked before anything is done for it.
///
/// # Errors
/// When `ttl` is too long.
pub fn check_ttl(ttl: Ttl) -> Result<(), CoreError> {
    if ttl > TTL_MAX {
        return Err(CoreError::field("X-Vault-Wrap-TTL", "is longer than 32 days"));
    }
    Ok(())
}

/// Keeps `reply` for `ttl` and answers with the token that unwraps it. When that fails, what was made
/// with `reply` is the caller's to take back.
///
/// # Errors
/// When the store fails, or `ttl` is too long.
pub async fn wrap(
    unsealed: &Unsealed,
    reply: Reply,
    ttl: Ttl,
    creation_path: &str,
) -> Result<Reply, CoreError> {
    check_ttl(ttl)?;
    let inside = reply.made();
    let wrapped_accessor = reply.auth.as_ref().map(|auth| auth.accessor.clone());
    let issued = unsealed.tokens.create(wrapping_token(ttl, creation_path)).await?;
    let created_at = issued.token.entry.created_at;
    let wrapped = Wrapped {
        creation_path: creation_path.to_owned(),
        created_at,
        ttl,
        data: reply.data,
        warnings: reply.warnings,
        lease: reply.lease.map(|lease| WrappedLease {
            id: lease.id,
            renewable: lease.renewable,
            duration: lease.duration,
        }),
        refresh_after: reply.refresh_after,
        auth: reply.auth.map(keep_auth),
        existing: reply.existing,
    };
    // The token first: an answer without its token could never be removed, a token without its
    // answer only unwraps nothing.
    keep(unsealed, &issued.token, &wrapped).await?;
    let accessor = issued.token.entry.accessor.clone();
    Ok(Reply {
        wrap: Some(WrapReply {
            token: issued.plain,
            accessor: accessor.unwrap_or_else(|| Accessor::new("")),
            ttl,
            created_at,
            creation_path: creation_path.to_owned(),
            wrapped_accessor,
            inside,
        }),
        ..Reply::default()
    })
}

/// Keeps an answer, unless its token has ended by now: nobody could remove it then.
async fn keep(
    unsealed: &Unsealed,
    token: &TokenLookup,
    wrapped: &Wrapped,
) -> Result<(), CoreError> {
    let view = view(unsealed.records.clone());
    let mut batch = Batch::new();
    let name = token.private_key();
    view.put(&mut batch, &name, wrapped, Precondition::Absent, PutOptions::default())?;
    if let Some(hash) = &token.hash {
        batch.also(Change::RequireRow { key: unsealed.tokens.row_key(&hash.to_hex()) });
    }
    match view.commit(&batch).await {
        Err(CoreError::Storage(StorageError::Conflict)) => {
            Err(CoreError::invalid("the wrapping token ended before the answer was kept"))
        }
        other => other,
    }
}

fn wrapping_token(ttl: Ttl, path: &str) -> NewToken {
    NewToken {
        kind: TokenKind::Service,
        chosen: None,
        parent: None,
        policies: vec![POLICY.to_owned()],
        inherits_identity: false,
        scopes: Vec::new(),
        entity_id: None,
        meta: std::collections::BTreeMap::new(),
        display_name: "wrapping".to_owned(),
        path: path.to_owned(),
        role: None,
        mount: None,
        auth_role: None,
        auth_alias: None,
        groups: Vec::new(),
        lifetime: Some(NewLifetime {
            wanted: ttl,
            default_ttl: ttl,
            explicit_max: ttl,
            ..NewLifetime::default()
        }),
        num_uses: 1,
        renewable: false,
        bound_cidrs: Vec::new(),
        bound_certificate: None,
        lease_owner: LeaseOwner::Token,
    }
}

/// The answer behind a wrapping token that `guesser` presents. Works once: of parallel tries exactly
/// one gets it.
///
/// # Errors
/// `Invalid` when the token is none, was used, or is over; `TooMany` when the guesser has to wait.
pub async fn unwrap(
    unsealed: &Unsealed,
    guesser: &Guesser,
    token: &str,
) -> Result<(Reply, WrapFacts), CoreError> {
    let found = wrapping(unsealed, guesser, token).await?;
    // The conditional write is the check.
    match unsealed.tokens.consume_use(&found).await {
        Ok(Use::Last | Use::More) => {}
        Err(CoreError::Denied { .. }) => return Err(invalid()),
        Err(error) => return Err(error),
    }
    let view = view(unsealed.records.clone());
    let kept = view.get_fresh::<Wrapped>(&found.private_key()).await?.ok_or_else(invalid)?.value;
    // Ends the token, and with it the kept answer.
    if let Some(hash) = found.stored_name() {
        unsealed.tokens.revoke_tree(hash).await?;
    }
    let facts = facts(&kept);
    let reply = Reply {
        data: kept.data,
        warnings: kept.warnings,
        lease: kept.lease.map(|lease| LeaseReply {
            id: lease.id,
            renewable: lease.renewable,
            duration: lease.duration,
        }),
        refresh_after: kept.refresh_after,
        auth: kept.auth.map(give_auth),
        existing: kept.existing,
        ..Reply::default()
    };
    Ok((reply, facts))
}

/// What is known of a wrapped answer.
///
/// # Errors
/// As [`unwrap`].
pub async fn lookup(
    unsealed: &Unsealed,
    guesser: &Guesser,
    token: &str,
) -> Result<WrapFacts, CoreError> {
    let found = wrapping(unsealed, guesser, token).await?;
    let view = view(unsealed.records.clone());
    let kept = view.get::<Wrapped>(&found.private_key()).await?.ok_or_else(invalid)?;
    Ok(facts(&kept.value))
}

async fn wrapping(
    unsealed: &Unsealed,
    guesser: &Guesser,
    token: &str,
) -> Result<std::sync::Arc<TokenLookup>, CoreError> {
    let guesses = &unsealed.guesses;
    guesses.admit(guesser)?;
    let Some(found) = unsealed.tokens.lookup(token).await? else {
        // Who presents what was given once, or is over, holds no guess.
        let known = match unsealed.tokens.trace(token).await? {
            Some((hash, stored)) => stored || guesses.was_given(&hash),
            None => false,
        };
        if !known {
            guesses.wrong(guesser);
        }
        return Err(invalid());
    };
    // Asked again, so that of guesses made all at once no more count than one after the other.
    guesses.admit(guesser)?;
    if !is_wrapping(&found.entry) {
        return Err(invalid());
    }
    Ok(found)
}

/// Whether a token is one that unwraps.
pub(in crate::core) fn is_wrapping(token: &TokenEntry) -> bool {
    token.policies == [POLICY]
}

fn facts(kept: &Wrapped) -> WrapFacts {
    WrapFacts {
        creation_path: kept.creation_path.clone(),
        created_at: kept.created_at,
        ttl: kept.ttl,
    }
}

fn invalid() -> CoreError {
    CoreError::invalid("wrapping token is not valid or does not exist")
}

fn keep_auth(auth: AuthReply) -> WrappedAuth {
    WrappedAuth {
        client_token: auth.client_token.expose().to_owned(),
        accessor: auth.accessor,
        policies: auth.policies,
        token_policies: auth.token_policies,
        identity_policies: auth.identity_policies,
        metadata: auth.metadata,
        lease_duration: auth.lease_duration,
        renewable: auth.renewable,
        entity_id: auth.entity_id,
        batch: auth.token_type == TokenKind::Batch.as_str(),
        orphan: auth.orphan,
        num_uses: auth.num_uses,
    }
}

fn give_auth(auth: WrappedAuth) -> AuthReply {
    let kind = if auth.batch { TokenKind::Batch } else { TokenKind::Service };
    AuthReply {
        client_token: SecretString::new(auth.client_token),
        accessor: auth.accessor,
        policies: auth.policies,
        token_policies: auth.token_policies,
        identity_policies: auth.identity_policies,
        metadata: auth.metadata,
        lease_duration: auth.lease_duration,
        renewable: auth.renewable,
        entity_id: auth.entity_id,
        token_type: kind.as_str(),
        orphan: auth.orphan,
        num_uses: auth.num_uses,
    }
}
