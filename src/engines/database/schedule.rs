//! When the password of a static role is due.

use chrono::{DateTime, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use serde::{Deserialize, Serialize};

use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::types::time::{Timestamp, Ttl};

/// Shortest period between rotations, in seconds.
const PERIOD_SECS_MIN: u64 = 5;
/// Shortest window in which a scheduled rotation may happen, in seconds.
const WINDOW_SECS_MIN: u64 = 60;
/// Longest cron expression, in bytes.
const CRON_BYTES_MAX: usize = 128;

/// A period, or the hours of a cron expression (in UTC) with a window after each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Schedule {
    Period(Ttl),
    Cron {
        expression: String,
        /// How long after its hour a rotation may still begin; zero for as long as it takes.
        window: Ttl,
    },
}

impl Schedule {
    /// Reads `rotation_period`, or `rotation_schedule` with `rotation_window`. What is not given is
    /// kept from `before`.
    pub(super) fn from_fields(fields: &Fields, before: Option<&Self>) -> Result<Self, CoreError> {
        let period = fields.duration("rotation_period")?.filter(|period| !period.is_zero());
        let cron = fields.text("rotation_schedule")?.filter(|text| !text.is_empty());
        let window = fields.duration("rotation_window")?;
        match (period, cron, before) {
            (Some(_), Some(_), _) => {
                Err(CoreError::field("rotation_schedule", "and rotation_period exclude each other"))
            }
            (Some(_), None, _) if window.is_some_and(|window| !window.is_zero()) => {
                Err(CoreError::field(
                    "rotation_window",
                    "belongs to rotation_schedule, not to a period",
                ))
            }
            (Some(period), None, _) => Self::period(period),
            (None, Some(expression), before) => {
                let kept = match before {
                    Some(Self::Cron { window, .. }) => *window,
                    Some(Self::Period(_)) | None => Ttl::ZERO,
                };
                Self::cron(expression, window.unwrap_or(kept))
            }
            (None, None, Some(Self::Cron { expression, window: kept })) => {
                Self::cron(expression.clone(), window.unwrap_or(*kept))
            }
            (None, None, Some(before @ Self::Period(_))) => {
                if window.is_some_and(|window| !window.is_zero()) {
                    return Err(CoreError::field("rotation_window", "needs rotation_schedule"));
                }
                Ok(before.clone())
            }
            (None, None, None) => Err(CoreError::field(
                "rotation_period",
                "is required, unless rotation_schedule is given",
            )),
        }
    }

    fn period(period: Ttl) -> Result<Self, CoreError> {
        if period.as_secs() < PERIOD_SECS_MIN {
            return Err(CoreError::field("rotation_period", "must be 5 seconds or longer"));
        }
        Ok(Self::Period(period))
    }

    fn cron(expression: String, window: Ttl) -> Result<Self, CoreError> {
        if !window.is_zero() && window.as_secs() < WINDOW_SECS_MIN {
            return Err(CoreError::field("rotation_window", "must be a minute or longer"));
        }
        let parsed = parse(&expression).ok_or_else(|| {
            CoreError::field(
                "rotation_schedule",
                "is not a cron expression of five fields, such as \"0 3 * * SAT\"",
            )
        })?;
        let first = DateTime::<Utc>::UNIX_EPOCH;
        if parsed.find_next_occurrence(&first, false).is_err() {
            return Err(CoreError::field("rotation_schedule", "never comes true"));
        }
        Ok(Self::Cron { expression, window })
    }

    /// The first moment after `now`, when the last rotation was at `last`.
    pub(super) fn next(&self, last: Timestamp, now: Timestamp) -> Timestamp {
        match self {
            Self::Period(period) => last.plus(*period),
            Self::Cron { expression, .. } => {
                let now = DateTime::<Utc>::from_timestamp_millis(now.as_millis());
                parse(expression)
                    .zip(now)
                    .and_then(|(cron, now)| cron.find_next_occurrence(&now, false).ok())
                    .map_or(Timestamp::MAX, |next| Timestamp::from_millis(next.timestamp_millis()))
            }
        }
    }

    /// Whether a rotation due at `due` has missed its window.
    pub(super) fn is_missed(&self, due: Timestamp, now: Timestamp) -> bool {
        match self {
            Self::Period(_) => false,
            Self::Cron { window, .. } => !window.is_zero() && now > due.plus(*window),
        }
    }
}

fn parse(expression: &str) -> Option<Cron> {
    if expression.len() > CRON_BYTES_MAX || !expression.is_ascii() {
        return None;
    }
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    parser.parse(expression).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value, before: Option<&Schedule>) -> Result<Schedule, String> {
        let fields = Fields::new(value.as_object().unwrap().clone());
        Schedule::from_fields(&fields, before).map_err(|error| error.to_string())
    }

    #[test]
    fn a_period_or_a_schedule_but_not_both() {
        assert_eq!(
            read(json!({"rotation_period": "1h"}), None),
            Ok(Schedule::Period(Ttl::from_secs(3600)))
        );
        let cron = read(json!({"rotation_schedule": "0 3 * * SAT", "rotation_window": "2h"}), None)
            .unwrap();
        assert_eq!(read(json!({}), Some(&cron)).as_ref(), Ok(&cron));
        for (value, field) in [
            (json!({}), "rotation_period"),
            (json!({"rotation_period": 4}), "rotation_period"),
            (json!({"rotation_period": -1}), "rotation_period"),
            (json!({"rotation_period": 60, "rotation_window": 3600}), "rotation_window"),
            (json!({"rotation_period": 60, "rotation_schedule": "* * * * *"}), "rotation_schedule"),
            (json!({"rotation_schedule": "0 3 * *"}), "rotation_schedule"),
            (json!({"rotation_schedule": "0 0 3 * * *"}), "rotation_schedule"),
            (json!({"rotation_schedule": "0 0 30 2 *"}), "rotation_schedule"),
            (json!({"rotation_schedule": "61 * * * *"}), "rotation_schedule"),
            (json!({"rotation_schedule": "* * * * *", "rotation_window": 5}), "rotation_window"),
        ] {
            let error = read(value.clone(), None).unwrap_err();
            assert!(error.starts_with(&format!("field \"{field}\"")), "{value}: {error}");
        }
    }

    #[test]
    fn cron_hours_are_in_utc_and_windows_close() {
        let schedule =
            read(json!({"rotation_schedule": "30 3 * * *", "rotation_window": "1h"}), None)
                .unwrap();
        let midnight = Timestamp::from_secs(1_800_057_600);
        let due = midnight.plus(Ttl::from_secs(3 * 3600 + 1800));
        assert_eq!(schedule.next(Timestamp::default(), midnight), due);
        assert_eq!(schedule.next(Timestamp::default(), due), due.plus(Ttl::from_secs(86_400)));
        assert!(!schedule.is_missed(due, due.plus(Ttl::from_secs(3600))));
        assert!(schedule.is_missed(due, due.plus(Ttl::from_secs(3601))));
    }

    proptest! {
        #[test]
        fn expressions_never_panic(text in "\\PC{0,20}|[0-9*/,@#LW+? A-Z-]{0,24}") {
            let _ = read(json!({"rotation_schedule": text}), None);
        }
    }
}
