//! Certificates that are taken back, by a list that `sshd` reads (`RevokedKeys`).
//!
//! Nothing is stored of a certificate when it is signed, so that signing costs no write. What is stored
//! is one moment by which all that were signed have ended, moved on an hour at a time: a revoked
//! serial number can be forgotten after it. A revoked key id stays until somebody takes it off the
//! list, and none is signed with it meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{SshEngine, allowed, ca};
use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::reply::{Reply, Shape};
use crate::core::view::Entry;
use crate::crypto::ssh::{SshPublicKey, SshRevoked, ssh_revocation_list};
use crate::types::secret::SecretBytes;
use crate::types::time::{Timestamp, Ttl};

const RECORD: &str = "revoked";
const HORIZON: &str = "horizon";
/// Most serial numbers and key ids together: `sshd` reads the whole list at every log-in.
const ENTRIES_MAX: usize = 10_000;
/// How far the horizon is moved at a time.
const HORIZON_STEP: Ttl = Ttl::from_secs(3600);
/// How often a change is tried while others change the same.
const ATTEMPTS: usize = 32;

/// What is revoked, as stored.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Revoked {
    /// Counts the changes.
    version: u64,
    changed_at: Option<Timestamp>,
    /// By the public half of the key that signed.
    authorities: BTreeMap<String, Authority>,
}

#[derive(Default, Serialize, Deserialize)]
struct Authority {
    /// Until when each has to be on the list.
    serials: BTreeMap<u64, Timestamp>,
    key_ids: BTreeSet<String>,
}

impl Revoked {
    /// Whether certificates with this key id, signed by that key, are revoked.
    pub(super) fn has_key_id(&self, authority: &str, key_id: &str) -> bool {
        self.authorities.get(authority).is_some_and(|one| one.key_ids.contains(key_id))
    }

    fn entries(&self) -> usize {
        self.authorities.values().map(|one| one.serials.len() + one.key_ids.len()).sum()
    }

    /// Forgets the certificates that have ended, and authorities of which nothing is left.
    fn prune(&mut self, now: Timestamp) {
        for authority in self.authorities.values_mut() {
            authority.serials.retain(|_, until| *until > now);
        }
        self.authorities.retain(|_, one| !one.serials.is_empty() || !one.key_ids.is_empty());
    }

    fn list(&self) -> Result<Vec<u8>, CoreError> {
        let parse = |line: &String| {
            let broken = |_| CoreError::internal("a stored authority is not a public key");
            SshPublicKey::parse(line).map_err(broken)
        };
        let keys = self.authorities.keys().map(parse).collect::<Result<Vec<_>, _>>()?;
        let sections = keys.iter().zip(self.authorities.values());
        let sections = sections.map(|(authority, one)| SshRevoked {
            authority,
            serials: one.serials.keys().copied().collect(),
            key_ids: one.key_ids.iter().map(String::as_str).collect(),
        });
        let made_at = self.changed_at.unwrap_or(Timestamp::from_secs(0));
        Ok(ssh_revocation_list(self.version, made_at, &sections.collect::<Vec<_>>()))
    }
}

/// What is revoked, and the list of it.
pub(super) struct Standing {
    pub(super) revoked: Revoked,
    list: Vec<u8>,
}

/// The standing that was read last, with the body it was read of.
pub(super) type Remembered = Option<(Arc<SecretBytes>, Arc<Standing>)>;

/// What somebody wants on the list, or off it.
enum Wanted {
    KeyId(String),
    Serial(u64),
}

impl Wanted {
    fn read(fields: &Fields) -> Result<Self, CoreError> {
        let given = |name| fields.text(name).map(|text| text.filter(|text| !text.is_empty()));
        let number = |text: &str, radix, field| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
            let number = u64::from_str_radix(text, radix).ok().filter(|number| *number > 0);
            number
                .filter(|_| digits)
                .map(Self::Serial)
                .ok_or_else(|| CoreError::field(field, "is not the serial number of a certificate"))
        };
        match (given("serial_number")?, given("serial")?, given("key_id")?) {
            (Some(hex), None, None) => number(&hex, 16, "serial_number"),
            (None, Some(decimal), None) => number(&decimal, 10, "serial"),
            (None, None, Some(id)) if allowed::is_value(&id) && !id.contains(',') => {
                Ok(Self::KeyId(id))
            }
            (None, None, Some(_)) => {
                Err(CoreError::field("key_id", "must be text of one line without commas"))
            }
            (None, None, None) => {
                Err(CoreError::field("serial_number", "is required, or serial, or key_id"))
            }
            (_, _, _) => {
                Err(CoreError::field("serial_number", "excludes serial and key_id: one at a time"))
            }
        }
    }
}

/// The authority that a request is about: the present one, unless it names another.
async fn authority(ctx: &EngineContext<'_>, fields: &Fields) -> Result<String, CoreError> {
    match fields.text("public_key")?.filter(|line| !line.is_empty()) {
        Some(line) => SshPublicKey::parse(&line)
            .map(|key| key.to_line())
            .map_err(|error| CoreError::field("public_key", error.to_string())),
        None => Ok(ca::load(ctx).await?.public_key().to_owned()),
    }
}

/// By when every certificate that was signed so far has ended.
async fn horizon(ctx: &EngineContext<'_>) -> Result<Timestamp, CoreError> {
    let stored: Option<Entry<Timestamp>> = ctx.view.get_fresh(HORIZON).await?;
    Ok(stored.map_or_else(|| first_horizon(ctx), |entry| entry.value))
}

