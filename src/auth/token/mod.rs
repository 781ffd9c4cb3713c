//! `auth/token/`: making, looking up, renewing and revoking tokens, and the roles that make them.
//!
//! A token can be asked for with a token or with nothing but a certificate. Whatever it is asked to
//! be, it is no more than who asks: its policies are some of theirs, its scopes lie within what they
//! may do, and it ends no later than the token or certificate it was asked for with.

mod create;
mod lookup;
mod renew;
mod roles;

use std::sync::Arc;

use async_trait::async_trait;

use crate::core::acl::permit::Permit;
use crate::core::context::{SystemContext, SystemRoutes};
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::operation::Operation;
use crate::core::reply::{Reply, Status};
use crate::core::route::{Answer, FieldKind, FieldSpec, Params, RouteSpec, field, route};
use crate::core::token::TokenLookup;
use crate::types::id::Accessor;

/// Trees that one call of `tidy` ends at most.
const TIDY_MAX: usize = 10_000;

const TOKEN: FieldSpec = field("token", FieldKind::Secret, "The token.");
const ACCESSOR: FieldSpec = field("accessor", FieldKind::Text, "The token's accessor.");
const INCREMENT: FieldSpec =
    field("increment", FieldKind::Duration, "How long it is to live from now on.");

const CREATE_FIELDS: &[FieldSpec] = &[
    field("bind_certificate", FieldKind::Boolean, "Bind the token to the certificate presented."),
    field("display_name", FieldKind::Text, "Name for people."),
    field("entity_alias", FieldKind::Text, "Not supported: must be empty."),
    field("explicit_max_ttl", FieldKind::Duration, "Maximum lifetime, fixed now."),
    field("id", FieldKind::Secret, "The token itself, chosen by root."),
    field("lease", FieldKind::Duration, "Older name of ttl."),
    field("lease_owner", FieldKind::Text, "Whom its leases belong to: token (default) or entity."),
    field("meta", FieldKind::Map, "Notes, shown with the token and in the audit."),
    field("no_default_policy", FieldKind::Boolean, "Leave out the default policy."),
    field("no_parent", FieldKind::Boolean, "Make an orphan; needs sudo."),
    field("num_uses", FieldKind::Integer, "How often it can be used; 0 for no limit."),
    field("period", FieldKind::Duration, "Lifetime that each renewal gives; needs sudo."),
    field("policies", FieldKind::List, "Policies, all of them the caller's; all when left out."),
    field("renewable", FieldKind::Boolean, "Whether it can be renewed (default true)."),
    field("scopes", FieldKind::List, "What to narrow it to: capability[,capability]:path."),
    field("ttl", FieldKind::Duration, "Lifetime."),
    field("type", FieldKind::Text, "service (default) or batch."),
];

const LOOKUP: &[FieldSpec] = &[
    field("accessor", FieldKind::Text, "Its accessor.").or_null(),
    field(
        "bound_certificate",
        FieldKind::Object(&[field("x5t#S256", FieldKind::Text, "SHA-256, as in RFC 8705.")]),
        "The certificate that it is bound to.",
    )
    .if_any(),
    field("bound_cidrs", FieldKind::List, "Addresses that it can be used from.").if_any(),
    field("creation_time", FieldKind::Integer, "When it was made, in seconds since 1970."),
    field("creation_ttl", FieldKind::Duration, "Its first lifetime."),
    field("display_name", FieldKind::Text, "Name for people."),
    field("entity_id", FieldKind::Text, "Its entity; empty for none."),
    field("expire_time", FieldKind::Time, "When it ends.").or_null(),
    field("explicit_max_ttl", FieldKind::Duration, "Maximum lifetime that was fixed; 0 for none."),
    field("id", FieldKind::Secret, "The token, for whoever showed it; else empty."),
    field("identity_policies", FieldKind::List, "Policies by its entity.").if_any(),
    field("issue_time", FieldKind::Time, "When it was made."),
    field("last_renewal", FieldKind::Time, "When it was last renewed.").if_any(),
    field("last_renewal_time", FieldKind::Integer, "The same in seconds since 1970.").if_any(),
    field("lease_owner", FieldKind::Text, "Whom its leases belong to: token or entity.").if_any(),
    field("meta", FieldKind::Map, "Notes.").or_null(),
    field("num_uses", FieldKind::Integer, "Uses that are left; 0 for no limit."),
    field("orphan", FieldKind::Boolean, "Whether it has no parent."),
    field("path", FieldKind::Text, "Where it was made."),
    field("period", FieldKind::Duration, "Lifetime that each renewal gives.").if_any(),
    field("policies", FieldKind::List, "Its policies."),
    field("renewable", FieldKind::Boolean, "Whether it can be renewed."),
    field("role", FieldKind::Text, "The role that it was made by.").if_any(),
    field("scopes", FieldKind::List, "What it is narrowed to.").if_any(),
    field("ttl", FieldKind::Duration, "What is left of its lifetime; 0 for no end."),
    field("type", FieldKind::Text, "service, batch, or certificate for who came without one."),
];

