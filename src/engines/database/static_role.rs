//! Static roles: existing users whose password the broker keeps and rotates.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::config::{password_statements, take};
use super::role::refuse_other_credentials;
use super::schedule::Schedule;
use super::statement::Statements;
use super::username::NAME_BYTES_MAX;
use super::{DatabaseEngine, password};
use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::records::Precondition;
use crate::core::reply::Reply;
use crate::core::stored::StoredSecret;
use crate::core::view::Entry;
use crate::types::time::Timestamp;

/// A static role, as stored below `static-roles/`.
#[derive(Serialize, Deserialize)]
pub(super) struct StaticRoleRecord {
    pub db_name: String,
    pub username: String,
    pub schedule: Schedule,
    pub rotation_statements: Vec<String>,
    /// The password in force. None only while the first rotation has not succeeded.
    pub password: Option<StoredSecret>,
    /// A password that was made durable before it was set, and not yet known to be in force.
    pub pending_password: Option<StoredSecret>,
    pub rotated_at: Timestamp,
    pub due_at: Timestamp,
    /// Attempts that failed since the last rotation.
    pub failures: u32,
    /// Not tried again before this, after a failure.
    pub retry_at: Option<Timestamp>,
}

/// The name of the record of a static role.
pub(super) fn record_name(name: &str) -> String {
    format!("static-roles/{name}")
}

impl StaticRoleRecord {
    pub(super) fn rotation(&self) -> Result<Statements, CoreError> {
        password_statements("rotation_statements", &self.rotation_statements)
    }

    /// When the scheduler has to look at it.
    pub(super) fn wakes_at(&self) -> Timestamp {
        let wanted = if self.pending_password.is_some() { self.rotated_at } else { self.due_at };
        self.retry_at.map_or(wanted, |retry| retry.max(wanted))
    }

    fn show_schedule(&self, data: &mut Map<String, Value>) {
        match &self.schedule {
            Schedule::Period(period) => {
                data.insert("rotation_period".into(), json!(period.as_secs()));
            }
            Schedule::Cron { expression, window } => {
                data.insert("rotation_schedule".into(), json!(expression));
                data.insert("rotation_window".into(), json!(window.as_secs()));
            }
        }
        let rotated = (self.password.is_some()).then(|| self.rotated_at.to_rfc3339());
        data.insert("last_vault_rotation".into(), json!(rotated));
    }
}

fn check_username(username: &str) -> Result<(), CoreError> {
    let problem = match username {
        "" => "is required",
        _ if username.len() > NAME_BYTES_MAX => "is longer than 63 bytes",
        _ if username.chars().any(char::is_control) => "holds control characters",
        _ => return Ok(()),
    };
    Err(CoreError::field("username", problem))
}

impl DatabaseEngine {
    pub(super) async fn write_static_role(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        fields: &Fields,
    ) -> Result<Reply, CoreError> {
        refuse_other_credentials(fields)?;
        let before = ctx.view.get_fresh(&record_name(name)).await?;
        match before {
            Some(before) => self.change_static_role(ctx, name, before, fields).await,
            None => self.take_over(ctx, name, fields).await,
        }
    }

