//! One-time passwords by counter (HOTP, RFC 4226) and by time (TOTP, RFC 6238).
//!
//! A code is worth something only while it is accepted once: [`TotpParameters::verify`] tells the time
//! step that a code belongs to, and whoever accepts it has to refuse that step and all before it from
//! then on (RFC 6238 section 5.2).

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use crate::types::secret::{SecretBytes, SecretString};
use crate::types::time::{Timestamp, Ttl};

pub mod barcode;
mod uri;

pub use uri::{OtpAuth, OtpUriError, decode_secret, encode_secret};

/// Longest time step.
pub const OTP_PERIOD_MAX: Ttl = Ttl::from_secs(3600);
/// Most time steps before and after the present one in which a code counts.
pub const OTP_SKEW_MAX: u8 = 1;
/// Fewest bytes of a shared secret that is made here: the length RFC 4226 section 4 (R6) demands.
pub const OTP_KEY_BYTES_MIN: usize = 16;
/// Bytes of a shared secret that is made here when nothing is said: what RFC 4226 recommends.
pub const OTP_KEY_BYTES_DEFAULT: usize = 20;
/// Fewest bytes of a shared secret that others made: many services hand out 80 bits.
pub const OTP_FOREIGN_KEY_BYTES_MIN: usize = 10;
/// Most bytes of a shared secret: the block of SHA-512, beyond which HMAC hashes the key anyway.
pub const OTP_KEY_BYTES_MAX: usize = 128;

/// The hash inside the HMAC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OtpAlgorithm {
    /// HMAC-SHA-1: what RFC 4226 defines, and what every app can do.
    #[default]
    #[serde(rename = "SHA1")]
    Sha1,
    /// HMAC-SHA-256 (RFC 6238 section 1.2).
    #[serde(rename = "SHA256")]
    Sha256,
    /// HMAC-SHA-512 (RFC 6238 section 1.2).
    #[serde(rename = "SHA512")]
    Sha512,
}

impl OtpAlgorithm {
    /// Reads `SHA1`, `SHA256` or `SHA512`. `None` when it is another.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "SHA1" => Some(Self::Sha1),
            "SHA256" => Some(Self::Sha256),
            "SHA512" => Some(Self::Sha512),
            _ => None,
        }
    }

    /// As `otpauth` addresses and stock clients spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
            Self::Sha512 => "SHA512",
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            // HMAC does not rest on what is broken in SHA-1, which is collision resistance.
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }
}

/// How long a code is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum OtpDigits {
    /// Six decimal digits.
    #[default]
    Six,
    /// Eight decimal digits.
    Eight,
}

impl OtpDigits {
    /// The number of digits.
    pub const fn count(self) -> u8 {
        match self {
            Self::Six => 6,
            Self::Eight => 8,
        }
    }

    const fn modulus(self) -> u32 {
        match self {
            Self::Six => 1_000_000,
            Self::Eight => 100_000_000,
        }
    }

    /// A code of this length: exactly so many ASCII digits. `None` for everything else.
    fn read(self, code: &str) -> Option<u32> {
        let fits = code.len() == usize::from(self.count())
            && code.bytes().all(|byte| byte.is_ascii_digit());
        if fits { code.parse().ok() } else { None }
    }

    fn write(self, number: u32) -> SecretString {
        SecretString::new(format!("{number:0width$}", width = usize::from(self.count())))
    }
}

impl From<OtpDigits> for u8 {
    fn from(digits: OtpDigits) -> Self {
        digits.count()
    }
}

impl TryFrom<u8> for OtpDigits {
    type Error = OtpError;

    fn try_from(count: u8) -> Result<Self, OtpError> {
        match count {
            6 => Ok(Self::Six),
            8 => Ok(Self::Eight),
            _ => Err(OtpError::Digits),
        }
    }
}

/// The code of `key` for `counter` (RFC 4226 section 5.3).
pub fn hotp(
    algorithm: OtpAlgorithm,
    digits: OtpDigits,
    key: &SecretBytes,
    counter: u64,
) -> SecretString {
    digits.write(truncated(algorithm, digits, key, counter))
}

