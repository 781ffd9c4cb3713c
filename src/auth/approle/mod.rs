//! The `approle` method: who one is, by a role ID and a secret ID, for programs without a certificate.
//!
//! | Path | |
//! |---|---|
//! | `role/:name` | a role: what log-ins need, and what tokens get; each setting has a path of its own |
//! | `role/:name/role-id` | what the role is logged in by: a name, not a secret |
//! | `role/:name/secret-id`, `role/:name/custom-secret-id` | a new secret ID |
//! | `role/:name/secret-id/…`, `role/:name/secret-id-accessor/…` | one that is there |
//! | `login` | a token, for both |
//!
//! A secret ID is answered once and kept as a keyed hash. Its uses are counted by conditional writes,
//! so that the last one is taken once, however many nodes are asked at the same time. An unknown role
//! ID, a wrong secret ID and a locked role ID get the same answer. Tokens of a role or secret ID that
//! is deleted live on until they end; those of a deleted role cannot be renewed.

mod role;
mod routes;
mod secret;

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use crate::core::acl::permit::Permit;
use crate::core::engine::{
    AuthMethod, AuthOutcome, AuthRequest, Claim, EngineContext, Grant, Renewal,
};
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::operation::Operation;
use crate::core::reply::Reply;
use crate::core::route::{Params, RouteSpec};
use crate::core::token::address_allowed;
use crate::core::view::Entry;
use crate::types::secret::SecretString;
use crate::types::time::Timestamp;

use super::cadence::{self, Cadence};
use super::role::{at, checked_name};
use role::Role;

/// What every refused log-in is answered.
const REFUSAL: &str = "invalid role or secret ID";
/// Uses of one secret ID are counted one after the other on each node, so that they do not collide.
const COUNTERS: usize = 64;

/// One mount of the method.
pub struct ApproleMethod {
    counters: Vec<Mutex<()>>,
    /// Of secret IDs that are over.
    tidying: Cadence,
}

impl Default for ApproleMethod {
    fn default() -> Self {
        Self {
            counters: (0..COUNTERS).map(|_| Mutex::new(())).collect(),
            tidying: Cadence::default(),
        }
    }
}

impl ApproleMethod {
    async fn login(
        &self,
        ctx: &EngineContext<'_>,
        request: &AuthRequest<'_>,
    ) -> Result<Grant, CoreError> {
        let role_id = request.fields.required_text("role_id")?;
        let given = request.fields.secret("secret_id")?;
        let given = given.unwrap_or_else(|| SecretString::new(String::new()));
        let found = role::by_id(ctx, &role_id).await?;
        let allowed = |role: &Role| address_allowed(&role.secret_id_bound_cidrs, request.remote);
        let (name, role) = match found {
            Some((name, role)) if allowed(&role) => (name, role),
            // As much work as for a role that lets this address in: one look into the store, which
            // for a role that is not there was the one for the role, and all that is read and hashed.
            Some(_) => {
                secret::find(ctx, "none", &secret::hash_of(ctx, "", &given)).await?;
                return Err(CoreError::denied("the role is bound to other addresses"));
            }
            None => {
                role::read_nobodys();
                secret::hash_of(ctx, "", &given);
                return Err(CoreError::denied("there is no such role ID"));
            }
        };
        if !role.bind_secret_id {
            if request.locked {
                return Err(CoreError::denied("locked"));
            }
            return Ok(grant(ctx, &name, role));
        }
        let own = &role.token.bound_cidrs;
        let hash = secret::hash_of(ctx, &role.key, &given);
        let _one_at_a_time = match self.counter(&hash) {
            Some(counter) => Some(counter.lock().await),
            None => None,
        };
        let locked = request.locked;
        let used = secret::take(ctx, &role.key, &hash, own, request.remote, locked).await?;
        let mut grant = grant(ctx, &name, role);
        if !used.token_bound_cidrs.is_empty() {
            grant.token.bound_cidrs = used.token_bound_cidrs;
        }
        // The role's own notes come last: a secret ID cannot pretend another role.
        let own_notes = std::mem::replace(&mut grant.metadata, used.metadata);
        grant.metadata.extend(own_notes);
        Ok(grant)
    }

