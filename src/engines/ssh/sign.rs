//! Certificates: signed for a key of the caller's, or for a new one.

use serde_json::json;

use super::SshEngine;
use super::role::CaRole;
use super::{allowed, ca, revoked, role};
use crate::core::engine::{CallerFacts, EngineContext};
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::lifetime::Lifetime;
use crate::core::reply::Reply;
use crate::crypto::ssh::{
    SshCertificate, SshCertificateError, SshCertificateKind, SshPrivateKey, SshPublicKey,
};
use crate::types::secret::fill_random;
use crate::types::time::Ttl;

/// A certificate that was signed.
struct Signed {
    serial: u64,
    line: String,
    warning: Option<String>,
}

impl Signed {
    fn serial_number(&self) -> String {
        format!("{:016x}", self.serial)
    }
}

impl SshEngine {
    pub(super) async fn sign(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        caller: &CallerFacts,
        fields: &Fields,
    ) -> Result<Reply, CoreError> {
        let role = role::load_ca(ctx, name).await?;
        let key = SshPublicKey::parse(&fields.required_text("public_key")?)
            .map_err(|error| CoreError::field("public_key", error.to_string()))?;
        let signed = self.certify(ctx, name, role, caller, key, fields).await?;
        let mut reply = Reply::data(json!({
            "serial_number": signed.serial_number(),
            "signed_key": format!("{}\n", signed.line),
        }));
        reply.warnings.extend(signed.warning);
        Ok(reply)
    }

    pub(super) async fn issue_pair(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        caller: &CallerFacts,
        fields: &Fields,
    ) -> Result<Reply, CoreError> {
        let role = role::load_ca(ctx, name).await?;
        let kind = ca::key_type(fields, 3072)?;
        let pair = self.making.run(move || SshPrivateKey::generate(kind).map_err(broken)).await??;
        let key = pair.public().clone();
        let signed = self.certify(ctx, name, role, caller, key, fields).await?;
        let mut reply = Reply::data(json!({
            "private_key": pair.to_openssh().map_err(broken)?.expose(),
            "private_key_type": pair.public().kind().algorithm(),
            "serial_number": signed.serial_number(),
            "signed_key": format!("{}\n", signed.line),
        }));
        reply.warnings.extend(signed.warning);
        Ok(reply)
    }

    async fn certify(
        &self,
        ctx: &EngineContext<'_>,
        role_name: &str,
        role: CaRole,
        caller: &CallerFacts,
        key: SshPublicKey,
        fields: &Fields,
    ) -> Result<Signed, CoreError> {
        role.check_key(key.kind())?;
        let role = role.resolved(&caller.identity)?;
        let kind = certificate_kind(&role, fields)?;
        let wanted = fields.list("valid_principals")?.unwrap_or_default();
        let principals = allowed::principals(&role, kind, wanted)?;
        let options = fields.string_map("critical_options")?.unwrap_or_default();
        let critical_options = allowed::critical_options(&role, kind, options)?;
        let extensions = fields.string_map("extensions")?.unwrap_or_default();
        let extensions = allowed::extensions(&role, kind, extensions)?;
        let wanted = fields.text("key_id")?;
        let key_id = allowed::key_id(&role, role_name, &caller.display_name, &key, wanted)?;
        let now = ctx.clock.now();
        let lifetime = Lifetime {
            issued_at: now,
            role_max: role.max_ttl,
            mount_max: ctx.mount.max_ttl,
            not_after: caller.expires_at,
            ..Lifetime::default()
        };
        let wanted = fields.duration("ttl")?.unwrap_or(Ttl::ZERO);
        let span = lifetime
            .initial(wanted, role.ttl.or(ctx.mount.default_ttl))
            .map_err(|over| CoreError::denied(over.to_string()))?;
        let valid_after = now.plus_millis(-role.not_before.as_millis());
        let ca = ca::load(ctx).await?;
        if self.standing(ctx).await?.revoked.has_key_id(ca.public_key(), &key_id) {
            return Err(CoreError::invalid("certificates with this key id are revoked"));
        }
        revoked::extend_horizon(ctx, span.expires_at).await?;
        let mut serial = [0u8; 8];
        fill_random(&mut serial)?;
        // Zero means that there is none.
        let serial = u64::from_be_bytes(serial).max(1);
        let line = self.signing.run(move || {
            let certificate = SshCertificate {
                key: &key,
                kind,
                serial,
                key_id: &key_id,
                principals: &principals,
                valid_after,
                valid_before: span.expires_at,
                critical_options: &critical_options,
                extensions: &extensions,
            };
            certificate.sign(&ca.key()?, role.rsa_signature()).map_err(refused)
        });
        Ok(Signed { serial, line: line.await??, warning: span.warning() })
    }
}

fn certificate_kind(role: &CaRole, fields: &Fields) -> Result<SshCertificateKind, CoreError> {
    let kind = fields.text("cert_type")?.unwrap_or_default();
    let (kind, allowed) = match kind.as_str() {
        "" | "user" => (SshCertificateKind::User, role.user_certificates),
        "host" => (SshCertificateKind::Host, role.host_certificates),
        _ => return Err(CoreError::field("cert_type", "must be user or host")),
    };
    if allowed {
        Ok(kind)
    } else {
        Err(CoreError::field("cert_type", "is not what the role signs"))
    }
}

fn broken(error: crate::crypto::ssh::SshKeyError) -> CoreError {
    CoreError::internal(format!("a key could not be made: {error}"))
}

/// What the role let through and OpenSSH would not read as it was meant.
fn refused(error: SshCertificateError) -> CoreError {
    match error {
        SshCertificateError::Key(error) => broken(error),
        SshCertificateError::Random(error) => error.into(),
        SshCertificateError::KeyId
        | SshCertificateError::Option
        | SshCertificateError::Principal
        | SshCertificateError::Principals
        | SshCertificateError::Span => CoreError::invalid(error.to_string()),
    }
}
