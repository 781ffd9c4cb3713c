//! `sys/tools`.

use async_trait::async_trait;

use crate::core::acl::permit::Permit;
use crate::core::context::{SystemContext, SystemRoutes};
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::operation::Operation;
use crate::core::reply::Reply;
use crate::core::route::{RouteSpec, route};
use crate::core::tools::{self, HASH_ANSWER, HASH_FIELDS, RANDOM_ANSWER, RANDOM_FIELDS};

/// The table.
pub struct ToolRoutes;

const WRITE: &[Operation] = &[Operation::Update];

static ROUTES: &[RouteSpec] = &[
    route("random", "tools/random", "Random bytes.", WRITE, RANDOM_FIELDS).writes(RANDOM_ANSWER),
    route(
        "random-some",
        "tools/random/:urlbytes",
        "So many random bytes, or those of one source.",
        WRITE,
        RANDOM_FIELDS,
    )
    .writes(RANDOM_ANSWER),
    route(
        "random-source",
        "tools/random/:source/:urlbytes",
        "So many random bytes of one source.",
        WRITE,
        RANDOM_FIELDS,
    )
    .writes(RANDOM_ANSWER),
    route("hash", "tools/hash", "The digest of what is sent.", WRITE, HASH_FIELDS)
        .writes(HASH_ANSWER),
    route(
        "hash-by",
        "tools/hash/:urlalgorithm",
        "The digest of what is sent, by one algorithm.",
        WRITE,
        HASH_FIELDS,
    )
    .writes(HASH_ANSWER),
];

#[async_trait]
impl SystemRoutes for ToolRoutes {
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
        if request.route.pattern.starts_with("tools/hash") {
            tools::answer_hash(&request)
        } else {
            tools::answer_random(&request)
        }
    }
}
