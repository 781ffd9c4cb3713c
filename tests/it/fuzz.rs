//! Every parser takes any bytes: those that were kept because they once found something or because
//! they reach far, and random ones made out of them.
//!
//! `LEASEHOLD_FUZZ_INPUTS` sets how many random inputs each target gets, `LEASEHOLD_FUZZ_SEED` repeats
//! them. An input that does harm is written to `target/fuzz`; a copy of it in `tests/corpora` is a test
//! from then on. `tests/fuzz/run` looks for further ones by the code that they reach.

pub mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use leasehold::types::secret::fill_random;

use targets::{ALL, Target};

/// Longest time that one input may take. Far more than any needs, for machines that do other things
/// too; what hangs or grows without bound takes longer.
const INPUT_TIME_MAX: Duration = Duration::from_secs(2);
/// How often an input that took longer is measured again: the machine may have been busy.
const MEASURED_AGAIN: usize = 3;
/// Longest random input, in bytes.
const INPUT_BYTES_MAX: usize = 4096;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The kept inputs of a target, in the order of their names.
fn kept(target: &Target) -> Vec<Vec<u8>> {
    let directory = root().join("tests/corpora").join(target.name);
    let mut files: Vec<PathBuf> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no inputs", directory.display());
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn took(target: &Target, input: &[u8]) -> Duration {
    let began = Instant::now();
    (target.run)(input);
    began.elapsed()
}

/// Tries an input; one that does harm is kept.
fn attempt(target: &Target, input: &[u8], whence: &str) {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let slow = |_: &usize| took(target, input) > INPUT_TIME_MAX;
        assert!((0..MEASURED_AGAIN).take_while(slow).count() < MEASURED_AGAIN, "takes too long");
    }));
    if let Err(cause) = outcome {
        let place = keep(target, input);
        let text = cause.downcast_ref::<String>().cloned();
        let text = text.or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        panic!("{}, {whence}: {}: {}", target.name, place.display(), text.unwrap_or_default());
    }
}

fn keep(target: &Target, input: &[u8]) -> PathBuf {
    let directory = root().join("target/fuzz").join(target.name);
    fs::create_dir_all(&directory).unwrap();
    let number = fs::read_dir(&directory).unwrap().count();
    let place: PathBuf = Path::new(&directory).join(format!("harm-{number}"));
    fs::write(&place, input).unwrap();
    place
}

/// Makes new inputs of kept ones. A seed repeats its choices.
struct Mutator {
    state: u64,
    kept: Vec<Vec<u8>>,
    words: &'static [&'static str],
}

impl Mutator {
    fn below(&mut self, limit: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % limit.max(1) as u64).unwrap()
    }

    fn input(&mut self) -> Vec<u8> {
        let pick = self.below(self.kept.len());
        let mut input = self.kept[pick].clone();
        for _ in 0..=self.below(6) {
            self.change(&mut input);
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let end = at + self.below((input.len() - at + 1).min(32));
        match self.below(9) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => {
                const EDGES: [u8; 12] = *b"\0\x01\x7f\x80\xff /.%\"'\n";
                input[at] = EDGES[self.below(EDGES.len())];
            }
            2 => drop(input.drain(at..end)),
            3 => {
                let part = input[at..end].to_vec();
                let times = 1 + self.below(8);
                drop(input.splice(at..at, part.repeat(times)));
            }
            4 if !self.words.is_empty() => {
                let word = self.words[self.below(self.words.len())];
                drop(input.splice(at..end, word.bytes()));
            }
            5 if !self.words.is_empty() => {
                let word = self.words[self.below(self.words.len())];
                drop(input.splice(at..at, word.bytes()));
            }
            6 => {
                let pick = self.below(self.kept.len());
                let from = self.below(self.kept[pick].len() + 1);
                let other = self.kept[pick][from..].to_vec();
                drop(input.splice(at.., other));
            }
            7 => {
                let random: Vec<u8> =
                    (0..self.below(8)).map(|_| self.below(256).to_le_bytes()[0]).collect();
                drop(input.splice(at..at, random));
            }
            _ => input.truncate(at),
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

fn try_target(target: &Target, seed: u64) {
    let kept = kept(target);
    for (index, input) in kept.iter().enumerate() {
        attempt(target, input, &format!("kept input {index}"));
    }
    for edge in [&b""[..], b"\n", b"\0", b"\xff\xfe", &[b'('; 4096], &[b'{'; 4096], &[0; 4096]] {
        attempt(target, edge, "an edge");
    }
    let inputs = number("LEASEHOLD_FUZZ_INPUTS")
        .map_or(target.inputs, |inputs| usize::try_from(inputs).unwrap());
    let mut mutator = Mutator { state: seed, kept, words: target.words };
    for _ in 0..inputs {
        let input = mutator.input();
        attempt(target, &input, &format!("LEASEHOLD_FUZZ_SEED={seed}"));
    }
}

#[test]
fn no_input_does_harm() {
    let mut random = [0u8; 8];
    fill_random(&mut random).unwrap();
    let seed = number("LEASEHOLD_FUZZ_SEED").unwrap_or(u64::from_be_bytes(random));
    let only = std::env::var("LEASEHOLD_FUZZ_TARGET").ok();
    let chosen = |target: &&Target| only.as_deref().is_none_or(|only| only == target.name);
    // Every one of them, so that one run tells all there is.
    let harmed: Vec<String> = ALL
        .iter()
        .filter(chosen)
        .filter_map(|target| {
            let outcome = catch_unwind(AssertUnwindSafe(|| try_target(target, seed)));
            outcome.err().map(|cause| cause.downcast_ref::<String>().cloned().unwrap_or_default())
        })
        .collect();
    assert!(harmed.is_empty(), "{harmed:#?}");
}

/// A directory of inputs without a target would be tried by nobody.
#[test]
fn all_kept_inputs_have_a_target() {
    for entry in fs::read_dir(root().join("tests/corpora")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(ALL.iter().any(|target| target.name == name), "nothing tries tests/corpora/{name}");
    }
}
