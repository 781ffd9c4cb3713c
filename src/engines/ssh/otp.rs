//! Passwords that work once: leased, looked up by their digest, gone with their first use.

use std::net::IpAddr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::role::{self, Role};
use crate::core::engine::{CallerFacts, EngineContext, IssueError, LeaseFacts, LeasePlan, Outcome};
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::records::{Batch, Precondition};
use crate::core::reply::Reply;
use crate::core::view::{Entry, PutOptions};
use crate::crypto::digest::sha256;
use crate::types::id::random_base62;
use crate::types::secret::SecretString;
use crate::types::time::Timestamp;

/// Letters and digits of a password: over 140 bits, which nobody guesses.
const PASSWORD_CHARS: usize = 24;
/// The names of leases' passwords, 128 bits as well.
const ID_CHARS: usize = 24;
/// What the helper on a machine sends to see whether it is set up, and what it wants to hear.
const ECHO_REQUEST: &str = "verify-echo-request";
const ECHO_RESPONSE: &str = "verify-echo-response";
/// Where all of them live: in our own store.
const TARGET: &str = "one-time passwords";
const ZERO_ADDRESS: &str = "zeroaddress";

/// All that issuing and revoking one password need.
#[derive(Serialize, Deserialize)]
struct LeaseData {
    /// What the password is found by without knowing it.
    id: String,
    role: String,
    ip: IpAddr,
    username: String,
    port: u16,
}

impl LeaseData {
    fn read(lease: LeaseFacts<'_>) -> Result<Self, CoreError> {
        Self::deserialize(lease.data)
            .map_err(|_| CoreError::internal("the data of a password's lease does not parse"))
    }
}

/// A password that is good, as stored below `otp/` by its digest.
#[derive(Serialize, Deserialize)]
struct PasswordRecord {
    id: String,
    role: String,
    ip: IpAddr,
    username: String,
    expires_at: Timestamp,
}

/// Leads from a lease to its password, as stored below `ids/`.
#[derive(Serialize, Deserialize)]
struct IdRecord {
    digest: String,
}

fn password_name(digest: &str) -> String {
    format!("otp/{digest}")
}

fn id_name(id: &str) -> String {
    format!("ids/{id}")
}

fn digest(password: &SecretString) -> String {
    // Unlike a password of people's making, a random one needs no more than this.
    HEXLOWER.encode(&sha256(password.expose().as_bytes()))
}

fn address(fields: &Fields) -> Result<IpAddr, CoreError> {
    let ip = fields.required_text("ip")?.parse::<IpAddr>();
    ip.map(|ip| ip.to_canonical()).map_err(|_| CoreError::field("ip", "is not an IP address"))
}

/// Plans a password for one user on one machine.
pub(super) async fn plan(
    ctx: &EngineContext<'_>,
    name: &str,
    caller: &CallerFacts,
    fields: &Fields,
) -> Result<Outcome, CoreError> {
    let role = role::load_otp(ctx, name).await?.resolved(&caller.identity);
    let ip = address(fields)?;
    let wanted = fields.text("username")?.filter(|name| !name.is_empty());
    let username = wanted.unwrap_or_else(|| role.users.default_user.clone());
    if !role.users.allow(&username) {
        return Err(CoreError::field("username", "is not one that the role allows"));
    }
    let zero_address = zero_address(ctx).await?;
    if !role.is_for(ip, zero_address.value.roles.iter().any(|role| role == name)) {
        return Err(CoreError::field("ip", "is not one of the role's machines"));
    }
    let data = LeaseData {
        id: random_base62(ID_CHARS)?,
        role: name.to_owned(),
        ip,
        username,
        port: role.port,
    };
    let data = serde_json::to_value(data)
        .map_err(|_| CoreError::internal("a plan could not be serialised"))?;
    Ok(Outcome::Issue(LeasePlan {
        ttl: role.ttl,
        max_ttl: role.max_ttl,
        renewable: false,
        role: name.to_owned(),
        target: TARGET.to_owned(),
        data,
    }))
}

/// Makes the planned password good, and answers it. Nothing else ever does.
pub(super) async fn issue(
    ctx: &EngineContext<'_>,
    lease: LeaseFacts<'_>,
) -> Result<Map<String, Value>, IssueError> {
    let data = LeaseData::read(lease).map_err(IssueError::NotBegun)?;
    let password = random_base62(PASSWORD_CHARS).map(SecretString::new);
    let password = password.map_err(|error| IssueError::NotBegun(error.into()))?;
    let digest = digest(&password);
    let record = PasswordRecord {
        id: data.id.clone(),
        role: data.role,
        ip: data.ip,
        username: data.username.clone(),
        expires_at: lease.expires_at,
    };
    let mut batch = Batch::new();
    let (absent, put) = (Precondition::Absent, PutOptions::default);
    ctx.view.put(&mut batch, &password_name(&digest), &record, absent, put())?;
    ctx.view.put(&mut batch, &id_name(&data.id), &IdRecord { digest }, absent, put())?;
    ctx.view.commit(&batch).await?;
    let mut answer = Map::new();
    answer.insert("key".into(), Value::String(password.expose().to_owned()));
    answer.insert("key_type".into(), json!("otp"));
    answer.insert("ip".into(), json!(data.ip));
    answer.insert("username".into(), json!(data.username));
    answer.insert("port".into(), json!(data.port));
    Ok(answer)
}

