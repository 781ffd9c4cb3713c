//! Shares on their way in: their spelling, and the set that is being gathered.

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use zeroize::Zeroizing;

use crate::crypto::aead::KEY_BYTES;
use crate::types::id::random_uuid;
use crate::types::secret::{RandomError, SecretBytes};

use super::super::error::CoreError;

/// The value of the polynomial for each byte of the key, then its point.
const SHARE_BYTES: usize = KEY_BYTES + 1;

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

    /// The points that there are shares for.
    pub(super) fn points(&self) -> impl Iterator<Item = Option<&u8>> {
        self.shares.iter().map(|share| share.expose().last())
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

    /// Forgets the shares; the gathering goes on under the same nonce.
    pub(super) fn restart(&mut self) {
        self.shares.clear();
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
        set.restart();
        assert_eq!(set.len(), 0);
    }
}
