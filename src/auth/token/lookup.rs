//! What a token is.

use serde_json::{Value, json};

use crate::core::caller::Via;
use crate::core::context::SystemContext;
use crate::core::error::CoreError;
use crate::core::reply::Reply;
use crate::core::token::TokenLookup;

use super::own_token;

pub(super) async fn by_token(ctx: &SystemContext<'_>, plain: &str) -> Result<Reply, CoreError> {
    let found = ctx.unsealed.tokens.lookup(plain).await?;
    let found = found.ok_or_else(|| CoreError::denied("the token asked about does not exist"))?;
    shown(ctx, &found, plain).await
}

/// The caller's own token; for a caller by certificate, what stands in its place.
pub(super) async fn own(ctx: &SystemContext<'_>) -> Result<Reply, CoreError> {
    let (Via::Certificate { grant, .. }, Some(peer)) = (&ctx.caller.via, &ctx.connection.peer)
    else {
        let plain = ctx.token.map(|token| token.expose()).unwrap_or_default();
        return shown(ctx, own_token(ctx)?, plain).await;
    };
    let caller = ctx.caller;
    let now = ctx.core.clock.now();
    let (issued, ends) = (peer.not_before(), caller.facts.expires_at.unwrap_or(peer.not_after()));
    Ok(Reply::data(json!({
        "accessor": "",
        "creation_time": issued.as_secs(),
        "creation_ttl": ends.remaining(issued),
        "display_name": caller.facts.display_name,
        "entity_id": caller.facts.entity_id.as_ref().map(|id| id.as_str()).unwrap_or_default(),
        "expire_time": ends.to_rfc3339(),
        "explicit_max_ttl": 0,
        "id": "",
        "identity_policies": caller.identity_policies,
        "issue_time": issued.to_rfc3339(),
        "meta": grant.metadata,
        "num_uses": 0,
        "orphan": true,
        "path": "",
        "policies": caller.token_policies,
        "renewable": false,
        "role": grant.role,
        "ttl": ends.remaining(now),
        "type": "certificate",
    })))
}

/// `id` is the token itself where the caller showed it, else empty.
pub(super) async fn shown(
    ctx: &SystemContext<'_>,
    token: &TokenLookup,
    id: &str,
) -> Result<Reply, CoreError> {
    let entry = &token.entry;
    let now = ctx.core.clock.now();
    let entity = match &entry.entity_id {
        Some(id) => {
            let deleted = || CoreError::denied(format!("entity {id} was deleted"));
            Some(ctx.unsealed.identity.get(id).await?.ok_or_else(deleted)?)
        }
        None => None,
    };
    let identity_policies = match &entity {
        Some(entity) if entry.inherits_identity => {
            Some(ctx.unsealed.identity.standing(entity, &entry.groups).await?.policies)
        }
        Some(_) | None => None,
    };
    let mut data = json!({
        "accessor": entry.accessor,
        "creation_time": entry.created_at.as_secs(),
        "creation_ttl": entry.creation_ttl,
        "display_name": entry.display_name,
        "entity_id": entity.as_ref().map(|entity| entity.id.as_str()).unwrap_or_default(),
        "expire_time": entry.expires_at.map(|at| at.to_rfc3339()),
        "explicit_max_ttl": entry.explicit_max_ttl,
        "id": id,
        "issue_time": entry.created_at.to_rfc3339(),
        "lease_owner": entry.lease_owner.as_str(),
        "meta": if entry.meta.is_empty() { Value::Null } else { json!(entry.meta) },
        "num_uses": entry.uses_left.unwrap_or(0),
        "orphan": entry.parent.is_none(),
        "path": entry.path,
        "policies": entry.policies,
        "renewable": entry.renewable,
        "ttl": entry.ttl(now),
        "type": entry.token_type.as_str(),
    });
    // Stock servers leave these out where there is nothing to say.
    let further = [
        ("bound_certificate", entry.bound_certificate.map(|sha256| x5t(&sha256))),
        ("bound_cidrs", (!entry.bound_cidrs.is_empty()).then(|| json!(entry.bound_cidrs))),
        ("identity_policies", identity_policies.filter(|p| !p.is_empty()).map(|p| json!(p))),
        ("last_renewal", entry.renewed_at.map(|at| json!(at.to_rfc3339()))),
        ("last_renewal_time", entry.renewed_at.map(|at| json!(at.as_secs()))),
        ("period", (!entry.period.is_zero()).then(|| json!(entry.period))),
        ("role", entry.role.as_ref().map(|role| json!(role))),
        ("scopes", (!entry.scopes.is_empty()).then(|| json!(entry.scopes))),
    ];
    if let Value::Object(map) = &mut data {
        for (name, value) in further {
            map.extend(value.map(|value| (name.to_owned(), value)));
        }
    }
    Ok(Reply::data(data))
}

/// As RFC 8705 §3.1 writes a fingerprint.
fn x5t(sha256: &[u8; 32]) -> Value {
    json!({ "x5t#S256": data_encoding::BASE64URL_NOPAD.encode(sha256) })
}
