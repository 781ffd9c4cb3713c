//! The methods `jwt` and `oidc`, which are one: who one is, by what an issuer of tokens says.
//!
//! | Path | |
//! |---|---|
//! | `config` | whose tokens count: an issuer that publishes its keys, a set of keys, or keys |
//! | `role/:name` | a role: whom it lets in, and what tokens get |
//! | `login` | a token, for a token of the issuer's |
//! | `oidc/auth_url`, `oidc/callback` | a token, for a log-in at the issuer's in a browser |
//!
//! A token of the issuer's is judged by the configuration and the role alone (RFC 8725): the algorithm,
//! the key, issuer, audience, times and whatever claims the role binds. It is not stored, and may be
//! used again while it is good; ours lives as long as the role says, not as long as theirs. Every
//! refused log-in is answered alike. Tokens of a role that is deleted live on until they end, and
//! cannot be renewed.

mod browser;
mod config;
mod judge;
mod redirect;
mod role;
mod routes;
mod state;

use std::sync::Arc;

use async_trait::async_trait;

use crate::core::acl::permit::Permit;
use crate::core::engine::{AuthMethod, AuthOutcome, AuthRequest, EngineContext, Grant, Renewal};
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::operation::Operation;
use crate::core::outgoing::Outgoing;
use crate::core::records::Precondition;
use crate::core::reply::Reply;
use crate::core::route::{Params, RouteSpec};
use crate::crypto::jose::{TokenKind, UncheckedToken};
use crate::types::time::Timestamp;

use super::cadence::{self, Cadence};
use super::jose::claims::Claims;
use super::jose::provider::{Discovery, Provider, Providers};
use super::jose::{Refusal, given, told, untold};
use config::{Config, Keys};
use role::{Role, RoleType};

/// What every refused log-in is answered.
const REFUSAL: &str = "invalid role or token";
const CONFIG: &str = "config";

/// One mount of the method.
pub struct JwtMethod {
    providers: Providers,
    /// Of states that are over.
    tidying: Cadence,
}

impl JwtMethod {
    /// Issuers are asked by `outgoing`.
    pub fn new(outgoing: Arc<dyn Outgoing>) -> Self {
        Self { providers: Providers::new(outgoing), tidying: Cadence::default() }
    }

    async fn login(&self, ctx: &EngineContext<'_>, fields: &Fields) -> Result<Grant, CoreError> {
        let refused = |refusal: Refusal| refusal.answered(REFUSAL);
        let token = given(fields, "jwt")?.ok_or_else(|| CoreError::field("jwt", "is required"))?;
        let named = fields.text("role")?.unwrap_or_default();
        let config = configured(ctx).await?;
        let name = if named.is_empty() { config.default_role.clone() } else { named };
        if name.is_empty() {
            return Err(CoreError::field("role", "is required: the mount has no default role"));
        }
        let (claims, discovery) = self.verified(ctx, &config, token.expose()).await?;
        // Only now: who has no token of the issuer's learns nothing of roles.
        let role = role_named(ctx, &name).await?;
        let judged = || {
            if role.role_type != RoleType::Jwt {
                return Err(Refusal::new("the role is for browsers, not for tokens"));
            }
            judge::check_issuer(&claims, issuers(&config, discovery.as_ref()))?;
            judge::check_times(&role, &claims, ctx.clock.now())?;
            // RFC 7519 §4.1.3: a token for others is not for us, whatever the role says.
            if !role.bound_audiences.is_empty() || claims.named("aud").is_some() {
                claims.check_audience(&role.bound_audiences)?;
            }
            Ok(())
        };
        judged().map_err(refused)?;
        judge::grant(ctx, &name, role, &claims).map_err(refused)
    }

    /// The claims of a token that one of the keys has signed, and what its issuer says of itself.
    async fn verified(
        &self,
        ctx: &EngineContext<'_>,
        config: &Config,
        token: &str,
    ) -> Result<(Claims, Option<Discovery>), CoreError> {
        let refused = |error| Refusal::from(error).answered(REFUSAL);
        let algorithms = config.algorithms(false);
        let token = UncheckedToken::parse(token, TokenKind::Any, algorithms).map_err(refused)?;
        let (claims, discovery) = match config.keys()? {
            Keys::Given(keys) => (token.verify(&keys), None),
            Keys::Published(source) => {
                let suffices = |known: &Provider| token.is_known_to(&known.keys);
                let provider = self.providers.get(&source, ctx.clock.as_ref(), suffices).await;
                let provider = provider
                    .map_err(|error| untold(error, &ctx.mount.path, "the issuer of tokens"))?;
                (token.verify(&provider.keys), provider.discovery.clone())
            }
        };
        Ok((Claims::new(claims.map_err(refused)?), discovery))
    }

