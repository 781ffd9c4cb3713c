//! Secret IDs: kept as keyed hashes, counted where the store says so, and gone when they are over.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::records::{Batch, Precondition};
use crate::core::token::{address_allowed, cidrs};
use crate::core::view::{Entry, PutOptions};
use crate::types::id::random_uuid;
use crate::types::secret::SecretString;
use crate::types::time::{Timestamp, Ttl};

use super::role::Role;

/// How often a use is tried again when the same secret ID is used elsewhere meanwhile.
const ATTEMPTS: usize = 64;
/// Most notes on one secret ID.
const METADATA_MAX: usize = 64;
/// Longest note, key and value together, in bytes.
const METADATA_BYTES_MAX: usize = 1024;
/// Longest secret ID of one's own choice, in bytes.
const SECRET_ID_BYTES_MAX: usize = 1024;
/// What stock servers show for "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

/// A secret ID, as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SecretId {
    accessor: String,
    created_at: Timestamp,
    updated_at: Timestamp,
    expires_at: Option<Timestamp>,
    ttl: Ttl,
    /// `None` for no limit.
    uses_left: Option<u64>,
    pub(super) metadata: BTreeMap<String, String>,
    cidr_list: Vec<String>,
    pub(super) token_bound_cidrs: Vec<String>,
}

/// What leads from an accessor to its secret ID.
#[derive(Serialize, Deserialize)]
struct Pointer {
    hash: String,
}

/// What `text` is stored under: the hash that tokens are kept as. No token has a line break, so none
/// has the hash of a secret ID.
pub(super) fn keyed(ctx: &EngineContext<'_>, what: &str, text: &str) -> String {
    let key = ctx.view.records().keyring().token_hash_key();
    let text = SecretString::new(format!("approle {what}\n{text}"));
    key.hash(text.expose()).to_hex()
}

fn secret_at(role_key: &str, hash: &str) -> String {
    format!("secret/{role_key}/{hash}")
}

fn accessor_at(role_key: &str, accessor: &str) -> String {
    format!("accessor/{role_key}/{accessor}")
}

/// Where the secret ID of a role is stored.
pub(super) fn hash_of(ctx: &EngineContext<'_>, role_key: &str, secret: &SecretString) -> String {
    // With the role's key, so that the same text chosen for two roles makes two hashes.
    let text = SecretString::new(format!("{role_key}\n{}", secret.expose()));
    keyed(ctx, "secret", text.expose())
}

impl SecretId {
    /// A secret ID for `role`, as `fields` narrow it.
    fn read(fields: &Fields, role: &Role, now: Timestamp) -> Result<Self, CoreError> {
        let most = role.secret_id_num_uses;
        let uses = fields.integer("num_uses")?.unwrap_or(most);
        if most > 0 && (uses == 0 || uses > most) {
            return Err(CoreError::field("num_uses", "is more than the role's secret_id_num_uses"));
        }
        let longest = role.secret_id_ttl;
        let ttl = fields.duration("ttl")?.unwrap_or(longest);
        if !longest.is_zero() && (ttl.is_zero() || ttl > longest) {
            return Err(CoreError::field("ttl", "is longer than the role's secret_id_ttl"));
        }
        Ok(Self {
            accessor: random_uuid()?,
            created_at: now,
            updated_at: now,
            expires_at: (!ttl.is_zero()).then(|| now.plus(ttl)),
            ttl,
            uses_left: (uses > 0).then_some(uses),
            metadata: metadata(fields)?,
            cidr_list: narrowed(fields, "cidr_list", &role.secret_id_bound_cidrs)?,
            token_bound_cidrs: narrowed(fields, "token_bound_cidrs", &role.token.bound_cidrs)?,
        })
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now) || self.uses_left == Some(0)
    }

    /// As it is answered to whoever looks it up.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "cidr_list": self.cidr_list,
            "creation_time": self.created_at.to_rfc3339(),
            "expiration_time": self.expires_at.map_or(NEVER.to_owned(), |end| end.to_rfc3339()),
            "last_updated_time": self.updated_at.to_rfc3339(),
            "metadata": self.metadata,
            "secret_id_accessor": self.accessor,
            "secret_id_num_uses": self.uses_left.unwrap_or(0),
            "secret_id_ttl": self.ttl,
            "token_bound_cidrs": self.token_bound_cidrs,
        })
    }
}

