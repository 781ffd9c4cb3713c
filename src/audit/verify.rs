//! Checks logs against their chain, and names every line that is not as it was written.
//!
//! A line that is edited, removed, repeated, moved or cut is found without any key. What the chain alone
//! cannot show is a log whose end was cut off or rewritten with new hashes throughout: for that, give the
//! end that the chain has to have, from the record beside the log or from the store.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;

use crate::core::audit::chain::{ChainHash, ChainedLine, LINE_BYTES_MAX, LineFault, Witness};

/// Most problems that a report lists; all are counted.
const PROBLEMS_MAX: usize = 1000;
/// Most holes in the numbering that are kept open for lines that come late.
const GAPS_MAX: usize = 1000;

/// What was found.
#[derive(Debug)]
pub struct Report {
    /// Lines read.
    pub lines: u64,
    /// Number of the first entry.
    pub first_seq: Option<u64>,
    /// Whether the first entry is the first of its chain; otherwise earlier logs exist.
    pub from_genesis: bool,
    /// The end of the chain.
    pub head: Option<Witness>,
    /// Problems in the order of files and lines, the first [`PROBLEMS_MAX`] of them.
    pub problems: Vec<Problem>,
    /// How many problems there are.
    pub problems_total: u64,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_intact(&self) -> bool {
        self.problems_total == 0
    }
}

/// Something wrong with one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The log.
    pub file: PathBuf,
    /// The line, counted from 1; zero when the log is empty.
    pub line: u64,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not an entry at all.
    #[error("{0}")]
    Unreadable(LineFault),
    /// The file ends within the line.
    #[error("is cut off")]
    Torn,
    /// Its bytes do not have the hash it states.
    #[error("was edited (entry {seq})")]
    Edited {
        /// The number it states.
        seq: u64,
    },
    /// It has a right hash, but not the one that the entry after it was chained to.
    #[error("was replaced (entry {seq})")]
    Replaced {
        /// Its number.
        seq: u64,
    },
    /// Entries that should stand before this line are nowhere.
    #[error("entries {from} to {to} are missing before this line")]
    Missing {
        /// First missing number.
        from: u64,
        /// Last missing number.
        to: u64,
    },
    /// It stands later than it was written.
    #[error("entry {seq} is out of order: it belongs before line {before}{}", if *same_file { "" } else { " of an earlier file" })]
    Moved {
        /// Its number.
        seq: u64,
        /// The line it belongs before.
        before: u64,
        /// Whether that line is in the same file.
        same_file: bool,
    },
    /// An entry of this number has been read already.
    #[error("entry {seq} is repeated")]
    Repeated {
        /// Its number.
        seq: u64,
    },
    /// A chain begins anew.
    #[error("a new chain begins here")]
    Restarted,
    /// It has the number of the expected end of the chain, but another hash.
    #[error("entry {seq} is not the one that was witnessed")]
    NotWitnessed {
        /// Its number.
        seq: u64,
    },
    /// The chain ends before its expected end.
    #[error("entries {from} to {to} are missing after this line")]
    EndMissing {
        /// First missing number.
        from: u64,
        /// Last missing number.
        to: u64,
    },
}

/// Why logs could not be checked.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct VerifyError {
    /// Which log.
    pub path: PathBuf,
    /// What the operating system said.
    #[source]
    pub source: io::Error,
}

/// Reads logs, oldest first, as one chain. `expected` is the end that the chain has to reach.
///
/// # Errors
/// When a log cannot be read. Whatever is wrong with its content is in the report.
pub fn verify_files(paths: &[PathBuf], expected: Option<Witness>) -> Result<Report, VerifyError> {
    let mut walk = Walk::new(paths, expected);
    for (file, path) in paths.iter().enumerate() {
        let failed = |source| VerifyError { path: path.clone(), source };
        let opened = File::open(path).map_err(failed)?;
        walk.file(file, BufReader::with_capacity(256 * 1024, opened)).map_err(failed)?;
    }
    Ok(walk.finish())
}

/// A line, by number of file and of line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    file: usize,
    line: u64,
}

