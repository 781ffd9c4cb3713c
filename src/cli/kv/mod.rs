//! `leasehold kv`: versioned and plain key/value stores, told apart by asking the server.

mod data;
mod metadata;

use serde_json::Value;

use super::error::CliError;
use super::session::Session;

/// Subcommands of `leasehold kv`.
#[derive(Debug, clap::Subcommand)]
pub enum Kv {
    /// Read a secret
    Get(data::Get),
    /// Write a secret, replacing all its values
    Put(data::Put),
    /// Change some values of a secret (version 2)
    Patch(data::Patch),
    /// Delete the latest version, or those named
    Delete(data::Delete),
    /// Bring deleted versions back (version 2)
    Undelete(data::Versions),
    /// Destroy versions for good (version 2)
    Destroy(data::Versions),
    /// Make an old version the latest again (version 2)
    Rollback(data::Rollback),
    /// List names
    List(data::List),
    /// See and set what is kept about a secret (version 2)
    #[command(subcommand)]
    Metadata(metadata::Metadata),
}

impl Kv {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        match self {
            Self::Get(command) => command.run(session).await,
            Self::Put(command) => command.run(session).await,
            Self::Patch(command) => command.run(session).await,
            Self::Delete(command) => command.run(session).await,
            Self::Undelete(command) => command.run(session, "undelete").await,
            Self::Destroy(command) => command.run(session, "destroy").await,
            Self::Rollback(command) => command.run(session).await,
            Self::List(command) => command.run(session).await,
            Self::Metadata(command) => command.run(session).await,
        }
    }
}

/// Which secret.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// Path of the secret: mount/name, or the name alone with -mount
    path: String,
    /// The mount, when the path does not begin with it
    #[arg(long, value_name = "PATH")]
    mount: Option<String>,
}

/// A secret's place once its mount is known.
struct Place {
    /// Ends in a slash.
    mount: String,
    path: String,
    versioned: bool,
}

impl Place {
    /// Asks the server where the mount ends and which version it is.
    async fn find(session: &Session<'_>, target: &Target) -> Result<Self, CliError> {
        let asked = target.mount.as_deref().unwrap_or(&target.path).trim_matches('/');
        let reply = session.client.read(&format!("sys/internal/ui/mounts/{asked}")).await?;
        let mount = reply.text("path").ok_or(CliError::Answer("mount path"))?.to_owned();
        let kind = reply.text("type").unwrap_or_default();
        if kind != "kv" && kind != "generic" {
            return Err(CliError::local(
                format!("{mount} is of type {kind}, not kv"),
                "use leasehold read and leasehold write for it",
            ));
        }
        let version = reply.data().pointer("/options/version").and_then(Value::as_str);
        let path = match &target.mount {
            Some(_) => target.path.trim_start_matches('/').to_owned(),
            None => {
                let full = target.path.trim_start_matches('/');
                full.strip_prefix(&mount).unwrap_or_default().to_owned()
            }
        };
        Ok(Self { mount, path, versioned: version == Some("2") })
    }

    /// As [`Place::find`], for what version 1 does not have.
    async fn find_versioned(
        session: &Session<'_>,
        target: &Target,
        what: &str,
    ) -> Result<Self, CliError> {
        let place = Self::find(session, target).await?;
        if place.versioned {
            return Ok(place);
        }
        Err(CliError::local(
            format!("{} is kv version 1, which has no {what}", place.mount),
            "enable a version 2 mount: leasehold secrets enable -path=PATH kv-v2",
        ))
    }

    /// The API path; `kind` is `data`, `metadata` and so on, left out on version 1.
    fn api(&self, kind: &str) -> String {
        if self.versioned {
            format!("{}{kind}/{}", self.mount, self.path)
        } else {
            format!("{}{}", self.mount, self.path)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versioned_mounts_have_kinds_of_paths() {
        let place = |versioned| Place {
            mount: "team/secret/".to_owned(),
            path: "a/b".to_owned(),
            versioned,
        };
        assert_eq!(place(true).api("metadata"), "team/secret/metadata/a/b");
        assert_eq!(place(false).api("metadata"), "team/secret/a/b");
    }
}
