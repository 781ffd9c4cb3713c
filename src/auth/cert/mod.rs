//! The `cert` method: who one is, by the certificate of the connection.
//!
//! | Path | |
//! |---|---|
//! | `certs/:name` | roles: which certificates, trusted by whom, get which policies |
//! | `crls/:name` | revocation lists, beside those of the configuration |
//! | `config` | settings of the mount |
//! | `login` | a token for clients that want one; bound to the certificate |
//!
//! Without a token, the certificate itself is the identity of every request: nothing is written.
//! Either way a certificate must match exactly one role, unless a log-in names one. Whether its chain
//! is trusted is asked of the trust store each time, role by role: a role with certificates of its own
//! trusts those alone.
//!
//! The identity is named by the SPIFFE ID, else a DNS name, else a URI, else an e-mail address, else
//! the common name. All but SPIFFE IDs carry the source of trust, so that equal names from two
//! sources are two identities.

mod crl;
mod matching;
mod role;
mod settings;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use crate::core::acl::permit::Permit;
use crate::core::crl_source::CrlSource;
use crate::core::engine::{
    AuthMethod, AuthOutcome, AuthRequest, EngineContext, Grant, MountFacts, Recognition, Renewal,
};
use crate::core::error::CoreError;
use crate::core::operation::Operation;
use crate::core::peer::VerifiedPeer;
use crate::core::reply::Reply;
use crate::core::route::{Answer, FieldKind, Params, RouteSpec, field, route};
use crate::core::token::{with_shown_token_fields, with_token_fields};
use crate::core::trust::{RoleTrust, TrustStore, TrustVerdict};
use crate::core::view::Entry;
use crate::crypto::x509::crl::Crls;

use crl::StoredCrl;
use matching::{Compiled, Refusal};
use role::CertRole;
use settings::Settings;

/// Most roles of one mount.
const ROLES_MAX: usize = 4096;
/// Most refusals spelled out in one audit entry.
const REASONS_MAX: usize = 8;

