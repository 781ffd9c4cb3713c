//! `otpauth://totp/…` addresses, by which apps and services hand shared secrets over, and the base32
//! (RFC 4648 section 6) they are written in.

use data_encoding::BASE32_NOPAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use zeroize::Zeroizing;

use super::{
    OTP_FOREIGN_KEY_BYTES_MIN, OTP_KEY_BYTES_MAX, OtpAlgorithm, OtpDigits, OtpError, TotpParameters,
};
use crate::types::secret::{SecretBytes, SecretString};
use crate::types::time::Ttl;

/// Longest address that is read, in bytes.
const URI_BYTES_MAX: usize = 2048;
/// Longest issuer and longest account name, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// All but the characters that RFC 3986 section 2.3 leaves alone.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A shared secret in base32, in capitals and without padding, as apps show it.
pub fn encode_secret(key: &SecretBytes) -> SecretString {
    SecretString::new(BASE32_NOPAD.encode(key.expose()))
}

/// Reads a shared secret in base32: in capitals or not, with padding or not, and with the spaces that
/// services group its letters by.
///
/// # Errors
/// When it is not base32, or shorter or longer than a key may be.
pub fn decode_secret(text: &str) -> Result<SecretBytes, OtpUriError> {
    if text.len() > URI_BYTES_MAX {
        return Err(OtpUriError::SecretLength);
    }
    let letters = text.trim_end_matches('=').bytes().filter(|byte| *byte != b' ');
    let letters = Zeroizing::new(letters.map(|byte| byte.to_ascii_uppercase()).collect::<Vec<_>>());
    let bytes = BASE32_NOPAD.decode(&letters).map_err(|_| OtpUriError::SecretEncoding)?;
    let key = SecretBytes::new(bytes);
    if (OTP_FOREIGN_KEY_BYTES_MIN..=OTP_KEY_BYTES_MAX).contains(&key.len()) {
        Ok(key)
    } else {
        Err(OtpUriError::SecretLength)
    }
}

/// What an `otpauth://totp/…` address says.
pub struct OtpAuth {
    issuer: Option<String>,
    account: String,
    key: SecretBytes,
    parameters: TotpParameters,
}

impl OtpAuth {
    /// A key for `account` at `issuer`.
    ///
    /// # Errors
    /// When the account is empty, or either name is too long, begins with a space, or holds a colon or a
    /// control character.
    pub fn new(
        issuer: Option<&str>,
        account: &str,
        key: SecretBytes,
        parameters: TotpParameters,
    ) -> Result<Self, OtpUriError> {
        let issuer = issuer.filter(|issuer| !issuer.is_empty());
        if account.is_empty() {
            return Err(OtpUriError::NoAccount);
        }
        if !issuer.into_iter().chain([account]).all(is_name) {
            return Err(OtpUriError::Name);
        }
        let issuer = issuer.map(str::to_owned);
        Ok(Self { issuer, account: account.to_owned(), key, parameters })
    }

    /// Reads an address. The skew is no part of it: it is that of the default parameters.
    ///
    /// # Errors
    /// Anything but a well-formed address of a time-based key, in which nothing is said twice or
    /// contradicts something else.
    pub fn parse(uri: &str) -> Result<Self, OtpUriError> {
        if uri.len() > URI_BYTES_MAX {
            return Err(OtpUriError::Form);
        }
        let rest = uri.strip_prefix("otpauth://").ok_or(OtpUriError::Form)?;
        let rest = rest.strip_prefix("totp/").ok_or(OtpUriError::Type)?;
        let (label, query) = rest.split_once('?').ok_or(OtpUriError::NoSecret)?;
        if label.contains('/') || uri.contains('#') {
            return Err(OtpUriError::Form);
        }
        let label = decoded(label)?;
        // Spaces may follow the colon, and only there.
        let (prefix, account) = match label.split_once(':') {
            Some((issuer, account)) => (Some(issuer), account.trim_start_matches(' ')),
            None => (None, label.as_str()),
        };
        let said = Said::read(query)?;
        let issuer = match (prefix, said.issuer.as_deref()) {
            (Some(prefix), Some(issuer)) if prefix != issuer => return Err(OtpUriError::Issuers),
            (prefix, issuer) => issuer.or(prefix),
        };
        let key = said.key.ok_or(OtpUriError::NoSecret)?;
        let usual = TotpParameters::default();
        let parameters = TotpParameters::new(
            said.algorithm.unwrap_or(usual.algorithm()),
            said.digits.unwrap_or(usual.digits()),
            said.period.unwrap_or(usual.period()),
            usual.skew(),
        )?;
        Self::new(issuer, account, key, parameters)
    }

