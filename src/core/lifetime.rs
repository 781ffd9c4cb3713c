//! How long tokens and leases live: the one place that computes an expiry.
//!
//! Lifetimes nest: a credential ends no later than its lease, a lease no later than the token or
//! certificate it was asked for with, and neither later than the configured maximum. Zero never
//! means "for ever" here: what has less than a second left is over.

use crate::types::time::{Timestamp, Ttl};

/// What bounds a lifetime, from the moment of issue. Zero and `None` are no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// When it was issued.
    pub issued_at: Timestamp,
    /// The maximum of the role, counted from issue.
    pub role_max: Ttl,
    /// The maximum of the mount or of the server, counted from issue.
    pub mount_max: Ttl,
    /// The maximum that was fixed at issue and that no later configuration prolongs.
    pub explicit_max: Ttl,
    /// When set, every renewal gives this lifetime, and the role's and mount's maximum bound each
    /// period instead of the whole. The other bounds stay.
    pub period: Ttl,
    /// When the ground ends on which it was issued: the caller's own expiry, the end of a certificate.
    pub not_after: Option<Timestamp>,
}

impl Lifetime {
    /// The expiry of what is issued at `issued_at`, `wanted` long; zero asks for `default`.
    ///
    /// # Errors
    /// When a bound leaves less than a second.
    pub fn initial(&self, wanted: Ttl, default: Ttl) -> Result<Span, LifetimeError> {
        self.span(self.issued_at, wanted, default)
    }

    /// The expiry after a renewal at `now` that asks for `increment` from now on; zero asks for
    /// `default`.
    ///
    /// # Errors
    /// When a bound leaves less than a second.
    pub fn renewed(
        &self,
        now: Timestamp,
        increment: Ttl,
        default: Ttl,
    ) -> Result<Span, LifetimeError> {
        self.span(now, increment, default)
    }

    /// The moment that no renewal passes, under the bounds as they are now.
    pub fn latest(&self) -> Timestamp {
        self.end(Timestamp::MAX, self.issued_at).0
    }

    fn span(&self, now: Timestamp, wanted: Ttl, default: Ttl) -> Result<Span, LifetimeError> {
        let asked = if self.period.is_zero() { wanted.or(default) } else { self.period };
        // Without any default the bounds alone decide; without bounds there is still a longest one.
        let asked = asked.or(self.maximum()).or(Ttl::MAX);
        let (expires_at, cap) = self.end(now.plus(asked), now);
        let ttl = expires_at.remaining(now);
        if ttl.is_zero() {
            return Err(LifetimeError { cap: cap.unwrap_or(Cap::Maximum) });
        }
        // Nobody is told that a default was shortened: nobody asked for that length.
        let asked_for = !wanted.is_zero() || !self.period.is_zero();
        Ok(Span { expires_at, ttl, capped: cap.filter(|_| asked_for) })
    }

    fn maximum(&self) -> Ttl {
        self.role_max.limited_by(self.mount_max)
    }

    /// The earliest of `wanted` and all bounds, and which bound it was.
    fn end(&self, wanted: Timestamp, now: Timestamp) -> (Timestamp, Option<Cap>) {
        let since = if self.period.is_zero() { self.issued_at } else { now };
        let after = |start: Timestamp, ttl: Ttl| (!ttl.is_zero()).then(|| start.plus(ttl));
        let bounds = [
            (after(since, self.maximum()), Cap::Maximum),
            (after(self.issued_at, self.explicit_max), Cap::ExplicitMaximum),
            (self.not_after, Cap::Ground),
        ];
        let mut end = (wanted, None);
        for (bound, cap) in bounds {
            if let Some(bound) = bound
                && bound < end.0
            {
                end = (bound, Some(cap));
            }
        }
        end
    }
}

/// A computed lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// When it ends.
    pub expires_at: Timestamp,
    /// What is left of it in whole seconds; never zero.
    pub ttl: Ttl,
    /// What made it shorter than it was asked for.
    pub capped: Option<Cap>,
}

impl Span {
    /// What to tell a caller who got less than it asked for.
    pub fn warning(&self) -> Option<String> {
        self.capped.map(|cap| {
            format!("the lifetime is {} seconds, limited by {}", self.ttl.as_secs(), cap.name())
        })
    }
}

/// Which bound was the tightest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    /// The maximum fixed at issue.
    ExplicitMaximum,
    /// The end of the token or certificate that it was asked for with.
    Ground,
    /// The maximum of the role, mount or server.
    Maximum,
}

impl Cap {
    const fn name(self) -> &'static str {
        match self {
            Self::ExplicitMaximum => "the explicit maximum",
            Self::Ground => "the end of the caller's own token or certificate",
            Self::Maximum => "the configured maximum",
        }
    }
}

/// There is no time left to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("past {}", .cap.name())]
pub struct LifetimeError {
    /// Which bound has passed.
    pub cap: Cap,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: Ttl = Ttl::from_secs(3600);
    const DAY: Ttl = Ttl::from_secs(86_400);

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn what_is_asked_for_is_given_within_the_bounds() {
        let life = Lifetime { issued_at: at(100), mount_max: DAY, ..Lifetime::default() };
        let span = life.initial(Ttl::from_secs(60), HOUR).unwrap();
        assert_eq!((span.expires_at, span.ttl, span.capped), (at(160), Ttl::from_secs(60), None));
        let span = life.initial(Ttl::ZERO, HOUR).unwrap();
        assert_eq!((span.ttl, span.warning()), (HOUR, None));
        let span = life.initial(Ttl::MAX, HOUR).unwrap();
        assert_eq!((span.ttl, span.capped), (DAY, Some(Cap::Maximum)));
        assert!(span.warning().unwrap().contains("86400"));
    }