    /// A role that is not there yet: its user gets a first password at once.
    async fn take_over(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        fields: &Fields,
    ) -> Result<Reply, CoreError> {
        let _unheld = ctx.hold.unheld()?;
        let db_name = fields.required_text("db_name")?;
        let username = fields.text("username")?.unwrap_or_default();
        check_username(&username)?;
        let now = ctx.clock.now();
        let mut role = StaticRoleRecord {
            schedule: Schedule::from_fields(fields, None)?,
            rotation_statements: fields.statements("rotation_statements")?.unwrap_or_default(),
            password: None,
            pending_password: None,
            rotated_at: now,
            due_at: now,
            failures: 0,
            retry_at: None,
            db_name,
            username,
        };
        role.rotation()?;
        let target = self.target(ctx, &role.db_name).await?;
        if !target.config.value.allows(name) {
            return Err(CoreError::invalid(format!(
                "{name:?} is not an allowed role of database {:?}",
                role.db_name
            )));
        }
        if target.config.value.username == role.username {
            return Err(CoreError::field(
                "username",
                "is the broker's own user; use rotate-root for it",
            ));
        }
        for (path, other) in ctx.view.entries::<StaticRoleRecord>("static-roles/").await? {
            if (&other.value.db_name, &other.value.username) == (&role.db_name, &role.username) {
                return Err(CoreError::field("username", format!("is rotated by {path} already")));
            }
        }
        let first = password::for_users_of(ctx, &target.config.value).await?;
        role.pending_password = Some(StoredSecret::new(first));
        ctx.view.write(&record_name(name), &role, Precondition::Absent).await?;
        if let Err(error) = self.rotate(ctx, name).await {
            // The user may have the pending password by now. It is nobody's before this call has
            // succeeded, so the role is taken back and the next attempt sets another.
            ctx.view.remove(&record_name(name)).await?;
            return Err(error);
        }
        Ok(Reply::empty())
    }

    async fn change_static_role(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        before: Entry<StaticRoleRecord>,
        fields: &Fields,
    ) -> Result<Reply, CoreError> {
        let precondition = Entry::expected(Some(&before));
        let mut role = before.value;
        for (field, kept) in [("db_name", &role.db_name), ("username", &role.username)] {
            if fields.text(field)?.is_some_and(|given| given != *kept) {
                return Err(CoreError::field(
                    field,
                    "cannot be changed; delete the static role and make another",
                ));
            }
        }
        take(&mut role.rotation_statements, fields.statements("rotation_statements")?);
        role.rotation()?;
        let schedule = Schedule::from_fields(fields, Some(&role.schedule))?;
        if schedule != role.schedule {
            role.due_at = schedule.next(role.rotated_at, ctx.clock.now());
            role.schedule = schedule;
        }
        ctx.view.write(&record_name(name), &role, precondition).await?;
        Ok(Reply::empty())
    }

    pub(super) async fn read_static_role(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
    ) -> Result<Reply, CoreError> {
        let entry: Option<Entry<StaticRoleRecord>> = ctx.view.get(&record_name(name)).await?;
        let role = entry.ok_or(CoreError::NotFound)?.value;
        let mut reply = Reply::data(json!({
            "db_name": role.db_name,
            "username": role.username,
            "rotation_statements": role.rotation_statements,
            "credential_type": "password",
        }));
        if let Some(data) = &mut reply.data {
            role.show_schedule(data);
        }
        Ok(reply)
    }

    pub(super) async fn static_creds(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
    ) -> Result<Reply, CoreError> {
        let load = async || {
            let entry: Option<Entry<StaticRoleRecord>> = ctx.view.get(&record_name(name)).await?;
            let missing = || CoreError::invalid(format!("unknown role: {name}"));
            entry.map(|entry| entry.value).ok_or_else(missing)
        };
        let mut role = load().await?;
        let mut warning = None;
        if role.pending_password.is_some() {
            // A rotation was interrupted and either password may be in force: finish it first.
            match self.rotate(ctx, name).await {
                Ok(()) => {}
                Err(error @ (CoreError::Upstream { .. } | CoreError::Held(_))) => {
                    return Err(error);
                }
                Err(error) => warning = Some(format!("the last rotation failed: {error}")),
            }
            role = load().await?;
        }
        let Some(password) = &role.password else {
            return Err(CoreError::invalid("the first rotation has not succeeded yet"));
        };
        let mut reply = Reply::data(json!({
            "username": role.username,
            "password": password.secret().expose(),
            "ttl": role.due_at.remaining(ctx.clock.now()).as_secs(),
        }));
        if let Some(data) = &mut reply.data {
            role.show_schedule(data);
        }
        if let Some(hold) = ctx.hold.present() {
            warning = Some(format!(
                "a hold is in force, and this password may have been replaced: {}",
                hold.reason
            ));
        }
        Ok(match warning {
            Some(warning) => reply.warn(warning),
            None => reply,
        })
    }
}