const WRITE: &[Operation] = &[Operation::Update];
const READ_WRITE: &[Operation] = &[Operation::Read, Operation::Update];
const LIST: &[Operation] = &[Operation::List];

static ROUTES: &[RouteSpec] = &[
    route("token-create", "create", "Make a token.", WRITE, CREATE_FIELDS).writes(Answer::Token),
    route(
        "token-create-role",
        "create/:role",
        "Make a token as a role says.",
        WRITE,
        CREATE_FIELDS,
    )
    .writes(Answer::Token),
    route(
        "token-create-orphan",
        "create-orphan",
        "Make a token that outlives the caller's.",
        WRITE,
        CREATE_FIELDS,
    )
    .writes(Answer::Token),
    route("token-lookup", "lookup", "What a token is.", READ_WRITE, &[TOKEN])
        .reads(Answer::Data(LOOKUP))
        .writes(Answer::Data(LOOKUP)),
    route("token-lookup-self", "lookup-self", "What the caller's token is.", READ_WRITE, &[])
        .reads(Answer::Data(LOOKUP))
        .writes(Answer::Data(LOOKUP)),
    route(
        "token-lookup-accessor",
        "lookup-accessor",
        "What the token behind an accessor is.",
        WRITE,
        &[ACCESSOR],
    )
    .writes(Answer::Data(LOOKUP)),
    route("token-renew", "renew", "Renew a token.", WRITE, &[TOKEN, INCREMENT])
        .writes(Answer::Token),
    route("token-renew-self", "renew-self", "Renew the caller's token.", WRITE, &[INCREMENT])
        .writes(Answer::Token),
    route(
        "token-renew-accessor",
        "renew-accessor",
        "Renew the token behind an accessor.",
        WRITE,
        &[ACCESSOR, INCREMENT],
    )
    .writes(Answer::Token),
    route("token-revoke", "revoke", "Revoke a token and its descendants.", WRITE, &[TOKEN]),
    route(
        "token-revoke-self",
        "revoke-self",
        "Revoke the caller's token and its descendants.",
        WRITE,
        &[],
    ),
    route(
        "token-revoke-accessor",
        "revoke-accessor",
        "Revoke the token behind an accessor and its descendants.",
        WRITE,
        &[ACCESSOR],
    ),
    route(
        "token-revoke-orphan",
        "revoke-orphan",
        "Revoke a token; its children become orphans.",
        WRITE,
        &[TOKEN],
    )
    .sudo(),
    route("token-accessors", "accessors", "All accessors.", LIST, &[]).sudo(),
    route("token-tidy", "tidy", "End what is due now.", WRITE, &[]).writes(Answer::Begun(&[])),
    route(
        "token-role",
        "roles/:role",
        "A role: what tokens made by it may be.",
        &[Operation::Create, Operation::Delete, Operation::Read, Operation::Update],
        roles::FIELDS,
    )
    .reads(Answer::Data(roles::SHOWN)),
    route("token-roles", "roles", "The names of the roles.", LIST, &[]),
];

/// The table.
pub struct TokenRoutes;

