//! The ports that secret engines and auth methods implement, and that the core calls.
//!
//! An engine sees a storage view of its own mount, a clock, a permit and facts about the caller. It
//! never sees HTTP, tokens or other mounts. Credentials are issued in two steps, so that a lease row
//! names a credential before the target does: [`Engine::handle`] answers with a [`LeasePlan`], the
//! core makes it durable, then calls [`Engine::issue`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::types::id::{EntityId, MountAccessor};
use crate::types::secret::SecretString;
use crate::types::time::{Clock, Timestamp, Ttl};

use super::acl::permit::Permit;
use super::error::CoreError;
use super::fields::Fields;
use super::hold::HoldCell;
use super::operation::Operation;
use super::passwords::PasswordPolicies;
use super::peer::VerifiedPeer;
use super::policy::template::TemplateValues;
use super::records::CallerRow;
use super::reply::Reply;
use super::route::{Params, RouteSpec};
use super::view::View;

/// What an engine may know about its mount.
#[derive(Clone, Debug)]
pub struct MountFacts {
    /// Where it is mounted, with a slash at the end.
    pub path: String,
    /// Its lasting handle.
    pub accessor: MountAccessor,
    /// Options given at mount time (`version` for kv).
    pub options: BTreeMap<String, String>,
    /// Lifetime of leases that ask for none.
    pub default_ttl: Ttl,
    /// Longest lifetime of leases.
    pub max_ttl: Ttl,
}

impl MountFacts {
    /// What the display names of an auth mount begin with: its path below `auth/`.
    pub fn stem(&self) -> String {
        let path = self.path.trim_end_matches('/');
        path.strip_prefix("auth/").unwrap_or(path).replace('/', "-")
    }
}

/// What an engine may know about the caller.
#[derive(Clone, Debug, Default)]
pub struct CallerFacts {
    /// Name for people.
    pub display_name: String,
    /// The entity behind the caller.
    pub entity_id: Option<EntityId>,
    /// What templates of roles can say of that entity.
    pub identity: Arc<TemplateValues>,
    /// An opaque, stable stand-in for the caller's token (hex), or for its certificate identity when
    /// it came without a token. What cubbyhole stores by.
    pub private_key: String,
    /// Whether [`Engine::caller_gone`] will be called for `private_key`: not for batch tokens, whose
    /// end nothing records.
    pub end_is_told: bool,
    /// The row of the caller's token, for what must not outlive it; `None` when it has none.
    pub row: Option<CallerRow>,
    /// When the caller's own lifetime ends; nothing it is given may outlive this.
    pub expires_at: Option<Timestamp>,
}

/// What an engine works with.
pub struct EngineContext<'a> {
    /// Its mount.
    pub mount: &'a MountFacts,
    /// The store below its mount, and nothing else of the store.
    pub view: &'a View,
    /// The time.
    pub clock: &'a Arc<dyn Clock>,
    /// What may forbid to change or end anything that exists on a target.
    pub hold: &'a HoldCell,
}

impl EngineContext<'_> {
    /// A password by the password policy of that name. The policies are the server's, not the
    /// mount's: what an engine gets to see of them is what they generate.
    ///
    /// # Errors
    /// `Invalid` when there is no such policy.
    pub async fn password(&self, policy: &str) -> Result<SecretString, CoreError> {
        let policies = PasswordPolicies::new(self.view.records().clone());
        match policies.compiled(policy).await? {
            Some(policy) => Ok(policy.generate()?),
            None => Err(CoreError::invalid(format!(
                "there is no password policy {policy:?}: write sys/policies/password/{policy}, or \
                 name another"
            ))),
        }
    }
}

/// A request that was routed, judged and let through.
pub struct EngineRequest<'a> {
    /// What to do. `Create` and `Update` are told apart as [`Engine::exists`] said.
    pub operation: Operation,
    /// Which row of the engine's table matched.
    pub route: &'static RouteSpec,
    /// What its pattern captured.
    pub params: Params<'a>,
    /// Body and query.
    pub fields: Fields,
    /// Whether the body is a JSON merge patch (RFC 7396).
    pub merge_patch: bool,
    /// Who asks.
    pub caller: &'a CallerFacts,
}