/// The password of a lease is no longer good, if it still was.
pub(super) async fn revoke(
    ctx: &EngineContext<'_>,
    lease: LeaseFacts<'_>,
) -> Result<(), CoreError> {
    let data = LeaseData::read(lease)?;
    let found: Option<Entry<IdRecord>> = ctx.view.get_fresh(&id_name(&data.id)).await?;
    let Some(found) = found else { return Ok(()) };
    let mut batch = Batch::new();
    ctx.view.delete(&mut batch, &id_name(&data.id), Precondition::Any);
    ctx.view.delete(&mut batch, &password_name(&found.value.digest), Precondition::Any);
    ctx.view.commit(&batch).await
}

/// Whether a password is good, and for whom and where. Whoever asks uses it up.
pub(super) async fn verify(ctx: &EngineContext<'_>, fields: &Fields) -> Result<Reply, CoreError> {
    // One answer, whether it never was, was used, or is over.
    let unknown = || CoreError::invalid("OTP not found");
    let password = fields.secret("otp")?.ok_or_else(|| CoreError::field("otp", "is required"))?;
    if password.expose() == ECHO_REQUEST {
        return Ok(Reply::data(json!({ "message": ECHO_RESPONSE })));
    }
    let name = password_name(&digest(&password));
    let found: Option<Entry<PasswordRecord>> = ctx.view.get_fresh(&name).await?;
    let found = found.ok_or_else(unknown)?;
    let mut batch = Batch::new();
    ctx.view.delete(&mut batch, &name, Precondition::Rev(found.rev));
    ctx.view.delete(&mut batch, &id_name(&found.value.id), Precondition::Any);
    match ctx.view.commit(&batch).await {
        Ok(()) => {}
        // Of two that bring it at the same time, the other was let in.
        Err(error) if error.is_conflict() => return Err(unknown()),
        Err(error) => return Err(error),
    }
    let record = found.value;
    if ctx.clock.now() >= record.expires_at {
        return Err(unknown());
    }
    Ok(Reply::data(json!({
        "ip": record.ip,
        "role_name": record.role,
        "username": record.username,
    })))
}

/// Which roles give passwords for a machine.
pub(super) async fn lookup(ctx: &EngineContext<'_>, fields: &Fields) -> Result<Reply, CoreError> {
    let ip = address(fields)?;
    let zero_address = zero_address(ctx).await?.value.roles;
    let fitting = role::all(ctx).await?.into_iter().filter_map(|(name, role)| match role {
        Role::Otp(role) if role.is_for(ip, zero_address.contains(&name)) => Some(name),
        Role::Otp(_) | Role::Ca(_) => None,
    });
    Ok(Reply::data(json!({ "roles": fitting.collect::<Vec<_>>() })))
}

/// The roles that give passwords for any machine, as stored.
#[derive(Default, Serialize, Deserialize)]
struct ZeroAddress {
    roles: Vec<String>,
}

async fn zero_address(ctx: &EngineContext<'_>) -> Result<Entry<ZeroAddress>, CoreError> {
    let entry: Option<Entry<ZeroAddress>> = ctx.view.get(ZERO_ADDRESS).await?;
    Ok(entry.unwrap_or(Entry { value: ZeroAddress::default(), rev: 0, due_at: None }))
}

pub(super) async fn write_zero_address(
    ctx: &EngineContext<'_>,
    fields: &Fields,
) -> Result<Reply, CoreError> {
    let roles = fields.list("roles")?.filter(|roles| !roles.is_empty());
    let roles = roles.ok_or_else(|| CoreError::field("roles", "is required"))?;
    for name in &roles {
        role::load_otp(ctx, name).await?;
    }
    ctx.view.write(ZERO_ADDRESS, &ZeroAddress { roles }, Precondition::Any).await?;
    Ok(Reply::empty())
}

pub(super) async fn read_zero_address(ctx: &EngineContext<'_>) -> Result<Reply, CoreError> {
    let roles = zero_address(ctx).await?.value.roles;
    if roles.is_empty() {
        Err(CoreError::NotFound)
    } else {
        Ok(Reply::data(json!({ "roles": roles })))
    }
}

pub(super) async fn remove_zero_address(ctx: &EngineContext<'_>) -> Result<Reply, CoreError> {
    ctx.view.remove(ZERO_ADDRESS).await?;
    Ok(Reply::empty())
}

/// Takes a role off that list, when it is there.
pub(super) async fn forget_zero_address(
    ctx: &EngineContext<'_>,
    batch: &mut Batch,
    name: &str,
) -> Result<(), CoreError> {
    let entry: Option<Entry<ZeroAddress>> = ctx.view.get_fresh(ZERO_ADDRESS).await?;
    let Some(Entry { value: ZeroAddress { mut roles }, rev, .. }) = entry else { return Ok(()) };
    if !roles.iter().any(|role| role == name) {
        return Ok(());
    }
    roles.retain(|role| role != name);
    let (rest, expected) = (ZeroAddress { roles }, Precondition::Rev(rev));
    ctx.view.put(batch, ZERO_ADDRESS, &rest, expected, PutOptions::default())
}
