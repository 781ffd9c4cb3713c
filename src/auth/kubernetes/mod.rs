//! The method `kubernetes`: who one is, by the service account that a pod runs as.
//!
//! | Path | |
//! |---|---|
//! | `config` | how to find out whose a service account's token is |
//! | `role/:name` | a role: which service accounts of which namespaces, and what tokens get |
//! | `login` | a token, for the token of a service account |
//!
//! With `kubernetes_host`, the cluster is asked about each token (TokenReview), which knows of pods and
//! accounts that are gone; `pem_keys` or `jwks_url` are then a check that comes before. Without it they
//! are all there is: nobody is asked, and a token counts until it expires.

mod config;
mod review;
mod role;
mod routes;

use std::collections::BTreeMap;
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
use crate::crypto::jose::{JwsAlgorithm, TokenKind, UncheckedToken};
use crate::types::secret::SecretString;

use super::jose::claims::{Claims, Leeways};
use super::jose::provider::{Provider, Providers};
use super::jose::{Refusal, given, told, untold};
use config::{Config, Keys};
use review::ServiceAccount;
use role::{AliasSource, Role};

/// What every refused log-in is answered.
const REFUSAL: &str = "invalid role or service account token";
/// How much clocks may differ.
const CLOCK_SKEW: crate::types::time::Ttl = crate::types::time::Ttl::from_secs(60);
const CONFIG: &str = "config";

/// One mount of the method.
pub struct KubernetesMethod {
    providers: Providers,
}

impl KubernetesMethod {
    /// Clusters are asked by `outgoing`.
    pub fn new(outgoing: Arc<dyn Outgoing>) -> Self {
        Self { providers: Providers::new(outgoing) }
    }

    async fn login(&self, ctx: &EngineContext<'_>, fields: &Fields) -> Result<Grant, CoreError> {
        let refused = |refusal: Refusal| refusal.answered(REFUSAL);
        let token = given(fields, "jwt")?.ok_or_else(|| CoreError::field("jwt", "is required"))?;
        let name = fields.required_text("role")?;
        let config = ctx.view.get::<Config>(CONFIG).await?;
        let config = config.ok_or_else(|| refused(Refusal::new("the mount is not configured")))?;
        let config = config.value;
        // The audience that a cluster is asked about is the role's.
        let role = super::role::asked_for::<Role>(ctx, &name).await?;
        let role = role.ok_or_else(|| refused(Refusal::new("there is no such role")))?;
        let local = self.checked(ctx, &config, &role, &token).await?;
        let account = if config.kubernetes_host.is_empty() {
            let local = local.ok_or_else(|| CoreError::internal("nothing to judge a token by"))?;
            review::account_in(&local).map_err(refused)?
        } else {
            let outgoing = self.providers.outgoing();
            review::reviewed(outgoing, &config, &role.audience, &token)
                .await
                .map_err(|error| untold(error, &ctx.mount.path, "the cluster"))?
                .map_err(refused)?
        };
        grant(ctx, &name, role, account).map_err(refused)
    }

    /// The claims of a token that one of the configured keys has signed; nothing when there are no
    /// keys, because the cluster is asked.
    async fn checked(
        &self,
        ctx: &EngineContext<'_>,
        config: &Config,
        role: &Role,
        token: &SecretString,
    ) -> Result<Option<Claims>, CoreError> {
        let refused = |refusal: Refusal| refusal.answered(REFUSAL);
        let token = UncheckedToken::parse(token.expose(), TokenKind::Identity, JwsAlgorithm::ALL)
            .map_err(|error| refused(error.into()))?;
        let claims = match config.keys()? {
            Keys::None => {
                review::plausible(&token, role, ctx.clock.now()).map_err(refused)?;
                return Ok(None);
            }
            Keys::Given(keys) => token.verify(&keys),
            Keys::Published(source) => {
                let suffices = |known: &Provider| token.is_known_to(&known.keys);
                let found = self.providers.get(&source, ctx.clock.as_ref(), suffices).await;
                let found =
                    found.map_err(|error| untold(error, &ctx.mount.path, "the cluster's keys"))?;
                token.verify(&found.keys)
            }
        };
        let claims = Claims::new(claims.map_err(|error| refused(error.into()))?);
        self.judge(ctx, config, role, &claims).map_err(refused)?;
        Ok(Some(claims))
    }