/// A credential that is about to be issued.
#[derive(Debug, Serialize, Deserialize)]
pub struct LeasePlan {
    /// Wanted lifetime; zero for the mount's default.
    pub ttl: Ttl,
    /// The role's own limit; zero for the mount's.
    pub max_ttl: Ttl,
    /// Whether the lease can be renewed.
    pub renewable: bool,
    /// The engine's role: caps and searches go by mount and role.
    pub role: String,
    /// The system the credential lives on, unique within the mount. Revocations are grouped by it,
    /// limited in concurrency by it, and paused together when it is down.
    pub target: String,
    /// All that issuing, renewing and revoking need, the credential's chosen name included. Sealed
    /// in the store.
    pub data: Value,
}

/// A lease, as its engine sees it.
#[derive(Clone, Copy, Debug)]
pub struct LeaseFacts<'a> {
    /// The plan's data.
    pub data: &'a Value,
    /// The plan's role.
    pub role: &'a str,
    /// When the lease ends.
    pub expires_at: Timestamp,
}

/// What an engine wants done with a request.
#[expect(clippy::large_enum_variant, reason = "made once per request and moved at once")]
#[derive(Debug)]
pub enum Outcome {
    /// Answer this.
    Respond(Reply),
    /// Issue this credential under a lease.
    Issue(LeasePlan),
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Self::Respond(reply)
    }
}

/// Why a credential was not issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// It may exist, or come to exist, so it has to be revoked.
    #[error(transparent)]
    Failed(#[from] CoreError),
    /// Its target was never asked for it: there is nothing to take back.
    #[error(transparent)]
    NotBegun(CoreError),
}

impl IssueError {
    /// What the caller is told.
    pub fn into_cause(self) -> CoreError {
        match self {
            Self::Failed(cause) | Self::NotBegun(cause) => cause,
        }
    }
}

/// A kind of secrets: one instance per mount, made by the registry.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// The table of its paths. It routes, checks fields and describes the API.
    fn routes(&self) -> &'static [RouteSpec];

    /// Whether a mount that is in service may go on with these options. Asked before they are stored.
    ///
    /// # Errors
    /// `Invalid`, saying why not.
    fn accept_options(&self, _options: &BTreeMap<String, String>) -> Result<(), CoreError> {
        Ok(())
    }

    /// Whether a write would change something that exists. `None` when the route does not tell.
    ///
    /// # Errors
    /// When the store fails.
    async fn exists(
        &self,
        _ctx: &EngineContext<'_>,
        _route: &'static RouteSpec,
        _params: &Params<'_>,
    ) -> Result<Option<bool>, CoreError> {
        Ok(None)
    }

    /// Serves a request, or plans a credential. Must not touch a target to create a credential.
    ///
    /// # Errors
    /// What the caller did wrong, or what failed.
    async fn handle(
        &self,
        ctx: &EngineContext<'_>,
        permit: &Permit,
        request: EngineRequest<'_>,
    ) -> Result<Outcome, CoreError>;

    /// Creates the planned credential on its target and answers with its data. The lease row is
    /// durable by now; when this fails or the process dies, [`Engine::revoke`] is called with the plan,
    /// unless it says that the target was never asked.
    ///
    /// # Errors
    /// [`IssueError::NotBegun`] only when it is certain that nothing was or will be created.
    /// `Upstream` in either case when the target is down.
    async fn issue(
        &self,
        _ctx: &EngineContext<'_>,
        _lease: LeaseFacts<'_>,
    ) -> Result<Map<String, Value>, IssueError> {
        Err(IssueError::NotBegun(CoreError::Unsupported))
    }

    /// Tells the target that the lease now ends at `lease.expires_at`.
    ///
    /// # Errors
    /// `Upstream` when the target is down; the lease is then not prolonged.
    async fn renew(
        &self,
        _ctx: &EngineContext<'_>,
        _lease: LeaseFacts<'_>,
    ) -> Result<(), CoreError> {
        Ok(())
    }

    /// Makes the credential dead, its live sessions included. Succeeds when it never existed or is
    /// gone already.
    ///
    /// # Errors
    /// `Upstream` when the target is down; called again until it succeeds.
    async fn revoke(
        &self,
        _ctx: &EngineContext<'_>,
        _lease: LeaseFacts<'_>,
    ) -> Result<(), CoreError> {
        Err(CoreError::Unsupported)
    }

    /// Scheduled work of the mount, such as due rotations: does what is due and says when it wants to
    /// be called next (`None`: not before something changes). Idempotent; called after every change
    /// too, and never twice at once over all nodes, nor while a hold is in force.
    ///
    /// # Errors
    /// When something due could not be done; it is tried again.
    async fn tick(&self, _ctx: &EngineContext<'_>) -> Result<Option<Timestamp>, CoreError> {
        Ok(None)
    }

    /// A token, or certificate identity, with this [`CallerFacts::private_key`] is gone.
    ///
    /// # Errors
    /// When the store fails.
    async fn caller_gone(
        &self,
        _ctx: &EngineContext<'_>,
        _private_key: &str,
    ) -> Result<(), CoreError> {
        Ok(())
    }

    /// Another node may have changed anything below the mount: forget what is cached.
    fn invalidate(&self) {}
}

