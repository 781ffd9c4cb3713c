//! The versions of a secret: reading, writing, hiding, destroying.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::VersionedKv;
use super::merge::{merge, shape};
use super::metadata::Metadata;
use super::settings::{self, Settings};
use super::store::{self, Change, Found};
use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::reply::{Reply, Status};
use crate::types::time::Timestamp;

/// Largest secret that patches can build up, in bytes: each patch is bounded by the limit of request
/// bodies, but not their sum.
const PATCHED_BYTES_MAX: usize = 1 << 20;
/// How often a reader follows a secret whose versions go while it looks.
const READ_ATTEMPTS: usize = 4;

/// What a reader finds.
enum Sought {
    Readable { contents: Map<String, Value>, facts: Map<String, Value> },
    Gone { facts: Map<String, Value> },
}

async fn seek(ctx: &EngineContext<'_>, path: &str, wanted: u64) -> Result<Sought, CoreError> {
    for attempt in 0..READ_ATTEMPTS {
        // What is known and the contents are read one after the other, and the latter may be
        // destroyed in between. Then what is known is outdated, in the cache too.
        let entry = store::load(ctx.view, path, attempt > 0).await?.ok_or(CoreError::NotFound)?;
        let metadata = entry.value;
        let (number, version) = metadata.version(wanted).ok_or(CoreError::NotFound)?;
        if version.is_gone(ctx.clock.now()) {
            return Ok(Sought::Gone { facts: metadata.describe_version(number, version) });
        }
        if let Some(record) = store::contents(ctx.view, path, number).await? {
            let facts = metadata.describe_version(number, version);
            return Ok(Sought::Readable { contents: record.decode()?, facts });
        }
    }
    Err(CoreError::internal("the contents of a version are missing"))
}

/// An answer of contents (or of something in their place, under `name`) and what is known of them.
fn described(name: &str, contents: Option<Map<String, Value>>, facts: Map<String, Value>) -> Reply {
    let status = if contents.is_some() { Status::Ok } else { Status::Gone };
    // By hand: the macro for literals would copy the contents.
    let mut data = Map::new();
    data.insert(name.to_owned(), contents.map_or(Value::Null, Value::Object));
    data.insert("metadata".to_owned(), Value::Object(facts));
    Reply { data: Some(data), status, ..Reply::default() }
}

/// `data/:path`, read.
pub(super) async fn read(
    ctx: &EngineContext<'_>,
    path: &str,
    fields: &Fields,
) -> Result<Reply, CoreError> {
    let wanted = fields.integer("version")?.unwrap_or(0);
    Ok(match seek(ctx, path, wanted).await? {
        Sought::Readable { contents, facts } => described("data", Some(contents), facts),
        Sought::Gone { facts } => described("data", None, facts),
    })
}

/// `subkeys/:path`, read.
pub(super) async fn subkeys(
    ctx: &EngineContext<'_>,
    path: &str,
    fields: &Fields,
) -> Result<Reply, CoreError> {
    let wanted = fields.integer("version")?.unwrap_or(0);
    let depth = fields.integer("depth")?.unwrap_or(0);
    Ok(match seek(ctx, path, wanted).await? {
        Sought::Readable { contents, facts } => {
            described("subkeys", Some(shape(&contents, depth)), facts)
        }
        Sought::Gone { facts } => described("subkeys", None, facts),
    })
}

/// A write or patch, as asked for.
struct Wanted {
    data: Map<String, Value>,
    /// The version that must be the latest.
    cas: Option<u64>,
    warnings: Vec<String>,
}

impl Wanted {
    fn parse(fields: Fields) -> Result<Self, CoreError> {
        let (mut cas, mut warnings) = (None, Vec::new());
        for (name, value) in fields.object("options")?.into_iter().flatten() {
            if name == "cas" {
                cas = Some(version_number(value).ok_or_else(|| {
                    CoreError::field("options.cas", "must be a whole number, zero or above")
                })?);
            } else {
                warnings.push(format!("options: \"{name}\" is not known and was ignored"));
            }
        }
        match fields.into_map().remove("data") {
            Some(Value::Object(data)) => Ok(Self { data, cas, warnings }),
            None | Some(Value::Null) => Err(CoreError::field("data", "is required")),
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
                Err(CoreError::field("data", "must be an object"))
            }
        }
    }

    fn check(&self, metadata: &Metadata, mount: &Settings) -> Result<(), CoreError> {
        match self.cas {
            Some(cas) if cas == metadata.latest() => Ok(()),
            Some(_) => {
                Err(CoreError::invalid("check-and-set parameter did not match the current version"))
            }
            None if mount.cas_required || metadata.settings.cas_required => {
                Err(CoreError::invalid("check-and-set parameter required for this call"))
            }
            None => Ok(()),
        }
    }
}

fn version_number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Adds a version and describes it.
fn next_version<'c>(
    mut metadata: Metadata,
    mount: &Settings,
    now: Timestamp,
    contents: Cow<'c, Map<String, Value>>,
) -> Result<(Change<'c>, Reply), CoreError> {
    let (number, shredded) = metadata.add(now, mount);
    let (_, version) =
        metadata.version(number).ok_or_else(|| CoreError::internal("a new version is missing"))?;
    let facts = metadata.describe_version(number, version);
    let change = Change::Save { metadata, contents: Some((number, contents)), shredded };
    Ok((change, Reply { data: Some(facts), ..Reply::default() }))
}

