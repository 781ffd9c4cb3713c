//! Renewing tokens: whoever gave a token is asked again.

use crate::core::caller::entity_of;
use crate::core::context::SystemContext;
use crate::core::engine::Renewal;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::identity::Entity;
use crate::core::reply::Reply;
use crate::core::token::{RenewalBounds, TokenEntry, TokenLookup, auth_reply};
use crate::types::id::MountAccessor;
use crate::types::secret::SecretString;
use crate::types::time::Ttl;

use super::own_token;

pub(super) async fn by_token(
    ctx: &SystemContext<'_>,
    fields: &Fields,
    plain: &str,
) -> Result<Reply, CoreError> {
    let found = ctx.unsealed.tokens.lookup(plain).await?;
    let found = found.ok_or_else(|| CoreError::denied("the token to renew does not exist"))?;
    renew(ctx, fields, &found, plain.to_owned()).await
}

pub(super) async fn own(ctx: &SystemContext<'_>, fields: &Fields) -> Result<Reply, CoreError> {
    let plain = ctx.token.map(|token| token.expose().to_owned()).unwrap_or_default();
    renew(ctx, fields, own_token(ctx)?, plain).await
}

/// `plain` is answered where the caller showed the token, else empty.
pub(super) async fn renew(
    ctx: &SystemContext<'_>,
    fields: &Fields,
    token: &TokenLookup,
    plain: String,
) -> Result<Reply, CoreError> {
    let increment = fields.duration("increment")?.unwrap_or(Ttl::ZERO);
    let hash =
        token.stored_name().ok_or_else(|| CoreError::invalid("batch tokens cannot be renewed"))?;
    let entity = entity_of(ctx.unsealed, &token.entry).await?;
    let bounds = bounds(ctx, &token.entry, entity.as_deref()).await?;
    let (renewed, span) = ctx.unsealed.tokens.renew(hash, increment, &bounds).await?;
    let identity_policies = match &entity {
        Some(entity) if renewed.entry.inherits_identity => {
            ctx.unsealed.identity.standing(entity, &renewed.entry.groups).await?.policies
        }
        Some(_) | None => Vec::new(),
    };
    let plain = SecretString::new(plain);
    let mut reply = Reply::auth(auth_reply(&renewed.entry, plain, span.ttl, identity_policies));
    reply.existing = true;
    reply.warnings.extend(span.warning());
    Ok(reply)
}

async fn bounds(
    ctx: &SystemContext<'_>,
    entry: &TokenEntry,
    entity: Option<&Entity>,
) -> Result<RenewalBounds, CoreError> {
    let own = RenewalBounds {
        default_ttl: entry.creation_ttl,
        mount_max: ctx.core.settings.max_ttl,
        groups: still_named(ctx, entry).await?,
        ..RenewalBounds::default()
    };
    match (&entry.mount, &entry.role) {
        (Some(mount), _) => by_method(ctx, entry, mount, entity).await,
        (None, Some(role)) => Ok(match ctx.unsealed.tokens.roles().get(role).await? {
            Some(role) if !role.period.is_zero() => {
                RenewalBounds { period: Some(role.period), ..own }
            }
            Some(_) | None => own,
        }),
        (None, None) => Ok(own),
    }
}

/// Of the groups that a token has from its parent, those that the parent still has.
async fn still_named(
    ctx: &SystemContext<'_>,
    entry: &TokenEntry,
) -> Result<Option<Vec<String>>, CoreError> {
    let Some(parent) = entry.parent.as_ref().filter(|_| !entry.groups.is_empty()) else {
        return Ok(None);
    };
    let parent = ctx.unsealed.tokens.lookup_stored(parent).await?;
    let has =
        |group: &String| parent.as_ref().is_some_and(|parent| parent.entry.groups.contains(group));
    Ok(Some(entry.groups.iter().filter(|group| has(group)).cloned().collect()))
}

/// Asks the method that logged the token in: whoever presents the certificate now must be who it was
/// given to, by the same role, and on the same certificate where the token is bound to one.
async fn by_method(
    ctx: &SystemContext<'_>,
    entry: &TokenEntry,
    mount: &MountAccessor,
    entity: Option<&Entity>,
) -> Result<RenewalBounds, CoreError> {
    let mounted = ctx
        .unsealed
        .mounts
        .by_accessor(mount)
        .ok_or_else(|| CoreError::denied("the auth mount that gave the token is gone"))?;
    let alias = entry.auth_alias.as_deref();
    let (Some(entity), Some(alias)) = (entity, alias) else {
        return Err(CoreError::denied("the token does not say whom it was given to"));
    };
    let peer = ctx.connection.peer.as_ref();
    let renewal = Renewal {
        role: entry.auth_role.as_deref().unwrap_or_default(),
        alias,
        metadata: &entry.meta,
        policies: &entry.policies,
        peer,
    };
    let method = mounted.method()?;
    let grant = method.renewal(&mounted.context(), renewal).await?;
    // The alias may have been taken from the entity since, or merged into it with another one.
    let holder = ctx.unsealed.identity.resolve(mount, &grant).await?;
    if grant.alias != alias || holder.id != entity.id {
        return Err(CoreError::denied("the token was given to another identity"));
    }
    if let Some(bound) = &entry.bound_certificate
        && peer.is_none_or(|peer| peer.fingerprint() != bound)
    {
        return Err(CoreError::denied("the token is bound to another certificate"));
    }
    Ok(RenewalBounds {
        default_ttl: grant.token.ttl.or(mounted.facts.default_ttl),
        role_max: grant.token.max_ttl,
        mount_max: mounted.facts.max_ttl,
        period: Some(grant.token.period),
        not_after: grant.not_after,
        groups: match method.renews_groups() {
            true => Some(ctx.unsealed.identity.groups().named(mount, &grant.groups).await?),
            false => None,
        },
    })
}
