//! Database users on lease.
//!
//! | path | what |
//! |---|---|
//! | `config/:name` | how to reach a database, and as whom |
//! | `rotate-root/:name` | a new password for that user, which nobody has seen |
//! | `reset/:name` | close the connections and open new ones |
//! | `roles/:name` | what kind of user is made on request |
//! | `creds/:name` | a new user, under a lease |
//! | `static-roles/:name` | an existing user whose password is kept and rotated |
//! | `static-creds/:name` | its present password |
//! | `rotate-role/:name` | rotate it now |
//!
//! A lease means that the user exists. Its name is chosen and durable before the database hears of
//! it; the database itself refuses its logins a few seconds after the lease ends; revoking it ends
//! its login, its live sessions and then the user, whatever it owned. Passwords reach the database
//! as SCRAM verifiers only.
//!
//! While a hold is in force nothing that exists is changed or ended: no rotation, no revocation, no
//! trial. Users are still made and prolonged, and a known password is told.
//!
//! What the broker's own user needs is said with each kind of database: see [`postgres`].

mod config;
mod creds;
pub mod driver;
pub mod password;
pub mod postgres;
mod role;
mod rotate;
mod routes;
mod schedule;
mod sql;
pub mod statement;
mod static_role;
mod target;
pub mod username;

use std::collections::HashMap;
use std::sync::Mutex;

use async_trait::async_trait;
use serde_json::{Map, Value};

use self::target::Cached;
use crate::core::acl::permit::Permit;
use crate::core::engine::{Engine, EngineContext, EngineRequest, IssueError, LeaseFacts, Outcome};
use crate::core::error::CoreError;
use crate::core::operation::Operation;
use crate::core::reply::Reply;
use crate::core::route::{Params, RouteSpec};
use crate::types::time::Timestamp;

/// What it connects to, as `plugin_name` says it.
pub const PLUGINS: &[&str] = config::PLUGINS;

/// The engine of one mount.
#[derive(Default)]
pub struct DatabaseEngine {
    drivers: Mutex<HashMap<String, Cached>>,
}

impl DatabaseEngine {
    /// An engine without open connections.
    pub fn new() -> Self {
        Self::default()
    }
}

async fn list(ctx: &EngineContext<'_>, dir: &str) -> Result<Reply, CoreError> {
    Reply::listing(ctx.view.list(dir).await?)
}

async fn remove(ctx: &EngineContext<'_>, record: &str) -> Result<Reply, CoreError> {
    ctx.view.remove(record).await?;
    Ok(Reply::empty())
}

/// The record that a route is about, when it is about one that is written.
fn record_of(route: &RouteSpec, name: &str) -> Option<String> {
    match route.name {
        routes::CONFIG => Some(config::record_name(name)),
        routes::ROLE => Some(role::record_name(name)),
        routes::STATIC_ROLE => Some(static_role::record_name(name)),
        _ => None,
    }
}

#[async_trait]
impl Engine for DatabaseEngine {
    fn routes(&self) -> &'static [RouteSpec] {
        routes::ROUTES
    }

    async fn exists(
        &self,
        ctx: &EngineContext<'_>,
        route: &'static RouteSpec,
        params: &Params<'_>,
    ) -> Result<Option<bool>, CoreError> {
        match record_of(route, params.get("name")) {
            Some(record) => Ok(Some(ctx.view.get_record(&record).await?.is_some())),
            None => Ok(None),
        }
    }

    async fn handle(
        &self,
        ctx: &EngineContext<'_>,
        _permit: &Permit,
        request: EngineRequest<'_>,
    ) -> Result<Outcome, CoreError> {
        use Operation::{Create, Delete, List, Read, Update};
        let name = request.params.get("name");
        let fields = &request.fields;
        let reply = match (request.route.name, request.operation) {
            (routes::CONFIGS, List) => list(ctx, "config/").await,
            (routes::CONFIG, Create | Update) => self.write_config(ctx, name, fields).await,
            (routes::CONFIG, Read) => self.read_config(ctx, name).await,
            (routes::CONFIG, Delete) => self.delete_config(ctx, name).await,
            (routes::RESET, Create | Update) => self.reset(ctx, name).await,
            (routes::ROTATE_ROOT, Create | Update) => self.rotate_root(ctx, name).await,
            (routes::ROLES, List) => list(ctx, "roles/").await,
            (routes::ROLE, Create | Update) => self.write_role(ctx, name, fields).await,
            (routes::ROLE, Read) => self.read_role(ctx, name).await,
            (routes::ROLE, Delete) => remove(ctx, &role::record_name(name)).await,
            (routes::CREDS, Read) => return self.plan(ctx, name, request.caller).await,
            (routes::STATIC_ROLES, List) => list(ctx, "static-roles/").await,
            (routes::STATIC_ROLE, Create | Update) => {
                self.write_static_role(ctx, name, fields).await
            }
            (routes::STATIC_ROLE, Read) => self.read_static_role(ctx, name).await,
            (routes::STATIC_ROLE, Delete) => remove(ctx, &static_role::record_name(name)).await,
            (routes::STATIC_CREDS, Read) => self.static_creds(ctx, name).await,
            (routes::ROTATE_ROLE, Create | Update) => self.rotate_role(ctx, name).await,
            (_, _) => Err(CoreError::Unsupported),
        };
        reply.map(Outcome::from)
    }

    async fn issue(
        &self,
        ctx: &EngineContext<'_>,
        lease: LeaseFacts<'_>,
    ) -> Result<Map<String, Value>, IssueError> {
        self.create(ctx, lease).await
    }

    async fn renew(&self, ctx: &EngineContext<'_>, lease: LeaseFacts<'_>) -> Result<(), CoreError> {
        self.prolong(ctx, lease).await
    }

    async fn revoke(
        &self,
        ctx: &EngineContext<'_>,
        lease: LeaseFacts<'_>,
    ) -> Result<(), CoreError> {
        self.end(ctx, lease).await
    }

    async fn tick(&self, ctx: &EngineContext<'_>) -> Result<Option<Timestamp>, CoreError> {
        self.run_due(ctx).await
    }
}
