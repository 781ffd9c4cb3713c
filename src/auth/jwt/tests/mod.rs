mod browser;
mod config;
mod tokens;

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::auth::jose::scratch::Others;
use crate::auth::scratch::{Call, answered, granted};
use crate::core::scratch::{NOW, Scratch, ScratchMount};
use crate::signer::{self, RSA, Signer};

const ISSUER: &str = "https://login.example.org/realm";

/// A mount, and the world that it can ask.
struct World {
    others: Arc<Others>,
    method: JwtMethod,
    mount: ScratchMount,
    scratch: Scratch,
}

impl World {
    fn new() -> Self {
        let (others, scratch) = (Arc::new(Others::default()), Scratch::new());
        let method = JwtMethod::new(others.clone());
        Self { method, mount: ScratchMount::new(&scratch, "auth/sso/"), others, scratch }
    }

    /// With an issuer that publishes these keys and is configured.
    async fn with_issuer(signers: &[&Signer], more: Value) -> Self {
        let world = Self::new();
        world.publish(signers);
        let mut config = json!({ "oidc_discovery_url": ISSUER });
        for (name, value) in more.as_object().unwrap() {
            config[name] = value.clone();
        }
        world.write("config", config).await.unwrap();
        world.others.asked();
        world
    }

    fn publish(&self, signers: &[&Signer]) {
        let at = |path: &str| format!("{ISSUER}{path}");
        let about = json!({
            "issuer": ISSUER, "jwks_uri": at("/keys"), "token_endpoint": at("/token"),
            "authorization_endpoint": at("/authorize"), "userinfo_endpoint": at("/me"),
        });
        self.others.answer(&at("/.well-known/openid-configuration"), 200, &about);
        self.others.answer(&at("/keys"), 200, &signer::jwks(signers));
    }

    fn ctx(&self) -> EngineContext<'_> {
        self.mount.ctx()
    }

    async fn call(
        &self,
        operation: Operation,
        path: &str,
        body: Value,
    ) -> Result<AuthOutcome, CoreError> {
        Call::new(operation, path, body).to(&self.method, &self.mount).await
    }

    async fn write(&self, path: &str, body: Value) -> Result<Value, CoreError> {
        Ok(answered(self.call(Operation::Update, path, body).await?))
    }

    async fn read(&self, path: &str) -> Result<Value, CoreError> {
        Ok(answered(self.call(Operation::Read, path, json!({})).await?))
    }

    async fn login(&self, role: &str, token: &str) -> Result<Grant, CoreError> {
        let body = json!({ "role": role, "jwt": token });
        Ok(granted(self.call(Operation::Update, "login", body).await?))
    }
}

/// Why a log-in was refused, which only the audit learns.
fn reason(result: Result<Grant, CoreError>) -> String {
    let error = result.expect_err("it has to be refused");
    let CoreError::Refused { answer, reason } = error else { panic!("no refusal: {error:?}") };
    assert_eq!(answer, REFUSAL);
    reason
}

/// What an honest token of the issuer says.
fn honest() -> Value {
    let now = NOW.as_secs();
    json!({
        "iss": ISSUER, "sub": "ann-1", "aud": "broker", "iat": now, "nbf": now, "exp": now + 300,
        "email": "ann@example.org", "groups": ["dev", "ops"], "team": { "name": "red" },
    })
}

/// The honest claims with some of them changed; null takes one away.
fn with(changes: &Value) -> Value {
    let mut claims = honest();
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

/// A role that lets in tokens for this broker.
fn role() -> Value {
    json!({
        "role_type": "jwt", "bound_audiences": "broker,other", "user_claim": "sub",
        "token_policies": "apps", "token_ttl": 600,
    })
}

fn changed(role: Value, changes: &Value) -> Value {
    let mut role = role;
    for (name, value) in changes.as_object().unwrap() {
        role[name] = value.clone();
    }
    role
}

fn honest_token() -> String {
    RSA.sign(&honest())
}
