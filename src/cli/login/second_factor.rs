//! The second factor of a log-in: one-time passwords, given or asked for.

use serde_json::{Map, Value, json};

use crate::cli::error::CliError;
use crate::cli::session::Session;
use crate::client::Reply;

/// A method, one of which has to be proven.
struct Choice {
    id: String,
    name: String,
}

impl Choice {
    fn read(method: &Value) -> Self {
        let text = |name| method.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self { id: text("id"), name: text("name") }
    }

    /// What people know it by.
    fn shown(&self) -> &str {
        if self.name.is_empty() { &self.id } else { &self.name }
    }
}

/// Whether an answer demands a second factor instead of giving a token.
pub(super) fn is_demanded(reply: &Reply) -> bool {
    reply.body.pointer("/auth/mfa_requirement").is_some_and(Value::is_object)
}

/// Shows the codes that a log-in has to show, and asks for those that are not among `given`. An answer
/// that demands none is given back as it is.
///
/// # Errors
/// A code that is not given, an answer that makes no sense, or as the server answers.
pub(super) async fn show(
    session: &mut Session<'_>,
    reply: Reply,
    given: &[String],
) -> Result<Reply, CliError> {
    if !is_demanded(&reply) {
        return Ok(reply);
    }
    let at = |path: &str| reply.body.pointer(&format!("/auth/mfa_requirement/{path}"));
    let constraints = at("mfa_constraints").and_then(Value::as_object);
    let mut payload = Map::new();
    for constraint in constraints.into_iter().flat_map(Map::values) {
        let any = constraint.get("any").and_then(Value::as_array).into_iter().flatten();
        let choices: Vec<_> = any.map(Choice::read).collect();
        if choices.iter().any(|choice| payload.contains_key(&choice.id)) {
            continue;
        }
        let first = choices.first().ok_or(CliError::Answer("method to prove"))?;
        let (choice, code) =
            match choices.iter().find_map(|one| Some((one, given_for(one, given)?))) {
                Some((choice, code)) => (choice, code.to_owned()),
                None => {
                    let prompt = format!("Code of {} (will not be shown): ", first.shown());
                    (first, session.secret(None, &prompt)?.expose().to_owned())
                }
            };
        payload.insert(choice.id.clone(), json!([code]));
    }
    let body = json!({ "mfa_request_id": at("mfa_request_id"), "mfa_payload": payload });
    session.write("sys/mfa/validate", body).await
}

/// The code for a method among those given: one that names it, or else one that names none.
fn given_for<'g>(choice: &Choice, given: &'g [String]) -> Option<&'g str> {
    let named = given.iter().filter_map(|text| text.rsplit_once(':'));
    let named = named.into_iter().find(|(name, _)| *name == choice.id || *name == choice.name);
    let alone = || given.iter().find(|text| !text.contains(':')).map(String::as_str);
    named.map(|(_, code)| code).or_else(alone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_names_its_method_comes_before_one_that_names_none() {
        let choice = |id: &str, name: &str| Choice { id: id.to_owned(), name: name.to_owned() };
        let given = ["phone:111111".to_owned(), "222222".to_owned(), "id-3:333333".to_owned()];
        assert_eq!(given_for(&choice("id-1", "phone"), &given), Some("111111"));
        assert_eq!(given_for(&choice("id-2", ""), &given), Some("222222"));
        assert_eq!(given_for(&choice("id-3", ""), &given), Some("333333"));
        assert_eq!(given_for(&choice("id-2", ""), &given[..1]), None);
        assert_eq!(choice("id-1", "phone").shown(), "phone");
        assert_eq!(choice("id-1", "").shown(), "id-1");
    }
}
