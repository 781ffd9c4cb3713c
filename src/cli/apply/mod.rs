//! `leasehold apply`: brings a broker to what a document says, and says what would change.

mod document;
mod plan;
mod prune;
mod secrets;
mod show;
mod territory;

use std::io::Read;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::Finish;
use super::error::CliError;
use super::session::{Process, Session};
use document::{Ask, Document};
use plan::{Deed, Given, Plan, Planner, Purpose, Step};

/// Longest answer to the question whether to go on, in bytes.
const ANSWER_BYTES_MAX: usize = 64;

/// `leasehold apply`
#[derive(Debug, clap::Args)]
pub struct Apply {
    /// TOML document that says what the broker is to have
    #[arg(long, short, value_name = "FILE")]
    file: PathBuf,
    /// Only look: exits with 0 when nothing differs, 2 when something does, 1 when it cannot tell
    #[arg(long)]
    check: bool,
    /// Do not ask before changing anything
    #[arg(long, conflicts_with = "check")]
    auto_approve: bool,
    /// Write secrets too that cannot be compared because the server does not answer them
    #[arg(long, conflicts_with = "check")]
    write_secrets: bool,
    /// Delete what the document does not name: policies, password-policies, mounts, auth, quotas,
    /// or a path such as auth/approle/role; separated by commas
    #[arg(long, value_name = "SCOPES", value_delimiter = ',')]
    prune: Vec<String>,
    /// Let -prune delete mounts that may hold something, with all they hold
    #[arg(long, requires = "prune")]
    prune_data: bool,
}

impl Apply {
    /// Compares, and makes the broker as the document says unless it is only to look.
    ///
    /// # Errors
    /// A document with mistakes; as the server answers; with `-check`, every error is a local one.
    pub async fn run(self, session: &mut Session<'_>) -> Result<Finish, CliError> {
        if self.check {
            return self.look(session).await.map_err(|error| CliError::Unchecked(Box::new(error)));
        }
        let plan = self.plan(session).await?;
        let is_document = session.output().is_document();
        if !is_document {
            show::people(&plan, session.output())?;
        }
        if !plan.steps.is_empty() && !self.auto_approve {
            if is_document && session.process.stdin_is_terminal {
                session.output().note(&format!("{} to apply.", count(plan.steps.len())))?;
            }
            confirm(session.process)?;
        }
        let (done, failure) = carry_out(&plan, session).await;
        if is_document {
            session.output().document(&show::programs(&plan, Some(done)))?;
        }
        match failure {
            Some(error) => {
                let all = plan.steps.len();
                let told = format!("{done} of {} made, then it stopped.", count(all));
                session.output().note(&told)?;
                Err(error)
            }
            None if done == 0 => Ok(Finish::Done),
            None => {
                session.output().success(&format!("{} made.", count(done)))?;
                Ok(Finish::Done)
            }
        }
    }

    async fn look(&self, session: &mut Session<'_>) -> Result<Finish, CliError> {
        let plan = self.plan(session).await?;
        if session.output().is_document() {
            session.output().document(&show::programs(&plan, None))?;
        } else {
            show::people(&plan, session.output())?;
        }
        Ok(if plan.steps.is_empty() { Finish::Done } else { Finish::Drift })
    }

    async fn plan(&self, session: &mut Session<'_>) -> Result<Plan, CliError> {
        let document = self.document(session.process)?;
        let purpose = Purpose { check: self.check, write_secrets: self.write_secrets };
        let env = &session.process.env;
        let mut planner = Planner::start(&session.client, env, purpose, &document).await?;
        planner.compare(&document).await?;
        planner.prune(&document, &self.prune, self.prune_data).await?;
        Ok(planner.plan)
    }

    fn document(&self, process: &mut Process) -> Result<Document, CliError> {
        let file = self.file.display();
        let text = document::read_file(&self.file)
            .map_err(CliError::system(format!("cannot read {file}")))?;
        document::parse(&text, &document::base(&self.file)).or_else(|problems| {
            for problem in &problems {
                process.output.note(&format!("{file}: {problem}"))?;
            }
            let count = match problems.len() {
                1 => "1 mistake".to_owned(),
                count => format!("{count} mistakes"),
            };
            Err(CliError::local(
                format!("{file} has {count}"),
                "put right what is named above; config/broker.example.toml shows every section",
            ))
        })
    }
}

fn count(changes: usize) -> String {
    if changes == 1 { "1 change".to_owned() } else { format!("{changes} changes") }
}

/// Asks the person at the terminal.
fn confirm(process: &mut Process) -> Result<(), CliError> {
    if !process.stdin_is_terminal {
        return Err(CliError::local(
            "nothing was changed: there is no terminal to ask at",
            "give -auto-approve to go on without asking, or -check to only look",
        ));
    }
    process.output.note("Type yes to go on:")?;
    let mut answer = Vec::new();
    let mut byte = [0u8];
    while answer.len() < ANSWER_BYTES_MAX {
        match process.stdin.read(&mut byte).map_err(CliError::system("cannot read the answer"))? {
            0 => break,
            _ if byte == *b"\n" => break,
            _ => answer.extend(byte),
        }
    }
    if answer.trim_ascii() == b"yes" {
        return Ok(());
    }
    Err(CliError::local("nothing was changed", "type yes to go on"))
}

/// Takes the steps one after the other, up to the first that fails. Says how many were taken.
async fn carry_out(plan: &Plan, session: &mut Session<'_>) -> (usize, Option<CliError>) {
    for (done, step) in plan.steps.iter().enumerate() {
        if let Err(error) = take(step, session).await {
            return (done, Some(error.at(format!("{} {}", step.kind.name(), step.name))));
        }
    }
    (plan.steps.len(), None)
}

async fn take(step: &Step, session: &mut Session<'_>) -> Result<(), CliError> {
    for deed in &step.deeds {
        let reply = match deed {
            Deed::Delete { path } => session.client.delete(path).await?,
            Deed::Write { path, fields } => {
                let mut body = Map::new();
                for (name, given) in fields {
                    body.insert(name.clone(), value(given, session).await?);
                }
                session.client.write(path, Value::Object(body)).await?
            }
        };
        for warning in reply.warnings() {
            let warning = super::table::printable(warning);
            session.process.output.warning(&format!("{}: {warning}", step.name))?;
        }
    }
    Ok(())
}

async fn value(given: &Given, session: &Session<'_>) -> Result<Value, CliError> {
    match given {
        Given::Plain(value) => Ok(value.clone()),
        Given::Secret(secret) => Ok(Value::String(secret.expose().to_owned())),
        Given::Later(ask) => answer(ask, session).await,
        Given::LaterAll(asks) => {
            let mut out = Vec::new();
            for ask in asks {
                out.push(answer(ask, session).await?);
            }
            Ok(Value::Array(out))
        }
    }
}

async fn answer(ask: &Ask, session: &Session<'_>) -> Result<Value, CliError> {
    plan::ask_now(&session.client, ask).await?.ok_or_else(|| {
        CliError::local(
            format!("{} has no {}", ask.path, ask.field),
            "correct from_read and field, or set that path up earlier in the document",
        )
    })
}

#[cfg(test)]
mod tests;
