//! Generated passwords: by the password policy that a database names, else in our own way.

use super::config::ConfigRecord;
use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::types::id::random_base62;
use crate::types::secret::{RandomError, SecretString};

/// Length of a generated password: 24 characters of base62 are 142 bits.
pub const PASSWORD_CHARS: usize = 24;

/// A password for a user of the database that is configured so.
///
/// # Errors
/// `Invalid` when its password policy is not there.
pub(super) async fn for_users_of(
    ctx: &EngineContext<'_>,
    config: &ConfigRecord,
) -> Result<SecretString, CoreError> {
    match config.password_policy.as_str() {
        "" => Ok(generate()?),
        policy => ctx.password(policy).await,
    }
}

/// A random password of base62 with at least one upper-case letter, lower-case letter and digit.
///
/// # Errors
/// When the operating system has no randomness to give.
pub fn generate() -> Result<SecretString, RandomError> {
    loop {
        let password = SecretString::new(random_base62(PASSWORD_CHARS)?);
        let has = |class: fn(&u8) -> bool| password.expose().as_bytes().iter().any(class);
        // About one in sixty is drawn again, which takes a tenth of a bit.
        if has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit) {
            return Ok(password);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_password_has_every_class() {
        for _ in 0..500 {
            let password = generate().unwrap();
            let text = password.expose();
            assert_eq!(text.len(), PASSWORD_CHARS);
            assert!(text.bytes().all(|b| b.is_ascii_alphanumeric()));
            assert!(text.bytes().any(|b| b.is_ascii_digit()));
            assert!(text.bytes().any(|b| b.is_ascii_uppercase()));
            assert!(text.bytes().any(|b| b.is_ascii_lowercase()));
        }
    }
}
