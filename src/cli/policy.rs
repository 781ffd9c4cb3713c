//! `leasehold policy`.

use serde_json::{Map, Value, json};

use super::error::CliError;
use super::session::Session;
use super::values;

/// Subcommands of `leasehold policy`.
#[derive(Debug, clap::Subcommand)]
pub enum Policy {
    /// List policies
    List,
    /// Print a policy
    Read {
        /// Name
        name: String,
    },
    /// Create or replace a policy
    Write {
        /// Name
        name: String,
        /// File with the policy in HCL or JSON; - for standard input
        file: String,
    },
    /// Delete a policy
    Delete {
        /// Name
        name: String,
    },
    /// Explain why an operation on a path is allowed or denied
    Explain(Explain),
}

/// `leasehold policy explain`
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// Path
    path: String,
    /// read, list, create, update, patch or delete
    #[arg(default_value = "read")]
    operation: String,
    /// Judge these policies instead of the caller's; may be given several times
    #[arg(long, value_name = "NAME")]
    policy: Vec<String>,
    /// Judge the token behind this accessor instead of the caller
    #[arg(long, value_name = "ACCESSOR", conflicts_with = "policy")]
    accessor: Option<String>,
    /// Judge this entity instead of the caller
    #[arg(long, value_name = "ID", conflicts_with_all = ["policy", "accessor"])]
    entity: Option<String>,
}

impl Policy {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        match self {
            Self::List => {
                let reply = session.list("sys/policies/acl").await?;
                session.output().keys(&reply)
            }
            Self::Read { name } => {
                let reply = session.read(&format!("sys/policies/acl/{name}")).await?;
                if session.output().is_document() || session.output().wants_field() {
                    return session.output().reply(&reply, "");
                }
                let text = reply.text("policy").ok_or(CliError::Answer("policy"))?.to_owned();
                session.output().line(text.trim_end())
            }
            Self::Write { name, file } => {
                let source = if file == "-" { file } else { format!("@{file}") };
                let text = values::text(&source, session.process.stdin.as_mut())?;
                let path = format!("sys/policies/acl/{name}");
                let reply = session.write(&path, json!({ "policy": text })).await?;
                session.output().reply(&reply, &format!("Uploaded policy: {name}"))
            }
            Self::Delete { name } => {
                let reply = session.delete(&format!("sys/policies/acl/{name}")).await?;
                session.output().reply(&reply, &format!("Deleted policy: {name}"))
            }
            Self::Explain(command) => command.run(session).await,
        }
    }
}

impl Explain {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let mut body = Map::new();
        body.insert("path".to_owned(), json!(self.path));
        body.insert("operation".to_owned(), json!(self.operation));
        if !self.policy.is_empty() {
            body.insert("policies".to_owned(), json!(self.policy));
        }
        if let Some(accessor) = self.accessor {
            body.insert("accessor".to_owned(), json!(accessor));
        }
        if let Some(entity) = self.entity {
            body.insert("entity_id".to_owned(), json!(entity));
        }
        if body.len() == 2 {
            let (name, value) = oneself(session).await?;
            body.insert(name.to_owned(), value);
        }
        let reply = session.write("sys/explain", Value::Object(body)).await?;
        session.output().reply(&reply, "")
    }
}

/// How the server knows the caller: a token by its accessor, a certificate by its policies.
async fn oneself(session: &Session<'_>) -> Result<(&'static str, Value), CliError> {
    let reply = session.read("auth/token/lookup-self").await?;
    if let Some(accessor) = reply.text("accessor").filter(|accessor| !accessor.is_empty()) {
        return Ok(("accessor", json!(accessor)));
    }
    let policies = reply.data().get("policies").cloned();
    Ok(("policies", policies.ok_or(CliError::Answer("policies"))?))
}
