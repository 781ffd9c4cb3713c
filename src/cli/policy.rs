//! `leasehold policy`.

use serde_json::{Map, Value, json};

use super::error::CliError;
use super::session::{Process, Session};
use super::{table, values};
use crate::server::policy_text;

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
    /// Put a policy into the usual style, without a server
    Fmt(Fmt),
    /// Explain why an operation on a path is allowed or denied, and by which rule
    Explain(Explain),
}

/// `leasehold policy fmt`
#[derive(Debug, clap::Args)]
pub struct Fmt {
    /// File with the policy in HCL, which is rewritten; - for standard input to standard output
    file: String,
    /// Change nothing; exit with 1 when the style differs
    #[arg(long)]
    check: bool,
}

impl Fmt {
    /// Formats the file.
    ///
    /// # Errors
    /// A file that cannot be read or written, a policy that the server would refuse, or with
    /// `-check` one in another style.
    pub fn run(&self, process: &mut Process) -> Result<(), CliError> {
        let (file, is_stdin) = (self.file.as_str(), self.file == "-");
        let source = if is_stdin { file.to_owned() } else { format!("@{file}") };
        let text = values::text(&source, process.stdin.as_mut())?;
        let styled = policy_text::format(&text).map_err(|problem| {
            CliError::local(format!("{file}: {problem}"), "put that right and try again")
        })?;
        if self.check {
            return if styled == text {
                Ok(())
            } else {
                Err(CliError::local(
                    format!("{file} is not in the usual style"),
                    format!("run: leasehold policy fmt {file}"),
                ))
            };
        }
        if is_stdin {
            return process.output.raw(&styled);
        }
        if styled != text {
            std::fs::write(file, styled)
                .map_err(CliError::system(format!("cannot write {file}")))?;
        }
        process.output.success(&format!("Formatted policy: {file}"))
    }
}

/// `leasehold policy explain`
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// Path
    path: String,
    /// read, list, create, update, patch or delete
    #[arg(default_value = "read")]
    operation: String,
    /// Judge these policies instead of the caller, or beside those of -entity; may be given several
    /// times
    #[arg(long, value_name = "NAME")]
    policy: Vec<String>,
    /// Judge the token behind this accessor instead of the caller
    #[arg(long, value_name = "ACCESSOR", conflicts_with = "policy")]
    accessor: Option<String>,
    /// Judge this entity instead of the caller, by its policies, those of its groups, and default
    #[arg(long, value_name = "ID", conflicts_with = "accessor")]
    entity: Option<String>,
    /// Judge the entity without default, as where its role says so
    #[arg(long, requires = "entity")]
    no_default_policy: bool,
    /// Parameter of the request, key=value; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    parameter: Vec<String>,
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
            Self::Fmt(command) => command.run(session.process),
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
            body.insert("no_default_policy".to_owned(), json!(self.no_default_policy));
        }
        if !self.parameter.is_empty() {
            let parameters: Map<String, Value> = values::plain(&self.parameter)?
                .into_iter()
                .map(|(name, value)| (name, Value::String(value)))
                .collect();
            body.insert("parameters".to_owned(), Value::Object(parameters));
        }
        let reply = session.write("sys/explain", Value::Object(body)).await?;
        if session.output().is_document() || session.output().wants_field() {
            return session.output().reply(&reply, "");
        }
        for warning in reply.warnings() {
            session.output().warning(&table::printable(warning))?;
        }
        let text = explained(reply.data());
        session.output().line(&table::printable(text.trim_end()))
    }
}

/// The decision, its reason, and the rules as they would stand in a policy: the one that decided first.
fn explained(data: &Value) -> String {
    let text = |name: &str| data.get(name).and_then(Value::as_str).unwrap_or_default();
    let allowed = data.get("allowed").and_then(Value::as_bool) == Some(true);
    let verdict = if allowed { "allowed" } else { "denied" };
    let mut out =
        format!("{verdict}: {} on {}\n{}\n", text("operation"), text("path"), text("reason"));
    if let Some(rule) = data.get("matched").filter(|rule| rule.is_object()) {
        out.push_str(&format!("\nDecided by:\n{}", stanza(rule)));
    }
    let others = data.get("others").and_then(Value::as_array).into_iter().flatten();
    for (index, rule) in others.enumerate() {
        if index == 0 {
            out.push_str("\nAlso match, and count less:\n");
        }
        out.push_str(&stanza(rule));
    }
    if let Some(scopes) = data.get("scopes").and_then(Value::as_array) {
        out.push_str(&format!("\nNarrowed to: {}\n", words(scopes, "")));
    }
    let policies = data.get("policies").and_then(Value::as_array).filter(|all| !all.is_empty());
    if let Some(policies) = policies {
        out.push_str(&format!("\nPolicies asked: {}\n", words(policies, "")));
    }
    out
}

fn stanza(rule: &Value) -> String {
    let list = |name: &str| rule.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let path = rule.get("path").map(Value::to_string).unwrap_or_default();
    let (policies, capabilities) = (list("policies"), list("capabilities"));
    format!(
        "path {path} {{ # {}\n  capabilities = [{}]\n}}\n",
        words(&policies, ""),
        words(&capabilities, "\"")
    )
}

fn words(list: &[Value], quote: &str) -> String {
    let words = list.iter().filter_map(Value::as_str).map(|word| format!("{quote}{word}{quote}"));
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_shows_the_rule_that_decided_as_it_stands_in_a_policy() {
        let data = json!({
            "allowed": false, "operation": "update", "path": "kv/a",
            "reason": "no policy grants update",
            "matched": {"path": "kv/a", "policies": ["one", "two"], "capabilities": ["read"]},
            "others": [{"path": "kv/*", "policies": ["one"], "capabilities": ["list", "read"]}],
            "scopes": null, "policies": ["default", "one", "two"],
        });
        assert_eq!(
            explained(&data),
            "denied: update on kv/a\nno policy grants update\n\nDecided by:\n\
             path \"kv/a\" { # one, two\n  capabilities = [\"read\"]\n}\n\n\
             Also match, and count less:\n\
             path \"kv/*\" { # one\n  capabilities = [\"list\", \"read\"]\n}\n\n\
             Policies asked: default, one, two\n"
        );
    }
}
