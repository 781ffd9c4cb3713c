//! Keys that leave: one by one, or whole as a backup that comes back.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::TransitEngine;
use super::foreign;
use super::keys::{ROTATION_SECS_MIN, mark_gone, remove_gone, stored_versions};
use super::kind::{Family, HMAC_KEY_BYTES_MAX, KeyKind};
use super::meter::UsedRecord;
use super::record::{
    KeyRecord, VersionRecord, gone_name, key_name, rotating_name, used_dir, used_name, version_name,
};
use super::ring::{Material, Version};
use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::records::{Batch, Precondition};
use crate::core::reply::Reply;
use crate::core::view::{Entry, PutOptions};
use crate::crypto::rsa::RsaKey;
use crate::types::id::random_uuid;
use crate::types::secret::SecretString;
use crate::types::time::Ttl;

const FORMAT: &str = "leasehold-transit-1";
/// Most versions of a key that is restored.
const VERSIONS_MAX: usize = 10_000;
/// Versions that are stored in one commit.
const STORED_AT_ONCE: usize = 200;
/// How long a restore may take before what it stored is removed again.
const RESTORE_WITHIN: Ttl = Ttl::from_secs(3600);

/// What is exported of a version.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Encryption,
    Hmac,
    Public,
    Signing,
}

impl Part {
    fn parse(name: &str) -> Result<Self, CoreError> {
        Ok(match name {
            "encryption-key" => Self::Encryption,
            "hmac-key" => Self::Hmac,
            "public-key" => Self::Public,
            "signing-key" => Self::Signing,
            _ => {
                let problem = "must be encryption-key, signing-key, hmac-key or public-key";
                return Err(CoreError::field("type", problem));
            }
        })
    }

    const fn is_in(self, kind: KeyKind) -> bool {
        match self {
            Self::Encryption => kind.encrypts(),
            Self::Hmac => true,
            Self::Public | Self::Signing => kind.signs(),
        }
    }
}

/// A part of a version, as it is told.
fn told(kind: KeyKind, number: u64, part: Part, record: &VersionRecord) -> Option<SecretString> {
    let encoded = |bytes: &[u8]| Some(SecretString::new(BASE64.encode(bytes)));
    let kept = record.key.secret();
    if part == Part::Hmac {
        let key = if kind == KeyKind::Hmac { kept } else { record.hmac_key.secret() };
        return encoded(key.expose());
    }
    if part == Part::Public {
        let public = match &record.public_key {
            Some(public) => public.clone(),
            None => Version::open(kind, number, record).ok()?.public_key(None).ok()??,
        };
        return Some(SecretString::new(public.trim_end().to_owned()));
    }
    let pem = match kind.family() {
        Family::Cipher(_) | Family::Ed25519 | Family::Hmac => return encoded(kept.expose()),
        Family::Ecdsa(_) => match Version::open(kind, number, record).ok()?.material {
            Material::Ecdsa(key) => key.private_pem().ok()?,
            Material::Cipher { .. }
            | Material::Ed25519 { .. }
            | Material::Hmac
            | Material::Rsa { .. } => return None,
        },
        Family::Rsa(_) => RsaKey::private_pem(kept)?,
    };
    Some(SecretString::new(pem.expose().trim_end().to_owned()))
}

/// A key with all its versions.
#[derive(Serialize, Deserialize)]
pub(super) struct Backup {
    format: String,
    name: String,
    key: KeyRecord,
    versions: BTreeMap<u64, VersionRecord>,
    /// How many messages each version may have encrypted.
    used: BTreeMap<u64, UsedRecord>,
}

impl Backup {
    /// What was kept of a key whose messages nobody has counted.
    pub(super) fn of(name: String, key: KeyRecord, versions: BTreeMap<u64, VersionRecord>) -> Self {
        Self { format: FORMAT.to_owned(), name, key, versions, used: BTreeMap::new() }
    }

