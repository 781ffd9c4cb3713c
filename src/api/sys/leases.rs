//! `sys/leases/*`: look up, list, search, renew, revoke, abandon.

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Value, json};

use crate::core::acl::permit::Permit;
use crate::core::context::{SystemContext, SystemRoutes};
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::lease::{BulkProgress, GivenUp, Lease, Owner, Selector};
use crate::core::operation::Operation;
use crate::core::reply::{Reply, Status};
use crate::core::route::{Answer, FieldKind, FieldSpec, RouteSpec, field, route};
use crate::types::id::{EntityId, LeaseId};
use crate::types::time::Timestamp;

/// The table.
pub struct LeaseRoutes;

/// Most leases in one answer of a search.
const SEARCH_MAX: usize = 1000;
/// Most lease ids named in the answer of a dry run.
const DRY_RUN_LISTED_MAX: usize = 1000;
/// How long a bulk revocation is waited for when the caller asks to wait.
const WAIT_MILLIS_MAX: i64 = 60_000;
/// Pause between two looks at a bulk revocation that is waited for.
const WAIT_STEP: std::time::Duration = std::time::Duration::from_millis(100);

const WRITE: &[Operation] = &[Operation::Update];
const LIST: &[Operation] = &[Operation::List];
const READ: &[Operation] = &[Operation::Read];
const LEASE_ID: FieldSpec = field("lease_id", FieldKind::Text, "The lease.");
const INCREMENT: FieldSpec = field(
    "increment",
    FieldKind::Duration,
    "Wanted lifetime from now; the first one again if none.",
);
const SYNC: FieldSpec = field("sync", FieldKind::Boolean, "Answer when the credentials are dead.");
const WAIT: FieldSpec =
    field("sync", FieldKind::Boolean, "Answer when it is over; `false` to answer at once.");
const DRY_RUN: FieldSpec = field("dry_run", FieldKind::Boolean, "Only say what would be revoked.");

