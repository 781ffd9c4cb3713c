//! Keys: making, describing, changing, rotating, trimming and deleting them.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::kind::{HMAC_KEY_BYTES, HMAC_KEY_BYTES_MAX, KeyKind};
use super::record::{
    GoneRecord, KEYS, KeyRecord, VersionRecord, gone_name, key_name, rotating_name, used_dir,
    used_name, version_name, versions_dir,
};
use super::ring::{OpenKey, Version};
use super::settings::Settings;
use super::stored::StoredKey;
use super::{TransitEngine, batch, no_such_key};
use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::records::{Batch, Precondition};
use crate::core::reply::Reply;
use crate::core::view::PutOptions;
use crate::types::id::random_uuid;
use crate::types::secret::SecretBytes;
use crate::types::time::{Timestamp, Ttl};

/// Shortest time between rotations.
pub(super) const ROTATION_SECS_MIN: u64 = 3600;
/// How often a change is tried while others change the same key.
const ATTEMPTS: usize = 32;
/// Versions that are removed in one commit.
const TRIMMED_AT_ONCE: u64 = 200;

/// Rules of a key that can be changed, as asked for.
#[derive(Default)]
pub(super) struct Rules {
    min_decryption_version: Option<u64>,
    min_encryption_version: Option<u64>,
    deletion_allowed: Option<bool>,
    exportable: Option<bool>,
    allow_plaintext_backup: Option<bool>,
    auto_rotate_period: Option<Ttl>,
}

impl Rules {
    pub(super) fn read(fields: &Fields) -> Result<Self, CoreError> {
        let auto_rotate_period = fields.duration("auto_rotate_period")?;
        if auto_rotate_period
            .is_some_and(|period| !period.is_zero() && period.as_secs() < ROTATION_SECS_MIN)
        {
            return Err(CoreError::field("auto_rotate_period", "must be 0, or an hour or longer"));
        }
        Ok(Self {
            min_decryption_version: fields.integer("min_decryption_version")?,
            min_encryption_version: fields.integer("min_encryption_version")?,
            deletion_allowed: fields.boolean("deletion_allowed")?,
            exportable: fields.boolean("exportable")?,
            allow_plaintext_backup: fields.boolean("allow_plaintext_backup")?,
            auto_rotate_period,
        })
    }

    fn apply(&self, key: &mut KeyRecord) -> Result<(), CoreError> {
        if let Some(version) = self.min_decryption_version {
            // Zero is how stock clients spell the oldest.
            key.min_decryption_version = version.max(1);
        }
        if let Some(version) = self.min_encryption_version {
            key.min_encryption_version = version;
        }
        key.deletion_allowed = self.deletion_allowed.unwrap_or(key.deletion_allowed);
        // What may have left once cannot be said not to have.
        key.exportable |= self.exportable.unwrap_or(false);
        key.allow_plaintext_backup |= self.allow_plaintext_backup.unwrap_or(false);
        if let Some(period) = self.auto_rotate_period {
            if !period.is_zero() && !key.rotates() {
                return Err(CoreError::field(
                    "auto_rotate_period",
                    "is not for an imported key without allow_rotation",
                ));
            }
            key.auto_rotate_period = period;
        }
        key.check()
    }
}

/// A key that is to be made, as asked for.
pub(super) struct NewKey {
    pub(super) kind: KeyKind,
    pub(super) derived: bool,
    pub(super) convergent: bool,
    pub(super) hmac_key_bytes: u64,
    pub(super) imported: bool,
    pub(super) allow_rotation: bool,
    pub(super) rules: Rules,
}

