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
use crate::core::policy::template::{Template, TemplateValues};
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
    #[serde(flatten)]
    pub users: Users,
    /// In lower case, but for templates.
    pub allowed_domains: Vec<String>,
    #[serde(default)]
    pub domains_template: bool,
    pub bare_domains: bool,
    pub subdomains: bool,
    pub allowed_critical_options: Vec<String>,
    pub default_critical_options: BTreeMap<String, String>,
    pub allowed_extensions: Vec<String>,
    pub default_extensions: BTreeMap<String, String>,
    #[serde(default)]
    pub extensions_template: bool,
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
    #[serde(flatten)]
    pub users: Users,
    pub cidrs: Vec<String>,
    pub excluded_cidrs: Vec<String>,
    pub port: u16,
    pub ttl: Ttl,
    pub max_ttl: Ttl,
}

/// The users of a role.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Users {
    pub allowed_users: Vec<String>,
    pub default_user: String,
    /// Whether the allowed ones are templates.
    #[serde(default)]
    pub users_template: bool,
    #[serde(default)]
    pub default_user_template: bool,
}

/// The name of the record of a role.
pub(super) fn record_name(name: &str) -> String {
    format!("{DIRECTORY}{name}")
}

/// A list of plain names; `*` only where it may stand for all.
fn names(
    fields: &Fields,
    field: &'static str,
    any: bool,
    template: bool,
) -> Result<Vec<String>, CoreError> {
    let list = fields.list(field)?.unwrap_or_default();
    for name in list.iter().filter(|name| !(any && *name == ANY)) {
        check_name(name, field, template)?;
    }
    Ok(list)
}

/// Refuses what is not a plain name, and templates of what could not be one.
fn check_name(name: &str, field: &'static str, template: bool) -> Result<(), CoreError> {
    if template {
        parse_template(name, field)?;
    }
    if allowed::is_plain(name) {
        Ok(())
    } else {
        Err(CoreError::field(field, "holds something that is not a plain name"))
    }
}

fn parse_template(text: &str, field: &'static str) -> Result<Template, CoreError> {
    Template::parse_text(text).map_err(|_| {
        let problem = "holds a template other than {{identity.entity…}} and {{identity.groups…}}";
        CoreError::field(field, problem)
    })
}

/// A stored template, for one caller. `None` when a value of it is missing, or it is no template.
fn resolved(text: &str, values: &TemplateValues) -> Option<String> {
    Template::parse_text(text).ok()?.text(values)
}

