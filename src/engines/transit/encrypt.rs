//! Encrypting, decrypting, and encrypting anew; keys for others to encrypt with.

use std::collections::BTreeMap;
use std::sync::Arc;

use data_encoding::BASE64;
use serde_json::{Map, json};

use super::TransitEngine;
use super::batch::{self, ItemError};
use super::meter::MeterError;
use super::record::KeyRecord;
use super::ring::{Material, OpenKey, Version};
use crate::core::engine::{EngineContext, EngineRequest};
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::operation::Operation;
use crate::core::reply::Reply;
use crate::crypto::message::{ConvergentKey, MessageKey, derive};
use crate::crypto::rsa::RsaHash;
use crate::types::secret::SecretBytes;

/// The one answer to whatever does not open.
const DOES_NOT_OPEN: &str =
    "the ciphertext does not open with this key, context and associated data";
/// More than this is not done by the threads that serve requests.
const SHORT_ITEMS: usize = 64;
const SHORT_BYTES: usize = 64 * 1024;
/// How often versions are looked up while they come and go.
const ATTEMPTS: usize = 4;

/// How the keys of a version are used.
#[derive(Clone, Copy)]
struct Mode {
    derived: bool,
    convergent: bool,
}

impl Mode {
    const fn of(record: &KeyRecord) -> Self {
        Self { derived: record.derived, convergent: record.convergent }
    }
}

/// What is to be encrypted.
enum Source {
    Plain(SecretBytes),
    /// What was encrypted before.
    Sealed(Sealed),
}

/// What is to be decrypted, and with what.
struct Sealed {
    version: Arc<Version>,
    bytes: Vec<u8>,
}

/// What belongs to a message.
struct Around {
    context: Vec<u8>,
    aad: Vec<u8>,
}

struct ToSeal {
    source: Source,
    around: Around,
    /// The version asked for; zero for the newest.
    wanted: u64,
}

/// An encrypted message, as it is told.
struct Ciphertext {
    text: String,
    version: u64,
}

impl Ciphertext {
    fn answer(self) -> Map<String, serde_json::Value> {
        let mut map = Map::new();
        map.insert("ciphertext".into(), json!(self.text));
        map.insert("key_version".into(), json!(self.version));
        map
    }
}

impl Around {
    fn read(record: &KeyRecord, item: &Fields) -> Result<Self, ItemError> {
        let context = batch::bytes(item, "context")?;
        if record.derived && context.is_empty() {
            return Err(ItemError::field("context", "is required: the key is a derived one"));
        }
        let aad = batch::bytes(item, "associated_data")?;
        if record.kind.is_rsa() && !aad.is_empty() {
            return Err(ItemError::field("associated_data", "is not for keys of this type"));
        }
        Ok(Self { context, aad })
    }
}

fn seal(
    mode: Mode,
    version: &Version,
    around: &Around,
    plaintext: &SecretBytes,
) -> Result<Ciphertext, ItemError> {
    let failed = || ItemError::new("the message cannot be encrypted: it is too long");
    let (aad, plain) = (around.aad.as_slice(), plaintext.expose());
    let sealed = match &version.material {
        Material::Cipher { cipher, root, .. } if mode.convergent => {
            let key = ConvergentKey::derive(*cipher, root, &around.context);
            key.map_err(|_| failed())?.seal(aad, plain).map_err(|_| failed())?
        }
        Material::Cipher { cipher, root, .. } if mode.derived => {
            let key = derive(root, &around.context, cipher.key_bytes());
            let key = MessageKey::new(*cipher, key.expose()).map_err(|_| failed())?;
            key.seal(aad, plain).map_err(|_| failed())?
        }
        Material::Cipher { key, .. } => key.seal(aad, plain).map_err(|_| failed())?,
        Material::Rsa { key, .. } if plain.len() > key.plaintext_max(RsaHash::Sha256) => {
            return Err(ItemError::field("plaintext", "is longer than this key can encrypt"));
        }
        Material::Rsa { key, .. } => key.encrypt(RsaHash::Sha256, plain).map_err(|_| failed())?,
        Material::Ecdsa(_) | Material::Ed25519 { .. } | Material::Hmac => return Err(failed()),
    };
    let text = batch::with_version(version.number, &BASE64.encode(&sealed));
    Ok(Ciphertext { text, version: version.number })
}

