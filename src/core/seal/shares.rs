//! Shares on their way in: their spelling, the set that is being gathered, and the brake on guessing.

use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use zeroize::Zeroizing;

use crate::crypto::aead::KEY_BYTES;
use crate::types::id::random_uuid;
use crate::types::secret::{RandomError, SecretBytes};
use crate::types::time::Ttl;

use super::super::error::CoreError;

/// The value of the polynomial for each byte of the key, then its point.
const SHARE_BYTES: usize = KEY_BYTES + 1;
/// Wrong sets that cost nothing: people mistype.
const FREE_FAILURES: u32 = 3;
/// Longest pause after a wrong set. A key of 256 bits is not guessed at any speed; the brake is there
/// so that trying is seen and cheap to bear, and short, so that it does not lock out the rightful.
const PAUSE_SECS_MAX: u64 = 30;

/// Reads a share, in hexadecimal or base64.
///
/// # Errors
/// When it is neither, or not as long as a share.
pub(super) fn parse_share(text: &str) -> Result<SecretBytes, CoreError> {
    let text = text.trim();
    // The two spellings of one length never have the same number of characters.
    let bytes = if text.len() == 2 * SHARE_BYTES {
        HEXLOWER_PERMISSIVE.decode(text.as_bytes())
    } else {
        BASE64.decode(text.as_bytes())
    };
    let bytes = bytes.map(Zeroizing::new).ok().filter(|bytes| bytes.len() == SHARE_BYTES);
    let share = bytes.map(|bytes| SecretBytes::copy_of(&bytes));
    share.ok_or_else(|| CoreError::field("key", "must be a share in hexadecimal or base64"))
}

/// What became of a share that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It is one more.
    New,
    /// It was given before.
    Known,
    /// Another one was given for the same point: one of the two is wrong.
    Conflict,
}

/// Shares gathered for one purpose.
#[derive(Default)]
pub(super) struct ShareSet {
    nonce: String,
    shares: Vec<SecretBytes>,
}

impl ShareSet {
    /// An empty set with a nonce.
    pub(super) fn begin() -> Result<Self, RandomError> {
        Ok(Self { nonce: random_uuid()?, shares: Vec::new() })
    }

    /// What tells this gathering from others.
    pub(super) fn nonce(&self) -> &str {
        &self.nonce
    }

    pub(super) fn len(&self) -> usize {
        self.shares.len()
    }

    /// Takes in a share. One that is given twice counts once.
    pub(super) fn add(&mut self, share: SecretBytes) -> Result<Added, RandomError> {
        if self.nonce.is_empty() {
            self.nonce = random_uuid()?;
        }
        let point = share.expose().last();
        match self.shares.iter().find(|known| known.expose().last() == point) {
            Some(known) if known.ct_eq(share.expose()) => Ok(Added::Known),
            Some(_) => Ok(Added::Conflict),
            None => {
                self.shares.push(share);
                Ok(Added::New)
            }
        }
    }

    /// Copies, for the thread that puts them together.
    pub(super) fn copies(&self) -> Vec<SecretBytes> {
        self.shares.iter().map(|share| SecretBytes::copy_of(share.expose())).collect()
    }

    /// Forgets the shares, and the nonce with them.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Forgets the shares; the gathering goes on under the same nonce.
    pub(super) fn restart(&mut self) {
        self.shares.clear();
    }
}

/// Slows down those who try sets of shares. Counts for this process; monotonic time.
#[derive(Debug, Default)]
pub(super) struct Brake {
    failures: u32,
    until: Duration,
}

impl Brake {
    /// Refuses while a pause lasts.
    pub(super) fn check(&self, now: Duration) -> Result<(), CoreError> {
        let left = self.until.saturating_sub(now);
        if left.is_zero() {
            return Ok(());
        }
        Err(CoreError::TooMany {
            message: "too many wrong keys, wait before trying again".to_owned(),
            retry_after: Ttl::from_secs(left.as_secs().saturating_add(1)),
        })
    }

    /// A set was wrong.
    pub(super) fn failed(&mut self, now: Duration) {
        metrics::counter!("leasehold_unseal_failures_total").increment(1);
        self.failures = self.failures.saturating_add(1);
        let beyond = self.failures.saturating_sub(FREE_FAILURES);
        if beyond > 0 {
            let pause = 1u64.checked_shl(beyond - 1).unwrap_or(PAUSE_SECS_MAX);
            self.until = now.saturating_add(Duration::from_secs(pause.min(PAUSE_SECS_MAX)));
        }
    }

    /// A set was right.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(y: u8, x: u8) -> SecretBytes {
        let mut bytes = vec![y; SHARE_BYTES];
        bytes[KEY_BYTES] = x;
        SecretBytes::new(bytes)
    }

    #[test]
    fn both_spellings_are_read_and_nothing_else() {
        let bytes = share(0xab, 9);
        let hex = HEXLOWER_PERMISSIVE.encode(bytes.expose());
        for text in
            [&hex, &hex.to_uppercase(), &BASE64.encode(bytes.expose()), &format!(" {hex}\n")]
        {
            assert!(parse_share(text).unwrap().ct_eq(bytes.expose()), "{text}");
        }
        for text in ["", "zz", &hex[2..], &format!("{hex}00"), "AAAA", &"z".repeat(66)] {
            let error = parse_share(text).unwrap_err();
            assert_eq!(error.status(), 400);
            assert!(text.is_empty() || !error.to_string().contains(text));
        }
    }

    #[test]
    fn a_share_counts_once_and_two_for_one_point_conflict() {
        let mut set = ShareSet::default();
        assert_eq!(set.nonce(), "");
        assert_eq!(set.add(share(1, 1)).unwrap(), Added::New);
        assert_eq!(set.nonce().len(), 36);
        assert_eq!(set.add(share(1, 1)).unwrap(), Added::Known);
        assert_eq!(set.add(share(2, 1)).unwrap(), Added::Conflict);
        assert_eq!(set.add(share(2, 2)).unwrap(), Added::New);
        assert_eq!(set.len(), 2);
        set.reset();
        assert_eq!((set.len(), set.nonce()), (0, ""));
    }

    #[test]
    fn the_brake_grips_after_a_few_failures_and_lets_go() {
        let mut brake = Brake::default();
        let at = Duration::from_secs;
        for _ in 0..FREE_FAILURES {
            brake.failed(at(100));
            brake.check(at(100)).unwrap();
        }
        brake.failed(at(100));
        let refused = brake.check(at(100)).unwrap_err();
        assert_eq!(refused.status(), 429);
        assert!(refused.retry_after().is_some());
        brake.check(at(102)).unwrap();
        for _ in 0..100 {
            brake.failed(at(200));
        }
        assert!(brake.check(at(229)).is_err());
        brake.check(at(230)).unwrap();
        brake.failed(at(300));
        brake.succeeded();
        brake.check(at(300)).unwrap();
    }
}
