//! Logging in to machines: certificates signed here, and passwords that work once.
//!
//! | path | what |
//! |---|---|
//! | `config/ca`, `public_key` | the key that certificates are signed with, and its public half |
//! | `roles/:name` | who may get which certificate, or a password for which machines |
//! | `sign/:role`, `issue/:role` | a certificate for a key of the caller's, or for a new one |
//! | `creds/:role` | a password for one user on one machine, under a lease |
//! | `verify` | whether a password is one of those; used up by that |
//! | `lookup` | which roles give passwords for a machine |
//! | `config/zeroaddress` | which roles give passwords for any machine |
//! | `krl` | the certificates that are revoked, as `sshd` reads it |
//! | `revoke`, `unrevoke`, `revoked` | put them on that list and off it, and show it |
//!
//! A certificate that was given is taken back only where servers read the list of those that were
//! (see [`revoked`]). So it is short: it ends no later than the token or certificate it was asked for
//! with. It always names its principals, because OpenSSH takes one that names none
//! for anybody, and whatever a role does not name is refused.
//!
//! A lease of a password means that `verify` still accepts it. Only its digest is stored. It goes with
//! its first use, or with the lease.

mod allowed;
mod ca;
mod otp;
mod revoked;
mod role;
mod routes;
mod sign;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::{Map, Value};

use crate::core::acl::permit::Permit;
use crate::core::engine::{
    Engine, EngineContext, EngineRequest, IssueError, LeaseFacts, MountFacts, Outcome,
};
use crate::core::error::CoreError;
use crate::core::operation::Operation::{Create, Delete, List, Read, Update};
use crate::core::route::{Params, RouteSpec};
use crate::core::work::WorkQueue;

/// Makes the engine of a mount: the builder for the registry.
///
/// # Errors
/// None: it takes no options.
pub fn build(_facts: &MountFacts) -> Result<Arc<dyn Engine>, CoreError> {
    Ok(Arc::new(SshEngine::default()))
}

/// Most keys being made at once, and most that sign: a new RSA key takes a processor for seconds.
const RUNNING_MAX: usize = 2;
/// Most of either that wait for their turn, or run.
const WAITING_MAX: usize = 64;

/// The engine of one mount.
struct SshEngine {
    /// Two queues, so that who has large keys made does not hold up who has keys signed.
    making: WorkQueue,
    signing: WorkQueue,
    revoked: Mutex<revoked::Remembered>,
}

impl Default for SshEngine {
    fn default() -> Self {
        let queue = || WorkQueue::new(RUNNING_MAX, WAITING_MAX);
        Self { making: queue(), signing: queue(), revoked: Mutex::default() }
    }
}

#[async_trait]
impl Engine for SshEngine {
    fn routes(&self) -> &'static [RouteSpec] {
        routes::ROUTES
    }

    async fn exists(
        &self,
        ctx: &EngineContext<'_>,
        route: &'static RouteSpec,
        params: &Params<'_>,
    ) -> Result<Option<bool>, CoreError> {
        if route.name != routes::ROLE {
            return Ok(None);
        }
        let record = ctx.view.get_record(&role::record_name(params.get("name"))).await?;
        Ok(Some(record.is_some()))
    }

    async fn handle(
        &self,
        ctx: &EngineContext<'_>,
        _permit: &Permit,
        request: EngineRequest<'_>,
    ) -> Result<Outcome, CoreError> {
        let EngineRequest { operation, route, params, fields, caller, .. } = request;
        let (name, fields) = (params.get("name"), &fields);
        let reply = match (route.name, operation) {
            (routes::CA, Create | Update) => self.write_ca(ctx, fields).await,
            (routes::CA, Read) => ca::read(ctx).await,
            (routes::CA, Delete) => ca::remove(ctx).await,
            (routes::PUBLIC_KEY, Read) => ca::public_key(ctx).await,
            (routes::ROLES, List) => role::list(ctx).await,
            (routes::ROLE, Create | Update) => role::write(ctx, name, fields).await,
            (routes::ROLE, Read) => role::read(ctx, name).await,
            (routes::ROLE, Delete) => role::remove(ctx, name).await,
            (routes::SIGN, Create | Update) => self.sign(ctx, name, caller, fields).await,
            (routes::ISSUE, Create | Update) => self.issue_pair(ctx, name, caller, fields).await,
            (routes::CREDENTIALS, Create | Update) => {
                return otp::plan(ctx, name, caller, fields).await;
            }
            (routes::VERIFY, Create | Update) => otp::verify(ctx, fields).await,
            (routes::LOOKUP, Create | Update) => otp::lookup(ctx, fields).await,
            (routes::ZERO_ADDRESS, Create | Update) => otp::write_zero_address(ctx, fields).await,
            (routes::ZERO_ADDRESS, Read) => otp::read_zero_address(ctx).await,
            (routes::ZERO_ADDRESS, Delete) => otp::remove_zero_address(ctx).await,
            (routes::REVOCATION_LIST, Read) => self.revocation_list(ctx).await,
            (routes::REVOKED, Read) => self.read_revoked(ctx).await,
            (routes::REVOKE, Create | Update) => revoked::revoke(ctx, fields).await,
            (routes::UNREVOKE, Create | Update) => revoked::unrevoke(ctx, fields).await,
            (_, _) => Err(CoreError::Unsupported),
        };
        reply.map(Outcome::from)
    }

    async fn issue(
        &self,
        ctx: &EngineContext<'_>,
        lease: LeaseFacts<'_>,
    ) -> Result<Map<String, Value>, IssueError> {
        otp::issue(ctx, lease).await
    }

    async fn revoke(
        &self,
        ctx: &EngineContext<'_>,
        lease: LeaseFacts<'_>,
    ) -> Result<(), CoreError> {
        otp::revoke(ctx, lease).await
    }

    fn invalidate(&self) {
        *self.revoked.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
