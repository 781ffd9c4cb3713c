//! `sys/config/cors`: which web pages of other origins may talk to the server.

use async_trait::async_trait;
use serde_json::json;

use crate::core::acl::permit::Permit;
use crate::core::context::{SystemContext, SystemRoutes};
use crate::core::cors::CorsSettings;
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::operation::Operation;
use crate::core::reply::{Reply, Shape};
use crate::core::route::{Answer, FieldKind, FieldSpec, RouteSpec, field, route};

/// The table.
pub struct CorsRoutes;

const FIELDS: &[FieldSpec] = &[
    field("enabled", FieldKind::Boolean, "Whether any may; true when it is left out."),
    field("allowed_origins", FieldKind::List, "`https://host:port`, or `*` for all with a token."),
    field("allowed_headers", FieldKind::List, "Request headers beside the usual ones."),
];

static ROUTES: &[RouteSpec] = &[route(
    "config-cors",
    "config/cors",
    "Which web pages of other origins may ask.",
    &[Operation::Delete, Operation::Read, Operation::Update],
    FIELDS,
)
.sudo()
.reads(Answer::Top(FIELDS))];

#[async_trait]
impl SystemRoutes for CorsRoutes {
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
        let (cors, fields) = (&ctx.unsealed.cors, &request.fields);
        match request.operation {
            Operation::Read | Operation::List => {
                let settings = cors.current();
                Ok(Reply::data(json!({
                    "enabled": settings.enabled,
                    "allowed_origins": settings.allowed_origins,
                    "allowed_headers": settings.allowed_headers,
                }))
                .shaped(Shape::EnvelopeAndTop))
            }
            Operation::Delete => {
                cors.remove().await?;
                Ok(Reply::empty())
            }
            Operation::Create | Operation::Patch | Operation::Update => {
                let settings = CorsSettings {
                    enabled: fields.boolean("enabled")?.unwrap_or(true),
                    allowed_origins: fields.list("allowed_origins")?.unwrap_or_default(),
                    allowed_headers: fields.list("allowed_headers")?.unwrap_or_default(),
                };
                cors.set(settings.checked()?).await?;
                Ok(Reply::empty())
            }
        }
    }
}