impl NewKey {
    pub(super) fn read(fields: &Fields) -> Result<Self, CoreError> {
        let kind = fields.text("type")?.filter(|name| !name.is_empty());
        let kind = kind.as_deref().map_or(Ok(KeyKind::Aes256), KeyKind::from_name)?;
        let size = fields.integer("key_size")?.filter(|size| *size != 0);
        if size.is_some() && kind != KeyKind::Hmac {
            return Err(CoreError::field("key_size", "is only for keys of type hmac"));
        }
        let hmac_key_bytes = size.unwrap_or(HMAC_KEY_BYTES);
        if !(HMAC_KEY_BYTES..=HMAC_KEY_BYTES_MAX).contains(&hmac_key_bytes) {
            return Err(CoreError::field("key_size", "must be 32 to 512 bytes"));
        }
        let derived = fields.boolean("derived")?.unwrap_or(false);
        let convergent = fields.boolean("convergent_encryption")?.unwrap_or(false);
        if derived && !kind.derives() {
            return Err(CoreError::field("derived", "is not for keys of this type"));
        }
        if convergent && !(derived && kind.is_cipher()) {
            let problem = "is only for derived keys of a type that is a cipher";
            return Err(CoreError::field("convergent_encryption", problem));
        }
        let rules = Rules::read(&fields.only(&[
            "exportable",
            "allow_plaintext_backup",
            "auto_rotate_period",
        ]))?;
        let (imported, allow_rotation) = (false, false);
        Ok(Self { kind, derived, convergent, hmac_key_bytes, imported, allow_rotation, rules })
    }

    /// The key with one version.
    fn record(&self, now: Timestamp) -> Result<KeyRecord, CoreError> {
        let mut key = KeyRecord {
            id: random_uuid()?,
            kind: self.kind,
            derived: self.derived,
            convergent: self.convergent,
            exportable: false,
            allow_plaintext_backup: false,
            deletion_allowed: false,
            latest_version: 1,
            latest_at: now,
            min_decryption_version: 1,
            min_encryption_version: 0,
            min_available_version: 0,
            auto_rotate_period: Ttl::ZERO,
            imported: self.imported,
            allow_rotation: self.allow_rotation,
            hmac_key_bytes: if self.kind == KeyKind::Hmac { self.hmac_key_bytes } else { 0 },
            soft_deleted: false,
        };
        self.rules.apply(&mut key)?;
        Ok(key)
    }
}

/// A version with this material, as it is stored.
///
/// # Errors
/// When there is no randomness, or the material is no key.
pub(super) fn version_record(
    kind: KeyKind,
    derived: bool,
    material: SecretBytes,
    now: Timestamp,
) -> Result<VersionRecord, CoreError> {
    // A key that is for that itself needs none beside it.
    let length = if kind == KeyKind::Hmac { 0 } else { 32 };
    let hmac_key = SecretBytes::random(length)?;
    let mut record = VersionRecord {
        created_at: now,
        key: StoredKey::new(material),
        hmac_key: StoredKey::new(hmac_key),
        public_key: None,
    };
    if !derived {
        record.public_key = Version::open(kind, 0, &record)?.public_key(None)?;
    }
    Ok(record)
}

/// What a change of a key comes with.
#[derive(Default)]
pub(super) struct Extras {
    /// Records that go.
    removed: Vec<String>,
    /// A version that comes.
    version: Option<VersionRecord>,
}

impl TransitEngine {
    /// The key `name`.
    ///
    /// # Errors
    /// `Invalid` when there is none, as stock clients expect of everything but reads.
    pub(super) async fn existing(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
    ) -> Result<Arc<OpenKey>, CoreError> {
        self.ring.key(ctx, name).await?.ok_or_else(no_such_key)
    }

    /// The key `name`, to do something with it.
    ///
    /// # Errors
    /// `Invalid` when there is none, or it is soft-deleted.
    pub(super) async fn usable(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
    ) -> Result<Arc<OpenKey>, CoreError> {
        self.existing(ctx, name).await?.in_use()
    }

    pub(super) async fn list(&self, ctx: &EngineContext<'_>) -> Result<Reply, CoreError> {
        Reply::listing(ctx.view.list(KEYS).await?)
    }