/// Who a method says the caller is: what a token, or a request by certificate, is made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// Name of the identity within the mount: the alias. Two different callers never share it.
    pub alias: String,
    /// What the alias is noted with.
    pub alias_metadata: BTreeMap<String, String>,
    /// Names of the groups that the method says the caller is in, in its own words.
    #[serde(default)]
    pub groups: Vec<String>,
    /// The role that matched.
    pub role: String,
    /// Name for people.
    pub display_name: String,
    /// What the token is noted with.
    pub metadata: BTreeMap<String, String>,
    /// The common token fields of the role.
    pub token: TokenParameters,
    /// Bind the token to the certificate with this SHA-256 fingerprint.
    pub bound_certificate: Option<[u8; 32]>,
    /// When the ground of the identity ends, such as the certificate's end.
    pub not_after: Option<Timestamp>,
}

impl Grant {
    /// A token with `token`'s fields for `alias` by `role`: nothing noted, nothing bound, and the
    /// display name made of the mount and the alias.
    pub fn new(mount: &MountFacts, alias: String, role: &str, token: TokenParameters) -> Self {
        Self {
            display_name: format!("{}-{alias}", mount.stem()),
            alias,
            alias_metadata: BTreeMap::new(),
            groups: Vec::new(),
            role: role.to_owned(),
            metadata: BTreeMap::new(),
            token,
            bound_certificate: None,
            not_after: None,
        }
    }
}

/// The token fields that every role of every method has (`token_ttl`, `token_policies`, …).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenParameters {
    /// First lifetime; zero for the mount's default.
    pub ttl: Ttl,
    /// Limit of all renewals; zero for the mount's.
    pub max_ttl: Ttl,
    /// Limit that no later configuration prolongs; zero for none.
    pub explicit_max_ttl: Ttl,
    /// When set, the token is periodic: each renewal gives this lifetime, without a limit.
    pub period: Ttl,
    /// Policies.
    pub policies: Vec<String>,
    /// Leave out the `default` policy.
    pub no_default_policy: bool,
    /// Uses; zero for no limit.
    pub num_uses: u64,
    /// Addresses the token can be used from (CIDR); empty for any.
    pub bound_cidrs: Vec<String>,
    /// `default`, `service` or `batch`.
    pub token_type: TokenType,
}

/// What kind of token to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenType {
    /// Encrypted facts carried by the holder; nothing stored, nothing revocable.
    Batch,
    /// As the mount says; service when it says nothing.
    #[default]
    Default,
    /// Stored, renewable, revocable.
    Service,
}

impl TokenType {
    /// As stock clients spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Default => "default",
            Self::Service => "service",
        }
    }
}

/// What a method wants done with a request.
#[expect(clippy::large_enum_variant, reason = "made once per request and moved at once")]
#[derive(Debug)]
pub enum AuthOutcome {
    /// Answer this.
    Respond(Reply),
    /// Issue a token for this identity.
    Login(Box<Grant>),
}

/// What a method says about the certificate of a connection.
#[derive(Debug)]
pub enum Recognition {
    /// Exactly one role is for it.
    Known(Box<Grant>),
    /// The method does not deal in certificates.
    NotConcerned,
    /// No role is for it, for this reason.
    Unknown(String),
}

impl From<Reply> for AuthOutcome {
    fn from(reply: Reply) -> Self {
        Self::Respond(reply)
    }
}

/// A routed request to an auth method.
pub struct AuthRequest<'a> {
    /// What to do.
    pub operation: Operation,
    /// Which row of the method's table matched.
    pub route: &'static RouteSpec,
    /// What its pattern captured.
    pub params: Params<'a>,
    /// Body and query.
    pub fields: Fields,
    /// The certificate of the connection.
    pub peer: Option<&'a Arc<VerifiedPeer>>,
    /// Where the request comes from.
    pub remote: IpAddr,
    /// The identity that the log-in claims is locked: it is refused whatever it proves, so the method
    /// does the usual work and consumes nothing.
    pub locked: bool,
}

