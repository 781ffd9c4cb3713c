//! Why the core did not do what it was asked: one variant for each thing a caller can do about it.
//!
//! The text that leaves the server and the cause that stays inside are separate: `Display` is the
//! outside text, `source()` and the `reason` fields are for the audit and the log.

use crate::storage::StorageError;
use crate::types::path::PathError;
use crate::types::secret::RandomError;
use crate::types::time::Ttl;

use super::fields::FieldError;

/// A failed operation.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// No working audit sink took the entry, so nothing may be answered.
    #[error("the audit log does not accept entries")]
    AuditUnavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The caller may not. The answer says no more than that.
    #[error("permission denied")]
    Denied {
        /// Why, for the audit alone.
        reason: String,
    },
    /// A field is missing or malformed.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// Revocations and rotations are held back until an administrator releases the hold.
    #[error("revocations and rotations are on hold: {0}")]
    Held(String),
    /// Something in here broke; the caller can only report the request id.
    #[error("internal error")]
    Internal {
        /// What broke, for the log alone.
        reason: String,
    },
    /// The request makes no sense, for the reason given.
    #[error("{0}")]
    Invalid(String),
    /// A body in a form that the method does not take.
    #[error("PATCH takes Content-Type: application/merge-patch+json")]
    MediaType,
    /// There is nothing at that path.
    #[error("not found")]
    NotFound,
    /// The store was never initialised.
    #[error("the server is not initialized")]
    NotInitialized,
    /// Too much at once; nothing was done.
    #[error("the server is overloaded, try again")]
    Overloaded {
        /// When to try again.
        retry_after: Ttl,
    },
    /// The path is not canonical.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A log-in did not prove who it claims to be. The answer is the same for every reason.
    #[error("{answer}")]
    Refused {
        /// What the method says to all of them.
        answer: &'static str,
        /// Why, for the audit alone.
        reason: String,
    },
    /// The server is sealed.
    #[error("Vault is sealed")]
    Sealed,
    /// The store did not do its part.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The answer was not there in time. Whether the request was done is not known.
    #[error("the request took too long; whether it was done, wholly or in part, is not known")]
    TookTooLong,
    /// The request body is over the limit.
    #[error("the request body is larger than {0} bytes")]
    TooLarge(usize),
    /// A cap or quota is reached.
    #[error("{message}")]
    TooMany {
        /// Which one.
        message: String,
        /// When to try again.
        retry_after: Ttl,
    },
    /// The path does not serve that operation.
    #[error("unsupported operation")]
    Unsupported,
    /// A system behind us cannot be reached or does not answer; trying again can help.
    #[error("{target} is unavailable: {message}")]
    Upstream {
        /// Which system.
        target: String,
        /// What it said, free of secrets.
        message: String,
    },
}

impl CoreError {
    /// Whether the broker itself is why something was not done, so that it says nothing about the
    /// system that was to be asked.
    pub const fn is_ours(&self) -> bool {
        matches!(
            self,
            Self::AuditUnavailable(_)
                | Self::Held(_)
                | Self::Overloaded { .. }
                | Self::Sealed
                | Self::Storage(_)
        )
    }