    /// Reads a backup of ours, or one of OpenBao's. Takes long: it readies every version.
    ///
    /// # Errors
    /// When it is neither, or holds something that is no such key.
    fn read(text: &str) -> Result<Self, CoreError> {
        let refused = || CoreError::field("backup", "is not a backup of a key");
        let bytes = BASE64.decode(text.as_bytes()).map_err(|_| refused())?;
        let bytes = Zeroizing::new(bytes);
        let ours = serde_json::from_slice::<Self>(&bytes).ok();
        let backup = ours.or_else(|| foreign::read(&bytes)).ok_or_else(refused)?;
        if !backup.is_sound() {
            return Err(refused());
        }
        if !backup.is_usable() {
            return Err(CoreError::field("backup", "holds a version that is no such key"));
        }
        Ok(backup)
    }

    /// Whether its parts go together.
    fn is_sound(&self) -> bool {
        let key = &self.key;
        let all = key.oldest()..=key.latest_version;
        self.format == FORMAT
            && key.check().is_ok()
            && self.versions.len() <= VERSIONS_MAX
            && self.versions.keys().copied().eq(all)
            && (!key.derived || key.kind.derives())
            && (!key.convergent || (key.derived && key.kind.is_cipher()))
            && has_sound_settings(key)
    }

    /// Whether every version is a key of the type that it says.
    fn is_usable(&self) -> bool {
        let usable = |(number, record): (&u64, &VersionRecord)| {
            // What is told of a key is what others trust, so it is this key's or none.
            let shown = |version: Version| match self.key.derived {
                true => None,
                false => version.public_key(None).ok().flatten(),
            };
            Version::open(self.key.kind, *number, record)
                .is_ok_and(|version| shown(version) == record.public_key)
        };
        self.versions.iter().all(usable)
    }
}

impl TransitEngine {
    pub(super) async fn export(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        part: &str,
        version: &str,
    ) -> Result<Reply, CoreError> {
        let part = Part::parse(part)?;
        let key = self.ring.key(ctx, name).await?.ok_or(CoreError::NotFound)?.in_use()?;
        let record = &key.record;
        if !part.is_in(record.kind) {
            let kind = record.kind.name();
            return Err(CoreError::field("type", format!("is no part of keys of type {kind}")));
        }
        if part != Part::Public && !record.exportable {
            return Err(CoreError::invalid("the key is not exportable"));
        }
        let missing = || CoreError::field("version", "must be latest, or one that may decrypt");
        let wanted = match version {
            "" => None,
            "latest" => Some(record.latest_version),
            number => Some(number.parse::<u64>().map_err(|_| missing())?),
        };
        let mut keys = Map::new();
        for (number, stored) in stored_versions(ctx, record).await? {
            if wanted.is_none_or(|wanted| wanted == number) {
                let told = told(record.kind, number, part, &stored)
                    .ok_or_else(|| CoreError::internal("a version cannot be exported"))?;
                keys.insert(number.to_string(), json!(told.expose()));
            }
        }
        if keys.is_empty() {
            return Err(missing());
        }
        let mut data = Map::new();
        data.insert("name".into(), json!(name));
        data.insert("type".into(), json!(record.kind.name()));
        data.insert("keys".into(), Value::Object(keys));
        Ok(Reply { data: Some(data), ..Reply::default() })
    }

    pub(super) async fn backup(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
    ) -> Result<Reply, CoreError> {
        let key = self.usable(ctx, name).await?;
        if !key.record.exportable || !key.record.allow_plaintext_backup {
            return Err(CoreError::invalid(
                "a backup holds the key in clear: set exportable and allow_plaintext_backup in \
                 the key's config first",
            ));
        }
        // Also of what may not decrypt at present: it may be allowed to again.
        let everything = KeyRecord { min_decryption_version: 1, ..key.record.clone() };
        let mut used = BTreeMap::new();
        let dir = used_dir(&key.id);
        for (at, entry) in ctx.view.entries::<UsedRecord>(&dir).await? {
            if let Some(number) = at.strip_prefix(&dir).and_then(|number| number.parse().ok()) {
                used.insert(number, entry.value);
            }
        }
        let versions = stored_versions(ctx, &everything).await?.into_iter().collect();
        let backup = Backup { used, ..Backup::of(name.to_owned(), key.record.clone(), versions) };
        let text = serde_json::to_vec(&backup).map(Zeroizing::new);
        let text = text.map_err(|_| CoreError::internal("a backup cannot be written"))?;
        Ok(Reply::data(json!({ "backup": BASE64.encode(&text) })))
    }