    pub(super) async fn create(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        fields: &Fields,
    ) -> Result<Reply, CoreError> {
        let new = NewKey::read(fields)?;
        key_name(name)?;
        if let Some(key) = self.ring.key(ctx, name).await? {
            return self.kept(ctx, name, &key).await;
        }
        let (kind, size) = (new.kind, new.hmac_key_bytes);
        let material = self.work.run_if(kind.is_slow(), move || kind.generate(size)).await??;
        match self.put_new(ctx, name, &new, material).await {
            Err(error) if error.is_conflict() => {
                let key = self.existing(ctx, name).await?;
                self.kept(ctx, name, &key).await
            }
            Err(error) => Err(error),
            Ok(()) => self.describe_existing(ctx, name).await,
        }
    }

    /// What a write to a key that is there already answers.
    async fn kept(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        key: &OpenKey,
    ) -> Result<Reply, CoreError> {
        let reply = self.describe(ctx, name, key, None).await?;
        Ok(reply.warn("the key was there already, and is as it was"))
    }

    /// Makes the key that somebody wants to encrypt with.
    pub(super) async fn create_on_demand(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        fields: &Fields,
    ) -> Result<Arc<OpenKey>, CoreError> {
        if Settings::load(ctx).await?.disable_upsert {
            return Err(CoreError::invalid(
                "there is no key of that name, and encrypting makes none: see config/keys",
            ));
        }
        let mut new = NewKey::read(&fields.only(&["type"]))?;
        if !new.kind.is_cipher() {
            let problem = "must be that of a cipher: make keys of other types first";
            return Err(CoreError::field("type", problem));
        }
        new.derived = gives_context(fields);
        new.convergent = fields.boolean("convergent_encryption")?.unwrap_or(false);
        if new.convergent && !new.derived {
            let problem = "needs a context: only a derived key can be convergent";
            return Err(CoreError::field("convergent_encryption", problem));
        }
        let material = new.kind.generate(0)?;
        match self.put_new(ctx, name, &new, material).await {
            Err(error) if !error.is_conflict() => return Err(error),
            // Somebody else made it meanwhile: that one counts.
            Ok(()) | Err(_) => {}
        }
        self.usable(ctx, name).await
    }

    /// Stores a key with one version.
    ///
    /// # Errors
    /// `Storage(Conflict)` when there is one of that name.
    pub(super) async fn put_new(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        new: &NewKey,
        material: SecretBytes,
    ) -> Result<(), CoreError> {
        let now = ctx.clock.now();
        let key = new.record(now)?;
        let version = version_record(key.kind, key.derived, material, now)?;
        let mut batch = Batch::new();
        let absent = Precondition::Absent;
        ctx.view.put(&mut batch, &key_name(name)?, &key, absent, PutOptions::default())?;
        let at = version_name(&key.id, 1);
        ctx.view.put(&mut batch, &at, &version, absent, PutOptions::default())?;
        if !key.auto_rotate_period.is_zero() {
            mark_rotating(ctx, &mut batch, name)?;
        }
        ctx.view.commit(&batch).await?;
        self.look_again();
        Ok(())
    }

    pub(super) async fn read(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        fields: &Fields,
    ) -> Result<Reply, CoreError> {
        let key = self.ring.key(ctx, name).await?.ok_or(CoreError::NotFound)?;
        let context = batch::bytes(fields, "context");
        let context = context.map_err(|error| CoreError::invalid(error.to_string()))?;
        let context = (key.record.derived && !context.is_empty()).then_some(context);
        self.describe(ctx, name, &key, context.as_deref()).await
    }

    async fn describe_existing(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
    ) -> Result<Reply, CoreError> {
        let key = self.existing(ctx, name).await?;
        self.describe(ctx, name, &key, None).await
    }