/// Numbers that have not been seen, and the line before which they should stand.
struct Gap {
    from: u64,
    to: u64,
    place: Place,
}

/// The first sound line.
struct First {
    witness: Witness,
    prev: ChainHash,
    place: Place,
}

struct Walk<'a> {
    paths: &'a [PathBuf],
    expected: Option<Witness>,
    lines: u64,
    here: Place,
    first: Option<First>,
    /// A first entry that came late: moved, or the beginning of another chain. The next line tells.
    beginning: Option<(Witness, Place)>,
    /// The sound line with the highest number, and where it stands.
    last: Option<(Witness, Place)>,
    /// Unreadable or edited lines since then: each may be one of the numbers that follow.
    unknown: u64,
    gaps: Vec<Gap>,
    problems: Vec<(Place, Fault)>,
    problems_total: u64,
}

impl<'a> Walk<'a> {
    fn new(paths: &'a [PathBuf], expected: Option<Witness>) -> Self {
        Self {
            paths,
            expected,
            lines: 0,
            here: Place::default(),
            first: None,
            beginning: None,
            last: None,
            unknown: 0,
            gaps: Vec::new(),
            problems: Vec::new(),
            problems_total: 0,
        }
    }

    fn file(&mut self, file: usize, mut reader: impl BufRead) -> io::Result<()> {
        self.here = Place { file, line: 0 };
        let mut line = Vec::new();
        loop {
            let read = read_line(&mut reader, &mut line)?;
            if read == LineRead::End {
                return Ok(());
            }
            self.lines += 1;
            self.here.line += 1;
            match (read, ChainedLine::parse(&line)) {
                (LineRead::TooLong, _) => self.unreadable(Fault::Unreadable(LineFault::TooLong)),
                (LineRead::Unfinished, _) => self.unreadable(Fault::Torn),
                (_, Err(fault)) => self.unreadable(Fault::Unreadable(fault)),
                (_, Ok(line)) if !line.intact => {
                    self.unreadable(Fault::Edited { seq: line.witness.seq });
                }
                (_, Ok(line)) => self.sound(line),
            }
        }
    }

    fn unreadable(&mut self, fault: Fault) {
        self.unknown += 1;
        self.report(self.here, fault);
    }

    /// A line whose bytes have the hash it states: does it stand where it belongs?
    fn sound(&mut self, line: ChainedLine) {
        let found = line.witness;
        if let Some(expected) = self.expected
            && expected.seq == found.seq
            && expected.hash != found.hash
        {
            self.report(self.here, Fault::NotWitnessed { seq: found.seq });
        }
        if let Some((beginning, place)) = self.beginning.take() {
            if found.seq == 2 && line.prev == beginning.hash {
                self.report(place, Fault::Restarted);
                self.last = Some((beginning, place));
            } else {
                self.report_moved(place, beginning.seq, self.first.as_ref().map(|f| f.place));
            }
        }
        let Some((last, last_place)) = self.last else {
            if found.seq == 1 && line.prev != ChainHash::GENESIS {
                self.report(self.here, Fault::Replaced { seq: 1 });
            }
            self.first = Some(First { witness: found, prev: line.prev, place: self.here });
            return self.advance(found);
        };
        let next = last.seq.saturating_add(1);
        if found.seq < next {
            return self.late(line);
        }
        if found.seq == next {
            if line.prev != last.hash {
                self.report(last_place, Fault::Replaced { seq: last.seq });
            }
        } else if found.seq > next.saturating_add(self.unknown) {
            let from = next.saturating_add(self.unknown);
            let gap = Gap { from, to: found.seq - 1, place: self.here };
            if self.gaps.len() < GAPS_MAX {
                self.gaps.push(gap);
            } else {
                self.report(gap.place, Fault::Missing { from: gap.from, to: gap.to });
            }
        }
        self.advance(found);
    }

