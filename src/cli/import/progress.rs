//! How far the import is: a bar on a terminal, now and then a line elsewhere.

use crate::cli::error::CliError;
use crate::cli::output::Output;

/// Width of the bar, in characters.
const BAR: usize = 30;
/// Lines for one part where nobody watches.
const LINES: usize = 10;

/// One part at a time.
#[derive(Default)]
pub(super) struct Progress {
    what: String,
    all: usize,
    done: usize,
}

impl Progress {
    /// Begins a part with `all` things.
    pub(super) fn begin(
        &mut self,
        output: &mut Output,
        what: &str,
        all: usize,
    ) -> Result<(), CliError> {
        *self = Self { what: what.to_owned(), all, done: 0 };
        if all == 0 { Ok(()) } else { self.show(output, 0) }
    }

    /// One more is done; `left` were not copied so far.
    pub(super) fn advance(&mut self, output: &mut Output, left: usize) -> Result<(), CliError> {
        self.done += 1;
        let step = (self.all / LINES).max(1);
        let told = self.done == self.all || self.done.is_multiple_of(step);
        if told || output.rewrites_progress() { self.show(output, left) } else { Ok(()) }
    }

    /// Ends the part.
    pub(super) fn end(&self, output: &mut Output) -> Result<(), CliError> {
        output.end_progress()
    }

    fn show(&self, output: &mut Output, left: usize) -> Result<(), CliError> {
        let Self { what, all, done } = self;
        let left = if left > 0 { format!(", {left} not copied") } else { String::new() };
        if !output.rewrites_progress() {
            return output.progress(&format!("{what}: {done} of {all}{left}"));
        }
        let full = BAR * done / (*all).max(1);
        let bar = format!("{}{}", "#".repeat(full), "-".repeat(BAR - full.min(BAR)));
        output.progress(&format!("[{bar}] {what}: {done} of {all}{left}"))
    }
}