    fn counter(&self, hash: &str) -> Option<&Mutex<()>> {
        let index = hash.get(..2).and_then(|head| usize::from_str_radix(head, 16).ok());
        self.counters.get(index.unwrap_or(0) % COUNTERS)
    }

    async fn serve_role(
        &self,
        ctx: &EngineContext<'_>,
        request: &AuthRequest<'_>,
    ) -> Result<Reply, CoreError> {
        let name = checked_name("name", request.params.get("name"))?;
        let before = ctx.view.get_fresh::<Role>(&at(name)).await?;
        match (request.operation, before) {
            (Operation::Read, Some(role)) => Ok(Reply::data(Value::Object(role.value.to_json()))),
            (Operation::Read, None) => Err(CoreError::NotFound),
            (Operation::Delete, Some(role)) => {
                role::remove(ctx, name, role).await?;
                Ok(Reply::empty())
            }
            (Operation::Delete, None) => Ok(Reply::empty()),
            (Operation::Create | Operation::Update, before) => {
                let role = match &before {
                    Some(before) => before.value.clone(),
                    None => Role::new()?,
                };
                let role = role.updated(&request.fields)?;
                let before = before.as_ref().map(|before| (&before.value, before.rev));
                role::save(ctx, name, before, &role).await?;
                Ok(Reply::empty())
            }
            (Operation::List | Operation::Patch, _) => Err(CoreError::Unsupported),
        }
    }

    /// One setting of a role that is there, under the name of the route's first field.
    async fn serve_part(
        &self,
        ctx: &EngineContext<'_>,
        request: &AuthRequest<'_>,
        before: Entry<Role>,
    ) -> Result<Reply, CoreError> {
        let shown = request.route.fields.first().map_or("", |field| field.name);
        if request.operation == Operation::Read {
            let value = match shown {
                "role_id" => json!(before.value.role_id),
                _ => before.value.to_json().remove(shown).unwrap_or(Value::Null),
            };
            return Ok(Reply::data(json!({ shown: value })));
        }
        let fields = if request.operation == Operation::Delete {
            Fields::new(Map::from_iter([(shown.to_owned(), Role::default_of(shown))]))
        } else {
            let names: Vec<&str> = request.route.fields.iter().map(|field| field.name).collect();
            request.fields.only(&names)
        };
        if fields.as_map().is_empty() {
            return Err(CoreError::field(shown, "is required"));
        }
        let role = before.value.clone().updated(&fields)?;
        role::save(ctx, request.params.get("name"), Some((&before.value, before.rev)), &role)
            .await?;
        Ok(Reply::empty())
    }

    /// What concerns the secret IDs of a role that is there.
    async fn serve_secret(
        &self,
        ctx: &EngineContext<'_>,
        request: &AuthRequest<'_>,
        role: &Role,
    ) -> Result<Reply, CoreError> {
        let fields = &request.fields;
        let key = &role.key;
        match (request.route.name, request.operation) {
            ("approle-secret-id", Operation::List) => {
                Reply::listing(secret::accessors(ctx, key).await?)
            }
            ("approle-secret-id", _) => {
                Ok(Reply::data(secret::make(ctx, role, fields, None).await?))
            }
            ("approle-custom-secret-id", _) => {
                let chosen = given_secret(fields)?;
                Ok(Reply::data(secret::make(ctx, role, fields, Some(chosen)).await?))
            }
            ("approle-secret-id-lookup", _) => {
                let hash = secret::hash_of(ctx, key, &given_secret(fields)?);
                let found = secret::find(ctx, key, &hash).await?;
                Ok(found.map_or_else(Reply::empty, |found| Reply::data(found.to_json())))
            }
            ("approle-secret-id-destroy", _) => {
                let hash = secret::hash_of(ctx, key, &given_secret(fields)?);
                secret::destroy(ctx, key, &hash).await?;
                Ok(Reply::empty())
            }
            (route, _) => {
                let accessor = fields.required_text("secret_id_accessor")?;
                let hash = secret::behind(ctx, key, &accessor).await?;
                let hash = hash.ok_or(CoreError::NotFound)?;
                if route == "approle-accessor-destroy" {
                    secret::destroy(ctx, key, &hash).await?;
                    return Ok(Reply::empty());
                }
                let found = secret::find(ctx, key, &hash).await?.ok_or(CoreError::NotFound)?;
                Ok(Reply::data(found.to_json()))
            }
        }
    }
}

