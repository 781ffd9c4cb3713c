//! `sys/locked-users`: who is locked after failed log-ins, wrong codes of a second factor, wrong wrapping
//! tokens or wrong unseal shares, and unlocking.

use async_trait::async_trait;
use serde_json::json;

use crate::core::acl::permit::Permit;
use crate::core::context::{SystemContext, SystemRoutes};
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::guess;
use crate::core::operation::Operation;
use crate::core::reply::Reply;
use crate::core::route::{Answer, FieldKind, FieldSpec, RouteSpec, field, route};
use crate::types::id::{EntityId, MountAccessor};

/// The table.
pub struct LockoutRoutes;

static ROUTES: &[RouteSpec] = &[
    route(
        "locked-users",
        "locked-users",
        "Who is locked: after failed log-ins on this node, after wrong codes on all.",
        &[Operation::Read],
        &[field(
            "mount_accessor",
            FieldKind::Text,
            "Only those of this auth mount or MFA method; or wrapping, or unseal for wrong shares.",
        )],
    )
    .reads(Answer::Data(&[
        field("by_namespace", FieldKind::Objects(NAMESPACE), "Those of the one namespace."),
        field("total", FieldKind::Integer, "How many are locked."),
    ])),
    route(
        "unlock-user",
        "locked-users/:mount_accessor/unlock/*alias_identifier",
        "Forget the failed log-ins of a name, its wrong tokens or shares, or an entity's wrong codes.",
        &[Operation::Update],
        &[],
    ),
];

const NAMESPACE: &[FieldSpec] = &[
    field("counts", FieldKind::Integer, "How many are locked."),
    field(
        "mount_accessors",
        FieldKind::Objects(&[
            field("alias_identifiers", FieldKind::List, "Who is locked."),
            field("counts", FieldKind::Integer, "How many."),
            field(
                "mount_accessor",
                FieldKind::Text,
                "The auth mount or MFA method; or wrapping, or unseal.",
            ),
        ]),
        "By auth mount, and by MFA method.",
    ),
    field("namespace_id", FieldKind::Text, "root."),
    field("namespace_path", FieldKind::Text, "Always empty."),
];

#[async_trait]
impl SystemRoutes for LockoutRoutes {
    fn prefix(&self) -> &'static str {
        "sys/"
    }

    fn routes(&self) -> &'static [RouteSpec] {
        ROUTES
    }

    async fn handle(
        &self,
        ctx: &SystemContext<'_>,
        _permit: &Permit,
        request: EngineRequest<'_>,
    ) -> Result<Reply, CoreError> {
        let (lockouts, mfa) = (&ctx.unsealed.lockouts, &ctx.unsealed.mfa);
        if request.route.name == "unlock-user" {
            let accessor = request.params.get("mount_accessor");
            let name = request.params.get("alias_identifier");
            if accessor == guess::WRAPPING.scope {
                ctx.unsealed.guesses.unlock(name);
            } else if accessor == guess::SHARES.scope {
                ctx.core.share_guesses.unlock(name);
            } else if mfa.settings().await?.methods.contains_key(accessor) {
                mfa.unlock(&EntityId::new(name), accessor).await?;
            } else {
                lockouts.unlock(&MountAccessor::new(accessor), name);
            }
            return Ok(Reply::empty());
        }
        let only = request.fields.text("mount_accessor")?.filter(|only| !only.is_empty());
        let asked = |accessor: &str| only.as_ref().is_none_or(|only| only == accessor);
        let mut locked = lockouts.locked(|mount| {
            let mounted = ctx.unsealed.mounts.by_accessor(mount)?;
            asked(mount.as_str()).then_some(mounted.entry.config.user_lockout_config)
        });
        let second = mfa.locked().await?;
        locked.extend(second.into_iter().filter(|(method, _)| asked(method)));
        let guesses = [
            (guess::WRAPPING.scope, ctx.unsealed.guesses.waiting()),
            (guess::SHARES.scope, ctx.core.share_guesses.waiting()),
        ];
        for (scope, guessers) in guesses {
            if !guessers.is_empty() && asked(scope) {
                locked.insert(scope.to_owned(), guessers);
            }
        }
        let total: usize = locked.values().map(Vec::len).sum();
        let mounts: Vec<_> = locked
            .iter()
            .map(|(mount, names)| {
                json!({
                    "mount_accessor": mount,
                    "counts": names.len(),
                    "alias_identifiers": names,
                })
            })
            .collect();
        let namespace = json!({
            "namespace_id": "root",
            "namespace_path": "",
            "counts": total,
            "mount_accessors": mounts,
        });
        let namespaces = if total == 0 { Vec::new() } else { vec![namespace] };
        Ok(Reply::data(json!({ "by_namespace": namespaces, "total": total })))
    }
}
