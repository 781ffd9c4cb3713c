//! What is known of a secret and its versions. Pure: no store, no clock.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::settings::Settings;
use crate::types::time::Timestamp;

/// What is known of one secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Metadata {
    created_at: Timestamp,
    /// When the latest version was written.
    updated_at: Timestamp,
    /// The number of the first of `versions`.
    first: u64,
    /// All versions that are kept, without a gap.
    versions: VecDeque<Version>,
    pub(super) settings: Settings,
    /// Notes of the callers. `None` when there never were any.
    pub(super) custom: Option<BTreeMap<String, String>>,
}

/// What is known of one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deletion: Option<Deletion>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    destroyed: bool,
}

/// A version is hidden, or is going to be. Can be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Deletion {
    at: Timestamp,
    /// Somebody asked for it: it holds even when the clock is set back.
    ordered: bool,
}

impl Version {
    /// Whether the contents cannot be read at `now`.
    pub(super) fn is_gone(&self, now: Timestamp) -> bool {
        self.destroyed || self.is_deleted(now)
    }

    fn is_deleted(&self, now: Timestamp) -> bool {
        self.deletion.is_some_and(|deletion| deletion.ordered || deletion.at <= now)
    }

    fn describe(&self) -> Map<String, Value> {
        let deletion = self.deletion.map(|deletion| deletion.at.to_rfc3339());
        let mut answer = Map::new();
        answer.insert("created_time".into(), Value::String(self.created_at.to_rfc3339()));
        answer.insert("deletion_time".into(), Value::String(deletion.unwrap_or_default()));
        answer.insert("destroyed".into(), Value::Bool(self.destroyed));
        answer
    }
}

impl Metadata {
    /// A secret without versions.
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            created_at: now,
            updated_at: now,
            first: 1,
            versions: VecDeque::new(),
            settings: Settings::default(),
            custom: None,
        }
    }

    /// The number of the latest version; 0 when there is none.
    pub(super) fn latest(&self) -> u64 {
        self.first + self.versions.len() as u64 - 1
    }

    /// Version `number`, where 0 is the latest, with its own number.
    pub(super) fn version(&self, number: u64) -> Option<(u64, &Version)> {
        let number = if number == 0 { self.latest() } else { number };
        Some((number, self.versions.get(self.index(number)?)?))
    }

    fn version_mut(&mut self, number: u64) -> Option<&mut Version> {
        let index = self.index(number)?;
        self.versions.get_mut(index)
    }

    fn index(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }

    /// The versions that have contents, hidden or not.
    pub(super) fn with_contents(&self) -> Vec<u64> {
        self.numbered().filter(|(_, v)| !v.destroyed).map(|(number, _)| number).collect()
    }

    fn numbered(&self) -> impl Iterator<Item = (u64, &Version)> {
        (self.first..).zip(&self.versions)
    }

    /// Adds the next version. Returns its number and the versions that are not kept any longer and
    /// still had contents.
    pub(super) fn add(&mut self, now: Timestamp, mount: &Settings) -> (u64, Vec<u64>) {
        let deletion = self.settings.deletion_time(mount, now);
        self.versions.push_back(Version {
            created_at: now,
            deletion: deletion.map(|at| Deletion { at, ordered: false }),
            destroyed: false,
        });
        self.updated_at = now;
        let mut dropped = Vec::new();
        while self.versions.len() > self.settings.versions_kept(mount) {
            if let Some(version) = self.versions.pop_front()
                && !version.destroyed
            {
                dropped.push(self.first);
            }
            self.first += 1;
        }
        (self.latest(), dropped)
    }

    /// Hides a version that can be read.
    pub(super) fn delete(&mut self, number: u64, now: Timestamp) {
        if let Some(version) = self.version_mut(number)
            && !version.is_gone(now)
        {
            version.deletion = Some(Deletion { at: now, ordered: true });
        }
    }

    /// Shows a version again, and does not hide it later.
    pub(super) fn undelete(&mut self, number: u64) {
        if let Some(version) = self.version_mut(number)
            && !version.destroyed
        {
            version.deletion = None;
        }
    }

    /// Marks a version as without contents. Says whether it had some.
    pub(super) fn destroy(&mut self, number: u64) -> bool {
        self.version_mut(number)
            .is_some_and(|version| !std::mem::replace(&mut version.destroyed, true))
    }

    /// What is answered about one version.
    pub(super) fn describe_version(&self, number: u64, version: &Version) -> Map<String, Value> {
        let mut answer = version.describe();
        answer.insert("version".into(), json!(number));
        answer.insert("custom_metadata".into(), json!(self.custom));
        answer
    }

    /// What is answered about the secret.
    pub(super) fn describe(&self) -> Map<String, Value> {
        let versions: Map<String, Value> = self
            .numbered()
            .map(|(number, version)| (number.to_string(), Value::Object(version.describe())))
            .collect();
        let mut answer = Map::new();
        answer.insert("versions".into(), Value::Object(versions));
        answer.insert("current_version".into(), json!(self.latest()));
        // Stock servers say 0 until the first version was dropped.
        answer.insert("oldest_version".into(), json!(if self.first == 1 { 0 } else { self.first }));
        answer.insert("created_time".into(), Value::String(self.created_at.to_rfc3339()));
        answer.insert("updated_time".into(), Value::String(self.updated_at.to_rfc3339()));
        answer.insert("custom_metadata".into(), json!(self.custom));
        self.settings.describe(&mut answer);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::time::Ttl;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn kept(max_versions: u64) -> Settings {
        Settings { max_versions, ..Settings::default() }
    }

    #[test]
    fn the_oldest_versions_go_when_there_are_too_many() {
        let mut metadata = Metadata::new(at(1));
        assert_eq!(metadata.latest(), 0);
        assert!(metadata.version(0).is_none());
        for number in 1..=4 {
            assert_eq!(metadata.add(at(1), &kept(4)), (number, vec![]));
        }
        assert!(metadata.destroy(1) && !metadata.destroy(1));
        // Fewer are kept now: three go at once, and the destroyed one has nothing left to remove.
        assert_eq!(metadata.add(at(2), &kept(2)), (5, vec![2, 3]));
        assert_eq!(metadata.with_contents(), [4, 5]);
        assert!(metadata.version(3).is_none() && metadata.version(6).is_none());
        assert_eq!(metadata.describe()["oldest_version"], 4);
    }

    #[test]
    fn a_deletion_that_was_ordered_does_not_depend_on_the_clock() {
        let mount = Settings { delete_version_after: Ttl::from_secs(10), ..Settings::default() };
        let mut metadata = Metadata::new(at(100));
        metadata.add(at(100), &mount);
        metadata.add(at(100), &mount);
        metadata.delete(1, at(105));
        let once = metadata.clone();
        metadata.delete(1, at(106));
        assert_eq!(metadata, once);
        let gone = |number, now| metadata.version(number).unwrap().1.is_gone(at(now));
        assert!(gone(1, 105) && gone(1, 50));
        assert!(!gone(2, 109) && gone(2, 110));
    }
}
