//! Signatures and HMACs: making and checking them.

use std::sync::Arc;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq;

use super::TransitEngine;
use super::batch::{self, Done, ItemError};
use super::ring::{Material, OpenKey, Version};
use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::reply::Reply;
use crate::crypto::digest::Hash;
use crate::crypto::mac::hmac;
use crate::crypto::rsa::{Padding, RsaHash, RsaSize};
use crate::crypto::signing::{Ed25519Key, Marshaling};
use crate::types::secret::SecretBytes;

/// More than this is not done by the threads that serve requests.
const SHORT_ITEMS: usize = 16;
const SHORT_BYTES: usize = 256 * 1024;

/// How long the salt of a PSS signature is.
#[derive(Clone, Copy)]
enum Salt {
    /// As long as there is room for when signing; either of the two when verifying.
    Auto,
    Bytes(u64),
    Hash,
}

/// How signatures are made.
#[derive(Clone, Copy)]
struct Manner {
    hash: Hash,
    prehashed: bool,
    marshaling: Marshaling,
    pkcs1: bool,
    salt: Salt,
}

/// The hash that a request names, in its path or its body.
fn hash_of(fields: &Fields, from_path: &str) -> Result<Hash, CoreError> {
    let name = match from_path {
        "" => match fields.text("hash_algorithm")? {
            Some(name) => name,
            None => fields.text("algorithm")?.unwrap_or_else(|| "sha2-256".to_owned()),
        },
        given => given.to_owned(),
    };
    Hash::from_name(&name).ok_or_else(|| {
        let problem = "must be sha2- or sha3-, and 224, 256, 384 or 512; for HMACs also sha1";
        CoreError::field("hash_algorithm", problem)
    })
}

impl Manner {
    fn read(fields: &Fields, from_path: &str) -> Result<Self, CoreError> {
        let marshaling = match fields.text("marshaling_algorithm")?.as_deref() {
            None | Some("" | "asn1") => Marshaling::Asn1,
            Some("jws") => Marshaling::Fixed,
            Some(_) => return Err(CoreError::field("marshaling_algorithm", "must be asn1 or jws")),
        };
        let pkcs1 = match fields.text("signature_algorithm")?.as_deref() {
            None | Some("" | "pss") => false,
            Some("pkcs1v15") => true,
            Some(_) => {
                return Err(CoreError::field("signature_algorithm", "must be pss or pkcs1v15"));
            }
        };
        let salt = match fields.text("salt_length")?.as_deref() {
            None | Some("" | "auto") => Salt::Auto,
            Some("hash") => Salt::Hash,
            Some(number) => Salt::Bytes(number.parse().map_err(|_| {
                CoreError::field("salt_length", "must be auto, hash or a number of bytes")
            })?),
        };
        Ok(Self {
            hash: hash_of(fields, from_path)?,
            prehashed: fields.boolean("prehashed")?.unwrap_or(false),
            marshaling,
            pkcs1,
            salt,
        })
    }

    /// What is signed: the digest of the input, which the input may be already.
    fn digest(&self, input: &SecretBytes) -> Result<Vec<u8>, ItemError> {
        if !self.hash.resists_collisions() {
            let problem = "is only for HMACs: a signature by it may be one of another message";
            return Err(ItemError::field("hash_algorithm", problem));
        }
        if !self.prehashed {
            return Ok(self.hash.digest(input.expose()));
        }
        if input.len() != self.hash.bytes() {
            return Err(ItemError::field("input", "is not as long as a digest by that hash"));
        }
        Ok(input.expose().to_vec())
    }

    fn rsa(&self, size: RsaSize) -> Result<(RsaHash, Vec<Padding>), ItemError> {
        let hash = RsaHash::of(self.hash).ok_or_else(|| {
            ItemError::field("hash_algorithm", "must be sha2-256, sha2-384 or sha2-512 for RSA")
        })?;
        if self.pkcs1 {
            return Ok((hash, vec![Padding::Pkcs1]));
        }
        let paddings = match self.salt {
            Salt::Auto => vec![Padding::PssMax, Padding::PssHash],
            Salt::Hash => vec![Padding::PssHash],
            Salt::Bytes(bytes) => {
                let padding = Padding::pss_with_salt(size, hash, bytes);
                vec![padding.ok_or_else(|| {
                    let problem = "must be that of the hash, or the longest that there is room for";
                    ItemError::field("salt_length", problem)
                })?]
            }
        };
        Ok((hash, paddings))
    }

    fn write(&self, signature: &[u8]) -> String {
        match self.marshaling {
            Marshaling::Asn1 => BASE64.encode(signature),
            Marshaling::Fixed => BASE64URL_NOPAD.encode(signature),
        }
    }

    fn parse(&self, text: &str) -> Result<Vec<u8>, ItemError> {
        let bytes = match self.marshaling {
            Marshaling::Asn1 => BASE64.decode(text.as_bytes()),
            Marshaling::Fixed => BASE64URL_NOPAD.decode(text.as_bytes()),
        };
        bytes.map_err(|_| ItemError::field("signature", "is not base64 of the form asked for"))
    }
}

