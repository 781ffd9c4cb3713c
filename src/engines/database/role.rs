//! Roles: what kind of user is made on request, and the trial that proves it can be taken back.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::DatabaseEngine;
use super::config::take;
use super::creds::LeaseData;
use super::driver::{DatabaseDriver, DriverError, NewUser};
use super::password;
use super::statement::{Statements, Variable};
use super::target::failure;
use super::username::plain;
use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::records::Precondition;
use crate::core::reply::Reply;
use crate::core::view::Entry;
use crate::types::id::random_base62;
use crate::types::secret::SecretString;
use crate::types::time::{Timestamp, Ttl};

/// Lifetime of a trial user on its target.
const TRIAL_TTL: Ttl = Ttl::from_secs(60);
/// A trial older than this was interrupted, and its user is cleaned up.
pub(super) const TRIAL_ABANDONED: Ttl = Ttl::from_secs(300);
/// What stands for the caller's name in the names of trial users.
const TRIAL_CALLER: &str = "trial";

/// A role, as stored below `roles/`.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct RoleRecord {
    pub db_name: String,
    pub creation_statements: Vec<String>,
    pub revocation_statements: Vec<String>,
    pub renew_statements: Vec<String>,
    pub rollback_statements: Vec<String>,
    pub default_ttl: Ttl,
    pub max_ttl: Ttl,
    /// The role on the target that what its users leave behind goes to.
    pub heir: String,
}

/// A trial user that may exist on its target, as stored below `trials/`.
#[derive(Serialize, Deserialize)]
pub(super) struct TrialRecord {
    pub data: LeaseData,
    pub started_at: Timestamp,
}

/// The name of the record of a role.
pub(super) fn record_name(name: &str) -> String {
    format!("roles/{name}")
}

/// The name of the record of a trial.
fn trial_name(username: &str) -> String {
    format!("trials/{username}")
}

impl RoleRecord {
    fn apply(&mut self, fields: &Fields) -> Result<(), CoreError> {
        take(&mut self.db_name, fields.text("db_name")?);
        take(&mut self.creation_statements, fields.statements("creation_statements")?);
        take(&mut self.revocation_statements, fields.statements("revocation_statements")?);
        take(&mut self.renew_statements, fields.statements("renew_statements")?);
        take(&mut self.rollback_statements, fields.statements("rollback_statements")?);
        take(&mut self.default_ttl, fields.duration("default_ttl")?);
        take(&mut self.max_ttl, fields.duration("max_ttl")?);
        Ok(())
    }

    fn check(&self) -> Result<(), CoreError> {
        if self.db_name.is_empty() {
            return Err(CoreError::field("db_name", "is required"));
        }
        let creation = self.statements(
            "creation_statements",
            &self.creation_statements,
            &[Variable::Name, Variable::Password, Variable::Expiration],
        )?;
        if creation.is_empty() {
            return Err(CoreError::field("creation_statements", "is required"));
        }
        for variable in [Variable::Name, Variable::Password] {
            if !creation.uses(variable) {
                return Err(CoreError::field(
                    "creation_statements",
                    format!("never uses {variable}"),
                ));
            }
        }
        let name = &[Variable::Name];
        self.statements("revocation_statements", &self.revocation_statements, name)?;
        self.statements("rollback_statements", &self.rollback_statements, name)?;
        let renewal = &[Variable::Name, Variable::Expiration];
        self.statements("renew_statements", &self.renew_statements, renewal)?;
        if !self.max_ttl.is_zero() && self.default_ttl > self.max_ttl {
            return Err(CoreError::field("default_ttl", "is longer than max_ttl"));
        }
        Ok(())
    }

    fn statements(
        &self,
        field: &'static str,
        texts: &[String],
        allowed: &[Variable],
    ) -> Result<Statements, CoreError> {
        Statements::parse(texts, allowed)
            .map_err(|error| CoreError::field(field, error.to_string()))
    }
}

/// Only passwords are issued.
pub(super) fn refuse_other_credentials(fields: &Fields) -> Result<(), CoreError> {
    if fields.text("credential_type")?.is_some_and(|kind| !kind.is_empty() && kind != "password") {
        return Err(CoreError::field("credential_type", "must be password"));
    }
    if fields.string_map("credential_config")?.is_some_and(|config| !config.is_empty()) {
        return Err(CoreError::field("credential_config", "is not supported and must be empty"));
    }
    Ok(())
}

impl DatabaseEngine {
    pub(super) async fn write_role(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        fields: &Fields,
    ) -> Result<Reply, CoreError> {
        refuse_other_credentials(fields)?;
        let before: Option<Entry<RoleRecord>> = ctx.view.get_fresh(&record_name(name)).await?;
        let precondition = Entry::expected(before.as_ref());
        let mut role = before.map(|entry| entry.value).unwrap_or_default();
        role.apply(fields)?;
        role.check()?;
        if role.heir.is_empty() {
            let stem: String = plain(name).chars().take(24).collect();
            role.heir = format!("left-by-{stem}-{}", random_base62(12)?);
        }
        let reply = if fields.boolean("verify")?.unwrap_or(false) {
            Reply::data(json!({ "verification": self.try_role(ctx, name, &role).await? }))
        } else {
            Reply::empty()
        };
        ctx.view.write(&record_name(name), &role, precondition).await?;
        let config = ctx.view.get(&super::config::record_name(&role.db_name)).await?;
        let config: Option<Entry<super::config::ConfigRecord>> = config;
        Ok(match config {
            None => reply.warn(format!("database {:?} is not configured yet", role.db_name)),
            Some(config) if !config.value.allows(name) => {
                reply.warn(format!("allowed_roles of {:?} does not name this role", role.db_name))
            }
            Some(_) => reply,
        })
    }

