//! What commands print: data on standard output, everything meant for a person on standard error.

use std::io::Write;

use serde_json::{Map, Value, json};

use super::error::CliError;
use super::{table, yaml};
use crate::client::Reply;

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns for people.
    #[default]
    Table,
    /// The server's JSON, for programs.
    Json,
    /// The same as YAML.
    #[value(alias = "yml")]
    Yaml,
}

/// Where a command's output goes, and in which form.
pub struct Output {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    format: Format,
    field: Option<String>,
    out_is_terminal: bool,
    err_is_terminal: bool,
    colour: bool,
    progress_shown: bool,
}

/// The two streams, and whether a person watches them.
pub struct Streams {
    /// Data.
    pub out: Box<dyn Write + Send>,
    /// Prompts, progress, warnings and errors.
    pub err: Box<dyn Write + Send>,
    /// Whether `out` is a terminal.
    pub out_is_terminal: bool,
    /// Whether `err` is a terminal.
    pub err_is_terminal: bool,
    /// Whether colour is welcome on a terminal.
    pub colour: bool,
}

impl Output {
    /// Prints to `streams`, as a table until [`Output::configure`] says otherwise.
    pub fn new(streams: Streams) -> Self {
        Self {
            out: streams.out,
            err: streams.err,
            format: Format::Table,
            field: None,
            out_is_terminal: streams.out_is_terminal,
            err_is_terminal: streams.err_is_terminal,
            colour: streams.colour,
            progress_shown: false,
        }
    }

    /// Sets the form: `field` prints that one value alone.
    pub fn configure(&mut self, format: Format, field: Option<String>) {
        self.format = format;
        self.field = field;
    }

    /// Whether data is to be printed whole, for programs: as JSON or YAML.
    pub fn is_document(&self) -> bool {
        self.format != Format::Table
    }

    /// Whether one field alone was asked for.
    pub fn wants_field(&self) -> bool {
        self.field.is_some()
    }

    /// Prints an answer: its data, token, wrapping or lease, then its warnings. An answer without
    /// any of them prints `done`.
    ///
    /// # Errors
    /// A missing field, or output that cannot be written.
    pub fn reply(&mut self, reply: &Reply, done: &str) -> Result<(), CliError> {
        self.warnings(reply)?;
        if let Some(name) = self.field.clone() {
            let rows = table::reply_rows(&reply.body);
            return match table::reply_field(&reply.body, &rows, &name) {
                Some(value) => self.raw(&value),
                None => Err(no_field(&name)),
            };
        }
        if reply.body.is_null() {
            return self.success(done);
        }
        if self.is_document() {
            return self.document(&reply.body);
        }
        let rows = table::reply_rows(&reply.body);
        if rows.is_empty() { self.success(done) } else { self.pairs(&rows) }
    }

