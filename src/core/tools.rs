//! Small services that depend on nothing stored: random bytes, and digests.

use data_encoding::{BASE64, HEXLOWER};
use serde_json::json;

use crate::crypto::digest::Hash;
use crate::types::secret::{SecretBytes, SecretString};

use super::engine::EngineRequest;
use super::error::CoreError;
use super::reply::Reply;
use super::route::{Answer, FieldKind, FieldSpec, field};

/// Random bytes of one answer, when none are asked for.
pub const RANDOM_BYTES_DEFAULT: u64 = 32;
/// Most random bytes of one answer.
pub const RANDOM_BYTES_MAX: u64 = 128 * 1024;

const FORMAT: FieldSpec = field("format", FieldKind::Text, "hex or base64.");
/// What a request for random bytes says.
pub const RANDOM_FIELDS: &[FieldSpec] = &[
    field("bytes", FieldKind::Integer, "How many: 1 to 131072 (default 32)."),
    field("source", FieldKind::Text, "Where from: platform."),
    FORMAT,
];
/// What a request for a digest says.
pub const HASH_FIELDS: &[FieldSpec] = &[
    field("input", FieldKind::Secret, "What is hashed, in base64."),
    field(
        "algorithm",
        FieldKind::Text,
        "sha2-256 (the default); sha2- or sha3-, and 224, 256, 384 or 512.",
    ),
    FORMAT,
];
/// What random bytes are answered as.
pub const RANDOM_ANSWER: Answer =
    Answer::Data(&[field("random_bytes", FieldKind::Secret, "The bytes, as asked for.")]);
/// What a digest is answered as.
pub const HASH_ANSWER: Answer =
    Answer::Data(&[field("sum", FieldKind::Text, "The digest, as asked for.")]);

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
    let algorithm = Hash::from_name(algorithm).filter(|hash| hash.resists_collisions());
    let algorithm = algorithm.ok_or_else(|| {
        CoreError::field("algorithm", "must be sha2- or sha3-, and 224, 256, 384 or 512")
    })?;
    let bytes = BASE64.decode(input.expose().as_bytes());
    let bytes = bytes.map_err(|_| CoreError::field("input", "is not base64"))?;
    Ok(encoding.write(&algorithm.digest(SecretBytes::new(bytes).expose())))
}

/// Serves a request for random bytes. What the path says (`urlbytes`, `source`) counts before what the
/// body says.
///
/// # Errors
/// As [`random`], and for malformed fields.
pub fn answer_random(request: &EngineRequest<'_>) -> Result<Reply, CoreError> {
    let (fields, path) = (&request.fields, request.params.get("urlbytes"));
    let mut source = Some(request.params.get("source").to_owned()).filter(|text| !text.is_empty());
    let mut count = None;
    match path.parse::<u64>() {
        Ok(number) => count = Some(number),
        Err(_) if path.is_empty() => {}
        Err(_) if source.is_none() => source = Some(path.to_owned()),
        Err(_) => return Err(CoreError::field("bytes", "must be a whole number")),
    }
    let source = match source {
        Some(source) => source,
        None => fields.text("source")?.unwrap_or_else(|| "platform".to_owned()),
    };
    let count = match count {
        Some(count) => count,
        None => fields.integer("bytes")?.unwrap_or(RANDOM_BYTES_DEFAULT),
    };
    let format = fields.text("format")?.unwrap_or_else(|| "base64".to_owned());
    let bytes = random(&source, count, Encoding::parse(&format)?)?;
    Ok(Reply::data(json!({ "random_bytes": bytes.expose() })))
}

/// Serves a request for a digest. What the path says (`urlalgorithm`) counts before what the body says.
///
/// # Errors
/// As [`hash`], and for malformed fields.
pub fn answer_hash(request: &EngineRequest<'_>) -> Result<Reply, CoreError> {
    let fields = &request.fields;
    let algorithm = match request.params.get("urlalgorithm") {
        "" => fields.text("algorithm")?.unwrap_or_else(|| "sha2-256".to_owned()),
        given => given.to_owned(),
    };
    let format = fields.text("format")?.unwrap_or_else(|| "hex".to_owned());
    let input = fields.secret("input")?.unwrap_or_else(|| SecretString::new(String::new()));
    let sum = hash(&algorithm, &input, Encoding::parse(&format)?)?;
    Ok(Reply::data(json!({ "sum": sum })))
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
        // FIPS 202 example.
        let hex = hash("sha3-224", &abc, Encoding::Hex).unwrap();
        assert_eq!(hex, "e642824c3f8cf24ad09234ee7d3c766fc9a3a5168d0c94ad73b46fdf");
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
            ("sha1", "algorithm"),
            ("sha3-255", "algorithm"),
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
