//! A private place for each caller: what one token stores here no other sees, not even root.
//!
//! | path | what |
//! |---|---|
//! | `:path` | the secret; `LIST` for what is below |
//!
//! It goes with the token. Callers without a token store by their certificate identity. Nothing is
//! leased.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};

use crate::core::acl::permit::Permit;
use crate::core::engine::{CallerFacts, Engine, EngineContext, EngineRequest, MountFacts, Outcome};
use crate::core::error::CoreError;
use crate::core::operation::Operation::{Create, Delete, List, Patch, Read, Update};
use crate::core::records::{Batch, Precondition};
use crate::core::reply::Reply;
use crate::core::route::{Answer, FieldKind, RouteSpec, field, route};
use crate::core::view::PutOptions;

const ROUTES: &[RouteSpec] = &[route(
    "private-secret",
    "*path",
    "Store, read, list and delete secrets that nobody else sees.",
    &[Create, Read, Update, Delete, List],
    &[field("*", FieldKind::Any, "What to store.")],
)
.reads(Answer::Data(&[field("*", FieldKind::Any, "What is stored.").or_null()]))];

/// Makes the engine: the builder for the registry.
///
/// # Errors
/// None: it takes no options.
pub fn build(_facts: &MountFacts) -> Result<Arc<dyn Engine>, CoreError> {
    Ok(Arc::new(Cubbyhole))
}

struct Cubbyhole;

/// The directory of one caller. A key that could lead elsewhere has none.
fn directory(private_key: &str) -> Result<String, CoreError> {
    if private_key.is_empty() || private_key.contains('/') {
        return Err(CoreError::internal("a caller's private key is no name"));
    }
    Ok(format!("{private_key}/"))
}

/// The directory of who asks, if it will be removed some day.
fn own_directory(caller: &CallerFacts) -> Result<String, CoreError> {
    if !caller.end_is_told {
        return Err(CoreError::invalid(
            "batch tokens have no cubbyhole: ask with a service token or a certificate",
        ));
    }
    directory(&caller.private_key)
}

async fn list(ctx: &EngineContext<'_>, dir: &str) -> Result<Reply, CoreError> {
    Reply::listing(ctx.view.list(dir).await?)
}

async fn read(ctx: &EngineContext<'_>, name: &str) -> Result<Reply, CoreError> {
    let entry = ctx.view.get::<Map<String, Value>>(name).await?.ok_or(CoreError::NotFound)?;
    Ok(Reply { data: Some(entry.value), ..Reply::default() })
}

async fn write(
    ctx: &EngineContext<'_>,
    caller: &CallerFacts,
    name: &str,
    data: &Map<String, Value>,
) -> Result<Reply, CoreError> {
    if data.is_empty() {
        return Err(CoreError::invalid("missing data fields"));
    }
    let mut batch = Batch::new();
    ctx.view.put(&mut batch, name, data, Precondition::Any, PutOptions::default())?;
    // Otherwise a write that the token's end overtakes would stay behind for ever.
    if let Some(row) = caller.row {
        batch.only_for(row);
    }
    match ctx.view.commit(&batch).await {
        Err(error) if error.is_conflict() && caller.row.is_some() => {
            Err(CoreError::denied("the token was revoked meanwhile"))
        }
        other => other.map(|()| Reply::empty()),
    }
}

#[async_trait]
impl Engine for Cubbyhole {
    fn routes(&self) -> &'static [RouteSpec] {
        ROUTES
    }

    async fn handle(
        &self,
        ctx: &EngineContext<'_>,
        _permit: &Permit,
        request: EngineRequest<'_>,
    ) -> Result<Outcome, CoreError> {
        let path = request.params.get("path");
        let name = own_directory(request.caller)? + path;
        let names_secret = !path.is_empty() && !path.ends_with('/');
        let reply = match request.operation {
            List => list(ctx, &name).await?,
            Create | Update | Read | Delete if !names_secret => {
                return Err(CoreError::invalid("the path names no secret"));
            }
            Create | Update => write(ctx, request.caller, &name, request.fields.as_map()).await?,
            Read => read(ctx, &name).await?,
            Delete => {
                ctx.view.remove(&name).await?;
                Reply::empty()
            }
            Patch => return Err(CoreError::Unsupported),
        };
        Ok(reply.into())
    }

    async fn caller_gone(
        &self,
        ctx: &EngineContext<'_>,
        private_key: &str,
    ) -> Result<(), CoreError> {
        ctx.view.remove_tree(&directory(private_key)?).await
    }
}