static ROUTES: &[RouteSpec] = &[
    route(
        "cert-role",
        "certs/:name",
        "A role: which certificates get which policies.",
        &[Operation::Create, Operation::Read, Operation::Update, Operation::Delete],
        with_token_fields![
            field(
                "allowed_common_names",
                FieldKind::List,
                "Patterns, one of which the common name matches."
            ),
            field(
                "allowed_dns_sans",
                FieldKind::List,
                "Patterns, one of which some DNS name matches."
            ),
            field(
                "allowed_email_sans",
                FieldKind::List,
                "Patterns, one of which some e-mail name matches."
            ),
            field(
                "allowed_metadata_extensions",
                FieldKind::List,
                "Extensions (OID) noted as metadata."
            ),
            field(
                "allowed_organizational_units",
                FieldKind::List,
                "Patterns, one of which some unit matches."
            ),
            field(
                "allowed_uri_sans",
                FieldKind::List,
                "Patterns, one of which some URI or SPIFFE ID matches."
            ),
            field(
                "certificate",
                FieldKind::Text,
                "PEM: CAs to trust, or certificates to accept by themselves."
            ),
            field("display_name", FieldKind::Text, "Name for people."),
            field("ocsp_enabled", FieldKind::Boolean, "Not supported: must be false."),
            field(
                "required_extensions",
                FieldKind::List,
                "oid:pattern pairs, all of which must match."
            ),
            field(
                "trust_domain",
                FieldKind::Text,
                "Trust this configured bundle or trust domain alone."
            ),
        ],
    )
    .reads(Answer::Data(with_shown_token_fields![
        field("allowed_common_names", FieldKind::List, "Patterns for the common name."),
        field("allowed_dns_sans", FieldKind::List, "Patterns for DNS names."),
        field("allowed_email_sans", FieldKind::List, "Patterns for e-mail names."),
        field("allowed_metadata_extensions", FieldKind::List, "Extensions (OID) noted."),
        field("allowed_organizational_units", FieldKind::List, "Patterns for the units."),
        field("allowed_uri_sans", FieldKind::List, "Patterns for URIs and SPIFFE IDs."),
        field("certificate", FieldKind::Text, "PEM: CAs, or certificates accepted by themselves."),
        field("display_name", FieldKind::Text, "Name for people."),
        field("ocsp_enabled", FieldKind::Boolean, "Always false."),
        field("required_extensions", FieldKind::List, "oid:pattern pairs, all of which match."),
        field("trust_domain", FieldKind::Text, "The one bundle or trust domain that is trusted."),
    ])),
    route("cert-roles", "certs", "The names of the roles.", &[Operation::List], &[]),
    route(
        "crl",
        "crls/:name",
        "A certificate revocation list.",
        &[Operation::Create, Operation::Read, Operation::Update, Operation::Delete],
        &[
            field("crl", FieldKind::Text, "The list, in PEM."),
            field(
                "url",
                FieldKind::Text,
                "Where the list is instead: fetched now, and again before it is stale.",
            ),
            field(
                "on_expiry",
                FieldKind::Text,
                "refuse (default) or accept: what a stale list is worth.",
            ),
        ],
    )
    .reads(Answer::Data(&[
        field("failure", FieldKind::Text, "Why the last fetch failed.").or_null().if_any(),
        field("fetched_at", FieldKind::Time, "When it was last fetched.").or_null().if_any(),
        field("issued_at", FieldKind::Time, "When it was issued.").or_null(),
        field("next_update", FieldKind::Time, "When it is stale.").or_null(),
        field("on_expiry", FieldKind::Text, "refuse or accept: what it is worth then."),
        field("revoked_count", FieldKind::Integer, "How many certificates it names."),
        field("serials", FieldKind::Map, "Their serial numbers; of very many the first."),
        field("url", FieldKind::Text, "Where it is fetched.").if_any(),
    ])),
    route("crls", "crls", "The names of the revocation lists.", &[Operation::List], &[]),
    route(
        "cert-config",
        "config",
        "Settings of the mount.",
        &[Operation::Read, Operation::Update],
        &[
            field("disable_binding", FieldKind::Boolean, "Do not bind tokens to the certificate."),
            field(
                "enable_identity_alias_metadata",
                FieldKind::Boolean,
                "Note the certificate's facts with the identity.",
            ),
        ],
    )
    .reads(Answer::Data(&[
        field("disable_binding", FieldKind::Boolean, "Whether tokens are not bound."),
        field(
            "enable_identity_alias_metadata",
            FieldKind::Boolean,
            "Whether the identity is noted with the certificate's facts.",
        ),
    ])),
    route(
        "cert-login",
        "login",
        "A token for the certificate of the connection.",
        &[Operation::Update],
        &[field("name", FieldKind::Text, "The role; without it exactly one must match.")],
    )
    .public()
    .writes(Answer::Token),
];

/// Everything that a decision needs, parsed once.
struct Loaded {
    roles: Vec<Compiled>,
    settings: Settings,
}

/// One mount of the method.
pub struct CertMethod {
    trust: Arc<TrustStore>,
    crl_source: Arc<dyn CrlSource>,
    /// What the trust store knows this mount by.
    mount: String,
    loaded: ArcSwapOption<Loaded>,
    /// Held while roles or lists change, so that what is loaded last is what was stored last.
    changing: Mutex<()>,
}

impl CertMethod {
    /// For the mount with these facts; role CAs and lists go into `trust`, and lists that are named by
    /// a URL come from `crl_source`.
    pub fn new(trust: Arc<TrustStore>, crl_source: Arc<dyn CrlSource>, mount: &MountFacts) -> Self {
        Self {
            trust,
            crl_source,
            mount: mount.accessor.as_str().to_owned(),
            loaded: ArcSwapOption::empty(),
            changing: Mutex::new(()),
        }
    }

    async fn loaded(&self, ctx: &EngineContext<'_>) -> Result<Arc<Loaded>, CoreError> {
        if let Some(loaded) = self.loaded.load_full() {
            return Ok(loaded);
        }
        let _changing = self.changing.lock().await;
        match self.loaded.load_full() {
            Some(loaded) => Ok(loaded),
            None => self.reload(ctx).await,
        }
    }

