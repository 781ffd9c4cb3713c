//! The key that certificates are signed with.

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use super::SshEngine;
use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::records::Precondition;
use crate::core::reply::{Reply, Shape};
use crate::core::stored::StoredSecret;
use crate::core::view::Entry;
use crate::crypto::ssh::{SshCurve, SshKeyError, SshKeyType, SshKind, SshPrivateKey, SshPublicKey};
use crate::types::secret::{SecretBytes, SecretString};

const RECORD: &str = "ca";
/// Shortest RSA key that signs.
const RSA_BITS_MIN: usize = 3072;

/// The signing key, as stored.
#[derive(Serialize, Deserialize)]
pub(super) struct CaRecord {
    /// PKCS #8 in base64.
    private_key: StoredSecret,
    /// As `ssh-keygen` writes it, without a comment.
    public_key: String,
}

impl CaRecord {
    fn of(key: &SshPrivateKey) -> Result<Self, CoreError> {
        let der = key.to_pkcs8().map_err(failed)?;
        let text = SecretString::new(BASE64.encode(der.expose()));
        Ok(Self { private_key: StoredSecret::new(text), public_key: key.public().to_line() })
    }

    /// The public half, as it is told.
    pub(super) fn public_key(&self) -> &str {
        &self.public_key
    }

    /// The key itself.
    pub(super) fn key(&self) -> Result<SshPrivateKey, CoreError> {
        let text = self.private_key.secret().expose();
        let der = BASE64
            .decode(text.as_bytes())
            .map(SecretBytes::new)
            .map_err(|_| CoreError::internal("a stored signing key is not base64"))?;
        SshPrivateKey::from_pkcs8(der.expose()).map_err(failed)
    }
}

fn failed(error: SshKeyError) -> CoreError {
    CoreError::internal(format!("a signing key failed: {error}"))
}

/// The kind of key that these fields ask for.
pub(super) fn key_type(fields: &Fields, rsa_default: u64) -> Result<SshKeyType, CoreError> {
    let kind = fields.text("key_type")?.unwrap_or_default();
    let bits = fields.integer("key_bits")?.unwrap_or(0);
    let ec = |bits| match bits {
        0 | 256 => Ok(SshKeyType::Ecdsa(SshCurve::P256)),
        384 => Ok(SshKeyType::Ecdsa(SshCurve::P384)),
        521 => Ok(SshKeyType::Ecdsa(SshCurve::P521)),
        _ => Err(CoreError::field("key_bits", "must be 256, 384 or 521")),
    };
    let fixed = |kind, only: u64| {
        if bits == 0 || bits == only {
            Ok(kind)
        } else {
            Err(CoreError::field("key_bits", "does not go with that key_type"))
        }
    };
    match kind.as_str() {
        "" | "ed25519" | "ssh-ed25519" => fixed(SshKeyType::Ed25519, 256),
        "ec" | "ecdsa" => ec(bits),
        "ecdsa-p256" | "ecdsa-sha2-nistp256" => fixed(SshKeyType::Ecdsa(SshCurve::P256), 256),
        "ecdsa-p384" | "ecdsa-sha2-nistp384" => fixed(SshKeyType::Ecdsa(SshCurve::P384), 384),
        "ecdsa-p521" | "ecdsa-sha2-nistp521" => fixed(SshKeyType::Ecdsa(SshCurve::P521), 521),
        "rsa-3072" => fixed(SshKeyType::Rsa3072, 3072),
        "rsa-4096" => fixed(SshKeyType::Rsa4096, 4096),
        "rsa" | "ssh-rsa" => match if bits == 0 { rsa_default } else { bits } {
            2048 => Ok(SshKeyType::Rsa2048),
            3072 => Ok(SshKeyType::Rsa3072),
            4096 => Ok(SshKeyType::Rsa4096),
            _ => Err(CoreError::field("key_bits", "must be 2048, 3072 or 4096")),
        },
        _ => Err(CoreError::field("key_type", "must be ed25519, ec or rsa")),
    }
}

