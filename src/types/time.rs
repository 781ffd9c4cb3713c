//! Wall clock, monotonic clock and lifetimes. The only module that asks the machine for the time.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// A moment, in milliseconds since the Unix epoch.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The latest moment this type can hold.
    pub const MAX: Self = Self(i64::MAX);

    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// From seconds since the Unix epoch; saturates.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This moment plus `ttl`; saturates.
    pub const fn plus(self, ttl: Ttl) -> Self {
        Self(self.0.saturating_add(ttl.as_millis()))
    }

    /// This moment plus `millis`, which may be negative; saturates.
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this moment; negative when it is before.
    pub const fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The lifetime left from `now` until this moment in whole seconds, rounded down; zero when past.
    pub fn remaining(self, now: Self) -> Ttl {
        Ttl::from_secs(u64::try_from(self.millis_since(now) / 1000).unwrap_or(0))
    }

    /// RFC 3339 in UTC with nanosecond digits, as stock clients parse it.
    pub fn to_rfc3339(self) -> String {
        DateTime::<Utc>::from_timestamp_millis(self.0)
            .unwrap_or(DateTime::<Utc>::MAX_UTC)
            .to_rfc3339_opts(SecondsFormat::AutoSi, true)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

/// A lifetime in whole seconds. Zero means "not set" in configuration and "over" in arithmetic.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Ttl(u64);

impl Ttl {
    /// No lifetime at all.
    pub const ZERO: Self = Self(0);
    /// The longest lifetime accepted anywhere: a hundred years.
    pub const MAX: Self = Self(100 * 365 * 24 * 3600);

    /// From seconds; anything above [`Ttl::MAX`] becomes that.
    pub const fn from_secs(secs: u64) -> Self {
        if secs > Self::MAX.0 { Self::MAX } else { Self(secs) }
    }

    /// In seconds.
    pub const fn as_secs(self) -> u64 {
        self.0
    }

    /// In milliseconds.
    pub const fn as_millis(self) -> i64 {
        // At most Ttl::MAX seconds, which fits in an i64 of milliseconds many times over.
        (self.0 as i64).saturating_mul(1000)
    }

    /// Whether nothing is left, or nothing was set.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The shorter of two, where zero means "no limit" on either side.
    pub fn limited_by(self, limit: Self) -> Self {
        match (self.0, limit.0) {
            (0, _) => limit,
            (_, 0) => self,
            (a, b) => Self(a.min(b)),
        }
    }

    /// This lifetime, or `default` when it is zero.
    pub fn or(self, default: Self) -> Self {
        if self.is_zero() { default } else { self }
    }

    /// Parses what clients send: whole seconds (`"3600"`) or Go-style durations (`"1h30m"`, `"90s"`, `"7d"`).
    ///
    /// # Errors
    /// Negative, fractional-second, overflowing or malformed durations, each named.
    pub fn parse(text: &str) -> Result<Self, TtlError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TtlError::Malformed);
        }
        if text.starts_with('-') {
            return Err(TtlError::Negative);
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return text.parse::<u64>().map_err(|_| TtlError::TooLong).and_then(Self::bounded);
        }
        let mut total_millis: u64 = 0;
        let mut digits = String::new();
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            if c.is_ascii_digit() {
                digits.push(c);
                continue;
            }
            let unit_millis = match c {
                'd' => 86_400_000,
                'h' => 3_600_000,
                'm' if rest.peek() == Some(&'s') => {
                    rest.next();
                    1
                }
                'm' => 60_000,
                's' => 1_000,
                _ => return Err(TtlError::Malformed),
            };
            let count: u64 = digits.parse().map_err(|_| {
                if digits.is_empty() { TtlError::Malformed } else { TtlError::TooLong }
            })?;
            digits.clear();
            total_millis = count
                .checked_mul(unit_millis)
                .and_then(|part| total_millis.checked_add(part))
                .ok_or(TtlError::TooLong)?;
        }
        if !digits.is_empty() || !total_millis.is_multiple_of(1000) {
            return Err(TtlError::Malformed);
        }
        Self::bounded(total_millis / 1000)
    }

    /// Parses a JSON number of seconds or a duration string.
    ///
    /// # Errors
    /// As [`Ttl::parse`]; anything but a number or a string is malformed.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, TtlError> {
        match value {
            serde_json::Value::Null => Ok(Self::ZERO),
            serde_json::Value::String(text) if text.is_empty() => Ok(Self::ZERO),
            serde_json::Value::String(text) => Self::parse(text),
            serde_json::Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(secs), _) => Self::bounded(secs),
                (None, Some(_)) => Err(TtlError::Negative),
                (None, None) => match number.as_f64() {
                    Some(secs) if secs < 0.0 => Err(TtlError::Negative),
                    Some(secs) if secs.is_finite() && secs.fract() == 0.0 => Err(TtlError::TooLong),
                    Some(_) | None => Err(TtlError::Malformed),
                },
            },
            serde_json::Value::Bool(_)
            | serde_json::Value::Array(_)
            | serde_json::Value::Object(_) => Err(TtlError::Malformed),
        }
    }

    fn bounded(secs: u64) -> Result<Self, TtlError> {
        if secs > Self::MAX.0 { Err(TtlError::TooLong) } else { Ok(Self(secs)) }
    }
}

impl From<Ttl> for Duration {
    fn from(ttl: Ttl) -> Self {
        Self::from_secs(ttl.0)
    }
}