fn metadata(fields: &Fields) -> Result<BTreeMap<String, String>, CoreError> {
    let problem = || CoreError::field("metadata", "must be an object of strings, or one as text");
    let notes: BTreeMap<String, String> = match fields.get("metadata") {
        None => BTreeMap::new(),
        // Stock clients send JSON inside of a string.
        Some(Value::String(text)) if text.is_empty() => BTreeMap::new(),
        Some(Value::String(text)) => serde_json::from_str(text).map_err(|_| problem())?,
        Some(_) => fields.string_map("metadata")?.unwrap_or_default(),
    };
    let too_long = |(key, value): (&String, &String)| key.len() + value.len() > METADATA_BYTES_MAX;
    if notes.len() > METADATA_MAX || notes.iter().any(too_long) {
        let problem = "has more than 64 elements, or one beyond 1024 bytes";
        return Err(CoreError::field("metadata", problem));
    }
    Ok(notes)
}

/// The networks of a field, which must lie within those of the role when it has any.
fn narrowed(fields: &Fields, name: &str, role: &[String]) -> Result<Vec<String>, CoreError> {
    let list = cidrs(name, &fields.list(name)?.unwrap_or_default())?;
    let outer: Vec<IpNet> = role.iter().filter_map(|text| text.parse().ok()).collect();
    let within = |text: &String| {
        text.parse::<IpNet>().is_ok_and(|inner| outer.iter().any(|outer| outer.contains(&inner)))
    };
    if !role.is_empty() && !list.iter().all(within) {
        return Err(CoreError::field(name, "lies outside of the role's addresses"));
    }
    Ok(list)
}

/// Makes a secret ID, `chosen` or a random one, and answers with it.
///
/// # Errors
/// What the role does not allow, or a chosen one that is there already.
pub(super) async fn make(
    ctx: &EngineContext<'_>,
    role: &Role,
    fields: &Fields,
    chosen: Option<SecretString>,
) -> Result<Value, CoreError> {
    if !role.bind_secret_id {
        return Err(CoreError::invalid("bind_secret_id is not set on the role"));
    }
    let plain = match chosen {
        Some(chosen) if chosen.expose().len() > SECRET_ID_BYTES_MAX => {
            return Err(CoreError::field("secret_id", "is longer than 1024 bytes"));
        }
        Some(chosen) => chosen,
        None => SecretString::new(random_uuid()?),
    };
    let entry = SecretId::read(fields, role, ctx.clock.now())?;
    let hash = hash_of(ctx, &role.key, &plain);
    let (at, absent) = (secret_at(&role.key, &hash), Precondition::Absent);
    if let Some(found) = ctx.view.get_fresh::<SecretId>(&at).await? {
        if !found.value.is_over(ctx.clock.now()) {
            return Err(CoreError::field("secret_id", "is registered already"));
        }
        discard(ctx, &role.key, &hash, &found).await?;
    }
    let mut batch = Batch::new();
    ctx.view.put(&mut batch, &at, &entry, absent, PutOptions::default())?;
    let pointer = Pointer { hash };
    let pointer_at = accessor_at(&role.key, &entry.accessor);
    ctx.view.put(&mut batch, &pointer_at, &pointer, absent, PutOptions::default())?;
    ctx.view.commit(&batch).await?;
    Ok(json!({
        "secret_id": plain.expose(),
        "secret_id_accessor": entry.accessor,
        "secret_id_num_uses": entry.uses_left.unwrap_or(0),
        "secret_id_ttl": entry.ttl,
    }))
}

/// Takes one use of the secret ID under `hash`. The conditional write is the check, so of parallel
/// uses of the last one, on whichever nodes, exactly one succeeds.
///
/// # Errors
/// `Denied` when it is not there, over, or bound to other addresses (or its tokens are: its own, else
/// `token_cidrs`), and when the log-in is `locked`; nothing is taken then.
pub(super) async fn take(
    ctx: &EngineContext<'_>,
    role_key: &str,
    hash: &str,
    token_cidrs: &[String],
    remote: IpAddr,
    locked: bool,
) -> Result<SecretId, CoreError> {
    let at = secret_at(role_key, hash);
    for _ in 0..ATTEMPTS {
        let found = ctx.view.get_fresh::<SecretId>(&at).await?;
        let found = found.ok_or_else(|| CoreError::denied("the role has no such secret ID"))?;
        let now = ctx.clock.now();
        if found.value.is_over(now) {
            discard(ctx, role_key, hash, &found).await?;
            return Err(CoreError::denied("the secret ID has expired"));
        }
        if !address_allowed(&found.value.cidr_list, remote) {
            return Err(CoreError::denied("the secret ID is bound to other addresses"));
        }
        let own = &found.value.token_bound_cidrs;
        // What the core would refuse later must not cost a use.
        if !address_allowed(if own.is_empty() { token_cidrs } else { own }, remote) {
            return Err(CoreError::denied("the tokens are bound to other addresses"));
        }
        if locked {
            return Err(CoreError::denied("locked"));
        }
        let Some(left) = found.value.uses_left else { return Ok(found.value) };
        let mut used = found.value.clone();
        used.uses_left = Some(left.saturating_sub(1));
        used.updated_at = now;
        let mut batch = Batch::new();
        let precondition = Precondition::Rev(found.rev);
        if left <= 1 {
            ctx.view.delete(&mut batch, &at, precondition);
            let pointer = accessor_at(role_key, &used.accessor);
            ctx.view.delete(&mut batch, &pointer, Precondition::Any);
        } else {
            ctx.view.put(&mut batch, &at, &used, precondition, PutOptions::default())?;
        }
        match ctx.view.commit(&batch).await {
            Ok(()) => return Ok(used),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error),
        }
    }
    Err(CoreError::Overloaded { retry_after: Ttl::from_secs(1) })
}

