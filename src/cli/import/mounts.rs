//! Secrets engines and auth methods: which there are, and mounting the same here.

use serde_json::{Map, Value, json};

use super::copy::{Context, Mode};
use super::ledger::{Entry, Outcome};
use super::side::Trouble;
use crate::cli::error::CliError;
use crate::cli::meaning::{is_unset, same};

/// Settings of a mount that are taken over where they are set.
const TUNED: &[&str] = &[
    "default_lease_ttl",
    "max_lease_ttl",
    "listing_visibility",
    "audit_non_hmac_request_keys",
    "audit_non_hmac_response_keys",
    "token_type",
    "passthrough_request_headers",
    "allowed_response_headers",
    LOCKOUT,
];

const LOCKOUT: &str = "user_lockout_config";
/// When methods lock who fails to log in: what servers answer each part as, what it is written as, and
/// what it is where nobody has said anything.
const LOCKOUT_PARTS: &[(&str, &str, u64)] = &[
    ("threshold", "lockout_threshold", 5),
    ("duration", "lockout_duration", 900),
    ("counter_reset_duration", "lockout_counter_reset", 900),
];

/// Engines, or methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Engine,
    Method,
}

impl Class {
    const fn kind(self) -> &'static str {
        match self {
            Self::Engine => "secrets engine",
            Self::Method => "auth method",
        }
    }

    const fn listing(self) -> &'static str {
        match self {
            Self::Engine => "sys/mounts",
            Self::Method => "sys/auth",
        }
    }
}

/// A mount of the source, its path without the slash at the end.
#[derive(Clone, Debug)]
pub(super) struct Mounted {
    pub(super) path: String,
    pub(super) kind: String,
    pub(super) accessor: String,
    entry: Value,
}

impl Mounted {
    /// Whether it is a kv that keeps versions.
    pub(super) fn is_versioned(&self) -> bool {
        self.entry.pointer("/options/version").and_then(Value::as_str) == Some("2")
    }
}

/// The mounts of one class, by path.
pub(super) async fn listed(ctx: &Context<'_>, class: Class) -> Result<Vec<Mounted>, CliError> {
    listing(&ctx.source, class).await
}

async fn listing(side: &super::side::Side<'_>, class: Class) -> Result<Vec<Mounted>, CliError> {
    let data = match side.read(class.listing()).await {
        Ok(data) => data.unwrap_or_default(),
        Err(Trouble::Stop(error)) => return Err(error),
        Err(Trouble::Refused { reason, .. }) => {
            return Err(CliError::local(
                format!("{} cannot be read: {reason}", class.listing()),
                "both tokens need to read sys/mounts and sys/auth",
            ));
        }
    };
    let all = data.as_object().into_iter().flatten().filter_map(|(path, entry)| {
        let text = |name: &str| Some(entry.get(name)?.as_str()?.to_owned());
        Some(Mounted {
            path: path.trim_end_matches('/').to_owned(),
            kind: text("type")?,
            accessor: text("accessor").unwrap_or_default(),
            entry: entry.clone(),
        })
    });
    Ok(all.collect())
}

/// The mounts of one class here.
pub(super) async fn here(ctx: &Context<'_>, class: Class) -> Result<Vec<Mounted>, CliError> {
    listing(&ctx.target, class).await
}

/// Mounts the same here, or compares. Says whether there is something to copy into.
pub(super) async fn mount(
    ctx: &mut Context<'_>,
    class: Class,
    mounted: &Mounted,
    here: &[Mounted],
) -> Result<bool, CliError> {
    let (kind, api) = (class.kind(), format!("{}/{}", class.listing(), mounted.path));
    let there = here.iter().find(|one| one.path == mounted.path);
    if let Some(one) = there {
        if one.kind != mounted.kind
            || mounted.kind == "kv" && one.is_versioned() != mounted.is_versioned()
        {
            ctx.leave(Entry::left(
                kind,
                &mounted.path,
                format!("something else is mounted here: {}", one.kind),
                "move that, or the one at the source, to another path",
            ));
            return Ok(false);
        }
        let outcome = if ctx.mode == Mode::Compare { Outcome::Equal } else { Outcome::InPlace };
        ctx.ledger.add(Entry::new(kind, &mounted.path, outcome));
        tune(ctx, mounted, Some(one), &api).await?;
        return Ok(true);
    }
    match ctx.mode {
        Mode::Compare => {
            let outcome = Outcome::Different("is not here".to_owned());
            ctx.ledger.add(Entry::new(kind, &mounted.path, outcome));
            return Ok(false);
        }
        Mode::DryRun => {
            ctx.ledger.add(Entry::new(kind, &mounted.path, Outcome::Copied));
            return Ok(true);
        }
        Mode::Copy => {}
    }
    let mut body = json!({
        "type": mounted.kind,
        "description": mounted.entry.get("description").cloned().unwrap_or_default(),
    });
    if mounted.kind == "kv" {
        let version = if mounted.is_versioned() { "2" } else { "1" };
        body = json!({
            "type": "kv", "options": { "version": version },
            "description": mounted.entry.get("description").cloned().unwrap_or_default(),
        });
    }
    if let Err(trouble) = ctx.target.write(&api, body).await {
        ctx.refused(kind, &mounted.path, trouble)?;
        return Ok(false);
    }
    ctx.ledger.add(Entry::new(kind, &mounted.path, Outcome::Copied));
    tune(ctx, mounted, None, &api).await?;
    Ok(true)
}

