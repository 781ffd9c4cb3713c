//! Log-ins in a browser: the authorization code flow of OpenID Connect Core §3.1, with PKCE (RFC 7636).
//!
//! The code that comes back is worth nothing without what was sealed into the state, and the token that
//! it is traded for is judged as any other: that it came from the issuer directly proves nothing to us.

use data_encoding::BASE64;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq;

use crate::auth::jose::claims::Claims;
use crate::auth::jose::provider::{Discovery, Provider, Source};
use crate::auth::jose::{Refusal, text, untold};
use crate::core::engine::{EngineContext, Grant};
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::outgoing::{OutgoingAnswer, OutgoingRequest, Payload};
use crate::core::reply::Reply;
use crate::crypto::jose::{TokenKind, UncheckedToken, parse_object};
use crate::types::secret::SecretString;

use super::config::{Config, Keys};
use super::role::{Role, RoleType};
use super::state::LoginState;
use super::{JwtMethod, REFUSAL, judge, redirect};

/// What every log-in that may not begin is answered.
const NOT_BEGUN: &str = "invalid role or redirect_uri, or no client is configured";
/// Longest text that a client gives, in bytes.
const TEXT_BYTES_MAX: usize = 2048;
/// Largest answer of a token endpoint, in bytes.
const ANSWER_BYTES_MAX: usize = 128 * 1024;
/// What is encoded in forms and queries: all but the unreserved (RFC 3986 §2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A log-in in a browser, as far as it is known whose it would be.
struct Begun {
    config: Config,
    source: Source,
    role: Role,
}