fn patched(
    wanted: &Wanted,
    found: Found,
    mount: &Settings,
    now: Timestamp,
) -> Result<(Change<'static>, Reply), CoreError> {
    let Found { metadata, contents } = found;
    wanted.check(&metadata, mount)?;
    let (number, version) = metadata.version(0).ok_or(CoreError::NotFound)?;
    if version.is_gone(now) {
        let facts = metadata.describe_version(number, version);
        return Ok((Change::Keep, described("data", None, facts)));
    }
    let before =
        contents.ok_or_else(|| CoreError::internal("the contents of a version are missing"))?;
    let mut after: Map<String, Value> = before.decode()?;
    merge(&mut after, &wanted.data);
    let bytes = bytes_of(&after);
    if bytes > PATCHED_BYTES_MAX && bytes > before.body.len() {
        return Err(CoreError::invalid("the patched secret would be larger than 1 MiB"));
    }
    next_version(metadata, mount, now, Cow::Owned(after))
}

/// How long the value is when it is serialised.
fn bytes_of(value: &Map<String, Value>) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.saturating_add(bytes.len());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        Err(_) => usize::MAX,
    }
}

/// The numbers in `versions`.
fn numbers(fields: &Fields) -> Result<Vec<u64>, CoreError> {
    match fields.integers("versions")? {
        Some(numbers) if !numbers.is_empty() => Ok(numbers),
        Some(_) | None => Err(CoreError::field("versions", "is required: no version number given")),
    }
}

impl VersionedKv {
    pub(super) async fn write(
        &self,
        ctx: &EngineContext<'_>,
        path: &str,
        fields: Fields,
    ) -> Result<Reply, CoreError> {
        let mut wanted = Wanted::parse(fields)?;
        let warnings = std::mem::take(&mut wanted.warnings);
        let mount = settings::load(ctx).await?;
        let write = |found: Option<Found>| {
            let now = ctx.clock.now();
            let metadata = found.map_or_else(|| Metadata::new(now), |found| found.metadata);
            wanted.check(&metadata, &mount)?;
            next_version(metadata, &mount, now, Cow::Borrowed(&wanted.data))
        };
        let reply = self.turns.change(ctx.view, path, false, write).await?;
        Ok(Reply { warnings, ..reply })
    }

    pub(super) async fn patch(
        &self,
        ctx: &EngineContext<'_>,
        path: &str,
        fields: Fields,
    ) -> Result<Reply, CoreError> {
        let mut wanted = Wanted::parse(fields)?;
        let warnings = std::mem::take(&mut wanted.warnings);
        let mount = settings::load(ctx).await?;
        let patch = |found: Option<Found>| {
            patched(&wanted, found.ok_or(CoreError::NotFound)?, &mount, ctx.clock.now())
        };
        let reply = self.turns.change(ctx.view, path, true, patch).await?;
        Ok(Reply { warnings, ..reply })
    }

    pub(super) async fn delete_latest(
        &self,
        ctx: &EngineContext<'_>,
        path: &str,
    ) -> Result<Reply, CoreError> {
        self.mark(ctx, path, |metadata| {
            let latest = metadata.latest();
            metadata.delete(latest, ctx.clock.now());
            Vec::new()
        })
        .await
    }

    pub(super) async fn delete(
        &self,
        ctx: &EngineContext<'_>,
        path: &str,
        fields: &Fields,
    ) -> Result<Reply, CoreError> {
        let numbers = numbers(fields)?;
        self.mark(ctx, path, |metadata| {
            let now = ctx.clock.now();
            numbers.iter().for_each(|number| metadata.delete(*number, now));
            Vec::new()
        })
        .await
    }

    pub(super) async fn undelete(
        &self,
        ctx: &EngineContext<'_>,
        path: &str,
        fields: &Fields,
    ) -> Result<Reply, CoreError> {
        let numbers = numbers(fields)?;
        self.mark(ctx, path, |metadata| {
            numbers.iter().for_each(|number| metadata.undelete(*number));
            Vec::new()
        })
        .await
    }

    pub(super) async fn destroy(
        &self,
        ctx: &EngineContext<'_>,
        path: &str,
        fields: &Fields,
    ) -> Result<Reply, CoreError> {
        let numbers = numbers(fields)?;
        self.mark(ctx, path, |metadata| {
            numbers.iter().copied().filter(|number| metadata.destroy(*number)).collect()
        })
        .await
    }

    /// Changes the state of versions. `mark` says which contents go with that. A secret that is not
    /// there, and versions that are not, are no error.
    async fn mark(
        &self,
        ctx: &EngineContext<'_>,
        path: &str,
        mark: impl Fn(&mut Metadata) -> Vec<u64> + Send + Sync,
    ) -> Result<Reply, CoreError> {
        let change = |found: Option<Found>| {
            let Some(Found { mut metadata, .. }) = found else {
                return Ok((Change::Keep, Reply::empty()));
            };
            let before = metadata.clone();
            let shredded = mark(&mut metadata);
            if metadata == before {
                return Ok((Change::Keep, Reply::empty()));
            }
            Ok((Change::Save { metadata, contents: None, shredded }, Reply::empty()))
        };
        self.turns.change(ctx.view, path, false, change).await
    }
}