fn open(mode: Mode, sealed: &Sealed, around: &Around) -> Result<SecretBytes, ItemError> {
    let failed = || ItemError::new(DOES_NOT_OPEN);
    let (aad, bytes) = (around.aad.as_slice(), sealed.bytes.as_slice());
    match &sealed.version.material {
        // A convergent key is the same but for where its nonces come from.
        Material::Cipher { cipher, root, .. } if mode.derived => {
            let key = derive(root, &around.context, cipher.key_bytes());
            let key = MessageKey::new(*cipher, key.expose()).map_err(|_| failed())?;
            key.open(aad, bytes).map_err(|_| failed())
        }
        Material::Cipher { key, .. } => key.open(aad, bytes).map_err(|_| failed()),
        Material::Rsa { key, .. } => key.decrypt(RsaHash::Sha256, bytes).map_err(|_| failed()),
        Material::Ecdsa(_) | Material::Ed25519 { .. } | Material::Hmac => Err(failed()),
    }
}

/// Whether that many items, of so many bytes in all, take long.
fn takes_long(key: &OpenKey, items: usize, bytes: usize) -> bool {
    key.record.kind.is_slow() || items > SHORT_ITEMS || bytes > SHORT_BYTES
}

fn needs_encryption(key: &OpenKey) -> Result<(), CoreError> {
    if key.record.kind.encrypts() {
        return Ok(());
    }
    let kind = key.record.kind.name();
    Err(CoreError::invalid(format!("keys of type {kind} neither encrypt nor decrypt")))
}

impl TransitEngine {
    pub(super) async fn encrypt(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        request: EngineRequest<'_>,
    ) -> Result<Reply, CoreError> {
        let fields = request.fields;
        let key = match self.ring.key(ctx, name).await? {
            Some(key) => key.in_use()?,
            None if request.operation == Operation::Create => {
                self.create_on_demand(ctx, name, &fields).await?
            }
            None => return Err(super::no_such_key()),
        };
        needs_encryption(&key)?;
        let (items, shape) = batch::items(fields, key.record.kind.is_slow())?;
        let read = |item: &Fields| {
            let around = Around::read(&key.record, item)?;
            let source = Source::Plain(batch::required(item, "plaintext")?);
            let wanted = item.integer("key_version")?.unwrap_or(0);
            Ok(ToSeal { source, around, wanted })
        };
        let items: Vec<_> = items.iter().map(read).collect();
        let sealed = self.seal_all(ctx, name, &key, items).await?;
        let done = sealed.into_iter().map(|one| one.map(Ciphertext::answer)).collect();
        batch::answer(shape, done, true)
    }

    pub(super) async fn decrypt(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        fields: Fields,
    ) -> Result<Reply, CoreError> {
        let key = self.usable(ctx, name).await?;
        needs_encryption(&key)?;
        let (items, shape) = batch::items(fields, key.record.kind.is_slow())?;
        let mut read = Vec::with_capacity(items.len());
        let mut bytes = 0usize;
        for item in &items {
            let one = self.read_sealed(ctx, &key, item).await?;
            if let Ok((sealed, around)) = &one {
                bytes = bytes.saturating_add(sealed.bytes.len() + around.aad.len());
            }
            read.push(one);
        }
        let mode = Mode::of(&key.record);
        let long = takes_long(&key, items.len(), bytes);
        let one = move |(sealed, around)| {
            let plaintext = open(mode, &sealed, &around)?;
            let text = BASE64.encode(plaintext.expose());
            Ok(Map::from_iter([("plaintext".to_owned(), json!(text))]))
        };
        let done = self.each(long, read, one).await?;
        batch::answer(shape, done, true)
    }

