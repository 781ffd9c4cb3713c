//! Reading and writing versions of secrets.

use serde_json::{Map, Value, json};

use super::{Place, Target};
use crate::cli::error::CliError;
use crate::cli::session::Session;
use crate::cli::values;
use crate::client::{ClientError, Reply, Request, Verb};

/// `leasehold kv get`
#[derive(Debug, clap::Args)]
pub struct Get {
    #[command(flatten)]
    target: Target,
    /// Version to read [default: the latest]
    #[arg(long, value_name = "NUMBER")]
    version: Option<u64>,
}

/// `leasehold kv put`
#[derive(Debug, clap::Args)]
pub struct Put {
    #[command(flatten)]
    target: Target,
    /// Values: key=value, key=@file, key=- for standard input, @file.json or - for a JSON object
    #[arg(value_name = "KEY=VALUE", required = true)]
    values: Vec<String>,
    /// Write only if this is the latest version; 0: only if there is none
    #[arg(long, value_name = "VERSION")]
    cas: Option<u64>,
}

/// `leasehold kv patch`
#[derive(Debug, clap::Args)]
pub struct Patch {
    #[command(flatten)]
    target: Target,
    /// Values to change, as for put; null in JSON removes
    #[arg(value_name = "KEY=VALUE", required = true)]
    values: Vec<String>,
    /// Change only if this is the latest version
    #[arg(long, value_name = "VERSION")]
    cas: Option<u64>,
}

/// `leasehold kv delete`
#[derive(Debug, clap::Args)]
pub struct Delete {
    #[command(flatten)]
    target: Target,
    /// Versions to delete, separated by commas [default: the latest]
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    versions: Vec<u64>,
}

/// `leasehold kv undelete` and `leasehold kv destroy`
#[derive(Debug, clap::Args)]
pub struct Versions {
    #[command(flatten)]
    target: Target,
    /// Versions, separated by commas
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', required = true)]
    versions: Vec<u64>,
}

/// `leasehold kv rollback`
#[derive(Debug, clap::Args)]
pub struct Rollback {
    #[command(flatten)]
    target: Target,
    /// Version to make the latest again
    #[arg(long, value_name = "NUMBER")]
    version: u64,
}

/// `leasehold kv list`
#[derive(Debug, clap::Args)]
pub struct List {
    #[command(flatten)]
    target: Target,
}

impl Get {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let place = Place::find(session, &self.target).await?;
        let mut request = Request::new(Verb::Read, &place.api("data")).retried();
        if let Some(version) = self.version {
            if !place.versioned {
                return Err(CliError::local(
                    format!("{} is kv version 1, which keeps one version", place.mount),
                    "leave -version away",
                ));
            }
            request = request.query("version", &version.to_string());
        }
        let reply = match session.send(request).await {
            Ok(reply) => reply,
            Err(error) => {
                show_deleted(session, &error)?;
                return Err(error);
            }
        };
        if !place.versioned || reply.body.get("wrap_info").is_some_and(Value::is_object) {
            return session.output().reply(&reply, "");
        }
        if session.output().wants_field() {
            return session.output().object(reply.data().get("data").unwrap_or(&Value::Null));
        }
        if session.output().is_document() {
            return session.output().document(&reply.body);
        }
        session.output().line(&format!("Secret path: {}\n", place.api("data")))?;
        if let Some(metadata) = member(&reply, "metadata") {
            session.output().section("Metadata", metadata)?;
            session.output().line("")?;
        }
        match member(&reply, "data") {
            Some(data) => session.output().section("Data", data),
            None => session.output().line("The secret has no values."),
        }
    }
}

/// A deleted version is refused, but the refusal says when it was deleted.
fn show_deleted(session: &mut Session<'_>, error: &CliError) -> Result<(), CliError> {
    let CliError::Client(ClientError::Refused(refusal)) = error else { return Ok(()) };
    let Some(metadata) = refusal.body.pointer("/data/metadata").and_then(Value::as_object) else {
        return Ok(());
    };
    if session.output().wants_field() {
        return Ok(());
    }
    if session.output().is_document() {
        return session.output().document(&refusal.body);
    }
    session.output().section("Metadata", metadata)
}