    pub(super) async fn restore(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        fields: &Fields,
    ) -> Result<Reply, CoreError> {
        let text = fields.secret("backup")?;
        let text = text.ok_or_else(|| CoreError::field("backup", "is required"))?;
        let force = fields.boolean("force")?.unwrap_or(false);
        let read = move || Backup::read(text.expose());
        let mut backup = self.work.run(read).await??;
        let name = if name.is_empty() { backup.name.clone() } else { name.to_owned() };
        let at = key_name(&name)?;
        let before = ctx.view.get_fresh::<KeyRecord>(&at).await?;
        if let Some(before) = &before {
            if !force {
                return Err(exists());
            }
            // Replacing is deleting: all that the old key has encrypted is lost.
            if !before.value.deletion_allowed {
                return Err(CoreError::invalid(
                    "the key that is there may not be deleted: set deletion_allowed in its \
                     config first",
                ));
            }
        }
        backup.key.id = random_uuid()?;
        match put_restored(ctx, &name, &backup, before).await {
            Err(error) if error.is_conflict() => Err(exists()),
            Err(error) => Err(error),
            Ok(replaced) => {
                self.ring.forget(&name);
                self.look_again();
                if let Some(id) = replaced {
                    remove_gone(ctx, &id).await?;
                }
                Ok(Reply::empty())
            }
        }
    }
}

/// Whether a record that came from outside says nothing that a request could not have asked for.
fn has_sound_settings(key: &KeyRecord) -> bool {
    let period = key.auto_rotate_period;
    let hmac_bytes_max = if key.kind == KeyKind::Hmac { HMAC_KEY_BYTES_MAX } else { 0 };
    key.hmac_key_bytes <= hmac_bytes_max
        && (period.is_zero() || (key.rotates() && period.as_secs() >= ROTATION_SECS_MIN))
}

fn exists() -> CoreError {
    CoreError::invalid("there is a key of that name: force replaces it")
}

/// Stores the versions, and then the key in one commit. Until that one they are nobody's, and are
/// removed after a while. Gives the id of the key that was replaced.
async fn put_restored(
    ctx: &EngineContext<'_>,
    name: &str,
    backup: &Backup,
    before: Option<Entry<KeyRecord>>,
) -> Result<Option<String>, CoreError> {
    let (key, absent) = (&backup.key, Precondition::Absent);
    let mut batch = Batch::new();
    mark_gone(ctx, &mut batch, &key.id, ctx.clock.now().plus(RESTORE_WITHIN))?;
    ctx.view.commit(&batch).await?;
    let versions: Vec<_> = backup.versions.iter().collect();
    for some in versions.chunks(STORED_AT_ONCE) {
        let mut batch = Batch::new();
        for (number, version) in some {
            let at = version_name(&key.id, **number);
            ctx.view.put(&mut batch, &at, version, absent, PutOptions::default())?;
            if let Some(used) = backup.used.get(number) {
                let at = used_name(&key.id, **number);
                ctx.view.put(&mut batch, &at, used, absent, PutOptions::default())?;
            }
        }
        ctx.view.commit(&batch).await?;
    }
    let mut batch = Batch::new();
    let options = PutOptions::default();
    ctx.view.put(&mut batch, &key_name(name)?, key, Entry::expected(before.as_ref()), options)?;
    ctx.view.delete(&mut batch, &gone_name(&key.id), Precondition::Rev(1));
    let rotating = rotating_name(name);
    if key.auto_rotate_period.is_zero() {
        ctx.view.delete(&mut batch, &rotating, Precondition::Any);
    } else {
        let marker = Map::<String, Value>::new();
        ctx.view.put(&mut batch, &rotating, &marker, Precondition::Any, PutOptions::default())?;
    }
    let replaced = before.map(|entry| entry.value.id);
    if let Some(id) = &replaced {
        mark_gone(ctx, &mut batch, id, ctx.clock.now())?;
    }
    ctx.view.commit(&batch).await?;
    Ok(replaced)
}
