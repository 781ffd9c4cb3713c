//! Making tokens.

use crate::core::acl::permit::Permit;
use crate::core::caller::Via;
use crate::core::context::SystemContext;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::policy::PolicyName;
use crate::core::reply::Reply;
use crate::core::scope::ScopeSet;
use crate::core::token::{
    LeaseOwner, NewLifetime, NewToken, TokenKind, TokenRole, policy_names, with_default,
};
use crate::types::time::{Timestamp, Ttl};

/// Most notes on one token.
const META_MAX: usize = 64;
/// Longest note, key and value together, in bytes.
const META_BYTES_MAX: usize = 1024;
/// Longest name for people, in bytes.
const DISPLAY_NAME_BYTES_MAX: usize = 128;

/// `create` and `create-orphan`.
pub(super) async fn plain(
    ctx: &SystemContext<'_>,
    permit: &Permit,
    fields: &Fields,
    orphan: bool,
) -> Result<Reply, CoreError> {
    Creation { ctx, permit, fields, role: None, orphan }.run().await
}

/// `create/:role`.
pub(super) async fn by_role(
    ctx: &SystemContext<'_>,
    permit: &Permit,
    fields: &Fields,
    name: &str,
) -> Result<Reply, CoreError> {
    let role = ctx.unsealed.tokens.roles().get(name).await?;
    let role = role.ok_or_else(|| CoreError::invalid(format!("unknown role {name}")))?;
    Creation { ctx, permit, fields, role: Some((name, &role)), orphan: role.orphan }.run().await
}

struct Creation<'c> {
    ctx: &'c SystemContext<'c>,
    permit: &'c Permit,
    fields: &'c Fields,
    role: Option<(&'c str, &'c TokenRole)>,
    orphan: bool,
}

