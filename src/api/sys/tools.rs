//! `sys/tools`.

use async_trait::async_trait;
use serde_json::json;

use crate::core::acl::permit::Permit;
use crate::core::context::{SystemContext, SystemRoutes};
use crate::core::engine::EngineRequest;
use crate::core::error::CoreError;
use crate::core::operation::Operation;
use crate::core::reply::Reply;
use crate::core::route::{Answer, FieldKind, FieldSpec, RouteSpec, field, route};
use crate::core::tools::{self, Encoding};
use crate::types::secret::SecretString;

/// The table.
pub struct ToolRoutes;

const FORMAT: FieldSpec = field("format", FieldKind::Text, "hex or base64.");
const RANDOM_FIELDS: &[FieldSpec] = &[
    field("bytes", FieldKind::Integer, "How many: 1 to 131072 (default 32)."),
    field("source", FieldKind::Text, "Where from: platform."),
    FORMAT,
];
const HASH_FIELDS: &[FieldSpec] = &[
    field("input", FieldKind::Secret, "What is hashed, in base64."),
    field("algorithm", FieldKind::Text, "sha2-224, sha2-256 (the default), sha2-384, sha2-512."),
    FORMAT,
];
const BYTES: Answer =
    Answer::Data(&[field("random_bytes", FieldKind::Secret, "The bytes, as `format` says.")]);
const SUM: Answer = Answer::Data(&[field("sum", FieldKind::Text, "The digest.")]);
const WRITE: &[Operation] = &[Operation::Update];

static ROUTES: &[RouteSpec] = &[
    route("random", "tools/random", "Random bytes.", WRITE, RANDOM_FIELDS).writes(BYTES),
    route(
        "random-some",
        "tools/random/:urlbytes",
        "So many random bytes, or those of one source.",
        WRITE,
        RANDOM_FIELDS,
    )
    .writes(BYTES),
    route(
        "random-source",
        "tools/random/:source/:urlbytes",
        "So many random bytes of one source.",
        WRITE,
        RANDOM_FIELDS,
    )
    .writes(BYTES),
    route("hash", "tools/hash", "The digest of what is sent.", WRITE, HASH_FIELDS).writes(SUM),
    route(
        "hash-by",
        "tools/hash/:urlalgorithm",
        "The digest of what is sent, by one algorithm.",
        WRITE,
        HASH_FIELDS,
    )
    .writes(SUM),
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
            hash(&request)
        } else {
            random(&request)
        }
    }
}

/// What the path says counts before what the body says.
fn random(request: &EngineRequest<'_>) -> Result<Reply, CoreError> {
    let (fields, path) = (&request.fields, request.params.get("urlbytes"));
    let mut source = Some(request.params.get("source").to_owned()).filter(|text| !text.is_empty());
    let mut count = None;
    match path.parse::<u64>() {
        Ok(number) => count = Some(number),
        Err(_) if path.is_empty() => {}
        Err(_) if source.is_none() => source = Some(path.to_owned()),
        Err(_) => return Err(CoreError::field("bytes", "must be a whole number")),
    }
    let source = match source {
        Some(source) => source,
        None => fields.text("source")?.unwrap_or_else(|| "platform".to_owned()),
    };
    let count = match count {
        Some(count) => count,
        None => fields.integer("bytes")?.unwrap_or(tools::RANDOM_BYTES_DEFAULT),
    };
    let format = fields.text("format")?.unwrap_or_else(|| "base64".to_owned());
    let bytes = tools::random(&source, count, Encoding::parse(&format)?)?;
    Ok(Reply::data(json!({ "random_bytes": bytes.expose() })))
}

fn hash(request: &EngineRequest<'_>) -> Result<Reply, CoreError> {
    let fields = &request.fields;
    let algorithm = match request.params.get("urlalgorithm") {
        "" => fields.text("algorithm")?.unwrap_or_else(|| "sha2-256".to_owned()),
        given => given.to_owned(),
    };
    let format = fields.text("format")?.unwrap_or_else(|| "hex".to_owned());
    let input = fields.secret("input")?.unwrap_or_else(|| SecretString::new(String::new()));
    let sum = tools::hash(&algorithm, &input, Encoding::parse(&format)?)?;
    Ok(Reply::data(json!({ "sum": sum })))
}
