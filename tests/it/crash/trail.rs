//! The audit, held against what was answered and what is leased.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};
use std::time::Instant;

use leasehold::audit::file::recorded_head;
use leasehold::audit::verify::{Fault, Report, verify_files};
use serde_json::Value;

use super::World;
use super::check::Seen;
use super::clerk::{Clerk, Fate};

/// What the logs of a world say, read on from check to check.
#[derive(Default)]
pub struct Trail {
    /// Where the last line begins that was read, of each log.
    last_line: BTreeMap<PathBuf, usize>,
    recorded: Recorded,
    /// After a power cut, lines that were not synced yet may be missing: those of requests that were
    /// answered later than this.
    certain_until: Option<Instant>,
}

/// What entries say.
#[derive(Clone, Default)]
pub struct Recorded {
    /// Paths of requests, by their ids.
    pub requests: BTreeMap<String, String>,
    /// Paths at which leases were issued, by the leases' ids.
    pub issued: BTreeMap<String, String>,
    /// All leases that an entry names.
    pub named: BTreeSet<String>,
}

impl Recorded {
    fn add(&mut self, entry: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if let Some(id) = entry["request_id"].as_str() {
            self.requests.insert(id.to_owned(), text(&entry["path"]));
        }
        let Some(lease) = entry["lease_id"].as_str() else { return };
        self.named.insert(lease.to_owned());
        let path = text(&entry["path"]);
        if path.starts_with("database/creds/") && entry["outcome"]["status"] == 200 {
            self.issued.insert(lease.to_owned(), path);
        }
    }

    /// Every answer has its entry, and so have every credential that was answered and every lease that
    /// is there; but for what nobody was answered, since whoever was to answer it has died.
    pub fn cover(&self, seen: &Seen, clerks: &mut [Clerk], certain_until: Option<Instant>) {
        let is_certain = |at: Instant| certain_until.is_none_or(|until| at <= until);
        let mut unanswered = BTreeSet::new();
        for clerk in clerks {
            for answered in clerk.answered.drain(..).filter(|one| is_certain(one.at)) {
                assert_eq!(
                    self.requests.get(&answered.id),
                    Some(&answered.path),
                    "request {} was answered and is not in the audit",
                    answered.id
                );
            }
            for one in &mut clerk.credentials {
                let Some(at) = one.answered_at else {
                    unanswered.insert(one.role.clone());
                    continue;
                };
                if !one.recorded && is_certain(at) {
                    let path = self.issued.get(&one.lease);
                    let expected = format!("database/creds/{}", one.role);
                    assert_eq!(path, Some(&expected), "no entry says who got {one:#?}");
                }
                one.recorded = true;
                one.entry_unsure |= !is_certain(at);
            }
            let alive = clerk.credentials.iter().filter(|one| one.fate != Fate::Dead);
            let unsure = alive.filter(|one| one.entry_unsure);
            unanswered.extend(unsure.map(|one| one.role.clone()));
        }
        for (role, row) in &seen.rows {
            let excused = unanswered.contains(role);
            assert!(excused || self.named.contains(&row.id), "no entry names {row:?}");
        }
    }
}

impl World {
    /// Also after a check that found something.
    fn trail(&self) -> MutexGuard<'_, Trail> {
        self.trail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The chain holds over all that happened, nothing is without its entry, and nothing panicked
    /// but what was made to.
    pub fn check_audit(&self, seen: &Seen, clerks: &mut [Clerk], settled: bool) {
        let mut trail = self.trail();
        for node in &self.nodes {
            trail.read_on(&node.audit_path());
            if settled {
                let report = leasehold::server::audit_verify::verify(&[node.audit_path()]).unwrap();
                trail.accept(&report);
                assert!(report.from_genesis, "the log does not begin at its beginning");
            }
            let panics = node.log().matches("panicked at").count();
            assert!(panics == self.panics, "panicked {panics} times: {}", node.log());
        }
        trail.recorded.cover(seen, clerks, trail.certain_until);
    }

    /// What the logs say now.
    pub fn recorded(&self) -> Recorded {
        let mut trail = self.trail();
        for node in &self.nodes {
            trail.read_on(&node.audit_path());
        }
        trail.recorded.clone()
    }

    /// The power was cut: lines may be gone, of requests that were answered after that moment.
    pub fn audit_is_certain_until(&self, moment: Instant) {
        *self.trail() = Trail { certain_until: Some(moment), ..Trail::default() };
    }
}

impl Trail {
    /// Reads what was added to a log, with the last line that is known already: that the others go on
    /// from it is part of what is verified.
    fn read_on(&mut self, path: &Path) {
        // Before the log, so that the log can only be ahead of it.
        let head = recorded_head(path).unwrap();
        let log = fs::read(path).unwrap();
        let known = self.last_line.get(path).copied();
        let newline = |part: &[u8]| part.iter().rposition(|byte| *byte == b'\n');
        let Some(end) = newline(&log) else { return };
        let added = log.get(known.unwrap_or(0)..=end).expect("the log has become shorter");
        let part = tempfile::NamedTempFile::new().unwrap();
        fs::write(part.path(), added).unwrap();
        let report = verify_files(&[part.path().to_owned()], head).unwrap();
        self.accept(&report);
        let lines = added.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        for line in lines.skip(usize::from(known.is_some())) {
            // What is no entry was named by the report.
            if let Ok(entry) = serde_json::from_slice(line) {
                self.recorded.add(&entry);
            }
        }
        let last = newline(&log[..end]).map_or(0, |before| before + 1);
        self.last_line.insert(path.to_owned(), last);
    }

    fn accept(&self, report: &Report) {
        let forgiven =
            |fault| self.certain_until.is_some() && matches!(fault, Fault::Missing { .. });
        let faults = report.problems.iter().filter(|problem| !forgiven(problem.fault));
        let faults: Vec<_> = faults.collect();
        assert!(faults.is_empty(), "{faults:#?}");
    }
}