/// The hash behind an accessor.
pub(super) async fn behind(
    ctx: &EngineContext<'_>,
    role_key: &str,
    accessor: &str,
) -> Result<Option<String>, CoreError> {
    if accessor.is_empty() || accessor.contains('/') {
        return Ok(None);
    }
    let pointer = ctx.view.get_fresh::<Pointer>(&accessor_at(role_key, accessor)).await?;
    Ok(pointer.map(|pointer| pointer.value.hash))
}

/// The secret ID under `hash`, unless it is over.
pub(super) async fn find(
    ctx: &EngineContext<'_>,
    role_key: &str,
    hash: &str,
) -> Result<Option<SecretId>, CoreError> {
    let found = ctx.view.get_fresh::<SecretId>(&secret_at(role_key, hash)).await?;
    let now = ctx.clock.now();
    Ok(found.map(|found| found.value).filter(|found| !found.is_over(now)))
}

/// Ends the secret ID under `hash`; one that is not there is no error.
pub(super) async fn destroy(
    ctx: &EngineContext<'_>,
    role_key: &str,
    hash: &str,
) -> Result<(), CoreError> {
    let at = secret_at(role_key, hash);
    for _ in 0..ATTEMPTS {
        let Some(found) = ctx.view.get_fresh::<SecretId>(&at).await? else { return Ok(()) };
        if discard(ctx, role_key, hash, &found).await? {
            return Ok(());
        }
    }
    Err(CoreError::Overloaded { retry_after: Ttl::from_secs(1) })
}

/// Removes a secret ID as it was read. False when it was changed meanwhile.
async fn discard(
    ctx: &EngineContext<'_>,
    role_key: &str,
    hash: &str,
    found: &Entry<SecretId>,
) -> Result<bool, CoreError> {
    let mut batch = Batch::new();
    ctx.view.delete(&mut batch, &secret_at(role_key, hash), Precondition::Rev(found.rev));
    let pointer = accessor_at(role_key, &found.value.accessor);
    ctx.view.delete(&mut batch, &pointer, Precondition::Any);
    match ctx.view.commit(&batch).await {
        Ok(()) => Ok(true),
        Err(error) if error.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}

/// The accessors of a role's secret IDs.
pub(super) async fn accessors(
    ctx: &EngineContext<'_>,
    role_key: &str,
) -> Result<Vec<String>, CoreError> {
    ctx.view.list(&accessor_at(role_key, "")).await
}

/// Removes everything that a role's secret IDs have left.
pub(super) async fn remove_all(ctx: &EngineContext<'_>, role_key: &str) -> Result<(), CoreError> {
    ctx.view.remove_tree(&secret_at(role_key, "")).await?;
    ctx.view.remove_tree(&accessor_at(role_key, "")).await
}

/// Removes what is over, and what a deletion that was interrupted has left behind.
pub(super) async fn tidy(ctx: &EngineContext<'_>) -> Result<(), CoreError> {
    let mut keys = BTreeSet::new();
    for dir in ["secret/", "accessor/"] {
        let names = ctx.view.list(dir).await?;
        keys.extend(names.iter().map(|name| name.trim_end_matches('/').to_owned()));
    }
    // Read after the keys, so that a role that is new meanwhile is not taken for one that is gone.
    let roles = ctx.view.entries::<Role>("role/").await?;
    let live: BTreeSet<&str> = roles.iter().map(|(_, role)| role.value.key.as_str()).collect();
    for key in &keys {
        if !live.contains(key.as_str()) {
            remove_all(ctx, key).await?;
            continue;
        }
        let dir = secret_at(key, "");
        for (name, found) in ctx.view.entries::<SecretId>(&dir).await? {
            if found.value.is_over(ctx.clock.now()) {
                discard(ctx, key, name.strip_prefix(&dir).unwrap_or(&name), &found).await?;
            }
        }
    }
    Ok(())
}
