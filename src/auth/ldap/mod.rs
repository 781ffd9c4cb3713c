//! The `ldap` method: who one is, by a name and a password that a directory knows.
//!
//! | Path | |
//! |---|---|
//! | `config` | the directory, and what tokens get |
//! | `groups/:name`, `users/:name` | policies beside those of the configuration |
//! | `login/:username` | a token, for the password |
//!
//! The entry of a name is searched, and the password proven by binding as that entry. The
//! identity is the entry's `userattr`; its groups are what `groupfilter` finds. A name that the
//! directory lacks, a wrong password and a locked name get the same answer after as much asking; a
//! directory that cannot be asked is an error of its own, and counts against nobody. The client is our
//! own: it believes nothing about what it is sent, where a library would rather give up the process.

mod ber;
mod config;
mod connection;
mod directory;
mod filter;
#[cfg(feature = "failpoints")]
pub mod fuzzed;
mod name;
mod routes;
mod server;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::core::acl::permit::Permit;
use crate::core::engine::{
    AuthMethod, AuthOutcome, AuthRequest, Claim, EngineContext, Grant, Renewal,
};
use crate::core::error::CoreError;
use crate::core::operation::Operation;
use crate::core::reply::Reply;
use crate::core::route::{Params, RouteSpec};
use crate::core::token::policy_names;
use crate::core::view::Entry;
use crate::types::secret::SecretString;
use crate::types::time::Ttl;

use config::ConfigRecord;
use connection::DirectoryError;
use directory::{Person, Refusal};
use name::{NAME_BYTES_MAX, is_name, spelled};
use settings::Settings;

pub use server::DirectoryHosts;

/// What every refused log-in is answered.
const REFUSAL: &str = "invalid username or password";
/// A refusal is answered no sooner: how long a directory takes over a password tells whether there is
/// an account, as far as it takes less than this.
const REFUSED_AFTER: Duration = Duration::from_millis(250);
/// Longest password, in bytes.
const PASSWORD_BYTES_MAX: usize = 1024;
/// Most further groups of one user.
const GROUPS_MAX: usize = 256;
/// Most that ask the directory at once, for each mount. Whoever comes then is told to try again.
const ASKING_MAX: usize = 64;
const RETRY_AFTER: Ttl = Ttl::from_secs(1);
/// What failures of the directory are said to be failures of.
const TARGET: &str = "the LDAP directory";
const CONFIG: &str = "config";

/// Policies of a group.
#[derive(Default, Serialize, Deserialize)]
struct GroupRecord {
    policies: Vec<String>,
}

/// Policies and further groups of a user.
#[derive(Default, Serialize, Deserialize)]
struct UserRecord {
    policies: Vec<String>,
    groups: Vec<String>,
}

/// One mount of the method.
pub struct LdapMethod {
    hosts: DirectoryHosts,
    places: Semaphore,
}

impl LdapMethod {
    /// With directories on these hosts and no others.
    pub fn new(hosts: DirectoryHosts) -> Self {
        Self { hosts, places: Semaphore::new(ASKING_MAX) }
    }

    async fn configured(&self, ctx: &EngineContext<'_>) -> Result<ConfigRecord, CoreError> {
        let record = ctx.view.get::<ConfigRecord>(CONFIG).await?;
        let record = record.ok_or_else(|| CoreError::invalid("the mount has no config yet"))?;
        Ok(record.value)
    }

    /// The settings of a configuration that was good when it was written.
    fn settings(&self, record: &ConfigRecord) -> Result<Settings, CoreError> {
        // Other hosts may be allowed by now.
        Settings::of(record, &self.hosts).map_err(|error| CoreError::Upstream {
            target: TARGET.to_owned(),
            message: format!("its configuration is not in order any more: {}", error.field),
        })
    }

    async fn login(
        &self,
        ctx: &EngineContext<'_>,
        request: &AuthRequest<'_>,
    ) -> Result<Grant, CoreError> {
        // Directories let everybody in with an empty password, as nobody (RFC 4513 §5.1.2).
        let password = password(request)?;
        let record = self.configured(ctx).await?;
        let settings = self.settings(&record)?;
        let name = settings.spelled(request.params.get("username"));
        let earliest = tokio::time::sleep(REFUSED_AFTER);
        let known = if is_name(&name) {
            let place = self.place()?;
            let known = directory::log_in(&settings, &name, &password, request.locked).await;
            drop(place);
            known.map_err(failure)
        } else {
            Err(CoreError::denied("nobody can be called so"))
        };
        if matches!(known, Err(CoreError::Denied { .. })) {
            earliest.await;
        }
        grant(ctx, record, &name, known?).await
    }

