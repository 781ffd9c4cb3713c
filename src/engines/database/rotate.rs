//! Rotations, each in three steps: the new password is durable, then set, then in force.
//!
//! A crash after the first step leaves a pending password. For a static role it is set once more,
//! which is harmless if it was set already. For the broker's own user both passwords are tried at
//! every log-in until one of them is known to be the one.

use std::collections::BTreeSet;

use super::config::{self, ConfigRecord};
use super::driver::{DatabaseDriver, DriverError};
use super::static_role::{StaticRoleRecord, record_name};
use super::target::failure;
use super::{DatabaseEngine, password};
use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::core::reply::Reply;
use crate::core::stored::StoredSecret;
use crate::core::view::Entry;
use crate::types::id::random_base62;
use crate::types::secret::SecretString;
use crate::types::time::{Timestamp, Ttl};

/// Pause after the first failed rotation; doubled with each further one.
const RETRY_SECS_MIN: u64 = 10;
/// Longest pause between attempts.
const RETRY_SECS_MAX: u64 = 600;

impl DatabaseEngine {
    pub(super) async fn rotate_role(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
    ) -> Result<Reply, CoreError> {
        self.rotate(ctx, name).await?;
        Ok(Reply::empty())
    }

    /// Gives a static role's user a new password, or finishes doing so. While a hold is in force not
    /// even that: the pending password, too, may have been replaced since.
    pub(super) async fn rotate(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
    ) -> Result<(), CoreError> {
        let unheld = ctx.hold.unheld()?;
        let mut entry = load(ctx, name).await?;
        if entry.value.pending_password.is_none() {
            let new = match self.new_password(ctx, &entry.value.db_name).await {
                Ok(new) => new,
                Err(error) => {
                    note_failure(ctx, name, entry, false).await?;
                    return Err(error);
                }
            };
            let precondition = Entry::expected(Some(&entry));
            entry.value.pending_password = Some(StoredSecret::new(new));
            ctx.view.write(&record_name(name), &entry.value, precondition).await?;
            entry = load(ctx, name).await?;
        }
        let Some(pending) = &entry.value.pending_password else { return Ok(()) };
        let statements = entry.value.rotation()?;
        let (target, username) = (&entry.value.db_name, &entry.value.username);
        let database = self.target(ctx, target).await?;
        let driver = database.unheld(&unheld);
        match driver.set_password(username, pending.secret(), &statements).await {
            Ok(()) => promote(ctx, name, entry).await,
            Err(error) if error.is_unavailable() => {
                let error = failure(target, error);
                note_failure(ctx, name, entry, true).await?;
                Err(error)
            }
            Err(error) => {
                // Refused now; an attempt before a crash may have succeeded all the same.
                let took_effect = driver.can_log_in(username, pending.secret()).await;
                let error = failure(target, error);
                match took_effect {
                    Ok(true) => promote(ctx, name, entry).await,
                    Ok(false) | Err(_) => {
                        note_failure(ctx, name, entry, took_effect.is_err()).await?;
                        Err(error)
                    }
                }
            }
        }
    }

    /// A password as the configuration of the database `name` wants it.
    async fn new_password(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
    ) -> Result<SecretString, CoreError> {
        let target = self.target(ctx, name).await?;
        password::for_users_of(ctx, &target.config.value).await
    }

    /// Does what is due and tells when it wants to be called again.
    pub(super) async fn run_due(
        &self,
        ctx: &EngineContext<'_>,
    ) -> Result<Option<Timestamp>, CoreError> {
        let mut next = self.clean_up_trials(ctx).await?;
        let mut configured = BTreeSet::new();
        for (path, entry) in ctx.view.entries::<ConfigRecord>("config/").await? {
            let name = path.strip_prefix("config/").unwrap_or(&path);
            configured.insert(name.to_owned());
            if entry.value.pending_password.is_some()
                && let Err(error) = self.settle_root(ctx, name).await
            {
                tracing::warn!(database = %name, %error, "a root rotation is not finished");
                earliest(&mut next, ctx.clock.now().plus(Ttl::from_secs(RETRY_SECS_MAX)));
            }
        }
        self.keep_drivers(&configured);
        self.rotate_due(ctx, &mut next).await?;
        Ok(next)
    }

    async fn rotate_due(
        &self,
        ctx: &EngineContext<'_>,
        next: &mut Option<Timestamp>,
    ) -> Result<(), CoreError> {
        let mut down = BTreeSet::new();
        for (path, entry) in ctx.view.entries::<StaticRoleRecord>("static-roles/").await? {
            let name = path.strip_prefix("static-roles/").unwrap_or(&path);
            let now = ctx.clock.now();
            let mut wakes_at = entry.value.wakes_at();
            if wakes_at <= now && !down.contains(&entry.value.db_name) {
                let target = entry.value.db_name.clone();
                if let Err(error) = self.rotate_in_window(ctx, name, entry).await {
                    tracing::warn!(role = %name, database = %target, %error, "a rotation failed");
                    if matches!(error, CoreError::Upstream { .. }) {
                        down.insert(target);
                    }
                }
                let Some(after) = ctx.view.get::<StaticRoleRecord>(&path).await? else { continue };
                wakes_at = after.value.wakes_at();
            }
            // What is still due waits for its target; it must not make the caller spin.
            earliest(next, wakes_at.max(now.plus(Ttl::from_secs(1))));
        }
        Ok(())
    }