    /// Prints the members of one object.
    ///
    /// # Errors
    /// A missing field, or output that cannot be written.
    pub fn object(&mut self, object: &Value) -> Result<(), CliError> {
        if let Some(name) = self.field.clone() {
            return match object.get(&name) {
                Some(value) => self.raw(&table::cell(value)),
                None => Err(no_field(&name)),
            };
        }
        if self.is_document() {
            return self.document(object);
        }
        let rows: Vec<_> = object
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), table::cell(value)))
            .collect();
        self.pairs(&rows)
    }

    /// Prints `rows` under `headers`; for programs `data`, whole or the one field of it.
    ///
    /// # Errors
    /// A missing field, or output that cannot be written.
    pub fn rows(
        &mut self,
        headers: &[&str],
        rows: &[Vec<String>],
        data: &Value,
    ) -> Result<(), CliError> {
        if self.wants_field() {
            return self.object(data);
        }
        if self.is_document() {
            return self.document(data);
        }
        let text = table::columns(headers, rows);
        self.out(&text)
    }

    /// Prints the names in `data.keys`.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn keys(&mut self, reply: &Reply) -> Result<(), CliError> {
        self.warnings(reply)?;
        let empty = Value::Array(Vec::new());
        let keys = reply.data().get("keys").unwrap_or(&empty);
        let rows: Vec<_> =
            keys.as_array().into_iter().flatten().map(|key| vec![table::cell(key)]).collect();
        self.rows(&["Keys"], &rows, keys)
    }

    /// Prints aligned `Key Value` lines under a heading.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn section(&mut self, title: &str, object: &Map<String, Value>) -> Result<(), CliError> {
        let rows: Vec<_> =
            object.iter().map(|(key, value)| (key.clone(), table::cell(value))).collect();
        let text = table::titled(title, &rows);
        self.out(&text)
    }

    /// Prints one value exactly; a line break follows only on a terminal.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn raw(&mut self, text: &str) -> Result<(), CliError> {
        self.out(text)?;
        if self.out_is_terminal { self.out("\n") } else { Ok(()) }
    }

    /// Prints a line of data.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn line(&mut self, text: &str) -> Result<(), CliError> {
        self.out(&format!("{text}\n"))
    }

    /// Prints data whole: as YAML when that was asked for, else as indented JSON.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn document(&mut self, value: &Value) -> Result<(), CliError> {
        match self.format {
            Format::Yaml => self.out(&yaml::rendered(value)),
            Format::Json | Format::Table => self.line(&format!("{value:#}")),
        }
    }

    /// Says that something was done: to people only, programs look at the exit status.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn success(&mut self, text: &str) -> Result<(), CliError> {
        if self.is_document() { Ok(()) } else { self.line(&format!("Success! {text}")) }
    }

    /// A line for the person at the terminal.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn note(&mut self, text: &str) -> Result<(), CliError> {
        self.end_progress()?;
        self.err(&format!("{text}\n"))
    }

    /// A warning for the person at the terminal.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn warning(&mut self, text: &str) -> Result<(), CliError> {
        self.end_progress()?;
        let label = self.painted("warning:", "33");
        self.err(&format!("{label} {text}\n"))
    }

    /// How far something is: rewritten in place on a terminal, a line each elsewhere.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn progress(&mut self, text: &str) -> Result<(), CliError> {
        if !self.err_is_terminal {
            return self.err(&format!("{text}\n"));
        }
        self.progress_shown = true;
        self.err(&format!("\r\u{1b}[K{text}"))
    }

    /// Whether progress is rewritten in place, so that it may be told often.
    pub fn rewrites_progress(&self) -> bool {
        self.err_is_terminal
    }

    /// Prints what failed and what to do next, one line each.
    pub fn failure(&mut self, error: &CliError) {
        if error.is_broken_pipe() {
            return;
        }
        let (what, hint) = (self.painted("error:", "1;31"), self.painted("hint:", "36"));
        // There is nowhere left to report a failing standard error to.
        let _ = self.end_progress();
        let _ = self.err(&format!("{what} {}\n{hint} {}\n", error.what(), error.hint()));
    }

    /// Text in an ANSI colour where standard error takes colour.
    pub fn painted(&self, text: &str, colour: &str) -> String {
        if self.colour && self.err_is_terminal {
            format!("\u{1b}[{colour}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// Text in an ANSI colour where standard output takes colour.
    pub fn painted_data(&self, text: &str, colour: &str) -> String {
        if self.colour && self.out_is_terminal {
            format!("\u{1b}[{colour}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    fn warnings(&mut self, reply: &Reply) -> Result<(), CliError> {
        for warning in reply.warnings() {
            self.warning(&table::printable(warning))?;
        }
        Ok(())
    }

    fn pairs(&mut self, rows: &[(String, String)]) -> Result<(), CliError> {
        let rows: Vec<_> =
            rows.iter().map(|(key, value)| vec![key.clone(), value.clone()]).collect();
        let text = table::columns(&["Key", "Value"], &rows);
        self.out(&text)
    }

    /// Ends a line of progress that was rewritten in place.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn end_progress(&mut self) -> Result<(), CliError> {
        if std::mem::take(&mut self.progress_shown) { self.err("\n") } else { Ok(()) }
    }

    fn out(&mut self, text: &str) -> Result<(), CliError> {
        self.out
            .write_all(text.as_bytes())
            .and_then(|()| self.out.flush())
            .map_err(CliError::Output)
    }

    fn err(&mut self, text: &str) -> Result<(), CliError> {
        self.err
            .write_all(text.as_bytes())
            .and_then(|()| self.err.flush())
            .map_err(CliError::Output)
    }
}

fn no_field(name: &str) -> CliError {
    CliError::local(
        format!("the answer has no field \"{name}\""),
        "leave -field away to see what there is",
    )
}

/// The members of `object` that are set, in the order of `names`, under the labels beside them.
pub fn labelled(object: &Value, names: &[(&str, &str)]) -> Value {
    let mut out = Map::new();
    for (name, label) in names {
        if let Some(value) = object.get(*name).filter(|value| !value.is_null()) {
            out.insert((*label).to_owned(), value.clone());
        }
    }
    json!(out)
}
