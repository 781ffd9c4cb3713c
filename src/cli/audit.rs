//! `leasehold audit`.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::error::CliError;
use super::session::{Process, Session};
use super::table;
use super::values;
use crate::server::audit_verify;

/// Subcommands of `leasehold audit`.
#[derive(Debug, clap::Subcommand)]
pub enum Audit {
    /// List audit sinks
    List,
    /// Check that the configuration has a sink; it is added there, and nowhere else
    Enable(Enable),
    /// Take a sink away, which the server refuses: the configuration says where it records
    Disable {
        /// Path of the sink, as list shows it
        path: String,
    },
    /// Show what a text looks like in the audit
    Hash {
        /// Path of the sink, as list shows it
        path: String,
        /// The text; asked for unseen when absent, - for standard input
        input: Option<String>,
    },
    /// Check logs against their hash chain, without a server; exits with 1 when a line is not as it
    /// was written
    Verify(Verify),
}

/// `leasehold audit enable`
#[derive(Debug, clap::Args)]
pub struct Enable {
    /// Type: file
    r#type: String,
    /// Options of the sink, such as file_path=/var/log/audit.log
    #[arg(value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// Name of the sink [default: the type]
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Text for people
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

/// `leasehold audit verify`
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// Logs, oldest first
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Verify {
    /// Reads the logs and names every line that is not as it was written.
    ///
    /// # Errors
    /// A log that cannot be read, or one that is not intact.
    pub fn run(&self, process: &mut Process) -> Result<(), CliError> {
        let report = audit_verify::verify(&self.files).map_err(|error| {
            CliError::system(format!("cannot read {}", error.path.display()))(error.source)
        })?;
        let last_seq = report.head.map(|head| head.seq);
        if process.output.is_document() || process.output.wants_field() {
            let problems: Vec<Value> = report
                .problems
                .iter()
                .map(|problem| {
                    let fault = problem.fault.to_string();
                    json!({ "file": problem.file, "line": problem.line, "fault": fault })
                })
                .collect();
            process.output.object(&json!({
                "intact": report.is_intact(),
                "lines": report.lines,
                "first_entry": report.first_seq,
                "last_entry": last_seq,
                "from_genesis": report.from_genesis,
                "problems": problems,
                "problems_total": report.problems_total,
            }))?;
        } else {
            for problem in &report.problems {
                let (file, line) = (problem.file.display(), problem.line);
                let text = format!("{file}:{line}: {}", problem.fault);
                process.output.line(&table::printable(&text))?;
            }
        }
        if !report.is_intact() {
            return Err(CliError::local(
                format!("the audit chain is broken: {} problems", report.problems_total),
                "compare the lines named above with a copy kept elsewhere",
            ));
        }
        if report.lines > 0 && !report.from_genesis {
            let first = report.first_seq.unwrap_or_default();
            process.output.note(&format!(
                "The chain begins at entry {first}; name the earlier logs too to check all of it."
            ))?;
        }
        process
            .output
            .success(&format!("{} entries, none changed, missing or moved.", report.lines))
    }
}

impl Audit {
    /// Runs the subcommand that asks the server.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        match self {
            Self::Verify(command) => command.run(session.process),
            Self::Enable(command) => command.run(session).await,
            Self::Disable { path } => {
                let path = path.trim_matches('/');
                let reply = session.delete(&format!("sys/audit/{path}")).await?;
                session.output().reply(&reply, &format!("There is no audit sink at {path}/."))
            }
            Self::Hash { path, input } => {
                let input = session.secret(input.as_deref(), "Text (will not be shown): ")?;
                let path = format!("sys/audit-hash/{}", path.trim_matches('/'));
                let reply = session.write(&path, json!({ "input": input.expose() })).await?;
                session.output().reply(&reply, "")
            }
            Self::List => {
                let reply = session.read("sys/audit").await?;
                let data = reply.data();
                let text =
                    |sink: &Value, name: &str| sink.get(name).map(table::cell).unwrap_or_default();
                let rows: Vec<_> = data
                    .as_object()
                    .into_iter()
                    .flatten()
                    .filter(|(_, sink)| sink.get("type").is_some())
                    .map(|(path, sink)| {
                        let names = ["type", "healthy", "pending", "last_entry"];
                        std::iter::once(path.clone())
                            .chain(names.iter().map(|name| text(sink, name)))
                            .collect()
                    })
                    .collect();
                let headers = ["Path", "Type", "Healthy", "Waiting", "Last Entry"];
                session.output().rows(&headers, &rows, data)
            }
        }
    }
}

impl Enable {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let options: serde_json::Map<String, Value> = values::plain(&self.options)?
            .into_iter()
            .map(|(name, value)| (name, Value::String(value)))
            .collect();
        let path = self.path.as_deref().unwrap_or(&self.r#type).trim_matches('/').to_owned();
        let body = json!({
            "type": self.r#type,
            "description": self.description.unwrap_or_default(),
            "options": options,
        });
        let reply = session.write(&format!("sys/audit/{path}"), body).await?;
        session.output().reply(&reply, &format!("The audit records at {path}/."))
    }
}
