//! Version 1: one value for each path, the last write wins.
//!
//! | path | what |
//! |---|---|
//! | `:path` | the secret; `LIST` for what is below |
//!
//! A field `ttl` (or `lease`) of the secret says how long clients may keep what they read. It is
//! answered as `lease_duration`; there is no lease.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::{Version, secret_path};
use crate::core::acl::permit::Permit;
use crate::core::engine::{Engine, EngineContext, EngineRequest, Outcome};
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::operation::Operation::{Create, Delete, List, Patch, Read, Update};
use crate::core::records::Precondition;
use crate::core::reply::Reply;
use crate::core::route::{Answer, FieldKind, Params, RouteSpec, field, route};
use crate::types::time::Ttl;

const ROUTES: &[RouteSpec] = &[route(
    "secret",
    "*path",
    "Store, read, list and delete secrets.",
    &[Create, Read, Update, Delete, List],
    &[field("*", FieldKind::Any, "What to store.")],
)
.reads(Answer::Data(&[field("*", FieldKind::Any, "What is stored.").or_null()]))];

/// The engine of one mount. It has no state beside the store.
pub(super) struct PlainKv;

fn record_name(path: &str) -> String {
    format!("plain/{path}")
}

async fn read(ctx: &EngineContext<'_>, path: &str) -> Result<Reply, CoreError> {
    let entry = ctx.view.get::<Map<String, Value>>(&record_name(path)).await?;
    let data = entry.ok_or(CoreError::NotFound)?.value;
    let refresh_after = kept_for(&data).unwrap_or(ctx.mount.default_ttl);
    Ok(Reply { data: Some(data), refresh_after, ..Reply::default() })
}

/// How long the secret itself says it may be kept.
fn kept_for(data: &Map<String, Value>) -> Option<Ttl> {
    let said = data.get("ttl").or_else(|| data.get("lease"))?;
    Ttl::from_json(said).ok().filter(|ttl| !ttl.is_zero())
}

async fn write(ctx: &EngineContext<'_>, path: &str, fields: Fields) -> Result<Reply, CoreError> {
    let data = fields.into_map();
    if data.is_empty() {
        return Err(CoreError::invalid("missing data fields"));
    }
    ctx.view.write(&record_name(path), &data, Precondition::Any).await?;
    Ok(Reply::empty())
}

#[async_trait]
impl Engine for PlainKv {
    fn routes(&self) -> &'static [RouteSpec] {
        ROUTES
    }

    fn accept_options(&self, options: &BTreeMap<String, String>) -> Result<(), CoreError> {
        Version::One.refuse_change(options)
    }

    async fn exists(
        &self,
        ctx: &EngineContext<'_>,
        _route: &'static RouteSpec,
        params: &Params<'_>,
    ) -> Result<Option<bool>, CoreError> {
        // A path that names no secret is refused by `handle`, once it is known who asks.
        let Ok(path) = secret_path(params) else { return Ok(None) };
        Ok(Some(ctx.view.get_record(&record_name(path)).await?.is_some()))
    }

    async fn handle(
        &self,
        ctx: &EngineContext<'_>,
        _permit: &Permit,
        request: EngineRequest<'_>,
    ) -> Result<Outcome, CoreError> {
        if request.operation == List {
            let names = ctx.view.list(&record_name(request.params.get("path"))).await?;
            return Ok(Reply::listing(names)?.into());
        }
        let path = secret_path(&request.params)?;
        let reply = match request.operation {
            Read => read(ctx, path).await?,
            Create | Update => write(ctx, path, request.fields).await?,
            Delete => {
                ctx.view.remove(&record_name(path)).await?;
                Reply::empty()
            }
            List | Patch => return Err(CoreError::Unsupported),
        };
        Ok(reply.into())
    }
}
