//! From the name of a configured database to a driver for it.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::{Arc, PoisonError};

use super::DatabaseEngine;
use super::config::{ConfigRecord, record_name};
use super::driver::{DatabaseDriver, DriverError, NewUser};
use super::statement::Statements;
use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::core::hold::Unheld;
use crate::core::view::Entry;
use crate::types::time::{Timestamp, Ttl};

/// A configured database and its driver. What is there already is changed through
/// [`Target::unheld`] alone.
pub(super) struct Target {
    pub config: Entry<ConfigRecord>,
    driver: Arc<dyn DatabaseDriver>,
}

impl Target {
    /// All that the driver can do: no hold is in force.
    pub(super) fn unheld(&self, _proof: &Unheld) -> &dyn DatabaseDriver {
        self.driver.as_ref()
    }

    /// As [`DatabaseDriver::create_user`].
    pub(super) async fn create_user(&self, user: &NewUser<'_>) -> Result<(), DriverError> {
        self.driver.create_user(user).await
    }

    /// As [`DatabaseDriver::run`], for a user whose creation has just failed.
    pub(super) async fn roll_back(
        &self,
        name: &str,
        statements: &Statements,
    ) -> Result<(), DriverError> {
        self.driver.run(name, statements).await
    }

    /// As [`DatabaseDriver::renew_user`]: whoever has the user wants it prolonged.
    pub(super) async fn renew_user(
        &self,
        name: &str,
        expires: Timestamp,
        statements: &Statements,
    ) -> Result<(), DriverError> {
        self.driver.renew_user(name, expires, statements).await
    }
}

/// A driver and the generation of the configuration that it was made from.
pub(super) struct Cached {
    generation: String,
    driver: Arc<dyn DatabaseDriver>,
}

impl DatabaseEngine {
    /// The database `name`. Its driver, with its open connections, is kept until the configuration
    /// changes, on whichever node.
    pub(super) async fn target(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
    ) -> Result<Target, CoreError> {
        let config: Option<Entry<ConfigRecord>> = ctx.view.get(&record_name(name)).await?;
        let config = config
            .ok_or_else(|| CoreError::invalid(format!("database {name:?} is not configured")))?;
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = drivers.get(name)
            && cached.generation == config.value.generation
        {
            return Ok(Target { config, driver: Arc::clone(&cached.driver) });
        }
        let driver: Arc<dyn DatabaseDriver> = Arc::new(config.value.driver(ctx)?);
        let cached =
            Cached { generation: config.value.generation.clone(), driver: Arc::clone(&driver) };
        drivers.insert(name.to_owned(), cached);
        Ok(Target { config, driver })
    }

    /// Drops the driver of `name` and, once nobody uses it, its connections.
    pub(super) fn forget_driver(&self, name: &str) {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Drops the drivers of all databases but these.
    pub(super) fn keep_drivers(&self, names: &BTreeSet<String>) {
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        drivers.retain(|name, _| names.contains(name));
    }
}

/// What a driver's failure is to the caller: an unavailable target is worth another try, anything
/// else needs somebody to change something.
pub(super) fn failure(target: &str, error: DriverError) -> CoreError {
    if let DriverError::NotBegun(reason) = error {
        return failure(target, *reason);
    }
    match &error {
        DriverError::Unavailable { source, .. } => {
            let cause = source.as_ref().map(|source| root_cause(source.as_ref()));
            let message = match cause {
                Some(cause) => format!("{error} ({cause})"),
                None => error.to_string(),
            };
            CoreError::Upstream { target: format!("database {target:?}"), message }
        }
        // Which says nothing about the database.
        DriverError::Busy { .. } => CoreError::Overloaded { retry_after: Ttl::from_secs(1) },
        DriverError::Random(_) => CoreError::internal(error.to_string()),
        DriverError::Refused { .. }
        | DriverError::Login { .. }
        | DriverError::NoSuchUser
        | DriverError::NotBegun(_)
        | DriverError::NotCreated
        | DriverError::StillAlive
        | DriverError::OtherDatabase { .. }
        | DriverError::Statement(_)
        | DriverError::Scram(_) => CoreError::invalid(format!("database {target:?}: {error}")),
    }
}

fn root_cause(error: &(dyn Error + Send + Sync)) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
