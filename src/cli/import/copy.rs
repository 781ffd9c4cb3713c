//! Copying one thing that is read and written as fields.

use serde_json::{Map, Value};

use super::ledger::{Entry, Ledger, Outcome};
use super::side::{Side, Trouble};
use crate::cli::error::CliError;
use crate::cli::meaning::{answered, is_unset, same};
use crate::cli::output::Output;

/// Fields that mean something when they are false.
const TRUE_UNLESS_SAID: &[&str] = &["bind_secret_id", "renewable", "verify_connection"];
/// Fields of roles that servers answer under two names; the longer one is written.
const TWICE: &[&str] =
    &["policies", "ttl", "max_ttl", "period", "num_uses", "bound_cidrs", "explicit_max_ttl"];
/// Fields that this server answers as set where nobody has set them.
const SET_HERE: &[&str] = &[
    "disable_iss_validation",
    "disable_local_ca_jwt",
    "key_id_format",
    "oidc_response_mode",
    "oidc_response_types",
];

/// What the source says of one thing.
pub(super) struct Said {
    /// What is set there, as it is written.
    pub(super) set: Map<String, Value>,
    /// The names of what is not.
    unset: Vec<String>,
}

impl Said {
    /// From an answer, without `dropped`.
    pub(super) fn of(data: &Value, dropped: &[&str]) -> Self {
        let set = written(data, dropped);
        let all = data.as_object().into_iter().flatten();
        let unset = all
            .filter(|(name, value)| {
                let name = name.as_str();
                is_unset(name, value)
                    && !set.contains_key(name)
                    && ![dropped, TWICE, SET_HERE].iter().any(|names| names.contains(&name))
            })
            .map(|(name, _)| name.clone());
        Self { unset: unset.collect(), set }
    }

    /// These fields, whatever else there is.
    pub(super) fn only(set: Map<String, Value>) -> Self {
        Self { set, unset: Vec::new() }
    }

    /// The fields that differ from those that an answer speaks of, as they would have to be written.
    fn differing(&self, found: &Value) -> Map<String, Value> {
        let mut all = Map::new();
        for (name, wanted) in &self.set {
            if let Some(here) = answered(found, name)
                && !same(name, wanted, here)
            {
                all.insert(name.clone(), wanted.clone());
            }
        }
        for name in &self.unset {
            // A role that has lost a policy there must not keep it here unseen.
            if let Some(here) = answered(found, name).filter(|here| !is_unset(name, here)) {
                all.insert(name.clone(), emptied(here));
            }
        }
        all
    }
}

/// What unsets a field that has such a value.
fn emptied(value: &Value) -> Value {
    match value {
        Value::Array(_) => Value::Array(Vec::new()),
        Value::Object(_) => Value::Object(Map::new()),
        Value::Bool(_) => Value::Bool(false),
        Value::Number(_) => Value::from(0),
        Value::Null | Value::String(_) => Value::String(String::new()),
    }
}

/// What a walk over the source is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Say what would be done.
    DryRun,
    /// Do it.
    Copy,
    /// See whether both sides have the same.
    Compare,
}

impl Mode {
    /// For progress.
    pub(super) const fn verb(self) -> &'static str {
        match self {
            Self::DryRun => "looking at",
            Self::Copy => "copying",
            Self::Compare => "comparing",
        }
    }
}

/// Everything that a part of the import needs.
pub(super) struct Context<'a> {
    pub(super) source: Side<'a>,
    pub(super) target: Side<'a>,
    pub(super) mode: Mode,
    /// Replace what is different here.
    pub(super) overwrite: bool,
    /// Secrets in progress at once.
    pub(super) concurrency: usize,
    pub(super) ledger: Ledger,
    pub(super) output: &'a mut Output,
}