impl Creation<'_> {
    async fn run(&self) -> Result<Reply, CoreError> {
        self.refuse_by_caller()?;
        let asked = self.asked_policies()?;
        let inherits_identity = asked.is_none() && self.inherits_identity();
        let policies = self.policies(asked)?;
        let scopes = self.scopes()?;
        self.refuse_root(&policies, &scopes)?;
        let missing = self.missing(&policies).await?;
        let new = self.token(policies, scopes, inherits_identity)?;
        if let Some(entity) = &self.ctx.caller.entity {
            self.ctx.unsealed.identity.ensure(entity).await?;
        }
        let issued = self.ctx.unsealed.tokens.create(new).await?;
        let identity_policies =
            if inherits_identity { self.ctx.caller.identity_policies.clone() } else { Vec::new() };
        let mut warnings = issued.warnings.clone();
        warnings.extend(missing.iter().map(|name| format!("Policy \"{name}\" does not exist")));
        let mut reply = Reply::auth(issued.into_auth(identity_policies));
        reply.warnings = warnings;
        Ok(reply)
    }

    fn sudo(&self) -> bool {
        self.permit.sudo() || self.ctx.caller.is_root()
    }

    fn refuse_by_caller(&self) -> Result<(), CoreError> {
        match &self.ctx.caller.via {
            Via::Certificate { .. } => Ok(()),
            Via::Nobody => Err(CoreError::denied("nobody cannot create tokens")),
            Via::Token(token) if token.entry.token_type == TokenKind::Batch => {
                Err(CoreError::invalid("batch tokens cannot create more tokens"))
            }
            Via::Token(token) if token.entry.uses_left.is_some() => {
                Err(CoreError::invalid("restricted use token cannot generate child tokens"))
            }
            Via::Token(_) => Ok(()),
        }
    }

    fn inherits_identity(&self) -> bool {
        match &self.ctx.caller.via {
            Via::Certificate { .. } => self.role.is_none(),
            Via::Token(token) => self.role.is_none() && token.entry.inherits_identity,
            Via::Nobody => false,
        }
    }

    fn asked_policies(&self) -> Result<Option<Vec<String>>, CoreError> {
        let Some(list) = self.fields.list("policies")? else { return Ok(None) };
        let names = policy_names("policies", &list)?;
        Ok(Some(names).filter(|names| !names.is_empty()))
    }

    /// The policies of the new token: never more than the caller's, unless a role lists them or the
    /// caller has sudo here.
    fn policies(&self, asked: Option<Vec<String>>) -> Result<Vec<String>, CoreError> {
        let caller = self.ctx.caller;
        let explicit = asked.is_some();
        let no_default = self.fields.boolean("no_default_policy")?.unwrap_or(false)
            || self.role.is_some_and(|(_, role)| role.no_default_policy || !role.allows("default"));
        let names = match (asked, self.role) {
            (Some(asked), _) => asked,
            (None, Some((_, role))) if role.names_allowed() => role.allowed_policies.clone(),
            (None, Some((_, role))) => {
                let own = caller.token_policies.iter();
                own.filter(|name| role.allows(name)).cloned().collect()
            }
            (None, None) => caller.token_policies.clone(),
        };
        if let Some((name, role)) = self.role
            && let Some(refused) = names.iter().find(|policy| !role.allows(policy))
        {
            return Err(CoreError::invalid(format!("role {name} does not allow policy {refused}")));
        }
        let listed_by_role = self.role.is_some_and(|(_, role)| role.names_allowed());
        if explicit && !listed_by_role && !self.sudo() {
            let own = caller.policies();
            if !names.iter().all(|name| own.contains(name)) {
                return Err(CoreError::invalid("child policies must be subset of parent"));
            }
        }
        if names.iter().any(|name| name == "root") {
            return Ok(names);
        }
        let names = if no_default {
            names.into_iter().filter(|name| name != "default" || explicit).collect()
        } else {
            names
        };
        // A caller without the default policy does not get it by way of a child.
        let lacks =
            !self.sudo() && !listed_by_role && !caller.policies().iter().any(|n| n == "default");
        Ok(with_default(&names, no_default || lacks))
    }

    /// The scopes of the new token: within what the caller may do, and never wider than its own.
    fn scopes(&self) -> Result<Vec<String>, CoreError> {
        let caller = self.ctx.caller;
        let own = caller.token().map(|token| token.entry.scopes.as_slice()).unwrap_or_default();
        let Some(asked) = self.fields.list("scopes")? else { return Ok(own.to_vec()) };
        let refused = |error: crate::core::scope::ScopeError| CoreError::invalid(error.to_string());
        let asked = ScopeSet::parse(&asked).map_err(refused)?;
        caller.acl.covers(&asked).map_err(refused)?;
        Ok(asked.to_texts())
    }

    /// The root policy goes only from an unnarrowed root to its child, or on within scopes.
    fn refuse_root(&self, policies: &[String], scopes: &[String]) -> Result<(), CoreError> {
        let caller = self.ctx.caller;
        if !policies.iter().any(|name| name == "root") {
            return Ok(());
        }
        let had = caller.token_policies.iter().any(|name| name == "root");
        if self.role.is_none() && had && (caller.is_root() || !scopes.is_empty()) {
            return Ok(());
        }
        Err(CoreError::invalid("root tokens may not be created without parent token being root"))
    }

    async fn missing(&self, policies: &[String]) -> Result<Vec<String>, CoreError> {
        let mut missing = Vec::new();
        for name in policies {
            let Ok(parsed) = PolicyName::parse(name) else { continue };
            if !self.ctx.unsealed.policies.exists(&parsed).await? {
                missing.push(name.clone());
            }
        }
        Ok(missing)
    }

    fn token(
        &self,
        policies: Vec<String>,
        scopes: Vec<String>,
        inherits_identity: bool,
    ) -> Result<NewToken, CoreError> {
        let caller = self.ctx.caller;
        let role = self.role.map(|(_, role)| role);
        let kind = self.kind()?;
        let own = caller.token();
        let lifetime = self.lifetime(&policies, &scopes)?;
        let num_uses = match (self.fields.integer("num_uses")?.unwrap_or(0), role) {
            (asked, Some(role)) if role.num_uses > 0 && (asked == 0 || asked > role.num_uses) => {
                role.num_uses
            }
            (asked, _) => asked,
        };
        Ok(NewToken {
            kind,
            chosen: self.chosen()?,
            parent: self.parent()?,
            policies,
            inherits_identity,
            scopes,
            entity_id: caller.entity.as_ref().map(|entity| entity.id.clone()),
            meta: self.meta()?,
            display_name: self.display_name()?,
            path: self.path(),
            role: self.role.map(|(name, _)| name.to_owned()),
            mount: None,
            auth_role: None,
            auth_alias: None,
            groups: caller.external.clone(),
            lifetime,
            num_uses,
            renewable: self.fields.boolean("renewable")?.unwrap_or(true)
                && role.is_none_or(|role| role.renewable),
            bound_cidrs: match (role, &caller.via) {
                (Some(role), _) if !role.bound_cidrs.is_empty() => role.bound_cidrs.clone(),
                (_, Via::Certificate { grant, .. }) => grant.token.bound_cidrs.clone(),
                _ => own.map(|token| token.entry.bound_cidrs.clone()).unwrap_or_default(),
            },
            bound_certificate: self.bound_certificate()?,
            lease_owner: self.lease_owner()?,
        })
    }

    fn kind(&self) -> Result<TokenKind, CoreError> {
        let asked = match self.fields.text("type")?.as_deref() {
            None | Some("" | "default") => None,
            Some("service") => Some(TokenKind::Service),
            Some("batch") => Some(TokenKind::Batch),
            Some(_) => return Err(CoreError::field("type", "must be service or batch")),
        };
        Ok(match self.role {
            Some((_, role)) => role.token_type.kind(asked),
            None => asked.unwrap_or(TokenKind::Service),
        })
    }

    fn chosen(&self) -> Result<Option<crate::types::secret::SecretString>, CoreError> {
        let chosen = self.fields.secret("id")?.filter(|id| !id.expose().is_empty());
        if chosen.is_some() && !self.ctx.caller.is_root() {
            return Err(CoreError::invalid("root privileges required to specify token id"));
        }
        Ok(chosen)
    }

    fn parent(&self) -> Result<Option<String>, CoreError> {
        let asked = self.fields.boolean("no_parent")?.unwrap_or(false);
        if asked && !self.orphan && !self.sudo() {
            return Err(CoreError::invalid(
                "root or sudo privileges required to create orphan token",
            ));
        }
        if asked || self.orphan {
            return Ok(None);
        }
        Ok(self.ctx.caller.token().and_then(|token| token.stored_name()).map(str::to_owned))
    }

    /// `None` for a root token that never ends.
    fn lifetime(
        &self,
        policies: &[String],
        scopes: &[String],
    ) -> Result<Option<NewLifetime>, CoreError> {
        let settings = &self.ctx.core.settings;
        let wanted = match self.fields.duration("ttl")? {
            Some(ttl) => ttl,
            None => self.fields.duration("lease")?.unwrap_or(Ttl::ZERO),
        };
        let asked_period = self.fields.duration("period")?.unwrap_or(Ttl::ZERO);
        if !asked_period.is_zero() && !self.sudo() {
            return Err(CoreError::invalid(
                "root or sudo privileges required to create periodic token",
            ));
        }
        let asked_max = self.fields.duration("explicit_max_ttl")?.unwrap_or(Ttl::ZERO);
        let role = self.role.map(|(_, role)| role);
        let explicit_max = asked_max
            .limited_by(role.map_or(Ttl::ZERO, |role| role.explicit_max_ttl))
            .limited_by(self.identity_maximum());
        // A role's period is the role's to give; nobody gets a longer one by asking.
        let period = match role {
            Some(role) if !role.period.is_zero() => role.period,
            Some(_) | None => asked_period,
        };
        let bounded = !wanted.is_zero() || !period.is_zero() || !explicit_max.is_zero();
        if policies.iter().any(|name| name == "root") && scopes.is_empty() && !bounded {
            return Ok(None);
        }
        Ok(Some(NewLifetime {
            wanted,
            default_ttl: self.identity_default().or(settings.default_ttl),
            role_max: Ttl::ZERO,
            mount_max: settings.max_ttl,
            explicit_max,
            period,
            not_after: self.ground(),
        }))
    }

    /// The longest that tokens of the caller's cert role live. A caller by certificate has no token
    /// whose end would bound this one.
    fn identity_maximum(&self) -> Ttl {
        match &self.ctx.caller.via {
            Via::Certificate { grant, .. } => {
                grant.token.max_ttl.limited_by(grant.token.explicit_max_ttl)
            }
            Via::Token(_) | Via::Nobody => Ttl::ZERO,
        }
    }

    fn identity_default(&self) -> Ttl {
        match &self.ctx.caller.via {
            Via::Certificate { grant, .. } => grant.token.ttl,
            Via::Token(_) | Via::Nobody => Ttl::ZERO,
        }
    }

    /// When the certificate ends that all of this rests on. Orphans rest on it too.
    fn ground(&self) -> Option<Timestamp> {
        match &self.ctx.caller.via {
            Via::Certificate { grant, .. } => grant.not_after,
            Via::Token(token) => token.entry.not_after,
            Via::Nobody => None,
        }
    }

    fn meta(&self) -> Result<std::collections::BTreeMap<String, String>, CoreError> {
        let mut meta = self.fields.string_map("meta")?;
        if meta.is_none() {
            meta = self.fields.string_map("metadata")?;
        }
        let meta = meta.unwrap_or_default();
        let long = meta.iter().any(|(key, value)| key.len() + value.len() > META_BYTES_MAX);
        if long || meta.len() > META_MAX {
            return Err(CoreError::field(
                "meta",
                "has more than 64 elements, or one beyond 1024 bytes",
            ));
        }
        Ok(meta)
    }

    fn display_name(&self) -> Result<String, CoreError> {
        let asked = self.fields.text("display_name")?.unwrap_or_default();
        if asked.len() > DISPLAY_NAME_BYTES_MAX {
            return Err(CoreError::field("display_name", "is longer than 128 bytes"));
        }
        let plain: String =
            asked.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let plain = plain.trim_matches('-');
        Ok(if plain.is_empty() { "token".to_owned() } else { format!("token-{plain}") })
    }

    fn path(&self) -> String {
        match self.role {
            None if self.orphan => "auth/token/create-orphan".to_owned(),
            None => "auth/token/create".to_owned(),
            Some((name, role)) if role.path_suffix.is_empty() => {
                format!("auth/token/create/{name}")
            }
            Some((name, role)) => format!("auth/token/create/{name}/{}", role.path_suffix),
        }
    }

    fn bound_certificate(&self) -> Result<Option<[u8; 32]>, CoreError> {
        if self.fields.boolean("bind_certificate")? != Some(true) {
            return Ok(None);
        }
        let peer = self.ctx.connection.peer.as_ref().ok_or_else(|| {
            CoreError::field("bind_certificate", "needs a connection with a certificate")
        })?;
        Ok(Some(*peer.fingerprint()))
    }

    fn lease_owner(&self) -> Result<LeaseOwner, CoreError> {
        if self.fields.text("entity_alias")?.is_some_and(|alias| !alias.is_empty()) {
            return Err(CoreError::field("entity_alias", "is not supported"));
        }
        match self.fields.text("lease_owner")?.as_deref() {
            None | Some("") => Ok(LeaseOwner::Token),
            Some(text) => LeaseOwner::parse(text)
                .ok_or_else(|| CoreError::field("lease_owner", "must be token or entity")),
        }
    }
}