static ROUTES: &[RouteSpec] = &[
    route("lookup", "leases/lookup", "One lease.", WRITE, &[LEASE_ID])
        .writes(Answer::Data(LEASE)),
    route(
        "list",
        "leases/lookup/*prefix",
        "Lease ids below a prefix, one level at a time.",
        LIST,
        &[],
    )
    .sudo(),
    route("renew", "leases/renew", "Prolong a lease.", WRITE, &[LEASE_ID, INCREMENT])
        .writes(Answer::Renewed),
    route(
        "renew-path",
        "leases/renew/*lease_id",
        "Prolong a lease named in the path.",
        WRITE,
        &[INCREMENT],
    )
    .writes(Answer::Renewed),
    route(
        "revoke",
        "leases/revoke",
        "Take back one lease; answers when its credential is dead.",
        WRITE,
        &[LEASE_ID, SYNC],
    ),
    route(
        "revoke-path",
        "leases/revoke/*lease_id",
        "Take back the lease named in the path.",
        WRITE,
        &[SYNC],
    ),
    route(
        "revoke-prefix",
        "leases/revoke-prefix/*prefix",
        "Take back all leases below a prefix.",
        WRITE,
        &[SYNC, DRY_RUN],
    )
    .sudo()
    .writes(Answer::Begun(REVOCATION)),
    route(
        "revoke-force",
        "leases/revoke-force/*prefix",
        "Take back all leases below a prefix, and forget those that their targets do not take back.",
        WRITE,
        &[WAIT, DRY_RUN],
    )
    .sudo()
    .writes(Answer::Begun(REVOCATION)),
    route(
        "revoke-where",
        "leases/revoke-where",
        "Take back all leases of an identity, a mount or a role.",
        WRITE,
        &[
            field("entity_id", FieldKind::Text, "Those of this entity, with those of its tokens."),
            field("accessor", FieldKind::Text, "Those of the token with this accessor."),
            field("mount", FieldKind::Text, "Those of this mount."),
            field("role", FieldKind::Text, "With `mount`: those of this role."),
            SYNC,
            DRY_RUN,
        ],
    )
    .sudo()
    .writes(Answer::Begun(REVOCATION)),
    route(
        "search",
        "leases/search",
        "Leases by identity, mount or role, or those that are overdue.",
        WRITE,
        &[
            field("entity_id", FieldKind::Text, "Those of this entity, with those of its tokens."),
            field("accessor", FieldKind::Text, "Those of the token with this accessor."),
            field("mount", FieldKind::Text, "Those of this mount."),
            field("role", FieldKind::Text, "With `mount`: those of this role."),
            field("overdue", FieldKind::Boolean, "Those whose revocation has failed."),
            field("limit", FieldKind::Integer, "Most leases to answer with, up to 1000."),
            field("after", FieldKind::Text, "Where the last page ended."),
        ],
    )
    .sudo()
    .writes(Answer::Data(FOUND)),
    route(
        "overdue",
        "leases",
        "Leases whose revocation keeps failing.",
        READ,
        &[
            field(
                "type",
                FieldKind::Text,
                "Only `irrevocable` or `overdue`, which mean the same here.",
            ),
            field("limit", FieldKind::Integer, "Most leases to answer with, up to 1000."),
        ],
    )
    .sudo()
    .reads(Answer::Data(FOUND)),
    route(
        "count",
        "leases/count",
        "How many leases there are.",
        READ,
        &[field("type", FieldKind::Text, "`irrevocable` or `overdue` for those only.")],
    )
    .sudo()
    .reads(Answer::Data(&[
        field(
            "counts",
            FieldKind::Object(&[field("*", FieldKind::Integer, "Those of one mount.")]),
            "By the path of the mount.",
        ),
        field("lease_count", FieldKind::Integer, "All together."),
    ])),
    route(
        "abandon",
        "leases/abandon",
        "Forget a lease although its credential may live on. Recorded as such.",
        WRITE,
        &[LEASE_ID],
    )
    .sudo()
    .writes(Answer::Data(&[
        field("credential_may_live", FieldKind::Boolean, "Whether its credential may still work."),
        field("last_error", FieldKind::Text, "What its target said last.").or_null(),
        field("lease_id", FieldKind::Text, "The lease."),
        field("role", FieldKind::Text, "The role that it was issued by."),
        field("target", FieldKind::Text, "The system that its credential is on."),
    ])),
    route("operation", "leases/operations/:id", "How far a bulk revocation is.", READ, &[])
        .sudo()
        .reads(Answer::Data(PROGRESS)),
    route("tidy", "leases/tidy", "Look again at everything that is due.", WRITE, &[])
        .sudo()
        .writes(Answer::Begun(&[])),
];

const LEASE: &[FieldSpec] = &[
    field("attempts", FieldKind::Integer, "How often revoking it was tried."),
    field("entity_id", FieldKind::Text, "The entity that asked for it.").or_null(),
    field("expire_time", FieldKind::Time, "When it ends."),
    field("id", FieldKind::Text, "Its id."),
    field("issue_time", FieldKind::Time, "When it was issued."),
    field("last_renewal", FieldKind::Time, "When it was last renewed.").or_null(),
    field("overdue_since", FieldKind::Time, "Since when revoking it fails.").or_null(),
    field(
        "owner",
        FieldKind::Object(&[
            field("entity", FieldKind::Text, "An entity.").if_any(),
            field("token", FieldKind::Text, "A token, by its hash.").if_any(),
        ]),
        "Whom it belongs to, and ends with.",
    ),
    field("path", FieldKind::Text, "The path that it was asked for at."),
    field("renewable", FieldKind::Boolean, "Whether it can be renewed."),
    field("revoke_error", FieldKind::Text, "What its target said last; empty for nothing."),
    field("role", FieldKind::Text, "The role that it was issued by."),
    field("state", FieldKind::Text, "active, intent or revoking."),
    // Below zero when it is overdue.
    field("ttl", FieldKind::Integer, "Seconds until it ends; below zero when that is past."),
];