/// Takes over each setting by itself, so that one that is refused keeps no other back; or compares it
/// with that of the mount which is `here`.
async fn tune(
    ctx: &mut Context<'_>,
    mounted: &Mounted,
    here: Option<&Mounted>,
    api: &str,
) -> Result<(), CliError> {
    let at = format!("{api}/tune");
    let there = Tuned { tune: ctx.there("setting", &at).await?, listed: Some(mounted) };
    let tune = match here {
        Some(_) => match ctx.target.read(&at).await {
            Ok(found) => found,
            Err(trouble) => return ctx.refused("setting", &at, trouble),
        },
        None => None,
    };
    let here = Tuned { tune, listed: here };
    for name in TUNED {
        let (wanted, found) = (there.value(name), here.value(name));
        if wanted.is_none() && found.is_none() {
            continue;
        }
        let path = format!("{at} {name}");
        let is_same = match (&wanted, &found) {
            (Some(wanted), Some(found)) => same(name, wanted, found),
            (_, None) | (None, _) => false,
        };
        let outcome = match ctx.mode {
            Mode::Compare if is_same => Outcome::Equal,
            Mode::Copy | Mode::DryRun if is_same => Outcome::InPlace,
            Mode::Compare => Outcome::Different("differs".to_owned()),
            // As long as nothing is set here, it is nobody's choice.
            Mode::Copy if found.is_some() && !ctx.overwrite => Outcome::Kept,
            Mode::DryRun if found.is_some() && !ctx.overwrite => {
                Outcome::Different("differs".to_owned())
            }
            Mode::DryRun => Outcome::Copied,
            Mode::Copy => {
                let mut body = Map::new();
                let value = wanted.unwrap_or_else(|| unset(name));
                body.insert((*name).to_owned(), value);
                match ctx.target.write(&at, Value::Object(body)).await {
                    Ok(_) => Outcome::Copied,
                    Err(trouble) => {
                        ctx.refused("setting", &path, trouble)?;
                        continue;
                    }
                }
            }
        };
        ctx.ledger.add(Entry::new("setting", path, outcome));
    }
    Ok(())
}

/// The settings of a mount on one side.
struct Tuned<'m> {
    tune: Option<Value>,
    listed: Option<&'m Mounted>,
}

impl Tuned<'_> {
    /// What is set; `None` for what is not.
    fn value(&self, name: &str) -> Option<Value> {
        // Lifetimes that are not set are answered by `tune` as what is in effect.
        if name == LOCKOUT {
            return self.lockout();
        }
        let listed = self.listed.and_then(|mounted| mounted.entry.get("config")?.get(name));
        let value = listed.or_else(|| self.tune.as_ref()?.get(name))?;
        let is_default = is_unset(name, value)
            || name == "token_type" && same(name, value, &json!("default-service"));
        (!is_default).then(|| value.clone())
    }

    /// When the method locks, whole and as it is written, however the server answers it.
    fn lockout(&self) -> Option<Value> {
        let listed = self.listed.and_then(|mounted| mounted.entry.get("config")?.get(LOCKOUT));
        let tune = self.tune.as_ref();
        let nested = listed.or_else(|| tune?.get(LOCKOUT));
        let part = |answered: &str, written: &str| {
            let long = format!("user_lockout_{answered}");
            let nested = nested.and_then(|all| all.get(written).or_else(|| all.get(&long)));
            nested.or_else(|| tune?.get(&long)).filter(|value| !is_unset(written, value))
        };
        let mut all = Map::new();
        for (answered, written, usual) in LOCKOUT_PARTS {
            let value = part(answered, written).cloned().unwrap_or_else(|| json!(usual));
            all.insert((*written).to_owned(), value);
        }
        let disabled = part("disable", "lockout_disable").is_some();
        all.insert("lockout_disable".to_owned(), json!(disabled));
        let whole = Value::Object(all);
        (!same(LOCKOUT, &whole, &unset(LOCKOUT))).then_some(whole)
    }
}

/// What unsets a setting.
fn unset(name: &str) -> Value {
    match name {
        "default_lease_ttl" | "max_lease_ttl" => json!(0),
        "token_type" => json!("default-service"),
        "listing_visibility" => json!(""),
        LOCKOUT => {
            let usual =
                |(_, written, usual): &(&str, &str, u64)| ((*written).to_owned(), json!(usual));
            let mut all: Map<String, Value> = LOCKOUT_PARTS.iter().map(usual).collect();
            all.insert("lockout_disable".to_owned(), json!(false));
            Value::Object(all)
        }
        _ => json!([]),
    }
}