/// Why a duration was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TtlError {
    /// Neither seconds nor a duration such as `1h30m`.
    #[error("is not a duration; use seconds or a form such as \"1h30m\"")]
    Malformed,
    /// Below zero.
    #[error("must not be negative")]
    Negative,
    /// Beyond [`Ttl::MAX`].
    #[error("is longer than the hundred years this server accepts")]
    TooLong,
}

/// Where the time comes from. Passed in everywhere, so that tests move it instead of sleeping.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock.
    fn now(&self) -> Timestamp;
    /// Time since an arbitrary start that no adjustment of the wall clock changes.
    fn monotonic(&self) -> Duration;
    /// Completes once `time` has passed on the monotonic clock.
    fn sleep(&self, time: Duration) -> BoxFuture<'_, ()>;
    /// Completes once the wall clock has reached `at`.
    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'_, ()>;
    /// Says that it is at least `floor` by now. Only a clock that is more than the machine's own can
    /// heed that.
    fn raise_to(&self, _floor: Timestamp) {}
    /// Says that a hold tells of the jump there is, if there is one: its release accepts it. Only a
    /// clock that does not follow jumps by itself can heed that.
    fn jump_is_told(&self) {}
    /// Says that somebody who was told of a jump finds the machine's clock right. Heeded likewise.
    fn accept_jump(&self) {}
}

/// The machine's own clock.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> Timestamp {
        Timestamp(Utc::now().timestamp_millis())
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    fn monotonic(&self) -> Duration {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        START.get_or_init(std::time::Instant::now).elapsed()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'_, ()> {
        Box::pin(tokio::time::sleep(time))
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            loop {
                let left = at.millis_since(self.now());
                if left <= 0 {
                    return;
                }
                // In slices, because the wall clock may be set while we sleep.
                let slice = u64::try_from(left).unwrap_or(0).min(60_000);
                tokio::time::sleep(Duration::from_millis(slice)).await;
            }
        })
    }
}

/// A clock that stands still until it is moved: for tests and for replaying.
#[derive(Debug)]
pub struct ManualClock {
    now: watch::Sender<(Timestamp, Duration)>,
}

impl ManualClock {
    /// Starts at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self { now: watch::Sender::new((now, Duration::ZERO)) }
    }

    /// Lets `ttl` pass on both clocks.
    pub fn advance(&self, ttl: Duration) {
        let millis = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        self.now.send_modify(|(wall, mono)| {
            *wall = wall.plus_millis(millis);
            *mono = mono.saturating_add(ttl);
        });
    }

    /// Sets the wall clock alone, as an operator or a bad NTP server would.
    pub fn set_wall(&self, now: Timestamp) {
        self.now.send_modify(|(wall, _)| *wall = now);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.now.borrow().0
    }

    fn monotonic(&self) -> Duration {
        self.now.borrow().1
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'_, ()> {
        let mut now = self.now.subscribe();
        let until = now.borrow().1.saturating_add(time);
        Box::pin(async move {
            // The sender lives as long as `self`, so waiting can only end by reaching `until`.
            let _ = now.wait_for(|(_, mono)| *mono >= until).await;
        })
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
        let mut now = self.now.subscribe();
        Box::pin(async move {
            // The sender lives as long as `self`, so waiting can only end by reaching `at`.
            let _ = now.wait_for(|(wall, _)| *wall >= at).await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_are_parsed_as_clients_write_them() {
        for (text, secs) in
            [("0", 0), ("90", 90), ("90s", 90), ("1h30m", 5400), ("7d", 604_800), ("1000ms", 1)]
        {
            assert_eq!(Ttl::parse(text), Ok(Ttl::from_secs(secs)), "{text}");
        }
    }

    #[test]
    fn bad_durations_are_refused_with_the_reason() {
        for (text, error) in [
            ("", TtlError::Malformed),
            ("h", TtlError::Malformed),
            ("1x", TtlError::Malformed),
            ("1h5", TtlError::Malformed),
            ("1.5h", TtlError::Malformed),
            ("10ms", TtlError::Malformed),
            ("-1h", TtlError::Negative),
            ("99999999999999999999", TtlError::TooLong),
            ("99999999999999999999h", TtlError::TooLong),
            ("18446744073709551615", TtlError::TooLong),
        ] {
            assert_eq!(Ttl::parse(text), Err(error), "{text}");
        }
        assert_eq!(Ttl::from_json(&json!(-1)), Err(TtlError::Negative));
        assert_eq!(Ttl::from_json(&json!(1.5)), Err(TtlError::Malformed));
        assert_eq!(Ttl::from_json(&json!(1e300)), Err(TtlError::TooLong));
        assert_eq!(Ttl::from_json(&json!([1])), Err(TtlError::Malformed));
    }

    #[test]
    fn limits_treat_zero_as_absent() {
        let (hour, day) = (Ttl::from_secs(3600), Ttl::from_secs(86_400));
        assert_eq!(day.limited_by(hour), hour);
        assert_eq!(hour.limited_by(Ttl::ZERO), hour);
        assert_eq!(Ttl::ZERO.limited_by(hour), hour);
    }

    #[tokio::test]
    async fn a_manual_clock_wakes_sleepers_when_it_is_moved() {
        let clock = std::sync::Arc::new(ManualClock::new(Timestamp::from_secs(1000)));
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep_until(Timestamp::from_secs(1010)).await }
        });
        clock.advance(Duration::from_secs(9));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(1));
        sleeper.await.unwrap();
    }
}
