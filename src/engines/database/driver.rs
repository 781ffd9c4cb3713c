//! What a target database must be able to do, whatever it is.

use std::error::Error;

use async_trait::async_trait;

use super::statement::{StatementError, Statements};
use crate::crypto::scram::ScramError;
use crate::types::secret::{RandomError, SecretString};
use crate::types::time::Timestamp;

/// One target database under one configuration. Dropping it closes its connections.
#[async_trait]
pub trait DatabaseDriver: Send + Sync {
    /// Connects and asks the target something.
    ///
    /// # Errors
    /// As [`DriverError`] says.
    async fn verify(&self) -> Result<(), DriverError>;

    /// Makes a user in one transaction: either all creation statements took effect, or none did.
    /// The target itself refuses the user's logins from `expires` on.
    ///
    /// # Errors
    /// As [`DriverError`] says. After `Unavailable` the user may exist or not, but once
    /// [`revoke_user`](Self::revoke_user) has succeeded it does not and never will. After `NotBegun`
    /// it does not and never will in any case.
    async fn create_user(&self, user: &NewUser<'_>) -> Result<(), DriverError>;

    /// Moves the moment from which the target refuses the user's logins.
    ///
    /// # Errors
    /// [`DriverError::NoSuchUser`] when it is gone.
    async fn renew_user(
        &self,
        name: &str,
        expires: Timestamp,
        statements: &Statements,
    ) -> Result<(), DriverError>;

    /// Ends a user: no login, no live session, then gone. Succeeds when there is no such user.
    ///
    /// # Errors
    /// Whatever leaves it able to log in, alive in a session, or undropped.
    async fn revoke_user(&self, user: &DoomedUser<'_>) -> Result<(), DriverError>;

    /// Gives an existing user another password. Setting the same one again is harmless.
    ///
    /// # Errors
    /// As [`DriverError`] says.
    async fn set_password(
        &self,
        name: &str,
        password: &SecretString,
        statements: &Statements,
    ) -> Result<(), DriverError>;

    /// Runs statements about a user in one transaction, such as those that undo a failed creation.
    ///
    /// # Errors
    /// As [`DriverError`] says.
    async fn run(&self, name: &str, statements: &Statements) -> Result<(), DriverError>;

    /// Whether the target lets this user in with this password.
    ///
    /// # Errors
    /// When the target cannot be asked.
    async fn can_log_in(&self, name: &str, password: &SecretString) -> Result<bool, DriverError>;
}

/// A user to be made.
pub struct NewUser<'a> {
    /// Its name, chosen and made durable before.
    pub name: &'a str,
    /// Its password, of which the target sees a verifier only.
    pub password: &'a SecretString,
    /// From when on the target refuses its logins.
    pub expires: Timestamp,
    /// The operator's statements, already parsed.
    pub creation: &'a Statements,
}

/// A user to be ended.
pub struct DoomedUser<'a> {
    /// Its name.
    pub name: &'a str,
    /// The operator's statements; when empty, what it owns is handed to `heir`, its privileges are
    /// dropped, and so is it.
    pub revocation: &'a Statements,
    /// A role without login or privileges that what it owned is handed to; made when needed.
    pub heir: &'a str,
}

/// Why a target did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// It cannot be reached, is starting, stopping or full, or took too long. Worth another try.
    #[error("{step}: the database could not be reached or did not answer in time")]
    Unavailable {
        /// What was being done.
        step: &'static str,
        /// What the client library said.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// All connections that the broker may have to it are in use, and none came free. Worth another try.
    #[error("{step}: every connection to the database is in use")]
    Busy {
        /// What was being done.
        step: &'static str,
    },
    /// It understood and refused. The text holds no statement and no secret.
    #[error("{step}: the database refused: {message} (SQLSTATE {code}){advice}")]
    Refused {
        /// What was being done.
        step: String,
        /// What it said.
        message: String,
        /// Its five-letter code.
        code: String,
        /// What to do about it, when that is known; begins with a separator.
        advice: &'static str,
    },
    /// The broker's own login was refused.
    #[error("the database refused the login of the configured user (SQLSTATE {code})")]
    Login {
        /// Its five-letter code.
        code: String,
    },
    /// It failed, for the reason inside, before the target was sent anything of it.
    #[error(transparent)]
    NotBegun(Box<DriverError>),
    /// There is no such user.
    #[error("the database has no such user")]
    NoSuchUser,
    /// The creation statements ran, and yet there is no user of the planned name.
    #[error("the creation statements made no user named {{{{name}}}}")]
    NotCreated,
    /// Revocation statements ran, and yet the user can log in.
    #[error("the revocation statements left the user able to log in")]
    StillAlive,
    /// Objects or privileges in a database that does not let the broker in.
    #[error("the user still owns objects or privileges in database {database}, which {reason}")]
    OtherDatabase {
        /// Its name.
        database: String,
        /// Why they could not be taken away there.
        reason: String,
    },
    /// A name or value cannot stand in the statements.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// No verifier could be made.
    #[error(transparent)]
    Scram(#[from] ScramError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

impl DriverError {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Busy { .. } => true,
            Self::NotBegun(reason) => reason.is_unavailable(),
            Self::Refused { .. }
            | Self::Login { .. }
            | Self::NoSuchUser
            | Self::NotCreated
            | Self::StillAlive
            | Self::OtherDatabase { .. }
            | Self::Statement(_)
            | Self::Scram(_)
            | Self::Random(_) => false,
        }
    }
}
