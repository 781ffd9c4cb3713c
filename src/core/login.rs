//! Log-ins: from what an auth method granted to a token, and what becomes of a log-in that it refused.

use std::net::IpAddr;
use std::sync::Arc;

use super::acl::permit::Permit;
use super::context::Unsealed;
use super::engine::{AuthOutcome, AuthRequest, Claim, Grant};
use super::error::CoreError;
use super::mount::Mounted;
use super::reply::Reply;
use super::token::{NewToken, address_allowed, login_kind};

/// What the audit says of a log-in as somebody who is locked.
const LOCKED: &str = "locked";

/// Serves a public route of an auth mount. A log-in that claims to be somebody and is refused gets
/// the claim's one answer and counts against whom it claims; while that identity is locked it is
/// refused whatever it proves.
///
/// # Errors
/// As the method, and as [`login`].
pub(super) async fn serve(
    unsealed: &Unsealed,
    mounted: &Arc<Mounted>,
    permit: &Permit,
    mut request: AuthRequest<'_>,
    path: &str,
) -> Result<Reply, CoreError> {
    let method = mounted.method()?;
    let remote = request.remote;
    let Some(claim) = method.claim(&request) else {
        return match method.handle(&mounted.context(), permit, request).await? {
            AuthOutcome::Respond(reply) => Ok(reply),
            AuthOutcome::Login(grant) => login(unsealed, mounted, *grant, path, remote).await,
        };
    };
    let is_locked = || unsealed.lockouts.is_locked(&mounted.entry, &claim.alias);
    request.locked = is_locked();
    let outcome = method.handle(&mounted.context(), permit, request).await;
    // Asked again, so that of guesses made all at once no more count than one after the other.
    let locked = is_locked();
    let result = match outcome {
        Ok(AuthOutcome::Respond(reply)) => return Ok(reply),
        Ok(AuthOutcome::Login(_)) | Err(CoreError::Denied { .. }) if locked => {
            return Err(refused(&claim, LOCKED.to_owned()));
        }
        Ok(AuthOutcome::Login(grant)) => login(unsealed, mounted, *grant, path, remote).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(reply) => {
            unsealed.lockouts.succeeded(&mounted.entry, &claim.alias);
            Ok(reply)
        }
        Err(CoreError::Denied { reason }) => {
            unsealed.lockouts.failed(&mounted.entry, &claim.alias);
            Err(refused(&claim, reason))
        }
        Err(error) => Err(error),
    }
}

fn refused(claim: &Claim, reason: String) -> CoreError {
    CoreError::Refused { answer: claim.refusal, reason }
}

/// Issues the token of a log-in, and stores the entity behind it if it is not stored yet.
///
/// # Errors
/// `Denied` when the entity is disabled or the role is bound to other addresses, `Invalid` when the
/// mount is being disabled; otherwise when the store fails.
async fn login(
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
    let groups = unsealed.identity.groups().named(&mounted.entry.accessor, &grant.groups).await?;
    let standing = unsealed.identity.standing(&entity, &groups).await?;
    let new = NewToken::for_login(&grant, &mounted.facts, kind, path, entity.id.clone(), groups);
    let issued = match unsealed.tokens.log_in(new, mounted.gate).await {
        // Taken down since the request was routed, on this node or another.
        Err(_) if !unsealed.mounts.is_open(mounted).await? => return Err(mounted.closing()),
        issued => issued?,
    };
    let warnings = issued.warnings.clone();
    let mut reply = Reply::auth(issued.into_auth(standing.policies));
    reply.warnings = warnings;
    Ok(reply)
}