/// The same, when nothing was written down yet.
fn first_horizon(ctx: &EngineContext<'_>) -> Timestamp {
    ctx.clock.now().plus(ctx.mount.max_ttl)
}

/// Writes down that a certificate that ends at `end` is about to be signed.
pub(super) async fn extend_horizon(
    ctx: &EngineContext<'_>,
    end: Timestamp,
) -> Result<(), CoreError> {
    let mut stored: Option<Entry<Timestamp>> = ctx.view.get(HORIZON).await?;
    for _ in 0..ATTEMPTS {
        let before = stored.as_ref().map_or_else(|| first_horizon(ctx), |entry| entry.value);
        if stored.is_some() && before >= end {
            return Ok(());
        }
        let after = before.max(end).plus(HORIZON_STEP);
        match ctx.view.write(HORIZON, &after, Entry::expected(stored.as_ref())).await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_conflict() => stored = ctx.view.get_fresh(HORIZON).await?,
            Err(error) => return Err(error),
        }
    }
    Err(CoreError::Overloaded { retry_after: Ttl::from_secs(1) })
}

impl SshEngine {
    /// What is revoked. Read again when any node has changed it.
    pub(super) async fn standing(
        &self,
        ctx: &EngineContext<'_>,
    ) -> Result<Arc<Standing>, CoreError> {
        let Some(record) = ctx.view.get_record(RECORD).await? else {
            let revoked = Revoked::default();
            return Ok(Arc::new(Standing { list: revoked.list()?, revoked }));
        };
        let remembered = self.revoked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((body, standing)) = remembered
            && Arc::ptr_eq(&body, &record.body)
        {
            return Ok(standing);
        }
        let revoked: Revoked = record.decode()?;
        let standing = Arc::new(Standing { list: revoked.list()?, revoked });
        let remembered = Some((record.body, standing.clone()));
        *self.revoked.lock().unwrap_or_else(PoisonError::into_inner) = remembered;
        Ok(standing)
    }

    /// The list, for anybody.
    pub(super) async fn revocation_list(
        &self,
        ctx: &EngineContext<'_>,
    ) -> Result<Reply, CoreError> {
        let body = self.standing(ctx).await?.list.clone();
        Ok(Reply::empty().shaped(Shape::Raw { content_type: "application/octet-stream", body }))
    }

    /// What is on it, for administrators.
    pub(super) async fn read_revoked(&self, ctx: &EngineContext<'_>) -> Result<Reply, CoreError> {
        let standing = self.standing(ctx).await?;
        let one = |(public_key, authority): (&String, &Authority)| {
            let serials = authority.serials.keys().map(|serial| format!("{serial:016x}"));
            json!({
                "public_key": public_key,
                "serial_numbers": serials.collect::<Vec<_>>(),
                "key_ids": authority.key_ids,
            })
        };
        let authorities: Vec<Value> = standing.revoked.authorities.iter().map(one).collect();
        Ok(Reply::data(json!({
            "version": standing.revoked.version,
            "authorities": authorities,
        })))
    }
}

/// Puts a certificate, or all with one key id, on the list.
pub(super) async fn revoke(ctx: &EngineContext<'_>, fields: &Fields) -> Result<Reply, CoreError> {
    let (wanted, authority) = (Wanted::read(fields)?, authority(ctx, fields).await?);
    let until = horizon(ctx).await?;
    change(ctx, |revoked| {
        let one = revoked.authorities.entry(authority.clone()).or_default();
        let is_new = match &wanted {
            Wanted::KeyId(id) => one.key_ids.insert(id.clone()),
            Wanted::Serial(serial) => one.serials.insert(*serial, until).is_none(),
        };
        if revoked.entries() > ENTRIES_MAX {
            return Err(CoreError::invalid(
                "the list is full: take key ids off it, or make a new signing key",
            ));
        }
        Ok(is_new)
    })
    .await
}

/// Takes it off again.
pub(super) async fn unrevoke(ctx: &EngineContext<'_>, fields: &Fields) -> Result<Reply, CoreError> {
    let (wanted, authority) = (Wanted::read(fields)?, authority(ctx, fields).await?);
    change(ctx, |revoked| {
        let one = revoked.authorities.get_mut(&authority);
        Ok(one.is_some_and(|one| match &wanted {
            Wanted::KeyId(id) => one.key_ids.remove(id),
            Wanted::Serial(serial) => one.serials.remove(serial).is_some(),
        }))
    })
    .await
}

/// Changes the list as `edit` says, which answers whether anything is different.
async fn change(
    ctx: &EngineContext<'_>,
    edit: impl Fn(&mut Revoked) -> Result<bool, CoreError>,
) -> Result<Reply, CoreError> {
    for _ in 0..ATTEMPTS {
        let before: Option<Entry<Revoked>> = ctx.view.get_fresh(RECORD).await?;
        let expected = Entry::expected(before.as_ref());
        let mut revoked = before.map(|entry| entry.value).unwrap_or_default();
        let now = ctx.clock.now();
        revoked.prune(now);
        if !edit(&mut revoked)? {
            return Ok(answer(&revoked).warn("the list is as it was"));
        }
        revoked.version = revoked.version.saturating_add(1);
        revoked.changed_at = Some(now);
        revoked.prune(now);
        match ctx.view.write(RECORD, &revoked, expected).await {
            Ok(()) => return Ok(answer(&revoked)),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error),
        }
    }
    Err(CoreError::Overloaded { retry_after: Ttl::from_secs(1) })
}

fn answer(revoked: &Revoked) -> Reply {
    Reply::data(json!({ "version": revoked.version }))
}
