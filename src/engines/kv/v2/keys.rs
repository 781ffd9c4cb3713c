//! What is known of a secret: reading and changing it, and removing the secret with all of it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::VersionedKv;
use super::metadata::Metadata;
use super::settings::{self, Settings};
use super::store::{self, Change, Found};
use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::reply::Reply;

const CUSTOM: &str = "custom_metadata";
/// Limits of custom metadata, those of stock servers.
const CUSTOM_KEYS_MAX: usize = 64;
const CUSTOM_KEY_BYTES_MAX: usize = 128;
const CUSTOM_VALUE_BYTES_MAX: usize = 512;

/// `metadata/:path`, listed.
pub(super) async fn list(ctx: &EngineContext<'_>, dir: &str) -> Result<Reply, CoreError> {
    Reply::listing(ctx.view.list(&store::metadata_name(dir)).await?)
}

/// `metadata/:path`, read.
pub(super) async fn read(ctx: &EngineContext<'_>, path: &str) -> Result<Reply, CoreError> {
    let entry = store::load(ctx.view, path, false).await?.ok_or(CoreError::NotFound)?;
    Ok(Reply { data: Some(entry.value.describe()), ..Reply::default() })
}

type Custom = BTreeMap<String, String>;

fn check_custom(custom: &Custom) -> Result<(), CoreError> {
    let refuse = |problem: String| Err(CoreError::field(CUSTOM, problem));
    if custom.len() > CUSTOM_KEYS_MAX {
        return refuse(format!("must not have more than {CUSTOM_KEYS_MAX} keys"));
    }
    for (key, value) in custom {
        let bad = |text: &str, max| {
            text.is_empty() || text.len() > max || text.chars().any(char::is_control)
        };
        if bad(key, CUSTOM_KEY_BYTES_MAX) {
            return refuse(format!(
                "has a key that is empty, longer than {CUSTOM_KEY_BYTES_MAX} bytes or not printable"
            ));
        }
        if bad(value, CUSTOM_VALUE_BYTES_MAX) {
            return refuse(format!(
                "has a value that is empty, longer than {CUSTOM_VALUE_BYTES_MAX} bytes or not \
                 printable"
            ));
        }
    }
    Ok(())
}

/// Applies the `custom_metadata` of a merge patch: a `null` removes one note, or all.
fn patch_custom(metadata: &mut Metadata, fields: &Fields) -> Result<(), CoreError> {
    if !fields.contains(CUSTOM) {
        return Ok(());
    }
    let Some(changes) = fields.object(CUSTOM)? else {
        metadata.custom = None;
        return Ok(());
    };
    let custom = metadata.custom.get_or_insert_default();
    for (key, change) in changes {
        let value = match change {
            Value::Null => {
                custom.remove(key);
                continue;
            }
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Array(_) | Value::Object(_) => {
                return Err(CoreError::field(CUSTOM, "must be an object of strings"));
            }
        };
        custom.insert(key.clone(), value);
    }
    check_custom(custom)
}

/// What callers should know although their settings were taken.
fn warnings(fields: &Fields, set: &Settings, mount: &Settings) -> Result<Vec<String>, CoreError> {
    let mut warnings = Vec::new();
    if mount.cas_required && fields.boolean("cas_required")? == Some(false) {
        warnings.push("\"cas_required\" has no effect: the mount requires it".to_owned());
    }
    let (own, mounts) = (set.delete_version_after, mount.delete_version_after);
    if fields.contains("delete_version_after") && !mounts.is_zero() && own > mounts {
        warnings.push(
            "\"delete_version_after\" has no effect: that of the mount is shorter".to_owned(),
        );
    }
    Ok(warnings)
}

impl VersionedKv {
    pub(super) async fn write_metadata(
        &self,
        ctx: &EngineContext<'_>,
        path: &str,
        fields: &Fields,
    ) -> Result<Reply, CoreError> {
        let custom = fields.string_map(CUSTOM)?;
        custom.as_ref().map_or(Ok(()), check_custom)?;
        let mount = settings::load(ctx).await?;
        let write = |found: Option<Found>| {
            let mut metadata =
                found.map_or_else(|| Metadata::new(ctx.clock.now()), |found| found.metadata);
            metadata.settings.update(fields, false)?;
            if let Some(custom) = &custom {
                metadata.custom = Some(custom.clone());
            }
            let warnings = warnings(fields, &metadata.settings, &mount)?;
            Ok((Change::metadata(metadata), Reply { warnings, ..Reply::default() }))
        };
        self.turns.change(ctx.view, path, false, write).await
    }

    pub(super) async fn patch_metadata(
        &self,
        ctx: &EngineContext<'_>,
        path: &str,
        fields: &Fields,
    ) -> Result<Reply, CoreError> {
        let mount = settings::load(ctx).await?;
        let patch = |found: Option<Found>| {
            let mut metadata = found.ok_or(CoreError::NotFound)?.metadata;
            metadata.settings.update(fields, true)?;
            patch_custom(&mut metadata, fields)?;
            let warnings = warnings(fields, &metadata.settings, &mount)?;
            Ok((Change::metadata(metadata), Reply { warnings, ..Reply::default() }))
        };
        self.turns.change(ctx.view, path, false, patch).await
    }

    pub(super) async fn remove(
        &self,
        ctx: &EngineContext<'_>,
        path: &str,
    ) -> Result<Reply, CoreError> {
        let remove = |found: Option<Found>| {
            let change = match found {
                Some(found) => Change::Remove { shredded: found.metadata.with_contents() },
                None => Change::Keep,
            };
            Ok((change, Reply::empty()))
        };
        self.turns.change(ctx.view, path, false, remove).await
    }
}
