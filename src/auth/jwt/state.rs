//! What a log-in in a browser takes along until it comes back.
//!
//! Anybody may begin one, so nothing is stored then: the state is sealed and carried by the browser,
//! which can neither read nor change it. It is good for ten minutes, for its mount, on every node. What
//! is stored is that a log-in was finished with it, by the write that lets it be finished once.

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

use crate::auth::jose::Refusal;
use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::core::records::{Batch, Precondition, encode};
use crate::core::stored::StoredSecret;
use crate::crypto::batch::BatchTokenKey;
use crate::crypto::digest::sha256;
use crate::crypto::keyring::Label;
use crate::types::secret::{SecretBytes, SecretString};
use crate::types::time::{Timestamp, Ttl};

/// How long a log-in may take.
pub(super) const STATE_TTL: Ttl = Ttl::from_secs(600);
/// Longest state, in characters.
const STATE_BYTES_MAX: usize = 8192;
/// Randomness of what nobody may guess, in bytes.
const RANDOM_BYTES: usize = 32;
/// Where it is noted which states were used.
const USED: &str = "used/";

/// A log-in that was begun.
#[derive(Serialize, Deserialize)]
pub(super) struct LoginState {
    id: String,
    /// The mount that began it.
    mount: String,
    pub(super) role: String,
    pub(super) redirect_uri: String,
    /// Comes back in the token (OpenID Connect Core §3.1.2.1).
    pub(super) nonce: String,
    /// What only we can give with the code (RFC 7636 §4.1).
    verifier: StoredSecret,
    /// What only whoever began it can give with the code; empty when they gave nothing.
    pub(super) client_nonce: String,
    expires_at: Timestamp,
}

/// A state that was used.
#[derive(Serialize, Deserialize)]
struct Used {
    /// Until when it would have been good.
    until: Timestamp,
}

impl LoginState {
    pub(super) fn begin(
        ctx: &EngineContext<'_>,
        role: &str,
        redirect_uri: String,
        client_nonce: String,
    ) -> Result<Self, CoreError> {
        Ok(Self {
            id: random_text()?,
            mount: ctx.mount.accessor.as_str().to_owned(),
            role: role.to_owned(),
            redirect_uri,
            nonce: random_text()?,
            verifier: StoredSecret::new(SecretString::new(random_text()?)),
            client_nonce,
            expires_at: ctx.clock.now().plus(STATE_TTL),
        })
    }

    /// As the browser carries it.
    pub(super) fn seal(&self, ctx: &EngineContext<'_>) -> Result<String, CoreError> {
        let suite = ctx.view.records().keyring().active_suite();
        let sealed = key(ctx).seal(suite, encode(self)?.expose());
        let sealed = sealed.map_err(|error| CoreError::internal(error.to_string()))?;
        Ok(BASE64URL_NOPAD.encode(&sealed))
    }

    /// A state that this mount has sealed, and that is good still.
    pub(super) fn open(ctx: &EngineContext<'_>, carried: &str) -> Result<Self, Refusal> {
        let foreign = || Refusal::new("the state is none that this mount gave");
        if carried.len() > STATE_BYTES_MAX {
            return Err(foreign());
        }
        let sealed = BASE64URL_NOPAD.decode(carried.as_bytes()).map_err(|_| foreign())?;
        let opened = key(ctx).open(&sealed).map_err(|_| foreign())?;
        let state: Self = serde_json::from_slice(opened.expose()).map_err(|_| foreign())?;
        if state.mount != ctx.mount.accessor.as_str() {
            return Err(foreign());
        }
        if ctx.clock.now() >= state.expires_at {
            return Err(Refusal::new("the log-in took too long"));
        }
        Ok(state)
    }

    /// What the issuer is told at the beginning (RFC 7636 §4.2, S256).
    pub(super) fn challenge(&self) -> String {
        BASE64URL_NOPAD.encode(&sha256(self.verifier.secret().expose().as_bytes()))
    }

    /// What it is told at the end.
    pub(super) fn verifier(&self) -> &SecretString {
        self.verifier.secret()
    }

    /// Notes that it was used, unless it was before.
    pub(super) async fn use_up(&self, ctx: &EngineContext<'_>) -> Result<(), CoreError> {
        let used = Used { until: self.expires_at };
        ctx.view.write(&format!("{USED}{}", self.id), &used, Precondition::Absent).await
    }
}

/// Forgets the states that are over anyway.
pub(super) async fn tidy(ctx: &EngineContext<'_>) -> Result<(), CoreError> {
    let now = ctx.clock.now();
    for (name, used) in ctx.view.entries::<Used>(USED).await? {
        if used.value.until <= now {
            let mut batch = Batch::new();
            ctx.view.delete(&mut batch, &name, Precondition::Any);
            ctx.view.commit(&batch).await?;
        }
    }
    Ok(())
}

fn key(ctx: &EngineContext<'_>) -> BatchTokenKey {
    BatchTokenKey::new(ctx.view.records().keyring().subkey(Label::LoginState))
}

fn random_text() -> Result<String, CoreError> {
    Ok(BASE64URL_NOPAD.encode(SecretBytes::random(RANDOM_BYTES)?.expose()))
}
