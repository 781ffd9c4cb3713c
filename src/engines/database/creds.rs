//! Leased users: planned, made durable as a lease by the core, issued, renewed, revoked.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::driver::{DoomedUser, DriverError, NewUser};
use super::role::RoleRecord;
use super::statement::{StatementError, Statements, Variable};
use super::target::failure;
use super::{DatabaseEngine, password};
use crate::core::engine::{CallerFacts, EngineContext, IssueError, LeaseFacts, LeasePlan, Outcome};
use crate::core::error::CoreError;
use crate::core::view::Entry;
use crate::types::time::{Timestamp, Ttl};

/// How much longer than its lease the target lets a user in: room for clocks that differ.
const EXPIRY_SLACK: Ttl = Ttl::from_secs(5);

/// All that issuing, renewing and revoking one user need, whatever becomes of its role meanwhile.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LeaseData {
    pub config: String,
    pub username: String,
    pub heir: String,
    pub creation_statements: Vec<String>,
    pub revocation_statements: Vec<String>,
    pub renew_statements: Vec<String>,
    pub rollback_statements: Vec<String>,
}

impl LeaseData {
    pub(super) fn new(role: &RoleRecord, username: String) -> Self {
        Self {
            config: role.db_name.clone(),
            username,
            heir: role.heir.clone(),
            creation_statements: role.creation_statements.clone(),
            revocation_statements: role.revocation_statements.clone(),
            renew_statements: role.renew_statements.clone(),
            rollback_statements: role.rollback_statements.clone(),
        }
    }

    fn read(lease: LeaseFacts<'_>) -> Result<Self, CoreError> {
        Self::deserialize(lease.data)
            .map_err(|_| CoreError::internal("the data of a database lease does not parse"))
    }

    pub(super) fn creation(&self) -> Result<Statements, DriverError> {
        parse(
            &self.creation_statements,
            &[Variable::Name, Variable::Password, Variable::Expiration],
        )
    }

    pub(super) fn revocation(&self) -> Result<Statements, DriverError> {
        parse(&self.revocation_statements, &[Variable::Name])
    }

    pub(super) fn renewal(&self) -> Result<Statements, DriverError> {
        parse(&self.renew_statements, &[Variable::Name, Variable::Expiration])
    }

    fn rollback(&self) -> Result<Statements, DriverError> {
        parse(&self.rollback_statements, &[Variable::Name])
    }

    pub(super) fn doomed<'a>(&'a self, revocation: &'a Statements) -> DoomedUser<'a> {
        DoomedUser { name: &self.username, revocation, heir: &self.heir }
    }
}

fn parse(texts: &[String], allowed: &[Variable]) -> Result<Statements, DriverError> {
    Statements::parse(texts, allowed).map_err(|error: StatementError| DriverError::Statement(error))
}

impl DatabaseEngine {
    pub(super) async fn plan(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        caller: &CallerFacts,
    ) -> Result<Outcome, CoreError> {
        let role: Option<Entry<RoleRecord>> = ctx.view.get(&super::role::record_name(name)).await?;
        let role = role.ok_or_else(|| CoreError::invalid(format!("unknown role: {name}")))?.value;
        let target = self.target(ctx, &role.db_name).await?;
        if !target.config.value.allows(name) {
            return Err(CoreError::invalid(format!(
                "{name:?} is not an allowed role of database {:?}",
                role.db_name
            )));
        }
        // Asked before a lease is planned, so that nothing has to be taken back for want of a policy.
        password::for_users_of(ctx, &target.config.value).await?;
        let template = target.config.value.name_template()?;
        let username = template.render(&caller.display_name, name, ctx.clock.now())?;
        let data = serde_json::to_value(LeaseData::new(&role, username))
            .map_err(|_| CoreError::internal("a plan could not be serialised"))?;
        Ok(Outcome::Issue(LeasePlan {
            ttl: role.default_ttl,
            max_ttl: role.max_ttl,
            renewable: true,
            role: name.to_owned(),
            target: role.db_name,
            data,
        }))
    }

    pub(super) async fn create(
        &self,
        ctx: &EngineContext<'_>,
        lease: LeaseFacts<'_>,
    ) -> Result<Map<String, Value>, IssueError> {
        let data = LeaseData::read(lease).map_err(IssueError::NotBegun)?;
        let failed = |error| failure(&data.config, error);
        let not_begun = |error| IssueError::NotBegun(failed(error));
        let target = self.target(ctx, &data.config).await.map_err(IssueError::NotBegun)?;
        let creation = data.creation().map_err(not_begun)?;
        let password = password::for_users_of(ctx, &target.config.value).await;
        let password = password.map_err(IssueError::NotBegun)?;
        let user = NewUser {
            name: &data.username,
            password: &password,
            expires: target_expiry(lease.expires_at),
            creation: &creation,
        };
        match target.create_user(&user).await {
            Ok(()) => {}
            Err(error @ DriverError::NotBegun(_)) => return Err(not_begun(error)),
            Err(error) => {
                if !error.is_unavailable() {
                    roll_back(&data, &target).await;
                }
                return Err(failed(error).into());
            }
        }
        let mut answer = Map::new();
        answer.insert("username".into(), Value::String(data.username.clone()));
        answer.insert("password".into(), Value::String(password.expose().to_owned()));
        Ok(answer)
    }

    pub(super) async fn prolong(
        &self,
        ctx: &EngineContext<'_>,
        lease: LeaseFacts<'_>,
    ) -> Result<(), CoreError> {
        let data = LeaseData::read(lease)?;
        let failed = |error| failure(&data.config, error);
        let renewal = data.renewal().map_err(failed)?;
        let target = self.target(ctx, &data.config).await?;
        let expires = target_expiry(lease.expires_at);
        target.renew_user(&data.username, expires, &renewal).await.map_err(failed)
    }

    pub(super) async fn end(
        &self,
        ctx: &EngineContext<'_>,
        lease: LeaseFacts<'_>,
    ) -> Result<(), CoreError> {
        let data = LeaseData::read(lease)?;
        let failed = |error| failure(&data.config, error);
        let revocation = data.revocation().map_err(failed)?;
        let target = self.target(ctx, &data.config).await?;
        let driver = target.unheld(&ctx.hold.unheld()?);
        driver.revoke_user(&data.doomed(&revocation)).await.map_err(failed)
    }
}

/// Creation was refused and has left nothing inside its transaction; the operator's statements undo
/// what it may have done outside of it.
async fn roll_back(data: &LeaseData, target: &super::target::Target) {
    let outcome = match data.rollback() {
        Ok(statements) if statements.is_empty() => return,
        Ok(statements) => target.roll_back(&data.username, &statements).await,
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        tracing::warn!(database = %data.config, %error, "rollback statements failed");
    }
}

fn target_expiry(lease_ends: Timestamp) -> Timestamp {
    lease_ends.plus(EXPIRY_SLACK)
}