/// One message, and what it is signed or checked with.
struct Message {
    version: Arc<Version>,
    input: SecretBytes,
    /// Of a derived key.
    context: Option<Vec<u8>>,
}

/// What a message is said to be signed or authenticated by.
enum Proof {
    Signature(Vec<u8>),
    Hmac(Vec<u8>),
}

fn ed25519<'k>(
    key: &'k Ed25519Key,
    root: &SecretBytes,
    context: Option<&Vec<u8>>,
    derived: &'k mut Option<Ed25519Key>,
) -> Result<&'k Ed25519Key, ItemError> {
    let Some(context) = context else { return Ok(key) };
    let failed = |_| ItemError::new("the key cannot be derived");
    Ok(derived.insert(Ed25519Key::derive(root, context).map_err(failed)?))
}

fn sign(manner: Manner, message: &Message) -> Done {
    let failed = || ItemError::new("the message cannot be signed with this key");
    let mut public_key = None;
    let signature = match &message.version.material {
        Material::Ed25519 { key, root } => {
            let mut derived = None;
            let key = ed25519(key, root, message.context.as_ref(), &mut derived)?;
            public_key = message.context.is_some().then(|| BASE64.encode(key.public()));
            key.sign(message.input.expose()).map_err(|_| failed())?
        }
        Material::Ecdsa(key) => {
            let digest = manner.digest(&message.input)?;
            key.sign(&digest, manner.marshaling).map_err(|_| failed())?
        }
        Material::Rsa { size, key } => {
            let digest = manner.digest(&message.input)?;
            let (hash, paddings) = manner.rsa(*size)?;
            let padding = paddings.first().ok_or_else(failed)?;
            key.sign(hash, *padding, &digest).map_err(|_| failed())?
        }
        Material::Cipher { .. } | Material::Hmac => return Err(failed()),
    };
    let number = message.version.number;
    let mut map = Map::new();
    let text = batch::with_version(number, &manner.write(&signature));
    map.insert("signature".into(), json!(text));
    map.insert("key_version".into(), json!(number));
    if let Some(public_key) = public_key {
        map.insert("public_key".into(), json!(public_key));
    }
    Ok(map)
}

fn is_valid(manner: Manner, message: &Message, proof: &Proof) -> Result<bool, ItemError> {
    let signature = match proof {
        Proof::Signature(signature) => signature,
        Proof::Hmac(told) => {
            let key = message.version.hmac_key.expose();
            let mac = hmac(manner.hash, key, message.input.expose());
            return Ok(mac.as_slice().ct_eq(told).into());
        }
    };
    match &message.version.material {
        Material::Ed25519 { key, root } => {
            let mut derived = None;
            let key = ed25519(key, root, message.context.as_ref(), &mut derived)?;
            Ok(key.verify(message.input.expose(), signature))
        }
        Material::Ecdsa(key) => {
            Ok(key.verify(&manner.digest(&message.input)?, signature, manner.marshaling))
        }
        Material::Rsa { size, key } => {
            let digest = manner.digest(&message.input)?;
            let (hash, paddings) = manner.rsa(*size)?;
            Ok(paddings.into_iter().any(|padding| key.verify(hash, padding, &digest, signature)))
        }
        Material::Cipher { .. } | Material::Hmac => {
            Err(ItemError::new("keys of this type neither sign nor verify signatures"))
        }
    }
}

fn context_of(key: &OpenKey, item: &Fields) -> Result<Option<Vec<u8>>, ItemError> {
    if !key.record.derived {
        return Ok(None);
    }
    let context = batch::bytes(item, "context")?;
    if context.is_empty() {
        return Err(ItemError::field("context", "is required: the key is a derived one"));
    }
    Ok(Some(context))
}

fn takes_long(key: &OpenKey, messages: &[Result<impl AsRef<Message>, ItemError>]) -> bool {
    let bytes: usize = messages.iter().flatten().map(|one| one.as_ref().input.len()).sum();
    key.record.kind.is_slow() || messages.len() > SHORT_ITEMS || bytes > SHORT_BYTES
}

impl AsRef<Message> for Message {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// A message and what it is said to be signed by.
struct Claimed(Message, Proof);

impl AsRef<Message> for Claimed {
    fn as_ref(&self) -> &Message {
        &self.0
    }
}

impl TransitEngine {
    pub(super) async fn sign(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        from_path: &str,
        fields: Fields,
    ) -> Result<Reply, CoreError> {
        let key = self.usable(ctx, name).await?;
        if !key.record.kind.signs() {
            let kind = key.record.kind.name();
            return Err(CoreError::invalid(format!("keys of type {kind} do not sign")));
        }
        let manner = Manner::read(&fields, from_path)?;
        let wanted = fields.integer("key_version")?.unwrap_or(0);
        let (items, shape) = batch::items(fields, true)?;
        let mut read = Vec::with_capacity(items.len());
        for item in &items {
            let message = self.message_for_new(ctx, &key, wanted, item).await?;
            read.push(
                message.and_then(|message| {
                    Ok(Message { context: context_of(&key, item)?, ..message })
                }),
            );
        }
        let long = takes_long(&key, &read);
        let done = self.each(long, read, move |message| sign(manner, &message)).await?;
        batch::answer(shape, done, false)
    }