/// Refuses keys that may be signed but should not sign.
fn strong(key: &SshPublicKey, field: &'static str) -> Result<(), CoreError> {
    match key.kind() {
        SshKind::Rsa(bits) if bits < RSA_BITS_MIN => {
            Err(CoreError::field(field, "must be of 3072 bits or more to sign certificates"))
        }
        SshKind::Rsa(_) | SshKind::Ed25519 | SshKind::Ecdsa(_) => Ok(()),
        SshKind::SkEcdsa | SshKind::SkEd25519 => {
            Err(CoreError::field(field, "is in a security key, and cannot sign here"))
        }
    }
}

async fn stored(ctx: &EngineContext<'_>) -> Result<Option<CaRecord>, CoreError> {
    let entry: Option<Entry<CaRecord>> = ctx.view.get(RECORD).await?;
    Ok(entry.map(|entry| entry.value))
}

/// The signing key.
pub(super) async fn load(ctx: &EngineContext<'_>) -> Result<CaRecord, CoreError> {
    let record = stored(ctx).await?;
    record.ok_or_else(|| CoreError::invalid("there is no signing key yet: write config/ca"))
}

impl SshEngine {
    pub(super) async fn write_ca(
        &self,
        ctx: &EngineContext<'_>,
        fields: &Fields,
    ) -> Result<Reply, CoreError> {
        let given = |text: &String| !text.trim().is_empty();
        let private = fields.text("private_key")?.filter(given).map(Zeroizing::new);
        let public = fields.text("public_key")?.filter(given);
        let generate = fields.boolean("generate_signing_key")?;
        let generate = generate.unwrap_or(private.is_none() && public.is_none());
        if stored(ctx).await?.is_some() {
            return Err(CoreError::invalid("there is a signing key already; delete it first"));
        }
        let key = match private {
            Some(_) if generate => {
                return Err(CoreError::field("private_key", "excludes generate_signing_key"));
            }
            Some(text) => {
                let text = SecretString::new(text.as_str().to_owned());
                let key = self.making.run(move || {
                    SshPrivateKey::import(&text)
                        .map_err(|error| CoreError::field("private_key", error.to_string()))
                });
                key.await??
            }
            None if generate => {
                let kind = key_type(fields, 4096)?;
                if kind == SshKeyType::Rsa2048 {
                    return Err(CoreError::field("key_bits", "must be 3072 or 4096 to sign"));
                }
                self.making.run(move || SshPrivateKey::generate(kind).map_err(failed)).await??
            }
            None => return Err(CoreError::field("private_key", "is required")),
        };
        strong(key.public(), "private_key")?;
        if let Some(line) = public {
            let expected = SshPublicKey::parse(&line)
                .map_err(|error| CoreError::field("public_key", error.to_string()))?;
            if &expected != key.public() {
                return Err(CoreError::field("public_key", "is not that of the private_key"));
            }
        }
        let record = CaRecord::of(&key)?;
        // Of two that do this at once, one finds the other's.
        ctx.view.write(RECORD, &record, Precondition::Absent).await?;
        if generate {
            Ok(Reply::data(json!({ "public_key": record.public_key })))
        } else {
            Ok(Reply::empty())
        }
    }
}

pub(super) async fn read(ctx: &EngineContext<'_>) -> Result<Reply, CoreError> {
    Ok(Reply::data(json!({ "public_key": load(ctx).await?.public_key })))
}

pub(super) async fn remove(ctx: &EngineContext<'_>) -> Result<Reply, CoreError> {
    ctx.view.remove(RECORD).await?;
    Ok(Reply::empty())
}

/// The public half as `TrustedUserCAKeys` wants it.
pub(super) async fn public_key(ctx: &EngineContext<'_>) -> Result<Reply, CoreError> {
    let record = stored(ctx).await?.ok_or(CoreError::NotFound)?;
    let body = format!("{}\n", record.public_key).into_bytes();
    let content_type = "text/plain; charset=utf-8";
    Ok(Reply::empty().shaped(Shape::Raw { content_type, body }))
}