    /// The HTTP status that says it: exhaustive, so that a new variant has to decide.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Field(_) | Self::Invalid(_) | Self::Path(_) | Self::Refused { .. } => 400,
            Self::Denied { .. } => 403,
            Self::NotFound => 404,
            Self::Unsupported => 405,
            Self::Held(_) => 409,
            Self::TooLarge(_) => 413,
            Self::MediaType => 415,
            Self::TooMany { .. } => 429,
            Self::Internal { .. } => 500,
            Self::Upstream { .. } => 502,
            Self::AuditUnavailable(_)
            | Self::NotInitialized
            | Self::Overloaded { .. }
            | Self::Sealed
            | Self::TookTooLong => 503,
            Self::Storage(error) => match error {
                StorageError::Conflict => 409,
                StorageError::Limit => 429,
                StorageError::Busy | StorageError::Unavailable(_) => 503,
                StorageError::Full(_) => 507,
                StorageError::CannotOpen(_)
                | StorageError::Corrupt(_)
                | StorageError::NewerSchema { .. } => 500,
            },
        }
    }

    /// Whether a conditional change found something else than it expected: read again and retry.
    pub const fn is_conflict(&self) -> bool {
        matches!(self, Self::Storage(StorageError::Conflict))
    }

    /// The text that leaves the server. What is not the caller's business is not in it.
    pub fn public_text(&self) -> String {
        match self {
            Self::Storage(error) => match error {
                StorageError::Conflict => "the record was changed meanwhile, read it again".into(),
                StorageError::Limit => "a limit is reached".into(),
                StorageError::Busy => "the store is overloaded, try again".into(),
                StorageError::Full(_) => "the store has no space left; nothing was written".into(),
                StorageError::Unavailable(_) => "the store is unavailable".into(),
                StorageError::CannotOpen(_)
                | StorageError::Corrupt(_)
                | StorageError::NewerSchema { .. } => "internal error".into(),
            },
            Self::AuditUnavailable(_)
            | Self::Denied { .. }
            | Self::Field(_)
            | Self::Held(_)
            | Self::Internal { .. }
            | Self::Invalid(_)
            | Self::MediaType
            | Self::NotFound
            | Self::NotInitialized
            | Self::Overloaded { .. }
            | Self::Path(_)
            | Self::Refused { .. }
            | Self::Sealed
            | Self::TooLarge(_)
            | Self::TookTooLong
            | Self::TooMany { .. }
            | Self::Unsupported
            | Self::Upstream { .. } => self.to_string(),
        }
    }

    /// When trying again can help, if the caller should be told.
    pub fn retry_after(&self) -> Option<Ttl> {
        match self {
            Self::Overloaded { retry_after } | Self::TooMany { retry_after, .. } => {
                Some(*retry_after)
            }
            Self::AuditUnavailable(_)
            | Self::TookTooLong
            | Self::Storage(StorageError::Busy | StorageError::Unavailable(_)) => {
                Some(Ttl::from_secs(1))
            }
            Self::Denied { .. }
            | Self::Field(_)
            | Self::Held(_)
            | Self::Internal { .. }
            | Self::Invalid(_)
            | Self::MediaType
            | Self::NotFound
            | Self::NotInitialized
            | Self::Path(_)
            | Self::Refused { .. }
            | Self::Sealed
            | Self::Storage(_)
            | Self::TooLarge(_)
            | Self::Unsupported
            | Self::Upstream { .. } => None,
        }
    }

    /// What only the audit and the log may say, when there is more than the public text.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Denied { reason } | Self::Internal { reason } | Self::Refused { reason, .. } => {
                Some(reason.clone())
            }
            Self::AuditUnavailable(source) => Some(source.to_string()),
            Self::Storage(error) => Some(error.to_string()),
            Self::Field(_)
            | Self::Held(_)
            | Self::Invalid(_)
            | Self::MediaType
            | Self::NotFound
            | Self::NotInitialized
            | Self::Overloaded { .. }
            | Self::Path(_)
            | Self::Sealed
            | Self::TooLarge(_)
            | Self::TookTooLong
            | Self::TooMany { .. }
            | Self::Unsupported
            | Self::Upstream { .. } => None,
        }
    }

    /// A bad request, for the reason given.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    /// A denial whose reason only the audit sees.
    pub fn denied(reason: impl Into<String>) -> Self {
        Self::Denied { reason: reason.into() }
    }

    /// A bad field; never put the field's value into `problem`.
    pub fn field(name: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Field(FieldError::new(name, problem))
    }

    /// Something that should not happen; the reason goes to the log.
    pub fn internal(reason: impl Into<String>) -> Self {
        Self::Internal { reason: reason.into() }
    }
}

impl From<RandomError> for CoreError {
    fn from(error: RandomError) -> Self {
        Self::internal(error.to_string())
    }
}
