//! What can be set on a mount and on each of its secrets.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::records::Precondition;
use crate::core::reply::Reply;
use crate::types::time::{Timestamp, Ttl};

/// Record of the mount's settings.
const CONFIG: &str = "config";
/// Versions kept when neither the secret nor the mount says how many.
const VERSIONS_DEFAULT: u64 = 10;
/// Most versions of one secret: all of them are in one record.
const VERSIONS_MAX: u64 = 1000;
/// How often a change of the mount's settings is tried while others change them too.
const ATTEMPTS: usize = 16;

/// The settings of a mount, or of one secret. What is zero or false leaves it to the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Settings {
    pub(super) max_versions: u64,
    pub(super) cas_required: bool,
    pub(super) delete_version_after: Ttl,
}

impl Settings {
    /// Takes over the fields that are there; with `reset`, those that are `null` fall back to nothing
    /// set.
    pub(super) fn update(&mut self, fields: &Fields, reset: bool) -> Result<(), CoreError> {
        let cleared = |name: &str| reset && fields.contains(name) && fields.get(name).is_none();
        match fields.integer("max_versions")? {
            Some(count) if count > VERSIONS_MAX => {
                return Err(CoreError::field("max_versions", "must not be above 1000"));
            }
            Some(count) => self.max_versions = count,
            None if cleared("max_versions") => self.max_versions = 0,
            None => {}
        }
        match fields.boolean("cas_required")? {
            Some(required) => self.cas_required = required,
            None if cleared("cas_required") => self.cas_required = false,
            None => {}
        }
        match fields.duration("delete_version_after")? {
            Some(ttl) => self.delete_version_after = ttl,
            None if cleared("delete_version_after") => self.delete_version_after = Ttl::ZERO,
            None => {}
        }
        Ok(())
    }

    /// Adds the settings to an answer.
    pub(super) fn describe(&self, answer: &mut Map<String, Value>) {
        answer.insert("max_versions".into(), json!(self.max_versions));
        answer.insert("cas_required".into(), json!(self.cas_required));
        answer.insert(
            "delete_version_after".into(),
            json!(spelled_duration(self.delete_version_after)),
        );
    }

    /// How many versions of a secret with these settings are kept.
    pub(super) fn versions_kept(&self, mount: &Self) -> usize {
        let count = [self.max_versions, mount.max_versions, VERSIONS_DEFAULT]
            .into_iter()
            .find(|count| *count > 0)
            .unwrap_or(VERSIONS_DEFAULT);
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    /// When a version of a secret with these settings, written at `now`, is to be hidden.
    pub(super) fn deletion_time(&self, mount: &Self, now: Timestamp) -> Option<Timestamp> {
        let after = self.delete_version_after.limited_by(mount.delete_version_after);
        (!after.is_zero()).then(|| now.plus(after))
    }
}

/// The settings of the mount.
pub(super) async fn load(ctx: &EngineContext<'_>) -> Result<Settings, CoreError> {
    ctx.view.get_defaulted(CONFIG).await
}

pub(super) async fn read(ctx: &EngineContext<'_>) -> Result<Reply, CoreError> {
    let mut answer = Map::new();
    load(ctx).await?.describe(&mut answer);
    Ok(Reply { data: Some(answer), ..Reply::default() })
}

pub(super) async fn write(ctx: &EngineContext<'_>, fields: &Fields) -> Result<Reply, CoreError> {
    for _ in 0..ATTEMPTS {
        let entry = ctx.view.get_fresh::<Settings>(CONFIG).await?;
        let (mut settings, precondition) = match entry {
            Some(entry) => (entry.value, Precondition::Rev(entry.rev)),
            None => (Settings::default(), Precondition::Absent),
        };
        settings.update(fields, false)?;
        match ctx.view.write(CONFIG, &settings, precondition).await {
            Err(error) if error.is_conflict() => {}
            written => return written.map(|()| Reply::empty()),
        }
    }
    Err(CoreError::Overloaded { retry_after: Ttl::from_secs(1) })
}

/// A duration in the notation that clients read: `3h25m19s`, `5m0s`, `0s`.
fn spelled_duration(ttl: Ttl) -> String {
    let (minutes, seconds) = (ttl.as_secs() / 60, ttl.as_secs() % 60);
    let (hours, minutes) = (minutes / 60, minutes % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        (_, _) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_spelled_as_clients_read_them() {
        for (secs, text) in
            [(0, "0s"), (59, "59s"), (60, "1m0s"), (3600, "1h0m0s"), (12_319, "3h25m19s")]
        {
            assert_eq!(spelled_duration(Ttl::from_secs(secs)), text);
            assert_eq!(Ttl::parse(text), Ok(Ttl::from_secs(secs)));
        }
    }

    #[test]
    fn the_secret_goes_before_the_mount_and_the_shorter_deletion_counts() {
        let of = |max_versions, secs| Settings {
            max_versions,
            delete_version_after: Ttl::from_secs(secs),
            ..Settings::default()
        };
        let now = Timestamp::from_secs(100);
        assert_eq!(of(0, 0).versions_kept(&of(0, 0)), 10);
        assert_eq!(of(0, 0).versions_kept(&of(3, 0)), 3);
        assert_eq!(of(2, 0).versions_kept(&of(3, 0)), 2);
        assert_eq!(of(5, 0).versions_kept(&of(3, 0)), 5);
        assert_eq!(of(0, 0).deletion_time(&of(0, 0), now), None);
        for (secret, mount) in [(5, 0), (0, 5), (5, 9), (9, 5)] {
            let at = of(0, secret).deletion_time(&of(0, mount), now);
            assert_eq!(at, Some(Timestamp::from_secs(105)));
        }
    }
}
