//! The versions of a secret on two sides, and what brings one to the other. Pure: no server.

use std::collections::BTreeMap;

use chrono::DateTime;
use serde_json::{Map, Value, json};

use crate::cli::meaning::is_unset;
use crate::types::time::Timestamp;

/// Most versions of one secret that this server keeps.
const VERSIONS_MAX: u64 = 1000;
/// Most version numbers written only so that those after them keep theirs.
pub(super) const FILL_MAX: u64 = 100_000;

const CUSTOM: &str = "custom_metadata";

/// What can be done with a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its values can be read.
    Live,
    /// It is hidden, and can be brought back.
    Deleted,
    /// Its values are gone.
    Destroyed,
}

/// What is known of a secret and its versions.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct History {
    pub(super) versions: BTreeMap<u64, State>,
    pub(super) current: u64,
    /// What can be set on the secret, as a write takes it.
    pub(super) settings: Map<String, Value>,
}

impl History {
    /// From the answer to a read of the secret's metadata at `now`.
    pub(super) fn read(data: &Value, now: Timestamp) -> Self {
        let all = data.get("versions").and_then(Value::as_object).into_iter().flatten();
        let versions: BTreeMap<u64, State> = all
            .filter_map(|(number, version)| Some((number.parse().ok()?, state(version, now))))
            .collect();
        let latest = versions.keys().next_back().copied().unwrap_or(0);
        let current = data.get("current_version").and_then(Value::as_u64).unwrap_or(latest);
        let names = ["max_versions", "cas_required", "delete_version_after", CUSTOM];
        let settings = names.iter().filter_map(|name| {
            let value = data.get(*name)?;
            // None, as a write says it.
            let unset = value.is_null() && *name == CUSTOM;
            let value = if unset { json!({}) } else { value.clone() };
            (!value.is_null()).then(|| ((*name).to_owned(), value))
        });
        Self { versions, current, settings: settings.collect() }
    }

    fn first(&self) -> u64 {
        self.versions.keys().next().copied().unwrap_or(self.current + 1)
    }

    /// Whether somebody has set what a copy only sets when all versions are there.
    pub(super) fn is_finished(&self) -> bool {
        let is_set =
            |name: &str| self.settings.get(name).is_some_and(|value| !is_unset(name, value));
        is_set(CUSTOM) || is_set("cas_required")
    }

    pub(super) fn state(&self, number: u64) -> Option<State> {
        self.versions.get(&number).copied()
    }

    /// Settings that keep exactly the versions that this side keeps, while they are written. Those
    /// that would refuse or hide nothing meanwhile come later.
    pub(super) fn settings_while_writing(&self) -> Value {
        let kept = (self.current + 1).saturating_sub(self.first()).clamp(1, VERSIONS_MAX);
        let mut settings = json!({ "max_versions": kept });
        if let (Some(after), Some(settings)) =
            (self.settings.get("delete_version_after"), settings.as_object_mut())
        {
            settings.insert("delete_version_after".to_owned(), after.clone());
        }
        settings
    }
}

fn state(version: &Value, now: Timestamp) -> State {
    if version.get("destroyed").and_then(Value::as_bool) == Some(true) {
        return State::Destroyed;
    }
    let deletion = version.get("deletion_time").and_then(Value::as_str).unwrap_or_default();
    match DateTime::parse_from_rfc3339(deletion) {
        Ok(at) if at.timestamp_millis() <= now.as_millis() => State::Deleted,
        Ok(_) | Err(_) => State::Live,
    }
}

/// What is to be done on this side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Steps {
    /// Versions whose values must be the same on both sides, or nothing is done.
    pub(super) equal: Vec<u64>,
    /// Versions here that the source has not, or has hidden: they must be stand-ins for those.
    pub(super) stand_ins: Vec<u64>,
    /// Version numbers to write, and whether the source has their values.
    pub(super) write: Vec<(u64, bool)>,
    /// Versions to delete, written just now or before.
    pub(super) delete: Vec<u64>,
    /// Versions to destroy.
    pub(super) destroy: Vec<u64>,
    /// Versions that the source has deleted: their values cannot be read there.
    pub(super) unreadable: Vec<u64>,
}

impl Steps {
    /// Whether there is nothing to do but to see that both are equal.
    pub(super) fn is_done(&self) -> bool {
        self.write.is_empty() && self.delete.is_empty() && self.destroy.is_empty()
    }
}

