//! `read`, `write`, `list`, `delete`, `patch`, `unwrap`: any path, as it is.

use serde_json::{Value, json};

use super::error::CliError;
use super::session::Session;
use super::values;
use crate::client::{Request, Verb};

/// `leasehold read`
#[derive(Debug, clap::Args)]
pub struct Read {
    /// Path, for example database/creds/reporting
    path: String,
    /// Query parameters, key=value
    #[arg(value_name = "KEY=VALUE")]
    query: Vec<String>,
}

/// `leasehold write`
#[derive(Debug, clap::Args)]
pub struct Write {
    /// Path, for example database/roles/reporting
    path: String,
    /// Values: key=value, key=@file, key=- for standard input, @file.json or - for a JSON object
    #[arg(value_name = "KEY=VALUE")]
    values: Vec<String>,
    /// Write without any values
    #[arg(long, short)]
    force: bool,
}

/// `leasehold patch`
#[derive(Debug, clap::Args)]
pub struct Patch {
    /// Path
    path: String,
    /// Values to change, as for write; null in JSON removes
    #[arg(value_name = "KEY=VALUE", required = true)]
    values: Vec<String>,
}

/// `leasehold list`
#[derive(Debug, clap::Args)]
pub struct List {
    /// Path, for example secret/metadata
    path: String,
    /// First name to leave out of the page, as the page before ended
    #[arg(long, value_name = "NAME")]
    after: Option<String>,
    /// Most names to list
    #[arg(long, value_name = "COUNT")]
    limit: Option<u32>,
}

/// `leasehold delete`
#[derive(Debug, clap::Args)]
pub struct Delete {
    /// Path
    path: String,
    /// Query parameters, key=value
    #[arg(value_name = "KEY=VALUE")]
    query: Vec<String>,
}

/// `leasehold unwrap`
#[derive(Debug, clap::Args)]
pub struct Unwrap {
    /// Wrapping token; - for standard input
    token: Option<String>,
}

impl Read {
    /// Reads and prints.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let request = with_query(Request::new(Verb::Read, &self.path).retried(), &self.query)?;
        let reply = session.send(request).await?;
        session.output().reply(&reply, &format!("Nothing at {}", self.path))
    }
}

impl Write {
    /// Writes and prints what comes back.
    ///
    /// # Errors
    /// No values without `-force`, or as the server answers.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        if self.values.is_empty() && !self.force {
            return Err(CliError::local(
                "no values to write",
                "give key=value, or -force to write without any",
            ));
        }
        let body = values::parse(&self.values, session.process.stdin.as_mut())?;
        let reply = session.write(&self.path, Value::Object(body)).await?;
        session.output().reply(&reply, &format!("Data written to: {}", self.path))
    }
}

impl Patch {
    /// Patches and prints what comes back.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let body = values::parse(&self.values, session.process.stdin.as_mut())?;
        let request = Request::new(Verb::Patch, &self.path).body(Value::Object(body));
        let reply = session.send(request).await?;
        session.output().reply(&reply, &format!("Data patched at: {}", self.path))
    }
}

impl List {
    /// Lists and prints.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let mut request = Request::new(Verb::List, &self.path).retried();
        if let Some(after) = &self.after {
            request = request.query("after", after);
        }
        if let Some(limit) = self.limit {
            request = request.query("limit", &limit.to_string());
        }
        let reply = session.send(request).await?;
        session.output().keys(&reply)
    }
}

impl Delete {
    /// Deletes.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let request = with_query(Request::new(Verb::Delete, &self.path), &self.query)?;
        let reply = session.send(request).await?;
        session.output().reply(&reply, &format!("Data deleted (if it existed) at: {}", self.path))
    }
}

impl Unwrap {
    /// Exchanges the wrapping token for the answer inside it.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CliError> {
        let token = session.secret(self.token.as_deref(), "Wrapping token: ")?;
        let reply =
            session.write("sys/wrapping/unwrap", json!({ "token": token.expose() })).await?;
        session.output().reply(&reply, "The wrapped answer was empty")
    }
}

fn with_query(mut request: Request, args: &[String]) -> Result<Request, CliError> {
    for (name, value) in values::plain(args)? {
        request = request.query(&name, &value);
    }
    Ok(request)
}