    /// The address, which holds the secret.
    pub fn to_uri(&self) -> SecretString {
        let issuer = self.issuer.as_deref().map(escaped);
        let label = match &issuer {
            Some(issuer) => format!("{issuer}:{}", escaped(&self.account)),
            None => escaped(&self.account),
        };
        let said_issuer = issuer.map(|issuer| format!("&issuer={issuer}")).unwrap_or_default();
        SecretString::new(format!(
            "otpauth://totp/{label}?algorithm={}&digits={}{said_issuer}&period={}&secret={}",
            self.parameters.algorithm().as_str(),
            self.parameters.digits().count(),
            self.parameters.period().as_secs(),
            encode_secret(&self.key).expose(),
        ))
    }

    /// Who the key is for codes of, when that is said.
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// Whose key it is.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// How codes are made.
    pub const fn parameters(&self) -> TotpParameters {
        self.parameters
    }

    /// The shared secret.
    pub const fn key(&self) -> &SecretBytes {
        &self.key
    }
}

/// The query of an address.
#[derive(Default)]
struct Said {
    issuer: Option<String>,
    key: Option<SecretBytes>,
    algorithm: Option<OtpAlgorithm>,
    digits: Option<OtpDigits>,
    period: Option<Ttl>,
}

impl Said {
    fn read(query: &str) -> Result<Self, OtpUriError> {
        let mut said = Self::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').ok_or(OtpUriError::Form)?;
            let value = decoded(&value.replace('+', "%20"))?;
            match name {
                "secret" => once(&mut said.key, decode_secret(&value)?)?,
                "issuer" => once(&mut said.issuer, value.to_string())?,
                "algorithm" => {
                    // Some services write it in small letters.
                    let algorithm = OtpAlgorithm::parse(&value.to_ascii_uppercase());
                    let algorithm = algorithm.ok_or(OtpUriError::Algorithm)?;
                    once(&mut said.algorithm, algorithm)?;
                }
                "digits" => {
                    let digits = value.parse::<u8>().map_err(|_| OtpError::Digits)?;
                    once(&mut said.digits, OtpDigits::try_from(digits)?)?;
                }
                "period" => {
                    let secs = value.parse::<u64>().map_err(|_| OtpError::Period)?;
                    once(&mut said.period, Ttl::from_secs(secs))?;
                }
                // A logo, which some services add for apps.
                "image" => {}
                _ => return Err(OtpUriError::Unknown),
            }
        }
        Ok(said)
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), OtpUriError> {
    if place.replace(value).is_some() { Err(OtpUriError::Twice) } else { Ok(()) }
}

fn is_name(name: &str) -> bool {
    // A space before the account would be taken for the one that may follow the issuer's colon.
    name.len() <= NAME_BYTES_MAX
        && !name.starts_with(' ')
        && !name.contains(':')
        && !name.chars().any(char::is_control)
}

fn escaped(name: &str) -> String {
    utf8_percent_encode(name, ESCAPED).to_string()
}

/// Percent-decoded text. Wiped when dropped: it may be the secret.
fn decoded(text: &str) -> Result<Zeroizing<String>, OtpUriError> {
    let mut escapes = text.split('%');
    let _before_the_first = escapes.next();
    let is_escape = |rest: &str| {
        rest.get(..2).is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    if !escapes.all(is_escape) {
        return Err(OtpUriError::Form);
    }
    let text = percent_decode_str(text).decode_utf8().map_err(|_| OtpUriError::Form)?;
    Ok(Zeroizing::new(text.into_owned()))
}

/// Why an address or a shared secret was not understood. Never quotes what was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OtpUriError {
    /// Not an address of this kind at all.
    #[error("is not of the form otpauth://totp/issuer:account?secret=…")]
    Form,
    /// A key that goes by counter, or something else.
    #[error("is not of type totp")]
    Type,
    /// Whose key it is is not said.
    #[error("names no account")]
    NoAccount,
    /// A name with a colon, control characters or a space before it, or too long a one.
    #[error(
        "has an issuer or account with a colon, a control character or a space before it, or over \
         256 bytes"
    )]
    Name,
    /// The label and the parameter name different issuers.
    #[error("names two different issuers")]
    Issuers,
    /// A parameter appears more than once.
    #[error("says the same thing twice")]
    Twice,
    /// A parameter that is not known.
    #[error("has a parameter other than secret, issuer, algorithm, digits, period and image")]
    Unknown,
    /// There is no secret.
    #[error("has no secret")]
    NoSecret,
    /// The secret is not base32.
    #[error("has a secret that is not base32")]
    SecretEncoding,
    /// The secret is too short to be one, or too long.
    #[error("has a secret that is not 10 to 128 bytes long")]
    SecretLength,
    /// Not SHA1, SHA256 or SHA512.
    #[error("has an algorithm other than SHA1, SHA256 and SHA512")]
    Algorithm,
    /// Codes cannot be made like this.
    #[error("has digits or a period that cannot be: {0}")]
    Parameters(#[from] OtpError),
}