impl Put {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let place = Place::find(session, &self.target).await?;
        let values = values::parse(&self.values, session.process.stdin.as_mut())?;
        if !place.versioned {
            if self.cas.is_some() {
                return Err(CliError::local(
                    format!("{} is kv version 1, which has no check-and-set", place.mount),
                    "leave -cas away",
                ));
            }
            let path = place.api("data");
            let reply = session.write(&path, Value::Object(values)).await?;
            return session.output().reply(&reply, &format!("Data written to: {path}"));
        }
        put(session, &place, values, self.cas).await
    }
}

async fn put(
    session: &mut Session<'_>,
    place: &Place,
    values: Map<String, Value>,
    cas: Option<u64>,
) -> Result<(), CliError> {
    let path = place.api("data");
    let reply = session.write(&path, versioned_body(values, cas)).await?;
    written(session, &path, &reply)
}

fn versioned_body(values: Map<String, Value>, cas: Option<u64>) -> Value {
    let mut body = json!({ "data": values });
    if let (Some(cas), Some(object)) = (cas, body.as_object_mut()) {
        object.insert("options".to_owned(), json!({ "cas": cas }));
    }
    body
}

fn written(session: &mut Session<'_>, path: &str, reply: &Reply) -> Result<(), CliError> {
    let done = format!("Data written to: {path}");
    let plain = session.output().is_document() || session.output().wants_field();
    match reply.data().as_object() {
        Some(metadata) if !plain && !metadata.contains_key("wrap_info") => {
            session.output().line(&format!("Secret path: {path}\n"))?;
            session.output().section("Metadata", metadata)
        }
        Some(_) | None => session.output().reply(reply, &done),
    }
}

impl Patch {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let place = Place::find_versioned(session, &self.target, "patch").await?;
        let values = values::parse(&self.values, session.process.stdin.as_mut())?;
        let path = place.api("data");
        let body = versioned_body(values, self.cas);
        let reply = session.send(Request::new(Verb::Patch, &path).body(body)).await?;
        written(session, &path, &reply)
    }
}

impl Delete {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let place = Place::find(session, &self.target).await?;
        let (path, reply) = if self.versions.is_empty() {
            let path = place.api("data");
            let reply = session.delete(&path).await?;
            (path, reply)
        } else {
            let place = Place::find_versioned(session, &self.target, "versions").await?;
            let path = place.api("delete");
            let reply = session.write(&path, json!({ "versions": self.versions })).await?;
            (path, reply)
        };
        session.output().reply(&reply, &format!("Data deleted (if it existed) at: {path}"))
    }
}

impl Versions {
    pub(super) async fn run(self, session: &mut Session<'_>, verb: &str) -> Result<(), CliError> {
        let place = Place::find_versioned(session, &self.target, "versions").await?;
        let path = place.api(verb);
        let reply = session.write(&path, json!({ "versions": self.versions })).await?;
        session.output().reply(&reply, &format!("Data written to: {path}"))
    }
}

impl Rollback {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let place = Place::find_versioned(session, &self.target, "versions").await?;
        let metadata = session.client.read(&place.api("metadata")).await?;
        let latest = metadata.data().get("current_version").and_then(Value::as_u64);
        let wanted = self.version.to_string();
        let request = Request::new(Verb::Read, &place.api("data")).query("version", &wanted);
        let old = session.client.send(request).await?;
        let Some(values) = member(&old, "data").cloned() else {
            return Err(CliError::local(
                format!("version {wanted} has no values"),
                "undelete it first, or choose another version",
            ));
        };
        // Whoever wrote in between would be overwritten without the check.
        put(session, &place, values, latest).await
    }
}

impl List {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let place = Place::find(session, &self.target).await?;
        let request = Request::new(Verb::List, &place.api("metadata")).retried();
        let reply = session.send(request).await?;
        session.output().keys(&reply)
    }
}

fn member<'r>(reply: &'r Reply, name: &str) -> Option<&'r Map<String, Value>> {
    reply.data().get(name).and_then(Value::as_object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_and_set_travels_only_when_asked_for() {
        let values = || json!({"a": "1"}).as_object().unwrap().clone();
        assert_eq!(versioned_body(values(), None), json!({"data": {"a": "1"}}));
        assert_eq!(
            versioned_body(values(), Some(0)),
            json!({"data": {"a": "1"}, "options": {"cas": 0}})
        );
    }
}