/// What makes `here` like `source`.
///
/// # Errors
/// Why that cannot be done, in a sentence.
pub(super) fn steps(source: &History, here: Option<&History>) -> Result<Steps, String> {
    let mut steps = Steps::default();
    let have = here.map_or(0, |here| here.current);
    if have > source.current {
        return Err(format!("has {have} versions here and {} there", source.current));
    }
    for (number, state) in here.iter().flat_map(|here| &here.versions) {
        match (source.state(*number), *state) {
            (Some(State::Live), State::Live) => steps.equal.push(*number),
            (Some(State::Live | State::Deleted), State::Destroyed)
            | (Some(State::Live), State::Deleted) => {
                return Err(format!("version {number} was deleted here and not there"));
            }
            (Some(State::Deleted), State::Live) => {
                steps.stand_ins.push(*number);
                steps.delete.push(*number);
            }
            (Some(State::Destroyed), State::Live) => {
                steps.stand_ins.push(*number);
                steps.destroy.push(*number);
            }
            (Some(State::Destroyed), State::Deleted) => steps.destroy.push(*number),
            (None, State::Live) => steps.stand_ins.push(*number),
            (Some(State::Deleted), State::Deleted)
            | (Some(State::Destroyed), State::Destroyed)
            | (None, State::Deleted | State::Destroyed) => {}
        }
    }
    if source.first().saturating_sub(have + 1) > FILL_MAX {
        return Err(format!("its oldest version has the number {}", source.first()));
    }
    for number in have + 1..=source.current {
        let state = source.state(number);
        steps.write.push((number, state == Some(State::Live)));
        match state {
            Some(State::Deleted) => {
                steps.delete.push(number);
                steps.unreadable.push(number);
            }
            Some(State::Destroyed) => steps.destroy.push(number),
            Some(State::Live) | None => {}
        }
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn history(states: &[(u64, State)]) -> History {
        let versions: BTreeMap<u64, State> = states.iter().copied().collect();
        let current = versions.keys().next_back().copied().unwrap_or(0);
        History { versions, current, settings: Map::new() }
    }

    #[test]
    fn the_state_of_a_version_depends_on_the_time() {
        let data = json!({
            "current_version": 4, "oldest_version": 0, "max_versions": 0, "custom_metadata": null,
            "versions": {
                "1": {"deletion_time": "", "destroyed": true},
                "2": {"deletion_time": "2020-01-01T00:00:00.123456789Z", "destroyed": false},
                "3": {"deletion_time": "2999-01-01T00:00:00Z", "destroyed": false},
                "4": {"deletion_time": "", "destroyed": false},
            },
        });
        let read = History::read(&data, NOW);
        use State::{Deleted, Destroyed, Live};
        let states: Vec<_> = read.versions.values().copied().collect();
        assert_eq!(states, [Destroyed, Deleted, Live, Live]);
        assert_eq!(read.settings.keys().collect::<Vec<_>>(), ["custom_metadata", "max_versions"]);
        assert!(!read.is_finished());
    }

    #[test]
    fn an_empty_side_gets_every_number_and_stand_ins_for_what_is_gone() {
        use State::{Deleted, Destroyed, Live};
        let source = history(&[(3, Live), (4, Destroyed), (5, Deleted), (6, Live)]);
        let steps = steps(&source, None).unwrap();
        let written =
            [(1, false), (2, false), (3, true), (4, false), (5, false), (6, true)].to_vec();
        assert_eq!(steps.write, written);
        assert_eq!((steps.delete, steps.destroy), (vec![5], vec![4]));
        assert_eq!(source.settings_while_writing()["max_versions"], 4, "1 and 2 drop out");
    }

    #[test]
    fn an_interrupted_copy_goes_on_where_it_stopped_and_is_checked_first() {
        use State::{Deleted, Destroyed, Live};
        let source = history(&[(1, Live), (2, Destroyed), (3, Deleted), (4, Live)]);
        let here = history(&[(1, Live), (2, Live)]);
        let steps = steps(&source, Some(&here)).unwrap();
        assert_eq!((steps.equal, steps.stand_ins), (vec![1], vec![2]));
        assert_eq!(steps.write, [(3, false), (4, true)]);
        assert_eq!((steps.destroy, steps.delete), (vec![2], vec![3]));
    }

    #[test]
    fn what_was_changed_here_is_not_touched() {
        use State::{Deleted, Destroyed, Live};
        let source = history(&[(1, Live), (2, Live)]);
        for here in [
            history(&[(1, Live), (2, Live), (3, Live)]),
            history(&[(1, Deleted)]),
            history(&[(1, Destroyed)]),
        ] {
            assert!(steps(&source, Some(&here)).is_err(), "{here:?}");
        }
        assert!(steps(&source, Some(&source)).unwrap().is_done());
    }

    #[test]
    fn numbers_are_not_filled_without_end() {
        let source = history(&[(FILL_MAX + 2, State::Live)]);
        assert!(steps(&source, None).is_err());
        assert!(steps(&history(&[(FILL_MAX + 1, State::Live)]), None).is_ok());
    }
}