    pub(super) async fn rewrap(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        fields: Fields,
    ) -> Result<Reply, CoreError> {
        let key = self.usable(ctx, name).await?;
        needs_encryption(&key)?;
        let (items, shape) = batch::items(fields, key.record.kind.is_slow())?;
        let mut read = Vec::with_capacity(items.len());
        for item in &items {
            let one = self.read_sealed(ctx, &key, item).await?;
            read.push(one.and_then(|(sealed, around)| {
                let wanted = item.integer("key_version")?.unwrap_or(0);
                Ok(ToSeal { source: Source::Sealed(sealed), around, wanted })
            }));
        }
        let sealed = self.seal_all(ctx, name, &key, read).await?;
        let done = sealed.into_iter().map(|one| one.map(Ciphertext::answer)).collect();
        batch::answer(shape, done, false)
    }

    pub(super) async fn data_key(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        form: &str,
        fields: &Fields,
    ) -> Result<Reply, CoreError> {
        let told = match form {
            "plaintext" => true,
            "wrapped" => false,
            _ => return Err(CoreError::field("plaintext", "must be plaintext or wrapped")),
        };
        let key = self.usable(ctx, name).await?;
        needs_encryption(&key)?;
        let bytes = match fields.integer("bits")? {
            Some(128) => 16,
            None | Some(256) => 32,
            Some(512) => 64,
            Some(_) => return Err(CoreError::field("bits", "must be 128, 256 or 512")),
        };
        let made = SecretBytes::random(bytes)?;
        let plaintext = told.then(|| BASE64.encode(made.expose()));
        let item = Around::read(&key.record, fields).and_then(|around| {
            let wanted = fields.integer("key_version")?.unwrap_or(0);
            Ok(ToSeal { source: Source::Plain(made), around, wanted })
        });
        let sealed = self.seal_all(ctx, name, &key, vec![item]).await?.pop();
        let sealed = sealed.ok_or_else(|| CoreError::internal("an item has no result"))?;
        let mut data = sealed.map_err(|error| CoreError::invalid(error.to_string()))?.answer();
        if let Some(plaintext) = plaintext {
            data.insert("plaintext".into(), json!(plaintext));
        }
        Ok(Reply { data: Some(data), ..Reply::default() })
    }

    /// What an item says of something encrypted.
    async fn read_sealed(
        &self,
        ctx: &EngineContext<'_>,
        key: &OpenKey,
        item: &Fields,
    ) -> Result<Result<(Sealed, Around), ItemError>, CoreError> {
        let read = || {
            let text = item.text("ciphertext")?.unwrap_or_default();
            if text.is_empty() {
                return Err(ItemError::field("ciphertext", "is required"));
            }
            let (version, rest) = batch::versioned("ciphertext", &text)?;
            key.record.check_old(version)?;
            let bytes = BASE64.decode(rest.as_bytes());
            let bytes = bytes.map_err(|_| ItemError::new(DOES_NOT_OPEN))?;
            Ok((version, bytes, Around::read(&key.record, item)?))
        };
        let (version, bytes, around) = match read() {
            Ok(read) => read,
            Err(error) => return Ok(Err(error)),
        };
        Ok(match self.ring.version(ctx, key, version).await? {
            Some(version) => Ok((Sealed { version, bytes }, around)),
            None => Err(ItemError::new("that version of the key was trimmed away")),
        })
    }

