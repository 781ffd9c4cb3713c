//! Small services that depend on nothing stored: random bytes, and digests.

use data_encoding::{BASE64, HEXLOWER};

use crate::crypto::digest::Sha2;
use crate::types::secret::{SecretBytes, SecretString};

use super::error::CoreError;

/// Random bytes of one answer, when none are asked for.
pub const RANDOM_BYTES_DEFAULT: u64 = 32;
/// Most random bytes of one answer.
pub const RANDOM_BYTES_MAX: u64 = 128 * 1024;

/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Base64 (RFC 4648 §4).
    Base64,
    /// Hexadecimal in lower case.
    Hex,
}

impl Encoding {
    /// Reads `base64` or `hex`.
    ///
    /// # Errors
    /// When it is another.
    pub fn parse(text: &str) -> Result<Self, CoreError> {
        match text {
            "base64" => Ok(Self::Base64),
            "hex" => Ok(Self::Hex),
            _ => Err(CoreError::field("format", "must be hex or base64")),
        }
    }

    fn write(self, bytes: &[u8]) -> String {
        match self {
            Self::Base64 => BASE64.encode(bytes),
            Self::Hex => HEXLOWER.encode(bytes),
        }
    }
}

/// `count` random bytes from `source`, which can only be `platform`: the operating system's generator,
/// which all of our own keys come from.
///
/// # Errors
/// When there is no such source, or as many bytes are not given at once.
pub fn random(source: &str, count: u64, encoding: Encoding) -> Result<SecretString, CoreError> {
    if source != "platform" {
        let problem = "must be platform: there is no other source of randomness here";
        return Err(CoreError::field("source", problem));
    }
    let count = usize::try_from(count).ok().filter(|_| (1..=RANDOM_BYTES_MAX).contains(&count));
    let count = count.ok_or_else(|| CoreError::field("bytes", "must be 1 to 131072"))?;
    let bytes = SecretBytes::random(count)?;
    Ok(SecretString::new(encoding.write(bytes.expose())))
}

/// The digest of `input`, which is in base64.
///
/// # Errors
/// When there is no such algorithm, or the input is not base64.
pub fn hash(
    algorithm: &str,
    input: &SecretString,
    encoding: Encoding,
) -> Result<String, CoreError> {
    let algorithm = match algorithm {
        "sha2-224" => Sha2::Sha224,
        "sha2-256" => Sha2::Sha256,
        "sha2-384" => Sha2::Sha384,
        "sha2-512" => Sha2::Sha512,
        "sha3-224" | "sha3-256" | "sha3-384" | "sha3-512" => {
            let problem = "is of SHA-3, which is not served; use sha2-224, 256, 384 or 512";
            return Err(CoreError::field("algorithm", problem));
        }
        _ => {
            let problem = "must be sha2-224, sha2-256, sha2-384 or sha2-512";
            return Err(CoreError::field("algorithm", problem));
        }
    };
    let bytes = BASE64.decode(input.expose().as_bytes());
    let bytes = bytes.map_err(|_| CoreError::field("input", "is not base64"))?;
    Ok(encoding.write(&algorithm.digest(SecretBytes::new(bytes).expose())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standard_in_both_forms() {
        // FIPS 180-4 example, "abc".
        let abc = SecretString::new("YWJj".into());
        let hex = hash("sha2-224", &abc, Encoding::Hex).unwrap();
        assert_eq!(hex, "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7");
        let base64 = hash("sha2-256", &abc, Encoding::Base64).unwrap();
        assert_eq!(base64, "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
        let nothing = SecretString::new(String::new());
        let hex = hash("sha2-256", &nothing, Encoding::Hex).unwrap();
        assert_eq!(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn what_is_not_served_is_refused_by_field_and_not_repeated() {
        let input = SecretString::new("hunter2?".into());
        for (algorithm, field) in [
            ("sha3-256", "algorithm"),
            ("md5", "algorithm"),
            ("", "algorithm"),
            ("sha2-256", "input"),
        ] {
            let error = hash(algorithm, &input, Encoding::Hex).unwrap_err().to_string();
            assert!(error.starts_with(&format!("field \"{field}\"")), "{algorithm}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        for (source, count) in
            [("seal", 8), ("all", 8), ("", 8), ("platform", 0), ("platform", 131_073)]
        {
            assert_eq!(random(source, count, Encoding::Hex).unwrap_err().status(), 400);
        }
        assert!(random("platform", u64::MAX, Encoding::Hex).is_err());
        assert!(Encoding::parse("base58").is_err());
    }

    #[test]
    fn as_many_bytes_are_given_as_were_asked_for() {
        for count in [1, 32, RANDOM_BYTES_MAX] {
            let hex = random("platform", count, Encoding::Hex).unwrap();
            assert_eq!(HEXLOWER.decode(hex.expose().as_bytes()).unwrap().len() as u64, count);
            let base64 = random("platform", count, Encoding::Base64).unwrap();
            assert_eq!(BASE64.decode(base64.expose().as_bytes()).unwrap().len() as u64, count);
        }
        let (one, other) = (
            random("platform", 32, Encoding::Hex).unwrap(),
            random("platform", 32, Encoding::Hex).unwrap(),
        );
        assert!(!one.ct_eq(other.expose()));
    }
}