const FOUND: &[FieldSpec] = &[
    field("lease_count", FieldKind::Integer, "How many are in this answer."),
    field("leases", FieldKind::Objects(LEASE), "The leases."),
    field("next", FieldKind::Text, "What to give as `after` for the next page.").or_null(),
];

const ABANDONED: FieldSpec =
    field("abandoned", FieldKind::Integer, "How many were forgotten although they may live.");
const COMPLETE: FieldSpec = field("complete", FieldKind::Boolean, "Whether none is pending.");
const MAY_LIVE: FieldSpec =
    field("credentials_that_may_live", FieldKind::List, "Which; of very many the first.");
const FAILURES: FieldSpec = field(
    "failures",
    FieldKind::Objects(&[
        field("attempts", FieldKind::Integer, "Tries so far."),
        field("error", FieldKind::Text, "What the last one said."),
        field("lease_id", FieldKind::Text, "The lease."),
    ]),
    "Those that failed so far; they are tried again.",
);
const OPERATION_ID: FieldSpec = field("operation_id", FieldKind::Text, "Ask for it by this.");
const PENDING: FieldSpec = field("pending", FieldKind::Integer, "How many are not dead yet.");
const REVOKED: FieldSpec = field("revoked", FieldKind::Integer, "How many are dead.");
const TOTAL: FieldSpec = field("total", FieldKind::Integer, "How many there were.");

const PROGRESS: &[FieldSpec] =
    &[ABANDONED, COMPLETE, MAY_LIVE, FAILURES, OPERATION_ID, PENDING, REVOKED, TOTAL];

/// As [`PROGRESS`], or what a dry run says.
const REVOCATION: &[FieldSpec] = &[
    ABANDONED.if_any(),
    COMPLETE.if_any(),
    MAY_LIVE.if_any(),
    FAILURES.if_any(),
    OPERATION_ID.if_any(),
    PENDING.if_any(),
    REVOKED.if_any(),
    TOTAL,
    field("dry_run", FieldKind::Boolean, "True: nothing was done.").if_any(),
    field("lease_ids", FieldKind::List, "Leases it would revoke; of very many the first.").if_any(),
];

#[async_trait]
impl SystemRoutes for LeaseRoutes {
    fn prefix(&self) -> &'static str {
        "sys/"
    }

    fn routes(&self) -> &'static [RouteSpec] {
        ROUTES
    }

    async fn handle(
        &self,
        ctx: &SystemContext<'_>,
        permit: &Permit,
        request: EngineRequest<'_>,
    ) -> Result<Reply, CoreError> {
        let leases = &ctx.unsealed.leases;
        match request.route.name {
            "lookup" => {
                let lease = owned(ctx, permit, &lease_id(&request)?).await?;
                Ok(Reply::data(lookup(&lease, ctx.core.clock.now())))
            }
            "list" => list(ctx, request.params.get("prefix")).await,
            "renew" | "renew-path" => {
                let id = lease_id(&request)?;
                let lease = owned(ctx, permit, &id).await?;
                refuse_ended(ctx, &lease).await?;
                let increment = request.fields.duration("increment")?.unwrap_or_default();
                leases.renew(&id, increment, latest(ctx, &lease).await?).await
            }
            "revoke" | "revoke-path" => {
                let id = lease_id(&request)?;
                // An unknown lease is dead already; whether it existed is nobody else's business.
                if leases.get(&id).await?.is_some() {
                    owned(ctx, permit, &id).await?;
                    leases.revoke(&id).await?;
                }
                Ok(Reply::empty())
            }
            "revoke-prefix" => {
                let selector = Selector::Prefix(dir(request.params.get("prefix")));
                bulk(ctx, &request, selector, None).await
            }
            "revoke-force" => {
                let selector = Selector::Prefix(dir(request.params.get("prefix")));
                bulk(ctx, &request, selector, Some(decision(ctx))).await
            }
            "revoke-where" => bulk(ctx, &request, selector(ctx, &request).await?, None).await,
            "search" => search(ctx, &request, selector(ctx, &request).await?).await,
            "overdue" => {
                check_type(&request)?;
                search(ctx, &request, Selector::Overdue).await
            }
            "count" => count(ctx, &request).await,
            "abandon" => {
                let id = lease_id(&request)?;
                Ok(Reply::data(json!(abandon(ctx, &id).await?)))
            }
            "operation" => {
                let progress = leases.progress(request.params.get("id")).await?;
                Ok(Reply::data(rendered(progress.ok_or(CoreError::NotFound)?)))
            }
            _ => {
                leases.wake_sweep();
                Ok(Reply::empty().with_status(Status::Accepted))
            }
        }
    }
}

