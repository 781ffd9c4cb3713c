//! Roles.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{allowed, otp};
use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::records::{Batch, Precondition};
use crate::core::reply::Reply;
use crate::core::view::Entry;
use crate::crypto::ssh::{SSH_RSA_BITS_MIN, SshKind, SshRsaSignature};
use crate::types::time::Ttl;

const DIRECTORY: &str = "roles/";
/// Stands for everything in a list.
pub(super) const ANY: &str = "*";
/// How long before now certificates begin when nothing is said: clocks differ.
const NOT_BEFORE_DEFAULT: Ttl = Ttl::from_secs(30);
/// Longest time before now.
const NOT_BEFORE_MAX: Ttl = Ttl::from_secs(24 * 3600);
const KEY_ID_FORMAT_DEFAULT: &str = "leasehold-{{token_display_name}}-{{public_key_hash}}";
const SSH_PORT: u16 = 22;

/// A role, as stored below `roles/`.
#[derive(Serialize, Deserialize)]
#[serde(tag = "key_type", rename_all = "snake_case")]
pub(super) enum Role {
    Ca(Box<CaRole>),
    Otp(OtpRole),
}

/// Who may get which certificate.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct CaRole {
    pub user_certificates: bool,
    pub host_certificates: bool,
    pub allowed_users: Vec<String>,
    pub default_user: String,
    /// In lower case.
    pub allowed_domains: Vec<String>,
    pub bare_domains: bool,
    pub subdomains: bool,
    pub allowed_critical_options: Vec<String>,
    pub default_critical_options: BTreeMap<String, String>,
    pub allowed_extensions: Vec<String>,
    pub default_extensions: BTreeMap<String, String>,
    /// By kind of key; empty for all that are strong.
    pub key_lengths: BTreeMap<String, Vec<u64>>,
    pub user_key_ids: bool,
    pub key_id_format: String,
    pub rsa_sha256: bool,
    pub not_before: Ttl,
    pub ttl: Ttl,
    pub max_ttl: Ttl,
}

/// Who may get passwords for which machines.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct OtpRole {
    pub default_user: String,
    pub allowed_users: Vec<String>,
    pub cidrs: Vec<String>,
    pub excluded_cidrs: Vec<String>,
    pub port: u16,
    pub ttl: Ttl,
    pub max_ttl: Ttl,
}

/// The name of the record of a role.
pub(super) fn record_name(name: &str) -> String {
    format!("{DIRECTORY}{name}")
}

/// A list of plain names; `*` only where it may stand for all.
fn names(fields: &Fields, field: &'static str, any: bool) -> Result<Vec<String>, CoreError> {
    let list = fields.list(field)?.unwrap_or_default();
    let sound = |name: &String| allowed::is_plain(name) || (any && name == ANY);
    if list.iter().all(sound) {
        Ok(list)
    } else {
        Err(CoreError::field(field, "holds something that is not a plain name"))
    }
}

fn cidrs(fields: &Fields, field: &'static str) -> Result<Vec<String>, CoreError> {
    let list = fields.list(field)?.unwrap_or_default();
    let parse = |text: String| {
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        net.map(|net| net.trunc().to_string())
            .map_err(|_| CoreError::field(field, "must be a list of CIDRs"))
    };
    list.into_iter().map(parse).collect()
}

fn contains(cidrs: &[String], ip: IpAddr) -> bool {
    cidrs.iter().filter_map(|cidr| cidr.parse::<IpNet>().ok()).any(|net| net.contains(&ip))
}

fn text(fields: &Fields, field: &'static str) -> Result<String, CoreError> {
    Ok(fields.text(field)?.unwrap_or_default())
}

fn flag(fields: &Fields, field: &'static str) -> Result<bool, CoreError> {
    Ok(fields.boolean(field)?.unwrap_or(false))
}

/// The user when the caller names none, who may be missing.
fn default_user(fields: &Fields) -> Result<String, CoreError> {
    let user = text(fields, "default_user")?;
    if user.is_empty() || allowed::is_plain(&user) {
        Ok(user)
    } else {
        Err(CoreError::field("default_user", "is not a plain name"))
    }
}

fn lifetimes(fields: &Fields) -> Result<(Ttl, Ttl), CoreError> {
    let ttl = fields.duration("ttl")?.unwrap_or(Ttl::ZERO);
    let max_ttl = fields.duration("max_ttl")?.unwrap_or(Ttl::ZERO);
    if !max_ttl.is_zero() && ttl > max_ttl {
        return Err(CoreError::field("ttl", "is longer than max_ttl"));
    }
    Ok((ttl, max_ttl))
}

