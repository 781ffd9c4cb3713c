//! Log-ins: from what an auth method granted to a token, and what becomes of a log-in that it refused.

use std::sync::Arc;

use serde_json::json;

use super::acl::permit::Permit;
use super::context::Unsealed;
use super::engine::{AuthOutcome, AuthRequest, Claim, Grant};
use super::error::CoreError;
use super::identity::{Entity, Standing};
use super::mfa::{Asks, Enforcement, Pending, Shown, Wanted, certificate_of};
use super::mount::Mounted;
use super::peer::ConnectionInfo;
use super::reply::Reply;
use super::token::{NewToken, address_allowed, login_kind, with_default};
use crate::types::time::Timestamp;

/// What the audit says of a log-in as somebody who is locked.
const LOCKED: &str = "locked";

/// A log-in as it comes.
pub(super) struct LogIn<'a> {
    /// Its path.
    pub(super) path: &'a str,
    /// Where it comes from.
    pub(super) connection: &'a ConnectionInfo,
    /// The codes of a second factor that come with it.
    pub(super) codes: &'a [Shown],
    /// When it comes.
    pub(super) at: Timestamp,
}

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
    log_in: &LogIn<'_>,
) -> Result<Reply, CoreError> {
    let method = mounted.method()?;
    let Some(claim) = method.claim(&request) else {
        return match method.handle(&mounted.context(), permit, request).await? {
            AuthOutcome::Respond(reply) => Ok(reply),
            AuthOutcome::Login(grant) => login(unsealed, mounted, *grant, log_in).await,
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
        Ok(AuthOutcome::Login(grant)) => login(unsealed, mounted, *grant, log_in).await,
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

/// Who is let in, as far as the first factor goes.
struct Admitted {
    entity: Arc<Entity>,
    /// The groups that the method named, by the ids of their aliases.
    groups: Vec<String>,
    standing: Standing,
    /// What a second factor is demanded by.
    demanded: Vec<Enforcement>,
}

/// # Errors
/// `Denied` when the entity is disabled or the role is bound to other addresses; otherwise when the
/// store fails.
async fn admit(
    unsealed: &Unsealed,
    mounted: &Mounted,
    grant: &Grant,
    connection: &ConnectionInfo,
) -> Result<Admitted, CoreError> {
    if !address_allowed(&grant.token.bound_cidrs, connection.remote.ip()) {
        return Err(CoreError::denied("the role is bound to other addresses"));
    }
    let entity = unsealed.identity.resolve(&mounted.entry.accessor, grant).await?;
    if entity.disabled {
        return Err(CoreError::denied(format!("entity {} is disabled", entity.id)));
    }
    let groups = unsealed.identity.groups().named(&mounted.entry.accessor, &grant.groups).await?;
    let standing = unsealed.identity.standing(&entity, &groups).await?;
    let asks = Asks {
        mount: &mounted.entry,
        entity: &entity,
        standing: &standing,
        token_policies: &with_default(&grant.token.policies, grant.token.no_default_policy),
    };
    let demanded = unsealed.mfa.demanded(&asks).await?;
    Ok(Admitted { entity, groups, standing, demanded })
}

/// Issues the token of a log-in, and stores the entity behind it if it is not stored yet. Where a
/// second factor is demanded and no code came with it, answers what to show instead.
///
/// # Errors
/// `Denied` when the entity is disabled or the role is bound to other addresses, `Refused` when a code
/// does not count, `Invalid` when the entity has no secret to make one with or the mount is being
/// disabled; otherwise when the store fails.
async fn login(
    unsealed: &Unsealed,
    mounted: &Arc<Mounted>,
    grant: Grant,
    log_in: &LogIn<'_>,
) -> Result<Reply, CoreError> {
    let admitted = admit(unsealed, mounted, &grant, log_in.connection).await?;
    if admitted.demanded.is_empty() {
        return issue(unsealed, mounted, &grant, admitted, log_in.path).await;
    }
    let id = &admitted.entity.id;
    // Stored already now, so that whoever has no secret yet can be given one.
    unsealed.identity.ensure(&admitted.entity).await?;
    let wanted = unsealed.mfa.wanted(id, &admitted.demanded).await?;
    if !log_in.codes.is_empty() {
        unsealed.mfa.prove(id, &admitted.demanded, log_in.codes).await?;
        return issue(unsealed, mounted, &grant, admitted, log_in.path).await;
    }
    let pending = Pending {
        mount: mounted.entry.accessor.clone(),
        path: log_in.path.to_owned(),
        entity: id.clone(),
        enforcements: admitted.demanded,
        certificate: certificate_of(log_in.connection),
        began_at: log_in.at,
        grant,
    };
    let request_id = unsealed.mfa.wait(&pending).await?;
    let mut constraints = serde_json::Map::new();
    for Wanted { enforcement, any } in wanted {
        let any = any.iter().map(|method| {
            json!({ "type": "totp", "id": method.id, "uses_passcode": true, "name": method.name })
        });
        constraints.insert(enforcement, json!({ "any": any.collect::<Vec<_>>() }));
    }
    Ok(Reply::mfa(json!({ "mfa_request_id": request_id, "mfa_constraints": constraints })))
}

/// Issues the token of a log-in that waited for its second factor, when the codes prove it. What the
/// first factor gave is judged anew, but for what the method itself found.
///
/// # Errors
/// `Refused` when the request id or a code does not count; as a log-in.
pub async fn validate(
    unsealed: &Unsealed,
    connection: &ConnectionInfo,
    request_id: &str,
    codes: &[Shown],
) -> Result<Reply, CoreError> {
    let mfa = &unsealed.mfa;
    let waiting = mfa.waiting(request_id, certificate_of(connection).as_deref()).await?;
    let pending = &waiting.value;
    let gone = || CoreError::denied("the auth mount of the log-in is gone");
    let mounted = unsealed.mounts.by_accessor(&pending.mount).ok_or_else(gone)?;
    let admitted = admit(unsealed, &mounted, &pending.grant, connection).await?;
    if !admitted.entity.is(&pending.entity) {
        return Err(CoreError::denied("the log-in is another identity by now"));
    }
    // What was demanded then, and what is demanded now.
    let mut demanded = pending.enforcements.clone();
    let further = admitted.demanded.iter().filter(|one| !pending.enforcements.contains(one));
    demanded.extend(further.cloned());
    mfa.prove(&admitted.entity.id, &demanded, codes).await?;
    mfa.admit(request_id, &waiting).await?;
    issue(unsealed, &mounted, &pending.grant, admitted, &pending.path).await
}

async fn issue(
    unsealed: &Unsealed,
    mounted: &Arc<Mounted>,
    grant: &Grant,
    admitted: Admitted,
    path: &str,
) -> Result<Reply, CoreError> {
    let Admitted { entity, groups, standing, .. } = admitted;
    unsealed.identity.ensure(&entity).await?;
    let kind = login_kind(grant.token.token_type, mounted.entry.config.token_type);
    let id = entity.id.clone();
    let new = NewToken::for_login(grant, &mounted.facts, kind, path, id, groups);
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