impl JwtMethod {
    /// Where a browser is to be sent.
    pub(super) async fn begin(
        &self,
        ctx: &EngineContext<'_>,
        fields: &Fields,
    ) -> Result<Reply, CoreError> {
        let role = text(fields, "role", TEXT_BYTES_MAX)?;
        let redirect_uri = fields.required_text("redirect_uri")?;
        let client_nonce = text(fields, "client_nonce", TEXT_BYTES_MAX)?;
        let begun = self.begun(ctx, role, &redirect_uri).await;
        let (name, begun) = begun.map_err(not_begun)?;
        let (_, discovery) = self.discovery(ctx, &begun.source).await?;
        let endpoint = discovery.authorization_endpoint.filter(|url| redirect::check(url).is_ok());
        let endpoint = endpoint.ok_or_else(|| {
            Refusal::new("the issuer has no authorization endpoint by https").answered(NOT_BEGUN)
        })?;
        let state = LoginState::begin(ctx, &name, redirect_uri, client_nonce)?;
        let mut scopes = vec!["openid"];
        scopes.extend(begun.role.oidc_scopes.iter().map(String::as_str).filter(|s| *s != "openid"));
        let (sealed, challenge, scopes) = (state.seal(ctx)?, state.challenge(), scopes.join(" "));
        let max_age = begun.role.max_age.as_secs().to_string();
        let mut query = vec![
            ("response_type", "code"),
            ("client_id", begun.config.oidc_client_id.as_str()),
            ("redirect_uri", &state.redirect_uri),
            ("scope", &scopes),
            ("state", &sealed),
            ("nonce", &state.nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        if !begun.role.max_age.is_zero() {
            query.push(("max_age", &max_age));
        }
        let joint = if endpoint.contains('?') { '&' } else { '?' };
        let url = format!("{endpoint}{joint}{}", encoded(&query));
        Ok(Reply::data(json!({ "auth_url": url })))
    }

    /// Lets in whoever the browser came back for.
    pub(super) async fn finish(
        &self,
        ctx: &EngineContext<'_>,
        fields: &Fields,
    ) -> Result<Grant, CoreError> {
        let refused = |refusal: Refusal| refusal.answered(REFUSAL);
        let code = fields.secret("code")?.filter(|code| !code.expose().is_empty());
        let code = code.ok_or_else(|| CoreError::field("code", "is required"))?;
        if code.expose().len() > TEXT_BYTES_MAX {
            return Err(CoreError::field("code", "is longer than 2048 bytes"));
        }
        let state = fields.required_text("state")?;
        let state = LoginState::open(ctx, &state).map_err(refused)?;
        let client_nonce = text(fields, "client_nonce", TEXT_BYTES_MAX)?;
        if !same(&client_nonce, &state.client_nonce) {
            return Err(refused(Refusal::new("the log-in was begun by somebody else")));
        }
        let nonce = text(fields, "nonce", TEXT_BYTES_MAX)?;
        if !nonce.is_empty() && !same(&nonce, &state.nonce) {
            return Err(refused(Refusal::new("the nonce is another log-in's")));
        }
        let (name, begun) = self.begun(ctx, state.role.clone(), &state.redirect_uri).await?;
        let (provider, discovery) = self.discovery(ctx, &begun.source).await?;
        // RFC 9207 §2.4: an answer that another issuer gave is not for us.
        let issuer = text(fields, "iss", TEXT_BYTES_MAX)?;
        if !issuer.is_empty() && issuer != discovery.issuer {
            return Err(refused(Refusal::new("the code is another issuer's")));
        }
        let answer = self.trade(ctx, &begun, &discovery, &state, &code).await?;
        let of = |name: &str| answer.get(name).and_then(Value::as_str);
        let token = of("id_token")
            .ok_or_else(|| refused(Refusal::new("the issuer gave no ID token for the code")))?;
        let mut claims = self.checked(ctx, &begun, &provider, token).await?;
        check_identity(&claims, &begun, &discovery, &state, ctx).map_err(refused)?;
        if begun.role.claims().any(|name| claims.get(name).is_none())
            && let (Some(endpoint), Some(access)) =
                (&discovery.userinfo_endpoint, of("access_token"))
        {
            let more = self.userinfo(ctx, &begun, endpoint, access).await?;
            // OpenID Connect Core §5.3.2: it may be somebody else's otherwise.
            if more.get("sub").is_none() || more.get("sub") != claims.named("sub") {
                return Err(refused(Refusal::new("the user's information is another user's")));
            }
            claims.complete(more);
        }
        let grant = judge::grant(ctx, &name, begun.role, &claims).map_err(refused)?;
        // The write is the check: of two that come at the same time one is let in.
        match state.use_up(ctx).await {
            Err(error) if error.is_conflict() => {
                Err(refused(Refusal::new("the state was used before")))
            }
            used => used.map(|()| grant),
        }
    }

    /// What a log-in by this role would be judged by, and the role's name.
    async fn begun(
        &self,
        ctx: &EngineContext<'_>,
        role: String,
        redirect_uri: &str,
    ) -> Result<(String, Begun), CoreError> {
        let refused = |reason: &str| Refusal::new(reason).answered(REFUSAL);
        let config = super::configured(ctx).await?;
        let name = if role.is_empty() { config.default_role.clone() } else { role };
        let role = super::role_named(ctx, &name).await?;
        if role.role_type != RoleType::Oidc {
            return Err(refused("the role is for tokens, not for browsers"));
        }
        if !redirect::is_allowed(redirect_uri, &role.allowed_redirect_uris) {
            return Err(refused("the role does not allow the redirect URI"));
        }
        if config.oidc_client_id.is_empty() {
            return Err(refused("the mount has no oidc_client_id"));
        }
        let Keys::Published(source) = config.keys()? else {
            return Err(refused("the mount has no oidc_discovery_url"));
        };
        Ok((name, Begun { config, source, role }))
    }

    async fn discovery(
        &self,
        ctx: &EngineContext<'_>,
        source: &Source,
    ) -> Result<(std::sync::Arc<Provider>, Discovery), CoreError> {
        let provider = self.providers.get(source, ctx.clock.as_ref(), |_| true).await;
        let provider =
            provider.map_err(|error| untold(error, &ctx.mount.path, "the identity provider"))?;
        let discovery = provider.discovery.clone();
        let discovery =
            discovery.ok_or_else(|| CoreError::internal("a provider without a name"))?;
        Ok((provider, discovery))
    }

    /// Trades the code for what the issuer gives for it (RFC 6749 §4.1.3).
    async fn trade(
        &self,
        ctx: &EngineContext<'_>,
        begun: &Begun,
        discovery: &Discovery,
        state: &LoginState,
        code: &SecretString,
    ) -> Result<Map<String, Value>, CoreError> {
        let refused = |reason: String| Refusal::new(reason).answered(REFUSAL);
        let Some(endpoint) = &discovery.token_endpoint else {
            return Err(refused("the issuer has no token endpoint".into()));
        };
        let client = begun.config.oidc_client_id.as_str();
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", &state.redirect_uri),
            ("code_verifier", state.verifier().expose()),
        ];
        let offers =
            |method: &str| discovery.client_authentication.iter().any(|known| known == method);
        let authorization = match begun.config.client_secret() {
            Some(secret) if offers("client_secret_basic") => Some(basic(client, secret)),
            Some(secret) if offers("client_secret_post") => {
                form.extend([("client_id", client), ("client_secret", secret.expose())]);
                None
            }
            Some(_) => {
                return Err(refused("the issuer takes no client secrets as we give them".into()));
            }
            None => {
                form.push(("client_id", client));
                None
            }
        };
        let form = SecretString::new(encoded(&form));
        let request = OutgoingRequest {
            url: endpoint,
            authorities: begun.config.authorities(),
            authorization: authorization.as_ref(),
            payload: Payload::Form(&form),
            answer_bytes_max: ANSWER_BYTES_MAX,
        };
        let answer = self.ask(ctx, request).await?;
        match answer.status {
            200 => parse_object(answer.body.expose())
                .map_err(|error| refused(format!("the issuer's answer {error}"))),
            status => Err(refused(format!("the issuer refused the code with status {status}"))),
        }
    }

    /// The claims of the ID token, if one of the issuer's keys has signed it.
    async fn checked(
        &self,
        ctx: &EngineContext<'_>,
        begun: &Begun,
        provider: &Provider,
        token: &str,
    ) -> Result<Claims, CoreError> {
        let algorithms = begun.config.algorithms(true);
        let refused = |error| Refusal::from(error).answered(REFUSAL);
        let token = UncheckedToken::parse(token, TokenKind::Identity, algorithms);
        let token = token.map_err(refused)?;
        let claims = if token.is_known_to(&provider.keys) {
            token.verify(&provider.keys)
        } else {
            let suffices = |provider: &Provider| token.is_known_to(&provider.keys);
            let newer = self.providers.get(&begun.source, ctx.clock.as_ref(), suffices).await;
            let newer =
                newer.map_err(|error| untold(error, &ctx.mount.path, "the identity provider"))?;
            token.verify(&newer.keys)
        };
        Ok(Claims::new(claims.map_err(refused)?))
    }

    /// What the issuer says of the user beside the token (OpenID Connect Core §5.3).
    async fn userinfo(
        &self,
        ctx: &EngineContext<'_>,
        begun: &Begun,
        endpoint: &str,
        access: &str,
    ) -> Result<Map<String, Value>, CoreError> {
        let bearer = SecretString::new(format!("Bearer {access}"));
        let request = OutgoingRequest {
            url: endpoint,
            authorities: begun.config.authorities(),
            authorization: Some(&bearer),
            payload: Payload::None,
            answer_bytes_max: ANSWER_BYTES_MAX,
        };
        let answer = self.ask(ctx, request).await?;
        let read =
            if answer.status == 200 { parse_object(answer.body.expose()).ok() } else { None };
        read.ok_or_else(|| {
            Refusal::new("the issuer does not say who the user is").answered(REFUSAL)
        })
    }

    async fn ask(
        &self,
        ctx: &EngineContext<'_>,
        request: OutgoingRequest<'_>,
    ) -> Result<OutgoingAnswer, CoreError> {
        let answer = self.providers.outgoing().send(request).await;
        let asked = "the identity provider";
        let answer = answer.map_err(|error| untold(error, &ctx.mount.path, asked))?;
        if answer.status >= 500 {
            return Err(CoreError::Upstream {
                target: asked.into(),
                message: format!("it answered with status {}", answer.status),
            });
        }
        Ok(answer)
    }
}

/// The refusal of a log-in that may not begin, with words that help who is to log in.
fn not_begun(error: CoreError) -> CoreError {
    if let CoreError::Refused { reason, .. } = error {
        return CoreError::Refused { answer: NOT_BEGUN, reason };
    }
    error
}

/// OpenID Connect Core §3.1.3.7: whether the token is the issuer's, for us, about this log-in, and good.
fn check_identity(
    claims: &Claims,
    begun: &Begun,
    discovery: &Discovery,
    state: &LoginState,
    ctx: &EngineContext<'_>,
) -> Result<(), Refusal> {
    let Begun { config, role, .. } = begun;
    judge::check_issuer(claims, super::issuers(config, Some(discovery)))?;
    claims.check_audience(std::slice::from_ref(&config.oidc_client_id))?;
    if !role.bound_audiences.is_empty() {
        claims.check_audience(&role.bound_audiences)?;
    }
    let several = claims.audiences()?.len() > 1;
    match claims.text("azp")? {
        None if several => return Err(Refusal::new("the claim azp is missing")),
        Some(party) if party != config.oidc_client_id => {
            return Err(Refusal::new("the token was given to another client"));
        }
        None | Some(_) => {}
    }
    if !claims.text("nonce")?.is_some_and(|nonce| same(nonce, &state.nonce)) {
        return Err(Refusal::new("the token is about another log-in"));
    }
    if claims.text("sub")?.is_none_or(str::is_empty) {
        return Err(Refusal::new("the claim sub is missing"));
    }
    judge::check_times(role, claims, ctx.clock.now())
}

fn same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

/// RFC 6749 §2.3.1: encoded before they are joined.
fn basic(client: &str, secret: &SecretString) -> SecretString {
    let encoded = |text: &str| utf8_percent_encode(text, RESERVED).to_string();
    let pair = SecretString::new(format!("{}:{}", encoded(client), encoded(secret.expose())));
    SecretString::new(format!("Basic {}", BASE64.encode(pair.expose().as_bytes())))
}

fn encoded(pairs: &[(&str, &str)]) -> String {
    let pairs = pairs
        .iter()
        .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, RESERVED)));
    pairs.collect::<Vec<_>>().join("&")
}