    fn place(&self) -> Result<tokio::sync::SemaphorePermit<'_>, CoreError> {
        let overloaded = |_| CoreError::Overloaded { retry_after: RETRY_AFTER };
        self.places.try_acquire().map_err(overloaded)
    }

    async fn serve_config(
        &self,
        ctx: &EngineContext<'_>,
        request: &AuthRequest<'_>,
    ) -> Result<Reply, CoreError> {
        if request.operation == Operation::Read {
            let record = ctx.view.get::<ConfigRecord>(CONFIG).await?.ok_or(CoreError::NotFound)?;
            return Ok(Reply::data(record.value.to_json()));
        }
        let before = ctx.view.get_fresh::<ConfigRecord>(CONFIG).await?;
        let precondition = Entry::expected(before.as_ref());
        let record = before.map(|entry| entry.value).unwrap_or_default();
        let record = record.updated(&request.fields)?;
        Settings::of(&record, &self.hosts)?;
        ctx.view.write(CONFIG, &record, precondition).await?;
        Ok(Reply::empty())
    }

    async fn serve_group(
        &self,
        ctx: &EngineContext<'_>,
        request: &AuthRequest<'_>,
    ) -> Result<Reply, CoreError> {
        let name = self.checked_name(ctx, request).await?;
        let at = at_group(name);
        if request.operation == Operation::Read {
            let group = stored::<GroupRecord>(ctx, &at).await?.ok_or(CoreError::NotFound)?;
            return Ok(Reply::data(json!({ "policies": group.policies })));
        }
        let before = ctx.view.get_fresh::<GroupRecord>(&at).await?;
        let precondition = Entry::expected(before.as_ref());
        let mut group = before.map(|entry| entry.value).unwrap_or_default();
        if let Some(policies) = policies(request)? {
            group.policies = policies;
        }
        ctx.view.write(&at, &group, precondition).await?;
        Ok(Reply::empty())
    }

    async fn serve_user(
        &self,
        ctx: &EngineContext<'_>,
        request: &AuthRequest<'_>,
    ) -> Result<Reply, CoreError> {
        let name = self.checked_name(ctx, request).await?;
        let at = at_user(name);
        if request.operation == Operation::Read {
            let user = stored::<UserRecord>(ctx, &at).await?.ok_or(CoreError::NotFound)?;
            // One text, as in stock servers.
            let groups = user.groups.join(",");
            return Ok(Reply::data(json!({ "groups": groups, "policies": user.policies })));
        }
        let before = ctx.view.get_fresh::<UserRecord>(&at).await?;
        let precondition = Entry::expected(before.as_ref());
        let mut user = before.map(|entry| entry.value).unwrap_or_default();
        if let Some(policies) = policies(request)? {
            user.policies = policies;
        }
        if let Some(groups) = request.fields.list("groups")? {
            if groups.len() > GROUPS_MAX || groups.iter().any(|group| !is_name(group)) {
                let problem = "must be a list of at most 256 names of at most 256 bytes";
                return Err(CoreError::field("groups", problem));
            }
            user.groups = groups;
        }
        ctx.view.write(&at, &user, precondition).await?;
        Ok(Reply::empty())
    }

    /// The name in the path, which must be spelled as it is stored: policies judge the path.
    async fn checked_name<'r>(
        &self,
        ctx: &EngineContext<'_>,
        request: &'r AuthRequest<'_>,
    ) -> Result<&'r str, CoreError> {
        let name = request.params.get("name");
        if !is_name(name) {
            let problem = format!(
                "must be at most {NAME_BYTES_MAX} bytes long, without control characters and \
                 without spaces at its ends or one after the other"
            );
            return Err(CoreError::field("name", problem));
        }
        let record = ctx.view.get::<ConfigRecord>(CONFIG).await?;
        let case_sensitive = record.is_some_and(|record| record.value.case_sensitive_names);
        if spelled(name, case_sensitive) != name {
            let problem = "must be in lower case, as names are without case_sensitive_names";
            return Err(CoreError::field("name", problem));
        }
        Ok(name)
    }
}

