//! Trying a login on a PostgreSQL server, for the command line's demonstration.

use std::sync::Arc;

use crate::engines::database::driver::{DatabaseDriver, DriverError};
use crate::engines::database::postgres::{PostgresConfig, PostgresDriver, SettingsError};
use crate::types::secret::SecretString;
use crate::types::time::{SystemClock, Ttl};

/// A PostgreSQL server that logins are tried on.
pub struct PostgresLogin(PostgresDriver);

impl PostgresLogin {
    /// `url` is as in the database engine's `connection_url`, `username` and `password` those of an
    /// administrator.
    ///
    /// # Errors
    /// The field that is wrong.
    pub fn new(url: &str, username: &str, password: &SecretString) -> Result<Self, SettingsError> {
        let config = PostgresConfig {
            connection_url: url,
            username,
            passwords: vec![password.duplicate()],
            tls_ca: None,
            tls_certificate: None,
            private_key: None,
            max_open_connections: 1,
            max_idle_connections: 0,
            max_connection_lifetime: Ttl::ZERO,
        };
        PostgresDriver::new(config, Arc::new(SystemClock)).map(Self)
    }

    /// Whether the administrator can log in.
    ///
    /// # Errors
    /// Why not.
    pub async fn verify(&self) -> Result<(), DriverError> {
        self.0.verify().await
    }

    /// Whether this user can log in.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn accepts(&self, user: &str, password: &SecretString) -> Result<bool, DriverError> {
        self.0.can_log_in(user, password).await
    }
}