/// A token that is to be renewed.
#[derive(Clone, Copy, Debug)]
pub struct Renewal<'a> {
    /// The role of the grant that the token was made from.
    pub role: &'a str,
    /// The alias of that grant.
    pub alias: &'a str,
    /// What that grant noted the token with.
    pub metadata: &'a BTreeMap<String, String>,
    /// The token's own policies, which a renewal does not change.
    pub policies: &'a [String],
    /// The certificate of the connection that asks.
    pub peer: Option<&'a Arc<VerifiedPeer>>,
}

/// Who a log-in says it is, before anything of that is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The alias, in the one spelling that the method looks it up by. Failures count against it.
    pub alias: String,
    /// What every refusal answers, whatever its reason.
    pub refusal: &'static str,
}

/// A way to prove who one is: one instance per mount, made by the registry.
#[async_trait]
pub trait AuthMethod: Send + Sync + 'static {
    /// The table of its paths.
    fn routes(&self) -> &'static [RouteSpec];

    /// Whether a write would change something that exists. `None` when the route does not tell.
    ///
    /// # Errors
    /// When the store fails.
    async fn exists(
        &self,
        _ctx: &EngineContext<'_>,
        _route: &'static RouteSpec,
        _params: &Params<'_>,
    ) -> Result<Option<bool>, CoreError> {
        Ok(None)
    }

    /// Who a log-in says it is, for methods where that can be guessed: all refusals then get one
    /// answer, and after too many of them the identity is locked for a while.
    fn claim(&self, _request: &AuthRequest<'_>) -> Option<Claim> {
        None
    }

    /// Serves a request: configuration, or a log-in (a route with `Access::Public`).
    ///
    /// # Errors
    /// A refused log-in is `Denied`; the reason stays in the audit.
    async fn handle(
        &self,
        ctx: &EngineContext<'_>,
        permit: &Permit,
        request: AuthRequest<'_>,
    ) -> Result<AuthOutcome, CoreError>;

    /// Who the certificate of a connection is, without a log-in.
    ///
    /// # Errors
    /// `Denied` when more than one role matches: then no other mount is asked. The reason stays in
    /// the audit.
    async fn identify(
        &self,
        _ctx: &EngineContext<'_>,
        _peer: &Arc<VerifiedPeer>,
    ) -> Result<Recognition, CoreError> {
        Ok(Recognition::NotConcerned)
    }

    /// Judges the renewal of a token that this method gave: the grant as it would be given now. The core takes the lifetimes from it, and refuses the renewal when this fails or names
    /// another identity or certificate than the token's.
    ///
    /// # Errors
    /// `Denied` when the identity would not be let in any more.
    async fn renewal(
        &self,
        ctx: &EngineContext<'_>,
        renewal: Renewal<'_>,
    ) -> Result<Grant, CoreError>;

    /// Whether the groups of a renewal's grant are those that the identity is in by then. Otherwise a
    /// renewed token keeps the groups of its log-in.
    fn renews_groups(&self) -> bool {
        false
    }

    /// Called once after unseal or mounting, before the first request, and after
    /// [`AuthMethod::invalidate`]: loads what the handshake has to know, such as role CAs and CRLs.
    ///
    /// # Errors
    /// When the store fails.
    async fn load(&self, _ctx: &EngineContext<'_>) -> Result<(), CoreError> {
        Ok(())
    }

    /// Scheduled work, as [`Engine::tick`].
    ///
    /// # Errors
    /// When something due could not be done; it is tried again.
    async fn tick(&self, _ctx: &EngineContext<'_>) -> Result<Option<Timestamp>, CoreError> {
        Ok(None)
    }

    /// Renews what the method has from elsewhere and is about to be stale, such as revocation lists.
    /// May take as long as a network takes; never called twice at once over all nodes.
    ///
    /// # Errors
    /// When the store fails; what could not be had stays as it was.
    async fn refresh(&self, _ctx: &EngineContext<'_>) -> Result<(), CoreError> {
        Ok(())
    }

    /// The mount goes away, or the server is sealed: withdraw what was contributed elsewhere.
    fn unload(&self) {}

    /// Another node may have changed anything below the mount: forget what is cached.
    fn invalidate(&self) {}
}
