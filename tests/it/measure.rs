//! The arithmetic behind the measurements: what `cargo bench` says about latencies is what they were.

use std::time::Duration;

#[path = "../../benches/measure/histogram.rs"]
mod histogram;

use histogram::Histogram;

fn within_a_class(found: Duration, expected: Duration) -> bool {
    let (found, expected) = (found.as_nanos() as f64, expected.as_nanos() as f64);
    (found - expected).abs() <= expected * 0.004
}

#[test]
fn percentiles_are_those_of_the_sorted_values() {
    // From below a microsecond to beyond a minute, the same number in each octave.
    let mut values: Vec<Duration> = Vec::new();
    let mut histogram = Histogram::new();
    let mut state = 1u64;
    for _ in 0..20_000 {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let nanos = (state >> 33) << (state % 7);
        values.push(Duration::from_nanos(nanos));
        histogram.record(Duration::from_nanos(nanos));
    }
    values.sort_unstable();
    assert_eq!(histogram.count(), 20_000);
    assert_eq!(histogram.longest(), values[19_999]);
    for share in [0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0] {
        let rank = ((20_000.0 * share) as usize).max(1) - 1;
        let (found, expected) = (histogram.at(share), values[rank]);
        assert!(within_a_class(found, expected), "{share}: {found:?}, not {expected:?}");
    }
}

#[test]
fn every_value_is_found_again_in_its_class() {
    for exponent in 0..41 {
        for nanos in [1u64 << exponent, (1 << exponent) + 1, (1 << (exponent + 1)) - 1] {
            let mut histogram = Histogram::new();
            let value = Duration::from_nanos(nanos);
            histogram.record(value);
            histogram.record(Duration::from_secs(1 << 20));
            assert!(within_a_class(histogram.at(0.5), value), "{value:?}: {:?}", histogram.at(0.5));
        }
    }
}

#[test]
fn histograms_of_several_workers_add_up() {
    let (mut one, mut other) = (Histogram::new(), Histogram::new());
    (0..99).for_each(|_| one.record(Duration::from_micros(100)));
    other.record(Duration::from_secs(1));
    one.add(&other);
    assert_eq!((one.count(), one.longest()), (100, Duration::from_secs(1)));
    assert!(within_a_class(one.at(0.99), Duration::from_micros(100)));
    assert!(within_a_class(one.at(0.999), Duration::from_secs(1)));
    assert_eq!(Histogram::new().at(0.5), Duration::ZERO);
}
