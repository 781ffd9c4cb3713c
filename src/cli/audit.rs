//! `leasehold audit`.

use serde_json::Value;

use super::error::CliError;
use super::session::Session;
use super::table;

/// Subcommands of `leasehold audit`.
#[derive(Debug, clap::Subcommand)]
pub enum Audit {
    /// List audit sinks
    List,
}

impl Audit {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        match self {
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
                        let options = text(sink, "options");
                        vec![path.clone(), text(sink, "type"), text(sink, "description"), options]
                    })
                    .collect();
                session.output().rows(&["Path", "Type", "Description", "Options"], &rows, data)
            }
        }
    }
}
