//! What a role allows: whom a certificate is for, and what it permits.

use std::collections::BTreeMap;

use super::role::{ANY, CaRole};
use crate::core::error::CoreError;
use crate::crypto::ssh::{SshCertificateKind, SshPublicKey};

/// Longest name, and longest value of an option, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

const CRITICAL_OPTIONS: &str = "critical_options";
const DISPLAY_NAME: &str = "{{token_display_name}}";
const EXTENSIONS: &str = "extensions";
const KEY_HASH: &str = "{{public_key_hash}}";
const PRINCIPALS: &str = "valid_principals";
const ROLE_NAME: &str = "{{role_name}}";

/// Whether it is one word in which no reader sees a pattern, a list or the end of a line.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= TEXT_BYTES_MAX
        && !name.chars().any(|c| c.is_control() || c.is_whitespace() || ",*?!=\"'\\".contains(c))
}

/// Whether it is text of one line, or none.
pub(super) fn is_value(value: &str) -> bool {
    value.len() <= TEXT_BYTES_MAX && !value.chars().any(char::is_control)
}

/// The names that a certificate is going to be for.
///
/// # Errors
/// None at all, and every one that the role does not allow.
pub(super) fn principals(
    role: &CaRole,
    kind: SshCertificateKind,
    wanted: Vec<String>,
) -> Result<Vec<String>, CoreError> {
    let refused = || CoreError::field(PRINCIPALS, "holds a name that the role does not allow");
    if !wanted.iter().all(|name| is_plain(name)) {
        return Err(CoreError::field(PRINCIPALS, "holds something that is not a plain name"));
    }
    match kind {
        SshCertificateKind::User => {
            let wanted = match (wanted.is_empty(), role.users.default_user.as_str()) {
                (true, "") => Vec::new(),
                (true, user) => vec![user.to_owned()],
                (false, _) => wanted,
            };
            let allowed = wanted.iter().all(|name| role.users.allow(name));
            if allowed { some(wanted) } else { Err(refused()) }
        }
        SshCertificateKind::Host => {
            let hosts: Vec<_> = wanted.iter().map(|name| name.to_ascii_lowercase()).collect();
            if hosts.iter().all(|host| is_host(host) && may_be_host(role, host)) {
                some(hosts)
            } else {
                Err(refused())
            }
        }
    }
}

/// OpenSSH takes a certificate without principals for everybody.
fn some(principals: Vec<String>) -> Result<Vec<String>, CoreError> {
    if principals.is_empty() {
        Err(CoreError::field(PRINCIPALS, "is required: without, it would be for everybody"))
    } else {
        Ok(principals)
    }
}

/// Whether it is a host's name or address as OpenSSH compares it.
fn is_host(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    name.chars().all(plain) && !name.split('.').any(str::is_empty)
}

fn may_be_host(role: &CaRole, host: &str) -> bool {
    role.allowed_domains.iter().any(|domain| {
        let below = || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        domain == ANY || (role.bare_domains && host == domain) || (role.subdomains && below())
    })
}

/// The critical options of a certificate: the role's own, which a caller cannot leave out, and those
/// of the caller's that the role allows it to choose.
///
/// # Errors
/// Every other option, and any for a host: those have none.
pub(super) fn critical_options(
    role: &CaRole,
    kind: SshCertificateKind,
    wanted: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, CoreError> {
    if kind == SshCertificateKind::Host {
        return none(CRITICAL_OPTIONS, &wanted);
    }
    let mut options = role.default_critical_options.clone();
    for (name, value) in wanted {
        let same = options.get(&name) == Some(&value);
        if !same && !role.allowed_critical_options.contains(&name) {
            return Err(CoreError::field(
                CRITICAL_OPTIONS,
                "holds one that the role does not allow",
            ));
        }
        if !is_value(&value) {
            return Err(CoreError::field(CRITICAL_OPTIONS, "holds a value of several lines"));
        }
        options.insert(name, value);
    }
    Ok(options)
}

/// The extensions of a certificate: what the caller chose, if it chose, else the role's own choice.
///
/// # Errors
/// Extensions that the role does not allow, and any for a host: those have none.
pub(super) fn extensions(
    role: &CaRole,
    kind: SshCertificateKind,
    wanted: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, CoreError> {
    if kind == SshCertificateKind::Host {
        return none(EXTENSIONS, &wanted);
    }
    if wanted.is_empty() {
        return Ok(role.default_extensions.clone());
    }
    let any = role.allowed_extensions.iter().any(|name| name == ANY);
    for (name, value) in &wanted {
        if !is_plain(name) || !is_value(value) {
            return Err(CoreError::field(EXTENSIONS, "holds a name that is not plain"));
        }
        let own = role.default_extensions.get(name) == Some(value);
        if !own && !any && !role.allowed_extensions.contains(name) {
            return Err(CoreError::field(EXTENSIONS, "holds one that the role does not allow"));
        }
    }
    Ok(wanted)
}

fn none(
    field: &'static str,
    wanted: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, CoreError> {
    if wanted.is_empty() {
        Ok(BTreeMap::new())
    } else {
        Err(CoreError::field(field, "must be empty: a host's certificate has none"))
    }
}

/// Refuses a format with placeholders that do not exist.
pub(super) fn check_key_id_format(format: &str) -> Result<(), CoreError> {
    let known = [DISPLAY_NAME, KEY_HASH, ROLE_NAME];
    let rest = known.iter().fold(format.to_owned(), |text, known| text.replace(known, ""));
    let problem = if rest.contains("{{") || rest.contains("}}") {
        "knows token_display_name, public_key_hash and role_name in {{ and }}"
    } else if !is_value(format) || format.contains(',') {
        "must be text of one line without commas"
    } else {
        return Ok(());
    };
    Err(CoreError::field("key_id_format", problem))
}

/// What servers log of a certificate.
///
/// # Errors
/// One of the caller's, when the role does not let it choose or it is not text of one line.
pub(super) fn key_id(
    role: &CaRole,
    role_name: &str,
    display_name: &str,
    key: &SshPublicKey,
    wanted: Option<String>,
) -> Result<String, CoreError> {
    if let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) {
        if !role.user_key_ids {
            return Err(CoreError::field("key_id", "is not for callers to choose in this role"));
        }
        if !is_value(&wanted) || wanted.contains(',') {
            return Err(CoreError::field("key_id", "must be text of one line without commas"));
        }
        return Ok(wanted);
    }
    // Each piece by itself, so that a name with braces in it stays what it is.
    let mut id = String::new();
    let mut rest = role.key_id_format.as_str();
    while let Some((before, after)) = rest.split_once("{{") {
        id.push_str(before);
        let (name, further) = after.split_once("}}").unwrap_or((after, ""));
        match name {
            "token_display_name" => id.push_str(&tame(display_name)),
            "role_name" => id.push_str(&tame(role_name)),
            _ => id.push_str(&data_encoding::HEXLOWER.encode(&key.digest())),
        }
        rest = further;
    }
    id.push_str(rest);
    Ok(id)
}

/// A name that others chose, without what could pass for something else in a log.
fn tame(name: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_.@/:+".contains(c);
    name.chars().take(256).map(|c| if plain(c) { c } else { '_' }).collect()
}