    /// Parses everything anew and tells the trust store. With `changing` held.
    async fn reload(&self, ctx: &EngineContext<'_>) -> Result<Arc<Loaded>, CoreError> {
        let mut roles = Vec::new();
        for (name, entry) in ctx.view.entries::<CertRole>("role/").await? {
            let name = name.strip_prefix("role/").unwrap_or(&name);
            roles.push(Compiled::new(name, entry.value)?);
        }
        let mut crls = Crls::none();
        for (_, entry) in ctx.view.entries::<StoredCrl>("crl/").await? {
            entry.value.add_to(&mut crls)?;
        }
        let anchored = roles.iter().filter_map(|role| {
            let (anchors, pinned) = role.own_trust()?;
            Some(RoleTrust {
                role: role.name().into(),
                anchors: anchors.clone(),
                pinned: pinned.to_vec(),
            })
        });
        self.trust.set_role_anchors(&self.mount, anchored.collect());
        self.trust.set_role_crls(&self.mount, crls);
        let settings = Settings::stored(ctx).await?;
        let loaded = Arc::new(Loaded { roles, settings });
        self.loaded.store(Some(loaded.clone()));
        Ok(loaded)
    }

    /// The one role that matches, or the named one if it does; else why none does.
    ///
    /// # Errors
    /// `Denied` when several match.
    fn choose<'l>(
        &self,
        loaded: &'l Loaded,
        peer: &VerifiedPeer,
        verdict: &TrustVerdict,
        named: Option<&str>,
    ) -> Result<Result<&'l Compiled, String>, CoreError> {
        let mut matching = Vec::new();
        let mut refusals = Vec::new();
        for role in loaded.roles.iter().filter(|role| named.is_none_or(|name| role.name() == name))
        {
            match role.judge(&self.mount, peer, verdict) {
                Ok(()) => matching.push(role),
                Err(refusal) => refusals.push((role.name(), refusal)),
            }
        }
        match matching.as_slice() {
            [role] => Ok(Ok(role)),
            [] => Ok(Err(no_match(named, &refusals))),
            several => {
                let names: Vec<_> = several.iter().map(|role| role.name()).collect();
                Err(CoreError::denied(format!(
                    "the certificate matches several roles: {}",
                    names.join(", ")
                )))
            }
        }
    }

    async fn recognise(
        &self,
        ctx: &EngineContext<'_>,
        peer: &Arc<VerifiedPeer>,
        named: Option<&str>,
    ) -> Result<Recognition, CoreError> {
        let loaded = self.loaded(ctx).await?;
        let verdict = match self.trust.judge(peer, ctx.clock.now()) {
            Ok(verdict) => verdict,
            Err(error) => return Ok(Recognition::Unknown(format!("certificate: {error}"))),
        };
        Ok(match self.choose(&loaded, peer, &verdict, named)? {
            Err(reason) => Recognition::Unknown(reason),
            Ok(role) => match role.grant(peer, &verdict, &loaded.settings) {
                Ok(grant) => Recognition::Known(Box::new(grant)),
                Err(refusal) => Recognition::Unknown(format!("role {}: {refusal}", role.name())),
            },
        })
    }

    async fn grant(
        &self,
        ctx: &EngineContext<'_>,
        peer: &Arc<VerifiedPeer>,
        named: Option<&str>,
    ) -> Result<Grant, CoreError> {
        match self.recognise(ctx, peer, named).await? {
            Recognition::Known(grant) => Ok(*grant),
            Recognition::Unknown(reason) => Err(CoreError::denied(reason)),
            Recognition::NotConcerned => Err(CoreError::Unsupported),
        }
    }

    async fn serve_role(
        &self,
        ctx: &EngineContext<'_>,
        request: &AuthRequest<'_>,
    ) -> Result<Reply, CoreError> {
        let name = request.params.get("name");
        let at = format!("role/{name}");
        match request.operation {
            Operation::Read => {
                let role = ctx.view.get::<CertRole>(&at).await?.ok_or(CoreError::NotFound)?;
                Ok(Reply::data(Value::Object(role.value.to_json())))
            }
            Operation::Delete => {
                let _changing = self.changing.lock().await;
                ctx.view.remove(&at).await?;
                self.reload(ctx).await?;
                Ok(Reply::empty())
            }
            Operation::Create | Operation::Update => {
                let _changing = self.changing.lock().await;
                let before = ctx.view.get_fresh::<CertRole>(&at).await?;
                let count = self.loaded.load().as_ref().map_or(0, |loaded| loaded.roles.len());
                if before.is_none() && count >= ROLES_MAX {
                    return Err(CoreError::invalid("there are too many roles"));
                }
                let precondition = Entry::expected(before.as_ref());
                let role = before.map(|entry| entry.value).unwrap_or_default();
                let role = role.updated(&request.fields)?;
                let role = Compiled::new(name, role)?.into_role();
                ctx.view.write(&at, &role, precondition).await?;
                self.reload(ctx).await?;
                Ok(Reply::empty())
            }
            Operation::List | Operation::Patch => Err(CoreError::Unsupported),
        }
    }

    async fn serve_config(
        &self,
        ctx: &EngineContext<'_>,
        request: &AuthRequest<'_>,
    ) -> Result<Reply, CoreError> {
        if request.operation == Operation::Read {
            return Ok(Reply::data(Settings::stored(ctx).await?.to_json()));
        }
        let _changing = self.changing.lock().await;
        Settings::update(ctx, &request.fields).await?;
        self.reload(ctx).await?;
        Ok(Reply::empty())
    }
}