    /// A number that is not above all before it.
    fn late(&mut self, line: ChainedLine) {
        let found = line.witness;
        if let Some(gap) = self.take_from_gap(found.seq) {
            return self.report_moved(self.here, found.seq, Some(gap));
        }
        let Some(first) = &self.first else { return };
        let begins = found.seq == 1 && line.prev == ChainHash::GENESIS;
        if found.seq < first.witness.seq {
            if begins {
                self.beginning = Some((found, self.here));
            } else {
                self.report_moved(self.here, found.seq, Some(first.place));
            }
        } else if begins && found.hash != first.witness.hash {
            self.report(self.here, Fault::Restarted);
            self.advance(found);
        } else {
            self.report(self.here, Fault::Repeated { seq: found.seq });
        }
    }

    fn report_moved(&mut self, place: Place, seq: u64, before: Option<Place>) {
        let before = before.unwrap_or(place);
        let same_file = before.file == place.file;
        self.report(place, Fault::Moved { seq, before: before.line, same_file });
    }

    /// Closes the hole that `seq` fills, and says where it is.
    fn take_from_gap(&mut self, seq: u64) -> Option<Place> {
        let index = self.gaps.iter().position(|gap| (gap.from..=gap.to).contains(&seq))?;
        let gap = self.gaps.swap_remove(index);
        if gap.from < seq {
            self.gaps.push(Gap { from: gap.from, to: seq - 1, place: gap.place });
        }
        if seq < gap.to {
            self.gaps.push(Gap { from: seq + 1, to: gap.to, place: gap.place });
        }
        Some(gap.place)
    }

    fn advance(&mut self, found: Witness) {
        self.last = Some((found, self.here));
        self.unknown = 0;
    }

    fn report(&mut self, place: Place, fault: Fault) {
        self.problems_total += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push((place, fault));
        }
    }

    fn finish(mut self) -> Report {
        if let Some((beginning, place)) = self.beginning.take() {
            self.report_moved(place, beginning.seq, self.first.as_ref().map(|f| f.place));
        }
        for gap in std::mem::take(&mut self.gaps) {
            self.report(gap.place, Fault::Missing { from: gap.from, to: gap.to });
        }
        if let Some(expected) = self.expected {
            let (reached, place) =
                self.last.map_or((0, self.here), |(last, place)| (last.seq, place));
            if reached < expected.seq {
                let from = reached.saturating_add(1);
                self.report(place, Fault::EndMissing { from, to: expected.seq });
            }
        }
        self.problems.sort_by_key(|(place, _)| *place);
        let paths = self.paths;
        let named = |(place, fault): (Place, Fault)| Problem {
            file: paths.get(place.file).cloned().unwrap_or_default(),
            line: place.line,
            fault,
        };
        Report {
            lines: self.lines,
            first_seq: self.first.as_ref().map(|first| first.witness.seq),
            from_genesis: self
                .first
                .is_some_and(|first| first.witness.seq == 1 && first.prev == ChainHash::GENESIS),
            head: self.last.map(|(last, _)| last),
            problems: self.problems.into_iter().map(named).collect(),
            problems_total: self.problems_total,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineRead {
    Whole,
    /// Skipped, but for its beginning.
    TooLong,
    /// Without a newline, at the end of the file.
    Unfinished,
    End,
}

/// Reads up to the next newline, which is left out, and keeps no more than a line can have.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<LineRead> {
    line.clear();
    let mut too_long = false;
    loop {
        let available = match reader.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            return Ok(match (line.is_empty(), too_long) {
                (_, true) => LineRead::TooLong,
                (true, false) => LineRead::End,
                (false, false) => LineRead::Unfinished,
            });
        }
        let newline = available.iter().position(|byte| *byte == b'\n');
        let part = available.get(..newline.unwrap_or(available.len())).unwrap_or_default();
        if line.len() + part.len() > LINE_BYTES_MAX {
            too_long = true;
        } else if !too_long {
            line.extend_from_slice(part);
        }
        let used = part.len() + usize::from(newline.is_some());
        reader.consume(used);
        if newline.is_some() {
            return Ok(if too_long { LineRead::TooLong } else { LineRead::Whole });
        }
    }
}

#[cfg(test)]
mod tests;
