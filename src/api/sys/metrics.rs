//! `sys/metrics`: Prometheus text.

use async_trait::async_trait;

use crate::core::acl::permit::Permit;
use crate::core::context::{SystemContext, SystemRoutes};
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::fields::FieldError;
use crate::core::operation::Operation;
use crate::core::reply::{Reply, Shape};
use crate::core::route::{Access, FieldKind, RouteSpec, field};

/// Renders the present values.
pub type Render = Box<dyn Fn() -> String + Send + Sync>;

/// The table.
pub struct MetricsRoutes {
    render: Render,
}

impl MetricsRoutes {
    /// A table that answers what `render` renders.
    pub fn new(render: Render) -> Self {
        Self { render }
    }
}

static ROUTES: &[RouteSpec] = &[RouteSpec {
    name: "metrics",
    pattern: "metrics",
    summary: "Metrics in the Prometheus text format.",
    access: Access::Caller,
    operations: &[Operation::Read],
    fields: &[field("format", FieldKind::Text, "Only `prometheus`, which is the default.")],
}];

#[async_trait]
impl SystemRoutes for MetricsRoutes {
    fn prefix(&self) -> &'static str {
        "sys/"
    }

    fn routes(&self) -> &'static [RouteSpec] {
        ROUTES
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
        let content_type = "text/plain; version=0.0.4; charset=utf-8";
        Ok(Reply::empty().shaped(Shape::Raw { content_type, body }))
    }
}