    pub(super) async fn read_role(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
    ) -> Result<Reply, CoreError> {
        let entry: Option<Entry<RoleRecord>> = ctx.view.get(&record_name(name)).await?;
        let role = entry.ok_or(CoreError::NotFound)?.value;
        Ok(Reply::data(json!({
            "db_name": role.db_name,
            "creation_statements": role.creation_statements,
            "revocation_statements": role.revocation_statements,
            "renew_statements": role.renew_statements,
            "rollback_statements": role.rollback_statements,
            "default_ttl": role.default_ttl.as_secs(),
            "max_ttl": role.max_ttl.as_secs(),
            "credential_type": "password",
        })))
    }

    /// Makes one user of a role and revokes it at once. A record of the trial is durable before, and
    /// goes only when the user is gone, so that no interruption leaves a user behind.
    async fn try_role(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        role: &RoleRecord,
    ) -> Result<Value, CoreError> {
        // A trial that could not take its user back would be none.
        let unheld = ctx.hold.unheld()?;
        let target = self.target(ctx, &role.db_name).await?;
        let driver = target.unheld(&unheld);
        let now = ctx.clock.now();
        let username = target.config.value.name_template()?.render(TRIAL_CALLER, name, now)?;
        let trial = TrialRecord { data: LeaseData::new(role, username), started_at: now };
        let password = password::for_users_of(ctx, &target.config.value).await?;
        let record = trial_name(&trial.data.username);
        ctx.view.write(&record, &trial, Precondition::Absent).await?;
        let report = run_trial(driver, &trial.data, &password, now).await;
        if let Err(stage) = &report
            && !stage.user_is_gone
        {
            // What is left is ended in the built-in way, now or when the engine is next called.
            let without = Statements::default();
            let doomed = trial.data.doomed(&without);
            if let Err(error) = driver.revoke_user(&doomed).await {
                return Err(stage.report(
                    &role.db_name,
                    &format!(
                        "; its trial user {:?} is still there ({error}) and will be removed",
                        trial.data.username
                    ),
                ));
            }
        }
        ctx.view.remove(&record).await?;
        report.map_err(|stage| stage.report(&role.db_name, "; the trial user is gone"))
    }

    /// Ends the users of trials that were interrupted. Tells when the next one counts as such.
    pub(super) async fn clean_up_trials(
        &self,
        ctx: &EngineContext<'_>,
    ) -> Result<Option<Timestamp>, CoreError> {
        let unheld = ctx.hold.unheld()?;
        let now = ctx.clock.now();
        let mut next: Option<Timestamp> = None;
        for (record, entry) in ctx.view.entries::<TrialRecord>("trials/").await? {
            let due = entry.value.started_at.plus(TRIAL_ABANDONED);
            if due > now {
                next = Some(next.map_or(due, |next| next.min(due)));
                continue;
            }
            let data = &entry.value.data;
            let outcome = match self.target(ctx, &data.config).await {
                Ok(target) => target
                    .unheld(&unheld)
                    .revoke_user(&data.doomed(&Statements::default()))
                    .await
                    .map_err(|error| failure(&data.config, error)),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => ctx.view.remove(&record).await?,
                Err(error) => {
                    tracing::warn!(%error, "the user of an interrupted trial could not be removed");
                    let again = now.plus(TRIAL_ABANDONED);
                    next = Some(next.map_or(again, |next| next.min(again)));
                }
            }
        }
        Ok(next)
    }
}

/// A trial that failed, and in which of its steps.
struct FailedTrial {
    field: &'static str,
    error: DriverError,
    user_is_gone: bool,
}

impl FailedTrial {
    fn report(&self, target: &str, rest: &str) -> CoreError {
        if self.error.is_unavailable() {
            CoreError::Upstream {
                target: format!("database {target:?}"),
                message: format!("{}{rest}", self.error),
            }
        } else {
            CoreError::field(self.field, format!("cannot work: {}{rest}", self.error))
        }
    }
}

async fn run_trial(
    driver: &dyn DatabaseDriver,
    data: &LeaseData,
    password: &SecretString,
    now: Timestamp,
) -> Result<Value, FailedTrial> {
    let failed =
        |field, user_is_gone| move |error: DriverError| FailedTrial { field, error, user_is_gone };
    let creation = data.creation().map_err(failed("creation_statements", true))?;
    let revocation = data.revocation().map_err(failed("revocation_statements", true))?;
    let user = NewUser {
        name: &data.username,
        password,
        expires: now.plus(TRIAL_TTL),
        creation: &creation,
    };
    driver.create_user(&user).await.map_err(failed("creation_statements", false))?;
    let login = driver.can_log_in(&data.username, password).await;
    let login = match login {
        Ok(true) => "accepted".to_owned(),
        Ok(false) => "refused".to_owned(),
        Err(error) => format!("not tried: {error}"),
    };
    let renewal = data.renewal().map_err(failed("renew_statements", false))?;
    driver
        .renew_user(&data.username, now.plus(TRIAL_TTL), &renewal)
        .await
        .map_err(failed("renew_statements", false))?;
    driver
        .revoke_user(&data.doomed(&revocation))
        .await
        .map_err(failed("revocation_statements", false))?;
    Ok(json!({ "created": true, "login": login, "renewed": true, "revoked": true }))
}
