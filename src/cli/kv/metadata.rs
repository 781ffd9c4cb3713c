//! What is kept about a secret beside its versions.

use serde_json::{Map, Value, json};

use super::{Place, Target};
use crate::cli::error::CliError;
use crate::cli::session::Session;
use crate::cli::values;
use crate::client::{Request, Verb};

/// Subcommands of `leasehold kv metadata`.
#[derive(Debug, clap::Subcommand)]
pub enum Metadata {
    /// Show settings and versions
    Get(Target),
    /// Set settings; custom metadata is replaced
    Put(Change),
    /// Change settings; custom metadata is merged
    Patch(Change),
    /// Delete the secret with all its versions
    Delete(Target),
}

/// Settings of one secret.
#[derive(Debug, clap::Args)]
pub struct Change {
    #[command(flatten)]
    target: Target,
    /// Versions to keep; 0: as the mount says
    #[arg(long, value_name = "COUNT")]
    max_versions: Option<u64>,
    /// Whether every write must carry -cas
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
          require_equals = true)]
    cas_required: Option<bool>,
    /// How long after its writing a version is deleted
    #[arg(long, value_name = "DURATION")]
    delete_version_after: Option<String>,
    /// Custom metadata, key=value; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    custom_metadata: Vec<String>,
    /// With patch: custom metadata to remove, by key; may be given several times
    #[arg(long, value_name = "KEY")]
    remove_custom_metadata: Vec<String>,
}

impl Change {
    fn body(&self) -> Result<Value, CliError> {
        let mut body = Map::new();
        if let Some(count) = self.max_versions {
            body.insert("max_versions".to_owned(), json!(count));
        }
        if let Some(required) = self.cas_required {
            body.insert("cas_required".to_owned(), json!(required));
        }
        if let Some(after) = &self.delete_version_after {
            body.insert("delete_version_after".to_owned(), json!(after));
        }
        let mut custom = Map::new();
        for (key, value) in values::plain(&self.custom_metadata)? {
            custom.insert(key, Value::String(value));
        }
        for key in &self.remove_custom_metadata {
            custom.insert(key.clone(), Value::Null);
        }
        if !custom.is_empty() {
            body.insert("custom_metadata".to_owned(), Value::Object(custom));
        }
        Ok(Value::Object(body))
    }
}

impl Metadata {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let target = match &self {
            Self::Get(target) | Self::Delete(target) => target,
            Self::Put(change) | Self::Patch(change) => &change.target,
        };
        let path = Place::find_versioned(session, target, "metadata").await?.api("metadata");
        match self {
            Self::Get(_) => show(session, &path).await,
            Self::Put(change) if !change.remove_custom_metadata.is_empty() => Err(CliError::local(
                "put replaces custom metadata, so there is nothing to remove",
                "use leasehold kv metadata patch",
            )),
            Self::Put(change) => {
                let reply = session.write(&path, change.body()?).await?;
                session.output().reply(&reply, &format!("Data written to: {path}"))
            }
            Self::Patch(change) => {
                let request = Request::new(Verb::Patch, &path).body(change.body()?);
                let reply = session.send(request).await?;
                session.output().reply(&reply, &format!("Data written to: {path}"))
            }
            Self::Delete(_) => {
                let reply = session.delete(&path).await?;
                let done = format!("Data deleted (if it existed) at: {path}");
                session.output().reply(&reply, &done)
            }
        }
    }
}

async fn show(session: &mut Session<'_>, path: &str) -> Result<(), CliError> {
    let reply = session.send(Request::new(Verb::Read, path).retried()).await?;
    let Some(data) = reply.data().as_object() else {
        return session.output().reply(&reply, "");
    };
    if session.output().is_document() || session.output().wants_field() {
        return session.output().reply(&reply, "");
    }
    let mut settings = data.clone();
    let versions = settings.remove("versions");
    session.output().line(&format!("Metadata path: {path}\n"))?;
    session.output().section("Metadata", &settings)?;
    let mut versions: Vec<(u64, &Map<String, Value>)> = versions
        .as_ref()
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(number, version)| Some((number.parse().ok()?, version.as_object()?)))
        .collect();
    versions.sort_unstable_by_key(|(number, _)| *number);
    for (number, version) in versions {
        session.output().line("")?;
        session.output().section(&format!("Version {number}"), version)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        change: Change,
    }

    fn body(args: &[&str]) -> Value {
        Line::try_parse_from([&["x", "p"], args].concat()).unwrap().change.body().unwrap()
    }

    #[test]
    fn only_what_is_given_is_changed() {
        assert_eq!(body(&[]), json!({}));
        assert_eq!(
            body(&["--max-versions=3", "--cas-required", "--custom-metadata=a=b=c"]),
            json!({"max_versions": 3, "cas_required": true, "custom_metadata": {"a": "b=c"}})
        );
        assert_eq!(body(&["--cas-required=false"]), json!({"cas_required": false}));
        assert_eq!(
            body(&["--remove-custom-metadata=old"]),
            json!({"custom_metadata": {"old": null}})
        );
    }
}