impl Role {
    fn of(fields: &Fields) -> Result<Self, CoreError> {
        for unsupported in [
            "allowed_users_template",
            "allowed_domains_template",
            "default_user_template",
            "default_extensions_template",
            "allow_empty_principals",
        ] {
            if flag(fields, unsupported)? {
                return Err(CoreError::field(unsupported, "is not supported and must be false"));
            }
        }
        match fields.required_text("key_type")?.as_str() {
            "ca" => Ok(Self::Ca(Box::new(CaRole::of(fields)?))),
            "otp" => OtpRole::of(fields).map(Self::Otp),
            _ => Err(CoreError::field("key_type", "must be ca or otp")),
        }
    }

    fn description(&self) -> Value {
        match self {
            Self::Ca(role) => role.description(),
            Self::Otp(role) => role.description(),
        }
    }
}

impl CaRole {
    fn of(fields: &Fields) -> Result<Self, CoreError> {
        let (ttl, max_ttl) = lifetimes(fields)?;
        let role = Self {
            user_certificates: flag(fields, "allow_user_certificates")?,
            host_certificates: flag(fields, "allow_host_certificates")?,
            allowed_users: names(fields, "allowed_users", true)?,
            default_user: default_user(fields)?,
            allowed_domains: names(fields, "allowed_domains", true)?
                .into_iter()
                .map(|domain| domain.to_ascii_lowercase())
                .collect(),
            bare_domains: flag(fields, "allow_bare_domains")?,
            subdomains: flag(fields, "allow_subdomains")?,
            allowed_critical_options: names(fields, "allowed_critical_options", false)?,
            default_critical_options: options(fields, "default_critical_options")?,
            allowed_extensions: names(fields, "allowed_extensions", true)?,
            default_extensions: options(fields, "default_extensions")?,
            key_lengths: key_lengths(fields)?,
            user_key_ids: flag(fields, "allow_user_key_ids")?,
            key_id_format: match text(fields, "key_id_format")? {
                format if format.is_empty() => KEY_ID_FORMAT_DEFAULT.to_owned(),
                format => format,
            },
            rsa_sha256: match text(fields, "algorithm_signer")?.as_str() {
                "" | "default" | "rsa-sha2-512" => false,
                "rsa-sha2-256" => true,
                _ => {
                    let problem = "must be default, rsa-sha2-512 or rsa-sha2-256";
                    return Err(CoreError::field("algorithm_signer", problem));
                }
            },
            not_before: fields.duration("not_before_duration")?.unwrap_or(NOT_BEFORE_DEFAULT),
            ttl,
            max_ttl,
        };
        if !role.user_certificates && !role.host_certificates {
            let problem = "or allow_host_certificates must be true: the role would sign nothing";
            return Err(CoreError::field("allow_user_certificates", problem));
        }
        if role.not_before > NOT_BEFORE_MAX {
            return Err(CoreError::field("not_before_duration", "must be a day at most"));
        }
        allowed::check_key_id_format(&role.key_id_format)?;
        Ok(role)
    }

    /// How RSA signing keys sign.
    pub(super) const fn rsa_signature(&self) -> SshRsaSignature {
        if self.rsa_sha256 { SshRsaSignature::Sha256 } else { SshRsaSignature::Sha512 }
    }

    /// Refuses keys of a kind or length that the role does not name, when it names any.
    pub(super) fn check_key(&self, kind: SshKind) -> Result<(), CoreError> {
        let (family, bits) = match kind {
            SshKind::Rsa(bits) => ("rsa", u64::try_from(bits).unwrap_or(u64::MAX)),
            SshKind::Ecdsa(curve) => ("ec", curve.bits()),
            SshKind::Ed25519 => ("ed25519", 0),
            SshKind::SkEcdsa | SshKind::SkEd25519 => (kind.algorithm(), 0),
        };
        let named = self.key_lengths.get(family).or_else(|| self.key_lengths.get(kind.algorithm()));
        let fits = match named {
            Some(lengths) => lengths.contains(&bits) || (family != "rsa" && lengths.contains(&0)),
            None => self.key_lengths.is_empty(),
        };
        if fits {
            Ok(())
        } else {
            Err(CoreError::field(
                "public_key",
                "is of a kind or length that the role does not allow",
            ))
        }
    }

