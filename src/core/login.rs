//! From what an auth method granted to a token.

use std::net::IpAddr;
use std::sync::Arc;

use super::context::Unsealed;
use super::engine::Grant;
use super::error::CoreError;
use super::mount::Mounted;
use super::reply::Reply;
use super::token::{NewToken, address_allowed, login_kind};

/// Issues the token of a log-in, and stores the entity behind it if it is not stored yet.
///
/// # Errors
/// `Denied` when the entity is disabled or the role is bound to other addresses, `Invalid` when the
/// mount is being disabled; otherwise when the store fails.
pub(super) async fn login(
    unsealed: &Unsealed,
    mounted: &Arc<Mounted>,
    grant: Grant,
    path: &str,
    remote: IpAddr,
) -> Result<Reply, CoreError> {
    if !address_allowed(&grant.token.bound_cidrs, remote) {
        return Err(CoreError::denied("the role is bound to other addresses"));
    }
    let entity = unsealed.identity.resolve(&mounted.entry.accessor, &grant).await?;
    if entity.disabled {
        return Err(CoreError::denied(format!("entity {} is disabled", entity.id)));
    }
    unsealed.identity.ensure(&entity).await?;
    let kind = login_kind(grant.token.token_type, mounted.entry.config.token_type);
    let new = NewToken::for_login(&grant, &mounted.facts, kind, path, entity.id.clone());
    let issued = match unsealed.tokens.log_in(new, mounted.gate).await {
        // Taken down since the request was routed, on this node or another.
        Err(_) if !unsealed.mounts.is_open(mounted).await? => return Err(mounted.closing()),
        issued => issued?,
    };
    let warnings = issued.warnings.clone();
    let mut reply = Reply::auth(issued.into_auth(entity.policies.clone()));
    reply.warnings = warnings;
    Ok(reply)
}
