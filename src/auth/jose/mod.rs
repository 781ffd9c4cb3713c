//! What the methods share that take signed tokens: claims and their times, and the keys that other
//! servers publish.

pub(super) mod claims;
pub(super) mod provider;
#[cfg(test)]
pub(super) mod scratch;

use serde_json::Value;

use crate::core::error::CoreError;
use crate::core::fields::{FieldError, Fields};
use crate::core::outgoing::OutgoingError;
use crate::types::secret::SecretString;

/// Longest PEM of one field, in bytes.
pub(super) const PEM_BYTES_MAX: usize = 256 * 1024;

/// Why a log-in is refused, for the audit. Names what was looked at, and quotes nothing of a token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refusal(String);

impl Refusal {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    /// The refusal as every one of its method is answered.
    pub(super) fn answered(self, answer: &'static str) -> CoreError {
        CoreError::Refused { answer, reason: self.0 }
    }
}

impl From<crate::crypto::jose::TokenError> for Refusal {
    fn from(error: crate::crypto::jose::TokenError) -> Self {
        Self(error.to_string())
    }
}

/// A secret that a request gives, without the line break that a file or a pipe leaves behind; `None`
/// when there is nothing.
pub(super) fn given(fields: &Fields, name: &str) -> Result<Option<SecretString>, FieldError> {
    let given = fields.secret(name)?;
    let trimmed = given.map(|given| SecretString::new(given.expose().trim().to_owned()));
    Ok(trimmed.filter(|given| !given.expose().is_empty()))
}

/// Text that may be missing, no longer than `bytes_max`.
pub(super) fn text(fields: &Fields, name: &str, bytes_max: usize) -> Result<String, CoreError> {
    let text = fields.text(name)?.unwrap_or_default();
    if text.len() > bytes_max {
        return Err(CoreError::field(name, format!("is longer than {bytes_max} bytes")));
    }
    Ok(text)
}

/// PEM texts, as a list or one after the other in one text.
pub(super) fn pems(fields: &Fields, name: &str) -> Result<Vec<String>, CoreError> {
    let given = match fields.get(name) {
        // Base64 holds no comma.
        Some(Value::String(_)) | None => fields.statements(name)?,
        Some(_) => fields.list(name)?,
    };
    let given = given.unwrap_or_default();
    if given.iter().map(String::len).sum::<usize>() > PEM_BYTES_MAX {
        return Err(CoreError::field(name, "is longer than 256 KiB"));
    }
    Ok(given)
}

/// A failed request as an administrator is told who has just written `field`, the URL of it.
pub(super) fn told(error: OutgoingError, field: &str) -> CoreError {
    match error {
        OutgoingError::Refused(text) => CoreError::field(field, text),
        OutgoingError::Failed(message) => {
            CoreError::Upstream { target: format!("the server of {field}"), message }
        }
        OutgoingError::Busy => busy(),
    }
}

/// A failed request as somebody is told who tries to log in: that it failed. The log says why.
pub(super) fn untold(error: OutgoingError, mount: &str, asked: &str) -> CoreError {
    if error == OutgoingError::Busy {
        return busy();
    }
    tracing::warn!(mount, asked, %error, "a log-in could not be judged");
    CoreError::Upstream { target: asked.to_owned(), message: "it could not be asked".into() }
}

fn busy() -> CoreError {
    CoreError::Overloaded { retry_after: crate::types::time::Ttl::from_secs(1) }
}