fn lease_id(request: &EngineRequest<'_>) -> Result<LeaseId, CoreError> {
    let captured = request.params.get("lease_id");
    if captured.is_empty() {
        Ok(LeaseId::new(request.fields.required_text("lease_id")?))
    } else {
        Ok(LeaseId::new(captured))
    }
}

/// A lease, when the caller owns it or holds `sudo` on the path it came by. Everything else looks
/// like a lease that is not there.
async fn owned(ctx: &SystemContext<'_>, permit: &Permit, id: &LeaseId) -> Result<Lease, CoreError> {
    let unknown = || CoreError::invalid("invalid lease");
    let lease = ctx.unsealed.leases.get(id).await?.ok_or_else(unknown)?.value;
    if permit.sudo() || ctx.caller.owns(&lease) { Ok(lease) } else { Err(unknown()) }
}

/// What a disabled or deleted identity holds is not prolonged, whoever asks.
async fn refuse_ended(ctx: &SystemContext<'_>, lease: &Lease) -> Result<(), CoreError> {
    let Some(id) = &lease.entity else { return Ok(()) };
    match ctx.unsealed.identity.get(id).await? {
        Some(entity) if !entity.disabled => Ok(()),
        Some(_) | None => Err(CoreError::invalid(
            "the identity that the lease was issued to is disabled or deleted",
        )),
    }
}

/// When a lease has to end that the caller renews: with the caller, and with the token it belongs to
/// when that is another.
async fn latest(ctx: &SystemContext<'_>, lease: &Lease) -> Result<Option<Timestamp>, CoreError> {
    let own = ctx.caller.facts.expires_at;
    let owner = match &lease.owner {
        Owner::Token(name) if !ctx.caller.owns(lease) => ctx.unsealed.tokens.end_of(name).await?,
        Owner::Token(_) | Owner::Entity(_) => None,
    };
    Ok([own, owner].into_iter().flatten().min())
}

fn lookup(lease: &Lease, now: Timestamp) -> Value {
    json!({
        "id": lease.id,
        "issue_time": lease.issued_at.to_rfc3339(),
        "expire_time": lease.expires_at.to_rfc3339(),
        "last_renewal": lease.renewed_at.map(Timestamp::to_rfc3339),
        "renewable": lease.renewable && lease.is_live(now),
        "ttl": lease.expires_at.millis_since(now).div_euclid(1000),
        "path": lease.path,
        "state": lease.state,
        "role": lease.role,
        "owner": lease.owner,
        "entity_id": lease.entity,
        "attempts": lease.attempts,
        "revoke_error": lease.last_error.as_deref().unwrap_or_default(),
        "overdue_since": lease.failing_since.map(Timestamp::to_rfc3339),
    })
}

fn dir(prefix: &str) -> String {
    if prefix.is_empty() || prefix.ends_with('/') {
        prefix.to_owned()
    } else {
        format!("{prefix}/")
    }
}

async fn list(ctx: &SystemContext<'_>, prefix: &str) -> Result<Reply, CoreError> {
    Reply::listing(ctx.unsealed.leases.names(&dir(prefix)).await?)
}