fn truncated(algorithm: OtpAlgorithm, digits: OtpDigits, key: &SecretBytes, counter: u64) -> u32 {
    let key = hmac::Key::new(algorithm.hmac(), key.expose());
    let tag = hmac::sign(&key, &counter.to_be_bytes());
    let bytes = tag.as_ref();
    // The low four bits of the last byte say where the four bytes of the code begin. They are at most
    // 15, and no tag is shorter than 20 bytes, so there always are four.
    let offset = usize::from(bytes.last().copied().unwrap_or(0) & 0x0f);
    let chosen = bytes.iter().skip(offset).take(4);
    let number = chosen.fold(0u32, |number, byte| (number << 8) | u32::from(*byte));
    (number & 0x7fff_ffff) % digits.modulus()
}

/// How the codes of one key are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotpParameters {
    algorithm: OtpAlgorithm,
    digits: OtpDigits,
    period: Ttl,
    skew: u8,
}

impl Default for TotpParameters {
    /// SHA-1, six digits, 30 seconds, one step either way: what apps take for granted.
    fn default() -> Self {
        Self {
            algorithm: OtpAlgorithm::default(),
            digits: OtpDigits::default(),
            period: Ttl::from_secs(30),
            skew: 1,
        }
    }
}

impl TotpParameters {
    /// Codes that change every `period` and count in `skew` steps before and after their own.
    ///
    /// # Errors
    /// A period of zero or beyond [`OTP_PERIOD_MAX`], and a skew beyond [`OTP_SKEW_MAX`].
    pub fn new(
        algorithm: OtpAlgorithm,
        digits: OtpDigits,
        period: Ttl,
        skew: u8,
    ) -> Result<Self, OtpError> {
        if period.is_zero() || period > OTP_PERIOD_MAX {
            return Err(OtpError::Period);
        }
        if skew > OTP_SKEW_MAX {
            return Err(OtpError::Skew);
        }
        Ok(Self { algorithm, digits, period, skew })
    }

    /// The hash.
    pub const fn algorithm(&self) -> OtpAlgorithm {
        self.algorithm
    }

    /// The length of the codes.
    pub const fn digits(&self) -> OtpDigits {
        self.digits
    }

    /// How long one code is the present one.
    pub const fn period(&self) -> Ttl {
        self.period
    }

    /// How many steps before and after its own a code counts.
    pub const fn skew(&self) -> u8 {
        self.skew
    }

    /// The number of the time step that `now` lies in (RFC 6238 section 4.2, with T0 = 0).
    pub fn step_at(&self, now: Timestamp) -> u64 {
        let secs = u64::try_from(now.as_secs()).unwrap_or(0);
        secs.checked_div(self.period.as_secs()).unwrap_or(0)
    }

    /// When the time step `step` begins.
    pub fn begin_of(&self, step: u64) -> Timestamp {
        let secs = step.saturating_mul(self.period.as_secs());
        Timestamp::from_secs(i64::try_from(secs).unwrap_or(i64::MAX))
    }

    /// The code of `key` in the time step `step`.
    pub fn code(&self, key: &SecretBytes, step: u64) -> SecretString {
        hotp(self.algorithm, self.digits, key, step)
    }

    /// The time step whose code `code` is, when it counts at `now`; the latest, should two steps share
    /// a code. The time this takes depends on whether the code is well-formed and on nothing else.
    ///
    /// Whoever accepts the code must refuse the same and every earlier step from then on.
    pub fn verify(&self, key: &SecretBytes, code: &str, now: Timestamp) -> Option<u64> {
        let code = self.digits.read(code)?;
        let present = self.step_at(now);
        let skew = u64::from(self.skew);
        let mut found = 0u64;
        let mut matched = subtle::Choice::from(0);
        for step in present.saturating_sub(skew)..=present.saturating_add(skew) {
            let hit = truncated(self.algorithm, self.digits, key, step).ct_eq(&code);
            found.conditional_assign(&step, hit);
            matched |= hit;
        }
        bool::from(matched).then_some(found)
    }
}

/// Why codes cannot be made like this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OtpError {
    /// Neither six nor eight digits.
    #[error("must be 6 or 8")]
    Digits,
    /// No period, or one beyond [`OTP_PERIOD_MAX`].
    #[error("must be between 1 second and 1 hour")]
    Period,
    /// More steps than [`OTP_SKEW_MAX`].
    #[error("must be 0 or 1")]
    Skew,
}

#[cfg(test)]
mod tests;