#[async_trait]
impl AuthMethod for LdapMethod {
    fn routes(&self) -> &'static [RouteSpec] {
        routes::ROUTES
    }

    async fn exists(
        &self,
        ctx: &EngineContext<'_>,
        route: &'static RouteSpec,
        params: &Params<'_>,
    ) -> Result<Option<bool>, CoreError> {
        let at = match route.name {
            "ldap-group" => at_group(params.get("name")),
            "ldap-user" => at_user(params.get("name")),
            _ => return Ok(None),
        };
        Ok(Some(ctx.view.get_record(&at).await?.is_some()))
    }

    fn claim(&self, request: &AuthRequest<'_>) -> Option<Claim> {
        // In lower case even where cases are told apart, so that they are no further guesses.
        let alias = || spelled(request.params.get("username"), false);
        (request.route.name == "ldap-login").then(|| Claim { alias: alias(), refusal: REFUSAL })
    }

    async fn handle(
        &self,
        ctx: &EngineContext<'_>,
        _permit: &Permit,
        request: AuthRequest<'_>,
    ) -> Result<AuthOutcome, CoreError> {
        let reply = match (request.route.name, request.operation) {
            ("ldap-login", _) => {
                return Ok(AuthOutcome::Login(Box::new(self.login(ctx, &request).await?)));
            }
            ("ldap-config", _) => self.serve_config(ctx, &request).await?,
            ("ldap-groups", _) => Reply::listing(ctx.view.list("group/").await?)?,
            ("ldap-users", _) => Reply::listing(ctx.view.list("user/").await?)?,
            ("ldap-group", Operation::Delete) => {
                ctx.view.remove(&at_group(request.params.get("name"))).await?;
                Reply::empty()
            }
            ("ldap-group", _) => self.serve_group(ctx, &request).await?,
            (_, Operation::Delete) => {
                ctx.view.remove(&at_user(request.params.get("name"))).await?;
                Reply::empty()
            }
            (_, _) => self.serve_user(ctx, &request).await?,
        };
        Ok(reply.into())
    }

    fn renews_groups(&self) -> bool {
        true
    }

    async fn renewal(
        &self,
        ctx: &EngineContext<'_>,
        renewal: Renewal<'_>,
    ) -> Result<Grant, CoreError> {
        let record = self.configured(ctx).await?;
        let settings = self.settings(&record)?;
        let place = self.place()?;
        let person = directory::look_up(&settings, renewal.role).await.map_err(failure)?;
        drop(place);
        let grant = grant(ctx, record, renewal.role, person).await?;
        let given =
            |policy: &&String| *policy != "default" && !grant.token.policies.contains(policy);
        match renewal.policies.iter().find(given) {
            Some(lost) => Err(CoreError::denied(format!("policy {lost} would not be given now"))),
            None => Ok(grant),
        }
    }
}

/// What somebody whom the directory knows is given.
async fn grant(
    ctx: &EngineContext<'_>,
    record: ConfigRecord,
    name: &str,
    person: Person,
) -> Result<Grant, CoreError> {
    let case_sensitive = record.case_sensitive_names;
    let user = stored::<UserRecord>(ctx, &at_user(name)).await?.unwrap_or_default();
    let mut groups = person.groups;
    groups.extend(user.groups.iter().map(|group| spelled(group, case_sensitive)));
    let mut token = record.token;
    let mut policies: BTreeSet<String> = token.policies.into_iter().chain(user.policies).collect();
    for group in &groups {
        if let Some(group) = stored::<GroupRecord>(ctx, &at_group(group)).await? {
            policies.extend(group.policies);
        }
    }
    token.policies = policies.into_iter().collect();
    Ok(Grant {
        alias_metadata: BTreeMap::from([("name".to_owned(), name.to_owned())]),
        groups: groups.into_iter().collect(),
        metadata: BTreeMap::from([("username".to_owned(), name.to_owned())]),
        ..Grant::new(ctx.mount, person.alias, name, token)
    })
}

fn at_group(name: &str) -> String {
    format!("group/{name}")
}

fn at_user(name: &str) -> String {
    format!("user/{name}")
}

async fn stored<T: DeserializeOwned>(
    ctx: &EngineContext<'_>,
    at: &str,
) -> Result<Option<T>, CoreError> {
    Ok(ctx.view.get::<T>(at).await?.map(|entry| entry.value))
}

fn policies(request: &AuthRequest<'_>) -> Result<Option<Vec<String>>, CoreError> {
    const FIELD: &str = "policies";
    let Some(given) = request.fields.list(FIELD)? else { return Ok(None) };
    let names = policy_names(FIELD, &given)?;
    if names.iter().any(|name| name == "root") {
        return Err(CoreError::field(FIELD, "must not contain the root policy"));
    }
    Ok(Some(names))
}

fn password(request: &AuthRequest<'_>) -> Result<SecretString, CoreError> {
    let given = request.fields.secret("password")?;
    let given = given.filter(|password| !password.expose().is_empty());
    let password = given.ok_or_else(|| CoreError::field("password", "is required"))?;
    if password.expose().len() > PASSWORD_BYTES_MAX {
        return Err(CoreError::field("password", "is longer than 1024 bytes"));
    }
    Ok(password)
}

fn failure(refusal: Refusal) -> CoreError {
    match refusal {
        Refusal::Denied(reason) => CoreError::denied(reason),
        Refusal::Directory(error) => unavailable(&error),
        Refusal::Random(error) => error.into(),
    }
}

fn unavailable(error: &DirectoryError) -> CoreError {
    CoreError::Upstream { target: TARGET.to_owned(), message: format!("it {error}") }
}

#[cfg(test)]
mod tests;
