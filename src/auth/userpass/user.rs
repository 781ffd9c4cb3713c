//! Users, as they are stored.

use serde::{Deserialize, Serialize};

use crate::core::engine::TokenParameters;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::crypto::password::PasswordHash;
use crate::types::secret::SecretString;

/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// Longest password, in bytes.
const PASSWORD_BYTES_MAX: usize = 1024;

/// A user.
#[derive(Serialize, Deserialize)]
pub(super) struct User {
    pub(super) password: PasswordHash,
    #[serde(default)]
    pub(super) token: TokenParameters,
}

/// A name as users have it. Names are lower-case, so that the name that a policy judges in a path is
/// the name that is stored.
///
/// # Errors
/// When nobody can be called so.
pub(super) fn checked_name(name: &str) -> Result<&str, CoreError> {
    let good =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.@+".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(good) {
        return Err(CoreError::field(
            "username",
            "must be of lower-case letters, digits and -_.@+, and at most 128 bytes long",
        ));
    }
    Ok(name)
}

/// The password in `fields`.
///
/// # Errors
/// When it is missing, empty or too long.
pub(super) fn password(fields: &Fields) -> Result<SecretString, CoreError> {
    let given = fields.secret("password")?.filter(|password| !password.expose().is_empty());
    let password = given.ok_or_else(|| CoreError::field("password", "is required"))?;
    if password.expose().len() > PASSWORD_BYTES_MAX {
        return Err(CoreError::field("password", "is longer than 1024 bytes"));
    }
    Ok(password)
}
