//! Keys of transit that may be read out, with all their versions.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::copy::{Context, Mode, differing};
use super::ledger::{Entry, Outcome};
use super::side::{Side, Trouble};
use crate::cli::error::CliError;
use crate::server::key_transfer;

const KEY: &str = "transit key";
const VERSION: &str = "transit key version";
/// What can be changed of a key that is there.
const SETTINGS: &[&str] =
    &["auto_rotate_period", "deletion_allowed", "min_decryption_version", "min_encryption_version"];
/// What a key is made with.
const TRAITS: &[&str] = &["allow_plaintext_backup", "convergent_encryption", "derived"];

/// The versions of a key, each in the form in which it is read out.
type Versions = BTreeMap<u64, String>;

/// A key of the source.
struct Key<'k> {
    mount: &'k str,
    name: &'k str,
    kind: String,
    facts: Value,
    versions: Versions,
}

/// Copies or compares the keys of the engine at `mount`.
pub(super) async fn keys(ctx: &mut Context<'_>, mount: &str) -> Result<(), CliError> {
    for name in ctx.names(KEY, &format!("{mount}/keys")).await? {
        let path = format!("{mount}/keys/{name}");
        let Some(facts) = ctx.there(KEY, &path).await? else { continue };
        let kind = facts.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        if let Some((reason, next)) = why_not(&kind, &facts) {
            ctx.leave(Entry::left(KEY, path, reason, next));
            continue;
        }
        let versions = match exported(&ctx.source, mount, &name, &kind).await {
            Ok(versions) => versions,
            Err(trouble) => {
                ctx.refused(KEY, &path, trouble)?;
                continue;
            }
        };
        let latest = facts.get("latest_version").and_then(Value::as_u64).unwrap_or_default();
        if !versions.keys().copied().eq(1..=latest) {
            ctx.leave(Entry::left(
                KEY,
                path,
                "its first versions cannot be read out, and here numbers begin with 1",
                "set min_decryption_version to 1 there while you import; of versions that were \
                 trimmed nothing is left, so rewrap what there is with a new key",
            ));
            continue;
        }
        let key = Key { mount, name: &name, kind, facts, versions };
        if let Err(trouble) = key.settle(ctx, &path).await {
            ctx.refused(KEY, &path, trouble)?;
        }
    }
    Ok(())
}

/// Why a key stays where it is, and what to do.
fn why_not(kind: &str, facts: &Value) -> Option<(String, &'static str)> {
    let is = |name: &str| facts.get(name).and_then(Value::as_bool).unwrap_or_default();
    if !is("exportable") {
        let next = "make it exportable there, which is for ever, and run it again; or decrypt there and \
                    encrypt here";
        return Some(("it is not exportable".to_owned(), next));
    }
    if part(kind).is_none() {
        return Some((
            format!("{kind}: not available here"),
            "leave what needs it on the old server",
        ));
    }
    let made_so = |name: &str, usual: Value| facts.get(name).is_none_or(|value| *value == usual);
    let convergent = is("convergent_encryption");
    if !made_so("kdf", json!("hkdf_sha256"))
        || convergent && !made_so("convergent_encryption_version", json!(3))
    {
        let next = "decrypt there and encrypt here";
        return Some(("it is convergent, or derives keys in an old way".to_owned(), next));
    }
    None
}

/// By which name a type of key is read out.
fn part(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "hmac" => "hmac-key",
        "ed25519" | "ecdsa-p256" | "ecdsa-p384" | "ecdsa-p521" => "signing-key",
        "aes128-gcm96" | "aes256-gcm96" | "chacha20-poly1305" | "xchacha20-poly1305"
        | "rsa-2048" | "rsa-3072" | "rsa-4096" => "encryption-key",
        _ => return None,
    })
}

async fn exported(
    side: &Side<'_>,
    mount: &str,
    name: &str,
    kind: &str,
) -> Result<Versions, Trouble> {
    let part = part(kind).unwrap_or_default();
    let answer = side.read(&format!("{mount}/export/{part}/{name}")).await?.unwrap_or_default();
    let all = answer.get("keys").and_then(Value::as_object).into_iter().flatten();
    let versions =
        all.filter_map(|(number, key)| Some((number.parse().ok()?, key.as_str()?.to_owned())));
    Ok(versions.collect())
}