async fn selector(
    ctx: &SystemContext<'_>,
    request: &EngineRequest<'_>,
) -> Result<Selector, CoreError> {
    let fields = &request.fields;
    if fields.boolean("overdue")? == Some(true) {
        return Ok(Selector::Overdue);
    }
    if let Some(id) = fields.text("entity_id")? {
        let id = EntityId::new(id);
        // One that is not stored any more may still have leases that are being taken back.
        let entity = ctx.unsealed.identity.get(&id).await?;
        let ids = entity.map_or_else(|| vec![id], |entity| entity.ids());
        return Ok(Selector::Entities(ids));
    }
    if let Some(accessor) = fields.text("accessor")? {
        let token = ctx.unsealed.tokens.lookup_accessor(&accessor).await?;
        let name = token.and_then(|token| token.stored_name().map(str::to_owned));
        let unknown = || CoreError::field("accessor", "is of no token that is there");
        return Ok(Selector::Token(name.ok_or_else(unknown)?));
    }
    let Some(path) = fields.text("mount")? else {
        let problem = "or \"accessor\" or \"mount\" must say which leases are meant";
        return Err(CoreError::field("entity_id", problem));
    };
    let mounted = ctx
        .unsealed
        .mounts
        .at(&dir(&path))
        .ok_or_else(|| CoreError::field("mount", "is not the path of a mount"))?;
    let accessor = mounted.entry.accessor.clone();
    Ok(match fields.text("role")? {
        Some(role) => Selector::Role(accessor, role),
        None => Selector::Mount(accessor),
    })
}

async fn bulk(
    ctx: &SystemContext<'_>,
    request: &EngineRequest<'_>,
    selector: Selector,
    given_up: Option<GivenUp>,
) -> Result<Reply, CoreError> {
    let leases = &ctx.unsealed.leases;
    if request.fields.boolean("dry_run")? == Some(true) {
        let (total, ids) = leases.selected(&selector, DRY_RUN_LISTED_MAX).await?;
        return Ok(Reply::data(json!({ "dry_run": true, "total": total, "lease_ids": ids })));
    }
    // Giving up does not depend on any target for long, so it is waited for unless that is not wanted.
    let forced = given_up.is_some();
    let sync = request.fields.boolean("sync")?.unwrap_or(forced);
    let id = match given_up {
        Some(decision) => leases.abandon_all(selector, decision).await?,
        None => leases.revoke_all(selector).await?,
    };
    let until = ctx.core.clock.now().plus_millis(if sync { WAIT_MILLIS_MAX } else { 0 });
    loop {
        let progress = leases.progress(&id).await?.ok_or(CoreError::NotFound)?;
        if progress.complete {
            let abandoned = progress.abandoned > 0;
            let reply = Reply::data(rendered(progress));
            return Ok(if abandoned {
                reply.warn("some credentials could not be revoked and are no longer tracked")
            } else {
                reply
            });
        }
        let failed = sync && !forced && !progress.failures.is_empty();
        if failed || ctx.core.clock.now() >= until {
            let reply = Reply::data(rendered(progress)).with_status(Status::Accepted);
            return Ok(reply.warn("not all credentials are dead yet; ask sys/leases/operations"));
        }
        tokio::time::sleep(WAIT_STEP).await;
    }
}

/// Revokes all that `selector` means and answers once it is dead.
///
/// # Errors
/// `Upstream` naming the first credential that is not dead; it is tried again in any case.
pub(super) async fn revoke_and_wait(
    ctx: &SystemContext<'_>,
    selector: Selector,
) -> Result<(), CoreError> {
    let leases = &ctx.unsealed.leases;
    let id = leases.revoke_all(selector).await?;
    let until = ctx.core.clock.now().plus_millis(WAIT_MILLIS_MAX);
    loop {
        let progress = leases.progress(&id).await?.ok_or(CoreError::NotFound)?;
        if progress.complete {
            return Ok(());
        }
        let failed = progress.failures.first();
        if failed.is_some() || ctx.core.clock.now() >= until {
            return Err(CoreError::Upstream {
                target: failed.map_or("a target".into(), |f| f.lease_id.to_string()),
                message: format!(
                    "{} credentials are not dead yet; revocation goes on as operation {id}. Try \
                     again, or give them up with sys/leases/revoke-force",
                    progress.pending
                ),
            });
        }
        tokio::time::sleep(WAIT_STEP).await;
    }
}