#[async_trait]
impl SystemRoutes for TokenRoutes {
    fn prefix(&self) -> &'static str {
        "auth/token/"
    }

    fn routes(&self) -> &'static [RouteSpec] {
        ROUTES
    }

    async fn exists(
        &self,
        ctx: &SystemContext<'_>,
        route: &'static RouteSpec,
        params: &Params<'_>,
    ) -> Result<Option<bool>, CoreError> {
        if route.name != "token-role" {
            return Ok(None);
        }
        Ok(Some(ctx.unsealed.tokens.roles().get(params.get("role")).await?.is_some()))
    }

    async fn handle(
        &self,
        ctx: &SystemContext<'_>,
        permit: &Permit,
        request: EngineRequest<'_>,
    ) -> Result<Reply, CoreError> {
        let tokens = &ctx.unsealed.tokens;
        let fields = &request.fields;
        match request.route.name {
            "token-create" => create::plain(ctx, permit, fields, false).await,
            "token-create-orphan" => create::plain(ctx, permit, fields, true).await,
            "token-create-role" => {
                create::by_role(ctx, permit, fields, request.params.get("role")).await
            }
            "token-lookup" => lookup::by_token(ctx, &fields.required_text("token")?).await,
            "token-lookup-self" => lookup::own(ctx).await,
            "token-lookup-accessor" => {
                let found = by_accessor(ctx, fields).await?;
                lookup::shown(ctx, &found, "").await
            }
            "token-renew" => renew::by_token(ctx, fields, &fields.required_text("token")?).await,
            "token-renew-self" => renew::own(ctx, fields).await,
            "token-renew-accessor" => {
                let found = by_accessor(ctx, fields).await?;
                renew::renew(ctx, fields, &found, String::new()).await
            }
            "token-revoke" => {
                // One that is gone already is as revoked as it can be.
                if let Some(found) = tokens.lookup(&fields.required_text("token")?).await? {
                    tokens.revoke(&found).await?;
                }
                Ok(Reply::empty())
            }
            "token-revoke-self" => {
                tokens.revoke(own_token(ctx)?).await?;
                Ok(Reply::empty())
            }
            "token-revoke-accessor" => {
                let accessor = Accessor::new(fields.required_text("accessor")?);
                if tokens.revoke_by_accessor(&accessor).await? {
                    Ok(Reply::empty())
                } else {
                    Err(CoreError::invalid("invalid accessor"))
                }
            }
            "token-revoke-orphan" => {
                if let Some(found) = tokens.lookup(&fields.required_text("token")?).await? {
                    let hash = found
                        .stored_name()
                        .ok_or_else(|| CoreError::invalid("batch tokens cannot be revoked"))?;
                    tokens.revoke_orphan(hash).await?;
                }
                Ok(Reply::empty())
            }
            "token-accessors" => Ok(Reply::keys(tokens.accessors().await?)),
            "token-tidy" => {
                let sweep = tokens.sweep_due(ctx.core.node, TIDY_MAX).await?;
                let said = format!("{} tokens ended, {} to be retried", sweep.ended, sweep.failed);
                Ok(Reply::empty().with_status(Status::Accepted).warn(said))
            }
            "token-role" => {
                roles::serve(ctx, request.operation, request.params.get("role"), fields).await
            }
            "token-roles" => roles::list(ctx).await,
            _ => Err(CoreError::NotFound),
        }
    }
}

async fn by_accessor(
    ctx: &SystemContext<'_>,
    fields: &Fields,
) -> Result<Arc<TokenLookup>, CoreError> {
    let accessor = fields.required_text("accessor")?;
    let found = ctx.unsealed.tokens.lookup_accessor(&accessor).await?;
    found.ok_or_else(|| CoreError::invalid("invalid accessor"))
}

fn own_token<'c>(ctx: &SystemContext<'c>) -> Result<&'c Arc<TokenLookup>, CoreError> {
    ctx.caller.token().ok_or_else(|| {
        CoreError::invalid("the request came with a certificate alone, so there is no token")
    })
}

#[cfg(test)]
mod tests;
