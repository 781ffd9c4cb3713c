//! Latencies in logarithmic classes, as an HDR histogram keeps them: every value within 0.4 %, and the
//! same small size however many are counted.

use std::time::Duration;

/// Classes of one octave, as a power of two.
const CLASS_BITS: u32 = 8;
const CLASSES: u64 = 1 << CLASS_BITS;
/// Values above 2^41 ns, which is half an hour, count as that.
const VALUE_BITS_MAX: u32 = 41;

/// How often each latency was seen.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    longest: Duration,
}

impl Histogram {
    /// Nothing seen yet.
    pub fn new() -> Self {
        let classes = class(1 << VALUE_BITS_MAX) + 1;
        Self { counts: vec![0; classes], count: 0, longest: Duration::ZERO }
    }

    /// Counts one.
    pub fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[class(nanos.min(1 << VALUE_BITS_MAX))] += 1;
        self.count += 1;
        self.longest = self.longest.max(latency);
    }

    /// Counts all that `other` has counted.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.count += other.count;
        self.longest = self.longest.max(other.longest);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest of all.
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// What this share of them did not exceed; zero when none was counted.
    pub fn at(&self, share: f64) -> Duration {
        let wanted = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (class, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(upper_end(class)).min(self.longest);
            }
        }
        self.longest
    }
}

/// Values below two octaves of classes have one each; above, each octave has as many as the last.
fn class(nanos: u64) -> usize {
    let bits = 64 - nanos.leading_zeros();
    let octave = bits.saturating_sub(CLASS_BITS + 1);
    (u64::from(octave) * CLASSES + (nanos >> octave)) as usize
}

/// The largest value of a class.
fn upper_end(class: usize) -> u64 {
    let class = class as u64;
    let octave = (class / CLASSES).saturating_sub(1);
    let within = class - octave * CLASSES;
    ((within + 1) << octave) - 1
}
