use std::ops::Range;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::core::audit::chain::{Chain, Mark};
use crate::core::audit::entry::event_body;
use crate::types::time::Timestamp;

/// `seqs` as lines without their newlines, and the end of the chain after each.
fn lines(seqs: Range<u64>) -> (Vec<Vec<u8>>, Vec<Witness>) {
    let mut chain = Chain::after(Witness::GENESIS);
    let mut lines = Vec::new();
    let mut heads = Vec::new();
    for seq in 1..seqs.end {
        let mut line = Vec::new();
        let body =
            event_body(Timestamp::from_secs(1), "tick", &json!({"path": "secret/x", "n": seq}));
        chain.append(&body, Mark::Seen(seq), &mut line);
        line.pop();
        if seqs.contains(&seq) {
            lines.push(line);
            heads.push(chain.head());
        }
    }
    (lines, heads)
}

/// A line with the same number and links but other content and a right hash, as a forger makes it.
fn forge(line: &[u8]) -> Vec<u8> {
    let found = ChainedLine::parse(line).unwrap();
    let before = Witness { seq: found.witness.seq - 1, hash: found.prev, store_sequence: 0 };
    let mut forged = Vec::new();
    let body = event_body(Timestamp::from_secs(1), "forged", &json!({}));
    Chain::after(before).append(&body, Mark::Seen(1), &mut forged);
    forged.pop();
    forged
}

fn bytes(lines: &[Vec<u8>]) -> Vec<u8> {
    lines.iter().flat_map(|line| line.iter().copied().chain([b'\n'])).collect()
}

fn check(content: &[&[u8]], expected: Option<Witness>) -> Report {
    let paths: Vec<PathBuf> = (0..content.len()).map(|n| format!("log.{n}").into()).collect();
    let mut walk = Walk::new(&paths, expected);
    for (file, bytes) in content.iter().enumerate() {
        // A small buffer, so that lines span several reads.
        walk.file(file, BufReader::with_capacity(16, *bytes)).unwrap();
    }
    walk.finish()
}

/// Line and fault of each problem in a single log.
fn faults(lines: &[Vec<u8>]) -> Vec<(u64, Fault)> {
    let report = check(&[&bytes(lines)], None);
    assert_eq!(report.problems_total, report.problems.len() as u64);
    report.problems.iter().map(|problem| (problem.line, problem.fault)).collect()
}

const LINES: u64 = 12;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_edit_of_one_byte_names_the_line(
        k in 0..LINES as usize, at in 0usize..1000, value in any::<u8>(),
    ) {
        let (mut lines, _) = lines(1..LINES + 1);
        let at = at % lines[k].len();
        prop_assume!(lines[k][at] != value && value != b'\n');
        lines[k][at] = value;
        let found = faults(&lines);
        prop_assert_eq!(found.len(), 1, "{:?}", found);
        prop_assert_eq!(found[0].0, k as u64 + 1);
        let named = matches!(found[0].1, Fault::Edited { .. } | Fault::Unreadable(_));
        prop_assert!(named, "{:?}", found);
    }

    #[test]
    fn any_forged_line_is_named_by_the_one_after_it(k in 0..LINES as usize - 1) {
        let (mut lines, _) = lines(1..LINES + 1);
        lines[k] = forge(&lines[k]);
        let line = k as u64 + 1;
        prop_assert_eq!(faults(&lines), [(line, Fault::Replaced { seq: line })]);
    }

    #[test]
    fn any_removal_names_the_place_and_the_numbers(
        from in 1..LINES as usize - 1, count in 1..LINES as usize,
    ) {
        let (mut lines, _) = lines(1..LINES + 1);
        let to = (from + count).min(LINES as usize - 1);
        lines.drain(from..to);
        let missing = Fault::Missing { from: from as u64 + 1, to: to as u64 };
        prop_assert_eq!(faults(&lines), [(from as u64 + 1, missing)]);
    }

    #[test]
    fn any_swap_names_a_swapped_line(a in 0..LINES as usize, b in 0..LINES as usize) {
        prop_assume!(a < b);
        let (mut lines, _) = lines(1..LINES + 1);
        lines.swap(a, b);
        let found = faults(&lines);
        // Of lines that changed places, the one that comes too late is out of order.
        let late = (b as u64 + 1, a as u64 + 1);
        let named = found.iter().any(|(line, fault)| {
            let (Fault::Moved { seq, .. } | Fault::Repeated { seq }) = fault else { return false };
            (*line, *seq) == late
        });
        prop_assert!(named, "{:?}", found);
        let within = found.iter().all(|(line, _)| (a as u64 + 1..=b as u64 + 1).contains(line));
        prop_assert!(within, "{:?}", found);
    }

    #[test]
    fn any_duplicate_is_named(k in 0..LINES as usize, at in 0..LINES as usize + 1) {
        prop_assume!(at > k);
        let (mut lines, _) = lines(1..LINES + 1);
        lines.insert(at, lines[k].clone());
        prop_assert_eq!(faults(&lines), [(at as u64 + 1, Fault::Repeated { seq: k as u64 + 1 })]);
    }

    #[test]
    fn a_log_cut_anywhere_misses_its_end(cut in 1usize..5000) {
        let (lines, heads) = lines(1..LINES + 1);
        let whole = bytes(&lines);
        let cut = cut % whole.len();
        let report = check(&[&whole[..cut]], heads.last().copied());
        let kept = whole[..cut].iter().filter(|byte| **byte == b'\n').count() as u64;
        let end = Fault::EndMissing { from: kept + 1, to: LINES };
        prop_assert!(report.problems.iter().any(|problem| problem.fault == end));
        let torn = cut > 0 && whole[cut - 1] != b'\n';
        let found_torn = report.problems.iter().any(|p| (p.line, p.fault) == (kept + 1, Fault::Torn));
        prop_assert_eq!(torn, found_torn);
    }

    #[test]
    fn arbitrary_bytes_never_pass_and_never_break(content in prop::collection::vec(any::<u8>(), 1..400)) {
        let report = check(&[&content], None);
        prop_assert!(!report.is_intact());
    }
}