    fn description(&self) -> Value {
        json!({
            "key_type": "ca",
            "algorithm_signer": if self.rsa_sha256 { "rsa-sha2-256" } else { "rsa-sha2-512" },
            "allow_bare_domains": self.bare_domains,
            "allow_host_certificates": self.host_certificates,
            "allow_subdomains": self.subdomains,
            "allow_user_certificates": self.user_certificates,
            "allow_user_key_ids": self.user_key_ids,
            "allowed_critical_options": self.allowed_critical_options.join(","),
            "allowed_domains": self.allowed_domains.join(","),
            "allowed_extensions": self.allowed_extensions.join(","),
            "allowed_user_key_lengths": self.key_lengths,
            "allowed_users": self.allowed_users.join(","),
            "default_critical_options": self.default_critical_options,
            "default_extensions": self.default_extensions,
            "default_user": self.default_user,
            "key_id_format": self.key_id_format,
            "max_ttl": self.max_ttl.as_secs(),
            "not_before_duration": self.not_before.as_secs(),
            "ttl": self.ttl.as_secs(),
        })
    }
}

/// Options or extensions with their values.
fn options(fields: &Fields, field: &'static str) -> Result<BTreeMap<String, String>, CoreError> {
    let options = fields.string_map(field)?.unwrap_or_default();
    if options.iter().all(|(name, value)| allowed::is_plain(name) && allowed::is_value(value)) {
        Ok(options)
    } else {
        Err(CoreError::field(field, "holds a name that is not plain, or a value of several lines"))
    }
}

