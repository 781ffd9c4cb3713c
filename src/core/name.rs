//! Names that administrators give to what is stored under them.

use super::error::CoreError;

/// Longest such name, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// Refuses what is no name. There is one spelling of each: case does not fold, nothing is trimmed.
pub(super) fn check(name: &str) -> Result<(), CoreError> {
    let problem = match name.as_bytes() {
        [] => "is required",
        bytes if bytes.len() > NAME_BYTES_MAX => "is longer than 128 bytes",
        [first, rest @ ..]
            if first.is_ascii_alphanumeric()
                && rest.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b)) =>
        {
            return Ok(());
        }
        _ => "has only letters, digits and -_., and begins with a letter or digit",
    };
    Err(CoreError::field("name", problem))
}
