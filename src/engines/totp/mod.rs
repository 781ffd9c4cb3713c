//! One-time passwords by time (TOTP, RFC 6238).
//!
//! | path | what |
//! |---|---|
//! | `keys/:name` | a shared secret: made here, or taken over from an `otpauth` address or in base32 |
//! | `keys/:name/unlock` | let codes of a key be checked again after too many wrong ones |
//! | `code/:name` | read: the present code; write: whether a code counts |
//!
//! A mount can be the app (it gives the codes of secrets that other services made), the service (it
//! makes secrets and checks codes), or both. Nothing is leased. A secret is shown once, when it is
//! made and `exported`, and never again.
//!
//! A code counts once, on all nodes: accepting one is a conditional write of its time step, and that
//! step and all before it are refused from then on. Wrong codes are counted in the same record, so
//! that neither restarts nor further nodes give more guesses: after five in a row each further one
//! has to wait, twice as long each time, up to a quarter of an hour.

mod code;
mod key;
mod routes;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;

use crate::core::acl::permit::Permit;
use crate::core::engine::{Engine, EngineContext, EngineRequest, MountFacts, Outcome};
use crate::core::error::CoreError;
use crate::core::operation::Operation::{Create, Delete, List, Read, Update};
use crate::core::reply::Reply;
use crate::core::route::{Params, RouteSpec};

/// Makes the engine of a mount: the builder for the registry.
///
/// # Errors
/// None: it takes no options.
pub fn build(_facts: &MountFacts) -> Result<Arc<dyn Engine>, CoreError> {
    Ok(Arc::new(TotpEngine))
}

/// The engine of one mount. It has no state beside the store.
struct TotpEngine;

#[async_trait]
impl Engine for TotpEngine {
    fn routes(&self) -> &'static [RouteSpec] {
        routes::ROUTES
    }

    async fn exists(
        &self,
        ctx: &EngineContext<'_>,
        route: &'static RouteSpec,
        params: &Params<'_>,
    ) -> Result<Option<bool>, CoreError> {
        if route.name != routes::KEY {
            return Ok(None);
        }
        let record = ctx.view.get_record(&key::record_name(params.get("name"))).await?;
        Ok(Some(record.is_some()))
    }

    async fn handle(
        &self,
        ctx: &EngineContext<'_>,
        _permit: &Permit,
        request: EngineRequest<'_>,
    ) -> Result<Outcome, CoreError> {
        let name = request.params.get("name");
        let reply = match (request.route.name, request.operation) {
            (routes::KEYS, List) => Reply::listing(ctx.view.list(key::DIRECTORY).await?),
            (routes::KEY, Create | Update) => key::write(ctx, name, &request.fields).await,
            (routes::KEY, Read) => key::read(ctx, name).await,
            (routes::KEY, Delete) => key::remove(ctx, name).await,
            (routes::UNLOCK, Create | Update) => code::unlock(ctx, name).await,
            (routes::CODE, Read) => code::read(ctx, name).await,
            (routes::CODE, Create | Update) => code::check(ctx, name, &request.fields).await,
            (_, _) => Err(CoreError::Unsupported),
        };
        reply.map(Outcome::from)
    }
}
