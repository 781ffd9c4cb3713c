//! `sys/metrics`: Prometheus text.

use async_trait::async_trait;

use crate::core::acl::permit::Permit;
use crate::core::context::{SystemContext, SystemRoutes};
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::fields::FieldError;
use crate::core::operation::Operation;
use crate::core::reply::{Reply, Shape};
use crate::core::route::{Access, Answer, FieldKind, FieldSpec, RouteSpec, field, route};

/// Renders the present values.
pub type Render = Box<dyn Fn() -> String + Send + Sync>;

/// The table.
pub struct MetricsRoutes {
    render: Render,
    routes: &'static [RouteSpec],
}

impl MetricsRoutes {
    /// A table that answers what `render` renders: to callers who may, or to anybody.
    pub fn new(render: Render, access: Access) -> Self {
        let public = access == Access::Public;
        Self { render, routes: if public { PUBLIC_ROUTES } else { ROUTES } }
    }
}

static ROUTES: &[RouteSpec] = &[METRICS];
static PUBLIC_ROUTES: &[RouteSpec] = &[METRICS.public()];

const METRICS: RouteSpec = route(
    "metrics",
    "metrics",
    "Metrics in the Prometheus text format.",
    &[Operation::Read],
    FIELDS,
)
.reads(Answer::Raw(CONTENT_TYPE));

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const FIELDS: &[FieldSpec] =
    &[field("format", FieldKind::Text, "Only `prometheus`, which is the default.")];

#[async_trait]
impl SystemRoutes for MetricsRoutes {
    fn prefix(&self) -> &'static str {
        "sys/"
    }

    fn routes(&self) -> &'static [RouteSpec] {
        self.routes
    }

    async fn handle(
        &self,
        _ctx: &SystemContext<'_>,
        _permit: &Permit,
        request: EngineRequest<'_>,
    ) -> Result<Reply, CoreError> {
        match request.fields.text("format")?.as_deref() {
            None | Some("" | "prometheus") => {}
            Some(_) => return Err(FieldError::new("format", "must be \"prometheus\"").into()),
        }
        let body = (self.render)().into_bytes();
        Ok(Reply::empty().shaped(Shape::Raw { content_type: CONTENT_TYPE, body }))
    }
}