    async fn describe(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        key: &OpenKey,
        context: Option<&[u8]>,
    ) -> Result<Reply, CoreError> {
        let record = &key.record;
        let kind = record.kind;
        let mut data = Map::new();
        let mut say = |name: &str, value: Value| data.insert(name.to_owned(), value);
        say("name", json!(name));
        say("type", json!(kind.name()));
        say("derived", json!(record.derived));
        if record.derived {
            say("kdf", json!("hkdf_sha256"));
            say("convergent_encryption", json!(record.convergent));
            if record.convergent {
                say("convergent_encryption_version", json!(3));
            }
        }
        if kind == KeyKind::Hmac {
            say("key_size", json!(record.hmac_key_bytes));
        }
        say("exportable", json!(record.exportable));
        say("allow_plaintext_backup", json!(record.allow_plaintext_backup));
        say("deletion_allowed", json!(record.deletion_allowed));
        say("latest_version", json!(record.latest_version));
        say("min_available_version", json!(record.min_available_version));
        say("min_decryption_version", json!(record.min_decryption_version));
        say("min_encryption_version", json!(record.min_encryption_version));
        say("auto_rotate_period", json!(record.auto_rotate_period.as_secs()));
        say("soft_deleted", json!(record.soft_deleted));
        say("imported_key", json!(record.imported));
        if record.imported {
            say("imported_key_allow_rotation", json!(record.allow_rotation));
        }
        say("supports_encryption", json!(kind.encrypts()));
        say("supports_decryption", json!(kind.encrypts()));
        say("supports_signing", json!(kind.signs()));
        say("supports_derivation", json!(kind.derives()));
        say("keys", Value::Object(self.versions(ctx, key, context).await?));
        Ok(Reply { data: Some(data), ..Reply::default() })
    }

    /// What is told of each version that may decrypt.
    async fn versions(
        &self,
        ctx: &EngineContext<'_>,
        key: &OpenKey,
        context: Option<&[u8]>,
    ) -> Result<Map<String, Value>, CoreError> {
        let kind = key.record.kind;
        let mut told = Map::new();
        for (number, version) in stored_versions(ctx, &key.record).await? {
            if !kind.signs() {
                told.insert(number.to_string(), json!(version.created_at.as_secs()));
                continue;
            }
            let public = match context {
                None => version.public_key,
                Some(_) => Version::open(kind, number, &version)?.public_key(context)?,
            };
            let about = json!({
                "name": kind.public_name(),
                "creation_time": version.created_at.to_rfc3339(),
                "public_key": public.unwrap_or_default(),
            });
            told.insert(number.to_string(), about);
        }
        Ok(told)
    }

    pub(super) async fn configure(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        fields: &Fields,
    ) -> Result<Reply, CoreError> {
        let rules = Rules::read(fields)?;
        self.change(ctx, name, |key, _| rules.apply(key)).await?;
        self.describe_existing(ctx, name).await
    }

    pub(super) async fn rotate(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
    ) -> Result<Reply, CoreError> {
        self.add_version(ctx, name, None).await?;
        self.describe_existing(ctx, name).await
    }

    /// Takes a key out of use, or back into it.
    pub(super) async fn soft_delete(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        deleted: bool,
    ) -> Result<Reply, CoreError> {
        let mut changed = true;
        self.change(ctx, name, |key, _| {
            changed = key.soft_deleted != deleted;
            key.soft_deleted = deleted;
            Ok(())
        })
        .await?;
        let reply = self.describe_existing(ctx, name).await?;
        Ok(match (changed, deleted) {
            (true, _) => reply,
            (false, true) => reply.warn("the key was soft-deleted already"),
            (false, false) => reply.warn("the key was not soft-deleted"),
        })
    }

    /// Adds a version that is made here. With `after`, only if that one is the newest still.
    pub(super) async fn add_version(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        after: Option<u64>,
    ) -> Result<(), CoreError> {
        let record = &self.usable(ctx, name).await?.record;
        if !record.rotates() {
            return Err(CoreError::invalid(
                "the key was imported without allow_rotation: bring in versions with \
                 import_version",
            ));
        }
        let (kind, size, id) = (record.kind, record.hmac_key_bytes, record.id.clone());
        let material = self.work.run_if(kind.is_slow(), move || kind.generate(size)).await??;
        self.put_version(ctx, name, &id, after, material).await
    }