    /// Encrypts, counting each message against what its version may encrypt. When the newest version
    /// has encrypted all that it may, a newer one is made.
    async fn seal_all(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        key: &Arc<OpenKey>,
        mut items: Vec<Result<ToSeal, ItemError>>,
    ) -> Result<Vec<Result<Ciphertext, ItemError>>, CoreError> {
        let mut key = key.clone();
        for _ in 0..ATTEMPTS {
            let mut versions = BTreeMap::new();
            for item in &mut items {
                let Ok(one) = item else { continue };
                match key.record.version_for_new(one.wanted) {
                    Ok(number) => *versions.entry(number).or_insert(0u64) += 1,
                    Err(text) => *item = Err(text.into()),
                }
            }
            let mut ready = BTreeMap::new();
            let mut again = false;
            for (number, count) in versions {
                match self.admit(ctx, &key, number, count).await {
                    Ok(Some(version)) => {
                        ready.insert(number, version);
                    }
                    // It was trimmed while we looked, or somebody asked for it by its number.
                    Ok(None) => again = true,
                    Err(MeterError::Exhausted) if number == key.record.latest_version => {
                        self.replace_exhausted(ctx, name, number).await?;
                        again = true;
                    }
                    Err(MeterError::Exhausted) => return Err(exhausted()),
                    Err(MeterError::Failed(error)) => return Err(error),
                }
            }
            if !again {
                return self.seal_with(&key, ready, items).await;
            }
            key = self.usable(ctx, name).await?;
        }
        Err(CoreError::invalid("the versions of the key change too fast: try again"))
    }

    /// A version that may encrypt `count` more messages.
    async fn admit(
        &self,
        ctx: &EngineContext<'_>,
        key: &OpenKey,
        number: u64,
        count: u64,
    ) -> Result<Option<Arc<Version>>, MeterError> {
        let Some(version) = self.ring.version(ctx, key, number).await? else { return Ok(None) };
        // Nonces that follow from the message are as many as there are messages, however often each
        // is encrypted.
        let max = match &version.material {
            Material::Cipher { cipher, .. } if !key.record.convergent => cipher.messages_max(),
            Material::Cipher { .. }
            | Material::Ecdsa(_)
            | Material::Ed25519 { .. }
            | Material::Hmac
            | Material::Rsa { .. } => None,
        };
        if let Some(max) = max {
            self.meter.take(ctx, &key.id, number, count, max.min(self.messages_max)).await?;
        }
        Ok(Some(version))
    }

    async fn seal_with(
        &self,
        key: &OpenKey,
        ready: BTreeMap<u64, Arc<Version>>,
        items: Vec<Result<ToSeal, ItemError>>,
    ) -> Result<Vec<Result<Ciphertext, ItemError>>, CoreError> {
        let bytes = items.iter().flatten().fold(0usize, |bytes, item| {
            let source = match &item.source {
                Source::Plain(plaintext) => plaintext.len(),
                Source::Sealed(sealed) => sealed.bytes.len(),
            };
            bytes.saturating_add(source).saturating_add(item.around.aad.len())
        });
        let long = takes_long(key, items.len(), bytes);
        let (mode, latest) = (Mode::of(&key.record), key.record.latest_version);
        let one = move |ToSeal { source, around, wanted }| {
            let number = if wanted == 0 { latest } else { wanted };
            let missing = || ItemError::new("that version of the key was trimmed away");
            let version = ready.get(&number).ok_or_else(missing)?;
            match source {
                Source::Plain(plaintext) => seal(mode, version, &around, &plaintext),
                Source::Sealed(sealed) => {
                    seal(mode, version, &around, &open(mode, &sealed, &around)?)
                }
            }
        };
        self.each(long, items, one).await
    }

    /// Makes a version to follow one that has encrypted all that it may.
    async fn replace_exhausted(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        number: u64,
    ) -> Result<(), CoreError> {
        let key = self.usable(ctx, name).await?;
        if !key.record.rotates() {
            return Err(exhausted());
        }
        tracing::warn!(key = name, version = number, "a version has encrypted all that it may");
        self.add_version(ctx, name, Some(number)).await
    }
}

fn exhausted() -> CoreError {
    CoreError::invalid(
        "this version of the key has encrypted as many messages as it safely may: rotate the key",
    )
}
