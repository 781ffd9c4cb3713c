//! The kinds of values that the configuration is written in.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::types::time::Ttl;

/// A length of time in whole seconds, written `"90s"`, `"1h30m"`, `"7d"` or as a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(Ttl);

impl Period {
    /// From seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(Ttl::from_secs(secs))
    }

    /// As a lifetime.
    pub const fn ttl(self) -> Ttl {
        self.0
    }

    /// As a duration.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0.as_secs())
    }

    /// Whether it is no time at all.
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0.as_secs();
        if left == 0 {
            return f.write_str("0s");
        }
        for (unit, secs) in [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)] {
            if left >= secs {
                write!(f, "{}{unit}", left / secs)?;
                left %= secs;
            }
        }
        Ok(())
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrText {
            expecting: "a duration such as \"90s\" or \"1h30m\"",
            number: |secs: i64| Ttl::from_json(&secs.into()).map(Period).map_err(|e| e.to_string()),
            text: |text: &str| Ttl::parse(text).map(Period).map_err(|e| e.to_string()),
        })
    }
}

/// A number of bytes, written `"1MiB"`, `"32KiB"` or as a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl ByteSize {
    /// From bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// In bytes, as large as this machine can address.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (digits, factor) = UNITS
            .iter()
            .find_map(|(unit, factor)| text.strip_suffix(unit).map(|digits| (digits, *factor)))
            .unwrap_or((text.strip_suffix('B').unwrap_or(text), 1));
        let count: u64 = digits.trim().parse().map_err(|_| {
            "is not a size; use bytes or a form such as \"1MiB\" or \"32KiB\"".to_owned()
        })?;
        count.checked_mul(factor).map(Self).ok_or_else(|| "is too large".to_owned())
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor)) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrText {
            expecting: "a size such as \"1MiB\"",
            number: |bytes: i64| {
                u64::try_from(bytes).map(Self).map_err(|_| "must not be negative".to_owned())
            },
            text: Self::parse,
        })
    }
}

struct NumberOrText<N, T> {
    expecting: &'static str,
    number: N,
    text: T,
}

impl<V, N, T> Visitor<'_> for NumberOrText<N, T>
where
    N: FnOnce(i64) -> Result<V, String>,
    T: FnOnce(&str) -> Result<V, String>,
{
    type Value = V;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<V, E> {
        (self.number)(value).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<V, E> {
        (self.text)(value).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
        let value = toml::de::ValueDeserializer::parse(text).unwrap();
        T::deserialize(value).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn periods_are_read_and_written_alike() {
        for (text, secs, written) in [
            ("\"90s\"", 90, "1m30s"),
            ("7", 7, "7s"),
            ("\"1h30m\"", 5400, "1h30m"),
            ("\"7d\"", 604_800, "7d"),
            ("0", 0, "0s"),
        ] {
            let period: Period = read(text).unwrap();
            assert_eq!((period.ttl().as_secs(), period.to_string().as_str()), (secs, written));
        }
        for text in ["-1", "\"-1s\"", "\"soon\"", "1.5", "true", "\"99999999999d\""] {
            assert!(read::<Period>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_and_written_alike() {
        for (text, bytes, written) in [
            ("\"1MiB\"", 1 << 20, "1MiB"),
            ("1048576", 1 << 20, "1MiB"),
            ("\"32KiB\"", 32 << 10, "32KiB"),
            ("\"1000B\"", 1000, "1000B"),
            ("0", 0, "0B"),
        ] {
            let size: ByteSize = read(text).unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, written));
        }
        for text in ["-1", "\"1MB\"", "\"MiB\"", "\"99999999999GiB\"", "1.5"] {
            assert!(read::<ByteSize>(text).is_err(), "{text}");
        }
    }
}