    /// Adds a version with this material to the key with this id.
    pub(super) async fn put_version(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        id: &str,
        after: Option<u64>,
        material: SecretBytes,
    ) -> Result<(), CoreError> {
        let mut material = Some(material);
        self.change(ctx, name, |key, extras| {
            if key.id != id {
                return Err(CoreError::invalid("the key was replaced meanwhile: try again"));
            }
            if after.is_some_and(|after| after != key.latest_version) {
                return Ok(());
            }
            let now = ctx.clock.now();
            // Made once: a second attempt is with the same version, by another number.
            let made = match material.take() {
                Some(material) => version_record(key.kind, key.derived, material, now)?,
                None => extras
                    .version
                    .take()
                    .ok_or_else(|| CoreError::internal("a version that was made is missing"))?,
            };
            key.latest_version = key.latest_version.saturating_add(1);
            key.latest_at = now;
            extras.version = Some(made);
            Ok(())
        })
        .await
    }

    /// Changes a key as `edit` says, in one commit. `edit` is asked again when somebody else was
    /// faster, with the extras that it left.
    async fn change(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        mut edit: impl FnMut(&mut KeyRecord, &mut Extras) -> Result<(), CoreError>,
    ) -> Result<(), CoreError> {
        let at = key_name(name)?;
        let mut extras = Extras::default();
        for _ in 0..ATTEMPTS {
            let entry = ctx.view.get_fresh::<KeyRecord>(&at).await?.ok_or_else(no_such_key)?;
            let (mut key, before) = (entry.value, entry.rev);
            let (latest, rotating) = (key.latest_version, !key.auto_rotate_period.is_zero());
            extras.removed.clear();
            edit(&mut key, &mut extras)?;
            let mut batch = Batch::new();
            let expected = Precondition::Rev(before);
            ctx.view.put(&mut batch, &at, &key, expected, PutOptions::default())?;
            if let Some(version) = extras.version.as_ref().filter(|_| key.latest_version > latest) {
                let at = version_name(&key.id, key.latest_version);
                let options = PutOptions::default();
                ctx.view.put(&mut batch, &at, version, Precondition::Absent, options)?;
            }
            for record in &extras.removed {
                ctx.view.delete(&mut batch, record, Precondition::Any);
            }
            match (rotating, !key.auto_rotate_period.is_zero()) {
                (false, true) => mark_rotating(ctx, &mut batch, name)?,
                (true, false) => {
                    ctx.view.delete(&mut batch, &rotating_name(name), Precondition::Any);
                }
                (true, true) | (false, false) => {}
            }
            match ctx.view.commit(&batch).await {
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    self.look_again();
                    return Ok(());
                }
            }
        }
        Err(CoreError::Overloaded { retry_after: Ttl::from_secs(1) })
    }

    pub(super) async fn trim(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        fields: &Fields,
    ) -> Result<Reply, CoreError> {
        let field = "min_available_version";
        let target = fields.integer(field)?.filter(|version| *version > 0);
        let target = target.ok_or_else(|| CoreError::field(field, "is required, 1 or above"))?;
        self.usable(ctx, name).await?;
        loop {
            let mut done = false;
            // A part at a time, so that no commit is large: what was trimmed by then stays trimmed.
            self.change(ctx, name, |key, extras| {
                check_trim(key, target)?;
                let from = key.oldest();
                let to = target.min(from.saturating_add(TRIMMED_AT_ONCE));
                for number in from..to {
                    extras.removed.push(version_name(&key.id, number));
                    extras.removed.push(used_name(&key.id, number));
                }
                key.min_available_version = to;
                done = to == target;
                Ok(())
            })
            .await?;
            self.ring.forget(name);
            if done {
                return self.describe_existing(ctx, name).await;
            }
        }
    }

    pub(super) async fn delete(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
    ) -> Result<Reply, CoreError> {
        let at = key_name(name)?;
        for _ in 0..ATTEMPTS {
            let entry = ctx.view.get_fresh::<KeyRecord>(&at).await?.ok_or_else(no_such_key)?;
            let key = entry.value;
            if !key.deletion_allowed {
                return Err(CoreError::invalid(
                    "the key may not be deleted: set deletion_allowed in its config first",
                ));
            }
            let mut batch = Batch::new();
            ctx.view.delete(&mut batch, &at, Precondition::Rev(entry.rev));
            ctx.view.delete(&mut batch, &rotating_name(name), Precondition::Any);
            mark_gone(ctx, &mut batch, &key.id, ctx.clock.now())?;
            match ctx.view.commit(&batch).await {
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    self.ring.forget(name);
                    // From here on the scheduled work finishes it when this does not.
                    self.look_again();
                    remove_gone(ctx, &key.id).await?;
                    return Ok(Reply::empty());
                }
            }
        }
        Err(CoreError::Overloaded { retry_after: Ttl::from_secs(1) })
    }
}