fn rendered(progress: BulkProgress) -> Value {
    json!({
        "operation_id": progress.id,
        "total": progress.total,
        "pending": progress.pending,
        "revoked": progress
            .total
            .saturating_sub(progress.pending)
            .saturating_sub(progress.abandoned),
        "abandoned": progress.abandoned,
        "credentials_that_may_live": progress.may_live,
        "complete": progress.complete,
        "failures": progress.failures,
    })
}

async fn search(
    ctx: &SystemContext<'_>,
    request: &EngineRequest<'_>,
    selector: Selector,
) -> Result<Reply, CoreError> {
    let limit = request.fields.integer("limit")?.unwrap_or(SEARCH_MAX as u64);
    let limit = usize::try_from(limit).unwrap_or(SEARCH_MAX).clamp(1, SEARCH_MAX);
    let after = request
        .fields
        .text("after")?
        .filter(|text| !text.is_empty())
        .map(|text| {
            let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
            bytes
                .and_then(|bytes| <[u8; 16]>::try_from(bytes).ok())
                .map(crate::core::records::cursor)
                .ok_or_else(|| CoreError::field("after", "is not a cursor of this search"))
        })
        .transpose()?;
    let (found, next) = ctx.unsealed.leases.search(&selector, after, limit).await?;
    let now = ctx.core.clock.now();
    let leases: Vec<Value> = found.iter().map(|lease| lookup(lease, now)).collect();
    let next = next.map(|tag| data_encoding::HEXLOWER.encode(tag.as_bytes()));
    Ok(Reply::data(json!({ "lease_count": leases.len(), "leases": leases, "next": next })))
}

fn check_type(request: &EngineRequest<'_>) -> Result<bool, CoreError> {
    match request.fields.text("type")?.as_deref() {
        None | Some("") => Ok(false),
        Some("irrevocable" | "overdue") => Ok(true),
        Some(_) => Err(CoreError::field("type", "must be \"irrevocable\" or \"overdue\"")),
    }
}

async fn count(ctx: &SystemContext<'_>, request: &EngineRequest<'_>) -> Result<Reply, CoreError> {
    let leases = &ctx.unsealed.leases;
    let mut counts = serde_json::Map::new();
    let mut total = 0;
    let only_overdue = check_type(request)?;
    for mounted in ctx.unsealed.mounts.all() {
        let count = leases.count(&mounted.entry.accessor, only_overdue).await?;
        if count > 0 {
            total += count;
            counts.insert(mounted.entry.path.clone(), json!(count));
        }
    }
    Ok(Reply::data(json!({ "lease_count": total, "counts": counts })))
}

/// What became of an abandoned lease.
#[derive(Serialize)]
struct AbandonReport {
    lease_id: LeaseId,
    target: String,
    role: String,
    credential_may_live: bool,
    last_error: Option<String>,
}

fn decision(ctx: &SystemContext<'_>) -> GivenUp {
    GivenUp { by: ctx.caller.facts.display_name.clone(), request_id: ctx.request_id.clone() }
}

async fn abandon(ctx: &SystemContext<'_>, id: &LeaseId) -> Result<AbandonReport, CoreError> {
    let abandoned = ctx.unsealed.leases.abandon(id, &decision(ctx)).await?;
    Ok(AbandonReport {
        lease_id: abandoned.lease.id,
        target: abandoned.lease.target,
        role: abandoned.lease.role,
        credential_may_live: abandoned.last_error.is_some(),
        last_error: abandoned.last_error,
    })
}
