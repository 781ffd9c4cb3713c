//! `sys/wrapping/*`: wrap, look up, unwrap, rewrap.

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::core::acl::permit::Permit;
use crate::core::context::{SystemContext, SystemRoutes};
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::guess::Guesser;
use crate::core::operation::Operation;
use crate::core::reply::{Reply, Shape};
use crate::core::route::{Answer, FieldKind, FieldSpec, RouteSpec, field, route};
use crate::core::wrap;
use crate::types::secret::SecretString;

/// The table.
pub struct WrappingRoutes;

const WRITE: &[Operation] = &[Operation::Update];
const READ_WRITE: &[Operation] = &[Operation::Read, Operation::Update];
const TOKEN: &[FieldSpec] = &[field("token", FieldKind::Secret, "The wrapping token.")];

static ROUTES: &[RouteSpec] = &[
    route(
        "wrap",
        "wrapping/wrap",
        "Wrap what is sent, for the lifetime in the X-Vault-Wrap-TTL header.",
        WRITE,
        &[field("*", FieldKind::Any, "Anything.")],
    )
    .writes(Answer::Wrapped),
    // The token itself is the credential for these.
    route("lookup", "wrapping/lookup", "What is known of a wrapped answer.", READ_WRITE, TOKEN)
        .public()
        .reads(FACTS)
        .writes(FACTS),
    route("unwrap", "wrapping/unwrap", "The wrapped answer; works once.", WRITE, TOKEN)
        .public()
        .writes(Answer::Unwrapped),
    route(
        "rewrap",
        "wrapping/rewrap",
        "The same answer behind a new token, for its first lifetime again.",
        WRITE,
        TOKEN,
    )
    .public()
    .writes(Answer::Wrapped),
];

const FACTS: Answer = Answer::Data(&[
    field("creation_path", FieldKind::Text, "The path of the request that it answers."),
    field("creation_time", FieldKind::Time, "When it was wrapped."),
    field("creation_ttl", FieldKind::Duration, "How long it can be unwrapped, from then on."),
]);

#[async_trait]
impl SystemRoutes for WrappingRoutes {
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
        if request.route.name == "wrap" {
            if ctx.wrap_ttl.is_none() {
                return Err(CoreError::field("X-Vault-Wrap-TTL", "is required"));
            }
            // The pipeline wraps the answer, as it does every other.
            let data = Value::Object(request.fields.into_map());
            return Ok(Reply::data(data).shaped(Shape::EnvelopeAndTop));
        }
        let given = request.fields.secret("token")?;
        let token = presented(ctx, given.as_ref())?;
        // Whoever names it in the body can come as somebody by the header.
        let own = given.as_ref().and(ctx.token).map(SecretString::expose);
        let guesser = Guesser::of(ctx.core, ctx.unsealed, own, ctx.connection).await?;
        match request.route.name {
            "lookup" => {
                let facts = wrap::lookup(ctx.unsealed, &guesser, token.expose()).await?;
                Ok(Reply::data(json!({
                    "creation_path": facts.creation_path,
                    "creation_time": facts.created_at.to_rfc3339(),
                    "creation_ttl": facts.ttl.as_secs(),
                })))
            }
            "unwrap" => Ok(wrap::unwrap(ctx.unsealed, &guesser, token.expose()).await?.0),
            _ => {
                let (reply, facts) = wrap::unwrap(ctx.unsealed, &guesser, token.expose()).await?;
                wrap::wrap(ctx.unsealed, reply, facts.ttl, &facts.creation_path).await
            }
        }
    }
}

/// The wrapping token: from the body when there is one, else from the header.
fn presented<'a>(
    ctx: &'a SystemContext<'_>,
    given: Option<&'a SecretString>,
) -> Result<&'a SecretString, CoreError> {
    given.or(ctx.token).ok_or_else(|| CoreError::field("token", "is required"))
}
