//! Roles for SSH certificates and one-time passwords. The key that signs stays where it is.

use serde_json::{Map, Value, json};

use super::copy::{Context, Said};
use super::ledger::Entry;
use crate::cli::error::CliError;

const ROLE: &str = "ssh role";
const ZERO_ADDRESS: &str = "ssh zero address";
const SIGNING_KEY: &str = "ssh signing key";
/// Lists that servers answer as one text with commas.
const JOINED: &[&str] = &[
    "allowed_critical_options",
    "allowed_domains",
    "allowed_extensions",
    "allowed_users",
    "cidr_list",
    "exclude_cidr_list",
];

/// Copies or compares what the engine at `mount` is configured with.
pub(super) async fn contents(ctx: &mut Context<'_>, mount: &str) -> Result<(), CliError> {
    for name in ctx.names(ROLE, &format!("{mount}/roles")).await? {
        let path = format!("{mount}/roles/{name}");
        if let Some(data) = ctx.there(ROLE, &path).await? {
            ctx.settle(ROLE, &path, &role(data), Map::new()).await?;
        }
    }
    // Only roles that are here can be named.
    let path = format!("{mount}/config/zeroaddress");
    if let Some(data) = ctx.there(ZERO_ADDRESS, &path).await? {
        let said = Said::of(&data, &[]);
        if !said.set.is_empty() {
            ctx.settle(ZERO_ADDRESS, &path, &said, Map::new()).await?;
        }
    }
    signing_key(ctx, &format!("{mount}/config/ca")).await
}

/// A role in the words of this server, whose usual settings are not the other's.
fn role(mut data: Value) -> Said {
    let is_template = data.get("allowed_domains_template") == Some(&json!(true));
    let begins = data.get("not_before_duration").filter(|value| value.is_number()).cloned();
    if let Value::Object(fields) = &mut data {
        for name in JOINED {
            let Some(text) = fields.get(*name).and_then(Value::as_str) else { continue };
            // Names of hosts are no others in capitals.
            let is_lower = *name == "allowed_domains" && !is_template;
            let text = if is_lower { text.to_ascii_lowercase() } else { text.to_owned() };
            let list = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            let list = list.collect::<Vec<_>>();
            fields.insert((*name).to_owned(), json!(list));
        }
        if fields.get("algorithm_signer") == Some(&json!("default")) {
            fields.insert("algorithm_signer".to_owned(), json!("rsa-sha2-512"));
        }
        // There is one signing key in a mount here, and it is everybody's usual one.
        if fields.get("issuer_ref") == Some(&json!("default")) {
            fields.remove("issuer_ref");
        }
        if let Some(Value::Object(lengths)) = fields.get_mut("allowed_user_key_lengths") {
            *lengths = std::mem::take(lengths).into_iter().map(key_lengths).collect();
        }
    }
    let mut said = Said::of(&data, &[]);
    // None at all is a choice, too.
    said.set.extend(begins.map(|begins| ("not_before_duration".to_owned(), begins)));
    said
}

/// A kind of keys by the name that it has here, with its lengths.
fn key_lengths((kind, lengths): (String, Value)) -> (String, Value) {
    match kind.as_str() {
        "ssh-rsa" => ("rsa".to_owned(), lengths),
        "ecdsa" => ("ec".to_owned(), lengths),
        "ed25519" | "ssh-ed25519" => ("ed25519".to_owned(), json!([0])),
        _ => (kind, lengths),
    }
}

/// Lists the key that cannot be read out, unless somebody has brought it here already.
async fn signing_key(ctx: &mut Context<'_>, path: &str) -> Result<(), CliError> {
    let key = |data: Option<Value>| {
        let data = data?;
        // Without the comment, which is anybody's.
        let mut words = data.get("public_key")?.as_str()?.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    };
    let there = match ctx.source.read(path).await {
        Ok(found) => key(found),
        // Servers say that there is none by 400.
        Err(super::side::Trouble::Refused { status: 400, .. }) => None,
        Err(trouble) => return ctx.refused(SIGNING_KEY, path, trouble),
    };
    let Some(there) = there else { return Ok(()) };
    let here = match ctx.target.read(path).await {
        Ok(found) => key(found),
        Err(super::side::Trouble::Refused { status: 400, .. }) => None,
        Err(trouble) => return ctx.refused(SIGNING_KEY, path, trouble),
    };
    if here.as_ref() == Some(&there) {
        return Ok(());
    }
    let next = format!(
        "leasehold write {path} generate_signing_key=true, and let hosts and users trust both keys \
         while you move; or private_key=@FILE from where you keep the old one"
    );
    ctx.leave(Entry::left(SIGNING_KEY, path, "its private half cannot be read out", next));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_said_in_the_words_of_this_server() {
        let said = role(json!({
            "key_type": "ca", "algorithm_signer": "default", "issuer_ref": "default",
            "allowed_users": "web, db", "allowed_domains": "Example.COM", "allowed_extensions": "",
            "allowed_user_key_lengths": {"ssh-rsa": [2048], "ed25519": [256], "ec": [0]},
            "not_before_duration": 0, "ttl": 1800, "max_ttl": 0, "allow_host_certificates": false,
        }));
        let expected = json!({
            "key_type": "ca", "algorithm_signer": "rsa-sha2-512",
            "allowed_users": ["web", "db"], "allowed_domains": ["example.com"],
            "allowed_user_key_lengths": {"rsa": [2048], "ed25519": [0], "ec": [0]},
            "not_before_duration": 0, "ttl": 1800,
        });
        assert_eq!(Value::Object(said.set), expected);
        let template = json!({
            "allowed_domains": "{{identity.entity.metadata.Host}}",
            "allowed_domains_template": true, "issuer_ref": "other",
        });
        let said = role(template);
        assert_eq!(said.set["allowed_domains"], json!(["{{identity.entity.metadata.Host}}"]));
        assert_eq!(said.set["issuer_ref"], "other");
    }
}
