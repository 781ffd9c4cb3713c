//! Policies as text, for the command line.

use crate::core::policy::format::formatted;
use crate::core::policy::{Policy, PolicyName};

/// The policy in the usual style, comments kept.
///
/// # Errors
/// What the server would refuse it for, in words.
pub fn format(text: &str) -> Result<String, String> {
    let name = PolicyName::parse("policy").map_err(|error| error.to_string())?;
    Policy::parse(&name, text).map_err(|error| error.to_string())?;
    if text.trim_start().starts_with('{') {
        return Err("it is JSON, which this does not format".to_owned());
    }
    formatted(text).map_err(|(line, problem)| format!("line {line}: {problem}"))
}