#[async_trait]
impl AuthMethod for CertMethod {
    fn routes(&self) -> &'static [RouteSpec] {
        ROUTES
    }

    async fn exists(
        &self,
        ctx: &EngineContext<'_>,
        route: &'static RouteSpec,
        params: &Params<'_>,
    ) -> Result<Option<bool>, CoreError> {
        let dir = match route.name {
            "cert-role" => "role",
            "crl" => "crl",
            _ => return Ok(None),
        };
        let found = ctx.view.get_record(&format!("{dir}/{}", params.get("name"))).await?;
        Ok(Some(found.is_some()))
    }

    async fn handle(
        &self,
        ctx: &EngineContext<'_>,
        _permit: &Permit,
        request: AuthRequest<'_>,
    ) -> Result<AuthOutcome, CoreError> {
        let reply = match request.route.name {
            "cert-login" => {
                let peer = request
                    .peer
                    .ok_or_else(|| CoreError::denied("the client presented no certificate"))?;
                let named = request.fields.text("name")?.filter(|name| !name.is_empty());
                let grant = self.grant(ctx, peer, named.as_deref()).await?;
                return Ok(AuthOutcome::Login(Box::new(grant)));
            }
            "cert-role" => self.serve_role(ctx, &request).await?,
            "cert-roles" => Reply::listing(ctx.view.list("role/").await?)?,
            "crl" => self.serve_crl(ctx, &request).await?,
            "crls" => Reply::listing(ctx.view.list("crl/").await?)?,
            "cert-config" => self.serve_config(ctx, &request).await?,
            _ => return Err(CoreError::NotFound),
        };
        Ok(reply.into())
    }

    async fn identify(
        &self,
        ctx: &EngineContext<'_>,
        peer: &Arc<VerifiedPeer>,
    ) -> Result<Recognition, CoreError> {
        self.recognise(ctx, peer, None).await
    }

    async fn renewal(
        &self,
        ctx: &EngineContext<'_>,
        renewal: Renewal<'_>,
    ) -> Result<Grant, CoreError> {
        let peer = renewal.peer;
        let peer = peer.ok_or_else(|| CoreError::denied("the client presented no certificate"))?;
        self.grant(ctx, peer, Some(renewal.role)).await
    }

    async fn load(&self, ctx: &EngineContext<'_>) -> Result<(), CoreError> {
        let _changing = self.changing.lock().await;
        self.reload(ctx).await.map(|_| ())
    }

    async fn refresh(&self, ctx: &EngineContext<'_>) -> Result<(), CoreError> {
        self.refresh_crls(ctx).await
    }

    fn unload(&self) {
        self.loaded.store(None);
        self.trust.set_role_anchors(&self.mount, Vec::new());
        self.trust.set_role_crls(&self.mount, Crls::none());
    }

    fn invalidate(&self) {
        self.loaded.store(None);
    }
}

fn no_match(named: Option<&str>, refusals: &[(&str, Refusal)]) -> String {
    if refusals.is_empty() {
        return match named {
            Some(_) => "there is no role of the name that the log-in gives".to_owned(),
            None => "there are no roles".to_owned(),
        };
    }
    let mut parts: Vec<_> = refusals
        .iter()
        .take(REASONS_MAX)
        .map(|(role, refusal)| format!("role {role}: {refusal}"))
        .collect();
    if let Some(more) = refusals.len().checked_sub(REASONS_MAX).filter(|more| *more > 0) {
        parts.push(format!("and {more} more"));
    }
    parts.join("; ")
}

/// The value of a JSON object literal.
fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    }
}

#[cfg(test)]
mod tests;