    pub(super) async fn hmac(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        from_path: &str,
        fields: Fields,
    ) -> Result<Reply, CoreError> {
        let key = self.usable(ctx, name).await?;
        let hash = hash_of(&fields, from_path)?;
        let wanted = fields.integer("key_version")?.unwrap_or(0);
        let (items, shape) = batch::items(fields, false)?;
        let mut read = Vec::with_capacity(items.len());
        for item in &items {
            read.push(self.message_for_new(ctx, &key, wanted, item).await?);
        }
        let bytes: usize = read.iter().flatten().map(|one| one.input.len()).sum();
        let long = bytes > SHORT_BYTES || read.len() > SHORT_ITEMS * SHORT_ITEMS;
        let one = move |Message { version, input, .. }| {
            let mac = hmac(hash, version.hmac_key.expose(), input.expose());
            let text = batch::with_version(version.number, &BASE64.encode(&mac));
            Ok(Map::from_iter([("hmac".to_owned(), json!(text))]))
        };
        let done = self.each(long, read, one).await?;
        batch::answer(shape, done, false)
    }

    pub(super) async fn verify(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        from_path: &str,
        fields: Fields,
    ) -> Result<Reply, CoreError> {
        let key = self.usable(ctx, name).await?;
        let manner = Manner::read(&fields, from_path)?;
        let (items, shape) = batch::items(fields, key.record.kind.is_slow())?;
        let mut read = Vec::with_capacity(items.len());
        for item in &items {
            read.push(self.claimed(ctx, &key, manner, item).await?);
        }
        let long = takes_long(&key, &read);
        let one = move |Claimed(message, proof)| {
            let valid = is_valid(manner, &message, &proof)?;
            Ok(Map::from_iter([("valid".to_owned(), Value::Bool(valid))]))
        };
        let done = self.each(long, read, one).await?;
        batch::answer(shape, done, false)
    }

    /// What an item wants signed or authenticated.
    async fn message_for_new(
        &self,
        ctx: &EngineContext<'_>,
        key: &OpenKey,
        wanted: u64,
        item: &Fields,
    ) -> Result<Result<Message, ItemError>, CoreError> {
        let read = || {
            let number = key.record.version_for_new(wanted)?;
            Ok::<_, ItemError>((number, batch::required(item, "input")?))
        };
        let (number, input) = match read() {
            Ok(read) => read,
            Err(error) => return Ok(Err(error)),
        };
        self.message(ctx, key, number, input, None).await
    }

    /// What an item wants checked.
    async fn claimed(
        &self,
        ctx: &EngineContext<'_>,
        key: &OpenKey,
        manner: Manner,
        item: &Fields,
    ) -> Result<Result<Claimed, ItemError>, CoreError> {
        let read = || {
            let input = batch::required(item, "input")?;
            let given = (item.text("signature")?, item.text("hmac")?);
            let (number, proof, context) = match given {
                (Some(_), Some(_)) => {
                    return Err(ItemError::field("hmac", "and signature exclude each other"));
                }
                (None, None) => {
                    return Err(ItemError::field("signature", "is required, or hmac"));
                }
                (Some(text), None) => {
                    let (number, rest) = batch::versioned("signature", &text)?;
                    let proof = Proof::Signature(manner.parse(rest)?);
                    (number, proof, context_of(key, item)?)
                }
                (None, Some(text)) => {
                    let (number, rest) = batch::versioned("hmac", &text)?;
                    let bytes = BASE64.decode(rest.as_bytes());
                    let bytes = bytes.map_err(|_| ItemError::field("hmac", "is not base64"))?;
                    (number, Proof::Hmac(bytes), None)
                }
            };
            key.record.check_old(number)?;
            Ok((number, input, proof, context))
        };
        let (number, input, proof, context) = match read() {
            Ok(read) => read,
            Err(error) => return Ok(Err(error)),
        };
        let message = self.message(ctx, key, number, input, context).await?;
        Ok(message.map(|message| Claimed(message, proof)))
    }

    async fn message(
        &self,
        ctx: &EngineContext<'_>,
        key: &OpenKey,
        number: u64,
        input: SecretBytes,
        context: Option<Vec<u8>>,
    ) -> Result<Result<Message, ItemError>, CoreError> {
        Ok(match self.ring.version(ctx, key, number).await? {
            Some(version) => Ok(Message { version, input, context }),
            None => Err(ItemError::new("that version of the key was trimmed away")),
        })
    }
}