/// Whether any item of an encryption comes with a context.
fn gives_context(fields: &Fields) -> bool {
    let given = |value: Option<&Value>| {
        value.and_then(Value::as_str).is_some_and(|context| !context.is_empty())
    };
    let items = fields.get("batch_input").and_then(Value::as_array);
    given(fields.get("context"))
        || items.is_some_and(|items| items.iter().any(|item| given(item.get("context"))))
}

fn check_trim(key: &KeyRecord, target: u64) -> Result<(), CoreError> {
    let problem = if target > key.latest_version {
        "is above the newest version"
    } else if target < key.min_available_version {
        "cannot be lowered: what was trimmed is gone"
    } else if key.min_encryption_version == 0 {
        "needs min_encryption_version to be set first"
    } else if target > key.min_decryption_version || target > key.min_encryption_version {
        "is above min_decryption_version or min_encryption_version"
    } else {
        return Ok(());
    };
    Err(CoreError::field("min_available_version", problem))
}

/// The versions that may decrypt, as they are stored, in order.
pub(super) async fn stored_versions(
    ctx: &EngineContext<'_>,
    key: &KeyRecord,
) -> Result<Vec<(u64, VersionRecord)>, CoreError> {
    let dir = versions_dir(&key.id);
    let mut versions = Vec::new();
    for (name, entry) in ctx.view.entries::<VersionRecord>(&dir).await? {
        let number = name.strip_prefix(&dir).and_then(|number| number.parse::<u64>().ok());
        let number = number.ok_or_else(|| CoreError::internal("a version has no number"))?;
        if (key.min_decryption_version..=key.latest_version).contains(&number) {
            versions.push((number, entry.value));
        }
    }
    versions.sort_by_key(|(number, _)| *number);
    Ok(versions)
}

fn mark_rotating(ctx: &EngineContext<'_>, batch: &mut Batch, name: &str) -> Result<(), CoreError> {
    let marker = Map::<String, Value>::new();
    let at = rotating_name(name);
    ctx.view.put(batch, &at, &marker, Precondition::Any, PutOptions::default())
}

/// Notes that what is stored under `id` is to be removed from `after` on.
pub(super) fn mark_gone(
    ctx: &EngineContext<'_>,
    batch: &mut Batch,
    id: &str,
    after: Timestamp,
) -> Result<(), CoreError> {
    let record = GoneRecord { after };
    let options = PutOptions::default();
    ctx.view.put(batch, &gone_name(id), &record, Precondition::Any, options)
}

/// Removes what is stored under an id that is no key's any more. Safe to do again.
pub(super) async fn remove_gone(ctx: &EngineContext<'_>, id: &str) -> Result<(), CoreError> {
    ctx.view.remove_tree(&versions_dir(id)).await?;
    ctx.view.remove_tree(&used_dir(id)).await?;
    ctx.view.remove(&gone_name(id)).await
}