impl Key<'_> {
    /// Brings it here, or compares it with what is here.
    async fn settle(&self, ctx: &mut Context<'_>, path: &str) -> Result<(), Trouble> {
        let found = ctx.target.read(path).await?;
        let here = match &found {
            Some(_) => exported(&ctx.target, self.mount, self.name, &self.kind).await?,
            None => Versions::new(),
        };
        let unlike = here.iter().find(|(number, key)| {
            self.versions.get(number).is_none_or(|there| !self.is_same(there, key))
        });
        let missing = self.versions.keys().find(|number| !here.contains_key(number)).copied();
        let settings = self.settings();
        let changed = found.as_ref().is_some_and(|found| !differing(&settings, found).is_empty());
        let outcome = match (ctx.mode, unlike, missing) {
            (Mode::Copy, Some(_), _) => Outcome::Kept,
            (Mode::DryRun | Mode::Compare, Some((number, _)), _) => {
                Outcome::Different(format!("version {number} is another key here"))
            }
            (Mode::Compare, None, Some(number)) => {
                Outcome::Different(format!("version {number} is not here"))
            }
            (Mode::Compare, None, None) if changed => {
                Outcome::Different(format!("{} differs", SETTINGS.join(" or ")))
            }
            (Mode::Compare, None, None) => Outcome::Equal,
            (Mode::Copy | Mode::DryRun, None, None) if !changed => Outcome::InPlace,
            (Mode::DryRun, None, _) => Outcome::Copied,
            (Mode::Copy, None, missing) => {
                self.bring(ctx, path, missing).await?;
                if !settings.is_empty() {
                    ctx.target.write(&format!("{path}/config"), Value::Object(settings)).await?;
                }
                Outcome::Copied
            }
        };
        ctx.ledger.add(Entry::new(KEY, path, outcome));
        if self.kind != "hmac" {
            ctx.leave(Entry::left(
                "transit hmac key",
                path,
                "what hmac made with it there cannot be checked here: that key cannot be brought in",
                "make such values anew, or have them checked there",
            ));
        }
        Ok(())
    }

    /// Brings the versions from `first` on.
    async fn bring(
        &self,
        ctx: &mut Context<'_>,
        path: &str,
        first: Option<u64>,
    ) -> Result<(), Trouble> {
        let Some(first) = first else { return Ok(()) };
        let at = format!("{}/wrapping_key", self.mount);
        let answer = ctx.target.read(&at).await?.unwrap_or_default();
        let wrapping = answer.get("public_key").and_then(Value::as_str).unwrap_or_default();
        for (number, key) in self.versions.range(first..) {
            let wrapped = key_transfer::wrapped(&self.kind, key, wrapping)
                .map_err(|error| Trouble::Refused { status: 0, reason: error.to_string() })?;
            let mut body = Map::new();
            body.insert("ciphertext".to_owned(), json!(wrapped));
            let part = if *number == 1 {
                body.insert("type".to_owned(), json!(self.kind));
                body.insert("exportable".to_owned(), json!(true));
                body.insert("allow_rotation".to_owned(), json!(true));
                for name in TRAITS {
                    let value = self.facts.get(*name).filter(|value| value.is_boolean());
                    body.extend(value.map(|value| ((*name).to_owned(), value.clone())));
                }
                "import"
            } else {
                "import_version"
            };
            ctx.target.write(&format!("{path}/{part}"), Value::Object(body)).await?;
            ctx.ledger.add(Entry::new(VERSION, path, Outcome::Copied));
        }
        Ok(())
    }

    /// Whether two exports are of one key: servers write the same key in several forms.
    fn is_same(&self, there: &str, here: &str) -> bool {
        there.trim() == here.trim() || key_transfer::is_same(&self.kind, there, here)
    }

    fn settings(&self) -> Map<String, Value> {
        let usual = |name: &str, value: &Value| match name {
            "min_decryption_version" => value.as_u64() == Some(1),
            _ => value.as_u64() == Some(0) || value.as_bool() == Some(false),
        };
        let set = SETTINGS.iter().filter_map(|name| {
            let value = self.facts.get(*name).filter(|value| !usual(name, value))?;
            Some(((*name).to_owned(), value.clone()))
        });
        set.collect()
    }
}