    #[test]
    fn a_renewal_counts_from_now_and_the_maximum_from_issue() {
        let life = Lifetime { issued_at: at(0), mount_max: HOUR, ..Lifetime::default() };
        let span = life.renewed(at(3000), HOUR, HOUR).unwrap();
        assert_eq!((span.expires_at, span.ttl), (at(3600), Ttl::from_secs(600)));
        assert_eq!(life.latest(), at(3600));
    }

    #[test]
    fn the_last_instant_is_over_and_not_for_ever() {
        let life = Lifetime { issued_at: at(0), mount_max: HOUR, ..Lifetime::default() };
        let refused = Err(LifetimeError { cap: Cap::Maximum });
        assert_eq!(life.renewed(Timestamp::from_millis(3_599_500), HOUR, HOUR), refused);
        assert_eq!(life.renewed(at(3600), HOUR, HOUR), refused);
        assert_eq!(life.renewed(at(9999), HOUR, HOUR), refused);
    }

    #[test]
    fn a_periodic_lifetime_goes_on_until_its_explicit_maximum_or_its_ground_ends() {
        let life = Lifetime {
            issued_at: at(0),
            mount_max: DAY,
            period: HOUR,
            explicit_max: Ttl::from_secs(10 * 86_400),
            not_after: Some(at(9 * 86_400)),
            ..Lifetime::default()
        };
        assert_eq!(life.renewed(at(5 * 86_400), DAY, DAY).unwrap().ttl, HOUR);
        let last = life.renewed(at(9 * 86_400 - 60), DAY, DAY).unwrap();
        assert_eq!((last.ttl, last.capped), (Ttl::from_secs(60), Some(Cap::Ground)));
        assert_eq!(life.renewed(at(9 * 86_400), DAY, DAY), Err(LifetimeError { cap: Cap::Ground }));
    }

    #[test]
    fn nothing_configured_is_still_bounded() {
        let span = Lifetime::default().initial(Ttl::ZERO, Ttl::ZERO).unwrap();
        assert_eq!(span.ttl, Ttl::MAX);
    }

    prop_compose! {
        fn bounds()(
            issued_at in 0i64..2_000_000_000,
            role_max in prop_oneof![Just(0), 1u64..200_000],
            mount_max in prop_oneof![Just(0), 1u64..200_000],
            explicit_max in prop_oneof![Just(0), 1u64..200_000],
            period in prop_oneof![Just(0), 1u64..200_000],
            not_after in proptest::option::of(-10i64..400_000_000),
        ) -> Lifetime {
            Lifetime {
                issued_at: Timestamp::from_millis(issued_at),
                role_max: Ttl::from_secs(role_max),
                mount_max: Ttl::from_secs(mount_max),
                explicit_max: Ttl::from_secs(explicit_max),
                period: Ttl::from_secs(period),
                not_after: not_after.map(|millis| Timestamp::from_millis(issued_at + millis)),
            }
        }
    }

    fn assert_nested(life: &Lifetime, now: Timestamp, span: Span) {
        assert!(!span.ttl.is_zero() && span.expires_at > now);
        assert!(now.plus(span.ttl) <= span.expires_at);
        assert!(life.not_after.is_none_or(|end| span.expires_at <= end));
        if !life.explicit_max.is_zero() {
            assert!(span.expires_at <= life.issued_at.plus(life.explicit_max));
        }
        let start = if life.period.is_zero() { life.issued_at } else { now };
        for max in [life.role_max, life.mount_max].into_iter().filter(|max| !max.is_zero()) {
            assert!(span.expires_at <= start.plus(max));
        }
        if !life.period.is_zero() {
            assert!(span.expires_at <= now.plus(life.period));
        }
    }

    proptest! {
        #[test]
        fn lifetimes_nest_at_issue_and_through_every_renewal(
            life in bounds(),
            wanted in prop_oneof![Just(0), 1u64..400_000, Just(u64::MAX)],
            default in 0u64..100_000,
            renewals in prop::collection::vec((0i64..90_000_000, 0u64..400_000), 0..12),
        ) {
            let default = Ttl::from_secs(default);
            let mut now = life.issued_at;
            let Ok(first) = life.initial(Ttl::from_secs(wanted), default) else { return Ok(()) };
            assert_nested(&life, now, first);
            for (pause, increment) in renewals {
                now = now.plus_millis(pause);
                if let Ok(span) = life.renewed(now, Ttl::from_secs(increment), default) {
                    assert_nested(&life, now, span);
                    if life.period.is_zero() {
                        prop_assert!(span.expires_at <= life.latest());
                    }
                }
            }
        }

        #[test]
        fn a_lifetime_inside_another_never_outlives_it(
            outer in bounds(), inner in bounds(), wanted in 0u64..400_000,
        ) {
            let wanted = Ttl::from_secs(wanted);
            let Ok(token) = outer.initial(wanted, Ttl::ZERO) else { return Ok(()) };
            let now = outer.issued_at;
            let inner = Lifetime { issued_at: now, not_after: Some(token.expires_at), ..inner };
            if let Ok(lease) = inner.initial(Ttl::MAX, Ttl::ZERO) {
                prop_assert!(lease.expires_at <= token.expires_at);
            }
        }
    }
}