    async fn serve_config(
        &self,
        ctx: &EngineContext<'_>,
        request: &AuthRequest<'_>,
    ) -> Result<Reply, CoreError> {
        if request.operation == Operation::Read {
            let config = ctx.view.get::<Config>(CONFIG).await?.ok_or(CoreError::NotFound)?;
            return Ok(Reply::data(config.value.to_json()));
        }
        let config = Config::read(&request.fields)?;
        let mut issuer_is_known = !config.bound_issuer.is_empty();
        if let Keys::Published(source) = config.keys()? {
            // Whoever writes it learns at once when it cannot work.
            let fetched = self.providers.fetch(&source, ctx.clock.now()).await;
            let fetched = fetched.map_err(|error| told(error, config.source_field()))?;
            issuer_is_known |= fetched.discovery.is_some();
        }
        ctx.view.write(CONFIG, &config, Precondition::Any).await?;
        let reply = Reply::empty();
        if issuer_is_known {
            return Ok(reply);
        }
        Ok(reply.warn("without bound_issuer, tokens count whoever they say has issued them"))
    }
}

#[async_trait]
impl AuthMethod for JwtMethod {
    fn routes(&self) -> &'static [RouteSpec] {
        routes::ROUTES
    }

    async fn exists(
        &self,
        ctx: &EngineContext<'_>,
        route: &'static RouteSpec,
        params: &Params<'_>,
    ) -> Result<Option<bool>, CoreError> {
        if route.name != "jwt-role" {
            return Ok(None);
        }
        super::role::exists(ctx, params).await
    }

    async fn handle(
        &self,
        ctx: &EngineContext<'_>,
        _permit: &Permit,
        request: AuthRequest<'_>,
    ) -> Result<AuthOutcome, CoreError> {
        let reply = match request.route.name {
            "jwt-login" => {
                let grant = self.login(ctx, &request.fields).await?;
                return Ok(AuthOutcome::Login(Box::new(grant)));
            }
            "oidc-callback" => {
                let grant = self.finish(ctx, &request.fields).await?;
                return Ok(AuthOutcome::Login(Box::new(grant)));
            }
            "oidc-auth-url" => self.begin(ctx, &request.fields).await?,
            "jwt-config" => self.serve_config(ctx, &request).await?,
            "jwt-roles" => super::role::listed(ctx).await?,
            _ => super::role::serve::<Role>(ctx, &request).await?,
        };
        Ok(reply.into())
    }

    async fn renewal(
        &self,
        ctx: &EngineContext<'_>,
        renewal: Renewal<'_>,
    ) -> Result<Grant, CoreError> {
        let role: Role = super::role::of_token(ctx, &renewal).await?;
        Ok(super::role::renewed(ctx, renewal, role.token))
    }

    async fn tick(&self, ctx: &EngineContext<'_>) -> Result<Option<Timestamp>, CoreError> {
        let now = ctx.clock.now();
        if self.tidying.is_due(now) {
            state::tidy(ctx).await?;
        }
        Ok(Some(now.plus(cadence::EVERY)))
    }
}

/// What the claim `iss` has to be: all of these.
fn issuers<'c>(
    config: &'c Config,
    discovery: Option<&'c Discovery>,
) -> impl Iterator<Item = &'c str> {
    let bound = Some(config.bound_issuer.as_str()).filter(|issuer| !issuer.is_empty());
    bound.into_iter().chain(discovery.map(|discovery| discovery.issuer.as_str()))
}

async fn configured(ctx: &EngineContext<'_>) -> Result<Config, CoreError> {
    let config = ctx.view.get::<Config>(CONFIG).await?;
    let config = config.ok_or_else(|| Refusal::new("the mount is not configured"));
    Ok(config.map_err(|refusal| refusal.answered(REFUSAL))?.value)
}

async fn role_named(ctx: &EngineContext<'_>, name: &str) -> Result<Role, CoreError> {
    let role = super::role::asked_for(ctx, name).await?;
    role.ok_or_else(|| Refusal::new("there is no such role").answered(REFUSAL))
}

#[cfg(test)]
mod tests;