/// The names that a list of templates stands for. One that does not resolve, or to something that is
/// no plain name, stands for nobody.
fn resolved_names(templates: Vec<String>, values: &TemplateValues) -> Vec<String> {
    let one = |template: String| {
        if template == ANY {
            return Some(template);
        }
        resolved(&template, values).filter(|name| allowed::is_plain(name))
    };
    templates.into_iter().filter_map(one).collect()
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

impl Users {
    fn of(fields: &Fields) -> Result<Self, CoreError> {
        let users_template = flag(fields, "allowed_users_template")?;
        let default_user_template = flag(fields, "default_user_template")?;
        let default_user = text(fields, "default_user")?;
        if !default_user.is_empty() {
            check_name(&default_user, "default_user", default_user_template)?;
        }
        let allowed_users = names(fields, "allowed_users", true, users_template)?;
        Ok(Self { allowed_users, default_user, users_template, default_user_template })
    }

    /// Those for one caller, without templates.
    fn resolved(self, values: &TemplateValues) -> Self {
        let allowed_users = match self.users_template {
            true => resolved_names(self.allowed_users, values),
            false => self.allowed_users,
        };
        let default_user = match self.default_user_template {
            true => resolved(&self.default_user, values)
                .filter(|user| allowed::is_plain(user))
                .unwrap_or_default(),
            false => self.default_user,
        };
        Self { allowed_users, default_user, users_template: false, default_user_template: false }
    }

    /// Whether the role is for this user.
    pub(super) fn allow(&self, name: &str) -> bool {
        allowed::is_plain(name)
            && (name == self.default_user
                || self.allowed_users.iter().any(|user| user == ANY || user == name))
    }

    /// Whether the role can be for somebody.
    fn is_empty(&self) -> bool {
        self.allowed_users.is_empty() && self.default_user.is_empty()
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
        if flag(fields, "allow_empty_principals")? {
            let problem = "must be false: OpenSSH takes a certificate for nobody for everybody";
            return Err(CoreError::field("allow_empty_principals", problem));
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
        let domains_template = flag(fields, "allowed_domains_template")?;
        let domains = names(fields, "allowed_domains", true, domains_template)?;
        let extensions_template = flag(fields, "default_extensions_template")?;
        let default_extensions = options(fields, "default_extensions")?;
        if extensions_template {
            for value in default_extensions.values() {
                parse_template(value, "default_extensions")?;
            }
        }
        let role = Self {
            user_certificates: flag(fields, "allow_user_certificates")?,
            host_certificates: flag(fields, "allow_host_certificates")?,
            users: Users::of(fields)?,
            allowed_domains: match domains_template {
                true => domains,
                false => in_lower_case(domains),
            },
            domains_template,
            bare_domains: flag(fields, "allow_bare_domains")?,
            subdomains: flag(fields, "allow_subdomains")?,
            allowed_critical_options: names(fields, "allowed_critical_options", false, false)?,
            default_critical_options: options(fields, "default_critical_options")?,
            allowed_extensions: names(fields, "allowed_extensions", true, false)?,
            default_extensions,
            extensions_template,
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

    /// The role for one caller, without templates.
    ///
    /// # Errors
    /// When an extension's template does not resolve: without it the certificate would be another.
    pub(super) fn resolved(mut self, values: &TemplateValues) -> Result<Self, CoreError> {
        self.users = self.users.resolved(values);
        if self.domains_template {
            self.allowed_domains = in_lower_case(resolved_names(self.allowed_domains, values));
            self.domains_template = false;
        }
        if self.extensions_template {
            for (name, value) in &mut self.default_extensions {
                let text = resolved(value, values).filter(|text| allowed::is_value(text));
                // Most have no value.
                let text = text.filter(|text| !text.is_empty() || value.is_empty());
                *value = text.ok_or_else(|| {
                    CoreError::invalid(format!(
                        "the extension {name} of the role does not resolve for your identity"
                    ))
                })?;
            }
            self.extensions_template = false;
        }
        Ok(self)
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
            "allowed_domains_template": self.domains_template,
            "allowed_extensions": self.allowed_extensions.join(","),
            "allowed_user_key_lengths": self.key_lengths,
            "allowed_users": self.users.allowed_users.join(","),
            "allowed_users_template": self.users.users_template,
            "default_critical_options": self.default_critical_options,
            "default_extensions": self.default_extensions,
            "default_extensions_template": self.extensions_template,
            "default_user": self.users.default_user,
            "default_user_template": self.users.default_user_template,
            "key_id_format": self.key_id_format,
            "max_ttl": self.max_ttl.as_secs(),
            "not_before_duration": self.not_before.as_secs(),
            "ttl": self.ttl.as_secs(),
        })
    }
}

fn in_lower_case(domains: Vec<String>) -> Vec<String> {
    domains.into_iter().map(|domain| domain.to_ascii_lowercase()).collect()
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
            users: Users::of(fields)?,
            cidrs: cidrs(fields, "cidr_list")?,
            excluded_cidrs: cidrs(fields, "exclude_cidr_list")?,
            port: port.ok_or_else(|| CoreError::field("port", "must be 1 to 65535"))?,
            ttl,
            max_ttl,
        };
        if role.users.default_user.is_empty() {
            return Err(CoreError::field("default_user", "is required for passwords"));
        }
        Ok(role)
    }

    /// The role for one caller, without templates.
    pub(super) fn resolved(self, values: &TemplateValues) -> Self {
        Self { users: self.users.resolved(values), ..self }
    }

    /// Whether its passwords are for this machine. `any` if for all that are not excluded.
    pub(super) fn is_for(&self, ip: IpAddr, any: bool) -> bool {
        !contains(&self.excluded_cidrs, ip) && (any || contains(&self.cidrs, ip))
    }

    fn description(&self) -> Value {
        json!({
            "key_type": "otp",
            "allowed_users": self.users.allowed_users.join(","),
            "allowed_users_template": self.users.users_template,
            "cidr_list": self.cidrs.join(","),
            "default_user": self.users.default_user,
            "default_user_template": self.users.default_user_template,
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
        Role::Ca(role) if role.user_certificates && role.users.is_empty() => {
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
