//! What became of everything: counted, and listed where somebody has to do something.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::cli::error::CliError;
use crate::cli::output::Output;

/// What became of one thing.
pub(super) enum Outcome {
    /// It was written, or would be.
    Copied,
    /// It was there already.
    InPlace,
    /// Something else is there, and was left as it is.
    Kept,
    /// Both sides have the same.
    Equal,
    /// The sides differ, in this.
    Different(String),
    /// It cannot be copied.
    Left {
        /// Why.
        reason: String,
        /// What to do about it.
        next: String,
    },
}

/// One thing, and what became of it. `count` things of a kind may share an entry.
pub(super) struct Entry {
    pub(super) kind: &'static str,
    pub(super) path: String,
    pub(super) outcome: Outcome,
    pub(super) count: u64,
}

impl Entry {
    pub(super) fn new(kind: &'static str, path: impl Into<String>, outcome: Outcome) -> Self {
        Self { kind, path: path.into(), outcome, count: 1 }
    }

    /// What cannot be copied, why, and what to do.
    pub(super) fn left(
        kind: &'static str,
        path: impl Into<String>,
        reason: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        let outcome = Outcome::Left { reason: reason.into(), next: next.into() };
        Self::new(kind, path, outcome)
    }
}

#[derive(Default)]
struct Counts {
    copied: u64,
    in_place: u64,
    kept: u64,
    equal: u64,
    different: u64,
    left: u64,
}

struct Listed {
    kind: &'static str,
    path: String,
    reason: String,
    next: String,
}

/// All entries so far.
#[derive(Default)]
pub(super) struct Ledger {
    counts: BTreeMap<&'static str, Counts>,
    left: Vec<Listed>,
    /// What was listed as not copied, each with the reasons.
    known: BTreeMap<(&'static str, String), BTreeSet<String>>,
    different: Vec<Listed>,
}

impl Ledger {
    /// Takes an entry. What could not be copied is no difference on top.
    pub(super) fn add(&mut self, entry: Entry) {
        let Entry { kind, path, outcome, count } = entry;
        let counts = self.counts.entry(kind).or_default();
        match outcome {
            Outcome::Copied => counts.copied += count,
            Outcome::InPlace => counts.in_place += count,
            Outcome::Kept => counts.kept += count,
            Outcome::Equal => counts.equal += count,
            Outcome::Different(_) if self.known.contains_key(&(kind, path.clone())) => {}
            Outcome::Different(reason) => {
                counts.different += count;
                let next = "look at both sides; -overwrite replaces what is here".to_owned();
                self.different.push(Listed { kind, path, reason, next });
            }
            Outcome::Left { reason, next } => {
                let reasons = self.known.entry((kind, path.clone())).or_default();
                // The comparison meets it again.
                if reasons.insert(reason.clone()) {
                    counts.left += count;
                    self.left.push(Listed { kind, path, reason, next });
                }
            }
        }
    }

    /// How many things were listed as not copied.
    pub(super) fn left(&self) -> usize {
        self.left.len()
    }

    /// Whether the sides differ in anything that could be copied.
    pub(super) fn differs(&self) -> bool {
        !self.different.is_empty()
    }

    /// Everything, for programs.
    pub(super) fn to_json(&self, finished: bool) -> Value {
        let counts = self.counts.iter().map(|(kind, counts)| {
            json!({
                "kind": kind, "copied": counts.copied, "in_place": counts.in_place,
                "kept": counts.kept, "equal": counts.equal, "different": counts.different,
                "not_copied": counts.left,
            })
        });
        let list = |listed: &[Listed]| {
            let rows = listed.iter().map(|one| {
                let Listed { kind, path, reason, next } = one;
                json!({ "kind": kind, "path": path, "reason": reason, "what_to_do": next })
            });
            Value::Array(rows.collect())
        };
        json!({
            "finished": finished,
            "counts": counts.collect::<Vec<_>>(),
            "different": list(&self.different),
            "not_copied": list(&self.left),
        })
    }

    /// Prints everything for people.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub(super) fn show(&self, output: &mut Output) -> Result<(), CliError> {
        let rows: Vec<Vec<String>> = self
            .counts
            .iter()
            .map(|(kind, counts)| {
                let Counts { copied, in_place, kept, equal, different, left } = counts;
                let numbers = [copied, in_place, kept, equal, different, left];
                let cells = numbers.iter().map(ToString::to_string);
                std::iter::once((*kind).to_owned()).chain(cells).collect()
            })
            .collect();
        let headers = ["What", "Copied", "In place", "Kept", "Equal", "Different", "Not copied"];
        output.rows(&headers, &rows, &Value::Null)?;
        for (title, listed) in [("Different", &self.different), ("Not copied", &self.left)] {
            if listed.is_empty() {
                continue;
            }
            let rows: Vec<Vec<String>> = listed
                .iter()
                .map(|one| {
                    let Listed { kind, path, reason, next } = one;
                    vec![(*kind).to_owned(), path.clone(), reason.clone(), next.clone()]
                })
                .collect();
            output.line("")?;
            output.rows(&[title, "Path", "Why", "What to do"], &rows, &Value::Null)?;
        }
        Ok(())
    }

    /// Writes everything to a file of its owner's alone: the names of secrets are in it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn save(&self, path: &Path, finished: bool) -> Result<(), CliError> {
        let failed = || CliError::system(format!("cannot write {}", path.display()));
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed())?;
        writeln!(file, "{:#}", self.to_json(finished)).map_err(failed())?;
        file.persist(path).map_err(|error| failed()(error.error))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_copied_is_listed_once_and_no_difference_on_top() {
        let mut ledger = Ledger::default();
        ledger.add(Entry::left("role", "a", "refused", "do it"));
        ledger.add(Entry::left("role", "a", "refused", "do it"));
        ledger.add(Entry::new("role", "a", Outcome::Different("is not here".to_owned())));
        assert!(!ledger.differs());
        ledger.add(Entry::new("role", "b", Outcome::Different("is not here".to_owned())));
        assert!(ledger.differs());
        let json = ledger.to_json(true);
        assert_eq!(json["not_copied"][0]["what_to_do"], "do it");
        assert_eq!(json["counts"][0]["different"], 1);
        assert_eq!(json["counts"][0]["not_copied"], 1);
        assert_eq!(ledger.left(), 1);
        ledger.add(Entry::left("role", "a", "refused for more", "do it"));
        assert_eq!(ledger.left(), 2);
    }
}