/// Kinds of keys with their lengths, each a number or a list of numbers.
fn key_lengths(fields: &Fields) -> Result<BTreeMap<String, Vec<u64>>, CoreError> {
    const FIELD: &str = "allowed_user_key_lengths";
    let bad = |problem: &str| CoreError::field(FIELD, problem);
    let mut found = BTreeMap::new();
    for (kind, value) in fields.object(FIELD)?.into_iter().flatten() {
        let one = |value: &Value| match value {
            Value::String(text) => text.trim().parse().ok(),
            Value::Number(number) => number.as_u64(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        let lengths: Option<Vec<u64>> = match value.as_array() {
            Some(list) => list.iter().map(one).collect(),
            None => one(value).map(|length| vec![length]),
        };
        let lengths = lengths.ok_or_else(|| bad("must be whole numbers, or lists of them"))?;
        let (name, known): (&str, &[u64]) = match kind.as_str() {
            "rsa" | "ssh-rsa" => ("rsa", &[]),
            "ec" | "ecdsa" => ("ec", &[0, 256, 384, 521]),
            "ed25519" | "ssh-ed25519" => ("ed25519", &[0, 256]),
            exact @ ("ecdsa-sha2-nistp256"
            | "ecdsa-sha2-nistp384"
            | "ecdsa-sha2-nistp521"
            | "sk-ecdsa-sha2-nistp256@openssh.com"
            | "sk-ssh-ed25519@openssh.com") => (exact, &[0]),
            _ => return Err(bad("names a kind of key that is not signed")),
        };
        let sound = |length: &u64| match name {
            "rsa" => usize::try_from(*length).is_ok_and(|bits| bits >= SSH_RSA_BITS_MIN),
            _ => known.contains(length),
        };
        if lengths.is_empty() || !lengths.iter().all(sound) {
            return Err(bad("names a length that such keys do not have, or that is too short"));
        }
        // An Ed25519 key has but one length.
        let lengths = if name == "ed25519" { vec![0] } else { lengths };
        found.insert(name.to_owned(), lengths);
    }
    Ok(found)
}

impl OtpRole {
    fn of(fields: &Fields) -> Result<Self, CoreError> {
        let (ttl, max_ttl) = lifetimes(fields)?;
        let port = fields.integer("port")?.unwrap_or(SSH_PORT.into());
        let port = u16::try_from(port).ok().filter(|port| *port > 0);
        let role = Self {
            default_user: default_user(fields)?,
            allowed_users: names(fields, "allowed_users", true)?,
            cidrs: cidrs(fields, "cidr_list")?,
            excluded_cidrs: cidrs(fields, "exclude_cidr_list")?,
            port: port.ok_or_else(|| CoreError::field("port", "must be 1 to 65535"))?,
            ttl,
            max_ttl,
        };
        if role.default_user.is_empty() {
            return Err(CoreError::field("default_user", "is required for passwords"));
        }
        Ok(role)
    }

    /// Whether its passwords are for this machine. `any` if for all that are not excluded.
    pub(super) fn is_for(&self, ip: IpAddr, any: bool) -> bool {
        !contains(&self.excluded_cidrs, ip) && (any || contains(&self.cidrs, ip))
    }

    fn description(&self) -> Value {
        json!({
            "key_type": "otp",
            "allowed_users": self.allowed_users.join(","),
            "cidr_list": self.cidrs.join(","),
            "default_user": self.default_user,
            "exclude_cidr_list": self.excluded_cidrs.join(","),
            "max_ttl": self.max_ttl.as_secs(),
            "port": self.port,
            "ttl": self.ttl.as_secs(),
        })
    }
}

/// All roles with their names.
pub(super) async fn all(ctx: &EngineContext<'_>) -> Result<Vec<(String, Role)>, CoreError> {
    let entries = ctx.view.entries::<Role>(DIRECTORY).await?;
    let named = |(name, entry): (String, Entry<Role>)| {
        (name.strip_prefix(DIRECTORY).unwrap_or(&name).to_owned(), entry.value)
    };
    Ok(entries.into_iter().map(named).collect())
}

async fn load(ctx: &EngineContext<'_>, name: &str) -> Result<Option<Role>, CoreError> {
    let entry: Option<Entry<Role>> = ctx.view.get(&record_name(name)).await?;
    Ok(entry.map(|entry| entry.value))
}

/// The role of certificates of that name.
pub(super) async fn load_ca(ctx: &EngineContext<'_>, name: &str) -> Result<CaRole, CoreError> {
    match load(ctx, name).await? {
        Some(Role::Ca(role)) => Ok(*role),
        Some(Role::Otp(_)) => Err(CoreError::invalid("the role is for one-time passwords")),
        None => Err(CoreError::invalid(format!("unknown role: {name}"))),
    }
}

/// The role of passwords of that name.
pub(super) async fn load_otp(ctx: &EngineContext<'_>, name: &str) -> Result<OtpRole, CoreError> {
    match load(ctx, name).await? {
        Some(Role::Otp(role)) => Ok(role),
        Some(Role::Ca(_)) => Err(CoreError::invalid("the role is for certificates")),
        None => Err(CoreError::invalid(format!("unknown role: {name}"))),
    }
}

pub(super) async fn list(ctx: &EngineContext<'_>) -> Result<Reply, CoreError> {
    let roles = all(ctx).await?;
    let kind = |role: &Role| match role {
        Role::Ca(_) => "ca",
        Role::Otp(_) => "otp",
    };
    let info: Map<String, Value> = roles
        .iter()
        .map(|(name, role)| (name.clone(), json!({ "key_type": kind(role) })))
        .collect();
    let mut reply = Reply::listing(roles.into_iter().map(|(name, _)| name).collect())?;
    if let Some(data) = &mut reply.data {
        data.insert("key_info".to_owned(), Value::Object(info));
    }
    Ok(reply)
}

/// What is not sent is as in a new role: stock clients send a role whole.
pub(super) async fn write(
    ctx: &EngineContext<'_>,
    name: &str,
    fields: &Fields,
) -> Result<Reply, CoreError> {
    let role = Role::of(fields)?;
    ctx.view.write(&record_name(name), &role, Precondition::Any).await?;
    Ok(match &role {
        Role::Ca(role)
            if role.user_certificates
                && role.allowed_users.is_empty()
                && role.default_user.is_empty() =>
        {
            Reply::empty().warn("the role allows no user: set allowed_users or default_user")
        }
        Role::Otp(role) if role.cidrs.is_empty() => Reply::empty()
            .warn("the role is for no machine: set cidr_list, or name it in config/zeroaddress"),
        Role::Ca(_) | Role::Otp(_) => Reply::empty(),
    })
}

pub(super) async fn read(ctx: &EngineContext<'_>, name: &str) -> Result<Reply, CoreError> {
    let role = load(ctx, name).await?.ok_or(CoreError::NotFound)?;
    Ok(Reply::data(role.description()))
}

pub(super) async fn remove(ctx: &EngineContext<'_>, name: &str) -> Result<Reply, CoreError> {
    let mut batch = Batch::new();
    ctx.view.delete(&mut batch, &record_name(name), Precondition::Any);
    // A role that is made under this name later is not for all machines because this one was.
    otp::forget_zero_address(ctx, &mut batch, name).await?;
    ctx.view.commit(&batch).await?;
    Ok(Reply::empty())
}
