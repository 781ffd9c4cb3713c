//! `leasehold openapi` and `leasehold path-help`.

use super::error::CliError;
use super::session::{Process, Session};
use crate::client::{Request, Verb};
use crate::server;

/// `leasehold openapi`
#[derive(Debug, clap::Args)]
pub struct OpenApi {
    /// With -address: give the path of each mount as a parameter
    #[arg(long)]
    generic_mount_paths: bool,
}

/// `leasehold path-help`
#[derive(Debug, clap::Args)]
pub struct PathHelp {
    /// Path, for example secret/data/app
    path: String,
}

impl OpenApi {
    /// Prints the document of this build.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn print(&self, process: &mut Process) -> Result<(), CliError> {
        let document = server::openapi::generic().map_err(|error| {
            CliError::local(format!("no document: {error}"), "report this as a fault")
        })?;
        process.output.line(&format!("{document:#}"))
    }

    /// Prints the document of a server.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let mut request = Request::new(Verb::Read, "sys/internal/specs/openapi").retried();
        if self.generic_mount_paths {
            request = request.query("generic_mount_paths", "true");
        }
        let reply = session.send(request).await?;
        session.output().line(&format!("{:#}", reply.body))
    }
}

impl PathHelp {
    /// Asks and prints.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let request = Request::new(Verb::Read, &self.path).query("help", "1").retried();
        let reply = session.send(request).await?;
        if session.output().is_document() || session.output().wants_field() {
            return session.output().object(&reply.body);
        }
        let help = reply.body.get("help").and_then(serde_json::Value::as_str);
        let text = help.ok_or(CliError::Answer("help"))?.trim_end().to_owned();
        session.output().line(&text)
    }
}
