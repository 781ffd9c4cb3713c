//! Keys that are brought in.

use std::sync::Arc;

use data_encoding::BASE64;
use serde_json::json;

use super::TransitEngine;
use super::keys::NewKey;
use super::kind::KeyKind;
use super::record::{WRAPPING_KEY, WrappingRecord, key_name};
use super::ring::WRAPPING_SIZE;
use super::stored::StoredKey;
use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::records::Precondition;
use crate::core::reply::Reply;
use crate::crypto::key_wrap;
use crate::crypto::rsa::{RsaHash, RsaKey};
use crate::types::secret::SecretBytes;

/// The one answer to whatever cannot be unwrapped or is no key of its type.
const NOT_A_KEY: &str = "is not a key of that type, wrapped under the wrapping key";

fn hash_of(fields: &Fields) -> Result<RsaHash, CoreError> {
    match fields.text("hash_function")?.as_deref() {
        None | Some("" | "SHA256") => Ok(RsaHash::Sha256),
        Some("SHA384") => Ok(RsaHash::Sha384),
        Some("SHA512") => Ok(RsaHash::Sha512),
        Some(_) => Err(CoreError::field("hash_function", "must be SHA256, SHA384 or SHA512")),
    }
}

impl TransitEngine {
    pub(super) async fn wrapping_key(&self, ctx: &EngineContext<'_>) -> Result<Reply, CoreError> {
        let key = self.own_wrapping_key(ctx).await?;
        Ok(Reply::data(json!({ "public_key": key.public_pem() })))
    }

    /// The wrapping key of the mount, which is made when it is first asked for.
    async fn own_wrapping_key(&self, ctx: &EngineContext<'_>) -> Result<Arc<RsaKey>, CoreError> {
        if let Some(key) = self.ring.wrapping(ctx).await? {
            return Ok(key);
        }
        let made = self.work.run(|| RsaKey::generate(WRAPPING_SIZE)).await?;
        let made = made.map_err(|error| CoreError::internal(error.to_string()))?;
        let record = WrappingRecord { key: StoredKey::new(made) };
        match ctx.view.write(WRAPPING_KEY, &record, Precondition::Absent).await {
            // Another node made one at the same time: that one counts.
            Err(error) if !error.is_conflict() => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let key = self.ring.wrapping(ctx).await?;
        key.ok_or_else(|| CoreError::internal("the wrapping key is missing"))
    }

    pub(super) async fn import(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        fields: &Fields,
    ) -> Result<Reply, CoreError> {
        let exists =
            || CoreError::invalid("there is a key of that name: add to it with import_version");
        let mut new = NewKey::read(fields)?;
        new.imported = true;
        new.allow_rotation = fields.boolean("allow_rotation")?.unwrap_or(false);
        key_name(name)?;
        if self.ring.key(ctx, name).await?.is_some() {
            return Err(exists());
        }
        let material = self.unwrapped(ctx, new.kind, fields).await?;
        new.hmac_key_bytes = material.len() as u64;
        match self.put_new(ctx, name, &new, material).await {
            Err(error) if error.is_conflict() => Err(exists()),
            done => done.map(|()| Reply::empty()),
        }
    }

    pub(super) async fn import_version(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        fields: &Fields,
    ) -> Result<Reply, CoreError> {
        let key = self.usable(ctx, name).await?;
        if !key.record.imported {
            return Err(CoreError::invalid("the key was made here: it takes no imported versions"));
        }
        let material = self.unwrapped(ctx, key.record.kind, fields).await?;
        self.put_version(ctx, name, &key.record.id, None, material).await?;
        Ok(Reply::empty())
    }

    /// The key that `ciphertext` holds, as it is kept.
    async fn unwrapped(
        &self,
        ctx: &EngineContext<'_>,
        kind: KeyKind,
        fields: &Fields,
    ) -> Result<SecretBytes, CoreError> {
        let hash = hash_of(fields)?;
        let refused = || CoreError::field("ciphertext", NOT_A_KEY);
        let wrapped = fields.required_text("ciphertext")?;
        let wrapped = BASE64.decode(wrapped.as_bytes());
        let wrapped = wrapped.map_err(|_| CoreError::field("ciphertext", "is not base64"))?;
        let Some(ours) = self.ring.wrapping(ctx).await? else { return Err(refused()) };
        let work = move || {
            let key = key_wrap::unwrap(&ours, hash, WRAPPING_SIZE.bytes(), &wrapped).ok()?;
            kind.import(&key)
        };
        self.work.run(work).await?.ok_or_else(refused)
    }
}