    /// Rotates, unless the window of a schedule has closed meanwhile.
    async fn rotate_in_window(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        mut entry: Entry<StaticRoleRecord>,
    ) -> Result<(), CoreError> {
        let now = ctx.clock.now();
        let missed = entry.value.schedule.is_missed(entry.value.due_at, now);
        if !missed || entry.value.pending_password.is_some() {
            return self.rotate(ctx, name).await;
        }
        tracing::warn!(role = %name, "a rotation missed its window and waits for the next");
        let precondition = Entry::expected(Some(&entry));
        entry.value.due_at = entry.value.schedule.next(entry.value.rotated_at, now);
        entry.value.retry_at = None;
        ctx.view.write(&record_name(name), &entry.value, precondition).await
    }

    /// Gives the broker's own user a new password.
    pub(super) async fn rotate_root(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
    ) -> Result<Reply, CoreError> {
        let unheld = ctx.hold.unheld()?;
        self.settle_root(ctx, name).await?;
        let mut entry = load_config(ctx, name).await?;
        if entry.value.password.is_none() {
            return Err(CoreError::invalid(
                "this database is configured without a password, so there is none to rotate",
            ));
        }
        let statements = entry.value.rotation()?;
        let username = entry.value.username.clone();
        let new = password::for_users_of(ctx, &entry.value).await?;
        let before = Entry::expected(Some(&entry));
        entry.value.pending_password = Some(StoredSecret::new(new.duplicate()));
        entry.value.generation = random_base62(16)?;
        ctx.view.write(&config::record_name(name), &entry.value, before).await?;

        let target = self.target(ctx, name).await?;
        let driver = target.unheld(&unheld);
        let outcome = driver.set_password(&username, &new, &statements).await;
        match outcome {
            Ok(()) => self.settle_root(ctx, name).await?,
            Err(error) => {
                // Whether it took effect shows when the target is next asked to let us in.
                let error = failure(name, error);
                if let Err(unsettled) = self.settle_root(ctx, name).await {
                    tracing::warn!(database = %name, error = %unsettled, "both passwords are kept");
                }
                return Err(error);
            }
        }
        Ok(Reply::empty())
    }

    /// Finds out which of two root passwords is in force, and keeps that one only.
    async fn settle_root(&self, ctx: &EngineContext<'_>, name: &str) -> Result<(), CoreError> {
        let mut entry = load_config(ctx, name).await?;
        let Some(pending) = &entry.value.pending_password else { return Ok(()) };
        let newest = entry.value.driver_with(ctx, vec![pending.secret().duplicate()])?;
        let accepted = match newest.verify().await {
            Ok(()) => true,
            Err(DriverError::Login { .. }) => false,
            Err(error) => return Err(failure(name, error)),
        };
        let precondition = Entry::expected(Some(&entry));
        if accepted {
            entry.value.password = entry.value.pending_password.take();
        } else {
            // Forget it only when the other one is known to work.
            let old = entry.value.password.iter().map(|old| old.secret().duplicate()).collect();
            let old = entry.value.driver_with(ctx, old)?;
            old.verify().await.map_err(|error| failure(name, error))?;
            entry.value.pending_password = None;
        }
        entry.value.generation = random_base62(16)?;
        ctx.view.write(&config::record_name(name), &entry.value, precondition).await?;
        self.forget_driver(name);
        Ok(())
    }
}

async fn load(ctx: &EngineContext<'_>, name: &str) -> Result<Entry<StaticRoleRecord>, CoreError> {
    let entry = ctx.view.get_fresh(&record_name(name)).await?;
    entry.ok_or_else(|| CoreError::invalid(format!("unknown role: {name}")))
}

async fn load_config(
    ctx: &EngineContext<'_>,
    name: &str,
) -> Result<Entry<ConfigRecord>, CoreError> {
    let entry = ctx.view.get_fresh(&config::record_name(name)).await?;
    entry.ok_or_else(|| CoreError::invalid(format!("database {name:?} is not configured")))
}

/// The pending password is in force.
async fn promote(
    ctx: &EngineContext<'_>,
    name: &str,
    mut entry: Entry<StaticRoleRecord>,
) -> Result<(), CoreError> {
    let now = ctx.clock.now();
    let precondition = Entry::expected(Some(&entry));
    let role = &mut entry.value;
    role.password = role.pending_password.take();
    role.rotated_at = now;
    role.due_at = role.schedule.next(now, now);
    role.failures = 0;
    role.retry_at = None;
    match ctx.view.write(&record_name(name), role, precondition).await {
        // Somebody else may have finished the same rotation, with the same pending password.
        Err(error @ CoreError::Storage(_)) => {
            let other = load(ctx, name).await?.value;
            match (&other.password, &role.password) {
                (Some(theirs), Some(ours)) if theirs.secret().ct_eq(ours.secret().expose()) => {
                    Ok(())
                }
                _ => Err(error),
            }
        }
        outcome => outcome,
    }
}

/// Schedules another attempt. The pending password is kept while it may be in force.
async fn note_failure(
    ctx: &EngineContext<'_>,
    name: &str,
    mut entry: Entry<StaticRoleRecord>,
    keep_pending: bool,
) -> Result<(), CoreError> {
    let precondition = Entry::expected(Some(&entry));
    let role = &mut entry.value;
    let pause = RETRY_SECS_MIN.saturating_mul(1 << role.failures.min(10)).min(RETRY_SECS_MAX);
    role.failures = role.failures.saturating_add(1);
    role.retry_at = Some(ctx.clock.now().plus(Ttl::from_secs(pause)));
    if !keep_pending && role.password.is_some() {
        role.pending_password = None;
    }
    ctx.view.write(&record_name(name), role, precondition).await
}

fn earliest(next: &mut Option<Timestamp>, at: Timestamp) {
    *next = Some(next.map_or(at, |next| next.min(at)));
}
