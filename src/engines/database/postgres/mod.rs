//! PostgreSQL, version 11 or later.
//!
//! Least privilege for the configured user: `CREATEROLE`, the privileges that creation statements
//! grant, each with grant option, and `CONNECT` on every database in which leased users may own
//! objects or hold privileges. On PostgreSQL 16 and later `CREATEROLE` reaches only roles that it
//! made itself, which is what is wanted. `pg_signal_backend` is not needed: the broker becomes a
//! member of the role whose sessions it ends.

mod failure;
mod pool;
mod revoke;
mod settings;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use zeroize::Zeroizing;

use self::failure::unavailable;
use self::pool::Pool;
use self::settings::Settings;
pub use self::settings::{CONNECTIONS_MAX, PostgresConfig, SettingsError};
use self::transaction::{Failed, Work, ask, begin};
use super::driver::{DatabaseDriver, DoomedUser, DriverError, NewUser};
use super::sql::{quote_literal, quote_name};
use super::statement::{Statements, Values};
use crate::core::failpoint::fail_point;
use crate::crypto::scram::scram_sha256;
use crate::types::secret::SecretString;
use crate::types::time::{Clock, Timestamp};

/// No creation begins to commit later than this after it was asked for, so that an intent this old
/// can be revoked for good.
pub const CREATE_TIMEOUT: Duration = Duration::from_secs(45);

/// A PostgreSQL target under one configuration.
pub struct PostgresDriver {
    pool: Pool,
    server_unverified: bool,
}

impl PostgresDriver {
    /// Understands a configuration. Connects to nothing yet.
    ///
    /// # Errors
    /// The field that is wrong.
    pub fn new(config: PostgresConfig<'_>, clock: Arc<dyn Clock>) -> Result<Self, SettingsError> {
        let settings = Settings::parse(config)?;
        let server_unverified = settings.server_unverified;
        Ok(Self { pool: Pool::new(settings, clock), server_unverified })
    }

    /// Whether connections are encrypted to a server that nobody verifies (`sslmode=require`
    /// without a CA).
    pub fn is_server_unverified(&self) -> bool {
        self.server_unverified
    }

    async fn create(&self, user: &NewUser<'_>) -> Result<(), DriverError> {
        let not_begun = |error| DriverError::NotBegun(Box::new(error));
        let verifier = verifier(user.password).await.map_err(not_begun)?;
        let expiration = expiration(user.expires);
        let values =
            Values { name: user.name, password: verifier.expose(), expiration: &expiration };
        let rendered = user.creation.render(&values);
        let mut statements = rendered.map_err(|error| not_begun(error.into()))?;
        let count = statements.len();
        // Proves that the planned user was made, and that the target ends it by itself.
        statements.push(valid_until(user.name, &expiration));
        let work = Work { step: "create the user", secret: Some(verifier.expose()) };
        match begin(&self.pool, work, user.name, &statements).await {
            Ok(open) => {
                fail_point("database.creating");
                open.commit().await
            }
            Err(Failed { index, missing_object: true, .. }) if index >= count => {
                Err(DriverError::NotCreated)
            }
            Err(Failed { error, begun: false, .. }) => Err(not_begun(error)),
            Err(Failed { error, .. }) => Err(error),
        }
    }
}

#[async_trait]
impl DatabaseDriver for PostgresDriver {
    async fn verify(&self) -> Result<(), DriverError> {
        let lent = self.pool.take().await?;
        ask(&lent, "verify the connection", "SELECT 1").await?;
        lent.give_back();
        Ok(())
    }

    async fn create_user(&self, user: &NewUser<'_>) -> Result<(), DriverError> {
        tokio::time::timeout(CREATE_TIMEOUT, self.create(user))
            .await
            .unwrap_or_else(|error| Err(unavailable("create the user", error)))
    }

    async fn renew_user(
        &self,
        name: &str,
        expires: Timestamp,
        statements: &Statements,
    ) -> Result<(), DriverError> {
        let expiration = expiration(expires);
        let mut all = vec![valid_until(name, &expiration)];
        all.extend(statements.render(&Values { name, expiration: &expiration, password: "" })?);
        match begin(&self.pool, Work::new("renew the user"), name, &all).await {
            Ok(open) => open.commit().await,
            Err(Failed { index: 0, missing_object: true, .. }) => Err(DriverError::NoSuchUser),
            Err(Failed { error, .. }) => Err(error),
        }
    }

    async fn revoke_user(&self, user: &DoomedUser<'_>) -> Result<(), DriverError> {
        revoke::revoke(&self.pool, user).await
    }

    async fn set_password(
        &self,
        name: &str,
        password: &SecretString,
        statements: &Statements,
    ) -> Result<(), DriverError> {
        let verifier = verifier(password).await?;
        let values = Values { name, password: verifier.expose(), expiration: "" };
        let all = if statements.is_empty() {
            vec![Zeroizing::new(format!(
                "ALTER ROLE {} WITH PASSWORD {}",
                quote_name(name),
                quote_literal(verifier.expose())
            ))]
        } else {
            statements.render(&values)?
        };
        let work = Work { step: "set the password", secret: Some(verifier.expose()) };
        match begin(&self.pool, work, name, &all).await {
            Ok(open) => open.commit().await,
            Err(Failed { missing_object: true, .. }) if statements.is_empty() => {
                Err(DriverError::NoSuchUser)
            }
            Err(Failed { error, .. }) => Err(error),
        }
    }

    async fn run(&self, name: &str, statements: &Statements) -> Result<(), DriverError> {
        let all = statements.render(&Values { name, password: "", expiration: "" })?;
        match begin(&self.pool, Work::new("run the rollback statements"), name, &all).await {
            Ok(open) => open.commit().await,
            Err(Failed { error, .. }) => Err(error),
        }
    }

    async fn can_log_in(&self, name: &str, password: &SecretString) -> Result<bool, DriverError> {
        self.pool.accepts(name, password).await
    }
}

fn valid_until(name: &str, expiration: &str) -> Zeroizing<String> {
    Zeroizing::new(format!(
        "ALTER ROLE {} VALID UNTIL {}",
        quote_name(name),
        quote_literal(expiration)
    ))
}

/// A moment as PostgreSQL reads it under every `DateStyle`, rounded up to a second.
fn expiration(at: Timestamp) -> String {
    let secs = at.plus_millis(999).as_secs();
    match DateTime::<Utc>::from_timestamp(secs, 0) {
        Some(moment) => moment.format("%Y-%m-%d %H:%M:%S+00").to_string(),
        None => "infinity".to_owned(),
    }
}

/// Off the request threads: thousands of rounds of a hash take about a millisecond.
async fn verifier(password: &SecretString) -> Result<SecretString, DriverError> {
    let password = password.duplicate();
    tokio::task::spawn_blocking(move || scram_sha256(&password))
        .await
        // Of a panic there, the error could quote what it was about.
        .map_err(|_| DriverError::Unavailable { step: "make a verifier", source: None })?
        .map_err(DriverError::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expirations_are_rounded_up() {
        assert_eq!(expiration(Timestamp::from_millis(1_900_000_000_001)), "2030-03-17 17:46:41+00");
        assert_eq!(expiration(Timestamp::from_millis(1_900_000_000_000)), "2030-03-17 17:46:40+00");
        assert_eq!(expiration(Timestamp::MAX), "infinity");
    }
}