    fn judge(
        &self,
        ctx: &EngineContext<'_>,
        config: &Config,
        role: &Role,
        claims: &Claims,
    ) -> Result<(), Refusal> {
        if config.checks_issuer() && claims.text("iss")? != Some(&config.issuer) {
            return Err(Refusal::new("the token is not the issuer's"));
        }
        let leeway = CLOCK_SKEW;
        let leeways = Leeways { expiration: leeway, not_before: leeway, issued_at: leeway };
        claims.check_times(ctx.clock.now(), leeways)?;
        if !role.audience.is_empty() {
            return claims.check_audience(std::slice::from_ref(&role.audience));
        }
        // The cluster knows for whom its tokens are; nobody else is asked here.
        if config.kubernetes_host.is_empty() && claims.named("aud").is_some() {
            return Err(Refusal::new("the token is for somebody, and the role names no audience"));
        }
        Ok(())
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
        if !config.kubernetes_host.is_empty() {
            let checked = self.providers.outgoing().check(&config.kubernetes_host);
            checked.map_err(|error| told(error, "kubernetes_host"))?;
        }
        if let Keys::Published(source) = config.keys()? {
            // Whoever writes it learns at once when it cannot work.
            let fetched = self.providers.fetch(&source, ctx.clock.now()).await;
            fetched.map_err(|error| told(error, "jwks_url"))?;
        }
        // Stock clients say so unless told otherwise.
        let wants_local = request.fields.boolean("disable_local_ca_jwt")? == Some(false);
        ctx.view.write(CONFIG, &config, Precondition::Any).await?;
        let reply = Reply::empty();
        if wants_local {
            return Ok(reply.warn("the files of the pod that the server runs in are never read"));
        }
        Ok(reply)
    }
}

#[async_trait]
impl AuthMethod for KubernetesMethod {
    fn routes(&self) -> &'static [RouteSpec] {
        routes::ROUTES
    }

    async fn exists(
        &self,
        ctx: &EngineContext<'_>,
        route: &'static RouteSpec,
        params: &Params<'_>,
    ) -> Result<Option<bool>, CoreError> {
        if route.name != "kubernetes-role" {
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
            "kubernetes-login" => {
                let grant = self.login(ctx, &request.fields).await?;
                return Ok(AuthOutcome::Login(Box::new(grant)));
            }
            "kubernetes-config" => self.serve_config(ctx, &request).await?,
            "kubernetes-roles" => super::role::listed(ctx).await?,
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
        let noted = |name: &str| renewal.metadata.get(name).map_or("", String::as_str);
        let (name, namespace) = (noted("service_account_name"), noted("service_account_namespace"));
        // Who was let in by names that the role does not let in any more is not prolonged.
        if !role.lets_in(name, namespace) {
            return Err(CoreError::denied("the role is for other service accounts now"));
        }
        Ok(super::role::renewed(ctx, renewal, role.token))
    }
}

fn grant(
    ctx: &EngineContext<'_>,
    name: &str,
    role: Role,
    account: ServiceAccount,
) -> Result<Grant, Refusal> {
    if !role.lets_in(&account.name, &account.namespace) {
        return Err(Refusal::new("the role is for other service accounts"));
    }
    let readable = format!("{}/{}", account.namespace, account.name);
    let alias = match role.alias_name_source {
        AliasSource::Name => readable.clone(),
        AliasSource::Uid => account.uid.clone(),
    };
    let metadata = BTreeMap::from([
        ("role".to_owned(), name.to_owned()),
        ("service_account_name".to_owned(), account.name),
        ("service_account_namespace".to_owned(), account.namespace),
        ("service_account_uid".to_owned(), account.uid),
    ]);
    let mut alias_metadata = metadata.clone();
    alias_metadata.remove("role");
    Ok(Grant {
        // To people, the account's name says more than its number.
        display_name: format!("{}-{readable}", ctx.mount.stem()),
        alias_metadata,
        metadata,
        ..Grant::new(ctx.mount, alias, name, role.token)
    })
}

#[cfg(test)]
mod tests;
