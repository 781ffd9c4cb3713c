//! Steps as they happen: what is tried, and whether it held.

use std::time::Duration;

use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::types::time::{Clock, SystemClock};

const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "1;31";
const BOLD: &str = "1";

/// The play so far.
pub(super) struct Story<'a> {
    output: &'a mut Output,
    step: u32,
    held: u32,
    skipped: u32,
    since: Duration,
}

impl<'a> Story<'a> {
    pub(super) fn new(output: &'a mut Output) -> Self {
        Self { output, step: 0, held: 0, skipped: 0, since: SystemClock.monotonic() }
    }

    /// Says what comes now.
    pub(super) fn begin(&mut self, what: &str) -> Result<(), CliError> {
        self.step += 1;
        self.since = SystemClock.monotonic();
        let title = self.output.painted_data(&format!("{}. {what}", self.step), BOLD);
        self.output.line(&title)
    }

    /// Says how it went, and how long it took.
    pub(super) fn outcome<T>(
        &mut self,
        result: Result<T, CliError>,
        detail: impl FnOnce(&T) -> String,
    ) -> Result<T, CliError> {
        let now = SystemClock.monotonic();
        let took = now.saturating_sub(std::mem::replace(&mut self.since, now)).as_millis();
        match result {
            Ok(value) => {
                self.held += 1;
                let mark = self.output.painted_data("ok", GREEN);
                self.output.line(&format!("   {mark}  {} ({took} ms)", detail(&value)))?;
                Ok(value)
            }
            Err(error) => {
                let mark = self.output.painted_data("failed", RED);
                self.output.line(&format!("   {mark}  {}", error.what()))?;
                Err(error)
            }
        }
    }

    /// Says how far something slow is.
    pub(super) fn waiting(&mut self, text: &str) -> Result<(), CliError> {
        self.output.progress(&format!("   ..  {text}"))
    }

    /// Ends a line that was rewritten in place.
    pub(super) fn waited(&mut self) -> Result<(), CliError> {
        self.output.end_progress()
    }

    /// Says why a step is left out.
    pub(super) fn skipped(&mut self, why: &str) -> Result<(), CliError> {
        self.skipped += 1;
        let mark = self.output.painted_data("skipped", YELLOW);
        self.output.line(&format!("   {mark}  {why}"))
    }

    /// Sums up.
    pub(super) fn end(self) -> Result<(), CliError> {
        let skipped = match self.skipped {
            0 => String::new(),
            count => format!(", {count} skipped"),
        };
        self.output.line(&format!("\n{} checks held{skipped}.", self.held))
    }
}