#[async_trait]
impl AuthMethod for ApproleMethod {
    fn routes(&self) -> &'static [RouteSpec] {
        routes::ROUTES
    }

    async fn exists(
        &self,
        ctx: &EngineContext<'_>,
        route: &'static RouteSpec,
        params: &Params<'_>,
    ) -> Result<Option<bool>, CoreError> {
        if route.name != "approle-role" {
            return Ok(None);
        }
        super::role::exists(ctx, params).await
    }

    fn claim(&self, request: &AuthRequest<'_>) -> Option<Claim> {
        if request.route.name != "approle-login" {
            return None;
        }
        let alias = request.fields.required_text("role_id").ok()?;
        Some(Claim { alias, refusal: REFUSAL })
    }

    async fn handle(
        &self,
        ctx: &EngineContext<'_>,
        _permit: &Permit,
        request: AuthRequest<'_>,
    ) -> Result<AuthOutcome, CoreError> {
        let reply = match request.route.name {
            "approle-login" => {
                return Ok(AuthOutcome::Login(Box::new(self.login(ctx, &request).await?)));
            }
            "approle-roles" => super::role::listed(ctx).await?,
            "approle-role" => self.serve_role(ctx, &request).await?,
            "approle-tidy" => {
                secret::tidy(ctx).await?;
                Reply::empty()
            }
            name => {
                let role = checked_name("name", request.params.get("name"))?;
                let role = ctx.view.get_fresh::<Role>(&at(role)).await?;
                let role = role.ok_or(CoreError::NotFound)?;
                if SECRET_ROUTES.contains(&name) {
                    self.serve_secret(ctx, &request, &role.value).await?
                } else {
                    self.serve_part(ctx, &request, role).await?
                }
            }
        };
        Ok(reply.into())
    }

    async fn renewal(
        &self,
        ctx: &EngineContext<'_>,
        renewal: Renewal<'_>,
    ) -> Result<Grant, CoreError> {
        let role = super::role::of_token(ctx, &renewal).await?;
        Ok(grant(ctx, renewal.role, role))
    }

    async fn tick(&self, ctx: &EngineContext<'_>) -> Result<Option<Timestamp>, CoreError> {
        let now = ctx.clock.now();
        if self.tidying.is_due(now) {
            secret::tidy(ctx).await?;
        }
        Ok(Some(now.plus(cadence::EVERY)))
    }
}

fn grant(ctx: &EngineContext<'_>, name: &str, role: Role) -> Grant {
    Grant {
        // To people, the role's name says more than its ID.
        display_name: format!("{}-{name}", ctx.mount.stem()),
        metadata: BTreeMap::from([("role_name".to_owned(), name.to_owned())]),
        ..Grant::new(ctx.mount, role.role_id, name, role.token)
    }
}

/// The routes that are about secret IDs, not about a setting.
const SECRET_ROUTES: &[&str] = &[
    "approle-secret-id",
    "approle-custom-secret-id",
    "approle-secret-id-lookup",
    "approle-secret-id-destroy",
    "approle-accessor-lookup",
    "approle-accessor-destroy",
];

fn given_secret(fields: &Fields) -> Result<SecretString, CoreError> {
    let given = fields.secret("secret_id")?.filter(|given| !given.expose().is_empty());
    given.ok_or_else(|| CoreError::field("secret_id", "is required"))
}

#[cfg(test)]
mod tests;
