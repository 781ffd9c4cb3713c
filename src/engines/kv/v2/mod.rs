//! Version 2: several versions of each secret.
//!
//! | path | what |
//! |---|---|
//! | `config` | defaults of the mount |
//! | `data/:path` | one version: read, write the next, patch the latest into the next, delete |
//! | `delete/:path`, `undelete/:path` | hide versions, and show them again |
//! | `destroy/:path` | remove the contents of versions for ever |
//! | `metadata/:path` | what is known of a secret and its versions; `LIST` for what is below |
//! | `subkeys/:path` | the shape of a version, without its values |
//!
//! What is known of a secret is one record; the contents of each version are a record of their own.
//! Every request that changes something is one commit of both, conditional on the revision of the
//! first: that is the check of check-and-set, and what keeps two writers from making the same
//! version. Removing the record of a version destroys the only key to its contents.
//!
//! A per-secret `max_versions` takes precedence over the mount's; of the two `delete_version_after`
//! the shorter counts; `cas_required` of either counts.

mod data;
mod keys;
mod merge;
mod metadata;
mod routes;
mod settings;
mod store;

use std::collections::BTreeMap;

use async_trait::async_trait;

use self::store::Turns;
use super::{Version, secret_path};
use crate::core::acl::permit::Permit;
use crate::core::engine::{Engine, EngineContext, EngineRequest, Outcome};
use crate::core::error::CoreError;
use crate::core::operation::Operation::{Create, Delete, List, Patch, Read, Update};
use crate::core::reply::Reply;
use crate::core::route::{Params, RouteSpec};

/// The engine of one mount.
pub(super) struct VersionedKv {
    turns: Turns,
}

impl VersionedKv {
    pub(super) fn new() -> Self {
        Self { turns: Turns::new() }
    }

    async fn serve(
        &self,
        ctx: &EngineContext<'_>,
        request: EngineRequest<'_>,
    ) -> Result<Reply, CoreError> {
        let EngineRequest { operation, route, params, fields, .. } = request;
        match (route.name, operation) {
            (routes::CONFIG, Read) => return settings::read(ctx).await,
            (routes::CONFIG, Create | Update) => return settings::write(ctx, &fields).await,
            (routes::METADATA, List) => return keys::list(ctx, params.get("path")).await,
            _ => {}
        }
        let path = secret_path(&params)?;
        match (route.name, operation) {
            (routes::DATA, Read) => data::read(ctx, path, &fields).await,
            (routes::DATA, Create | Update) => self.write(ctx, path, fields).await,
            (routes::DATA, Patch) => self.patch(ctx, path, fields).await,
            (routes::DATA, Delete) => self.delete_latest(ctx, path).await,
            (routes::DELETE, Create | Update) => self.delete(ctx, path, &fields).await,
            (routes::UNDELETE, Create | Update) => self.undelete(ctx, path, &fields).await,
            (routes::DESTROY, Create | Update) => self.destroy(ctx, path, &fields).await,
            (routes::METADATA, Read) => keys::read(ctx, path).await,
            (routes::METADATA, Create | Update) => self.write_metadata(ctx, path, &fields).await,
            (routes::METADATA, Patch) => self.patch_metadata(ctx, path, &fields).await,
            (routes::METADATA, Delete) => self.remove(ctx, path).await,
            (routes::SUBKEYS, Read) => data::subkeys(ctx, path, &fields).await,
            (_, _) => Err(CoreError::Unsupported),
        }
    }
}

#[async_trait]
impl Engine for VersionedKv {
    fn routes(&self) -> &'static [RouteSpec] {
        routes::ROUTES
    }

    fn accept_options(&self, options: &BTreeMap<String, String>) -> Result<(), CoreError> {
        Version::Two.refuse_change(options)
    }

    async fn exists(
        &self,
        ctx: &EngineContext<'_>,
        route: &'static RouteSpec,
        params: &Params<'_>,
    ) -> Result<Option<bool>, CoreError> {
        if !matches!(route.name, routes::DATA | routes::METADATA) {
            return Ok(None);
        }
        // A path that names no secret is refused by `handle`, once it is known who asks.
        let Ok(path) = secret_path(params) else { return Ok(None) };
        Ok(Some(ctx.view.get_record(&store::metadata_name(path)).await?.is_some()))
    }

    async fn handle(
        &self,
        ctx: &EngineContext<'_>,
        _permit: &Permit,
        request: EngineRequest<'_>,
    ) -> Result<Outcome, CoreError> {
        self.serve(ctx, request).await.map(Outcome::from)
    }
}