impl Context<'_> {
    /// Lists what cannot be copied; once, not again when it is compared.
    pub(super) fn leave(&mut self, entry: Entry) {
        if self.mode != Mode::Compare {
            self.ledger.add(entry);
        }
    }

    /// A refusal concerns this one thing; everything else ends the import.
    pub(super) fn refused(
        &mut self,
        kind: &'static str,
        path: &str,
        trouble: Trouble,
    ) -> Result<(), CliError> {
        match trouble {
            Trouble::Stop(error) => Err(error),
            Trouble::Refused { status: 403, reason } => {
                let next = "allow it to the token of the import, and run it again";
                self.leave(Entry::left(kind, path, reason, next));
                Ok(())
            }
            Trouble::Refused { reason, .. } => {
                let next = "set it up by hand; docs/api.md says what this server takes";
                self.leave(Entry::left(kind, path, reason, next));
                Ok(())
            }
        }
    }

    /// Reads from the source; `None` when there is nothing or it was refused, which is listed then.
    pub(super) async fn there(
        &mut self,
        kind: &'static str,
        path: &str,
    ) -> Result<Option<Value>, CliError> {
        match self.source.read(path).await {
            Ok(found) => Ok(found),
            Err(trouble) => self.refused(kind, path, trouble).map(|()| None),
        }
    }

    /// The names below a path of the source; none when it was refused, which is listed then.
    pub(super) async fn names(
        &mut self,
        kind: &'static str,
        path: &str,
    ) -> Result<Vec<String>, CliError> {
        match self.source.list(path).await {
            Ok(names) => Ok(names),
            Err(trouble) => self.refused(kind, path, trouble).map(|()| Vec::new()),
        }
    }

    /// Brings what is `said` to `path`, or compares it with what is there. `added` is written with
    /// it when nothing is there yet. Says whether it is there afterwards, or would be.
    ///
    /// # Errors
    /// What ends the import.
    pub(super) async fn settle(
        &mut self,
        kind: &'static str,
        path: &str,
        said: &Said,
        added: Map<String, Value>,
    ) -> Result<bool, CliError> {
        let found = match self.target.read(path).await {
            Ok(found) => found,
            Err(trouble) => {
                self.refused(kind, path, trouble)?;
                return Ok(false);
            }
        };
        let changes = found.as_ref().map(|found| said.differing(found));
        let differing: Option<Vec<String>> =
            changes.as_ref().map(|changes| changes.keys().cloned().collect());
        let outcome = match (self.mode, &differing) {
            (Mode::Compare, None) => Outcome::Different("is not here".to_owned()),
            (Mode::Compare, Some(names)) if names.is_empty() => Outcome::Equal,
            (Mode::DryRun, Some(names)) if !names.is_empty() && !self.overwrite => {
                Outcome::Different(format!("{} differs", names.join(", ")))
            }
            (Mode::Compare, Some(names)) => {
                Outcome::Different(format!("{} differs", names.join(", ")))
            }
            (Mode::Copy | Mode::DryRun, Some(names)) if names.is_empty() => Outcome::InPlace,
            (Mode::Copy, Some(_)) if !self.overwrite => Outcome::Kept,
            (Mode::DryRun, _) => Outcome::Copied,
            (Mode::Copy, _) => {
                let mut body = said.set.clone();
                match changes {
                    Some(changes) => body.extend(changes),
                    None => body.extend(added),
                }
                match self.target.write(path, Value::Object(body)).await {
                    Ok((warnings, _)) => {
                        for warning in warnings {
                            let next = "see docs/api.md, and set it another way if it is needed";
                            self.leave(Entry::left("setting", path, warning, next));
                        }
                        Outcome::Copied
                    }
                    Err(trouble) => {
                        self.refused(kind, path, trouble)?;
                        return Ok(false);
                    }
                }
            }
        };
        let there = found.is_some() || self.mode != Mode::Compare;
        self.ledger.add(Entry::new(kind, path, outcome));
        Ok(there)
    }
}

/// The names of the fields that differ from what an answer says.
pub(super) fn differing(fields: &Map<String, Value>, found: &Value) -> Vec<String> {
    let differs = |name: &str, wanted: &Value| {
        !same(name, wanted, answered(found, name).unwrap_or(&Value::Null))
    };
    fields
        .iter()
        .filter(|(name, value)| differs(name, value))
        .map(|(name, _)| name.clone())
        .collect()
}

/// What is worth writing of an answer: what is set, under one name each, without `dropped`.
pub(super) fn written(data: &Value, dropped: &[&str]) -> Map<String, Value> {
    let Some(all) = data.as_object() else { return Map::new() };
    let wanted = all.iter().filter(|(name, value)| {
        let named_twice =
            TWICE.contains(&name.as_str()) && all.contains_key(&format!("token_{name}"));
        let says = !is_unset(name, value)
            || TRUE_UNLESS_SAID.contains(&name.as_str()) && value.is_boolean();
        says && !named_twice && !dropped.contains(&name.as_str())
    });
    wanted.map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_set_is_written_and_under_one_name() {
        let answer = json!({
            "policies": ["a"], "token_policies": ["a"], "token_ttl": 0, "bind_secret_id": false,
            "ocsp_enabled": false, "name": "x", "display_name": "", "secret_id_ttl": 60,
        });
        let expected = json!({
            "token_policies": ["a"], "bind_secret_id": false, "secret_id_ttl": 60,
        });
        assert_eq!(Value::Object(written(&answer, &["name"])), expected);
    }

    #[test]
    fn what_is_set_here_and_not_there_is_a_difference() {
        let there = json!({
            "token_policies": [], "policies": [], "token_ttl": 60, "bound_claims": null, "name": "",
            "token_bound_cidrs": [], "disable_local_ca_jwt": false,
        });
        let said = Said::of(&there, &["name"]);
        let here = json!({
            "token_policies": ["admin"], "policies": ["admin"], "token_ttl": 60, "name": "x",
            "bound_claims": {"a": "b"}, "token_bound_cidrs": [], "more": 7,
            "disable_local_ca_jwt": true,
        });
        let expected = json!({ "token_policies": [], "bound_claims": {} });
        assert_eq!(Value::Object(said.differing(&here)), expected);
        let without = json!({ "token_ttl": "1m" });
        assert!(said.differing(&without).is_empty());
    }
}