#[test]
fn an_untouched_chain_is_intact_across_rotated_logs() {
    let (lines, heads) = lines(1..LINES + 1);
    let (first, second) = lines.split_at(5);
    let expected = heads.last().copied();
    let report = check(&[&bytes(first), b"", &bytes(second)], expected);
    assert!(report.is_intact(), "{:?}", report.problems);
    assert_eq!((report.lines, report.first_seq, report.head), (LINES, Some(1), expected));
    assert!(report.from_genesis);

    let report = check(&[&bytes(second)], expected);
    assert!(report.is_intact());
    assert_eq!((report.first_seq, report.from_genesis), (Some(6), false));

    // In the wrong order, and with one left out.
    assert!(!check(&[&bytes(second), &bytes(first)], None).is_intact());
    let report = check(&[&bytes(&lines[..3]), &bytes(&lines[8..])], None);
    let missing = Fault::Missing { from: 4, to: 8 };
    assert_eq!(report.problems, [Problem { file: "log.1".into(), line: 1, fault: missing }]);
}

#[test]
fn the_end_is_held_against_what_was_witnessed() {
    let (mut lines, heads) = lines(1..LINES + 1);
    let head = heads.last().copied();
    lines.pop();
    let report = check(&[&bytes(&lines)], head);
    let gone = Fault::EndMissing { from: LINES, to: LINES };
    assert_eq!(report.problems, [Problem { file: "log.0".into(), line: LINES - 1, fault: gone }]);

    // Rewritten to the end with right hashes throughout: only the witness can tell.
    let mut forged = vec![forge(&lines[0])];
    let mut chain = Chain::after(ChainedLine::parse(&forged[0]).unwrap().witness);
    for n in 2..=LINES {
        let mut line = Vec::new();
        let body = event_body(Timestamp::from_secs(1), "tick", &json!({"n": n}));
        chain.append(&body, Mark::Seen(n), &mut line);
        line.pop();
        forged.push(line);
    }
    assert!(check(&[&bytes(&forged)], None).is_intact());
    let report = check(&[&bytes(&forged)], head);
    let fault = Fault::NotWitnessed { seq: LINES };
    assert_eq!(report.problems, [Problem { file: "log.0".into(), line: LINES, fault }]);

    let report = check(&[b""], head);
    let fault = Fault::EndMissing { from: 1, to: LINES };
    assert_eq!(report.problems, [Problem { file: "log.0".into(), line: 0, fault }]);
}

#[test]
fn broken_glued_and_alien_lines_are_named() {
    let (good, _) = lines(1..LINES + 1);
    let mut split = good.clone();
    split[3].insert(40, b'\n');
    let not_json = Fault::Unreadable(LineFault::NotJson);
    assert_eq!(faults(&split), [(4, not_json), (5, not_json)]);

    let mut glued = good.clone();
    let tail = glued.remove(4);
    glued[3].extend_from_slice(&tail);
    assert_eq!(faults(&glued)[0], (4, not_json));

    for (alien, fault) in [
        (&b""[..], LineFault::NotJson),
        (b"hello", LineFault::NotJson),
        (b"{\"seq\":5}", LineFault::NotAnEntry),
        (&vec![b'x'; 3 * LINE_BYTES_MAX], LineFault::TooLong),
    ] {
        let mut with_alien = good.clone();
        with_alien.insert(4, alien.to_vec());
        assert_eq!(faults(&with_alien), [(5, Fault::Unreadable(fault))]);
    }

    let (mut twice, _) = lines(1..4);
    twice.push(forge(&good[0]));
    assert_eq!(faults(&twice), [(4, Fault::Restarted)]);

    // A log that goes on from an earlier one, and then a chain of its own.
    let mut other = lines(5..8).0;
    other.extend(lines(1..4).0);
    assert_eq!(faults(&other), [(4, Fault::Restarted)]);
}

#[test]
fn a_report_is_bounded_and_counts_all() {
    let garbage = b"x\n".repeat(PROBLEMS_MAX * 3);
    let report = check(&[&garbage], None);
    assert_eq!(report.problems.len(), PROBLEMS_MAX);
    assert_eq!(report.problems_total, PROBLEMS_MAX as u64 * 3);
}

#[test]
fn faults_read_as_sentences_about_a_line() {
    let moved = Fault::Moved { seq: 3, before: 7, same_file: false };
    assert_eq!(
        moved.to_string(),
        "entry 3 is out of order: it belongs before line 7 of an earlier file"
    );
    assert_eq!(Fault::Edited { seq: 3 }.to_string(), "was edited (entry 3)");
    assert_eq!(Fault::Unreadable(LineFault::NotJson).to_string(), "is not a JSON object");
}
